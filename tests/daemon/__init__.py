"""Tests of the daemon: its settings, its start and stop."""
