"""Turnout on a simulated clock, and the programs that need all of it: scenarios, workloads, demo, command line."""
