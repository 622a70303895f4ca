"""The destination actor: follows the log, and tells one destination what changed, in order per profile, at its pace.

It decides by plain functions (`bucket`, `delivery_retry`, `delivery_plan`) over rows and lanes, and does nothing by
itself: `step` performs what is due at a given time and says when it is due again, `run` does the same with requests
side by side, for a daemon. Time, chance and the world are handed in. What was done goes into the log in one transaction
with the cursor; a crash between a request and that repeats the request, with the same message id.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any, Final, Protocol

import anyio
import structlog
from msgspec.structs import replace

from actors.delivery import (
    Adapter,
    CommonSettings,
    Context,
    Limits,
    Transport,
)
from actors.delivery_allowance import Allowance
from actors.delivery_batches import Batch, Batches, Settled
from actors.delivery_jobs import Planner, Profiles
from actors.delivery_lanes import Lanes
from actors.delivery_ledger import Ledger
from actors.delivery_outcomes import Observer, Outcomes, Picked
from actors.delivery_reading import Reader
from actors.delivery_retry import probing
from actors.delivery_rows import Rows
from actors.delivery_settings import limits, parse
from actors.delivery_source import EffectSource
from actors.delivery_walks import Members, Walker
from actors.destinations_state import Destinations
from eventlog.clock import Clock
from eventlog.entries import AnyFact, Erased
from eventlog.errors import ConfigError, InvalidError, NotFoundError
from eventlog.log import Changes, Log

CURSOR_LAG_MAX: Final = 10_000  # entries that do not concern it may be read again after a crash
LONG_TURN_CALLS: Final = 100  # after so many others get more than one go: taking an event in needs several
REST_S: Final = 0.01
TURN_CALLS_MAX: Final = 200  # begun in one turn: then others are let in, and live changes looked for
TURNS_MAX: Final = 1_000_000  # of a step: more is a loop without an end
IDLE_POLL_S: Final = 0.5  # `run` looks at the clock again after so long, whatever it waits for
FOLD_WAIT_MS: Final = 10  # until what is already in the log may be folded
STOP_WAIT_S: Final = 10.0  # for requests under way when it is stopped

Begin = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]

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
        self._rows = Rows(world.log)
        self.ledger = Ledger(self._rows, destination_id)
        self.lanes = Lanes()
        self.destination = destinations.destination(destination_id)
        self.adapter: Adapter = destinations.adapter(self.destination.type)
        self._planner = Planner(self.adapter, self.ledger, world)
        self._projection = f"destination:{destination_id}"
        self._source = source
        self._erased_seq = 0  # while it is off: up to here, who was deleted is forgotten
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
        self._loaded = False  # whether what waits is in memory
        self._hold: dict[str, Any] = {}  # what the adapter remembers in memory alone
        self.allowance = Allowance()
        self._outcomes = Outcomes(
            adapter=self.adapter,
            ledger=self.ledger,
            lanes=self.lanes,
            planner=self._planner,
            random=random,
            observer=observer,
            finished=self._walker.finished,
            throttled=self.allowance.slow,
        )
        self._batches = Batches(
            adapter=self.adapter,
            lanes=self.lanes,
            planner=self._planner,
            outcomes=self._outcomes,
            transport=transport,
        )
        self._ended: list[Settled] = []
        self.in_flight = 0  # conversations
        self._scopes: set[anyio.CancelScope] = set()
        self._lock = anyio.Lock()
        self._woken = anyio.Event()
        if self.destination.enabled:
            self._load()

    def _born_seq(self) -> int:
        connections = self._destinations.connections(destination=self.id)
        return min((one.since_seq for one in connections), default=self._world.log.last_seq)

    def _load(self) -> None:
        for parked in self.ledger.parked():
            if self.lanes.add(parked.job, parked.queued_ms, parked=parked) is not None:
                self._walker.queued(parked.job)
        self.ledger.touched.update(self.ledger.state.known)
        self._loaded = True

    def _unload(self) -> None:
        """Let go of all that waits, as a restart does: it is in the log, or in rows beside it."""
        self._reader.rewind(self.lanes.cursor(self._reader.read_seq))
        self._walker.unload()
        self.lanes.clear()
        self._loaded = False

    # -- the outside -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Tell `run` that there may be something to do."""
        self._woken.set()

    async def step(self, now_ms: int, begin: Begin | None = None) -> int | None:
        """Perform all that is due now, one thing after the other; return when it is due next, None: not by itself.

        `begin` lets a conversation go on beside, where it may take time; once it has ended, `step` is due again.
        """
        for _ in range(TURNS_MAX):
            async with self._lock:
                batches, moved = await self._turn(now_ms)
            for batch in batches:
                converse = partial(self._converse, batch)
                await (converse() if begin is None else begin(converse))
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
                        is_long = sum(len(batch.calls) for batch in batches) >= LONG_TURN_CALLS
                        await anyio.sleep(REST_S if is_long else 0)
                        continue
                    due_ms = self._due_ms(now_ms)
                    wait_s = IDLE_POLL_S if due_ms is None else min(IDLE_POLL_S, max(0.001, (due_ms - now_ms) / 1000))
                    with anyio.move_on_after(wait_s):
                        await self._woken.wait()
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_WAIT_S):
                    await self._stop()
                raise
            finally:
                for scope in self._scopes:
                    scope.cancel()

    async def _stop(self) -> None:
        while self.under_way:
            self._woken = anyio.Event()
            await self._woken.wait()
        async with self._lock:
            self._settle_all(self._world.clock.now_ms())
            self.allowance.end_lease()
            await self._flush()

    @property
    def under_way(self) -> int:
        """Return how many conversations have not ended."""
        return self.in_flight - len(self._ended)

    async def _converse(self, batch: Batch) -> None:
        settled = await self._batches.converse(batch)
        self._ended.append(settled)  # to the list that is there by now

    async def _perform(self, batch: Batch) -> None:
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            await self._converse(batch)
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
            if not self._loaded:
                self._load()
            self.allowance.recover(now_ms)
            self.lanes.wake(now_ms)
            moved |= await self._reader.read(now_ms)
            if self._reader.read_seq >= self.destination.quiet_seq:
                moved |= await self._walker.walk()
                moved |= self._walker.drain(now_ms, self._limits)
            batches, finished = self._dispatch(now_ms)
            moved |= finished
        elif not self.destination.enabled:
            moved |= await self._forget_erased()
        await self._flush()
        if self._loaded and not self.destination.enabled and not self.in_flight:
            self._unload()
        for connection_id in list(self._walker.gone):
            self._walker.gone.discard(connection_id)
            await self._destinations.remove(connection_id)
            moved = True
        return batches, moved

    async def _forget_erased(self) -> bool:
        """Forget who was deleted, also while nothing is told; tell whether there is more to look at."""
        before_seq = max(self._erased_seq, self._reader.read_seq)
        found = await self._source.read(before_seq)
        for item in found.items:
            if isinstance(item.what, Erased):
                self.ledger.erase(item.what.entity)
                for connection_id in self._planner.connections:
                    self.ledger.forget(connection_id, item.what.entity)
        self._erased_seq = found.until_seq
        return found.until_seq > before_seq

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
        self.lanes.connections = len(connections)
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
        state = self.ledger.state
        least = self.adapter.asks_max
        self.allowance.configure(self._limits, state.bucket, state.pace, now_ms, least=least)
        self._outcomes.configure(self.destination, self._settings, self._limits)
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
        while self._may_start(now_ms) and sum(len(one.calls) for one in batches) < TURN_CALLS_MAX:
            affordable = self.allowance.affords(now_ms, self.adapter.asks_max)
            most = 1 if self.ledger.state.breaker.state != "closed" else self.adapter.batch_max
            picked, finished = self._batches.pick(most, affordable=affordable)
            moved |= finished
            if not picked:
                break
            self.allowance.spend(now_ms, self.adapter.asks_max)
            batch = self._batch(picked, now_ms)
            self.ledger.state.breaker = probing(self.ledger.state.breaker)
            self.in_flight += 1
            batches.append(batch)
        return batches, moved

    def _batch(self, picked: Picked, now_ms: int) -> Batch:
        memory = {**self.ledger.state.memory, **self._hold}
        return Batch(
            picked=picked,
            calls=tuple(call for _, calls in picked for call in calls),
            context=Context(self._settings, memory, now_ms, self.id),
            destination=self.destination,
        )

    # -- what became of it -------------------------------------------------------------------------------------------

    def _settle_all(self, now_ms: int) -> None:
        ended, self._ended = self._ended, []
        for settled in ended:
            self._settle(settled, now_ms)

    def _settle(self, settled: Settled, now_ms: int) -> None:
        batch, done = settled.batch, settled.done
        self.in_flight -= 1
        self.allowance.give_back(self.adapter.asks_max - settled.asks, now_ms)
        if done.remember:
            self.ledger.state.memory = {**self.ledger.state.memory, **done.remember}
        if done.hold:
            self._hold.update(done.hold)
            self._outcomes.hold(self._hold)
        self._outcomes.settle(batch.picked, done.verdicts, now_ms, last=settled.last)

    # -- storing -----------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Store what was done with the cursor, and what may be spent until the next time."""
        cursor_seq = self.lanes.cursor(self._reader.read_seq)
        news = self._outcomes.unrecorded
        lagging = cursor_seq - self._stored_seq >= CURSOR_LAG_MAX
        if not (news or self._rows.dirty or self.allowance.must_store or lagging):
            return
        self.ledger.state.pace = self.allowance.pace
        self.ledger.write_state(bucket=self.allowance.to_store())
        changes = self._rows.take(self._projection, cursor_seq)
        with anyio.CancelScope(shield=True):  # a stop waits: what is being stored must not be stored again by it
            if news:
                await self._world.record(self._outcomes.facts(cursor_seq), (changes,))
            else:
                await self._world.log.store([changes])
        self._rows.stored()
        self._outcomes.recorded()
        self._stored_seq = cursor_seq

    # -- when --------------------------------------------------------------------------------------------------------

    def _due_ms(self, now_ms: int) -> int | None:
        """Return when something is due by itself; None: only when the log grows or a request ends."""
        if not self.destination.enabled or self.problem:
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
            start_ms = max(self.allowance.due_ms(now_ms, self.adapter.asks_max), state.held_until_ms)
            if state.breaker.state == "open":
                start_ms = max(start_ms, state.breaker.until_ms)
            if state.breaker.state != "half_open" or not self.in_flight:
                due.append(start_ms)
        return max(now_ms, min(due)) if due else None

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def resend(self, call_ids: list[str]) -> int:
        """Send dead letters again, with the message ids they had; return how many there were."""
        async with self._lock:
            count = self._outcomes.resend(call_ids, self._world.clock.now_ms())
            await self._flush()
        self.wake()
        return count

    async def drop(self, call_ids: list[str]) -> int:
        """Delete dead letters; return how many there were."""
        async with self._lock:
            count = self._outcomes.drop(call_ids)
            await self._flush()
        return count

    def next_sync_ms(self) -> int | None:
        """Return when a list is synced next."""
        return self._walker.due_ms(self._limits)

    @property
    def loaded(self) -> bool:
        """Tell whether what waits is in memory: it is not while the destination is paused."""
        return self._loaded

    @property
    def read_seq(self) -> int:
        """Return up to where it has read the log."""
        return self._reader.read_seq

    @property
    def limits(self) -> Limits:
        """Return its limits."""
        return self._limits
