"""Tests of the scenarios, the worlds they run in, and the programs around them."""
