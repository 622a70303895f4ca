"""The file that a log on SQLite lives in: its tables and statements, how it is made, opened, checked and copied.

A new file is made under another name and renamed when it is whole, so that an empty or half-made file in its place is
known to be damage. Everything here is synchronous and runs in the thread that the connection belongs to.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from typing import Literal as OneOf

from eventlog.codec import RawPack, seal
from eventlog.entries import Commit
from eventlog.errors import LogCorruptError, LogError
from eventlog.log import TABLES, Changes, Table
from eventlog.reading import StoredPack
from eventlog.sqlite_errors import our_errors

Durability = OneOf["full", "normal", "off"]
"""full: what was acknowledged survives a power cut. normal: a crash of the process. off: for benchmarks."""

APPLICATION_ID: Final = 0x54524E54  # "TRNT", in the file's header: `file` and we can tell whose it is
FORMAT: Final = 1  # of the tables; packs have their own (codec.FORMAT)
RETIRED_TABLES: Final = ("t_history",)  # of files made before a release; what they held follows from the log
PAGE_BYTES: Final = 8192
CACHE_KIB: Final = 32 * 1024  # each of the two long-lived connections
SCAN_CACHE_KIB: Final = 2 * 1024  # a scan reads each page once
CHECKPOINT_PAGES: Final = 4096  # the WAL is copied back when it has 32 MB: fewer, larger syncs than at SQLite's 1,000
WAL_BYTES_KEPT_MAX: Final = 64 * 1024 * 1024
BUSY_TIMEOUT_S: Final = 5.0  # for checkpoints; readers and the writer never wait for each other
READ_PAGE_BYTES: Final = 4 * 1024 * 1024  # fetched in one transaction


class TableSql:
    """The statements of a table."""

    def __init__(self, table: Table) -> None:
        self.name = f'"t_{table.name}"'
        self.columns = [f"k{number}" for number in range(len(table.key))]
        types = {int: "INTEGER", str: "TEXT"}
        keys = ", ".join(self.columns)
        declared = ", ".join(
            f"{name} {types[kind]} NOT NULL" for name, kind in zip(self.columns, table.key, strict=True)
        )
        marks = ", ".join("?" * len(table.key))
        equal = " AND ".join(f"{name} = ?" for name in self.columns)
        columns = f"{declared}, value BLOB NOT NULL, PRIMARY KEY ({keys})"
        self.create = f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}) WITHOUT ROWID"
        self.get = f"SELECT value FROM {self.name} WHERE {equal}"  # noqa: S608 - ours
        self.put = f"INSERT OR REPLACE INTO {self.name} VALUES ({marks}, ?)"  # noqa: S608 - ours
        self.delete = f"DELETE FROM {self.name} WHERE {equal}"  # noqa: S608 - ours
        self.clear = f"DELETE FROM {self.name}"  # noqa: S608 - ours

    def range(self, prefix: int, bound: int) -> str:
        """Return a SELECT of rows with the first `prefix` parts given, and those up to `bound` exceeded."""
        conditions = [f"{name} = ?" for name in self.columns[:prefix]]
        if bound > prefix:
            names = ", ".join(self.columns[prefix:bound])
            marks = ", ".join("?" * (bound - prefix))
            # A key that goes on behind the bound comes after it, as with Python's tuples.
            conditions.append(f"({names}) {'>' if bound == len(self.columns) else '>='} ({marks})")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT * FROM {self.name}{where} ORDER BY {', '.join(self.columns)} LIMIT ?"  # noqa: S608 - ours


SQL: Final = {table: TableSql(table) for table in TABLES}

_SCHEMA: Final = (
    "CREATE TABLE packs (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, commit_seq INTEGER NOT NULL,"
    " at_ms INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE cursors (projection TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
)


def make(path: Path) -> None:
    """Make a new, empty log, unless there is one."""
    wal = path.with_name(path.name + "-wal")
    if path.exists():
        if not path.stat().st_size:
            raise LogCorruptError(str(path), "the file is empty")
        return
    if wal.exists() and wal.stat().st_size:
        raise LogCorruptError(str(path), f"the file is gone, but {wal.name} is there")
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("BEGIN")
        for statement in (*_SCHEMA, *(sql.create for sql in SQL.values())):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    partial.rename(path)
    sync_directory(path.parent)


def prepare(connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
    """Check the file, and set what a writing connection has to be told each time."""
    check_ours(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {durability}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT_MAX}")
    connection.execute("PRAGMA secure_delete = ON")
    for sql in SQL.values():  # a table that a newer version adds comes into old files as well
        connection.execute(sql.create)
    for name in RETIRED_TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {name}")


def check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Make sure that a file is a whole log of a format that we read."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LogCorruptError(str(path), "not a Turnout log")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT:
        raise LogError(
            f"{path} has format {version}, this version of Turnout reads {FORMAT}; use the one that wrote it"
        )
    pages, page_bytes = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    wal = path.with_name(path.name + "-wal")
    if path.stat().st_size < pages * page_bytes and not (wal.exists() and wal.stat().st_size):
        raise LogCorruptError(str(path), f"cut short: {path.stat().st_size} bytes of {pages * page_bytes}")


def connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    """Return a new connection that only reads."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,  # a scan may be finished, or dropped, by another thread than began it
        cached_statements=256,
    )
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    return connection


