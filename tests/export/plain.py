"""The slow, obvious writer of exports that the fast one is compared with: the rules of docs/exports.md, row by row."""

import hashlib
import json
from typing import Any

from msgspec import Struct

from adapters.export_format import ExportSpec


class Row(Struct, frozen=True):
    """One entity of an export: its own id, its external ids as (type, value) in order, a computed trait's value."""

    key: str
    ids: list[tuple[str, str]]
    value: Any = None

    def values(self, id_type: str) -> list[str]:
        """Return its ids of a type."""
        return [value for kind, value in self.ids if kind == id_type]


def text_of(spec: ExportSpec, rows: list[Row], *, with_value: bool = False) -> str:
    """Return the file."""
    types = sorted({kind for row in rows for kind, _ in row.ids})
    width = {kind: max(len(row.values(kind)) for row in rows) for kind in types}
    value = ["value"] if with_value else []
    if spec.format == "single_column":
        lines = [[spec.external_id, *value]]
        for row in rows:
            end = [spelt(row.value)] if with_value else []
            lines += [[shown(spec, text), *end] for text in row.values(spec.external_id)]
        return "".join(map(line_of, lines))
    columns = types if spec.format == "formatted" else []
    names = [kind if n == 0 else f"{kind}_{n}" for kind in columns for n in range(width[kind])]
    text = line_of(["key", *value, "external_ids", *names])
    for row in rows:
        ids = {kind: [shown(spec, one) for one in row.values(kind)] for kind in types if row.values(kind)}
        cells = [row.key, *([spelt(row.value)] if with_value else [])]
        spread = [(ids.get(kind, []) + [""] * width[kind])[: width[kind]] for kind in columns]
        dumped = json.dumps(ids, ensure_ascii=False, separators=(",", ":"))
        end = [cell for some in spread for cell in some]
        external = '"' + dumped.replace('"', '""') + '"'  # quoted always, `{}` too
        text += ",".join([*map(cell_of, cells), external, *map(cell_of, end)]) + "\n"
    return text


def shown(spec: ExportSpec, text: str) -> str:
    """Return a value, or its hash."""
    return hashlib.sha256(text.strip().lower().encode()).hexdigest() if spec.hashed else text


class Number(str):
    """Text that no spreadsheet runs, whatever it begins with."""

    __slots__ = ()


def spelt(value: Any) -> str:
    """Return a computed trait's value as text."""
    if isinstance(value, str):
        return value
    return Number("" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def line_of(cells: list[str]) -> str:
    """Return one line, with what a spreadsheet would run made harmless."""
    return ",".join(map(cell_of, cells)) + "\n"


def cell_of(text: str) -> str:
    """Return one cell."""
    if text[:1] in tuple("=+-@\t\r\n") and not isinstance(text, Number):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
