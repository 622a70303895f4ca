"""`turnout replay`, with `--with definitions.yaml` beside what `adapters/cli/replaying.py` does.

The log is opened for reading alone, and read up to where it ended then: a daemon may go on writing to it.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from typing import Literal as OneOf

import anyio
import msgspec
from cyclopts import Group, Parameter
from rich.table import Table as Grid

from adapters.cli import replaying
from adapters.cli.opened import path_of
from adapters.cli.options import THIS, WHERE, Flag, Folder, Instant, MisusedError, Output
from adapters.cli.terminal import answers, bar, note, write_json
from eventlog.entries import IdAdded
from eventlog.errors import InvalidError, NotFoundError
from eventlog.instants import iso
from eventlog.log import Log
from eventlog.sqlite import SqliteLog
from scenarios.what_if import Day, Outcome, held_in, replayed_with
from scenarios.what_if_file import definitions_in
from scenarios.what_if_picture import picture

WHAT_IF = Group("What if", sort_key=2)


def replay(
    *,
    with_: Annotated[Path | None, Parameter(name="--with", group=WHAT_IF, metavar="FILE")] = None,
    since: Annotated[Instant | None, Parameter(group=WHAT_IF)] = None,
    until: Annotated[Instant | None, Parameter(group=WHAT_IF)] = None,
    csv_: Annotated[Path | None, Parameter(name="--csv", group=WHAT_IF, metavar="FILE")] = None,
    who: Annotated[Path | None, Parameter(group=WHAT_IF, metavar="FILE")] = None,
    svg: Annotated[Path | None, Parameter(group=WHAT_IF, metavar="FILE")] = None,
    report: Annotated[OneOf["text", "json"], Parameter(group=WHAT_IF)] = "text",
    as_of: Instant | None = None,
    check: Flag = False,
    space: Annotated[str | None, Parameter(group=WHERE, metavar="SPACE")] = None,
    format: Output = "text",
    folder: Folder = THIS,
) -> int:
    """Fold the whole log anew: build everything beside it again, or, with an option, only look.

    Without an option what lies beside the log (identities, memberships, states) is built anew, in place, in all spaces.
    Nothing goes to destinations.

    Args:
        with_: Change nothing; tell day by day who would have entered and left under this file's definitions.
        since: The first day (UTC) to tell of. [default: all]
        until: Tell of days before this time. [default: all]
        csv_: Write the days to this file.
        who: Write everybody who entered or left, in fact or only then, to this CSV file.
        svg: Draw the sizes over time to this file.
        report: How to write the days.
        as_of: Change nothing; tell how large each audience was at this time (ISO 8601), as it was known then.
        check: Change nothing; compare what follows from the log with what stands; any difference is told and fails.
        space: Look at this one alone, by id or slug (with --with by id). [default: every space]
        format: How to write the answer.
        folder: The data directory.
    """
    if with_ is None:
        if (since, until, csv_, who, svg) != (None,) * 5 or report != "text":
            raise MisusedError("--since, --until, --csv, --who, --svg and --report go with --with")
        return int(replaying.replay(as_of=as_of, check=check, space=space, format=format, folder=folder))
    if check or as_of is not None:
        raise MisusedError("--with stands alone: neither --check nor --as-of goes with it")
    path = _log_of(path_of(folder.target()), space)
    outcome, names = anyio.run(what_if, path, with_, since, until, backend_options={"use_uvloop": True})
    if csv_ is not None:
        _write_csv(csv_, Day.__struct_fields__, map(_row, outcome.days))
    if who is not None:
        head = ("day", "key", "id_type", "id", "change", "would", "did")
        _write_csv(who, head, _people(outcome, names))
    if svg is not None:
        _write_text(svg, picture(outcome.days))
    if report == "json" or format == "json":
        write_json({"days": [dict(zip(Day.__struct_fields__, _row(one), strict=True)) for one in outcome.days]})
    else:
        _show(outcome)
    return 0


async def what_if(
    path: Path, file: Path, since_ms: int | None, until_ms: int | None
) -> tuple[Outcome, dict[int, tuple[str, str]]]:
    """Return what a log gives under a file's definitions, and an external id of everybody told of."""
    log = await SqliteLog.open(path, read_only=True)
    try:
        until_seq = log.last_seq
        held = held_in(one for _, facts in log.read_facts(0, until_seq) for one in facts)
        drafts = definitions_in(file, held)
        with bar("what if", until_seq) as show:
            outcome = replayed_with(log.read(0, until_seq), drafts, held, show.to).outcome(
                since_ms=since_ms, until_ms=until_ms
            )
        return outcome, _names(log, until_seq, {one.entity for one in outcome.moves})
    finally:
        await log.close()


def _names(log: Log, until_seq: int, entities: set[int]) -> dict[int, tuple[str, str]]:
    """Return user_id (group_id) of each, else its first external id."""
    names: dict[int, tuple[str, str]] = {}
    for _, facts in log.read_facts(0, until_seq):
        for _, fact in facts:
            if isinstance(fact, IdAdded) and fact.entity in entities:
                known = names.get(fact.entity)
                if known is None or (fact.id_type in ("user_id", "group_id") and known[0] != fact.id_type):
                    names[fact.entity] = (fact.id_type, fact.value)
    return names


def _log_of(data: Path, space: str | None) -> Path:
    ids = sorted(path.stem for path in (data / "spaces").glob("*.log"))
    if space is None and len(ids) > 1:
        raise MisusedError(f"there are several spaces; name one with --space: {', '.join(ids)}")
    if not ids or (space is not None and space not in ids):
        raise NotFoundError("not_found", f"no space {space!r} in {data}; it has {', '.join(ids) or 'none'}")
    return data / "spaces" / f"{space or ids[0]}.log"


def _row(day: Day) -> tuple[Any, ...]:
    values = msgspec.structs.astuple(day)
    return (values[0], iso(day.day_ms)[:10], *values[2:])


def _people(outcome: Outcome, names: dict[int, tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
    for one in outcome.moves:
        name = names.get(one.entity, ("", ""))
        yield iso(one.day_ms)[:10], one.key, name[0], _safe(name[1]), one.direction, one.would, one.did


def _safe(cell: str) -> str:
    """Return a cell that no spreadsheet runs (contract, section 7)."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(head)
            writer.writerows(rows)
    except OSError as error:
        raise InvalidError("unwritable", f"{path}: cannot be written: {error.strerror}") from None


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidError("unwritable", f"{path}: cannot be written: {error.strerror}") from None


def _show(outcome: Outcome) -> None:
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    heads = ("day", "key", "would be", "entered", "left", "was", "entered", "left", "difference")
    for place, head in enumerate(heads):
        grid.add_column(head, justify="left" if place < 2 else "right")
    for one in outcome.days:
        numbers = (one.size, one.entered, one.left, one.actual_size, one.actual_entered, one.actual_left)
        told = ["-" if number is None else f"{number:,}" for number in numbers]
        differs = "-" if one.actual_size is None else f"{one.size - one.actual_size:+,}"
        grid.add_row(iso(one.day_ms)[:10], one.key, *told, differs)
    answers().print(grid)
    note(f"{outcome.last_seq:,} entries folded; days are UTC, sizes those at their end")
