"""Tests of the CSV export."""
