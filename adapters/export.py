"""An audience or computed trait as a CSV file: taken as of one moment, formatted off the event loop, memory flat.

Two steps. `gather` runs on the event loop in short slices: it asks the space for each entity's ids and spools one JSON
line a row, counting how many values of each id type the widest row has (that decides the columns of `formatted`).
`write_csv` runs in a thread: it turns the spool into CSV, a batch of rows at a time. Quoting is decided a batch at a
time: where no cell of a batch has a character that needs it (checked by one search over all of them), rows are plain
joins. Formats, column order and header names are those of the documented samples; see docs/exports.md.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final
from typing import Literal as OneOf

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from actors.space_api import DefinitionView, SpaceApi

Format = OneOf["unformatted", "formatted", "single_column"]
Hash = OneOf["sha256", "none"]

SLICE_ROWS: Final = 500  # asked of the space at once: about 2 ms of the event loop
# What a spreadsheet takes for the start of a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_NEEDS_CARE: Final = re.compile(r"""(?m)^[=+\-@\t]|[",\r]""")

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class ExportSpec(Struct, frozen=True):
    """What a file should hold. `hash` None: hashed in a single column, as they are in the other formats."""

    format: Format = "unformatted"
    external_id: str = "email"  # single_column: which ids
    hash: Hash | None = None

    @property
    def hashed(self) -> bool:
        """Tell whether ids are written as SHA-256."""
        return self.hash == "sha256" if self.hash is not None else self.format == "single_column"

    @property
    def is_raw(self) -> bool:
        """Tell whether it takes the permission `exports:raw`: ids asked for unhashed by name."""
        return self.hash == "none"


class Row(Struct, frozen=True, array_like=True, gc=False):
    """One entity of an export: its own id, its external ids by type, a computed trait's value."""

    key: str
    ids: dict[str, list[str]]
    value: Any = None


class Snapshot(Struct, frozen=True):
    """Who is in an export: entities in order, with values for a computed trait, as of one moment."""

    at_ms: int
    known_seq: int
    entities: Sequence[int]
    values: Sequence[Any] | None = None


class Widths(Struct):
    """What `gather` learned on its way: rows, and the most values of each id type on one row."""

    rows: int = 0
    values_max: dict[str, int] = {}


_decode_rows = msgspec.json.Decoder(list[Row]).decode


async def take_snapshot(
    space: SpaceApi, view: DefinitionView, *, at_ms: int | None = None, known_ms: int | None = None
) -> Snapshot:
    """Return who is in the audience (or has a value of the trait) now, or as it was at and known then."""
    await space.settle()
    now_ms, known_seq = space.now()
    if known_ms is not None:
        known_seq = space.known_seq(known_ms)
    when_ms = now_ms if at_ms is None else at_ms
    if view.definition.kind == "audience":
        members = await space.members(view.definition.id, at_ms=at_ms, known_ms=known_ms)
        return Snapshot(when_ms, known_seq, [entity for entity, _ in members])
    pairs = await space.values(view.definition.id, at_ms=at_ms, known_ms=known_ms)
    return Snapshot(when_ms, known_seq, [entity for entity, _ in pairs], [value for _, value in pairs])


async def gather(
    space: SpaceApi, snapshot: Snapshot, spool: Path, progress: Callable[[int], None] = lambda rows: None
) -> Widths:
    """Write one JSON line a row to `spool`, in short slices between which the event loop runs."""
    widths = Widths()
    # Opened and closed here and not in a thread: whoever is cancelled meanwhile would leave it open.
    with spool.open("wb") as plain:
        file = anyio.wrap_file(plain)
        for start in range(0, len(snapshot.entities), SLICE_ROWS):
            rows = list(_rows(space, snapshot, start))
            for row in rows:
                for id_type, values in row.ids.items():
                    if len(values) > widths.values_max.get(id_type, 0):
                        widths.values_max[id_type] = len(values)
            await file.write(_encode(rows) + b"\n")
            widths.rows += len(rows)
            progress(widths.rows)
    return widths


def _rows(space: SpaceApi, snapshot: Snapshot, start: int) -> Iterator[Row]:
    for place in range(start, min(start + SLICE_ROWS, len(snapshot.entities))):
        entity = snapshot.entities[place]
        ids: dict[str, list[str]] = {}
        for row in space.ids_of(entity, known_seq=snapshot.known_seq):
            ids.setdefault(row.id_type, []).append(row.value)
        value = None if snapshot.values is None else snapshot.values[place]
        yield Row(space.public_id(entity), ids, value)


def read_spool(spool: Path) -> Iterator[list[Row]]:
    """Yield the rows that `gather` wrote, a slice at a time."""
    with spool.open("rb") as file:
        for line in file:
            yield _decode_rows(line)


