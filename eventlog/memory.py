"""The log in memory: for scenarios, tests and previews of what-ifs.

It stores encoded commits, so everything that passes through it passes the codec as it would on disk. The object itself
is the durable part: whoever writes to it may be dropped at any moment and another be started on the same object, as
after a crash; `close` ends followers and keeps everything.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

import anyio

from eventlog.codec import Pack, PackView, pack, seal
from eventlog.columns import EventColumns
from eventlog.entries import ERASED, AnyFact, Commit, Event
from eventlog.errors import LogError
from eventlog.log import Changes, Key, Table
from eventlog.reading import (
    StoredPack,
    columns_of,
    commits_of,
    covering,
    edited_commit,
    facts_of,
    grouped,
    views_of,
)

NAME = "the log in memory"
FEW = 32  # new keys, which are put in their places one by one; more are sorted in with the rest


class _SortedTable:
    """A dict with its keys in order."""

    def __init__(self) -> None:
        self.rows: dict[Key, bytes] = {}
        self._keys: list[Key] = []
        self._new: list[Key] = []  # not yet among them

    def put(self, key: Key, value: bytes) -> None:
        if key not in self.rows:
            self._new.append(key)
        self.rows[key] = value

    def delete(self, key: Key) -> None:
        if self.rows.pop(key, None) is not None:
            keys = self.keys()
            del keys[bisect_left(keys, key)]

    def keys(self) -> list[Key]:
        if len(self._new) > FEW:
            self._keys += self._new
            self._keys.sort()
        else:
            for key in self._new:
                insort(self._keys, key)
        self._new = []
        return self._keys


class MemoryLog:
    """An append-only log of one space, in plain memory."""

    def __init__(self) -> None:
        self.fail_with: LogError | None = None  # the simulated disk: while set, append and store raise it
        self._packs: list[Pack] = []
        self._last_seq = 0
        self._tables: dict[Table, _SortedTable] = {}
        self._cursors: dict[str, int] = {}
        self._appended = anyio.Event()
        self._closings = 0

    @property
    def last_seq(self) -> int:
        """Return the sequence of the last entry appended, 0 for an empty log."""
        return self._last_seq

    async def append(self, commits: Sequence[Commit], changes: Sequence[Changes] = ()) -> None:
        """Store commits and projection changes, all or nothing."""
        await anyio.lowlevel.checkpoint()
        self._check_disk()
        seq = self._last_seq
        packs: list[Pack] = []
        for commit in commits:
            assert commit.first_seq == seq + 1, (commit.first_seq, seq + 1)
            packs += map(seal, pack(commit))
            seq = commit.last_seq
        self._packs += packs
        self._last_seq = seq
        self._apply(changes)
        self._wake()

    async def store(self, changes: Sequence[Changes]) -> None:
        """Store projection changes, all or nothing."""
        await anyio.lowlevel.checkpoint()
        self._check_disk()
        self._apply(changes)

    def read(self, after_seq: int = 0, until_seq: int | None = None) -> Iterator[Commit]:
        """Yield the commits that hold entries after `after_seq`, whole, up to and with `until_seq`, in order."""
        until = self._until(until_seq)
        start = self._packs[self._index(after_seq + 1)].commit_seq if after_seq < until else 0
        return commits_of(self._views(start, after_seq, until), NAME)

    def read_facts(
        self, after_seq: int = 0, until_seq: int | None = None
    ) -> Iterator[tuple[int, list[tuple[int, AnyFact]]]]:
        """Yield of each commit when it was recorded, and its facts with their sequences."""
        until = self._until(until_seq)
        start = self._packs[self._index(after_seq + 1)].commit_seq if after_seq < until else 0
        return facts_of(self._views(start, after_seq, until), NAME, after_seq, until)

    def scan(
        self, names: Iterable[tuple[int, str | None]] | None, after_seq: int = 0, until_seq: int | None = None
    ) -> Iterator[list[Event]]:
        """Yield the events whose (kind, name) is wanted, some at a time."""
        return (columns.events() for columns in self.scan_columns(names, after_seq, until_seq))

    def scan_columns(
        self, names: Iterable[tuple[int, str | None]] | None, after_seq: int = 0, until_seq: int | None = None
    ) -> Iterator[EventColumns]:
        """Yield the wanted events as columns."""
        until = self._until(until_seq)
        start = self._packs[self._index(after_seq + 1)].first_seq if after_seq < until else 0
        return columns_of(self._views(start, after_seq, until), names, after_seq, until)

    async def follow(self, after_seq: int = 0) -> AsyncIterator[Commit]:
        """Yield commits after `after_seq` for ever, waiting for new ones; ends when the log is closed."""
        closings = self._closings
        while True:
            appended = self._appended
            for commit in self.read(after_seq):
                yield commit
                after_seq = commit.last_seq
            if self._closings != closings:
                return
            await appended.wait()

    def cursor(self, projection: str) -> int:
        """Return the projection's cursor, 0 when it has never stored anything."""
        return self._cursors.get(projection, 0)

    def get(self, table: Table, key: Key) -> bytes | None:
        """Return the value of a key."""
        return self._table(table).rows.get(key)

    def get_many(self, table: Table, keys: Sequence[Key]) -> dict[Key, bytes]:
        """Return the values of those keys that are there."""
        rows = self._table(table).rows
        return {key: rows[key] for key in keys if key in rows}

    def range(
        self, table: Table, prefix: Key = (), after: Key | None = None, limit: int = 1000
    ) -> list[tuple[Key, bytes]]:
        """Return rows whose key begins with `prefix`, in key order, those after the key `after`, at most `limit`."""
        keys = self._table(table).keys()
        rows = self._table(table).rows
        index = bisect_left(keys, prefix)
        if after is not None:
            index = max(index, bisect_right(keys, after))
        found: list[tuple[Key, bytes]] = []
        while index < len(keys) and len(found) < limit and keys[index][: len(prefix)] == prefix:
            found.append((keys[index], rows[keys[index]]))
            index += 1
        return found

    def events_at(self, places: Sequence[bytes]) -> list[Event]:
        """Return the events at these places, in the order given, without erased ones."""
        views: dict[int, PackView] = {}
        events = []
        for place in places:
            seq = int.from_bytes(place, "big")
            index = self._index(seq)
            view = views.get(index)
            if view is None:
                view = views[index] = self._view(index)
            event = view.event_at(seq - view.header.first_seq)
            if event.kind != ERASED:
                events.append(event)
        return events

    def columns_at(self, seq: int) -> EventColumns | None:
        """Return the event `seq` and its neighbours; None if there is no such event."""
        if not 0 < seq <= self._last_seq:
            return None
        view = self._view(self._index(seq))
        return EventColumns([view]) if seq < view.header.first_seq + view.header.events_count else None

    def seq_at(self, known_ms: int) -> int:
        """Return the last sequence recorded by `known_ms`, 0 when nothing was."""
        index = bisect_right(self._packs, known_ms, key=lambda stored: stored.at_ms)
        return self._packs[index - 1].last_seq if index else 0

    async def rewrite(
        self,
        edit: Callable[[Commit], Commit],
        *,
        touching: Callable[[EventColumns], bool] | None = None,
        mentioning: Callable[[Sequence[AnyFact]], bool] | None = None,
    ) -> int:
        """Replace commits by what `edit` makes of them; return how many changed."""
        await anyio.lowlevel.checkpoint()
        self._check_disk()
        changed = 0
        packs: list[Pack] = []
        for views in grouped(self._views(0, 0, self._last_seq), NAME):
            after = edited_commit(views, edit, touching, mentioning)
            if after is None:
                start = self._index(views[0].header.first_seq)
                packs += self._packs[start : start + len(views)]
            else:
                packs += map(seal, pack(after))
                changed += 1
        self._packs = packs
        return changed

    async def scrub(self) -> None:
        """Do nothing: what was replaced is nowhere any more."""

    async def compact(self) -> None:
        """Do nothing: there is no file to make smaller."""

    async def close(self) -> None:
        """End followers. The log stays usable: a space may be started on it again."""
        self._closings += 1
        self._wake()

    # -- inside

    def _check_disk(self) -> None:
        if self.fail_with is not None:
            raise self.fail_with

    def _wake(self) -> None:
        self._appended.set()
        self._appended = anyio.Event()

    def _table(self, table: Table) -> _SortedTable:
        return self._tables.setdefault(table, _SortedTable())

    def _apply(self, changes: Sequence[Changes]) -> None:
        for change in changes:
            for table in change.cleared:
                self._tables[table] = _SortedTable()
            for table, keys in change.deletes:
                for key in keys:
                    self._table(table).delete(key)
            for table, rows in change.puts:
                for key, value in rows:
                    self._table(table).put(key, bytes(value))
            self._cursors[change.projection] = change.cursor_seq

    def _until(self, until_seq: int | None) -> int:
        return self._last_seq if until_seq is None else min(until_seq, self._last_seq)

    def _index(self, seq: int) -> int:
        """Return which pack holds an entry."""
        assert 0 < seq <= self._last_seq, (seq, self._last_seq)
        return bisect_right(self._packs, seq, key=lambda stored: stored.first_seq) - 1

    def _view(self, index: int) -> PackView:
        stored = self._packs[index]
        return PackView(stored.head, stored.body, NAME, stored.first_seq)

    def _views(self, start_seq: int, after_seq: int, until_seq: int) -> Iterator[PackView]:
        packs = self._packs  # a rewrite puts another list in its place
        start = bisect_left(packs, start_seq, key=lambda stored: stored.first_seq)
        stored = (StoredPack(packs[i].first_seq, packs[i].head, packs[i].body) for i in range(start, len(packs)))
        return covering(views_of(stored, NAME), NAME, after_seq, until_seq)
