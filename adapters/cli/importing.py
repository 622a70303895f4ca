"""`turnout import`: tracking-API messages from NDJSON files into a space's log.

A line is judged as a call over HTTP would be; a bad one is recorded with its reason and does not sink the rest.
Importing the same lines again changes nothing, as long as the space remembers their message ids (24 h unless set
otherwise). A line without a `messageId` gets one made of its number and its text, for the same reason.
"""

import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Protocol

from cyclopts import Parameter
from msgspec import Struct
from rich.progress import DownloadColumn, TextColumn

from adapters.cli.lines import LINE_BYTES_MAX, Block, UnreadableFileError, blocks, size_bytes
from adapters.cli.options import HERE, MisusedError, Output, Target
from adapters.cli.running import waits
from adapters.cli.terminal import Bar, bar, complain, note, write_json
from eventlog.entries import Rejected

REASONS_SHOWN: Final = 5  # of refused lines of one file; all of them are in the list of rejected events
ID_CHARS: Final = 32  # of a made message id: 128 bits


class Line(Struct, frozen=True, gc=False):
    """A line of a file that is not empty."""

    number: int
    text: bytes


class Taken(Struct, frozen=True):
    """What became of some lines."""

    taken: int
    known: int  # their message ids had been taken before
    refused: list[Rejected]  # `index` is the line's number


class Intake(Protocol):
    """Where imported lines go."""

    async def take(self, lines: list[Line]) -> Taken:
        """Take lines; return once what was taken is durable."""


class Tally(Struct):
    """What became of a file's lines so far."""

    lines: int = 0
    taken: int = 0
    known: int = 0
    refused: int = 0
    reasons: list[Rejected] = []
    failure: str | None = None

    def add(self, taken: Taken) -> None:
        """Count some more lines."""
        self.taken += taken.taken
        self.known += taken.known
        self.refused += len(taken.refused)
        self.lines += taken.taken + taken.known + len(taken.refused)
        self.reasons += taken.refused[: REASONS_SHOWN - len(self.reasons)]


def message_id_of(line: Line) -> str:
    """Return the message id that a line without one gets: the same whenever the file is read."""
    return "import-" + sha256(b"%d:%b" % (line.number, line.text)).hexdigest()[:ID_CHARS]


def lines_of(block: Block) -> list[Line]:
    """Return a block's lines that hold something."""
    return [Line(number, text) for number, text in enumerate(block.lines, block.first_line) if text.strip()]


def refused_for_length(line: Line, source: str) -> Rejected:
    """Return the refusal of a line that was cut at the bound."""
    message = f"a line of more than {LINE_BYTES_MAX:,} bytes; one message is at most 32 KB"
    return Rejected(line.number, "", "event_too_large", message, source, line.text[: 32 * 1024])


async def import_file(name: str, intake: Intake, show: Bar, done_bytes: int) -> Tally:
    """Import one file and return what became of its lines; an unreadable end is told, what came before it is kept."""
    tally = Tally()
    started = time.perf_counter()
    try:
        for block in blocks(name):
            tally.add(await intake.take(lines_of(block)))
            rate = tally.lines / (time.perf_counter() - started)
            show.to(done_bytes + block.read_bytes, rate=f"{rate:,.0f} lines/s")
    except UnreadableFileError as error:
        tally.failure = str(error)
    return tally


@waits
async def import_(
    files: Annotated[list[str], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    source: Annotated[str | None, Parameter(metavar="ID")] = None,
    format: Output = "text",
    target: Target = HERE,
) -> int:
    """Import tracking-API messages from NDJSON files, plain or packed (.gz, .zst); - is standard input.

    Idempotent by messageId. Times are the messages' own. A bad line is reported and recorded, and does not sink the
    rest; the exit status is 1 if a file cannot be read to its end or nothing at all was taken.

    Args:
        files: The files, one message a line.
        source: The source that the messages count as coming from, by id. [default: the space's first one]
        format: How to write the outcome.
        target: Where the data is.
    """
    if len(set(files)) < len(files):
        raise MisusedError("a file is named twice")
    from adapters.cli.intake import intake_of

    _refuse_nothing_to_read(files)
    tallies: dict[str, Tally] = {}
    sizes = [size_bytes(name) for name in files]
    total = sum(size or 0 for size in sizes) if None not in sizes else None
    started = time.perf_counter()
    columns = (DownloadColumn(), TextColumn("{task.fields[rate]}"))
    async with intake_of(target, source) as intake:
        with bar("importing", total, *columns, rate="") as show:
            done_bytes = 0
            for name, size in zip(files, sizes, strict=True):
                show.rename(Path(name).name)
                tallies[name] = await import_file(name, intake, show, done_bytes)
                done_bytes += size or 0
    _report(tallies, time.perf_counter() - started, format)
    failed = any(tally.failure for tally in tallies.values())
    nothing = any(tally.refused for tally in tallies.values()) and not any(_good(tallies.values()))
    return 1 if failed or nothing else 0


def _refuse_nothing_to_read(files: list[str]) -> None:
    """Refuse files of which none is there: a misspelt name must not make a data directory."""
    if not any(name == "-" or Path(name).exists() for name in files):
        raise UnreadableFileError(files[0], 0, "No such file or directory")


def _good(tallies: Iterable[Tally]) -> list[int]:
    return [tally.taken + tally.known for tally in tallies]


def _report(tallies: dict[str, Tally], seconds: float, format: Output) -> None:
    if format == "json":
        write_json({"files": [_as_json(name, tally) for name, tally in tallies.items()], "seconds": round(seconds, 3)})
        return
    for name, tally in tallies.items():
        note(f"{name}: {tally.taken:,} taken, {tally.known:,} known already, {tally.refused:,} refused")
        for reason in tally.reasons:
            note(f"  line {reason.index}: {reason.code}: {reason.message}")
        if tally.refused > len(tally.reasons):
            note(f"  … and {tally.refused - len(tally.reasons):,} more, in the list of rejected events")
        if tally.failure:
            complain(tally.failure)
    lines = sum(tally.lines for tally in tallies.values())
    note(f"{lines:,} lines in {seconds:,.1f} s ({lines / seconds:,.0f} lines/s)")


def _as_json(name: str, tally: Tally) -> dict[str, object]:
    reasons = [{"line": r.index, "code": r.code, "message": r.message} for r in tally.reasons]
    row = {"file": name, "taken": tally.taken, "known": tally.known, "refused": tally.refused, "reasons": reasons}
    return row if tally.failure is None else {**row, "failure": tally.failure}
