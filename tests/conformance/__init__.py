"""One suite for each interface, run against all that implement it."""
