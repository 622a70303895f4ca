"""All destinations of a space at work: one actor each, kept apart from each other and from everything else.

An actor that fails is dropped and made anew from what is stored, after a pause that doubles; the others never notice.
A daemon calls `run`; a simulation calls `step` whenever its clock has moved. What can be seen of deliveries is asked
here.
"""

from collections.abc import Mapping, Sequence
from random import Random
from traceback import format_exception
from typing import Any, Final

import anyio
import structlog
from anyio.abc import TaskGroup

from actors.delivery import Answer, CommonSettings, Context, Transport, Verdict
from actors.delivery_failures import Failure
from actors.delivery_ids import IdValue
from actors.delivery_ledger import DeadLetter, Ledger
from actors.delivery_outcomes import Observer
from actors.delivery_rows import Rows
from actors.delivery_settings import parse
from actors.delivery_source import EffectSource, relevant
from actors.delivery_views import DeliveryView, DestinationStatus, Found, holds, settled, status_of, waiting
from actors.destination import Begin, DestinationActor
from actors.destinations_state import GONE, Destinations
from actors.space_api import SpaceApi
from eventlog.clock import Clock
from eventlog.entries import AnyFact
from eventlog.errors import ConfigError, InvalidError, LogError, NotFoundError
from eventlog.log import DELIVERIES, Changes, Log

RESTART_FIRST_S: Final = 1.0
RESTART_MAX_S: Final = 60.0
LISTED_MAX: Final = 1_000  # deliveries or dead letters in one answer
PING_ASKS_MAX: Final = 5
SEARCHED_MAX: Final = 10_000  # dead letters looked at for one answer: some 50 ms

__all__ = ["Deliveries", "DeliveryView", "DestinationStatus", "SpaceWorld"]

log = structlog.get_logger()


class SpaceWorld:
    """What a space answers to its destinations."""

    def __init__(self, space: SpaceApi) -> None:
        self._space = space

    @property
    def space_id(self) -> str:
        """Return the id of the space."""
        return self._space.id

    @property
    def log(self) -> Log:
        """Return the space's log."""
        return self._space.log

    @property
    def clock(self) -> Clock:
        """Return the space's clock."""
        return self._space.clock

    def ids(self, entity: int) -> Sequence[IdValue]:
        """Return the ids of a profile or account, oldest first; none when it is gone."""
        try:
            return [(row.id_type, row.value) for row in self._space.ids_of(entity)]
        except NotFoundError:
            return []

    def public_id(self, entity: int) -> str:
        """Return the public id of a profile or account."""
        return self._space.public_id(entity)

    def users(self, account: int) -> Sequence[int]:
        """Return the users of an account."""
        return self._space.users_now(account)

    def accounts(self, user: int) -> Sequence[int]:
        """Return the accounts of a user."""
        return self._space.accounts_now(user)

    def current(self, entity: int) -> Mapping[str, Any]:
        """Return a profile's audiences and traits by key, as far as is folded; what is not live yet is left out."""
        return self._space.values_now(entity)

    def folded_seq(self) -> int:
        """Return up to where that is."""
        return self._space.now()[1]

    def members(self, definition_id: str, after: int, numbers: int) -> tuple[Sequence[tuple[int, int]], int | None]:
        """Return the members among the next `numbers` entities with since when, and where to go on."""
        try:
            return self._space.members_now(definition_id, after=after, numbers=numbers)
        except NotFoundError:
            return [], None

    async def record(self, facts: tuple[AnyFact, ...], changes: tuple[Changes, ...]) -> int:
        """Append facts and row changes in one transaction."""
        return await self._space.record(facts, changes)


