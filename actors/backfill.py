"""Backfills: the past of a new definition, gathered beside the live loop and switched in at one place of the log.

From the moment a definition is in the log its questions are kept live; only events before that are missing. A scan
(`scanning`, in a process of its own for a daemon) gathers their states, they are added to those kept live once all of
them are there, and `DefinitionSwitched` makes the version decide: no event is lost or counted twice. One runs at a
time, the others wait in order of creation.

States are sums, so none may be added twice. How far the adding has come is noted with each entity (`Partly`) and stored
with the checkpoints, which go on meanwhile so that memory stays bounded. After a kill, or where somebody could not be
read half-way, the same search finds the same rows again, and those that are in are left out. The last checkpoint before
the switch has all of them, where the log is long: a start need not gather anything.
"""

from collections.abc import Iterable, Iterator
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
    from actors.definitions import Held
    from actors.space_core import SpaceCore

log = structlog.get_logger("turnout.backfill")

MERGE_SLICE: Final = 100  # entities added to before others get a turn: one may have to be loaded first
CHEAP_ENTRIES: Final = 10_000  # of a log: a start goes through them again in the time of a few checkpoints
CHANGED_MAX: Final = 100_000  # entities added to before a checkpoint lets them leave memory
SWITCH_SLICE: Final = 500  # entities asked, before others get a turn
ROOM_AGAIN_S: Final = 10.0  # until a disk that was full is tried again


class CancelledError(TurnoutError):
    """The definition changed or went away while its past was gathered."""


class _Search(Struct, frozen=True):
    """A past to be gathered for some questions that have come equally far."""

    job: Backfill
    questions: list[Asked]  # as the job has them
    begun: Partly


