"""Who is next: a lane per profile, in order within, and how far the log is settled.

A lane holds the jobs of one profile (or account) in the order of the log; one of them at most is under way. A lane
whose head has to wait is set aside, and its jobs are *parked*: stored as rows of their own, so that the destination's
cursor can pass them. The cursor stands before the oldest entry that has a job which is neither done nor parked.

Lanes that may start wait in turns: each connection's goes in its turn, so that an audience with much to tell holds up
none of the others. A connection that has more than its share waiting is *crowded*: the reader takes note of its further
changes instead of queueing them, and their net is told as a fill is. So the log can be read on, for the others.

When profiles merge, later jobs of the absorbed go to the survivor's lane, and the merge itself waits there until the
lanes of the absorbed are empty: the order of the log holds across both.
"""

import heapq
from collections import deque
from typing import Any, Final
from typing import Literal as OneOf

from msgspec import Struct, field, msgpack

from actors.delivery import Call, Connection, Verdict
from actors.delivery_plan import State, Target

WINDOW_MAX: Final = 2_000  # jobs of one connection read ahead and not parked: about 1 MB
SHARED_MAX: Final = 5_000  # jobs from which on a connection of several may have no more than its share of so many
PARKED_MAX: Final = 10_000  # jobs that wait behind a failing profile, before reading stops
FILL_SHARE: Final = 4  # of five lanes started, four are live ones while there are any


class Job(Struct, frozen=True, omit_defaults=True):
    """Something that a destination may have to be told about one profile."""

    what: OneOf["change", "reconcile", "renew", "merge", "erase", "resend"]
    seq: int
    entity: int
    connection: str = ""
    value: Any = None
    at_ms: int = 0
    account: int = 0  # told to a user: the account that changed
    absorbed: tuple[int, ...] = ()
    call: Call | None = None  # resend: the call as it was

    @property
    def key(self) -> str:
        """Return what tells it from every other job of a destination; sorts in the order of the log."""
        call = self.call.id if self.call is not None else ""
        return f"{self.seq:020d}:{self.entity}:{self.what}:{self.connection}:{self.account}:{call}"


class Parked(Struct, frozen=True, omit_defaults=True):
    """A job that waits, as it is stored."""

    job: Job
    queued_ms: int
    attempts: int = 0
    next_ms: int = 0
    reason: str = ""
    done: tuple[str, ...] = ()  # message ids of its calls that were settled


class Debt(Struct):
    """A target of a job and the calls that settle it."""

    connection: Connection
    target: Target
    seq: int
    calls: tuple[Call, ...]
    verdicts: list[Verdict] = field(default_factory=list)
    told: bool = True  # whether rows are written once it is settled


class Work(Struct):
    """A job under way: what it owes, and how far that is done."""

    job: Job
    debts: list[Debt]
    state: State | None = None  # what it was planned from, where that is looked at again
    at: int = 0  # the debt at hand

    def calls(self, most: int) -> list[Call]:
        """Return the next calls, at most so many."""
        calls: list[Call] = []
        for debt in self.debts[self.at :]:
            calls += debt.calls[len(debt.verdicts) :]
            if len(calls) >= most:
                break
        return calls[:most]

    @property
    def done(self) -> bool:
        """Tell whether nothing is left to be called."""
        return self.at >= len(self.debts)


class Queued(Struct):
    """A job in a lane, and the log entry that holds the cursor for it (0: none does)."""

    job: Job
    queued_ms: int
    held_seq: int = 0
    parked: bool = False
    since_ms: int = 0  # when the log had it


class Lane:
    """The jobs of one profile."""

    __slots__ = (
        "alone",
        "attempts",
        "entity",
        "in_flight",
        "jobs",
        "listed",
        "next_ms",
        "reason",
        "settled_ids",
        "work",
    )

    def __init__(self, entity: int) -> None:
        self.entity = entity
        self.jobs: deque[Queued] = deque()
        self.work: Work | None = None
        self.in_flight = 0  # calls under way
        self.attempts = 0  # of the call at hand
        self.next_ms = 0
        self.reason = ""
        self.settled_ids: frozenset[str] = frozenset()  # calls of the head settled before a restart
        self.alone = False  # its next call goes in no batch
        self.listed = False  # in a queue of lanes that may start, or set aside until next_ms

    @property
    def change_seq(self) -> int:
        """Return the newest entry by which a change of the head's connection waits behind it, 0 for none."""
        connection = self.jobs[0].job.connection
        return max(
            (one.job.seq for one in self.jobs if one.job.what == "change" and one.job.connection == connection),
            default=0,
        )

    @property
    def in_filling(self) -> bool:
        """Tell whether its head is a part of a fill or of a list's sync, which nobody waits for."""
        return self.jobs[0].job.what == "reconcile"

    @property
    def turn_of(self) -> str:
        """Return the connection whose turn its head takes."""
        job = self.jobs[0].job
        return job.call.connection if job.call is not None else job.connection


