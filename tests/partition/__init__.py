"""Tests of the partition: entities, timers and definitions as one pure fold."""
