"""Backfills: the past of a new definition, gathered beside the live loop and switched in at one place of the log.

From the moment a definition is in the log its questions are kept live; only events before that are missing. A scan
(`scanning`, in a process of its own for a daemon) gathers their states, they are added to those kept live page by page
once all of them are there, and `DefinitionSwitched` makes the version decide: no event is lost or counted twice. One
runs at a time, the others wait in order of creation. A kill loses nothing: what was not switched in is gathered again.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog

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
SWITCH_SLICE: Final = 500  # entities asked, before others get a turn
ROOM_AGAIN_S: Final = 10.0  # until a disk that was full is tried again


class CancelledError(TurnoutError):
    """The definition changed or went away while its past was gathered."""


class Backfills:
    """The backfills of a space."""

    def __init__(self, space: "SpaceCore") -> None:
        self._space = space
        self._wake = anyio.Event()
        self._ended = anyio.Event()
        self._found: dict[int, set[int] | None] = {}  # by number: entities to ask at the switch; None: all
        self._restarted: set[int] = set()  # that waited already when the space was opened, or before it was enabled
        self._refused: LogFullError | None = None  # of the last one that ended
        self.is_merging = False
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
        self.is_merging = False  # also where the switch came to nothing: it was deleted, or edited since
        self.running = None
        self._ended.set()
        self._ended = anyio.Event()

    async def _fail(self, wanted: Definition, reason: str) -> None:
        try:
            await self._space.record([DefinitionFailed(wanted.number, wanted.version, reason)])
            await self._space.caught_up()
        except LogError:
            await self._wake.wait()  # the disk is full: try again when something happens

    def _job(self, wanted: Definition, missing: list[Asked]) -> Backfill:
        """Return what is to be gathered: each question, and up to where in the log its past is missing."""
        space = self._space
        identities = {asked.index: identity for identity, asked in space.partition.program.asked.items()}
        questions = tuple((identities[asked.index], space.incomplete[asked.index]) for asked in missing)
        return Backfill(wanted, questions, space.partition.now_ms)

    async def _gather(self, wanted: Definition, missing: list[Asked]) -> set[int]:
        """Add the missing past of questions to what is kept live; return who has one."""
        space = self._space
        if not missing:
            return set()
        job = self._job(wanted, missing)
        last_seq = max(1, job.until_seq)

        def hear(seq: int, /) -> None:
            self.progress = min(1.0, seq / last_seq)
            if not self._is_current(wanted):
                raise CancelledError(wanted.key)

        async with space.scans.run(space.log, job, space.identity.canonical_map(), hear) as pages:
            if not self._is_current(wanted):
                raise CancelledError(wanted.key)
            # From the first row on no checkpoint may be taken until all are in.
            async with space.still:
                self.is_merging = True
            found: set[int] = set()
            for page in pages:
                for mine in self._added(page, missing):
                    found.add(mine)
                    if len(found) % MERGE_SLICE == 0:
                        await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
        for asked in missing:
            space.incomplete.pop(asked.index, None)
        return found

    def _added(self, page: Page, missing: list[Asked]) -> Iterator[int]:
        """Add a page of rows; yield each entity that had some."""
        partition, canonical = self._space.partition, self._space.identity.canonical
        for entity, rows in groupby(page, key=itemgetter(0)):
            mine: dict[int, Any] = {}
            for _, place, state in rows:
                asked = missing[place]
                mine[asked.index] = asked.query.load(state)
            found = partition.find(canonical(entity))
            if found is not None:
                partition.add_history(found, mine)
            yield entity

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
        if missing:  # a restart between gathering and this entry
            job = self._job(space.definitions_held.held[number].latest, missing)
            for page in scan(job, space.log, space.identity.canonical_map(seq)):
                for _ in self._added(page, missing):
                    pass
            for asked in missing:
                space.incomplete.pop(asked.index, None)
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
