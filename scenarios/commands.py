"""The commands of the command line that run scenarios, beside those of `adapters/cli`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from typing import Literal as OneOf

import msgspec
from cyclopts import Parameter, validators
from rich.console import Console
from rich.markup import escape

from adapters.cli.options import Flag, MisusedError
from adapters.cli.running import waits
from adapters.cli.terminal import answers, write_json
from adapters.logs import configure_logs
from scenarios.format import duration_ms

if TYPE_CHECKING:
    from scenarios.runner import Report

PORT_DEFAULT = 8765


def _duration(_: Any, tokens: Any) -> float:
    try:
        return duration_ms(tokens[0].value) / 1000
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a duration, as in 30s or 5m.") from None


Duration = Annotated[float, Parameter(converter=_duration, n_tokens=1, accepts_keys=False, metavar="DURATION")]
"""A length of time on the command line, in seconds."""


@waits
async def demo(
    *,
    for_: Annotated[Duration | None, Parameter(name="--for")] = None,
    port: Annotated[int, Parameter(metavar="PORT")] = PORT_DEFAULT,
) -> int:
    """See Turnout at work: a daemon on real shop data, with audiences, a destination and live traffic.

    Everything lies in a temporary directory. A terminal shows a live picture, a pipe a line for each change. Ctrl-C
    ends it.

    Args:
        for_: End by itself after this long. [default: at Ctrl-C]
        port: Port that the daemon listens on; 0 takes a free one.
    """
    from scenarios import demo as demo_

    await demo_.demo(Console(highlight=False), port=port, for_s=for_)
    return 0


def simulate(
    paths: Annotated[list[Path] | None, Parameter(show_default=False)] = None,
    /,
    *,
    report: Annotated[OneOf["text", "json"], Parameter(name="--report")] = "text",
    seed: int | None = None,
    verbose: Flag = False,
    jobs: Annotated[int | None, Parameter(metavar="N", validator=validators.Number(gte=1))] = None,
    chaos: Annotated[int | None, Parameter(metavar="N", validator=validators.Number(gte=1))] = None,
    schema: Flag = False,
) -> int:
    """Run scenarios on a simulated clock and tell what differs from what they expect.

    A scenario is a YAML file; a folder stands for all that lie in it. The same file gives the same outcome, on every
    machine. The exit status is 1 if something differs, a file is no scenario, or there is none.

    Args:
        paths: Scenario files and folders.
        report: How to write the outcome.
        seed: Draw every random choice from this seed instead of the scenario's own.
        verbose: Tell step by step what happened.
        jobs: How many processes share the work. [default: as many as pay]
        chaos: Run each scenario this many times with random harmless faults, and demand that it ends the same.
        schema: Write the JSON schema of scenario files, for editors, instead.
    """
    if schema:
        from scenarios.format import json_schema

        sys.stdout.write(json_schema().decode())
        return 0
    if not paths:
        raise MisusedError("name scenario files or folders, as in: turnout simulate scenarios")
    from scenarios.runner import run_paths

    for path in paths:
        if not path.exists():
            raise MisusedError(f"{path}: there is no such file or folder")
    configure_logs("auto", "warning" if verbose else "critical")  # a simulated disk that is full is no news
    started = time.perf_counter()
    if chaos is not None:
        from scenarios.chaos import chaos_paths

        outcome = chaos_paths(paths, chaos, seed=seed, verbose=verbose, jobs=jobs)
    else:
        outcome = run_paths(paths, seed=seed, verbose=verbose, jobs=jobs)
    if report == "json":
        write_json(outcome.json())
    else:
        _tell(outcome, time.perf_counter() - started)
    return 0 if outcome.passed else 1


def _tell(outcome: "Report", seconds: float) -> None:
    """Write what differed, and how many passed."""
    console = answers()
    for one in outcome.scenarios:
        for line in one.trail:
            console.print(f"  {line}", markup=False, style="dim", soft_wrap=True)
        if one.passed:
            continue
        console.print(
            f"[bold red]differs[/] {escape(one.scenario or one.file)}  [dim]{escape(one.file)}[/]", soft_wrap=True
        )
        for failure in one.failures:
            if failure.at or failure.path:  # neither, where the file is no scenario
                console.print(f"  at {failure.at}, {failure.path}", markup=False, soft_wrap=True)
            console.print(f"    expected {_json(failure.expected)}", markup=False, soft_wrap=True)
            console.print(f"    found    {_json(failure.actual)}", markup=False, soft_wrap=True)
    passed = sum(one.passed for one in outcome.scenarios)
    failed = len(outcome.scenarios) - passed
    if not outcome.scenarios:
        console.print("no scenario was found: files end in .yaml")
    else:
        console.print(f"{passed:,} passed, {failed:,} failed in {seconds:,.1f} s")


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
