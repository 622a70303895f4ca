"""The log's interface: append, read, scan, and tables that projections are kept in.

Two logs implement it, `sqlite.SqliteLog` and `memory.MemoryLog`; `tests/conformance/` holds both to it. One writer:
the space that owns the log numbers its commits itself (first_seq = last_seq + 1) and `append` asserts it.

An event is found again by its *place*, bytes that only the log reads (`place_of` its sequence). An erased event keeps
its place in the numbering (kind ERASED, empty): `read` yields it in its commit, `scan` and `events_at` leave it out.

A *table* is a sorted map from a key (a tuple of ints and strings) to bytes. Projections are kept in tables; each
change carries the projection's cursor, the sequence up to which it has folded the log, and is stored in one transaction
with it (and, given to `append`, in one transaction with the commits). Reads are synchronous and see everything stored
before.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from eventlog.columns import EventColumns
from eventlog.entries import AnyFact, Commit, Event

Key = tuple[int | str, ...]


class Table(Struct, frozen=True):
    """A table's name and the types of its key's parts (`int` as a signed 64-bit integer, `str` as text)."""

    name: str
    key: tuple[type[int] | type[str], ...]


HISTORY = Table("history_runs", (int, int, int))  # run, last entity, last sequence -> a chunk of the index (history.py)
IDS = Table("ids", (str, str))  # id type, value -> entity, first sequence, event_ms, …
ENTITIES = Table("entities", (int,))  # entity -> its ids, what it absorbed or was merged into
STATES = Table("states", (int, int))  # entity, group -> snapshot of the actor
TIMERS = Table("timers", (int,))  # entity -> when it is due
MEMBERS = Table("members", (int, int))  # definition, entity -> since when
META = Table("meta", (str,))  # small facts about the log: format version, space id, …
DELIVERIES = Table("deliveries", (str, str))  # destination, delivery id -> state
SENT = Table("sent", (str, int, str))  # connection, entity, id -> what the destination was last told
REJECTIONS = Table("rejections", (int,))  # minus the sequence of a refusal: the newest come first
TABLES = (HISTORY, IDS, ENTITIES, STATES, TIMERS, MEMBERS, META, DELIVERIES, SENT, REJECTIONS)


class Changes(Struct, frozen=True):
    """Rows of a projection to put and to delete, and its new cursor, all in one transaction.

    Applied in the order cleared, deletes, puts; a later put of the same key wins.
    """

    projection: str
    cursor_seq: int
    puts: tuple[tuple[Table, Sequence[tuple[Key, bytes]]], ...] = ()
    deletes: tuple[tuple[Table, Sequence[Key]], ...] = ()
    cleared: tuple[Table, ...] = ()  # emptied before the puts


def place_of(seq: int) -> bytes:
    """Return an event's place, from which `Log.events_at` finds it."""
    return seq.to_bytes((seq.bit_length() + 7) // 8, "big")


class Log(Protocol):
    """An append-only log of one space, with the tables of its projections."""

    @property
    def last_seq(self) -> int:
        """Return the sequence of the last entry appended, 0 for an empty log."""

    async def append(self, commits: Sequence[Commit], changes: Sequence[Changes] = ()) -> None:
        """Store commits and projection changes in one transaction; return once they are durable.

        Raises LogFullError (nothing was stored) when the disk is full, LogError otherwise.
        """

    def read(self, after_seq: int = 0, until_seq: int | None = None) -> Iterator[Commit]:
        """Yield the commits that hold entries after `after_seq`, whole, up to and with `until_seq`, in order.

        Safe to call from another thread: it reads a snapshot through a connection of its own.
        """

    def read_facts(
        self, after_seq: int = 0, until_seq: int | None = None
    ) -> Iterator[tuple[int, list[tuple[int, AnyFact]]]]:
        """Yield of each commit with facts in (after_seq, until_seq] its `at_ms`, and those facts with their sequences.

        Decodes nothing else. Safe to call from another thread.
        """

    def scan(
        self,
        names: Iterable[tuple[int, str | None]] | None,
        after_seq: int = 0,
        until_seq: int | None = None,
    ) -> Iterator[list[Event]]:
        """Yield, commit by commit, the events whose (kind, name) is wanted; a name of None means any of that kind.

        None for `names` wants all. Decodes only what it yields. Safe to call from another thread.
        """

    def scan_columns(
        self,
        names: Iterable[tuple[int, str | None]] | None,
        after_seq: int = 0,
        until_seq: int | None = None,
    ) -> Iterator[EventColumns]:
        """Yield the wanted events (as in `scan`) as columns, some hundreds at a time; bodies and ids on demand.

        Safe to call from another thread; the columns are for one thread at a time.
        """

    def follow(self, after_seq: int = 0) -> AsyncIterator[Commit]:
        """Yield commits after `after_seq` for ever, waiting for new ones at the end."""

    async def store(self, changes: Sequence[Changes]) -> None:
        """Store projection changes in one transaction."""

    def cursor(self, projection: str) -> int:
        """Return the projection's cursor, 0 when it has never stored anything."""

    def get(self, table: Table, key: Key) -> bytes | None:
        """Return the value of a key."""

    def get_many(self, table: Table, keys: Sequence[Key]) -> dict[Key, bytes]:
        """Return the values of those keys that are there."""

    def range(
        self, table: Table, prefix: Key = (), after: Key | None = None, limit: int = 1000
    ) -> list[tuple[Key, bytes]]:
        """Return rows whose key begins with `prefix`, in key order, those after the key `after`, at most `limit`."""

    def events_at(self, places: Sequence[bytes]) -> list[Event]:
        """Return the events at these places, in the order given, without erased ones."""

    def columns_at(self, seq: int) -> EventColumns | None:
        """Return the event `seq` with those stored beside it; None if there is no such event."""

    def seq_at(self, known_ms: int) -> int:
        """Return the last sequence recorded by `known_ms` (a commit's `at_ms`), 0 when nothing was."""

    async def rewrite(
        self,
        edit: Callable[[Commit], Commit],
        *,
        touching: Callable[[EventColumns], bool] | None = None,
        mentioning: Callable[[Sequence[AnyFact]], bool] | None = None,
    ) -> int:
        """Replace commits by what `edit` makes of them, for erasure; return how many changed.

        An edit keeps the numbers of events and facts, and returns the very commit it was given to leave it alone. With
        `touching` or `mentioning` only commits are decoded of which one of them says that some events (erased ones
        too), or some facts, are meant. All may be called in another thread. What was replaced is gone from the log's
        files when this returns.
        """

    async def scrub(self) -> None:
        """Leave nothing in the log's files of rows that were replaced or deleted."""

    async def compact(self) -> None:
        """Give space that is no longer used back to the disk."""

    async def close(self) -> None:
        """Release what is held. Nothing acknowledged is lost."""
