"""Tests of what a question about events keeps and how it answers."""