class Turns:
    """Lanes that may start: connections take turns, the lanes of one go in order."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[int]] = {}  # by connection, the next one first; none is empty

    @property
    def any(self) -> bool:
        """Tell whether there is one."""
        return bool(self._queues)

    def append(self, connection: str, entity: int) -> None:
        """Put a lane behind the others of its connection."""
        queue = self._queues.get(connection)
        if queue is None:
            queue = self._queues[connection] = deque()
        queue.append(entity)

    def put_back(self, connection: str, entity: int) -> None:
        """Put a lane in front of the others of its connection."""
        queue = self._queues.get(connection)
        if queue is None:
            queue = self._queues[connection] = deque()
        queue.appendleft(entity)

    def pop(self, connection: str | None = None) -> int | None:
        """Return the next lane, of a connection where one is named, which then keeps its turn."""
        name = connection if connection is not None else next(iter(self._queues), "")
        queue = self._queues.get(name)
        if queue is None:
            return None
        entity = queue.popleft()
        if not queue:
            del self._queues[name]
        elif connection is None and len(self._queues) > 1:
            self._queues[name] = self._queues.pop(name)
        return entity


class Lanes:
    """All lanes of a destination, those that may start now, and those that wait."""

    def __init__(self) -> None:
        self.connections = 1  # that share the destination
        self.clear()

    def clear(self) -> None:
        """Forget everything: what was parked, and what follows the cursor, is read again."""
        self._lanes: dict[int, Lane] = {}
        self._live = Turns()
        self._fill = Turns()
        self._of: dict[str, int] = {}  # jobs of each connection, not parked
        self._waiting: list[tuple[int, int]] = []
        self._keys: set[str] = set()
        self._held: deque[int] = deque()  # entries that hold the cursor, in order
        self._holders: dict[int, int] = {}  # by how many jobs each
        self._into: dict[int, int] = {}  # absorbed -> the lane that its later jobs go to
        self._turn = 0
        self.queued = 0  # jobs, not parked
        self.parked = 0
        self.retrying = 0  # lanes whose head has failed

    @property
    def size(self) -> int:
        """Return how many jobs there are."""
        return self.queued + self.parked

    @property
    def open(self) -> bool:
        """Tell whether more may be read."""
        most = WINDOW_MAX if self.connections <= 1 else 2 * SHARED_MAX
        return self.queued < most and self.parked < PARKED_MAX

    def crowded(self, connection: str) -> bool:
        """Tell whether a connection has so many jobs waiting that others would wait for it."""
        own = self._of.get(connection, 0)
        if self.connections <= 1:
            return False
        return own >= WINDOW_MAX or (self.queued >= SHARED_MAX and own >= SHARED_MAX // self.connections)

    def lane_of(self, entity: int) -> Lane | None:
        """Return the lane of a profile, if it has jobs."""
        return self._lanes.get(self._home(entity))

    def lanes(self) -> list[Lane]:
        """Return all lanes."""
        return list(self._lanes.values())

    def hold(self, seq: int) -> None:
        """Keep the cursor before an entry, once more."""
        if seq not in self._holders:
            assert not self._held or self._held[-1] < seq, (seq, self._held[-1])
            self._held.append(seq)
        self._holders[seq] = self._holders.get(seq, 0) + 1

    def release(self, seq: int) -> None:
        """Let the cursor pass an entry, as far as one of its holders goes."""
        self._holders[seq] -= 1
        while self._held and self._holders[self._held[0]] == 0:
            del self._holders[self._held.popleft()]

    def cursor(self, read_seq: int) -> int:
        """Return up to where everything is done or parked, having read up to `read_seq`."""
        return self._held[0] - 1 if self._held else read_seq

    def _home(self, entity: int) -> int:
        while entity in self._into:
            entity = self._into[entity]
        return entity

    def add(
        self, job: Job, now_ms: int, *, held_seq: int = 0, parked: Parked | None = None, since_ms: int | None = None
    ) -> Queued | None:
        """Queue a job behind the others of its profile; None if it is queued already."""
        if job.key in self._keys:
            return None
        entity = self._home(job.entity)
        lane = self._lanes.get(entity)
        if lane is None:
            lane = self._lanes[entity] = Lane(entity)
        if held_seq and parked is None:
            self.hold(held_seq)
        else:
            held_seq = 0
        queued_ms = parked.queued_ms if parked else now_ms
        queued = Queued(job, queued_ms, held_seq, parked is not None, queued_ms if since_ms is None else since_ms)
        lane.jobs.append(queued)
        self._keys.add(job.key)
        if parked:
            self.parked += 1
            if len(lane.jobs) == 1:
                self._resume(lane, parked)
        else:
            self._count(job, 1)
        for absorbed in job.absorbed:
            if absorbed != entity:
                self._into[absorbed] = entity
        self.enlist(lane)
        return queued

    def _count(self, job: Job, more: int) -> None:
        self.queued += more
        left = self._of.get(job.connection, 0) + more
        if left:
            self._of[job.connection] = left
        else:
            del self._of[job.connection]

    def _resume(self, lane: Lane, parked: Parked) -> None:
        lane.attempts, lane.next_ms, lane.reason = parked.attempts, parked.next_ms, parked.reason
        lane.settled_ids = frozenset(parked.done)
        if parked.attempts:
            self.retrying += 1

    def blocked(self, lane: Lane) -> bool:
        """Tell whether the head is a merge whose absorbed profiles still have jobs of their own."""
        head = lane.jobs[0].job
        return any(entity in self._lanes and entity != lane.entity for entity in head.absorbed)

    def enlist(self, lane: Lane) -> None:
        """Queue a lane to be started, or set it aside until it is due."""
        if lane.listed or lane.in_flight or not lane.jobs or self.blocked(lane):
            return
        lane.listed = True
        if lane.next_ms:
            heapq.heappush(self._waiting, (lane.next_ms, lane.entity))
        else:
            self._turns_of(lane).append(lane.turn_of, lane.entity)

    def _turns_of(self, lane: Lane) -> Turns:
        return self._fill if lane.in_filling else self._live

    def wake(self, now_ms: int) -> None:
        """List the lanes whose time has come."""
        while self._waiting and self._waiting[0][0] <= now_ms:
            _, entity = heapq.heappop(self._waiting)
            lane = self._lanes.get(entity)
            if lane is not None and lane.listed and 0 < lane.next_ms <= now_ms:
                lane.next_ms = 0
                lane.listed = False
                self.enlist(lane)

    def wake_all(self) -> None:
        """List all lanes that wait: what they failed on is over."""
        waiting, self._waiting = self._waiting, []
        for _, entity in sorted(waiting):
            lane = self._lanes.get(entity)
            if lane is not None and lane.listed:
                lane.next_ms = 0
                lane.listed = False
                self.enlist(lane)

    def next_wake_ms(self) -> int | None:
        """Return when the first waiting lane is due."""
        return self._waiting[0][0] if self._waiting else None

    @property
    def startable(self) -> bool:
        """Tell whether some lane may start."""
        return self._live.any or self._fill.any

    def pop(self, of: str | None = None) -> Lane | None:
        """Return the next lane to start (of a connection): live changes first, but a fill never stands still."""
        self._turn += 1
        live_first = self._turn % (FILL_SHARE + 1) != 0
        for turns in (self._live, self._fill) if live_first else (self._fill, self._live):
            entity = turns.pop(of)
            if entity is not None:
                lane = self._lanes[entity]
                lane.listed = False
                return lane
        return None

    def unpop(self, lane: Lane) -> None:
        """Put a lane back in front, unstarted."""
        self._turn -= 1
        lane.listed = True
        self._turns_of(lane).put_back(lane.turn_of, lane.entity)

    def finish(self, lane: Lane) -> Queued:
        """Take the head off a lane: it is done."""
        queued = lane.jobs.popleft()
        self._keys.discard(queued.job.key)
        if queued.parked:
            self.parked -= 1
        else:
            self._count(queued.job, -1)
            if queued.held_seq:
                self.release(queued.held_seq)
        if lane.attempts:
            self.retrying -= 1
        lane.work, lane.attempts, lane.next_ms, lane.reason, lane.settled_ids = None, 0, 0, "", frozenset()
        lane.alone = False
        for absorbed in queued.job.absorbed:
            self._into.pop(absorbed, None)
        if not lane.jobs:
            del self._lanes[lane.entity]
            survivor = self._lanes.get(self._into.get(lane.entity, 0))
            if survivor is not None:
                self.enlist(survivor)
        return queued

    def failed(self, lane: Lane, next_ms: int, reason: str) -> None:
        """Take note that the call at hand failed; it is due again at `next_ms`."""
        if not lane.attempts:
            self.retrying += 1
        lane.attempts += 1
        lane.next_ms, lane.reason = max(1, next_ms), reason

    def recovered(self, lane: Lane) -> None:
        """Take note that the call at hand is settled, and the next one untried."""
        if lane.attempts:
            self.retrying -= 1
        lane.attempts, lane.next_ms, lane.reason = 0, 0, ""

    def park(self, lane: Lane) -> list[Queued]:
        """Let the cursor pass a lane's jobs; return those that have to be stored for it."""
        new = [queued for queued in lane.jobs if not queued.parked]
        for queued in new:
            queued.parked = True
            self._count(queued.job, -1)
            self.parked += 1
            if queued.held_seq:
                self.release(queued.held_seq)
                queued.held_seq = 0
        return new


_JOBS = msgpack.Decoder(Parked)


def parked_of(row: bytes) -> Parked:
    """Return a parked job as it was stored."""
    return _JOBS.decode(row)
