"""From the log to jobs: which entries concern a destination, and whose lanes they go to.

A change of an account becomes one job for the account and one for each of its users. While a connection is paused or
crowded, and always for lists, changes are only noted: what is true is kept up to date, and the difference to what was
told is sent later.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from actors.delivery import Connection, Destination
from actors.delivery_jobs import Planner, Profiles
from actors.delivery_lanes import Job, Lanes, Parked
from actors.delivery_ledger import INTERNAL_MAX, Ledger, Walk
from actors.delivery_plan import State
from actors.delivery_source import EffectSource, Item, Linked
from eventlog.entries import DefinitionDeleted, Entered, Erased, Exited, IdAdded, Merged, RegulationSaved, TraitComputed

ABSORBED_MAX: Final = 10_000  # profiles; their last effects follow the merge at once
SLICES_A_TURN: Final = 4  # so that one that is behind lets the others work too


class Reader:
    """Follows the log for one destination."""

    def __init__(
        self, source: EffectSource, ledger: Ledger, lanes: Lanes, planner: Planner, profiles: Profiles, read_seq: int
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._lanes = lanes
        self._planner = planner
        self._profiles = profiles
        self._fan: deque[Job] = deque()  # the rest of an account's users
        self._fan_seq = 0
        self._now_ms = 0
        self._recorded_ms = 0  # when the log had the entry at hand
        self.read_seq = read_seq
        self.by_definition: dict[int, list[Connection]] = {}
        self.noted_until_seq = 0  # entries up to it were made while the destination was off
        self.is_list = False
        self._absorbed: dict[int, None] = {}  # lately; what is said of them after the merge, their survivor says too
        self.waits = False  # for the space to fold what is next

    def rewind(self, seq: int) -> None:
        """Read on after an entry that was read before; what was read since is forgotten."""
        self.read_seq = seq
        self._fan.clear()
        self._fan_seq = 0
        self.waits = False

    def configure(self, destination: Destination, connections: Iterable[Connection], *, is_list: bool) -> None:
        """Take another configuration in."""
        self.is_list = is_list
        self.noted_until_seq = destination.quiet_seq
        self.by_definition = {}
        for connection in connections:
            self.by_definition.setdefault(connection.definition, []).append(connection)

    async def read(self, now_ms: int) -> bool:
        """Read on while there is room; tell whether anything was read."""
        self._now_ms = now_ms
        self.waits = False
        start_seq = self.read_seq
        moved = False
        for _ in range(SLICES_A_TURN):
            if not self._spread():
                return True
            if not self._lanes.open:
                break
            found = await self._source.read(self.read_seq)
            if found.until_seq <= self.read_seq:
                break
            moved = True
            for item in found.items:
                if not self._take(item):
                    self.waits = True
                    return self.read_seq > start_seq
                self.read_seq = item.seq
                if self._fan or not self._lanes.open:
                    break
            else:
                self.read_seq = found.until_seq
        return moved

    def _spread(self) -> bool:
        """Queue the users of an account, as many as there is room for; tell whether all are."""
        while self._fan and self._lanes.open:
            self._add(self._fan.popleft(), self._fan_seq)
        if self._fan:
            return False
        if self._fan_seq:
            self._lanes.release(self._fan_seq)
            self._fan_seq = 0
        return True

    def _add(self, job: Job, seq: int) -> None:
        queued = self._lanes.add(job, self._now_ms, held_seq=seq, since_ms=self._recorded_ms)
        if queued is None:
            return
        lane = self._lanes.lane_of(job.entity)
        if lane is not None and lane.attempts:
            for one in self._lanes.park(lane):
                self._ledger.park(Parked(one.job, one.queued_ms))

    def _take(self, item: Item) -> bool:
        """Take an entry in; False: not yet, what it says of a profile is not folded."""
        what = item.what
        self._recorded_ms = item.recorded_ms
        match what:
            case Exited() if what.merged_into:  # told since the merge: the survivor, a member, takes that over too
                return self._merged(item, what.merged_into, (what.entity,), of=[what.entity])
            case Entered() | Exited():
                self._change(item, what.entity, what.definition, isinstance(what, Entered), what.at_ms)
            case TraitComputed():
                self._change(item, what.entity, what.definition, what.value, what.at_ms)
            case IdAdded():
                if self._concerns([what.entity]):
                    if self._profiles.folded_seq() < item.seq:
                        return False
                    self._add(Job("renew", item.seq, what.entity, at_ms=item.recorded_ms), item.seq)
            case Merged():
                return self._merged(item, what.survivor, what.absorbed, of=[what.survivor, *what.absorbed])
            case Erased():
                internal = what.regulation in self._ledger.state.internal
                self._add(Job("erase", item.seq, what.entity, value=internal, at_ms=item.recorded_ms), item.seq)
            case RegulationSaved():
                self._regulated(what)
            case Linked():
                self._linked(item, what)
            case DefinitionDeleted():
                self._deleted(item, what)
        return True

    def _merged(self, item: Item, survivor: int, absorbed: tuple[int, ...], *, of: list[int]) -> bool:
        self._absorbed.update(dict.fromkeys(absorbed))
        while len(self._absorbed) > ABSORBED_MAX:
            del self._absorbed[next(iter(self._absorbed))]
        if self._concerns(of):
            if self._profiles.folded_seq() < item.seq:
                return False
            self._add(Job("merge", item.seq, survivor, at_ms=item.recorded_ms, absorbed=absorbed), item.seq)
        return True

    def _concerns(self, entities: list[int]) -> bool:
        if any(self._lanes.lane_of(entity) is not None for entity in entities):
            return True
        return self._ledger.known(list(self._planner.connections), entities)

    def _change(self, item: Item, entity: int, definition: int, value: Any, at_ms: int) -> None:
        if entity in self._absorbed:
            return
        for connection in self.by_definition.get(definition, ()):
            if item.seq <= connection.since_seq:
                continue
            noted = (
                self.is_list
                or connection.id in self._planner.quiet
                or item.seq <= max(connection.quiet_seq, self.noted_until_seq)
                or self._lanes.crowded(connection.id)
            )
            jobs = self.jobs_of(connection, entity, item.seq, value, at_ms)
            if noted:
                for job in jobs:
                    self._planner.note(connection, job)
            else:
                self._queue(jobs, item.seq)

    def jobs_of(self, connection: Connection, entity: int, seq: int, value: Any, at_ms: int) -> list[Job]:
        """Return the jobs of a change: one for whom it is about, and for an account one for each of its users."""
        own = Job("change", seq, entity, connection.id, value, at_ms)
        if connection.entity_type != "ACCOUNTS":
            return [own]
        said = self._ledger.said(connection.id, entity)
        if said is None or said.seq < seq:  # at once: what a user is told depends on all its accounts
            self._ledger.write_said(connection.id, entity, State(value, seq, at_ms))
        users = self._profiles.users(entity)
        return [own, *(Job("change", seq, user, connection.id, value, at_ms, account=entity) for user in users)]

    def _queue(self, jobs: list[Job], seq: int) -> None:
        if len(jobs) == 1:
            self._add(jobs[0], seq)
            return
        self._lanes.hold(seq)
        self._fan.extend(jobs)
        self._fan_seq = seq
        self._spread()

    def _linked(self, item: Item, linked: Linked) -> None:
        """A user who joins an account is told what is true of it."""
        for connections in self.by_definition.values():
            for connection in connections:
                if connection.entity_type != "ACCOUNTS":
                    continue
                state = self._ledger.said(connection.id, linked.account)
                if state is None or state.value is None or state.value is False:
                    continue
                known = self._ledger.true(connection.id, linked.profile)
                if known is not None and known.value == state.value:
                    continue
                job = Job(
                    "change", item.seq, linked.profile, connection.id, state.value, state.at_ms, account=linked.account
                )
                if self.is_list or connection.id in self._planner.quiet:
                    self._planner.note(connection, job)
                else:
                    self._add(job, item.seq)

    def _regulated(self, saved: RegulationSaved) -> None:
        state, regulation = self._ledger.state, str(saved.regulation.get("id", ""))
        internal = any(isinstance(part, str) and part.endswith("_INTERNAL") for part in saved.regulation.values())
        if internal and regulation not in state.internal:
            state.internal = (*state.internal, regulation)[-INTERNAL_MAX:]

    def _deleted(self, item: Item, deleted: DefinitionDeleted) -> None:
        for connection in self.by_definition.get(deleted.number, ()):
            exits = deleted.send_exits and connection.kind == "audience" and connection.id not in self._planner.quiet
            walk = Walk("withdraw" if exits else "forget", seq=item.seq, at_ms=item.recorded_ms)
            self._ledger.state.walks[connection.id] = walk