def write_csv(
    spec: ExportSpec,
    batches: Iterable[Sequence[Row]],
    widths: Widths,
    out: BinaryIO,
    *,
    with_value: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write the file, header first, and return how many lines follow the header. Runs in a thread of its own."""
    out.write((",".join(map(_cell, header(spec, widths, with_value=with_value))) + "\n").encode())
    lines = done = 0
    for rows in batches:
        text, count = _format(spec, rows, widths, with_value)
        out.write(text)
        lines += count
        done += len(rows)
        progress(done)
    return lines


async def write_export(
    space: SpaceApi,
    view: DefinitionView,
    spec: ExportSpec,
    path: Path,
    *,
    snapshot: Snapshot | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Export to `path`, which appears whole or not at all, and return its lines without the header.

    `progress` gets the share done, 0-1. A snapshot taken before may be given; otherwise it is taken now.
    """
    taken = snapshot or await take_snapshot(space, view)
    total = max(1, len(taken.entities))
    spool, partial = path.with_suffix(".spool"), path.with_suffix(".partial")
    with_value = view.definition.kind == "trait"
    try:
        widths = await gather(space, taken, spool, lambda rows: progress(rows / total / 2))

        def write() -> int:
            with partial.open("wb") as out:
                return write_csv(
                    spec,
                    read_spool(spool),
                    widths,
                    out,
                    with_value=with_value,
                    progress=lambda rows: progress(0.5 + rows / total / 2),
                )

        lines = await anyio.to_thread.run_sync(write)
        partial.replace(path)
        return lines
    finally:
        spool.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


# -- formatting ------------------------------------------------------------------------------------------------------


def header(spec: ExportSpec, widths: Widths, *, with_value: bool) -> list[str]:
    """Return the column names: `key,external_ids`, then for `formatted` `email,email_1,…` for each id type."""
    value = ["value"] if with_value else []
    if spec.format == "single_column":
        return [spec.external_id, *value]
    names = ["key", *value, "external_ids"]
    if spec.format == "formatted":
        for id_type in sorted(widths.values_max):
            names += [id_type if n == 0 else f"{id_type}_{n}" for n in range(widths.values_max[id_type])]
    return names


def _format(spec: ExportSpec, rows: Sequence[Row], widths: Widths, with_value: bool) -> tuple[bytes, int]:
    if spec.format == "single_column":
        return _single_column(spec, rows, with_value)
    if spec.hashed:
        rows = [
            Row(row.key, {kind: list(map(digest, ids)) for kind, ids in row.ids.items()}, row.value) for row in rows
        ]
    starts = [f"{row.key},{_value_cell(row.value)}" if with_value else row.key for row in rows]
    ids = _json_cells(rows)
    columns = [(id_type, widths.values_max[id_type]) for id_type in sorted(widths.values_max)]
    if spec.format == "unformatted" or not columns:
        lines = [f'{start},"{cell}"\n' for start, cell in zip(starts, ids, strict=True)]
    else:
        ends = _join([_spread(row.ids, columns) for row in rows])
        lines = [f'{start},"{cell}",{end}\n' for start, cell, end in zip(starts, ids, ends, strict=True)]
    return "".join(lines).encode(), len(rows)


def _single_column(spec: ExportSpec, rows: Sequence[Row], with_value: bool) -> tuple[bytes, int]:
    """One line a value: a profile with two emails has two, one without any has none."""
    found = [(value, row.value) for row in rows for value in row.ids.get(spec.external_id, ())]
    lines = [digest(value) for value, _ in found] if spec.hashed else _join([[value] for value, _ in found])
    if with_value:
        lines = [f"{line},{_value_cell(value)}" for line, (_, value) in zip(lines, found, strict=True)]
    return "".join([line + "\n" for line in lines]).encode(), len(found)


def _spread(ids: dict[str, list[str]], columns: list[tuple[str, int]]) -> list[str]:
    cells: list[str] = []
    for id_type, width in columns:
        values = ids.get(id_type, [])
        cells += values
        cells += [""] * (width - len(values))
    return cells


def _json_cells(rows: Sequence[Row]) -> list[str]:
    """Return each row's external ids as JSON, quotes doubled. JSON has no line breaks, so all are done at one go."""
    lines = _encode_lines([dict(sorted(row.ids.items())) for row in rows]).decode()
    return lines.replace('"', '""').split("\n")[: len(rows)]


def _join(rows: list[list[str]]) -> list[str]:
    """Return rows as lines. Only if some cell of them needs care is each cell looked at by itself."""
    text = "\n".join([cell for row in rows for cell in row])
    breaks = sum(map(len, rows)) - 1
    if text.count("\n") == max(0, breaks) and _NEEDS_CARE.search(text) is None:
        return [",".join(row) for row in rows]
    return [",".join(map(_cell, row)) for row in rows]


def _cell(text: str) -> str:
    """Return text as one cell: what a spreadsheet would run gets an apostrophe, what CSV would split gets quotes."""
    if text.startswith(_FORMULA):
        text = "'" + text
    if any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _value_cell(value: Any) -> str:
    """Return a computed trait's value as one cell. A negative number is no formula; lists are JSON."""
    if isinstance(value, str):
        return _cell(value)
    if isinstance(value, list):
        return _cell(_encode(value).decode())
    return "" if value is None else _encode(value).decode()


def digest(value: str) -> str:
    """Return the SHA-256 of the trimmed, lower-cased value in lower-case hexadecimal."""
    return hashlib.sha256(value.strip().lower().encode("utf-8", "surrogatepass")).hexdigest()