def page_behind(connection: sqlite3.Connection, behind: int) -> list[StoredPack]:
    """Return the next packs after sequence `behind`, some megabytes of them."""
    page: list[StoredPack] = []
    size = 0
    with closing(
        connection.execute("SELECT first_seq, head, body FROM packs WHERE first_seq > ? ORDER BY first_seq", (behind,))
    ) as rows:
        for row in rows:
            stored = StoredPack(*row)
            page.append(stored)
            size += len(stored.head) + len(stored.body)
            if size >= READ_PAGE_BYTES:
                break
    return page


def plainly(connection: sqlite3.Connection, write: Callable[[sqlite3.Connection], Any]) -> None:
    """Run a write as it is."""
    write(connection)


def transaction(connection: sqlite3.Connection, write: Callable[[sqlite3.Connection], Any]) -> None:
    """Run a write in a transaction of its own, wholly or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        write(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def store(connection: sqlite3.Connection, raws: Iterable[RawPack], changes: Iterable[Changes]) -> None:
    """Write packs and projection changes."""
    _insert(connection, raws)
    for change in changes:
        for table in change.cleared:
            connection.execute(SQL[table].clear)
        for table, keys in change.deletes:
            connection.executemany(SQL[table].delete, keys)
        for table, rows in change.puts:
            connection.executemany(SQL[table].put, ((*key, value) for key, value in rows))
        connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (change.projection, change.cursor_seq))


def _insert(connection: sqlite3.Connection, raws: Iterable[RawPack]) -> None:
    connection.executemany("INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?)", map(seal, raws))


def replace(connection: sqlite3.Connection, page: Iterable[tuple[Commit, list[RawPack]]]) -> None:
    """Put edited commits in the place of what they were."""
    for commit, raws in page:
        connection.execute("DELETE FROM packs WHERE first_seq BETWEEN ? AND ?", (commit.first_seq, commit.last_seq))
        _insert(connection, raws)


def snapshot(path: Path, target: Path) -> None:
    """Copy a log with all that lies beside it, as it is at this moment; a power cut may lose the copy."""
    with our_errors(target), closing(connect(path, SCAN_CACHE_KIB)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def copy_entries(path: Path, target: Path, until_seq: int) -> None:
    """Make a new log of another's commits up to an entry, as they are, with nothing beside them.

    `until_seq` is the last entry of a commit. A power cut may lose the copy.
    """
    make(target)
    with our_errors(target), closing(connect(path, SCAN_CACHE_KIB)) as source:
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous = off")
            copy.execute("BEGIN")
            packs = source.execute("SELECT * FROM packs WHERE last_seq <= ? ORDER BY first_seq", (until_seq,))
            copy.executemany("INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?)", packs)
            copy.execute("COMMIT")


def backup(path: Path, target: Path) -> None:
    """Copy a log, as it is at this moment, to a new file."""
    if target.exists():
        raise LogError(f"{target} is there already; name a new file for the backup")
    partial = target.with_name(target.name + ".partial")
    with our_errors(target):
        partial.unlink(missing_ok=True)
        try:
            snapshot(path, partial)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.rename(target)
            sync_directory(target.parent)
        finally:
            for rest in ("", "-wal", "-shm", "-journal"):
                partial.with_name(partial.name + rest).unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable, those of new files among them."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
