"""Backfills: the past of a new definition, gathered beside the live loop and switched in at one place of the log.

From the moment a definition is in the log its questions are kept live; only events before that are missing. A scan
(`scanning`, in a process of its own for a daemon) gathers their states, they are added to those kept live once all of
them are there, and `DefinitionSwitched` makes the version decide: no event is lost or counted twice. One scan runs at a
time, for those that have waited the longest, so many that what it holds stays bounded; the others wait. Where it fails,
they are tried one by one.

States are sums, so none may be added twice. How far the adding has come is noted with each entity (`Partly`) and stored
with the checkpoints, which go on meanwhile so that memory stays bounded. After a kill, or where somebody could not be
read half-way, the same search finds the same rows again, and those that are in are left out. The last checkpoint before
the switch has all of them, where the log is long: a start need not gather anything.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog
from msgspec import Struct

from actors.checkpoint import Partly
from actors.conditions.program import Asked, Node
from actors.entities import User
from actors.scanning import Backfill, Page, scan
from eventlog.entries import Definition, DefinitionFailed, DefinitionSwitched
from eventlog.errors import LogError, LogFullError, TurnoutError

if TYPE_CHECKING:
    from actors.space_core import SpaceCore

log = structlog.get_logger("turnout.backfill")

MERGE_SLICE: Final = 100  # entities added to before others get a turn: one may have to be loaded first
BATCH_MAX: Final = 500  # definitions whose pasts are gathered by one scan
WORK_MAX: Final = 10_000_000  # entries of the log times questions of one scan: what it finds may be as many states
CHEAP_ENTRIES: Final = 10_000  # of a log: a start goes through them again in the time of a few checkpoints
CHEAP_SWITCHES: Final = 100  # since a checkpoint: for each, a start may have to go through them
CHANGED_MAX: Final = 100_000  # entities added to before a checkpoint lets them leave memory
SWITCH_SLICE: Final = 500  # entities asked, before others get a turn
SWITCHES_MAX: Final = 20  # in one commit: who came meanwhile is folded before the next
NAMED_MAX: Final = 5  # definitions, in a line of the log
ROOM_AGAIN_S: Final = 10.0  # until a disk that was full is tried again


class CancelledError(TurnoutError):
    """The definition changed or went away while its past was gathered."""


class _Search(Struct, frozen=True):
    """A past to be gathered for some questions that have come equally far."""

    job: Backfill
    questions: list[Asked]  # as the job has them
    begun: Partly


Found = dict[int, set[int]]
"""By question, the entities that have a past of it."""


class _Heard(Struct):
    """Who has states of which questions, while no event comes."""

    seq: int  # of the entry that was folded last
    of_all: bool  # people were asked, not only those heard of lately
    numbers: set[int]  # of the definitions whose questions these are
    by_question: dict[int, list[int]]


class Backfills:
    """The backfills of a space."""

    def __init__(self, space: "SpaceCore") -> None:
        self._space = space
        self._wake = anyio.Event()
        self._ended = anyio.Event()
        self._found: dict[int, set[int] | None] = {}  # by number: entities with a past; None: anybody may have one
        self._restarted: set[int] = set()  # that waited already when the space was opened, or before it was enabled
        self._alone: set[int] = set()  # that failed together with others
        self._heard: _Heard | None = None
        self._switches = 0  # since the last checkpoint
        self._refused: LogFullError | None = None  # of the last that ended
        self.running: frozenset[int] = frozenset()  # the numbers of those whose past is being gathered
        self.started_ms = 0
        self.progress = 0.0  # of those that run, 0-1

    def note_restart(self) -> None:
        """Take note of what waits already: nobody knows who was heard of since it began to."""
        self._restarted = {held.latest.number for held in self._space.definitions_held.waiting()}

    def note_saved(self, number: int, seq: int) -> None:
        """Take note of a version that was saved, and look whether something is to be done.

        Of a definition that was created disabled, or disabled while it waited, the questions have been kept for a
        while: checkpoints since then forgot who was heard of.
        """
        space = self._space
        if any(space.incomplete.get(asked.index, seq) < seq for asked in space.asked_of(space.shadow_of(number))):
            self._restarted.add(number)
        self.wake()

    def wake(self) -> None:
        """Look whether something is to be done."""
        self._wake.set()

    async def run(self) -> None:
        """Do what is to be done until cancelled."""
        while True:
            batch = self._next_batch()
            if batch:
                await self._gather_and_switch(batch)
            else:
                await self._wake.wait()
                self._wake = anyio.Event()

    async def done(self, number: int | None = None) -> None:
        """Return once no backfill (or not that of this definition) waits or runs.

        Raises LogFullError where the disk has no room for it.
        """
        while self._space.definitions_held.is_waiting(number):
            self.wake()
            await self._ended.wait()
            if self._refused is not None:
                raise self._refused

    def _next_batch(self) -> list[Definition]:
        """Return those that have waited the longest, as many as one scan may be of."""
        space = self._space
        batch: list[Definition] = []
        work = 0
        for held in islice(space.definitions_held.waiting(), BATCH_MAX):
            missing = self._missing(held.latest)
            work += len(missing) * max((space.incomplete[asked.index] for asked in missing), default=0)
            is_alone = held.latest.number in self._alone
            if batch and (work > WORK_MAX or is_alone):
                break
            batch.append(held.latest)
            if is_alone:
                break
        return batch

    def _missing(self, wanted: Definition) -> list[Asked]:
        """Return the questions of a version that is to follow whose past is not there yet."""
        space = self._space
        return [asked for asked in space.asked_of(space.shadow_of(wanted.number)) if asked.index in space.incomplete]

    def _is_current(self, wanted: Definition) -> bool:
        held = self._space.definitions_held.held.get(wanted.number)
        return held is not None and held.pending and held.latest.version == wanted.version and held.latest.enabled

    def _check_wanted(self, batch: list[Definition]) -> None:
        if not any(map(self._is_current, batch)):
            raise CancelledError(batch[0].key)

    async def _gather_and_switch(self, batch: list[Definition]) -> None:
        space = self._space
        self.running, self.progress = frozenset(one.number for one in batch), 0.0
        self.started_ms = space.clock.now_ms()
        self._refused = None
        keys = [one.key for one in batch[:NAMED_MAX]]
        try:
            await space.caught_up()
            missing = {one.number: self._missing(one) for one in batch}
            found = await self._gather(batch, missing)
            self._switches += len(batch)
            if self._switches > CHEAP_SWITCHES:
                await self._checkpoint()
            for start in range(0, len(batch), SWITCHES_MAX):
                await self._switch_some(batch[start : start + SWITCHES_MAX], missing, found)
        except CancelledError:
            log.info("backfill_cancelled", definitions=keys)
        except LogFullError as error:  # nothing is wrong with the definitions: they are tried again
            log.warning("backfill_waits_for_room", definitions=keys, again_in_s=ROOM_AGAIN_S)
            self._refused = error
            self._end()
            self._wake = anyio.Event()
            with anyio.move_on_after(ROOM_AGAIN_S):
                await self._wake.wait()
        except LogError as error:
            log.error("backfill_failed", definitions=keys, error=str(error))
            await self._fail(batch, str(error))
        finally:
            self._end()

    async def _switch_some(self, batch: list[Definition], missing: Mapping[int, list[Asked]], found: Found) -> None:
        """Let some versions decide that are still wanted."""
        switched = [one for one in batch if self._is_current(one)]
        if not switched:
            return
        for one in switched:
            self._found[one.number] = self._with_a_past(one.number, missing[one.number], found)
        await self._space.record([DefinitionSwitched(one.number, one.version) for one in switched])
        await self._space.caught_up()

    def _end(self) -> None:
        self._alone -= self.running if len(self.running) == 1 else frozenset()
        self.running = frozenset()
        self._ended.set()
        self._ended = anyio.Event()

    async def _fail(self, batch: list[Definition], reason: str) -> None:
        """Give a definition up; of several nobody knows which it is."""
        if len(batch) > 1:
            self._alone.update(one.number for one in batch)
            return
        try:
            await self._space.record([DefinitionFailed(batch[0].number, batch[0].version, reason)])
            await self._space.caught_up()
        except LogError:
            await self._wake.wait()  # the disk is full: try again when something happens

    def _searches(self, batch: list[Definition], missing: Iterable[Asked], known_seq: int) -> Iterator["_Search"]:
        """Yield what is to be gathered: all at once, but for questions of which some of the past is in already."""
        space = self._space
        fresh = Partly(0, known_seq, space.partition.now_ms)
        by_progress: dict[Partly, list[Asked]] = {}
        for asked in missing:
            by_progress.setdefault(space.partly.get(asked.index, fresh), []).append(asked)
        for begun, questions in by_progress.items():
            named = tuple((asked.identity, space.incomplete[asked.index]) for asked in questions)
            yield _Search(Backfill(tuple(batch), named, begun.at_ms), questions, begun)

    async def _gather(self, batch: list[Definition], missing: Mapping[int, list[Asked]]) -> Found:
        """Add the missing past of questions to what is kept live; return who has one."""
        space = self._space
        found: Found = {}
        questions = dict.fromkeys(chain.from_iterable(missing.values()))
        for search in list(self._searches(batch, questions, space.log.last_seq)):
            last_seq = max(1, search.job.until_seq)

            def hear(seq: int, /, last_seq: int = last_seq) -> None:
                self.progress = min(1.0, seq / last_seq)
                self._check_wanted(batch)

            canonical = space.identity.canonical_map(search.begun.known_seq)
            async with space.scans.run(space.log, search.job, canonical, hear) as pages:
                self._check_wanted(batch)
                await self._add(search, pages, found)
        return found

    async def _add(self, search: "_Search", pages: Iterable[Page], found: Found) -> None:
        """Add what was found, some entities at a time; nothing folds, and no checkpoint is taken, in between."""
        space = self._space
        changed_max = max(MERGE_SLICE, min(CHANGED_MAX, space.active_max))
        adding = self._added(search, pages, found)
        is_done = False
        while not is_done:
            async with space.still:
                is_done = sum(1 for _ in islice(adding, MERGE_SLICE)) < MERGE_SLICE
                if is_done:
                    self._complete(search)
            # At the end so that a start finds it all there, and need not search.
            if len(space.partition.changed) > changed_max or (is_done and search.job.until_seq > CHEAP_ENTRIES):
                await self._checkpoint()
            await anyio.lowlevel.checkpoint()

    async def _checkpoint(self) -> None:
        await self._space.checkpoint()
        self._switches = 0

    def _added(self, search: "_Search", pages: Iterable[Page], found: Found) -> Iterator[int]:
        """Add rows, those that are in already left out; yield each entity that had some, and note of what.

        An entity's are added all together or, where somebody cannot be read, not at all; and it is noted that they are
        in. So whoever goes on later, also behind a checkpoint, adds no row twice: a search finds the same rows again.
        """
        space = self._space
        partition, begun = space.partition, search.begun
        self._heard = None
        for entity, rows in groupby(chain.from_iterable(pages), key=itemgetter(0)):
            mine: dict[int, Any] = {}
            for _, place, state in rows:
                asked = search.questions[place]
                if asked.index in space.incomplete:  # else it is not asked any more
                    mine[asked.index] = state
            if entity > begun.entity:
                known = partition.find(space.identity.canonical(entity))
                if known is not None:
                    by_index = partition.program.asked_by_index
                    partition.add_history(known, {i: by_index[i].query.load(state) for i, state in mine.items()})
                partly = Partly(entity, begun.known_seq, begun.at_ms)
                space.partly.update(
                    (asked.index, partly) for asked in search.questions if asked.index in space.incomplete
                )
            for index in mine:
                found.setdefault(index, set()).add(entity)
            yield entity

    def _complete(self, search: "_Search") -> None:
        """Take note that nothing is missing any more of what was searched."""
        for asked in search.questions:
            self._space.incomplete.pop(asked.index, None)
            self._space.partly.pop(asked.index, None)

    def _with_a_past(self, number: int, missing: list[Asked], found: Found) -> set[int] | None:
        """Return who has a past of a definition's questions; None where some were gathered before, or nobody saw it."""
        gathered = {asked.index for asked in missing}
        asked = self._space.asked_of(self._space.shadow_of(number))
        if number in self._restarted or any(one.index not in gathered for one in asked):
            return None
        return set().union(*(found.get(index, ()) for index in gathered))

    def _looks_elsewhere(self, node: Node) -> bool:
        """Tell whether others may be members than those who have states of its questions."""
        looks = any(leaf.traits or leaf.audiences or leaf.hidden for leaf in node.leaves)
        return looks or node.scope == "account" or (node.asked is None and self._blank(node))

    def _blank(self, node: Node) -> bool:
        """Tell whether the definition holds of a profile of which nothing is known."""
        entity = User(0, self._space.partition.program)
        bits = sum(leaf.mask for leaf in node.leaves if leaf.holds(entity, self._space.partition.now_ms))
        return node.truth(bits)

    # -- in the fold -------------------------------------------------------------------------------------------------

    def switch(self, number: int, seq: int) -> Iterator[None]:
        """Make the version decide; part of folding `DefinitionSwitched`. Yields now and then: all may be asked.

        Rests on nothing but what is folded, so that a fold after a restart tells the same: identity may be ahead.
        """
        space = self._space
        partition = space.partition
        node = partition.program.nodes[number]
        missing = [asked for asked in space.asked_of(number) if asked.index in space.incomplete]
        if missing:  # a start that no checkpoint shortens: what was gathered then is not stored anywhere
            self._gather_again(number, seq)
        found = self._found.pop(number, None)
        self._restarted.discard(number)
        if self._looks_elsewhere(node):
            numbers: Iterable[int] = space.everyone()
        else:  # those with a past, those heard of meanwhile, and those who were members
            yield from self._hear(number, seq, of_all=found is None)
            assert self._heard is not None
            heard = (self._heard.by_question.get(asked.index, ()) for asked in space.asked_of(number))
            numbers = sorted({*(found or ()), *partition.members.get(number, ()), *chain.from_iterable(heard)})
        for place, one in enumerate(numbers):
            entity = partition.find(one)
            if entity is not None:
                partition.ask(entity, node)
            if place % SWITCH_SLICE == SWITCH_SLICE - 1:
                yield
        while partition.settle_some(SWITCH_SLICE):
            yield

    def _gather_again(self, number: int, seq: int) -> None:
        """Add the past of a definition, and of those that wait: they are likely to be switched right after it."""
        space = self._space
        batch = [space.definitions_held.held[number].latest, *self._next_batch()]
        missing = [asked for one in batch for asked in self._missing(one)]
        for search in list(self._searches(batch, dict.fromkeys(missing), seq)):
            pages = scan(search.job, space.log, space.identity.canonical_map(search.begun.known_seq))
            for _ in self._added(search, pages, {}):
                pass
            self._complete(search)

    def _hear(self, number: int, seq: int, *, of_all: bool) -> Iterator[None]:
        """Note who has states of a definition's questions, and of those that are likely to be switched right after it.

        Else each of a hundred would go through everybody. Without `of_all` those are enough that were heard of lately.
        """
        space, before = self._space, self._heard
        if before is not None and before.seq == seq - 1 and number in before.numbers and before.of_all >= of_all:
            before.seq = seq
            return
        nexts = {number, *(held.latest.number for held in islice(space.definitions_held.waiting(), BATCH_MAX))}
        asked = [one for next_number in nexts for one in space.asked_of(space.shadow_of(next_number))]
        by_question: dict[int, list[int]] = {one.index: [] for one in asked}
        find = space.partition.find
        numbers: Iterable[int] = space.everyone() if of_all else {*space.partition.changed, *space.touched}
        for place, one in enumerate(numbers, 1):
            entity = find(one)
            if entity is not None:
                for index in by_question.keys() & entity.s.keys():
                    by_question[index].append(one)
            if place % SWITCH_SLICE == 0:
                yield
        self._heard = _Heard(seq, of_all, nexts, by_question)
