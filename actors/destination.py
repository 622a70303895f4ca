"""The destination actor: follows the log, and tells one destination what changed, in order per profile, at its pace.

It decides by plain functions (`bucket`, `delivery_retry`, `delivery_plan`) over rows and lanes, and does nothing by
itself: `step` performs what is due at a given time and says when it is due again, `run` does the same with requests
side by side, for a daemon. Time, chance and the world are handed in. What was done goes into the log in one transaction
with the cursor; a crash between a request and that repeats the request, with the same message id.

The bucket is stored before it is used: a lease of some tokens is taken off the stored level in advance, and requests
are sent only against the lease. So a crash can lose a few tokens, and never win one.
"""

import math
from collections.abc import Callable
from random import Random
from traceback import format_exception
from typing import Any, Final, Protocol
from typing import Literal as OneOf

import anyio
import structlog
from msgspec import Struct
from msgspec.structs import replace

from actors import bucket as buckets
from actors.bucket import TOKEN, Bucket
from actors.delivery import (
    Adapter,
    Answer,
    Call,
    CommonSettings,
    Context,
    Destination,
    Done,
    Limits,
    Transport,
    Verdict,
)
from actors.delivery_jobs import Planner, Profiles
from actors.delivery_lanes import Job, Lane, Lanes, Parked
from actors.delivery_ledger import DeadLetter, Ledger, Record
from actors.delivery_reading import Reader
from actors.delivery_retry import Breaker, backoff_ms, failed, gives_up, probing, succeeded
from actors.delivery_rows import Rows
from actors.delivery_settings import limits, parse, scrubbed
from actors.delivery_source import EffectSource
from actors.delivery_walks import Members, Walker
from actors.destinations_state import Destinations
from eventlog.clock import Clock
from eventlog.entries import AnyFact, DeadLettered, DeadLetterSettled, Delivered
from eventlog.errors import ConfigError, InvalidError, NotFoundError
from eventlog.log import Changes, Log

LEASE_S: Final = 0.2  # tokens of so much time are prepaid at once, what a crash may lose
LEASE_MAX: Final = 1_000
CURSOR_LAG_MAX: Final = 10_000  # entries that do not concern it may be read again after a crash
SCAN_FACTOR: Final = 4  # lanes looked at to fill a batch, at most so many batches' worth
TURNS_MAX: Final = 1_000_000  # of a step: more is a loop without an end
IDLE_POLL_S: Final = 0.5  # `run` looks at the clock again after so long, whatever it waits for
FOLD_WAIT_MS: Final = 10  # until what is already in the log may be folded
STOP_WAIT_S: Final = 10.0  # for requests under way when it is stopped

log = structlog.get_logger()


class World(Profiles, Members, Protocol):
    """What a destination asks its space."""

    @property
    def log(self) -> Log:
        """Return the space's log."""

    @property
    def clock(self) -> Clock:
        """Return the space's clock."""

    async def record(self, facts: tuple[AnyFact, ...], changes: tuple[Changes, ...]) -> int:
        """Append facts and row changes in one transaction."""


class Batch(Struct):
    """Calls that go in one conversation, and the lanes they are of."""

    lanes: "Picked"
    calls: tuple[Call, ...]
    context: Context
    destination: Destination
    probe: bool = False


class Settled(Struct):
    """A conversation that ended."""

    batch: Batch
    done: Done
    asks: int


Picked = list[tuple[Lane, tuple[Call, ...]]]
Observer = Callable[[Destination, Call, int], None]


