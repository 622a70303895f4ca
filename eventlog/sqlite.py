"""The log on SQLite: a row for each pack of a commit, a table for each projection, one file a space.

One writer: an aiosqlite connection whose thread compresses, writes and syncs, a transaction an append. Reads go through
connections of their own: one for point reads on the event loop's thread (they see everything committed and never wait
for the writer, since the file is in WAL mode), and one for each `read` or `scan`, in whatever thread that runs. Those
fetch a page at a time and hold no transaction between pages, so a slow reader never keeps the WAL from being emptied.

SQLite's memory mapping stays off: a file cut short under a mapping kills the process, and we want an error. What is
deleted is overwritten (`secure_delete`), so that erased events leave no bytes behind.
"""

import sqlite3
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
import anyio
import anyio.to_thread

from eventlog.codec import PackView, RawPack, pack
from eventlog.columns import EventColumns
from eventlog.entries import ERASED, AnyFact, Commit, Event
from eventlog.errors import LogCorruptError, LogError
from eventlog.log import Changes, Key, Table
from eventlog.reading import StoredPack, columns_of, commits_of, covering, edited_commit, facts_of, grouped, views_of
from eventlog.sqlite_errors import leaves_outcome_unknown, log_error, our_errors
from eventlog.sqlite_file import (
    BUSY_TIMEOUT_S,
    CACHE_KIB,
    SCAN_CACHE_KIB,
    SQL,
    Durability,
    backup,
    check_ours,
    connect,
    make,
    page_behind,
    plainly,
    prepare,
    replace,
    store,
    transaction,
)

T = TypeVar("T")

REWRITE_PAGE_BYTES: Final = 16 * 1024 * 1024  # replaced in one transaction
RECENT_ENTRIES_MAX: Final = 20_000  # of the newest commits, kept decoded for followers
VIEWS_MAX: Final = 32  # packs kept unpacked for point reads, some 200 KB each


