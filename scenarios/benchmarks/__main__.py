"""The command: `python -m scenarios.benchmarks NAME [--events N] [--profiles N] [--definitions N]`, or `all`."""

import argparse
import importlib
import inspect
import sys
from typing import Final

BENCHMARKS: Final = (
    "ingest",
    "react",
    "replay",
    "restart",
    "conditions",
    "definitions",
    "funnels",
    "state",
    "memory",
    "backfill",
    "meanwhile",
    "export",
    "deliver",
    "lag",
    "connect",
    "identity",
    "account",
    "merge",
    "simulate",
    "check",
)


def main() -> int:
    """Run one benchmark, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.benchmarks")
    parser.add_argument("name", choices=(*BENCHMARKS, "all"))
    parser.add_argument("--events", type=int)
    parser.add_argument("--profiles", type=int)
    parser.add_argument("--definitions", type=int)
    asked = parser.parse_args()
    for name in BENCHMARKS if asked.name == "all" else (asked.name,):
        run = importlib.import_module(f"scenarios.benchmarks.{name}").run
        given = {"events": asked.events, "profiles": asked.profiles, "definitions": asked.definitions}
        takes = inspect.signature(run).parameters
        run(**{key: value for key, value in given.items() if value is not None and key in takes})
    return 0


if __name__ == "__main__":
    sys.exit(main())
