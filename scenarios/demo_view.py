"""What the demo shows: audience sizes, the latest changes, what the destination received.

A terminal gets one picture that is drawn anew; anything else gets a line for each change.
"""

from collections import deque
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

CHANGES_SHOWN: Final = 9
CALLS_SHOWN: Final = 6
FRAME_LINES: Final = 11  # title, news, address, the console's in two, a blank, the table's head, two panels' edges
FULL_LINES: Final = 100


class AudienceRow(Struct):
    """An audience of the demo and how many are in it."""

    name: str
    what: str  # its definition in words
    size: int
    first_size: int


class Change(Struct, frozen=True):
    """Someone entered or left an audience."""

    at_ms: int
    who: str
    audience: str
    entered: bool
    why: str


class Call(Struct, frozen=True):
    """A request that the destination received."""

    at_ms: int
    event: str
    who: str
    audience: str
    is_signed: bool


class Shown:
    """Everything on the picture."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.news = ""
        self.address = ""  # of the daemon, and a token for it
        self.console = ""  # where its pages are looked at
        self.audiences: dict[str, AudienceRow] = {}  # by key
        self.changes: deque[Change] = deque(maxlen=CHANGES_SHOWN)
        self.calls: deque[Call] = deque(maxlen=CALLS_SHOWN)
        self.calls_received = 0
        self.events_played = 0
        self.events_to_play = 0

    def picture(self, height: int = FULL_LINES) -> RenderableType:
        """Return what a terminal of so many lines shows: fewer changes and calls where there is less room."""
        room = max(2, height - 1 - FRAME_LINES - len(self.audiences))
        calls = min(CALLS_SHOWN, room * CALLS_SHOWN // (CALLS_SHOWN + CHANGES_SHOWN))
        changes = min(CHANGES_SHOWN, room - calls)
        played = f"{self.news}; {self.events_played:,} of {self.events_to_play:,} events played live"
        return Group(
            Text(self.title, style="bold"),
            Text(played),
            *(Text(line, style="dim") for line in (self.address, self.console) if line),
            Text(),
            self._sizes(),
            Panel(self._changes(changes), title="latest changes", title_align="left", border_style="dim"),
            Panel(
                self._calls(calls),
                title=f"what the webhook destination received: {self.calls_received:,} calls",
                title_align="left",
                border_style="dim",
            ),
        )

    def _sizes(self) -> Table:
        table = Table(expand=True, box=None, padding=(0, 1))
        table.add_column("audience", no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True)
        table.add_column("live", justify="right", no_wrap=True)
        table.add_column("who", style="dim", ratio=1)
        for row in self.audiences.values():
            moved = row.size - row.first_size
            style = "green" if moved > 0 else "red" if moved < 0 else "dim"
            table.add_row(row.name, f"{row.size:,}", Text(f"{moved:+,}" if moved else "", style=style), row.what)
        return table

    def _changes(self, most: int) -> Table:
        grid = _grid()
        for change in list(reversed(self.changes))[:most]:
            verb, style = ("enters", "green") if change.entered else ("leaves", "red")
            grid.add_row(clock(change.at_ms), change.who, Text(verb, style=style), change.audience, change.why)
        return _filled(grid, most - len(self.changes))

    def _calls(self, most: int) -> Table:
        grid = _grid()
        for call in list(reversed(self.calls))[:most]:
            signed = "signature good" if call.is_signed else Text("signature WRONG", style="bold red")
            grid.add_row(clock(call.at_ms), call.who, call.event, call.audience, signed)
        return _filled(grid, most - len(self.calls))


def change_line(change: Change) -> str:
    """Return a change as a line for a pipe."""
    verb = "enters" if change.entered else "leaves"
    return f"{clock(change.at_ms)}  {change.who} {verb} {change.audience} ({change.why})"


def call_line(call: Call) -> str:
    """Return a request that the destination received as a line for a pipe."""
    signed = "signature good" if call.is_signed else "signature WRONG"
    return f"{clock(call.at_ms)}  webhook got {call.event}: {call.who}, {call.audience} ({signed})"


def clock(at_ms: int) -> str:
    """Return the time of day, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment:%H:%M:%S}.{at_ms % 1000:03d}"


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim", ratio=1, no_wrap=True)
    return grid


def _filled(grid: Table, empty: int) -> Table:
    """Keep the panel's height, so that the picture does not jump."""
    for _ in range(empty):
        grid.add_row("", "", "", "", "")
    return grid