class SqliteLog:
    """An append-only log of one space in an SQLite file. Make one with `open`."""

    def __init__(self, path: Path, writer: aiosqlite.Connection | None, reader: sqlite3.Connection) -> None:
        """Take open connections; callers use `SqliteLog.open`."""
        self.path = path
        self._writer = writer
        self._reader = reader
        self._write_lock = anyio.Lock()
        self._rewrite_lock = anyio.Lock()
        self._appended = anyio.Event()
        self._recent: deque[Commit] = deque()
        self._recent_entries = 0
        self._views: OrderedDict[int, PackView] = OrderedDict()
        self._broken: LogError | None = None
        self._closed = False
        self._last_seq = self._checked_end()

    # -- opening and closing

    @classmethod
    async def open(cls, path: str | Path, read_only: bool = False, *, durability: Durability = "full") -> "SqliteLog":
        """Open a space's log, made if it is not there; LogCorruptError if the file is torn or not a Turnout log."""
        path = Path(path)
        if read_only and not path.exists():
            raise LogError(f"{path}: no such log")
        with our_errors(path):
            writer = None if read_only else await _open_writer(path, durability)
            try:
                reader = connect(path, CACHE_KIB)
                try:
                    check_ours(reader, path)
                    return cls(path, writer, reader)
                except BaseException:
                    reader.close()
                    raise
            except BaseException:
                if writer is not None:
                    await writer.close()
                raise

    async def close(self) -> None:
        """Release what is held, and end followers. Nothing acknowledged is lost."""
        if self._closed:
            return
        with anyio.CancelScope(shield=True):
            async with self._write_lock:
                self._closed = True
                self._appended.set()
                self._reader.close()
                if self._writer is not None:
                    with our_errors(self.path):
                        await self._writer.close()

    @property
    def last_seq(self) -> int:
        """Return the sequence of the last entry appended, 0 for an empty log."""
        return self._last_seq

    # -- writing

    async def append(self, commits: Sequence[Commit], changes: Sequence[Changes] = ()) -> None:
        """Store commits and projection changes in one transaction; return once they are durable."""
        async with self._write_lock:
            seq = self._last_seq
            raws: list[RawPack] = []
            for commit in commits:
                assert commit.first_seq == seq + 1, (commit.first_seq, seq + 1)
                raws += pack(commit)
                seq = commit.last_seq
            await self._write(lambda connection: store(connection, raws, changes))
            self._last_seq = seq
            self._remember(commits)
        self._wake()

    async def store(self, changes: Sequence[Changes]) -> None:
        """Store projection changes in one transaction."""
        async with self._write_lock:
            await self._write(lambda connection: store(connection, (), changes))

    async def rewrite(
        self,
        edit: Callable[[Commit], Commit],
        *,
        touching: Callable[[EventColumns], bool] | None = None,
        mentioning: Callable[[Sequence[AnyFact]], bool] | None = None,
    ) -> int:
        """Replace commits by what `edit` makes of them; return how many changed. See `Log.rewrite`."""
        changed = 0
        async with self._rewrite_lock:
            after_seq, until_seq = 0, self._last_seq
            while after_seq < until_seq:
                page, after_seq = await anyio.to_thread.run_sync(
                    self._edited, edit, touching, mentioning, after_seq, until_seq
                )
                if page:
                    async with self._write_lock:
                        await self._write(lambda connection, page=page: replace(connection, page))  # type: ignore[misc]
                        self._forget_decoded()
                    changed += len(page)
            if changed:
                await self._empty_wal()
        return changed

    async def scrub(self) -> None:
        """Leave nothing in the log's files of rows that were replaced or deleted: empty the WAL."""
        await self._empty_wal()

    async def compact(self) -> None:
        """Give unused space back to the disk (VACUUM). Appends wait; needs as much free space as the log is large."""
        async with self._rewrite_lock:
            async with self._write_lock:
                await self._write(lambda connection: connection.execute("VACUUM"), in_transaction=False)
            await self._empty_wal()

    async def backup(self, target: str | Path) -> None:
        """Write a copy of the log as it is now to a new file, while it goes on being written."""
        target = Path(target)
        await anyio.to_thread.run_sync(backup, self.path, target)

    async def check(self) -> None:
        """Read the whole file; LogCorruptError if any of it is torn."""
        await anyio.to_thread.run_sync(self._check)

    # -- reading the log

    def read(self, after_seq: int = 0, until_seq: int | None = None) -> Iterator[Commit]:
        """Yield the commits that hold entries after `after_seq`, whole, up to and with `until_seq`, in order."""
        return commits_of(self._packs("commit_seq", after_seq, self._until(until_seq)), str(self.path))

    def read_facts(
        self, after_seq: int = 0, until_seq: int | None = None
    ) -> Iterator[tuple[int, list[tuple[int, AnyFact]]]]:
        """Yield of each commit when it was recorded, and its facts with their sequences."""
        until = self._until(until_seq)
        return facts_of(self._packs("commit_seq", after_seq, until), str(self.path), after_seq, until)

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
        return columns_of(self._packs("first_seq", after_seq, until), names, after_seq, until)

    async def follow(self, after_seq: int = 0) -> AsyncIterator[Commit]:
        """Yield commits after `after_seq` for ever, waiting for new ones; ends when the log is closed."""
        while not self._closed:
            appended = self._appended
            commits = self._recent_after(after_seq)
            if commits is None:
                commits = await anyio.to_thread.run_sync(self._page_after, after_seq)
            for commit in commits:
                yield commit
                after_seq = commit.last_seq
            if not commits:
                await appended.wait()

    def events_at(self, places: Sequence[bytes]) -> list[Event]:
        """Return the events at these places, in the order given, without erased ones."""
        seqs = [int.from_bytes(place, "big") for place in places]
        found: dict[int, Event] = {}
        for seq in sorted(seqs):  # pack by pack
            view = self._view_at(seq)
            event = view.event_at(seq - view.header.first_seq)
            if event.kind != ERASED:
                found[seq] = event
        return [found[seq] for seq in seqs if seq in found]

    def columns_at(self, seq: int) -> EventColumns | None:
        """Return the event `seq` with those stored beside it; None if there is no such event."""
        if not 0 < seq <= self._last_seq:
            return None
        view = self._view_at(seq)
        return EventColumns([view]) if seq < view.header.first_seq + view.header.events_count else None

    def seq_at(self, known_ms: int) -> int:
        """Return the last sequence recorded by `known_ms`, 0 when nothing was."""
        low, high = 0, self._last_seq  # commits are in order of time: halve until the border is found
        while low < high:
            middle = (low + high + 1) // 2
            first_seq, last_seq, at_ms = self._fetch(
                "SELECT first_seq, last_seq, at_ms FROM packs WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
                (middle,),
            )[0]
            if at_ms <= known_ms:
                low = min(last_seq, high)
            else:
                high = first_seq - 1
        return low

    # -- reading tables

    def cursor(self, projection: str) -> int:
        """Return the projection's cursor, 0 when it has never stored anything."""
        rows = self._fetch("SELECT seq FROM cursors WHERE projection = ?", (projection,))
        return int(rows[0][0]) if rows else 0

    def get(self, table: Table, key: Key) -> bytes | None:
        """Return the value of a key."""
        rows = self._fetch(SQL[table].get, key)
        return rows[0][0] if rows else None

    def get_many(self, table: Table, keys: Sequence[Key]) -> dict[Key, bytes]:
        """Return the values of those keys that are there."""
        sql = SQL[table].get
        found: dict[Key, bytes] = {}
        self._fetch("BEGIN")  # one transaction: one lock for all of them, and all from the same moment
        try:
            for key in keys:
                rows = self._fetch(sql, key)
                if rows:
                    found[key] = rows[0][0]
        finally:
            self._reader.rollback()
        return found

    def range(
        self, table: Table, prefix: Key = (), after: Key | None = None, limit: int = 1000
    ) -> list[tuple[Key, bytes]]:
        """Return rows whose key begins with `prefix`, in key order, those after the key `after`, at most `limit`."""
        size = len(prefix)
        if after is not None and after[:size] != prefix:
            if after > prefix:  # behind all of them
                return []
            after = None
        behind = () if after is None else after[size:]
        sql = SQL[table].range(size, size + len(behind))
        rows = self._fetch(sql, (*prefix, *behind, limit))
        return [(row[:-1], row[-1]) for row in rows]

    # -- inside: writing

    async def _write(self, write: Callable[[sqlite3.Connection], Any], *, in_transaction: bool = True) -> None:
        """Run a write in the writer's thread, wholly or not at all, whatever happens to the task that waits for it."""
        if self._broken is not None:
            raise LogError(f"{self._broken}; open the log anew") from self._broken
        if self._closed or self._writer is None:
            raise LogError(f"{self.path} is {'closed' if self._closed else 'opened for reading only'}")
        run = transaction if in_transaction else plainly
        with anyio.CancelScope(shield=True):
            try:
                await _in_writer(self._writer, run, write)
            except (sqlite3.Error, sqlite3.Warning, OSError) as error:
                ours = log_error(error, self.path)
                if leaves_outcome_unknown(error):
                    self._broken = ours
                raise ours from error

    def _wake(self) -> None:
        self._appended.set()
        self._appended = anyio.Event()

    def _remember(self, commits: Sequence[Commit]) -> None:
        self._recent.extend(commits)
        self._recent_entries += sum(len(commit.events) + len(commit.facts) for commit in commits)
        while self._recent_entries > RECENT_ENTRIES_MAX and self._recent:
            oldest = self._recent.popleft()
            self._recent_entries -= len(oldest.events) + len(oldest.facts)

    def _forget_decoded(self) -> None:
        self._recent.clear()
        self._recent_entries = 0
        self._views.clear()

    def _edited(
        self,
        edit: Callable[[Commit], Commit],
        touching: Callable[[EventColumns], bool] | None,
        mentioning: Callable[[Sequence[AnyFact]], bool] | None,
        after_seq: int,
        until_seq: int,
    ) -> tuple[list[tuple[Commit, list[RawPack]]], int]:
        """Return a page of edited commits, packed, and up to where the log was looked at."""
        page: list[tuple[Commit, list[RawPack]]] = []
        page_bytes = 0
        for views in grouped(self._packs("commit_seq", after_seq, until_seq), str(self.path)):
            after = edited_commit(views, edit, touching, mentioning)
            after_seq = views[-1].header.last_seq
            if after is not None:
                page.append((after, pack(after)))
                page_bytes += sum(view.header.head_bytes + view.header.body_bytes for view in views)
                if page_bytes >= REWRITE_PAGE_BYTES:
                    break
        return page, after_seq

    async def _empty_wal(self) -> None:
        """Copy the WAL back into the file and cut it to nothing, so that what it held is gone."""

        def empty(connection: sqlite3.Connection) -> None:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise LogError(f"{self.path}: a reader is in the way of emptying the WAL; do it again")

        async with self._write_lock:
            await self._write(empty, in_transaction=False)

    # -- inside: reading

    def _fetch(self, sql: str, parameters: Sequence[int | str] = ()) -> list[Any]:
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise log_error(error, self.path) from error

    def _until(self, until_seq: int | None) -> int:
        return self._last_seq if until_seq is None else min(until_seq, self._last_seq)

    def _recent_after(self, after_seq: int) -> list[Commit] | None:
        """Return the commits behind a sequence, None when they have to be read from the file."""
        if after_seq >= self._last_seq:
            return []
        if not self._recent or self._recent[0].first_seq > after_seq + 1:
            return None
        newest: list[Commit] = []
        for commit in reversed(self._recent):  # a follower is seldom far behind, and thousands may be kept
            if commit.last_seq <= after_seq:
                break
            newest.append(commit)
        return newest[::-1]

    def _page_after(self, after_seq: int) -> list[Commit]:
        page: list[Commit] = []
        entries = 0
        for commit in self.read(after_seq):
            page.append(commit)
            entries += len(commit.events) + len(commit.facts)
            if entries >= RECENT_ENTRIES_MAX // 2:
                break
        return page

    def _view_at(self, seq: int) -> PackView:
        """Return the pack that holds an entry."""
        for first_seq, view in self._views.items():
            if first_seq <= seq <= view.header.last_seq:
                self._views.move_to_end(first_seq)
                return view
        rows = self._fetch(
            "SELECT first_seq, head, body FROM packs WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1", (seq,)
        )
        if not rows:
            raise LogCorruptError(str(self.path), f"entry {seq} is missing")
        view = PackView(rows[0][1], rows[0][2], str(self.path), rows[0][0])
        if view.header.last_seq < seq:
            raise LogCorruptError(str(self.path), f"entry {seq} is missing")
        self._views[view.header.first_seq] = view
        if len(self._views) > VIEWS_MAX:
            self._views.popitem(last=False)
        return view

    def _packs(self, start: str, after_seq: int, until_seq: int) -> Iterator[PackView]:
        """Yield checked packs from the one that holds entry after_seq + 1, or from its commit's first one, on."""
        path = str(self.path)
        return covering(views_of(self._stored(start, after_seq, until_seq), path), path, after_seq, until_seq)

    def _stored(self, start: str, after_seq: int, until_seq: int) -> Iterator[StoredPack]:
        if until_seq <= after_seq:
            return
        with our_errors(self.path), closing(connect(self.path, SCAN_CACHE_KIB)) as connection:
            first = connection.execute(
                f"SELECT {start} FROM packs WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",  # noqa: S608 - ours
                (after_seq + 1,),
            ).fetchall()
            behind = first[0][0] - 1 if first else 0
            while page := page_behind(connection, behind):
                yield from page
                behind = page[-1].first_seq

    def _checked_end(self) -> int:
        """Return the last sequence, once its pack is found whole and no projection claims to know more."""
        rows = self._fetch("SELECT first_seq, last_seq, head, body FROM packs ORDER BY first_seq DESC LIMIT 1")
        last_seq = 0
        if rows:
            view = PackView(rows[0][2], rows[0][3], str(self.path), rows[0][0])
            last_seq = view.header.last_seq
            if last_seq != rows[0][1] or len(view.body) != view.header.body_bytes or not view.header.ends_commit:
                raise LogCorruptError(str(self.path), f"the last commit, up to entry {rows[0][1]}, is not whole")
        furthest = self._fetch("SELECT projection, seq FROM cursors ORDER BY seq DESC LIMIT 1")
        if furthest and furthest[0][1] > last_seq:
            raise LogCorruptError(
                str(self.path),
                f"the log ends at entry {last_seq}, but {furthest[0][0]!r} has seen entry {furthest[0][1]}",
            )
        return last_seq

    def _check(self) -> None:
        with our_errors(self.path), closing(connect(self.path, SCAN_CACHE_KIB)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise LogCorruptError(str(self.path), found)
        for _ in self.read():
            pass


async def _open_writer(path: Path, durability: Durability) -> aiosqlite.Connection:
    make(path)
    writer = await aiosqlite.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    try:
        await _in_writer(writer, prepare, path, durability)
    except BaseException:
        await writer.close()
        raise
    return writer


async def _in_writer(writer: aiosqlite.Connection, work: Callable[..., None], *arguments: Any) -> None:
    """Run work in the connection's thread: one hop for all of it, where aiosqlite's methods make one a statement."""
    execute: Callable[..., Awaitable[None]] = writer._execute
    await execute(work, writer._conn, *arguments)
