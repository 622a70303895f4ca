"""Tests of HTTP in and out."""
