"""The core of a space: its log, identity, partition, definitions and clock, wired together.

Two tasks. One closes the open group (what came in, and the effects of what was folded), appends it and tells those who
wait; while the disk syncs, the next group fills. The other folds what is durable, in order, and writes projections
behind. An effect and the cursor that says what it is the effect of go in one transaction; after a restart the tail is
folded again and what is already in the log is not written twice. Live, recovery and replay fold the same entries in the
same order.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
import structlog

from actors.backfill import Backfills
from actors.checkpoint import PARTITION, Cut, Partly, load_core, load_definitions, loader, put_away, restore
from actors.conditions.program import Asked
from actors.definitions import SHADOW, Definitions
from actors.door import Incoming
from actors.folding import DEFINITION, FOLD_SLICE, fold_events, fold_facts, told_apart
from actors.group import Group
from actors.identity import Identity
from actors.identity_rules import SpaceSettings, settings_from_json
from actors.partition import Partition
from actors.regulations import Regulations
from actors.rejections import Rejections
from actors.retention import Retention
from actors.scanning import HERE, Scans
from eventlog.clock import Clock
from eventlog.entries import (
    AnyFact,
    Commit,
    DeadLettered,
    DefinitionDeleted,
    DefinitionSaved,
    DefinitionSwitched,
    Erased,
    EventsForgotten,
    IdentityRulesChanged,
    Merged,
    RegulationSaved,
    Rejected,
    Suppressed,
    Ticked,
    Unsuppressed,
)
from eventlog.errors import LogError
from eventlog.history import ProfileHistory
from eventlog.log import Changes, Log
from eventlog.messages import EventData
from eventlog.seen import SeenIds

log = structlog.get_logger("turnout.space")

EFFECTS: Final = "effects"  # the projection whose cursor says up to where effects are in the log
IDENTITY_ROWS: Final = 4_000  # unsaved, before they are written with the next commit; more would hold up answers
QUEUED_MAX: Final = 50_000  # durable events that wait to be folded, before new ones wait at the door
CHANGED_MAX: Final = 100_000  # entities changed since the last checkpoint, before the next
HISTORY_ROWS: Final = 16_384  # unsaved index rows, before they are written as a run
ACTIVE_MAX: Final = 200_000  # entities in memory; more are put away at a checkpoint


class SpaceCore:
    """A space, running: takes events and facts in, folds them, keeps what is beside the log."""

    def __init__(
        self,
        space_id: str,
        store: Log,
        clock: Clock,
        *,
        suppression_key: bytes,
        active_max: int = ACTIVE_MAX,
        scans: Scans = HERE,
    ) -> None:
        """Use `space.open_space`."""
        self.scans = scans
        self.id = space_id
        self.log = store
        self.clock = clock
        self.active_max = active_max
        self._key = suppression_key
        self.identity = Identity(store, suppression_key=suppression_key)
        self.seen = SeenIds(store, self.identity.settings.dedupe_window_ms)
        self.events = ProfileHistory(store)
        self.rejections = Rejections(store)
        core = load_core(store)
        self.definitions_held = load_definitions(store) if core is not None else Definitions()
        self._stored_entity = core.last_entity if core is not None else 0
        self.partition = Partition(load=loader(store, lambda: self.partition, lambda: self._stored_entity))
        self.partition.in_slices = True
        self.incomplete: dict[int, int] = {}  # question -> since which sequence it is kept live; its past is missing
        self.partly: dict[int, Partly] = {}  # question -> how far its past has been added
        self.touched: set[int] = set()  # entities changed before the last checkpoint, while a backfill waited
        self.folded_seq = 0
        self.duplicates = 0  # messages whose id had been taken before, since this space was opened
        self._effects: list[AnyFact] = []
        self._effects_seq = store.cursor(EFFECTS)
        self._group = Group(store.last_seq + 1)
        self._closing: Group | None = None
        self._queue: deque[tuple[Commit, list[EventData]]] = deque()  # durable, to be folded
        self._queued_events = 0
        self._queued = anyio.Event()
        self._wake = anyio.Event()
        self._turned = anyio.Event()
        self.still = anyio.Lock()  # held while something folds, and while a checkpoint is taken
        self._failure: LogError | None = None  # of the last turn
        self._identity_due = False  # its rows go with the next commit, however few
        self._history_lock = anyio.Lock()  # held while index rows are stored or deleted
        self.regulating = Regulations(self)
        self.retention = Retention(self)
        self.defining = anyio.Lock()  # one change of the definitions is checked and folded at a time
        self.backfills = Backfills(self)
        self._start(core)
        self.backfills.note_restart()

    # -- starting ----------------------------------------------------------------------------------------------------

    def _start(self, core: Any) -> None:
        """Bring back the last checkpoint and fold the tail of the log."""
        if core is not None:
            self.folded_seq = self.log.cursor(PARTITION)
            program = self.partition.program
            program.born = dict(core.born)
            held = self.definitions_held
            self.partition.set_definitions(held.specs(), held.live(), tuple, self.folded_seq)
            self.partition.take_effects()
            self.incomplete = {
                program.by_stable[stable].index: seq
                for stable, seq in core.incomplete.items()
                if stable in program.by_stable
            }
            self.partly = {
                program.by_stable[stable].index: partly
                for stable, partly in core.partly.items()
                if stable in program.by_stable
            }
            restore(self.log, self.partition, core)
        first = min(self.folded_seq, self.identity.cursor_seq, self.events.cursor_seq)
        identity_seq, history_seq = self.identity.cursor_seq, self.events.cursor_seq
        for commit in self.log.read(first):
            if commit.last_seq > identity_seq:
                self.identity.apply_commit(commit)
            if commit.last_seq > history_seq:
                self.events.note_events([event for event in commit.events if event.seq > history_seq])
            if commit.last_seq > self.folded_seq:
                for _ in self._fold(commit, None):
                    pass
        self.seen.window_ms = self.identity.settings.dedupe_window_ms  # not every part was stored as far as another
        self.seen.restore(self.clock.now_ms())

    # -- the two tasks -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write and fold until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write_all)
            tasks.start_soon(self._fold_all)

    @property
    def is_busy(self) -> bool:
        """Tell whether something waits to be written or folded."""
        return bool(self._group or self._effects or self._closing is not None or self._queue)

    def _stir(self) -> None:
        self._wake.set()

    def _turn_over(self) -> None:
        """Let those look who wait for something to have been written or folded."""
        self._turned.set()
        self._turned = anyio.Event()

    async def _write_all(self) -> None:
        while True:
            while self._group or self._effects:
                await self._write()
            await self._wake.wait()
            self._wake = anyio.Event()

    async def _fold_all(self) -> None:
        while True:
            while self._queue:
                commit, datas = self._queue[0]
                async with self.still:
                    for _ in self._fold(commit, datas):
                        await anyio.lowlevel.checkpoint()
                self._queue.popleft()
                self._queued_events -= len(commit.events)
                self._stir()
                self._turn_over()
                await self._write_behind()
            await self._queued.wait()
            self._queued = anyio.Event()

    async def _write(self) -> None:
        """Close the open group, make it durable with the effects so far, and hand it on to be folded."""
        group = self._closing = self._group
        effects, self._effects = self._effects, []
        effects_seq = self.folded_seq
        group.facts.extend(effects)
        commit = group.close(self.clock.now_ms())
        if self._effects_seq < effects_seq:
            group.changes.append(Changes(EFFECTS, effects_seq))
        if group.holds_refusals:
            group.changes.append(self.rejections.changes(commit))
        count = len(commit.events) + len(commit.facts)
        self._group = Group(commit.first_seq + count)
        identity_changes = None
        if count and (self._identity_due or self.identity.unsaved_rows > IDENTITY_ROWS):
            identity_changes = self.identity.pending_changes(commit.last_seq)
            if identity_changes is not None:
                group.changes.append(identity_changes)
        try:
            if count:
                await self.log.append([commit], group.changes)
            else:
                await self.log.store(group.changes)
        except LogError as error:
            await self._failed(group, effects, error)
            return
        self._effects_seq = effects_seq
        if identity_changes is not None:
            self._identity_due = False
            self.identity.stored(identity_changes)
        self.seen.note(commit.events)
        self.events.note_events(commit.events)
        if count:
            self._queue.append((commit, group.datas))
            self._queued_events += len(commit.events)
            self._queued.set()
        self._closing = None
        group.end()
        self._turn_over()

    async def _failed(self, group: Group, effects: list[AnyFact], error: LogError) -> None:
        """Forget what was decided for a group that could not be stored, and what joined after it."""
        log.error("append_failed", space=self.id, error=str(error), events=len(group.events))
        later = self._group
        self._group = Group(self.log.last_seq + 1)
        self._effects = effects + self._effects
        self._closing = None
        for one in (group, later):
            self.seen.discard(event.message_id for event in one.events)
        self.identity = Identity(self.log, suppression_key=self._key)
        for commit in self.log.read(self.identity.cursor_seq):
            self.identity.apply_commit(commit)
        group.end(error)
        later.end(error)
        self._failure = error
        self._turn_over()
        # Effects are kept; they are written with whatever comes next, at the latest with the next tick.
        await self._wake.wait()
        self._wake = anyio.Event()

    async def _write_behind(self) -> None:
        try:
            if self.events.pending_rows > HISTORY_ROWS:
                await self._store_history()
            if len(self.partition.changed) > CHANGED_MAX:
                await self.checkpoint()
        except LogError as error:  # nothing is lost: it is in memory and in the log, and is tried again
            log.error("write_behind_failed", space=self.id, error=str(error))

    async def _store_history(self) -> None:
        async with self._history_lock:
            changes = self.events.pending_changes()
            while changes is not None:
                await self.log.store([changes])
                self.events.stored(changes)
                changes = self.events.merging_changes()

    async def forget_history(self, entities: Sequence[int]) -> None:
        """Delete the index rows of entities."""
        async with self._history_lock:
            await self.log.store([self.events.forget(entities)])

    async def store_beside(self, facts: Sequence[AnyFact], changes: Sequence[Changes] = ()) -> None:
        """Record facts and return once all that follows from the log up to them is stored: a start reads on from there.

        Identities go in one transaction with the facts. Raises LogError.
        """
        self._identity_due = True
        seq = await self.record(facts, changes) + len(facts) - 1
        await self._store_history()
        while self.log.cursor(PARTITION) < seq:
            await self.folded(seq)
            await self.checkpoint()

    async def folded(self, seq: int) -> None:
        """Return once the log is folded up to an entry and the effects are durable, whatever else comes in meanwhile.

        Raises LogError where they cannot be stored.
        """
        self._failure = None
        while self.folded_seq < seq or (self._effects_seq < seq and (self._effects or self._closing is not None)):
            if self._failure is not None:
                raise self._failure
            self._stir()
            await self._turned.wait()

    async def checkpoint(self) -> None:
        """Store the partition as it is, once all effects so far are in the log. Nothing folds meanwhile."""
        async with self.still:
            self._failure = None
            while (self._effects or self._closing is not None) and self._failure is None:
                self._stir()
                await self._turned.wait()
            if self._effects or self._closing is not None:
                return
            folded_seq = self.folded_seq
            cut = Cut(self.partition)
            while cut.dump_slice():
                await anyio.lowlevel.checkpoint()
            asked = self.partition.program.asked_by_index
            incomplete = {asked[index].stable: seq for index, seq in self.incomplete.items()}
            partly = {asked[index].stable: partly for index, partly in self.partly.items()}
            changes = cut.changes(self.definitions_held, incomplete, partly, folded_seq)
            await self.log.store([changes, Changes(EFFECTS, folded_seq)])
            if self.definitions_held.is_waiting():
                self.touched.update(self.partition.changed)
            else:
                self.touched.clear()
            cut.stored()
            self._effects_seq = max(self._effects_seq, folded_seq)
            self._stored_entity = self.partition.last_entity
            put_away(self.partition, self.active_max)

    async def close(self) -> None:
        """Store what is not yet stored; the log itself stays open."""
        self._failure = None
        while self.is_busy and self._failure is None:
            self._stir()
            await self._turned.wait()
        last_seq = self.log.last_seq
        identity_changes = self.identity.pending_changes(last_seq)
        if identity_changes is not None:
            await self.log.store([identity_changes])
            self.identity.stored(identity_changes)
        await self._store_history()
        if self.partition.changed or self.log.cursor(PARTITION) < self.folded_seq:
            await self.checkpoint()

    # -- folding -----------------------------------------------------------------------------------------------------

    def _fold(self, commit: Commit, datas: list[EventData] | None) -> Iterator[None]:
        """Fold what of a commit is not folded yet; yields now and then."""
        partition = self.partition
        after = turn_seq = self.folded_seq
        caused, rest = told_apart(commit)
        for seq in fold_events(partition, commit, caused, datas, after):
            if seq is None:
                yield
                continue
            self._folded(seq)
            if seq - turn_seq >= FOLD_SLICE:
                turn_seq = seq
                yield
        for one in fold_facts(partition, (placed for placed in rest if placed[0] > after), commit.at_ms):
            if one is None:
                yield
                continue
            seq, fact = one
            if isinstance(fact, DEFINITION):
                yield from self._fold_definition(fact, seq)
            else:
                self._heed(fact)
            self._folded(seq)
            if seq % FOLD_SLICE == 0:
                yield
        self._folded(commit.last_seq)

    def _folded(self, seq: int) -> None:
        effects = self.partition.take_effects()
        if effects and seq > self._effects_seq:
            self._effects.extend(effects)
        self.folded_seq = max(self.folded_seq, seq)

    def _heed(self, fact: AnyFact) -> None:
        """Take in a fact that is none of the partition's business."""
        if isinstance(fact, RegulationSaved | DeadLettered):
            self.regulating.apply(fact)
        elif isinstance(fact, EventsForgotten):
            self.retention.apply(fact)
        elif isinstance(fact, IdentityRulesChanged):
            self.seen_window_changed(settings_from_json(fact.rules))

    def _fold_definition(self, fact: AnyFact, seq: int) -> Iterator[None]:
        partition, held = self.partition, self.definitions_held
        if isinstance(fact, DefinitionDeleted):
            node = partition.program.nodes.get(fact.number)
            if node is not None and held.held[fact.number].active is not None:  # else it never had a value
                partition.leave_behind(node, node.key, seq)
        number = held.apply(fact, seq)
        if not number:
            return
        live = {number: held.is_live(number)}
        change, telling = partition.change_definitions(held.specs_of(number), live, self.everyone, seq)
        for asked in change.questions:
            if any(subscription.after_seq < seq for subscription in asked.subscriptions):
                self.incomplete[asked.index] = seq
        for asked in change.gone_questions:
            self.incomplete.pop(asked.index, None)
            self.partly.pop(asked.index, None)
        yield from telling
        if isinstance(fact, DefinitionSwitched):
            yield from self.backfills.switch(fact.number, seq)
        elif isinstance(fact, DefinitionSaved):
            self.backfills.note_saved(fact.definition.number, seq)

    def everyone(self) -> range:
        """Return the numbers that entities were given, as far as is folded: identity may be ahead. Some are no more."""
        return range(1, self.partition.last_entity + 1)

    def shadow_of(self, number: int) -> int:
        """Return under which number the version that is to follow gathers."""
        return number + SHADOW if number + SHADOW in self.partition.program.nodes else number

    def asked_of(self, number: int) -> list[Asked]:
        """Return the questions of a definition's version that is to follow (or of its only one)."""
        program = self.partition.program
        node = program.nodes.get(number)
        if node is None:
            return []
        nodes = [node, *node.quantified]
        asked = [a for one in nodes for a in (one.asked, one.present) if a is not None]
        asked += [a for one in nodes for leaf in one.leaves for a in leaf.asked]
        return list(dict.fromkeys(asked))

    def seen_window_changed(self, settings: SpaceSettings) -> None:
        """Take a new window for duplicates into use."""
        grown = settings.dedupe_window_ms > self.seen.window_ms
        self.seen.window_ms = settings.dedupe_window_ms
        if grown:  # ids that had left the shorter window count again
            self.seen.restore(self.clock.now_ms())
            for group in (self._closing, self._group):
                for event in group.events if group is not None else ():
                    self.seen.add(event.message_id, event.received_ms)

    # -- in ----------------------------------------------------------------------------------------------------------

    async def ingest(self, accepted: Sequence[Incoming], rejected: Sequence[Rejected], source: str) -> list[Rejected]:
        """Take accepted messages and record rejected ones; return once durable, with every refusal."""
        return [*rejected, *(await self.ingest_calls(accepted, rejected, source)).values()]

    async def ingest_calls(
        self, accepted: Sequence[Incoming], rejected: Sequence[Rejected], source: str
    ) -> dict[int, Rejected]:
        """Do as `ingest`; return the refusals among the accepted by their place: each came by a call of its own."""
        group = await self._room()
        group.refuse(rejected)
        refused = self._join(group, accepted, source)
        if group:
            self._stir()
            await group.durable()
        return refused

    def _join(self, group: Group, accepted: Sequence[Incoming], source: str) -> dict[int, Rejected]:
        """Decide who messages are from and put them into a group; return those refused, by their places."""
        refused: dict[int, Rejected] = {}
        if self.identity.suppresses:
            for place, one in enumerate(accepted):
                if self.identity.suppressed_id(one.ids) is not None:
                    refused[place] = self._refusal(group, one, source, "suppressed", "this user is suppressed")
        places: Sequence[int] = range(len(accepted))
        if refused:
            places = [place for place in places if place not in refused]
            accepted = [accepted[place] for place in places]
        now_ms = self.clock.now_ms()
        if self.seen.add_all([one.message_id for one in accepted], now_ms):
            self._put(group, accepted, places, source, now_ms, refused)
            return refused
        for place, one in zip(places, accepted, strict=True):  # a refused one's id may come again right behind it
            if self.seen.add(one.message_id, now_ms):
                self._put(group, [one], [place], source, now_ms, refused)
            else:
                self.duplicates += 1
        return refused

    def _put(
        self,
        group: Group,
        calls: Sequence[Incoming],
        places: Sequence[int],
        source: str,
        now_ms: int,
        refused: dict[int, Rejected],
    ) -> None:
        """Put messages that are no duplicates into a group, those that are nobody's into `refused` by their places."""
        identity = self.identity
        profiles, accounts = identity.known_profiles(calls), [0] * len(calls)
        first = group.next_seq  # of the next event that joins; nothing else joins meanwhile
        nobodys: set[int] = set()
        at = -1
        while (at := _next_zero(profiles, at + 1)) >= 0:
            one, seq = calls[at], first + at - len(nobodys)
            who = identity.resolve(one.ids, group=one.group, event_ms=one.event_ms, cause_seq=seq, source=source)
            if who.refusal:
                self.seen.discard((one.message_id,))
                refused[places[at]] = self._refusal(group, one, source, who.refusal, who.message)
                nobodys.add(at)
                continue
            if who.facts:
                group.facts.extend(who.facts)
                if any(type(fact) is Merged for fact in who.facts):  # then others lead elsewhere, too: each is asked
                    profiles[at + 1 :] = [0] * (len(calls) - at - 1)
            profiles[at], accounts[at] = who.profile, who.account
        if nobodys:
            somebodys = [at for at in range(len(calls)) if at not in nobodys]
            calls = [calls[at] for at in somebodys]
            profiles, accounts = [profiles[at] for at in somebodys], [accounts[at] for at in somebodys]
        group.join(calls, profiles, accounts, source, now_ms)

    async def _room(self) -> Group:
        """Return the open group once it has room."""
        while self._group.is_full or self._queued_events > QUEUED_MAX:
            self._stir()
            await self._turned.wait()
        return self._group

    def _refusal(self, group: Group, one: Incoming, source: str, code: str, message: str) -> Rejected:
        kept = b"" if code == "suppressed" else one.body
        message_id = "" if code == "suppressed" else one.message_id
        refusal = Rejected(one.index, message_id, code, f"batch[{one.index}]: {message}", source, kept)
        group.refuse([refusal])
        return refusal

    async def caught_up(self) -> None:
        """Return once everything acknowledged so far has been folded: never waits for the disk, nor for what is new."""
        seq = self.log.last_seq
        while self.folded_seq < seq:
            await self._turned.wait()

    async def settle(self) -> None:
        """Return once everything acknowledged so far has been folded and its effects are durable.

        What comes in meanwhile is not waited for. Where the disk fails it returns as well; the effects are kept.
        """
        with suppress(LogError):
            await self.folded(self.log.last_seq)

    async def advance(self) -> None:
        """Fire every timer due by the clock's now, and return once the effects are durable."""
        await self.settle()
        due_ms = self.partition.timers.next_ms()
        now_ms = self.clock.now_ms()
        if due_ms is not None and due_ms <= now_ms:
            await self.record([Ticked(now_ms)])
        await self.settle()

    def next_due_ms(self) -> int | None:
        """Return when the next timer is due, or None."""
        return self.partition.timers.next_ms()

    async def record(self, facts: Sequence[AnyFact], changes: Sequence[Changes] = ()) -> int:
        """Append facts, with projection changes, in one transaction; return the first one's sequence once durable."""
        group = self._group
        place = len(group.facts)
        group.facts.extend(facts)
        group.changes.extend(changes)
        for fact in facts:
            if isinstance(fact, IdentityRulesChanged | Suppressed | Unsuppressed | Erased):
                self.identity.apply(fact)
        self._stir()
        commit = await group.durable()
        return commit.first_seq + len(commit.events) + place


def _next_zero(values: list[int], start: int) -> int:
    """Return where the next 0 stands, -1 where there is none."""
    try:
        return values.index(0, start)
    except ValueError:
        return -1
