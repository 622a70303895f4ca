"""CSV files of exports: columns, cells, lines. Pure: batches of people in, bytes out.

Speed comes from doing one thing for many rows at once. The rows of a batch are sorted by their *shape*, which id types
they have in which order; those of one shape share a template for the line, and their values are looked at together for
anything that CSV, JSON or a spreadsheet would take for more than text. Only where something is found are the rows
written one by one (`_plainly`). Formats, column order and header names are those of the documented samples; see
docs/exports.md.
"""

import hashlib
import re
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final
from typing import Literal as OneOf

import msgspec
from msgspec import Struct

from actors.bulk_ids import Ids

Format = OneOf["unformatted", "formatted", "single_column"]
Hash = OneOf["sha256", "none"]
Shape = tuple[str, ...]  # the types of somebody's ids, in order
Widths = dict[str, int]  # the most values of each id type on one row

# What a spreadsheet takes for the start of a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_MARKS: Final = bytes(range(32)) + b',"\\\x7f'  # what CSV or JSON writes in another way, and what does not print
_leads: Final = re.compile(r"\|[=+\-@]").search

_encode = msgspec.json.Encoder().encode
_type_of: Final = attrgetter("id_type")
_value_of: Final = attrgetter("value")


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


class Batch(Struct, frozen=True):
    """Some people of an export: their own ids, their external ids in order, the values of a computed trait."""

    keys: Sequence[str]
    ids: Sequence[Ids]
    values: Sequence[Any] | None = None

    def shapes(self) -> list[Shape]:
        """Return the shape of each row; equal ones of a whole batch are one object, which is seen at a glance."""
        first = tuple(map(_type_of, self.ids[0])) if self.ids else ()
        sizes = list(map(len, self.ids))
        if sizes.count(len(first)) == len(sizes):
            if list(map(_type_of, chain.from_iterable(self.ids))) == list(first) * len(sizes):
                return [first] * len(sizes)
        return [tuple(map(_type_of, ids)) for ids in self.ids]


def _is_one_shape(shapes: Sequence[Shape]) -> bool:
    return bool(shapes) and shapes.count(shapes[0]) == len(shapes)


def widen(widths: Widths, shapes: Sequence[Shape]) -> None:
    """Take note of how many values of each id type the rows of a batch have."""
    for shape in shapes[:1] if _is_one_shape(shapes) else set(shapes):
        for id_type in shape:
            widths[id_type] = max(widths.get(id_type, 0), shape.count(id_type))


def header(spec: ExportSpec, widths: Widths, *, with_value: bool) -> bytes:
    """Return the first line: `key,external_ids`, then for `formatted` `email,email_1,…` for each id type."""
    value = ["value"] if with_value else []
    if spec.format == "single_column":
        names = [spec.external_id, *value]
    else:
        names = ["key", *value, "external_ids"]
    if spec.format == "formatted":
        for id_type, width in sorted(widths.items()):
            names += [id_type if n == 0 else f"{id_type}_{n}" for n in range(width)]
    return (",".join(map(_cell, names)) + "\n").encode()


def lines(spec: ExportSpec, batch: Batch, widths: Widths, shapes: Sequence[Shape] = ()) -> tuple[bytes, int]:
    """Return the lines of a batch, and how many there are. `widths` counts for `formatted` alone."""
    if spec.format == "single_column":
        return _single_column(spec, batch)
    columns = sorted(widths.items()) if spec.format == "formatted" else []
    starts = batch.keys
    if batch.values is not None:
        starts = [f"{key},{_value_cell(value)}" for key, value in zip(starts, batch.values, strict=True)]
    shapes = shapes or batch.shapes()
    if _is_one_shape(shapes):
        found = _alike(spec, shapes[0], starts, batch.ids, columns)
        return "".join(found).encode(), len(found)
    places_of: dict[Shape, list[int]] = {}
    for place, shape in enumerate(shapes):
        places_of.setdefault(shape, []).append(place)
    found = [""] * len(shapes)
    for shape, places in places_of.items():
        alike = _alike(spec, shape, [starts[n] for n in places], [batch.ids[n] for n in places], columns)
        for place, line in zip(places, alike, strict=True):
            found[place] = line
    return "".join(found).encode(), len(found)


def _alike(
    spec: ExportSpec, shape: Shape, starts: Sequence[str], ids: Sequence[Ids], columns: list[tuple[str, int]]
) -> list[str]:
    """Return the lines of rows of one shape."""
    values = list(map(_value_of, chain.from_iterable(ids)))
    if spec.hashed:
        values = list(map(digest, values))
    size = len(shape)
    places_of = {id_type: [n for n, one in enumerate(shape) if one == id_type] for id_type in sorted(set(shape))}
    if not (_is_mere_text(shape) and _is_mere_text(values)):
        rows = [values[place * size : place * size + size] for place in range(len(starts))]
        return [_plainly(places_of, start, row, columns) for start, row in zip(starts, rows, strict=True)]
    json = ",".join([f'""{kind.replace("%", "%%")}"":[{_marks(places)}]' for kind, places in places_of.items()])
    cells = [place for kind, width in columns for place in _padded(places_of.get(kind, []), width)]
    line = f'%s,"{{{json}}}"' + "".join([",%s" if place is not None else "," for place in cells]) + "\n"
    by_place = [values[place::size] for place in range(size)]
    in_json = [by_place[place] for places in places_of.values() for place in places]
    in_cells = [by_place[place] for place in cells if place is not None]
    return list(map(line.__mod__, zip(starts, *in_json, *in_cells, strict=True)))


def _marks(places: Sequence[int]) -> str:
    return ",".join(['""%s""'] * len(places))


def _padded(places: list[int], width: int) -> list[int | None]:
    return [*places, *([None] * (width - len(places)))]


def _plainly(places_of: dict[str, list[int]], start: str, row: list[str], columns: list[tuple[str, int]]) -> str:
    """Return one line, each cell looked at by itself."""
    json = _encode({id_type: [row[place] for place in places] for id_type, places in places_of.items()}).decode()
    cells = [place for kind, width in columns for place in _padded(places_of.get(kind, []), width)]
    texts = ["" if place is None else _cell(row[place]) for place in cells]
    return ",".join([start, '"' + json.replace('"', '""') + '"', *texts]) + "\n"


def _single_column(spec: ExportSpec, batch: Batch) -> tuple[bytes, int]:
    """One line a value: a profile with two emails has two, one without any has none."""
    wanted, values = spec.external_id, batch.values
    texts = [one.value for ids in batch.ids for one in ids if one.id_type == wanted]
    if spec.hashed:
        texts = list(map(digest, texts))
    elif not _is_mere_text(texts):
        texts = list(map(_cell, texts))
    if values is not None:
        whose = [place for place, ids in enumerate(batch.ids) for one in ids if one.id_type == wanted]
        texts = [f"{text},{_value_cell(values[place])}" for text, place in zip(texts, whose, strict=True)]
    return "".join([text + "\n" for text in texts]).encode(), len(texts)


def _is_mere_text(values: Sequence[str]) -> bool:
    """Tell whether none of these holds anything that CSV, JSON or a spreadsheet would take for more than text.

    Some that are found guilty are not, as `a|=b`; they only take longer.
    """
    text = "|" + "|".join(values)
    if text.isascii():
        raw = text.encode()
        if len(raw.translate(None, _MARKS)) < len(raw):
            return False
    elif not text.isprintable() or any(mark in text for mark in ',"\\'):
        return False
    return _leads(text) is None


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
