"""A destination's rows, typed: what is true, what was told, what waits, what was given up, what happened lately.

All rows of a destination lie in two tables. SENT, by connection and entity: the row "" is the state (`State`), each
other the last word told to a set of ids (`Told`); for an account the row "~" says what its users are told of it.
DELIVERIES, by destination, told apart by the key's first letters:

    =       the actor's own state                 x:CONNECTION:ENTITY   told and true may differ
    p:JOB   a job that waits (`Parked`)           d:MESSAGE             a dead letter (`DeadLetter`)
    r:N     the newest deliveries (`Record`), a ring
    e:N     the newest requests that failed (`Failure`), a ring
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final
from typing import Literal as OneOf

from msgspec import Struct, msgpack

from actors.bucket import Bucket
from actors.delivery import Call, Ids
from actors.delivery_failures import FAILURES_MAX, Failure
from actors.delivery_ids import ids_key, ids_of_key
from actors.delivery_lanes import Job, Parked, parked_of
from actors.delivery_pace import Pace
from actors.delivery_plan import State, Told, state_of, told_of
from actors.delivery_retry import Breaker
from actors.delivery_rows import Rows
from eventlog.log import DELIVERIES, SENT, Key

INTERNAL_MAX: Final = 100  # regulations; a deletion follows its regulation at once
RING_SIZE: Final = 1_000  # deliveries that are listed; all are in the log
TOLD_MAX: Final = 5_000  # sets of ids of one profile; a profile has at most 1,000 ids (contract, section 2)
SET_ASIDE_COUNTED_MAX: Final = 20_000  # jobs that wait in rows: twice what a destination ever holds
PAGE: Final = 500  # rows read at once
LAST: Final = "\U0010ffff"  # sorts behind every set of ids

encode = msgpack.Encoder().encode


class Walk(Struct, frozen=True, omit_defaults=True):
    """A pass over many profiles that goes on where it stopped, also after a restart."""

    what: OneOf["fill", "refill", "withdraw", "forget"]
    after: int = 0  # the entity (or, reading the log, the sequence) it has got to
    seq: int = 0
    at_ms: int = 0


class ActorState(Struct, omit_defaults=True):
    """What a destination actor remembers of itself."""

    bucket: Bucket | None = None
    breaker: Breaker = Breaker()
    held_until_ms: int = 0  # it asked everyone to wait
    held_reason: str = ""
    slowed: int = 0  # times in a row that it did
    epoch: int = 1
    known: dict[str, tuple[int, int]] = {}  # connection -> its epoch and refill that were acted on
    walks: dict[str, Walk] = {}
    synced_ms: int = 0  # list destinations: when the last sync began
    memory: dict[str, Any] = {}  # what its adapter remembers: remote lists
    internal: tuple[str, ...] = ()  # regulations that leave destinations alone, the newest
    records: int = 0  # ever written to the ring
    delivered: int = 0
    given_up: int = 0
    retried: int = 0
    dead: int = 0  # dead letters now
    unsettled: int = 0  # x: rows now
    last_delivered_ms: int = 0
    last_error: str = ""
    last_error_ms: int = 0
    failures: int = 0  # ever written to their ring
    pace: Pace = Pace()


class DeadLetter(Struct, frozen=True, omit_defaults=True):
    """A call that was given up."""

    call: Call
    reason: str
    status: int
    attempts: int
    first_ms: int
    at_ms: int


class Record(Struct, frozen=True, omit_defaults=True):
    """A call that was settled, and how."""

    call: Call
    how: OneOf["delivered", "dead"]
    status: int
    attempts: int
    queued_ms: int
    at_ms: int
    reason: str = ""


class SetAside(Struct, frozen=True):
    """How many jobs wait in rows."""

    retrying: int
    pending: int
    reconciling: int  # of both, those that are counted as unsettled too


class Unsettled(Struct, frozen=True):
    """A profile that a connection may owe something."""

    connection: str
    entity: int


_ACTOR = msgpack.Decoder(ActorState)
_DEAD = msgpack.Decoder(DeadLetter)
_RECORD = msgpack.Decoder(Record)
_FAILURE = msgpack.Decoder(Failure)


class Ledger:
    """Reads and writes the rows of one destination."""

    def __init__(self, rows: Rows, destination: str) -> None:
        self.rows = rows
        self.destination = destination
        stored = rows.get(DELIVERIES, (destination, "="))
        self.state = _ACTOR.decode(stored) if stored is not None else ActorState()
        self._written = stored
        self.touched: set[str] = set()  # connections that `unsettle` was called for, emptied by who reads it

    # -- the actor's own state ---------------------------------------------------------------------------------------

    def write_state(self, *, bucket: Bucket | None) -> None:
        """Write the actor's state, with the bucket as it must be found after a crash."""
        kept = self.state.bucket
        self.state.bucket = bucket
        row = encode(self.state)
        self.state.bucket = kept
        if row != self._written:
            self._written = row
            self.rows.put(DELIVERIES, (self.destination, "="), row)

    # -- what is true, what was told ---------------------------------------------------------------------------------

    def true(self, connection: str, entity: int) -> State | None:
        """Return what is true of a profile, None if nothing was ever heard of it."""
        row = self.rows.get(SENT, (connection, entity, ""))
        return None if row is None else state_of(row)

    def write_true(self, connection: str, entity: int, state: State) -> None:
        """Write what is true of a profile."""
        self.rows.put(SENT, (connection, entity, ""), encode(state))

    def known(self, connections: list[str], entities: list[int]) -> bool:
        """Tell whether any of these connections has heard of any of these profiles."""
        keys: list[Key] = [(connection, entity, "") for connection in connections for entity in entities]
        return bool(self.rows.get_many(SENT, keys))

    def said(self, connection: str, account: int) -> State | None:
        """Return what the users of an account are told of it."""
        row = self.rows.get(SENT, (connection, account, "~"))
        return None if row is None else state_of(row)

    def write_said(self, connection: str, account: int, state: State) -> None:
        """Write what the users of an account are told of it."""
        self.rows.put(SENT, (connection, account, "~"), encode(state))

    def told(self, connection: str, entity: int) -> dict[Ids, Told]:
        """Return what was last told to each set of ids of a profile."""
        rows = self.rows.range(SENT, (connection, entity), limit=TOLD_MAX)
        return {ids_of_key(str(row.key[2])): told_of(row.value) for row in rows if row.key[2] not in {"", "~"}}

    def write_told(self, connection: str, entity: int, ids: Ids, told: Told) -> None:
        """Write what was told to a set of ids."""
        self.rows.put(SENT, (connection, entity, ids_key(ids)), encode(told))

    def forget(self, connection: str, entity: int) -> None:
        """Delete all rows of a profile."""
        for row in self.rows.range(SENT, (connection, entity), limit=TOLD_MAX + 2):
            self.rows.delete(SENT, row.key)
        self.settle(connection, entity)

    def entities(self, connection: str, after: int) -> list[int]:
        """Return the next profiles that a connection has rows of, in order."""
        rows = self.rows.range(SENT, (connection,), (connection, after, LAST), limit=PAGE)
        return list(dict.fromkeys(int(row.key[1]) for row in rows))

    # -- what may be owed --------------------------------------------------------------------------------------------

    def unsettle(self, connection: str, entity: int) -> None:
        """Take note that a profile may be owed something."""
        self.touched.add(connection)
        key = (self.destination, f"x:{connection}:{entity:020d}")
        if self.rows.get(DELIVERIES, key) is None:
            self.state.unsettled += 1
            self.rows.put(DELIVERIES, key, b"")

    def settle(self, connection: str, entity: int) -> None:
        """Take note that a profile is owed nothing."""
        key = (self.destination, f"x:{connection}:{entity:020d}")
        if self.rows.get(DELIVERIES, key) is not None:
            self.state.unsettled -= 1
            self.rows.delete(DELIVERIES, key)

    def unsettled(self, connection: str, after: int, limit: int = PAGE) -> list[Unsettled]:
        """Return the next profiles of a connection that may be owed something, in order."""
        prefix = f"x:{connection}:"
        rows = self.rows.range(DELIVERIES, (self.destination,), (self.destination, f"{prefix}{after:020d}"), limit)
        keys = [str(row.key[1]) for row in rows]
        return [Unsettled(connection, int(key[len(prefix) :])) for key in keys if key.startswith(prefix)]

    # -- what waits --------------------------------------------------------------------------------------------------

    def parked(self) -> Iterator[Parked]:
        """Yield the jobs that wait, in the order of the log."""
        after: Key = (self.destination, "p:")
        while True:
            rows = self.rows.range(DELIVERIES, (self.destination,), after, PAGE)
            for row in rows:
                if not str(row.key[1]).startswith("p:"):
                    return
                yield parked_of(row.value)
            if len(rows) < PAGE:
                return
            after = rows[-1].key

    def set_aside(self) -> SetAside:
        """Count the jobs that wait in rows: what a destination owes that holds nothing in memory."""
        retrying = pending = reconciling = 0
        for parked in islice(self.parked(), SET_ASIDE_COUNTED_MAX):
            if parked.attempts:
                retrying += 1
            else:
                pending += 1
            reconciling += parked.job.what == "reconcile"
        return SetAside(retrying, pending, reconciling)

    def park(self, parked: Parked) -> None:
        """Store a job that waits."""
        self.rows.put(DELIVERIES, (self.destination, f"p:{parked.job.key}"), encode(parked))

    def unpark(self, job: Job) -> None:
        """Delete a job that waited."""
        self.rows.delete(DELIVERIES, (self.destination, f"p:{job.key}"))

    # -- what was given up, what happened ----------------------------------------------------------------------------

    def bury(self, letter: DeadLetter) -> None:
        """Store a dead letter."""
        if self.letter(letter.call.id) is None:
            self.state.dead += 1
        self.state.given_up += 1
        self.rows.put(DELIVERIES, (self.destination, f"d:{letter.call.id}"), encode(letter))

    def letter(self, call_id: str) -> DeadLetter | None:
        """Return a dead letter."""
        row = self.rows.get(DELIVERIES, (self.destination, f"d:{call_id}"))
        return None if row is None else _DEAD.decode(row)

    def letters(self, after: str = "", limit: int = PAGE) -> list[DeadLetter]:
        """Return dead letters in order of their ids, those after an id."""
        rows = self.rows.range(DELIVERIES, (self.destination,), (self.destination, f"d:{after}"), limit)
        return [_DEAD.decode(row.value) for row in rows if str(row.key[1]).startswith("d:")]

    def unbury(self, call_id: str) -> bool:
        """Delete a dead letter; tell whether there was one."""
        if self.letter(call_id) is None:
            return False
        self.state.dead -= 1
        self.rows.delete(DELIVERIES, (self.destination, f"d:{call_id}"))
        return True

    def record(self, record: Record) -> None:
        """Add to the newest deliveries, in place of the oldest."""
        slot = self.state.records % RING_SIZE
        self.state.records += 1
        self.rows.put(DELIVERIES, (self.destination, f"r:{slot:04d}"), encode(record))

    def records(self, limit: int = RING_SIZE) -> list[Record]:
        """Return the newest deliveries, newest first."""
        found: list[Record] = []
        for back in range(1, min(limit, RING_SIZE, self.state.records) + 1):
            slot = (self.state.records - back) % RING_SIZE
            row = self.rows.get(DELIVERIES, (self.destination, f"r:{slot:04d}"))
            if row is not None:
                found.append(_RECORD.decode(row))
        return found

    def fail(self, failure: Failure) -> None:
        """Add to the newest failures, in place of the oldest."""
        slot = self.state.failures % FAILURES_MAX
        self.state.failures += 1
        self.rows.put(DELIVERIES, (self.destination, f"e:{slot:02d}"), encode(failure))

    def failures(self) -> list[Failure]:
        """Return the newest failures, newest first."""
        rows = self.rows.range(DELIVERIES, (self.destination,), (self.destination, "e:"), FAILURES_MAX)
        found = [_FAILURE.decode(row.value) for row in rows if str(row.key[1]).startswith("e:")]
        return sorted(found, key=lambda one: one.at_ms, reverse=True)

    def _erase_failures(self, entity: int) -> None:
        for slot in range(FAILURES_MAX):
            key = (self.destination, f"e:{slot:02d}")
            row = self.rows.get(DELIVERIES, key)
            if row is not None and _FAILURE.decode(row).is_about(entity):
                self.rows.delete(DELIVERIES, key)

    def erase(self, entity: int) -> None:
        """Delete what deliveries, dead letters and failures keep about a profile."""
        self._erase_failures(entity)
        after: Key = (self.destination, "d:")
        while True:
            rows = self.rows.range(DELIVERIES, (self.destination,), after, PAGE)
            for row in rows:
                name = str(row.key[1])
                if name.startswith("d:") and _DEAD.decode(row.value).call.entity == entity:
                    self.unbury(name[2:])
                elif name.startswith("r:") and _RECORD.decode(row.value).call.entity == entity:
                    self.rows.delete(DELIVERIES, row.key)
            if len(rows) < PAGE:
                return
            after = rows[-1].key
