"""A destination's rows, read and written as if at once, stored with the next commit.

Everything a destination actor writes stays here until it goes into one transaction with its cursor and the facts that
report it; its own reads see it from the start. If storing fails the actor is dropped with it, and begins again at what
is stored.
"""

from collections.abc import Iterable

from msgspec import Struct

from eventlog.log import Changes, Key, Log, Table

Group = dict[Key, bytes | None]  # key -> value, None: deleted
Pending = dict[str, dict[Key, Group]]  # by table, by all parts of the key but the last: rows are mostly read so


class Row(Struct, frozen=True):
    """A row of a table."""

    key: Key
    value: bytes


class Rows:
    """Tables of a log, with what is not yet stored."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._tables: dict[str, Table] = {}
        self._fresh: Pending = {}
        self._storing: Pending = {}

    @property
    def dirty(self) -> bool:
        """Tell whether something waits to be stored."""
        return bool(self._fresh)

    def put(self, table: Table, key: Key, value: bytes) -> None:
        """Write a row."""
        self._tables[table.name] = table
        self._fresh.setdefault(table.name, {}).setdefault(key[:-1], {})[key] = value

    def delete(self, table: Table, key: Key) -> None:
        """Delete a row."""
        self._tables[table.name] = table
        self._fresh.setdefault(table.name, {}).setdefault(key[:-1], {})[key] = None

    def get(self, table: Table, key: Key) -> bytes | None:
        """Return a row's value."""
        for layer in (self._fresh, self._storing):
            group = layer.get(table.name, {}).get(key[:-1])
            if group is not None and key in group:
                return group[key]
        return self._log.get(table, key)

    def get_many(self, table: Table, keys: list[Key]) -> dict[Key, bytes]:
        """Return the values of those keys that are there."""
        found = self._log.get_many(table, keys)
        for layer in (self._storing, self._fresh):
            groups = layer.get(table.name)
            for key in keys if groups else ():
                group = groups.get(key[:-1]) if groups else None
                if group is not None and key in group:
                    value = group[key]
                    if value is None:
                        found.pop(key, None)
                    else:
                        found[key] = value
        return found

    def range(self, table: Table, prefix: Key, after: Key | None = None, limit: int = 1000) -> list[Row]:
        """Return rows whose key begins with `prefix`, in key order, those after the key `after`, at most `limit`."""
        over: Group = {}
        for layer in (self._storing, self._fresh):
            for group in _groups(layer.get(table.name, {}), prefix, len(table.key) - 1):
                over.update(
                    (key, value)
                    for key, value in group.items()
                    if key[: len(prefix)] == prefix and (after is None or key > after)
                )
        asked = limit + len(over)
        stored = self._log.range(table, prefix, after, asked)
        rows: dict[Key, bytes] = dict(stored)
        bound = stored[-1][0] if len(stored) == asked else None
        for key, value in over.items():
            if value is None:
                rows.pop(key, None)
            elif bound is None or key <= bound:
                rows[key] = value
        return [Row(key, rows[key]) for key in sorted(rows)[:limit]]

    def take(self, projection: str, cursor_seq: int) -> Changes:
        """Return what is to be stored now, with the cursor; `stored` has to follow before the next."""
        assert not self._storing, "the last changes are still being stored"
        self._storing, self._fresh = self._fresh, {}
        puts, deletes = [], []
        for name, groups in self._storing.items():
            table = self._tables[name]
            kept = [(key, value) for group in groups.values() for key, value in group.items() if value is not None]
            gone = [key for group in groups.values() for key, value in group.items() if value is None]
            if kept:
                puts.append((table, kept))
            if gone:
                deletes.append((table, gone))
        return Changes(projection=projection, cursor_seq=cursor_seq, puts=tuple(puts), deletes=tuple(deletes))

    def stored(self) -> None:
        """Take note that what was taken is stored."""
        self._storing = {}


def _groups(groups: dict[Key, Group], prefix: Key, parts: int) -> Iterable[Group]:
    """Return the groups that hold rows of a prefix, among others perhaps."""
    if len(prefix) >= parts:
        group = groups.get(prefix[:parts])
        return () if group is None else (group,)
    return [group for place, group in groups.items() if place[: len(prefix)] == prefix]
