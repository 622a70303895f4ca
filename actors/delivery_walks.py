"""Passes over many profiles: filling a new destination, a full resync, a withdrawal, the net of what was passed over.

A pass goes page by page, remembers where it is, and never holds more than a page: the size of an audience does not
matter, nor does a restart. It marks profiles as *unsettled*; draining those makes jobs of them, few at a time, so that
live changes always find room. A list drains at its interval, everything else at once.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import anyio.lowlevel

from actors.delivery import Adapter, Connection, Limits
from actors.delivery_jobs import Planner, Profiles
from actors.delivery_lanes import Job, Lanes
from actors.delivery_ledger import Ledger, Walk
from actors.delivery_plan import State, Told
from actors.delivery_source import EffectSource
from eventlog.entries import Erased, Merged, TraitComputed

FILL_NUMBERS: Final = 5_000  # entities looked at at once, members or not
FILL_SLICE: Final = 200  # members taken in before others get a turn
REFILL_PART: Final = 4  # jobs are made once a fourth of a share is free
DRAINED_MIN: Final = 200  # jobs made of unsettled profiles at a time, two batches at least


class Members(Protocol):
    """Lists members; a space does."""

    def members(self, definition_id: str, after: int, numbers: int) -> tuple[Sequence[tuple[int, int]], int | None]:
        """Return the members among the next `numbers` entities with since when, and where to go on.

        As far as is folded; none, and no more, when the definition is deleted.
        """


class Walker:
    """Makes the passes of one destination."""

    def __init__(
        self,
        *,
        adapter: Adapter,
        ledger: Ledger,
        lanes: Lanes,
        planner: Planner,
        profiles: Profiles,
        members: Members,
        source: EffectSource,
    ) -> None:
        self._adapter = adapter
        self._ledger = ledger
        self._lanes = lanes
        self._planner = planner
        self._profiles = profiles
        self._members = members
        self._source = source
        self._draining: dict[str, int] = {}  # connection -> the entity it has got to
        self._drained_max = max(DRAINED_MIN, 2 * adapter.batch_max)
        self._reconciling: dict[str, int] = {}  # jobs made by draining and not yet done, by connection
        self.gone: set[str] = set()  # connections whose definition was deleted, and that are finished with

    @property
    def reconciling(self) -> int:
        """Return how many jobs made by draining are not yet done."""
        return sum(self._reconciling.values())

    def unload(self) -> None:
        """Forget what is under way: the ledger has it."""
        self._draining.clear()
        self._reconciling.clear()

    # -- what the configuration asks for -----------------------------------------------------------------------------

    def configure(self, connections: Iterable[Connection], *, resumed: bool) -> None:
        """Start what a new, resumed, resynced or removed connection needs."""
        state = self._ledger.state
        current = {connection.id: connection for connection in connections}
        for connection in current.values():
            known = state.known.get(connection.id)
            wanted = (connection.epoch, connection.refill)
            if known is None and connection.fill:
                state.walks[connection.id] = Walk("fill")
            elif known is not None and known[1] < connection.refill:
                state.walks[connection.id] = Walk("refill")
                state.memory = {k: v for k, v in state.memory.items() if not k.startswith(f"{connection.id}.")}
            if known is not None and known[0] < connection.epoch:
                self._ledger.touched.add(connection.id)
            state.known[connection.id] = wanted
        for gone in state.known.keys() - current.keys():
            state.walks[gone] = Walk("forget")
        if resumed:
            self._ledger.touched.update(current)

    # -- passes ------------------------------------------------------------------------------------------------------

    async def walk(self) -> bool:
        """Go one page on with each pass; tell whether any moved."""
        moved = False
        for connection_id, walk in list(self._ledger.state.walks.items()):
            match walk.what:
                case "fill":
                    moved |= await self._fill(connection_id, walk)
                case "refill":
                    moved |= self._refill(connection_id, walk)
                case "withdraw":
                    moved |= self._withdraw(connection_id, walk)
                case "forget":
                    moved |= self._forget(connection_id, walk)
        return moved

    def _go_on(self, connection_id: str, walk: Walk | None) -> bool:
        if walk is None:
            del self._ledger.state.walks[connection_id]
        else:
            self._ledger.state.walks[connection_id] = walk
        return True

    async def _fill(self, connection_id: str, walk: Walk) -> bool:
        connection = self._planner.connections.get(connection_id)
        if connection is None:
            return self._go_on(connection_id, None)
        if connection.kind == "trait":
            return await self._fill_values(connection, walk)
        if not self._adapter.is_list and connection_id in self._draining:
            return False  # the last page goes out first
        basis_seq = self._profiles.folded_seq()
        page, after = self._members.members(connection.definition_id, walk.after, FILL_NUMBERS)
        for place, (entity, since_ms) in enumerate(page):
            self._found(connection, entity, State(True, connection.since_seq, since_ms, basis_seq))
            if place % FILL_SLICE == FILL_SLICE - 1:
                await anyio.lowlevel.checkpoint()
        return self._go_on(connection_id, None if after is None else Walk("fill", after=after))

    async def _fill_values(self, connection: Connection, walk: Walk) -> bool:
        """The values of a trait are read off the log: the newest of each profile by the time it was connected."""
        found = await self._source.read(walk.after)
        for item in found.items:
            if item.seq > connection.since_seq:
                break
            what = item.what
            if isinstance(what, TraitComputed) and what.definition == connection.definition:
                self._found(connection, what.entity, State(what.value, item.seq, what.at_ms))
            elif isinstance(what, Merged):
                for absorbed in what.absorbed:
                    known = self._ledger.true(connection.id, absorbed)
                    self._ledger.forget(connection.id, absorbed)
                    if known is not None and self._ledger.true(connection.id, what.survivor) is None:
                        self._found(connection, what.survivor, known)
            elif isinstance(what, Erased):
                self._ledger.forget(connection.id, what.entity)
        if found.until_seq >= connection.since_seq or found.until_seq <= walk.after:
            self._ledger.touched.add(connection.id)
            return self._go_on(connection.id, None)
        return self._go_on(connection.id, Walk("fill", after=found.until_seq))

    def _found(self, connection: Connection, entity: int, state: State) -> None:
        known = self._ledger.true(connection.id, entity)
        if known is None or known.seq < state.seq:
            self._ledger.write_true(connection.id, entity, state)
        self._ledger.unsettle(connection.id, entity)
        if connection.entity_type != "ACCOUNTS":
            return
        said = self._ledger.said(connection.id, entity)
        if said is None or said.seq < state.seq:
            self._ledger.write_said(connection.id, entity, state)
        for user in self._profiles.users(entity):
            mine = self._ledger.true(connection.id, user)
            if mine is None or (mine.seq < state.seq and (connection.kind == "trait" or not mine.value)):
                self._ledger.write_true(connection.id, user, state)
            self._ledger.unsettle(connection.id, user)

    def _refill(self, connection_id: str, walk: Walk) -> bool:
        """Forget having told: then everything is owed anew, exits too."""
        page = self._ledger.entities(connection_id, walk.after)
        for entity in page:
            for ids, told in self._ledger.told(connection_id, entity).items():
                self._ledger.write_told(connection_id, entity, ids, Told(told.value, told.seq, sure=False))
            self._ledger.unsettle(connection_id, entity)
        return self._go_on(connection_id, Walk("refill", after=page[-1]) if page else Walk("fill"))

    def _withdraw(self, connection_id: str, walk: Walk) -> bool:
        """Everyone leaves: the definition is gone. Then the connection is."""
        page = self._ledger.entities(connection_id, walk.after)
        for entity in page:
            self._ledger.write_true(connection_id, entity, State(False, walk.seq, walk.at_ms))
            self._ledger.unsettle(connection_id, entity)
        if page:
            return self._go_on(connection_id, Walk("withdraw", page[-1], walk.seq, walk.at_ms))
        if connection_id in self._draining or self._ledger.unsettled(connection_id, 0, 1):
            return False
        return self._go_on(connection_id, Walk("forget"))

    def _forget(self, connection_id: str, walk: Walk) -> bool:
        page = self._ledger.entities(connection_id, walk.after)
        for entity in page:
            self._ledger.forget(connection_id, entity)
        if page:
            return self._go_on(connection_id, Walk("forget", after=page[-1]))
        state = self._ledger.state
        state.known.pop(connection_id, None)
        state.memory = {k: v for k, v in state.memory.items() if not k.startswith(f"{connection_id}.")}
        if connection_id in self._planner.connections:
            self.gone.add(connection_id)
        return self._go_on(connection_id, None)

    # -- draining ----------------------------------------------------------------------------------------------------

    def due_ms(self, limits: Limits) -> int | None:
        """Return when a list is to be synced next; None while there is nothing to sync, or a sync is under way."""
        state = self._ledger.state
        if not self._adapter.is_list or self._draining or state.unsettled <= self.reconciling:
            return None
        if any(walk.what in {"fill", "refill"} for walk in state.walks.values()):
            return None
        if all(connection in self._planner.quiet for connection in self._planner.connections):
            return None
        return state.synced_ms + limits.interval_ms if state.synced_ms else 0

    def queued(self, job: Job) -> None:
        """Take note that a job is queued."""
        if job.what == "reconcile":
            self._reconciling[job.connection] = self._reconciling.get(job.connection, 0) + 1

    def finished(self, job: Job) -> None:
        """Take note that a job is done."""
        if job.what == "reconcile":
            self._reconciling[job.connection] -= 1

    def drain(self, now_ms: int, limits: Limits) -> bool:
        """Make jobs of unsettled profiles, as many as may be under way; tell whether any were made."""
        touched = {one for one in self._ledger.touched if one not in self._planner.quiet}
        self._ledger.touched.clear()
        if self._adapter.is_list:
            due_ms = self.due_ms(limits)
            if due_ms is not None and due_ms <= now_ms:
                self._ledger.state.synced_ms = now_ms
                self._draining = dict.fromkeys(
                    (one for one in self._planner.connections if one not in self._planner.quiet), 0
                )
        else:
            filling = {one for one, walk in self._ledger.state.walks.items() if walk.what in {"fill", "refill"}}
            values = {one.id for one in self._planner.connections.values() if one.kind == "trait"} & filling
            for connection_id in touched - values:
                self._draining[connection_id] = 0
        made = False
        for connection_id in list(self._draining):
            made |= self._drain_one(connection_id, now_ms)
        return made

    def _drain_one(self, connection_id: str, now_ms: int) -> bool:
        if connection_id in self._planner.quiet or connection_id not in self._planner.connections:
            del self._draining[connection_id]
            return True
        share, room = self._share(), self._room(connection_id)
        if room <= 0 or (room < share // REFILL_PART and self._reconciling.get(connection_id)):
            return False  # rather some at once than each by itself
        after = self._draining.pop(connection_id)  # and to the end, if it goes on: the others are next
        page = self._ledger.unsettled(connection_id, after, room)
        for one in page:
            job = Job("reconcile", 0, one.entity, connection_id)
            if self._lanes.add(job, now_ms) is not None:
                self.queued(job)
        if len(page) == room:
            self._draining[connection_id] = page[-1].entity
        return True

    def _share(self) -> int:
        """Return how many jobs each connection may have under way."""
        if len(self._draining) <= 1:
            return self._drained_max
        return max(self._adapter.batch_max, self._drained_max // len(self._draining))

    def _room(self, connection_id: str) -> int:
        """Return how many jobs a connection may have made now: a share is left for each, whatever the others have."""
        most = self._drained_max if len(self._draining) == 1 else 2 * self._drained_max
        return min(most - self.reconciling, self._share() - self._reconciling.get(connection_id, 0))
