"""What is written where: answers to standard output, everything about the work itself to standard error.

A person at a terminal gets colours, tables and progress bars; a pipe or a file gets plain lines and nothing that moves.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eventlog.errors import QueryError

PIPE_COLUMNS: Final = 160  # of tables that go to a pipe or a file: wide enough not to fold names and definitions
LINES_AT_ONCE: Final = 5_000  # written in one call: a list of a million members is 200 writes

_encode = msgspec.json.Encoder().encode


def answers() -> Console:
    """Return where answers go."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def notes() -> Console:
    """Return where news about the work goes: progress, warnings, errors."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def write_json(value: Any) -> None:
    """Write one JSON value and a line end to standard output."""
    sys.stdout.write(_encode(value).decode() + "\n")


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output, some thousands at a time."""
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) == LINES_AT_ONCE:
            sys.stdout.write("\n".join(batch) + "\n")
            batch.clear()
    if batch:
        sys.stdout.write("\n".join(batch) + "\n")


def note(text: str) -> None:
    """Write a line about the work to standard error."""
    notes().print(text, markup=False)


def complain(error: Exception | str, query: str | None = None) -> None:
    """Write what went wrong; for an error in a definition, show the place in it."""
    console = notes()
    console.print(f"[bold red]turnout:[/] {escape(str(error))}")
    if query is not None and isinstance(error, QueryError):
        console.print(escape(pointed_at(query, error.line, error.column)))


def pointed_at(query: str, line: int, column: int) -> str:
    """Return a line of a definition with a caret under one of its columns (both from 1)."""
    lines = query.splitlines() or [""]
    text = lines[min(line, len(lines)) - 1]
    indent = "".join("\t" if character == "\t" else " " for character in text[: column - 1]).ljust(column - 1)
    return f"    {text}\n    {indent}^"


class Bar:
    """A progress bar that work reports to; nothing is shown where nobody watches."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def to(self, done: float, **fields: Any) -> None:
        """Move to an amount done."""
        self._progress.update(self._task, completed=done, **fields)

    def of(self, total: float) -> None:
        """Say how much there is to do."""
        self._progress.update(self._task, total=total)

    def rename(self, what: str) -> None:
        """Say what is worked on now."""
        self._progress.update(self._task, description=what)


@contextmanager
def bar(what: str, total: float | None = None, *columns: ProgressColumn, **fields: Any) -> Iterator[Bar]:
    """Show a progress bar on standard error while the work goes on.

    Args:
        what: what is worked on.
        total: how much there is to do, None where that is not known.
        columns: what stands between the bar and the times; how many of how many by default.
        fields: first values of what the columns show.
    """
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *(columns or (MofNCompleteColumn(),)),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes(),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        yield Bar(progress, progress.add_task(what, total=total, **fields))
