"""`turnout replay`, with `--with definitions.yaml` beside what `adapters/cli/replaying.py` does.

The log is opened for reading alone, and read up to where it ended then: a daemon may go on writing to it.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from typing import Literal as OneOf

import anyio
import msgspec
from cyclopts import Group, Parameter
from msgspec import Struct
from rich.table import Table as Grid

from adapters.cli import replaying
from adapters.cli.opened import path_of
from adapters.cli.options import THIS, WHERE, Flag, Folder, Instant, MisusedError, Output
from adapters.cli.replay_snapshot import scratch, spaces_in
from adapters.cli.terminal import answers, bar, note
from eventlog.entries import IdAdded
from eventlog.errors import InvalidError
from eventlog.instants import iso
from eventlog.log import Log
from eventlog.sqlite import SqliteLog
from scenarios.what_if import Day, WhatIf, held_in, replayed_with
from scenarios.what_if_file import definitions_in
from scenarios.what_if_picture import picture

WHAT_IF = Group("What if", sort_key=2)
PEOPLE = ("day", "key", "id_type", "id", "change", "would", "did")


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
    Nothing goes to destinations. To only look, a snapshot is taken: a daemon may be at work meanwhile.

    Args:
        with_: Change nothing; tell day by day who would have entered and left under this file's definitions.
        since: The first day (UTC) to tell of. [default: all]
        until: Tell of days before this time. [default: all]
        csv_: Write the days to this file.
        who: Write everybody who entered or left, in fact or only then, to this CSV file.
        svg: Draw the sizes over time to this file.
        report: How to write the days.
        as_of: Change nothing; tell how large each audience was at this time (ISO 8601), as it was known then.
        check: Change nothing; compare what follows from the log with all that stands; any difference is told and fails.
        space: Look at this one alone, by id or slug. [default: every space]
        format: How to write the answer.
        folder: The data directory.
    """
    if with_ is None:
        if (since, until, csv_, who, svg) != (None,) * 5 or report != "text":
            raise MisusedError("--since, --until, --csv, --who, --svg and --report go with --with")
        return int(replaying.replay(as_of=as_of, check=check, space=space, format=format, folder=folder))
    if check or as_of is not None:
        raise MisusedError("--with stands alone: neither --check nor --as-of goes with it")
    data = path_of(folder.target())
    as_json = report == "json" or format == "json"
    wants_names = as_json or who is not None
    ask = Asked(data, space, with_, since, until, wants_names)
    fold, names = anyio.run(what_if, ask, backend_options={"use_uvloop": True})
    if csv_ is not None:
        _write_csv(csv_, Day.__struct_fields__, map(_row, fold.days()))
    if who is not None:
        _write_csv(who, PEOPLE, _people(fold, names))
    if svg is not None:
        _write_text(svg, picture(fold.days()))
    if as_json:
        _write_json(fold, names)
    else:
        _show(fold)
    return 0


class Asked(Struct, frozen=True):
    """What is to be found out."""

    data: Path
    space: str | None  # id or slug
    file: Path
    since_ms: int | None
    until_ms: int | None
    wants_names: bool


async def what_if(asked: Asked) -> tuple[WhatIf, dict[int, tuple[str, str]]]:
    """Return what a log gives under a file's definitions, and an external id of everybody told of, if wanted."""
    spaces = await spaces_in(asked.data, asked.space)
    if len(spaces) > 1:
        slugs = ", ".join(one.slug for one in spaces)
        raise MisusedError(f"there are several spaces; name one with --space: {slugs}")
    log = await SqliteLog.open(asked.data / "spaces" / f"{spaces[0].id}.log", read_only=True)
    with scratch(asked.data) as room:
        store = await SqliteLog.open(room.path / "what-if.log", durability="off")
        try:
            until_seq = log.last_seq
            held = held_in(one for _, facts in log.read_facts(0, until_seq) for one in facts)
            drafts = definitions_in(asked.file, held)
            fold = WhatIf(drafts, held, store, since_ms=asked.since_ms, until_ms=asked.until_ms)
            with bar("what if", until_seq) as show:
                await replayed_with(log.read(0, until_seq), fold, show.to)
            return fold, _names(log, until_seq, fold.movers()) if asked.wants_names else {}
        finally:
            await store.close()
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


def _row(day: Day) -> tuple[Any, ...]:
    values = msgspec.structs.astuple(day)
    return (values[0], iso(day.day_ms)[:10], *values[2:])


def _people(fold: WhatIf, names: dict[int, tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
    for one in fold.moves():
        name = names.get(one.entity, ("", ""))
        yield iso(one.day_ms)[:10], one.key, name[0], _safe(name[1]), one.direction, one.would, one.did


def _write_json(fold: WhatIf, names: dict[int, tuple[str, str]]) -> None:
    """Write {"days": […], "people": […]}, piece by piece."""
    days = (dict(zip(Day.__struct_fields__, _row(one), strict=True)) for one in fold.days())
    people = (
        (iso(one.day_ms)[:10], one.key, *names.get(one.entity, ("", "")), one.direction, one.would, one.did)
        for one in fold.moves()
    )
    write = sys.stdout.write
    write('{"days":')
    _write_list(days)
    write(',"people":')
    _write_list(dict(zip(PEOPLE, one, strict=True)) for one in people)
    write("}\n")


def _write_list(values: Iterable[Any]) -> None:
    write, before = sys.stdout.write, "["
    for value in values:
        write(before + msgspec.json.encode(value).decode())
        before = ","
    write("[]" if before == "[" else "]")


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


def _show(fold: WhatIf) -> None:
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    heads = ("day", "key", "would be", "entered", "left", "was", "entered", "left", "difference")
    for place, head in enumerate(heads):
        grid.add_column(head, justify="left" if place < 2 else "right")
    for one in fold.days():
        numbers = (one.size, one.entered, one.left, one.actual_size, one.actual_entered, one.actual_left)
        told = ["-" if number is None else f"{number:,}" for number in numbers]
        differs = "-" if one.actual_size is None else f"{one.size - one.actual_size:+,}"
        grid.add_row(iso(one.day_ms)[:10], one.key, *told, differs)
    answers().print(grid)
    note(f"{fold.last_seq:,} entries folded; days are UTC, sizes those at their end")
