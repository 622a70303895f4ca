"""Tests of the event log's parts."""
