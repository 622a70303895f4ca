"""A simulated world: a real space with its real destinations, in memory, on a clock that moves only when told to.

Nothing of Turnout is replaced but its edges: the disk is a `MemoryLog`, the clock and the random numbers are handed
in, and at the other end of the wire is a `Receiver`. Time is moved from one due moment to the next, so that every
timer fires and every request leaves exactly when it is due. A crash drops the space as it is; what is opened again is
the log.
"""

from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import Struct

from actors.delivery import TIMEOUT_S_DEFAULT, Answer, Ask, Call, Destination, HttpAsk, IdSync
from actors.destinations_state import Destinations
from actors.door import accept
from actors.history import Progress, unheard
from actors.scanning import HERE, Backfill, Job, Page
from actors.space import Collection, Space
from actors.space_core import ACTIVE_MAX
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS
from eventlog.clock import SimulatedClock
from eventlog.entries import Options, Rejected
from eventlog.errors import LogError, LogFullError, NotFoundError
from eventlog.log import Log
from scenarios.edges import MortalLog, PlainSeal
from scenarios.expectations import ids_of_name
from scenarios.format import (
    AudienceSpec,
    Connect,
    Define,
    Delete,
    DeleteSpec,
    DestinationSpec,
    Disconnect,
    Edit,
    Fault,
    OptionsSpec,
    TraitSpec,
    duration_ms,
    key_of,
)

SUPPRESSION_KEY: Final = b"simulated".ljust(32, b"\0")
LIVES_MAX: Final = 1_000  # of one action: more is a fault that never ends
TURNS_MAX: Final = 1_000_000  # of one move of the clock: more is a timer that never rests

Changing = Define | Edit | Delete | Connect | Disconnect


class Sent(Struct, frozen=True):
    """A request that reached a destination, one entry a call that it carried."""

    at_ms: int
    destination: str  # its name in the scenario
    call: Call
    status: int