class DestinationActor:
    """One destination at work."""

    def __init__(
        self,
        destination_id: str,
        *,
        destinations: Destinations,
        world: World,
        source: EffectSource,
        transport: Transport,
        random: Random,
        observer: Observer | None = None,
    ) -> None:
        self.id = destination_id
        self._destinations = destinations
        self._world = world
        self._transport = transport
        self._random = random
        self._observer = observer
        self._rows = Rows(world.log)
        self.ledger = Ledger(self._rows, destination_id)
        self.lanes = Lanes()
        self.destination = destinations.destination(destination_id)
        self.adapter: Adapter = destinations.adapter(self.destination.type)
        self._planner = Planner(self.adapter, self.ledger, world)
        self._projection = f"destination:{destination_id}"
        self._stored_seq = world.log.cursor(self._projection)
        start_seq = self._stored_seq or self._born_seq()
        self._reader = Reader(source, self.ledger, self.lanes, self._planner, world, start_seq)
        self._walker = Walker(
            adapter=self.adapter,
            ledger=self.ledger,
            lanes=self.lanes,
            planner=self._planner,
            profiles=world,
            members=world,
            source=source,
        )
        self._version = -1
        self._settings: Any = None
        self._limits: Limits = limits(self.adapter, CommonSettings())
        self.problem = ""  # why it cannot work with its settings
        self._hold: dict[str, Any] = {}
        self._bucket: Bucket | None = None
        self._lease = 0
        self._must_store = False
        self._facts: list[AnyFact] = []
        self._delivered: list[str] = []
        self._ended: list[Settled] = []
        self.in_flight = 0  # conversations
        self._scopes: set[anyio.CancelScope] = set()
        self._lock = anyio.Lock()
        self._woken = anyio.Event()
        self._load()

    def _born_seq(self) -> int:
        connections = self._destinations.connections(destination=self.id)
        return min((one.since_seq for one in connections), default=self._world.log.last_seq)

    def _load(self) -> None:
        for parked in self.ledger.parked():
            self.lanes.add(parked.job, parked.queued_ms, parked=parked)
            self._walker.reconciling += parked.job.what == "reconcile"
        self.ledger.touched.update(self.ledger.state.known)

    # -- the outside -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Tell `run` that there may be something to do."""
        self._woken.set()

    async def step(self, now_ms: int) -> int | None:
        """Perform all that is due now, one thing after the other; return when it is due next, None: not by itself."""
        for _ in range(TURNS_MAX):
            async with self._lock:
                batches, moved = await self._turn(now_ms)
            for batch in batches:
                settled = await self._converse(batch)
                self._ended.append(settled)
            if not batches and not moved and not self._ended:
                return self._due_ms(now_ms)
        raise RuntimeError(f"destination {self.id} does not come to rest at {now_ms}")

    async def run(self) -> None:
        """Work until cancelled, requests side by side; then wait for those under way and store what became of them."""
        async with anyio.create_task_group() as requests:
            try:
                while True:
                    self._woken = anyio.Event()
                    now_ms = self._world.clock.now_ms()
                    async with self._lock:
                        batches, moved = await self._turn(now_ms)
                    for batch in batches:
                        requests.start_soon(self._perform, batch)
                    if moved or batches or self._ended:
                        await anyio.lowlevel.checkpoint()
                        continue
                    due_ms = self._due_ms(now_ms)
                    wait_s = IDLE_POLL_S if due_ms is None else min(IDLE_POLL_S, max(0.001, (due_ms - now_ms) / 1000))
                    with anyio.move_on_after(wait_s):
                        await self._woken.wait()
            finally:
                with anyio.CancelScope(shield=True):
                    with anyio.move_on_after(STOP_WAIT_S):
                        await self._stop()
                    for scope in self._scopes:
                        scope.cancel()

    async def _stop(self) -> None:
        while self.in_flight > len(self._ended):
            self._woken = anyio.Event()
            await self._woken.wait()
        async with self._lock:
            self._settle_all(self._world.clock.now_ms())
            self._lease = 0
            self._must_store = True
            await self._flush()

    async def _perform(self, batch: Batch) -> None:
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            settled = await self._converse(batch)
            self._ended.append(settled)
        self._scopes.discard(scope)
        self._woken.set()

    # -- a turn ------------------------------------------------------------------------------------------------------

    async def _turn(self, now_ms: int) -> tuple[list[Batch], bool]:
        """Take in what happened, decide what goes now, store both; return what goes, and whether anything moved."""
        self._configure(now_ms)
        moved = bool(self._ended)
        self._settle_all(now_ms)
        batches: list[Batch] = []
        if self.destination.enabled and not self.problem:
            self.lanes.wake(now_ms)
            moved |= await self._reader.read(now_ms)
            if self._reader.read_seq >= self.destination.quiet_seq:
                moved |= await self._walker.walk()
                moved |= self._walker.drain(now_ms, self._limits)
            batches, finished = self._dispatch(now_ms)
            moved |= finished
        await self._flush()
        for connection_id in list(self._walker.gone):
            self._walker.gone.discard(connection_id)
            await self._destinations.remove(connection_id)
            moved = True
        return batches, moved

    def _configure(self, now_ms: int) -> None:
        if self._version == self._destinations.version:
            return
        self._version = self._destinations.version
        try:
            self.destination = self._destinations.destination(self.id)
        except NotFoundError:
            self.destination = replace(self.destination, enabled=False)
            return
        connections = self._destinations.connections(destination=self.id)
        self._planner.connections = {one.id: one for one in connections}
        self._planner.quiet = frozenset(one.id for one in connections if not one.enabled)
        self._reader.configure(self.destination, connections, is_list=self.adapter.is_list)
        for lane in self.lanes.lanes():
            if not lane.in_flight:
                lane.work = None  # planned anew: what it was planned for may be paused or gone
        self.problem = ""
        try:
            self._settings = parse(self.adapter, self._destinations.readable(self.destination))
        except (ConfigError, InvalidError) as error:
            self.problem = str(error)
            log.warning("destination_misconfigured", destination=self.id, reason=self.problem)
            return
        self._limits = limits(self.adapter, self._settings)
        known = self._bucket or self.ledger.state.bucket
        rate, burst = self._limits.rate_per_s, self._limits.burst
        self._bucket = (
            buckets.full(rate, burst, now_ms) if known is None else buckets.reconfigured(known, rate, burst, now_ms)
        )
        resumed = self.ledger.state.epoch < self.destination.epoch
        self.ledger.state.epoch = self.destination.epoch
        self._walker.configure(connections, resumed=resumed)

    # -- what goes ---------------------------------------------------------------------------------------------------

    def _may_start(self, now_ms: int) -> bool:
        state = self.ledger.state
        if self.in_flight >= self._limits.concurrency or now_ms < state.held_until_ms:
            return False
        if state.breaker.state == "half_open":
            return self.in_flight == 0
        return state.breaker.state == "closed" or now_ms >= state.breaker.until_ms

    def _dispatch(self, now_ms: int) -> tuple[list[Batch], bool]:
        """Start as many batches as limits allow; tell also whether jobs were finished that owed nothing."""
        batches: list[Batch] = []
        moved = False
        while self._may_start(now_ms):
            assert self._bucket is not None
            paid = buckets.take(self._bucket, now_ms, self.adapter.asks_max)
            probe = self.ledger.state.breaker.state != "closed"
            most = 1 if probe else self.adapter.batch_max
            picked, finished = self._pick(most, affordable=paid is not None)
            moved |= finished
            if not picked or paid is None:
                break
            self._bucket = paid
            self._lease -= self.adapter.asks_max
            if self._lease < 0:
                self._lease = min(LEASE_MAX, self._limits.burst, math.ceil(self._limits.rate_per_s * LEASE_S))
                self._must_store = True
            batch = self._batch(picked, now_ms)
            batch.probe = probe
            self.ledger.state.breaker = probing(self.ledger.state.breaker)
            self.in_flight += 1
            batches.append(batch)
        return batches, moved

    def _pick(self, most: int, *, affordable: bool) -> tuple[Picked, bool]:
        """Take calls off the lanes that may start, all of one group; finish jobs on the way that owe nothing."""
        picked: Picked = []
        passed: list[Lane] = []
        count, group, moved = 0, None, False
        while count < most and len(passed) < SCAN_FACTOR * most:
            lane = self.lanes.pop()
            if lane is None:
                break
            if lane.work is None:
                lane.work = self._planner.work(lane.jobs[0].job, lane.settled_ids)
            if lane.work.done:
                self._finish(lane)
                moved = True
                continue
            if not affordable:
                passed.append(lane)
                break
            if lane.alone and picked:
                passed.append(lane)
                continue
            calls = lane.work.calls(most - count if self.adapter.together and not lane.alone else 1)
            theirs = self.adapter.group_by(calls[0]) if self.adapter.group_by else ""
            if self.adapter.group_by:
                calls = [call for call in calls if self.adapter.group_by(call) == theirs]
            if group is not None and theirs != group:
                passed.append(lane)
                continue
            group = theirs
            lane.in_flight = len(calls)
            count += len(calls)
            picked.append((lane, tuple(calls)))
            if lane.alone:
                break
        for lane in reversed(passed):
            self.lanes.unpop(lane)
        return picked, moved

    def _batch(self, picked: Picked, now_ms: int) -> Batch:
        memory = {**self.ledger.state.memory, **self._hold}
        return Batch(
            lanes=picked,
            calls=tuple(call for _, calls in picked for call in calls),
            context=Context(self._settings, memory, now_ms, self.id),
            destination=self.destination,
        )

    async def _converse(self, batch: Batch) -> Settled:
        """Hold a conversation: perform each ask, until its verdicts are in."""
        talk = self.adapter.deliver(batch.context, batch.calls)
        asks = 0
        try:
            ask = next(talk)
            while True:
                asks += 1
                answer: Answer = await self._transport(batch.destination, ask, batch.calls)
                ask = talk.send(answer)
        except StopIteration as end:
            done: Done = end.value
            if len(done.verdicts) != len(batch.calls):
                return self._broken(batch, asks, f"{len(done.verdicts)} verdicts on {len(batch.calls)} calls")
            return Settled(batch, done, asks)
        except Exception as error:  # noqa: BLE001 - whatever an adapter does wrong is these calls' trouble alone
            where = "".join(format_exception(error))  # without locals: they hold settings
            log.error("adapter_failed", destination=self.id, type=self.adapter.type, error=where)
            return self._broken(batch, asks, repr(error))

    def _broken(self, batch: Batch, asks: int, what: str) -> Settled:
        verdict = Verdict(how="dead", reason=f"the {self.adapter.type} adapter failed: {what}", unsure=True)
        return Settled(batch, Done((verdict,) * len(batch.calls)), asks)

    # -- what became of it -------------------------------------------------------------------------------------------

    def _settle_all(self, now_ms: int) -> None:
        ended, self._ended = self._ended, []
        for settled in ended:
            self._settle(settled, now_ms)

    def _settle(self, settled: Settled, now_ms: int) -> None:
        batch, state = settled.batch, self.ledger.state
        assert self._bucket is not None
        self.in_flight -= 1
        unused = self.adapter.asks_max - settled.asks  # below zero: it asked more than it may, and the others wait
        self._bucket = buckets.give_back(self._bucket, unused)
        self._lease = max(0, self._lease + unused)
        if settled.done.remember:
            state.memory = {**state.memory, **settled.done.remember}
        self._hold.update(settled.done.hold)
        verdicts = settled.done.verdicts
        assert len(verdicts) == len(batch.calls), (self.adapter.type, len(verdicts), len(batch.calls))
        self._gauge(batch, verdicts, now_ms)
        pauses: dict[int, int] = {}
        at = 0
        for lane, calls in batch.lanes:
            lane.in_flight = 0
            self._settle_lane(lane, calls, verdicts[at : at + len(calls)], pauses, now_ms)
            at += len(calls)

    def _gauge(self, batch: Batch, verdicts: tuple[Verdict, ...], now_ms: int) -> None:
        """Move the circuit and the hold by how a conversation went."""
        state = self.ledger.state
        slow = next((one for one in verdicts if one.slow), None)
        if slow is not None:
            state.slowed += 1
            pause_ms = slow.retry_after_ms
            if pause_ms is None:
                pause_ms = backoff_ms(state.slowed, self._limits, self._random)
            state.held_until_ms = max(state.held_until_ms, now_ms + pause_ms)
            state.held_reason = slow.reason
            log.info("destination_throttled", destination=self.id, retry_after_ms=pause_ms)
        elif any(one.how == "delivered" for one in verdicts):
            state.slowed = 0
        answered = any(one.how != "retry" or one.slow or one.alone for one in verdicts)
        before = state.breaker
        if answered:
            state.breaker = succeeded(before)
            if before.state != "closed":
                self.lanes.wake_all()
                log.info("circuit_closed", destination=self.id)
        else:
            state.breaker = failed(before, batch.lanes[0][0].entity, now_ms, self._limits, self._random)
            if state.breaker.state == "open" and before.state != "open":
                log.warning("circuit_open", destination=self.id, until_ms=state.breaker.until_ms)

    def _settle_lane(
        self,
        lane: Lane,
        calls: tuple[Call, ...],
        verdicts: tuple[Verdict, ...],
        pauses: dict[int, int],
        now_ms: int,
    ) -> None:
        work = lane.work
        assert work is not None
        for call, verdict in zip(calls, verdicts, strict=True):
            if verdict.alone and not lane.alone:
                lane.alone = True
                break
            if verdict.how == "retry":
                self._retry(lane, call, verdict, pauses, now_ms)
                break
            self._settle_call(lane, call, verdict, now_ms)
        if work.done:
            self._finish(lane)
        else:
            self.lanes.enlist(lane)

    def _settle_call(self, lane: Lane, call: Call, verdict: Verdict, now_ms: int) -> None:
        work, state = lane.work, self.ledger.state
        assert work is not None
        debt = work.debts[work.at]
        assert debt.calls[len(debt.verdicts)].id == call.id
        debt.verdicts.append(verdict)
        if len(debt.verdicts) == len(debt.calls):
            self._planner.settle_debt(work.job.entity, debt)
            work.at += 1
        elif verdict.how == "delivered" and len(debt.verdicts) == 1:
            self._planner.begin_debt(work.job.entity, debt)
        lane.settled_ids |= {call.id}
        lane.alone = False
        queued = lane.jobs[0]
        attempts = lane.attempts + 1
        reason = self._clean(verdict.reason)
        if verdict.how == "delivered":
            state.delivered += 1
            state.last_delivered_ms = now_ms
            self._delivered.append(call.id)
            if self._observer is not None:
                self._observer(self.destination, call, now_ms)
        else:
            state.last_error, state.last_error_ms = reason, now_ms
            letter = DeadLetter(call, reason, verdict.status, attempts, queued.queued_ms, now_ms)
            self.ledger.bury(letter)
            self._facts.append(DeadLettered(destination=self.id, delivery=_buried(letter)))
            log.warning("delivery_dead", destination=self.id, delivery=call.id, status=verdict.status)
        how: OneOf["delivered", "dead"] = "delivered" if verdict.how == "delivered" else "dead"
        self.ledger.record(Record(call, how, verdict.status, attempts, queued.queued_ms, now_ms, reason))
        if lane.attempts:
            self.lanes.recovered(lane)
            if queued.parked:
                self.ledger.park(Parked(queued.job, queued.queued_ms, done=tuple(sorted(lane.settled_ids))))

    def _retry(self, lane: Lane, call: Call, verdict: Verdict, pauses: dict[int, int], now_ms: int) -> None:
        """Set a lane aside until its next attempt, or give up what has been tried for long enough."""
        state, queued = self.ledger.state, lane.jobs[0]
        reason = self._clean(verdict.reason)
        state.last_error, state.last_error_ms = reason, now_ms
        state.retried += 1
        attempts = lane.attempts + 1
        if verdict.slow:
            next_ms = state.held_until_ms
        else:
            pause_ms = pauses.get(attempts)
            if pause_ms is None:
                pause_ms = pauses[attempts] = backoff_ms(attempts, self._limits, self._random)
            next_ms = now_ms + pause_ms
            if gives_up(queued.queued_ms, next_ms, self._limits):
                self._give_up(lane, call, verdict, now_ms)
                return
        self.lanes.failed(lane, next_ms, reason)
        for one in self.lanes.park(lane):
            self.ledger.park(Parked(one.job, one.queued_ms))
        self.ledger.park(
            Parked(queued.job, queued.queued_ms, attempts, next_ms, reason, tuple(sorted(lane.settled_ids)))
        )

    def _give_up(self, lane: Lane, call: Call, verdict: Verdict, now_ms: int) -> None:
        """All that a job still owes goes: it would only wait as long again."""
        work = lane.work
        assert work is not None
        reason = f"given up after {lane.attempts + 1} attempts: {verdict.reason}"
        final = replace(verdict, how="dead", reason=reason)
        while not work.done:
            debt = work.debts[work.at]
            self._settle_call(lane, debt.calls[len(debt.verdicts)], final, now_ms)

    def _finish(self, lane: Lane) -> None:
        work = lane.work
        assert work is not None
        self._planner.finish(work)
        queued = self.lanes.finish(lane)
        if queued.parked:
            self.ledger.unpark(queued.job)
        if queued.job.what == "reconcile":
            self._walker.reconciling -= 1
        if lane.jobs:
            self.lanes.enlist(lane)

    def _clean(self, text: str) -> str:
        return scrubbed(text, self.adapter, self._settings) if text and self._settings is not None else text

    # -- storing -----------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Store what was done with the cursor, and what may be spent until the next time."""
        cursor_seq = self.lanes.cursor(self._reader.read_seq)
        facts = self._facts
        if self._delivered:
            ids = tuple(self._delivered)
            facts = [Delivered(destination=self.id, cursor_seq=cursor_seq, ids=ids), *facts]
        lagging = cursor_seq - self._stored_seq >= CURSOR_LAG_MAX
        if not (facts or self._rows.dirty or self._must_store or lagging):
            return
        if self._bucket is not None:
            self.ledger.write_state(bucket=replace(self._bucket, level=self._bucket.level - self._lease * TOKEN))
        changes = self._rows.take(self._projection, cursor_seq)
        if facts:
            await self._world.record(tuple(facts), (changes,))
        else:
            await self._world.log.store([changes])
        self._rows.stored()
        self._facts, self._delivered, self._must_store = [], [], False
        self._stored_seq = cursor_seq

    # -- when --------------------------------------------------------------------------------------------------------

    def _due_ms(self, now_ms: int) -> int | None:
        """Return when something is due by itself; None: only when the log grows or a request ends."""
        if not self.destination.enabled or self.problem or self._bucket is None:
            return None
        state = self.ledger.state
        due: list[int] = [now_ms + FOLD_WAIT_MS] if self._reader.waits else []
        wake_ms = self.lanes.next_wake_ms()
        if wake_ms is not None:
            due.append(wake_ms)
        sync_ms = self._walker.due_ms(self._limits)
        if sync_ms is not None:
            due.append(sync_ms)
        if self.lanes.startable and self.in_flight < self._limits.concurrency:
            start_ms = max(buckets.due_ms(self._bucket, now_ms, self.adapter.asks_max), state.held_until_ms)
            if state.breaker.state == "open":
                start_ms = max(start_ms, state.breaker.until_ms)
            if state.breaker.state != "half_open" or not self.in_flight:
                due.append(start_ms)
        return max(now_ms, min(due)) if due else None

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def resend(self, call_ids: list[str]) -> int:
        """Send dead letters again, with the message ids they had; return how many there were."""
        async with self._lock:
            now_ms = self._world.clock.now_ms()
            count = 0
            for call_id in call_ids:
                letter = self.ledger.letter(call_id)
                if letter is None or not self.ledger.unbury(call_id):
                    continue
                count += 1
                job = Job("resend", letter.call.seq, letter.call.entity, call=letter.call)
                parked = Parked(job, now_ms)
                self.lanes.add(job, now_ms, parked=parked)
                self.ledger.park(parked)
                self._facts.append(DeadLetterSettled(destination=self.id, delivery_id=call_id, how="resent"))
            await self._flush()
        self.wake()
        return count

    async def drop(self, call_ids: list[str]) -> int:
        """Delete dead letters; return how many there were."""
        async with self._lock:
            count = 0
            for call_id in call_ids:
                if self.ledger.unbury(call_id):
                    count += 1
                    self._facts.append(DeadLetterSettled(destination=self.id, delivery_id=call_id, how="dropped"))
            await self._flush()
        return count

    @property
    def breaker(self) -> Breaker:
        """Return the circuit."""
        return self.ledger.state.breaker

    def bucket_level(self, now_ms: int) -> float:
        """Return how many requests may go at once now."""
        return 0.0 if self._bucket is None else max(0.0, buckets.refill(self._bucket, now_ms).level / TOKEN)

    def next_sync_ms(self) -> int | None:
        """Return when a list is synced next."""
        return self._walker.due_ms(self._limits)

    @property
    def read_seq(self) -> int:
        """Return up to where it has read the log."""
        return self._reader.read_seq

    @property
    def limits(self) -> Limits:
        """Return its limits."""
        return self._limits


def _buried(letter: DeadLetter) -> dict[str, Any]:
    """Return what the log keeps of a dead letter: nothing personal, that is in its row, which can be erased."""
    call = letter.call
    return {
        "id": call.id,
        "connection": call.connection,
        "entity": call.entity,
        "key": call.key,
        "kind": call.kind,
        "status": letter.status,
        "attempts": letter.attempts,
    }
