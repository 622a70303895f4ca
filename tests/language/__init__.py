"""Tests of the definition language."""
