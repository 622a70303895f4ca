"""The daemon killed at random moments, and what must be true afterwards."""
