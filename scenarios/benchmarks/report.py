"""A table of figures: what was measured, how much of the limit it is."""

import os
import platform
import resource
import sqlite3
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


class Report:
    """Figures of one benchmark, printed as they stand in the docs."""

    def __init__(self, title: str, question: str) -> None:
        self._table = Table(title=title, caption=question, title_justify="left", caption_justify="left")
        for column in ("what", "figure", "ratio", "note"):
            self._table.add_column(column, justify="right" if column in ("figure", "ratio") else "left")

    def row(self, what: str, figure: str, ratio: str = "", note: str = "") -> None:
        """Add a figure."""
        self._table.add_row(what, figure, ratio, note)

    def print(self) -> None:
        """Print the table, and what it was measured on."""
        console = Console(width=120)
        console.print(self._table)
        console.print(
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, "
            f"{platform.machine()}"
        )


def rate(count: int, seconds: float) -> str:
    """Return how many a second, to read at a glance."""
    return f"{count / seconds:,.0f}/s"


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that `part` (0-1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def peak_mb() -> float:
    """Return the largest size this process had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024 / 1024


def peak_of(pid: int) -> float:
    """Return the largest size a process has had so far, in MB; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - not a file to a person
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0.0
