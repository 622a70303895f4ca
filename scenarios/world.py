"""A simulated world: a real space with its real destinations, in memory, on a clock that moves only when told to.

Nothing of Turnout is replaced but its edges: the disk is a `MemoryLog`, the clock and the random numbers are handed
in, and at the other end of the wire is a `Receiver`. Time is moved from one due moment to the next, so that every
timer fires and every request leaves exactly when it is due. A crash drops the space as it is; what is opened again is
the log.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec import Struct

from actors.delivery import Answer, Ask, Call, Destination, IdSync
from actors.destinations_state import Destinations
from actors.door import accept
from actors.space import Collection, Space
from actors.space_core import ACTIVE_MAX
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS
from eventlog.clock import SimulatedClock
from eventlog.entries import Options, Rejected
from eventlog.errors import LogError, LogFullError
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
)

SUPPRESSION_KEY: Final = b"simulated".ljust(32, b"\0")
LIVES_MAX: Final = 1_000  # of one action: more is a fault that never ends
TURNS_MAX: Final = 1_000_000  # of one move of the clock: more is a timer that never rests


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

    def fail(self, destination: str, status: int, until_ms: int) -> None:
        """Answer a destination's requests with a status until a time."""
        self._failing[destination] = (status, until_ms)

    def lose(self, destination: str, what: str, until_ms: int) -> None:
        """Lose a destination's requests, or its answers, until a time."""
        self._losing[destination] = (what, until_ms)

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
        if lost:
            return Answer(status=0, error="timed out")
        return Answer(status=status, headers={}, body=b"{}")


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
        self._disk_full_until_ms = 0
        self._lives = 0
        self.active_max = ACTIVE_MAX
        self.space: Space
        self.destinations: Destinations
        self.deliveries: Deliveries
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    # -- life and death ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start, or start again, from the log."""
        self._lives += 1
        self.space = Space(
            "spa_simulated", self.log, self.clock, suppression_key=SUPPRESSION_KEY, active_max=self.active_max
        )
        random = Random(self._seed * 1000 + self._lives)  # noqa: S311 - reproducible
        self.destinations = Destinations(self.space, DESTINATIONS, self._seal, random)
        self.destinations.load()
        self.deliveries = Deliveries(self.space, self.destinations, transport=self.receiver, random=random)
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        self._tasks.start_soon(self._live, self.space, self.log, self._scope, self._ended)

    @staticmethod
    async def _live(space: Space, log: MortalLog, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as tasks:
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

    async def _restart(self) -> None:
        self._scope.cancel()
        await self._ended.wait()
        self.log = self.log.reborn()
        self.open()

    async def survived(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something, as a client does it: again, for as long as the process dies before it is acknowledged."""
        for _ in range(LIVES_MAX):
            done = False
            with anyio.CancelScope() as scope:
                self.log.on_death = scope.cancel
                try:
                    await act()
                    done = True
                except LogError:
                    if not self.log.is_dead:
                        raise
            died = self.log.is_dead
            self.log.on_death = None
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
        try:
            return await self.deliveries.step(self.clock.now_ms())
        except LogError:  # the disk is full; it is tried again when it is not
            if self.log.is_dead:
                raise
            return None

    async def move_to(self, to_ms: int) -> None:
        """Move the clock on, stopping wherever something is due."""
        for _ in range(TURNS_MAX):
            sent_due_ms = await self._deliver()
            moments = [self.space.next_due_ms(), sent_due_ms, self._disk_full_until_ms or None]
            due = [moment for moment in moments if moment is not None and moment <= to_ms]
            if not due:
                break
            await self._arrive(max(self.clock.now_ms(), min(due)))
        else:
            raise AssertionError(f"time does not move on from {self.clock.now_ms()}")
        await self._arrive(to_ms)
        await self._deliver()

    async def _arrive(self, at_ms: int) -> None:
        self.clock.set_ms(at_ms)
        if self._disk_full_until_ms:
            if at_ms < self._disk_full_until_ms:
                return
            self.log.fail_with = None
            self._disk_full_until_ms = 0
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
        """Receive a tracking call while the disk is full: it must not be acknowledged."""
        try:
            await self.send(message, source)
        except LogFullError:
            return
        raise AssertionError("an event was acknowledged while the disk was full")

    async def fault(self, fault: Fault) -> None:
        """Let something go wrong. Faults of messages are spent in the timeline."""
        now_ms = self.clock.now_ms()
        if fault.crash:
            await self.crash()
        elif fault.crash_after is not None:
            self.log.die_after(fault.crash_after)
        elif fault.crash_in is not None:
            self.log.die_in(fault.crash_in)
        elif fault.destination is not None and fault.status is not None:
            until_ms = now_ms + duration_ms(fault.for_) if fault.for_ is not None else 1 << 62
            self.receiver.fail(fault.destination, fault.status, until_ms)
        elif fault.destination is not None and fault.lost is not None:
            until_ms = now_ms + duration_ms(fault.for_) if fault.for_ is not None else 1 << 62
            self.receiver.lose(fault.destination, fault.lost, until_ms)
        elif fault.disk_full is not None:
            self._disk_full_until_ms = now_ms + duration_ms(fault.disk_full)
            self.log.fail_with = LogFullError("the simulated disk is full")

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
