"""Tests of the console, over real sockets against a real daemon."""
