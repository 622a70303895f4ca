"""Backfills: the past of a new definition, gathered beside the live loop and switched in at one place of the log.

From the moment a definition is in the log its questions are kept live; only events before that are missing. A scan
off the event loop gathers their states, they are added to those kept live slice by slice, and `DefinitionSwitched`
makes the version decide: no event is lost or counted twice. One runs at a time, the others wait in order of creation.
A kill loses nothing: what was not switched in is gathered again.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import structlog

from actors.conditions.program import Asked, Node
from actors.entities import User
from actors.history import Canonical, States, gather
from eventlog.entries import Definition, DefinitionFailed, DefinitionSwitched
from eventlog.errors import LogError, TurnoutError
from eventlog.memory import MemoryLog

if TYPE_CHECKING:
    from actors.definitions import Held
    from actors.space_core import SpaceCore

log = structlog.get_logger("turnout.backfill")

MERGE_SLICE: Final = 500  # entities added to before others get a turn
SWITCH_SLICE: Final = 500  # entities asked, before others get a turn


class CancelledError(TurnoutError):
    """The definition changed or went away while its past was gathered."""


class Backfills:
    """The backfills of a space."""

    def __init__(self, space: "SpaceCore") -> None:
        self._space = space
        self._wake = anyio.Event()
        self._ended = anyio.Event()
        self._found: dict[int, set[int] | None] = {}  # by number: entities to ask at the switch; None: all
        self._restarted: set[int] = set()  # that waited already when the space was opened
        self.is_merging = False
        self.running: int | None = None
        self.started_ms = 0
        self.progress = 0.0  # of the one that runs, 0-1

    def note_restart(self) -> None:
        """Take note of what waits already: nobody knows who was heard of since it began to."""
        self._restarted = {held.latest.number for held in self._space.definitions_held.waiting()}

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
        """Return once no backfill (or not that of this definition) waits or runs."""
        while any(number in (None, held.latest.number) for held in self._space.definitions_held.waiting()):
            self.wake()
            await self._ended.wait()

    def _is_current(self, wanted: Definition) -> bool:
        held = self._space.definitions_held.held.get(wanted.number)
        return held is not None and held.pending and held.latest.version == wanted.version and held.latest.enabled

    async def _one(self, held: "Held") -> None:
        space = self._space
        wanted = held.latest
        number = wanted.number
        self.running, self.progress, self.started_ms = number, 0.0, space.clock.now_ms()
        try:
            await space.caught_up()
            shadow = space.shadow_of(number)
            missing = [a for a in space.asked_of(shadow) if a.index in space.incomplete]
            states = await self._gather(wanted, self._by_seq(missing))
            await self._merge(wanted, missing, states)
            everyone = number in self._restarted or self._asks_everyone(shadow, missing)
            self._found[number] = None if everyone else set(states)
            await space.record([DefinitionSwitched(number, wanted.version)])
            await space.caught_up()
        except CancelledError:
            log.info("backfill_cancelled", definition=wanted.key)
        except LogError as error:
            log.error("backfill_failed", definition=wanted.key, error=str(error))
            await self._fail(wanted, str(error))
        finally:
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

    def _by_seq(self, missing: Iterable[Asked]) -> dict[int, list[Asked]]:
        """Return questions by the place in the log up to which their past is missing."""
        by_seq: dict[int, list[Asked]] = {}
        for asked in missing:
            by_seq.setdefault(self._space.incomplete[asked.index], []).append(asked)
        return by_seq

    async def _gather(self, wanted: Definition, missing: dict[int, list[Asked]]) -> States:
        space = self._space
        at_ms, canonical = space.partition.now_ms, space.identity.canonical_map()
        if not missing:
            return {}
        if isinstance(space.log, MemoryLog):
            return self._gather_now(missing, at_ms, canonical)
        return await anyio.to_thread.run_sync(
            lambda: self._gather_now(missing, at_ms, canonical, wanted), abandon_on_cancel=True
        )

    def _gather_now(
        self, missing: dict[int, list[Asked]], at_ms: int, canonical: Canonical, wanted: Definition | None = None
    ) -> States:
        """Return the missing past of questions, by who is who; in another thread, where the log is a file."""
        space = self._space
        states: States = {}
        for until_seq, several in missing.items():

            def hear(seq: int, /, until: int = until_seq) -> None:
                self.progress = min(1.0, seq / max(1, until))
                if wanted is not None and not self._is_current(wanted):
                    raise CancelledError(wanted.key)

            found = gather(
                space.log,
                several,
                until_seq=until_seq,
                at_ms=at_ms,
                canonical=canonical,
                progress=hear,
            )
            for entity, mine in found.items():
                states.setdefault(entity, {}).update(mine)
        return states

    async def _merge(self, wanted: Definition, missing: list[Asked], states: States) -> None:
        """Add what was gathered, in slices. From the first slice on no checkpoint may be taken until all is in."""
        space = self._space
        if not self._is_current(wanted):
            raise CancelledError(wanted.key)
        async with space.still:
            self.is_merging = True
        for place, (entity, mine) in enumerate(states.items()):
            self._add(space.identity.canonical(entity), mine)
            if place % MERGE_SLICE == MERGE_SLICE - 1:
                await anyio.lowlevel.checkpoint()
        for asked in missing:
            space.incomplete.pop(asked.index, None)

    def _add(self, entity: int, mine: "dict[int, object]") -> None:
        partition = self._space.partition
        found = partition.find(entity)
        if found is not None:
            partition.add_history(found, mine)

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
            then = space.identity.canonical_map(seq)
            for one, mine in self._gather_now(self._by_seq(missing), partition.now_ms, then).items():
                self._add(one, mine)
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