class Deliveries:
    """The destination actors of a space."""

    def __init__(
        self,
        space: SpaceApi,
        destinations: Destinations,
        *,
        transport: Transport,
        random: Random,
        observer: Observer | None = None,
    ) -> None:
        self._world = SpaceWorld(space)
        self.destinations = destinations
        self._source = EffectSource(space.log)
        self._transport = transport
        self._random = random
        self._observer = observer
        self._actors: dict[str, DestinationActor] = {}
        self._failures: dict[str, str] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._changed = anyio.Event()
        self._seen_version = -1
        destinations.changed = self._note_change

    def _note_change(self) -> None:
        self._changed.set()
        self.wake()

    def wake(self) -> None:
        """Tell the actors that there may be something to do: the clock was moved, settings changed."""
        for actor in self._actors.values():
            actor.wake()

    # -- a simulation's way ------------------------------------------------------------------------------------------

    async def step(self, now_ms: int, begin: Begin | None = None) -> int | None:
        """Perform all that is due now; return when something is due next, None: not by itself.

        With `begin` conversations may take time: see `DestinationActor.step`, and `in_flight` and `under_way` here.
        """
        await self._align()
        due = [await self._step(one, now_ms, begin) for one in list(self._actors)]
        if self._seen_version != self.destinations.version:
            return await self.step(now_ms, begin)  # a connection was finished with
        return min((one for one in due if one is not None), default=None)

    async def _step(self, destination_id: str, now_ms: int, begin: Begin | None) -> int | None:
        try:
            return await self._actors[destination_id].step(now_ms, begin)
        except LogError:  # nobody knows what was stored: it is made anew, as a daemon does
            del self._actors[destination_id]
            raise

    @property
    def in_flight(self) -> int:
        """Return how many conversations were begun and are not yet accounted for."""
        return sum(actor.in_flight for actor in self._actors.values())

    @property
    def under_way(self) -> int:
        """Return how many of them have not ended."""
        return sum(actor.under_way for actor in self._actors.values())

    async def _align(self) -> None:
        """Have an actor for each destination, and nothing left of those deleted."""
        self._seen_version = self.destinations.version
        current = {one.id for one in self.destinations.destinations()}
        for destination_id in list(self._actors):
            if destination_id not in current:
                del self._actors[destination_id]
        for destination_id in self.destinations.gone():
            await self._clean(destination_id)
        for one in self.destinations.destinations():
            if one.id not in self._actors:
                self._actors[one.id] = self._make(one.id)

    def _make(self, destination_id: str) -> DestinationActor:
        return DestinationActor(
            destination_id,
            destinations=self.destinations,
            world=self._world,
            source=self._source,
            transport=self._transport,
            random=self._random,
            observer=self._observer,
        )

    async def _clean(self, destination_id: str) -> None:
        """Delete the rows of a deleted destination, a page at a time."""
        rows = Rows(self._world.log)
        ledger = Ledger(rows, destination_id)
        projection = f"destination:{destination_id}"
        for connection_id in list(ledger.state.known):
            while page := ledger.entities(connection_id, 0):
                for entity in page:
                    ledger.forget(connection_id, entity)
                await self._world.log.store([rows.take(projection, self._world.log.last_seq)])
                rows.stored()
        while found := rows.range(DELIVERIES, (destination_id,)):
            for row in found:
                rows.delete(DELIVERIES, row.key)
            await self._world.log.store([rows.take(projection, self._world.log.last_seq)])
            rows.stored()
        rows.delete(DELIVERIES, ("", f"{GONE}{destination_id}"))
        await self._world.log.store([rows.take(projection, self._world.log.last_seq)])
        rows.stored()
        self.destinations.cleaned(destination_id)

    # -- a daemon's way ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            while True:
                self._changed = anyio.Event()
                await self._keep_up(tasks)
                await self._changed.wait()

    async def _follow(self) -> None:
        self._source.following = True
        async for commit in self._world.log.follow(self._source.until_seq):
            self._source.offer(commit)
            if next(relevant(commit), None) is not None:
                self.wake()

    async def _keep_up(self, tasks: TaskGroup) -> None:
        current = {one.id for one in self.destinations.destinations()}
        for destination_id, scope in list(self._scopes.items()):
            if destination_id not in current:
                scope.cancel()
        for destination_id in self.destinations.gone():
            if destination_id not in self._scopes:
                await self._clean(destination_id)
        for destination_id in sorted(current - self._scopes.keys()):
            scope = self._scopes[destination_id] = anyio.CancelScope()
            tasks.start_soon(self._keep, destination_id, scope)

    async def _keep(self, destination_id: str, scope: anyio.CancelScope) -> None:
        """Keep a destination's actor running, whatever happens to it."""
        pause_s = RESTART_FIRST_S
        try:
            with scope:
                while True:
                    try:
                        actor = self._actors[destination_id] = self._make(destination_id)
                        self._failures.pop(destination_id, None)
                        await actor.run()
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is this destination's alone
                        self._failures[destination_id] = str(error) or repr(error)
                        where = "".join(format_exception(error))  # without locals: they hold settings
                        log.error("destination_failed", destination=destination_id, again_in_s=pause_s, error=where)
                    await anyio.sleep(pause_s)
                    pause_s = min(RESTART_MAX_S, 2 * pause_s)
        finally:
            self._actors.pop(destination_id, None)
            self._scopes.pop(destination_id, None)
            self._changed.set()

    # -- what can be seen and done -----------------------------------------------------------------------------------

    def _ledger(self, destination_id: str) -> Ledger:
        self.destinations.destination(destination_id)
        actor = self._actors.get(destination_id)
        return actor.ledger if actor is not None else Ledger(Rows(self._world.log), destination_id)

    def status(self, destination_id: str) -> DestinationStatus:
        """Return how a destination is doing. Raises NotFoundError."""
        destination = self.destinations.destination(destination_id)
        actor = self._actors.get(destination_id)
        return status_of(
            destination,
            self._ledger(destination_id),
            actor,
            failure=self._failures.get(destination_id, ""),
            now_ms=self._world.clock.now_ms(),
            last_seq=self._world.log.last_seq,
            read_seq=actor.read_seq if actor is not None else self._cursor(destination_id),
        )

    def _cursor(self, destination_id: str) -> int:
        return self._world.log.cursor(f"destination:{destination_id}")

    def deliveries(self, destination_id: str, *, limit: int = 100) -> list[DeliveryView]:
        """Return what is under way or waits, then the newest settled deliveries, newest first. Raises NotFoundError."""
        ledger = self._ledger(destination_id)
        actor = self._actors.get(destination_id)
        limit = min(limit, LISTED_MAX)
        views = waiting(actor, limit) if actor is not None else []
        return views + [settled(record) for record in ledger.records(limit - len(views))]

    def failures(self, destination_id: str) -> list[Failure]:
        """Return the newest requests that failed, newest first, with what was answered. Raises NotFoundError."""
        return self._ledger(destination_id).failures()

    def dead_letters(self, destination_id: str, *, after: str = "", limit: int = 100) -> list[DeadLetter]:
        """Return dead letters in order of their ids, those after an id. Raises NotFoundError."""
        return self._ledger(destination_id).letters(after, min(limit, LISTED_MAX))

    def search_dead_letters(self, destination_id: str, text: str, *, after: str = "", limit: int = 100) -> Found:
        """Return the dead letters after an id that hold a text. Raises NotFoundError.

        It is looked for, whatever its case, in ids, keys, events, the reason and the status. So many are looked at that
        others are not kept waiting: where it stopped before the last one is told.
        """
        ledger, limit = self._ledger(destination_id), min(limit, LISTED_MAX)
        letters: list[DeadLetter] = []
        for _ in range(SEARCHED_MAX // LISTED_MAX):
            page = ledger.letters(after, LISTED_MAX)
            for place, letter in enumerate(page):
                if holds(letter, text):
                    letters.append(letter)
                    if len(letters) == limit:
                        more = place + 1 < len(page) or len(page) == LISTED_MAX
                        return Found(tuple(letters), letter.call.id if more else None)
            if len(page) < LISTED_MAX:
                return Found(tuple(letters), None)
            after = page[-1].call.id
        return Found(tuple(letters), after)

    async def resend(self, destination_id: str, delivery_id: str | None = None) -> int:
        """Send a dead letter again, or all of them; return how many. Raises NotFoundError."""
        return await self._settle_letters(destination_id, delivery_id, resend=True)

    async def drop(self, destination_id: str, delivery_id: str | None = None) -> int:
        """Delete a dead letter, or all of them; return how many. Raises NotFoundError."""
        return await self._settle_letters(destination_id, delivery_id, resend=False)

    async def _settle_letters(self, destination_id: str, delivery_id: str | None, *, resend: bool) -> int:
        ledger = self._ledger(destination_id)
        if destination_id not in self._actors:
            self._actors[destination_id] = self._make(destination_id)
        actor = self._actors[destination_id]
        act = actor.resend if resend else actor.drop
        if delivery_id is not None:
            if ledger.letter(delivery_id) is None:
                raise NotFoundError("dead_letter_not_found", f"there is no dead letter {delivery_id!r}")
            return await act([delivery_id])
        count, after = 0, ""
        while letters := actor.ledger.letters(after, LISTED_MAX):
            after = letters[-1].call.id
            count += await act([one.call.id for one in letters])
        return count

    async def ping(self, destination_id: str) -> Verdict:
        """Ask a destination a harmless question; the verdict says whether its settings work. Raises NotFoundError."""
        destination = self.destinations.destination(destination_id)
        adapter = self.destinations.adapter(destination.type)
        try:
            settings: CommonSettings = parse(adapter, self.destinations.readable(destination))
        except (ConfigError, InvalidError) as error:
            return Verdict(how="dead", reason=str(error))
        context = Context(settings, {}, self._world.clock.now_ms(), destination_id)
        talk = adapter.ping(context)
        try:
            ask = next(talk)
            for _ in range(PING_ASKS_MAX):
                answer: Answer = await self._transport(destination, ask, ())
                ask = talk.send(answer)
        except StopIteration as end:
            verdict: Verdict = end.value.verdicts[0]
            return verdict
        return Verdict(how="dead", reason="the destination asked for too many questions")
