"""`turnout simulate`: run scenario files on a simulated clock, and say what differed."""

import sys
from pathlib import Path
from typing import Annotated
from typing import Literal as OneOf

import msgspec
from cyclopts import Parameter

from adapters.cli.options import MisusedError
from adapters.cli.terminal import note
from scenarios.runner import Outcome, Report, run_paths


def simulate_(
    *paths: Annotated[Path, Parameter(metavar="PATH")],
    report: Annotated[OneOf["text", "json"], Parameter(metavar="FORMAT")] = "text",
    seed: Annotated[int | None, Parameter(metavar="N")] = None,
    verbose: bool = False,
    jobs: Annotated[int | None, Parameter(metavar="N")] = None,
) -> int:
    """Run scenarios on the real engine under a simulated clock, and say what differed.

    Args:
        paths: Scenario files, and folders of them.
        report: text, or json as other programs read it. [default: text]
        seed: Used for every random choice instead of each scenario's own seed.
        verbose: Show what happened in each scenario, a line each.
        jobs: How many processes to use. [default: as many as pay]
    """
    if not paths:
        raise MisusedError("name at least one scenario file or folder")
    try:
        found = run_paths(paths, seed=seed, verbose=verbose, jobs=jobs)
    except FileNotFoundError as error:
        raise MisusedError(f"{error.args[0]}: no such file or folder") from None
    if report == "json":
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found.json()), indent=2).decode() + "\n")
    else:
        _tell(found)
    return 0 if found.passed else 1


def _tell(report: Report) -> None:
    """Say how it went, the failures in full."""
    for one in report.scenarios:
        for line in one.trail:
            sys.stdout.write(f"  {line}\n")
        sys.stdout.write(f"{'ok    ' if one.passed else 'FAILED'} {one.file}: {one.scenario}\n")
        _tell_failures(one)
    failed = sum(not one.passed for one in report.scenarios)
    if not report.scenarios:
        note("turnout: no scenario files (*.yaml) there")
    sys.stdout.write(f"{len(report.scenarios) - failed} passed, {failed} failed\n")


def _tell_failures(one: Outcome) -> None:
    for failure in one.failures:
        where = f"{failure.path or one.file} at {failure.at}" if failure.at else failure.path or one.file
        sys.stdout.write(f"       {where}\n")
        sys.stdout.write(f"         expected {_short(failure.expected)}\n")
        sys.stdout.write(f"         found    {_short(failure.actual)}\n")


def _short(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