class Receiver:
    """The other end of the wire: takes what is sent, or fails as a fault says."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self.sent: list[Sent] = []
        self._failing: dict[str, tuple[int, int]] = {}  # by destination: status, until when
        self._losing: dict[str, tuple[str, int]] = {}  # by destination: what is lost, until when
        self._slow: dict[str, tuple[int, int]] = {}  # by destination: how long an answer takes, until when
        self._held: list[tuple[int, int, anyio.Event]] = []  # requests that are yet to be answered
        self._made = count(1)

    def fail(self, destination: str, status: int, until_ms: int) -> None:
        """Answer a destination's requests with a status until a time."""
        self._failing[destination] = (status, until_ms)

    def lose(self, destination: str, what: str, until_ms: int) -> None:
        """Lose a destination's requests, or its answers, until a time."""
        self._losing[destination] = (what, until_ms)

    def dawdle(self, destination: str, answer_ms: int, until_ms: int) -> None:
        """Let a destination take its time for each answer, until a time."""
        self._slow[destination] = (answer_ms, until_ms)

    @property
    def is_slow(self) -> bool:
        """Tell whether a request may take time."""
        return bool(self._slow)

    @property
    def holding(self) -> int:
        """Return how many requests are yet to be answered."""
        return len(self._held)

    def next_ms(self) -> int | None:
        """Return when the next answer is due, or None."""
        return self._held[0][0] if self._held else None

    def answer(self, now_ms: int) -> bool:
        """Answer the request that has waited longest, if one is due; tell whether one was."""
        is_due = bool(self._held) and self._held[0][0] <= now_ms
        if is_due:
            heappop(self._held)[2].set()
        return is_due

    def hang_up(self) -> None:
        """Forget whom to answer: the process that asked is dead."""
        self._held.clear()

    async def _hold(self, until_ms: int) -> None:
        answered = anyio.Event()
        heappush(self._held, (until_ms, next(self._made), answered))
        await answered.wait()

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Take a request."""
        now_ms = self._clock.now_ms()
        status, until_ms = self._failing.get(destination.name, (200, 0))
        if now_ms >= until_ms:
            status = 200
        lost, lost_until_ms = self._losing.get(destination.name, ("", 0))
        if now_ms >= lost_until_ms:
            lost = ""
        if lost == "requests":
            return Answer(status=0, error="timed out")
        self.sent += [Sent(now_ms, destination.name, call, status) for call in calls]
        slow_ms, slow_until_ms = self._slow.get(destination.name, (0, 0))
        if slow_ms and now_ms < slow_until_ms:
            timeout_ms = int(1000 * (ask.timeout_s if isinstance(ask, HttpAsk) else TIMEOUT_S_DEFAULT))
            await self._hold(now_ms + min(slow_ms, timeout_ms))
            lost = lost if slow_ms < timeout_ms else "answers"
        if lost:
            return Answer(status=0, error="timed out")
        return Answer(status=status, headers={}, body=b"{}")


class FatalScans:
    """Scans at once; the process may die while a backfill gathers the past, right after what stood was stored."""

    def __init__(self, world: "SimulatedWorld") -> None:
        self._world = world

    @asynccontextmanager
    async def run(
        self, log: Log, job: Job, canonical: "array[int]", hear: Progress = unheard
    ) -> AsyncIterator[Iterable[Page]]:
        """See `actors.scanning.Scans`."""
        world = self._world
        if isinstance(job, Backfill) and world.backfills_left:
            world.backfills_left -= 1
            if not world.backfills_left:
                await world.space.checkpoint()
                world.log.die()
                await anyio.sleep_forever()
        async with HERE.run(log, job, canonical, hear) as pages:
            yield pages


class SimulatedWorld:
    """A world that a scenario goes on in. Get one from `simulated`."""

    def __init__(self, tasks: TaskGroup, start_ms: int, seed: int) -> None:
        self._tasks = tasks
        self.log = MortalLog()
        self.clock = SimulatedClock(start_ms)
        self.receiver = Receiver(self.clock)
        self.rejected = 0
        self._seed = seed
        self._seal = PlainSeal()
        self._made = count(1)
        self._disk_full_until_ms: int | None = None
        self._lives = 0
        self.backfills_left = 0  # until the process dies in one
        self.active_max = ACTIVE_MAX
        self.space: Space
        self.destinations: Destinations
        self.deliveries: Deliveries
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._requests: TaskGroup | None = None  # of the process: requests that take time

    # -- life and death ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start, or start again, from the log."""
        self._lives += 1
        self.space = Space(
            "spa_simulated",
            self.log,
            self.clock,
            suppression_key=SUPPRESSION_KEY,
            active_max=self.active_max,
            scans=FatalScans(self),
        )
        random = Random(self._seed * 1000 + self._lives)  # noqa: S311 - reproducible
        self.destinations = Destinations(self.space, DESTINATIONS, self._seal, random)
        self.destinations.load()
        self.deliveries = Deliveries(self.space, self.destinations, transport=self.receiver, random=random)
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        self._requests = None
        self._tasks.start_soon(self._live, self.space, self.log, self._scope, self._ended)

    async def _live(self, space: Space, log: MortalLog, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as tasks:
                    self._requests = tasks
                    tasks.start_soon(space.run)
                    tasks.start_soon(space.backfills.run)
        except* LogError:
            if not log.is_dead:
                raise
        finally:
            ended.set()

    async def crash(self) -> None:
        """Die at once, with nothing closed, and start again from the log."""
        await self._restart()
        await self.survived(self.settle)

    async def restart(self) -> None:
        """Stop in order, and start again from what is stored."""
        await self.survived(lambda: self.space.close())
        await self.crash()

    async def down(self, for_ms: int) -> None:
        """Die at once, and start again from the log after so long: what fell due meanwhile is made up for."""
        self.clock.set_ms(self.clock.now_ms() + for_ms)
        await self.crash()
        await self.survived(lambda: self.move_to(self.clock.now_ms()))

    async def put_away(self) -> None:
        """Store what stands, and let it leave memory."""
        most, self.space.active_max = self.space.active_max, 0
        try:
            await self.space.checkpoint()
        finally:
            self.space.active_max = most

    async def _restart(self) -> None:
        self._scope.cancel()
        await self._ended.wait()
        self.receiver.hang_up()
        on_death = self.log.on_death  # of whoever is at something that goes on after this
        self.log = self.log.reborn()
        self.log.on_death = on_death
        self.open()

    async def survived(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something, as a client does it: again, for as long as it is not acknowledged.

        The process may die before it is, or the disk have no room for it.
        """
        outer = self.log.on_death
        for _ in range(LIVES_MAX):
            done, refused = False, self.log.refused
            with anyio.CancelScope() as scope:
                self.log.on_death = scope.cancel
                try:
                    await act()
                    done = True
                except LogError:
                    if not self.log.is_dead and self.log.refused == refused:
                        raise
            died = self.log.is_dead
            self.log.on_death = outer
            if died:
                await self._restart()
            elif done:
                return
            if done:
                act = self.settle
        raise AssertionError("the process dies for ever")

    async def settings(self, given: dict[str, Any]) -> None:
        """Change the space's settings."""
        if given:
            await self.space.change_settings(given)

    # -- time --------------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let happen all that follows at this moment."""
        await self.space.backfilled()
        await self._deliver()

    async def folded(self) -> None:
        """Let the effects of what came be written before more comes: which is first would be the scheduler's to say."""
        await self.space.settle()

    async def _deliver(self) -> int | None:
        await self.space.settle()
        now_ms, refused = self.clock.now_ms(), self.log.refused
        try:
            if not self.receiver.is_slow:
                return await self.deliveries.step(now_ms)
            while True:
                due_ms = await self.deliveries.step(now_ms, self._begin)
                if self.receiver.answer(now_ms):  # one after the other: their order is not the scheduler's to say
                    while self.deliveries.under_way > self.receiver.holding:
                        await anyio.lowlevel.checkpoint()
                elif self.deliveries.in_flight == self.deliveries.under_way:
                    return due_ms
        except LogError:  # the disk is full; it is tried again when it is not
            if self.log.is_dead or self.log.refused > refused:
                raise
            return None

    async def _begin(self, converse: Callable[[], Awaitable[None]]) -> None:
        """Let a conversation begin, until it has ended or waits for an answer that takes time."""
        while self._requests is None:  # the process has only just been started
            await anyio.lowlevel.checkpoint()
        ended = anyio.Event()
        holding = self.receiver.holding

        async def act() -> None:
            await converse()
            ended.set()

        self._requests.start_soon(act)
        while not ended.is_set() and self.receiver.holding == holding:
            await anyio.lowlevel.checkpoint()

    async def move_to(self, to_ms: int) -> None:
        """Move the clock on, stopping wherever something is due."""
        for _ in range(TURNS_MAX):
            sent_due_ms = await self._deliver()
            moments = [self.space.next_due_ms(), sent_due_ms, self.receiver.next_ms(), self._disk_full_until_ms]
            due = [moment for moment in moments if moment is not None and moment <= to_ms]
            if self._disk_full_until_ms is not None:  # what is due already waits for room
                due = [moment for moment in due if moment > self.clock.now_ms()]
            if not due:
                break
            await self._arrive(max(self.clock.now_ms(), min(due)))
        else:
            raise AssertionError(f"time does not move on from {self.clock.now_ms()}")
        await self._arrive(to_ms)
        await self._deliver()

    async def _arrive(self, at_ms: int) -> None:
        self.clock.set_ms(at_ms)
        if self._disk_full_until_ms is not None:
            if at_ms < self._disk_full_until_ms:
                return
            self.log.fail_with = None
            self._disk_full_until_ms = None
        await self.space.advance()

    # -- what happens ------------------------------------------------------------------------------------------------

    async def send(self, message: dict[str, Any], source: str) -> None:
        """Receive a tracking call now."""
        one = accept(
            msgspec.json.encode(message),
            kind=None,
            received_ms=self.clock.now_ms(),
            sent_at=None,
            index=0,
            source=source,
            new_id=lambda: f"simulated-{next(self._made)}",
        )
        taken, refused = ([], [one]) if isinstance(one, Rejected) else ([one], [])
        self.rejected += len(await self.space.ingest(taken, refused, source))

    async def attempt(self, message: dict[str, Any], source: str) -> None:
        """Receive a tracking call while the disk is full: it must not be acknowledged, unless it was before."""
        duplicates = self.space.duplicates
        try:
            await self.send(message, source)
        except LogFullError:
            return
        if self.space.duplicates == duplicates:
            raise AssertionError("an event was acknowledged while the disk was full")

    async def fault(self, fault: Fault) -> None:
        """Let something go wrong. Faults of messages are spent in the timeline."""
        if fault.destination is not None:
            self._fault_of_destination(fault.destination, fault)
        elif fault.crash:
            await self.crash()
        elif fault.restart:
            await self.restart()
        elif fault.down is not None:
            await self.down(duration_ms(fault.down))
        elif fault.checkpoint:
            await self.survived(self.put_away)
        elif fault.crash_after is not None:
            self.log.die_after(fault.crash_after)
        elif fault.crash_in is not None:
            self.log.die_in(fault.crash_in)
        elif fault.crash_in_backfill is not None:
            self.backfills_left = fault.crash_in_backfill
        elif fault.full_in is not None:
            self.log.fill_in(fault.full_in)
        elif fault.disk_full is not None:
            self._disk_full_until_ms = self.clock.now_ms() + duration_ms(fault.disk_full)
            self.log.fail_with = LogFullError("the simulated disk is full")

    def _fault_of_destination(self, destination: str, fault: Fault) -> None:
        until_ms = 1 << 62 if fault.for_ is None else self.clock.now_ms() + duration_ms(fault.for_)
        if fault.status is not None:
            self.receiver.fail(destination, fault.status, until_ms)
        elif fault.lost is not None:
            self.receiver.lose(destination, fault.lost, until_ms)
        elif fault.slow is not None:
            self.receiver.dawdle(destination, duration_ms(fault.slow), until_ms)

    async def change(self, action: Changing) -> None:
        """Change a definition or a connection. Raises QueryError, RefusedError."""
        match action:
            case Define():
                await self.define(action)
            case Edit():
                await self.edit(action)
            case Delete():
                await self.delete(action)
            case Connect():
                await self.connect(action)
            case Disconnect():
                await self.disconnect(action)

    def stands(self, action: Changing) -> bool:
        """Tell whether what a change makes is there, for whoever would look before doing it once more."""
        try:
            match action:
                case Define():
                    spec: AudienceSpec = action.audience or action.trait  # type: ignore[assignment] # one is given
                    return bool(self.space.definition(key_of(spec)))
                case Delete():
                    given = action.audience or action.trait
                    return not self.space.definition(given.key if isinstance(given, DeleteSpec) else str(given))
                case Connect():
                    number = self.space.definition(str(action.audience or action.trait)).definition.number
                    destination_id = self.destination_id(action.destination)
                    return self.destinations.connection_of(number, destination_id).enabled
        except NotFoundError:
            return isinstance(action, Delete)
        return False  # an edit may be made again

    async def define(self, action: Define) -> None:
        """Create a definition. Raises QueryError, RefusedError."""
        spec: AudienceSpec = action.audience or action.trait  # type: ignore[assignment] # one of them is given
        await self.space.create_definition(
            kind="trait" if isinstance(spec, TraitSpec) else "audience",
            name=spec.name,
            key=spec.key,
            entity_type=spec.type,
            query=spec.query,
            description=spec.description,
            options=options_of(spec.options),
            enabled=spec.enabled,
        )
        await self.space.backfilled()

    async def edit(self, action: Edit) -> None:
        """Change a definition. Raises QueryError, RefusedError."""
        spec = action.audience or action.trait
        assert spec is not None
        await self.space.edit_definition(
            spec.key,
            name=spec.name,
            description=spec.description,
            query=spec.query,
            options=None if spec.options is None else options_of(spec.options),
            enabled=spec.enabled,
        )
        await self.space.backfilled()

    async def delete(self, action: Delete) -> None:
        """Delete a definition. Raises RefusedError."""
        given = action.audience or action.trait
        if isinstance(given, DeleteSpec):
            await self.space.delete_definition(given.key, send_exits=given.send_exits)
        else:
            await self.space.delete_definition(str(given))

    # -- destinations ------------------------------------------------------------------------------------------------

    async def add_destination(self, spec: DestinationSpec) -> None:
        """Create a destination."""
        settings: dict[str, Any] = {"url": f"https://{spec.name}.example/"} if spec.type == "webhook" else {}
        settings |= spec.settings
        if spec.rate is not None:
            settings["rate"] = spec.rate
        if spec.burst is not None:
            settings["burst"] = spec.burst
        if spec.interval is not None:
            settings["sync_interval_seconds"] = duration_ms(spec.interval) // 1000
        await self.destinations.create_destination(
            type=spec.type, name=spec.name, source_id="simulated", settings=settings
        )

    def destination_id(self, name: str) -> str:
        """Return the id of a destination by its name in the scenario."""
        return next(one.id for one in self.destinations.destinations() if one.name == name)

    async def connect(self, action: Connect) -> None:
        """Connect a definition to a destination, or connect it again. Raises RefusedError."""
        definition = self.space.definition(str(action.audience or action.trait)).definition
        settings = dict(action.connection_settings or {})
        sends = {"sendIdentify": action.send_identify, "sendTrack": action.send_track, "sendGroup": action.send_group}
        settings |= {name: value for name, value in sends.items() if value is not None}
        sync = action.id_sync_configuration
        ids = None if sync is None else tuple(IdSync(one.external_id, one.strategy, one.map_to) for one in sync)
        await self.destinations.connect(
            definition.id, self.destination_id(action.destination), id_sync=ids, settings=settings or None
        )

    async def disconnect(self, action: Disconnect) -> None:
        """Pause a connection. Raises RefusedError."""
        number = self.space.definition(str(action.audience or action.trait)).definition.number
        connection = self.destinations.connection_of(number, self.destination_id(action.destination))
        await self.destinations.disconnect(connection.id)

    # -- answers -----------------------------------------------------------------------------------------------------

    async def member_names(self, key: str, at_ms: int | None, known_ms: int | None) -> list[str]:
        """Return the names of an audience's members."""
        known_seq = None if known_ms is None else self.space.known_seq(known_ms)
        rows = await self.space.members(key, at_ms=at_ms, known_ms=known_ms)
        return [self._name(entity, known_seq) for entity, _ in rows]

    def _name(self, entity: int, known_seq: int | None) -> str:
        if known_seq is None:
            return self.space.name_of(entity)
        rows = self.space.ids_of(entity, known_seq=known_seq)
        named = [row.value for row in rows if row.id_type in ("user_id", "group_id")]
        return named[0] if named else f"{rows[0].id_type}:{rows[0].value}" if rows else self.space.name_of(entity)

    async def traits_of(self, name: str, at_ms: int | None, known_ms: int | None) -> dict[str, Any]:
        """Return the traits of the profile or account with this name; none for nobody."""
        known_seq = None if known_ms is None else self.space.known_seq(known_ms)
        for id_type, value in ids_of_name(name):
            collection: Collection = "accounts" if id_type == "group_id" else "users"
            entity = self.space.find(collection, id_type, value, known_seq=known_seq)
            if entity is not None:
                rows = await self.space.traits_of(entity, at_ms=at_ms, known_ms=known_ms)
                return {row.key: row.value for row in rows}
        return {}


def options_of(spec: OptionsSpec | None) -> Options:
    """Return the options of a definition."""
    if spec is None:
        return Options()
    return Options(
        include_historical_data=spec.include_historical_data,
        filter_by_external_ids=spec.filter_by_external_ids,
        backfill_event_data_days=spec.backfill_days,
        include_anonymous_users=spec.include_anonymous_users,
    )


@asynccontextmanager
async def simulated(start_ms: int, seed: int, settings: dict[str, Any]) -> AsyncIterator[SimulatedWorld]:
    """Open a simulated world for the block."""
    async with anyio.create_task_group() as tasks:
        world = SimulatedWorld(tasks, start_ms, seed)
        world.open()
        await world.settings(settings)
        yield world
        tasks.cancel_scope.cancel()