class Backfills:
    """The backfills of a space."""

    def __init__(self, space: "SpaceCore") -> None:
        self._space = space
        self._wake = anyio.Event()
        self._ended = anyio.Event()
        self._found: dict[int, set[int] | None] = {}  # by number: entities to ask at the switch; None: all
        self._restarted: set[int] = set()  # that waited already when the space was opened, or before it was enabled
        self._refused: LogFullError | None = None  # of the last one that ended
        self.running: int | None = None
        self.started_ms = 0
        self.progress = 0.0  # of the one that runs, 0-1

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
            for held in self._space.definitions_held.waiting():
                await self._one(held)
                break
            else:
                await self._wake.wait()
                self._wake = anyio.Event()

    async def done(self, number: int | None = None) -> None:
        """Return once no backfill (or not that of this definition) waits or runs.

        Raises LogFullError where the disk has no room for it.
        """
        while any(number in (None, held.latest.number) for held in self._space.definitions_held.waiting()):
            self.wake()
            await self._ended.wait()
            if self._refused is not None:
                raise self._refused

    def _is_current(self, wanted: Definition) -> bool:
        held = self._space.definitions_held.held.get(wanted.number)
        return held is not None and held.pending and held.latest.version == wanted.version and held.latest.enabled

    async def _one(self, held: "Held") -> None:
        space = self._space
        wanted = held.latest
        number = wanted.number
        self.running, self.progress, self.started_ms = number, 0.0, space.clock.now_ms()
        self._refused = None
        try:
            await space.caught_up()
            shadow = space.shadow_of(number)
            missing = [a for a in space.asked_of(shadow) if a.index in space.incomplete]
            found = await self._gather(wanted, missing)
            everyone = number in self._restarted or self._asks_everyone(shadow, missing)
            self._found[number] = None if everyone else found
            await space.record([DefinitionSwitched(number, wanted.version)])
            await space.caught_up()
        except CancelledError:
            log.info("backfill_cancelled", definition=wanted.key)
        except LogFullError as error:  # nothing is wrong with the definition: it is tried again
            log.warning("backfill_waits_for_room", definition=wanted.key, again_in_s=ROOM_AGAIN_S)
            self._refused = error
            self._end()
            self._wake = anyio.Event()
            with anyio.move_on_after(ROOM_AGAIN_S):
                await self._wake.wait()
        except LogError as error:
            log.error("backfill_failed", definition=wanted.key, error=str(error))
            await self._fail(wanted, str(error))
        finally:
            self._end()

    def _end(self) -> None:
        self.running = None
        self._ended.set()
        self._ended = anyio.Event()

    async def _fail(self, wanted: Definition, reason: str) -> None:
        try:
            await self._space.record([DefinitionFailed(wanted.number, wanted.version, reason)])
            await self._space.caught_up()
        except LogError:
            await self._wake.wait()  # the disk is full: try again when something happens

    def _searches(self, wanted: Definition, missing: list[Asked], known_seq: int) -> Iterator["_Search"]:
        """Yield what is to be gathered: all at once, but for questions of which some of the past is in already."""
        space = self._space
        identities = {asked.index: identity for identity, asked in space.partition.program.asked.items()}
        fresh = Partly(0, known_seq, space.partition.now_ms)
        by_progress: dict[Partly, list[Asked]] = {}
        for asked in missing:
            by_progress.setdefault(space.partly.get(asked.index, fresh), []).append(asked)
        for begun, questions in by_progress.items():
            named = tuple((identities[asked.index], space.incomplete[asked.index]) for asked in questions)
            yield _Search(Backfill(wanted, named, begun.at_ms), questions, begun)

    async def _gather(self, wanted: Definition, missing: list[Asked]) -> set[int]:
        """Add the missing past of questions to what is kept live; return who has one."""
        space = self._space
        found: set[int] = set()
        for search in list(self._searches(wanted, missing, space.log.last_seq)):
            last_seq = max(1, search.job.until_seq)

            def hear(seq: int, /, last_seq: int = last_seq) -> None:
                self.progress = min(1.0, seq / last_seq)
                if not self._is_current(wanted):
                    raise CancelledError(wanted.key)

            canonical = space.identity.canonical_map(search.begun.known_seq)
            async with space.scans.run(space.log, search.job, canonical, hear) as pages:
                if not self._is_current(wanted):
                    raise CancelledError(wanted.key)
                await self._add(search, pages, found)
        return found

    async def _add(self, search: "_Search", pages: Iterable[Page], found: set[int]) -> None:
        """Add what was found, some entities at a time; nothing folds, and no checkpoint is taken, in between."""
        space = self._space
        changed_max = max(MERGE_SLICE, min(CHANGED_MAX, space.active_max))
        adding = self._added(search, pages)
        is_done = False
        while not is_done:
            async with space.still:
                some = list(islice(adding, MERGE_SLICE))
                is_done = len(some) < MERGE_SLICE
                if is_done:
                    self._complete(search)
            found.update(some)
            # At the end so that a start finds it all there, and need not search.
            if len(space.partition.changed) > changed_max or (is_done and search.job.until_seq > CHEAP_ENTRIES):
                await space.checkpoint()
            await anyio.lowlevel.checkpoint()

    def _added(self, search: "_Search", pages: Iterable[Page]) -> Iterator[int]:
        """Add rows, those that are in already left out; yield each entity that had some.

        An entity's are added all together or, where somebody cannot be read, not at all; and it is noted that they are
        in. So whoever goes on later, also behind a checkpoint, adds no row twice: a search finds the same rows again.
        """
        space = self._space
        partition, begun = space.partition, search.begun
        for entity, rows in groupby(chain.from_iterable(pages), key=itemgetter(0)):
            if entity > begun.entity:
                mine: dict[int, Any] = {}
                for _, place, state in rows:
                    asked = search.questions[place]
                    mine[asked.index] = asked.query.load(state)
                known = partition.find(space.identity.canonical(entity))
                if known is not None:
                    partition.add_history(known, mine)
                partly = Partly(entity, begun.known_seq, begun.at_ms)
                space.partly.update(
                    (asked.index, partly) for asked in search.questions if asked.index in space.incomplete
                )
            yield entity

    def _complete(self, search: "_Search") -> None:
        """Take note that nothing is missing any more of what was searched."""
        for asked in search.questions:
            self._space.incomplete.pop(asked.index, None)
            self._space.partly.pop(asked.index, None)

    def _asks_everyone(self, number: int, missing: list[Asked]) -> bool:
        """Tell whether others than those with a gathered past may be members."""
        space = self._space
        node = space.partition.program.nodes.get(number)
        if node is None:
            return True
        gathered = {asked.index for asked in missing}
        if any(asked.index not in gathered for asked in space.asked_of(number)):
            return True
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
            for search in list(self._searches(space.definitions_held.held[number].latest, missing, seq)):
                pages = scan(search.job, space.log, space.identity.canonical_map(search.begun.known_seq))
                for _ in self._added(search, pages):
                    pass
                self._complete(search)
        found = self._found.pop(number, None)
        self._restarted.discard(number)
        if found is None:
            numbers: Iterable[int] = space.everyone()
        else:  # those with a past, those heard of meanwhile, and those who were members
            numbers = sorted({*found, *partition.changed, *space.touched, *partition.members.get(number, ())})
        for place, one in enumerate(numbers):
            entity = partition.find(one)
            if entity is not None:
                partition.ask(entity, node)
            if place % SWITCH_SLICE == SWITCH_SLICE - 1:
                yield
        while partition.settle_some(SWITCH_SLICE):
            yield
