"""Tests of what leaves: buckets, retries, payloads, adapters and the loop that drives them."""
