"""Scans in processes of their own."""
