"""Tests of a space: the partition, identity and definitions wired to a log and a clock."""
