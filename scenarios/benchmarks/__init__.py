"""What Turnout can do on this machine, each figure beside a limit or a peer measured in the same run.

    python -m scenarios.benchmarks NAME [--events N …]

`docs/benchmarks.md` has what was measured, and says what each does not show. Nothing here is asserted: machines differ.
"""
