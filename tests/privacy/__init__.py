"""Deletion, suppression, retention and backups, proved on the bytes of the files."""
