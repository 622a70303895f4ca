"""The destination types, one file each, and what performs their requests."""
