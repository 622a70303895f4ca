"""What if: a log folded under other definitions, day by day beside what did happen.

The entries are fed to a partition as they were live, in their order and by the time they were received, so that what
comes out is what Turnout would have said then. A definition with the key of an existing one decides from the entry on
at which that one first did; one with a new key from the beginning. What did happen are the effects in the log. Days are
UTC days, times milliseconds since the epoch. Entities are put away as a space does it; who is in, and each change that
is told, stay in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final
from typing import Literal as OneOf

from msgspec import Struct
from msgspec.structs import replace

from actors.checkpoint import Cut, loader, put_away
from actors.conditions.program import Spec, cycle_of
from actors.definitions import SHADOW, Definitions, spec_of, tree_of
from actors.folding import fold_events, fold_facts, told_apart
from actors.language import references
from actors.partition import Partition
from actors.space_core import ACTIVE_MAX
from eventlog.entries import (
    AnyFact,
    Commit,
    Definition,
    DefinitionDeleted,
    DefinitionSaved,
    DefinitionSwitched,
    Entered,
    Exited,
    Ticked,
    TraitComputed,
)
from eventlog.errors import InvalidError
from eventlog.log import Log

DAY_MS: Final = 86_400_000
DRAFT: Final = SHADOW * 2  # above every number of a space
MOVES_MAX: Final = 5_000_000  # who enters or leaves on the days told of: some 500 MB

Direction = OneOf["entered", "left"]


class Day(Struct, frozen=True):
    """A definition's day; of a computed trait, who has a value counts as a member."""

    key: str
    day_ms: int
    size: int  # at the end of the day
    entered: int
    left: int
    actual_size: int | None  # None: nothing with this key has ever decided
    actual_entered: int | None
    actual_left: int | None


class Move(Struct, frozen=True, order=True):
    """Somebody who entered or left on a day."""

    day_ms: int
    key: str
    entity: int
    direction: Direction
    would: bool  # under the other definition
    did: bool  # in fact


class _Tally:
    """Who is in by day, read off effects."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.sizes: dict[int, int] = {}  # day -> size at its end
        self.moves: dict[int, set[int]] = {}  # day -> who entered or left: entity * 2, one more for those who entered

    def take(self, effect: Entered | Exited | TraitComputed) -> tuple[int, int] | None:
        """Take an effect into account; return the day and the move. A computed trait's other value is none."""
        is_in = isinstance(effect, Entered) or (isinstance(effect, TraitComputed) and effect.value is not None)
        if is_in is (effect.entity in self.inside):
            return None
        (self.inside.add if is_in else self.inside.discard)(effect.entity)
        day_ms = _day(effect.at_ms)
        self.sizes[day_ms] = len(self.inside)
        return day_ms, effect.entity << 1 | is_in

    def end(self, at_ms: int) -> None:
        """Take note that the definition is gone: nobody is in it."""
        self.inside.clear()
        self.sizes[_day(at_ms)] = 0

    def size_before(self, day_ms: int) -> int:
        """Return the size at the end of the day before."""
        earlier = [day for day in self.sizes if day < day_ms]
        return self.sizes[max(earlier)] if earlier else 0

    def count(self, day_ms: int) -> tuple[int, int]:
        """Return how many entered and left on a day."""
        moves = self.moves.get(day_ms, ())
        entered = sum(one & 1 for one in moves)
        return entered, len(moves) - entered


_NOBODY: Final = _Tally()


class WhatIf:
    """A fold of a log under other definitions. Feed it all commits in order, then ask for days and moves."""

    def __init__(
        self,
        drafts: Sequence[Definition],
        held: Definitions,
        store: Log,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        active_max: int = ACTIVE_MAX,
        moves_max: int = MOVES_MAX,
    ) -> None:
        """Take what to fold under; raise InvalidError for a cycle.

        Args:
            drafts: the definitions; their numbers are given anew.
            held: those that stand.
            store: where entities are put away that do not fit into memory; an empty log.
            since_ms: the first day to tell of; None for the first of the log.
            until_ms: days before this time are told of; None for all.
            active_max: so many entities stay in memory.
            moves_max: more who enter or leave are an error.
        """
        standing = {one.latest.key: one.active or one.latest for one in held.held.values()}
        placed = [replace(one, number=DRAFT + place, enabled=True) for place, one in enumerate(drafts)]
        self._drafts = {one.number: one for one in placed}
        by_key = {one.key: one for one in placed}
        helping = _closure(placed, {**standing, **by_key})
        self._specs: list[Spec] = [spec_of(one, one.number) for one in (*placed, *helping)]
        self._from_switch = {
            standing[one.key].number if one.key in standing else one.number: one.number for one in (*placed, *helping)
        }
        self._actual = {standing[one.key].number: one.key for one in placed if one.key in standing}
        self._live = {one.number for one in placed if one.key not in standing}
        self._would: dict[int, _Tally] = {number: _Tally() for number in self._drafts}
        self._did: dict[int, _Tally] = {number: _Tally() for number in self._actual}
        self._store = store
        self._stored_entity = 0
        self._active_max = active_max
        self._partition = Partition(load=loader(store, lambda: self._partition, lambda: self._stored_entity))
        self._partition.set_definitions(self._specs, self._live, tuple)
        self._span = (since_ms, until_ms)
        self._moves_left = self._moves_max = moves_max
        self._first_ms: int | None = None
        self._last_ms = 0
        self.last_seq = 0

    async def feed(self, commit: Commit) -> None:
        """Fold a commit. Raises InvalidError where more enter and leave than can be told of."""
        partition = self._partition
        caused, rest = told_apart(commit)
        for _ in fold_events(partition, commit, caused):
            pass
        if commit.events:
            self._see(commit.events[0].received_ms)
            self._see(max(event.received_ms for event in commit.events))
        for placed in fold_facts(partition, rest, commit.at_ms):
            if placed is not None:
                self._heed(*placed, commit.at_ms)
        for effect in partition.take_effects():
            assert isinstance(effect, Entered | Exited | TraitComputed)
            self._note(self._would.get(effect.definition), effect)
        self.last_seq = commit.last_seq
        if len(partition.entities) > self._active_max:
            await self._put_away()

    def _see(self, at_ms: int) -> None:
        self._first_ms = at_ms if self._first_ms is None else self._first_ms
        self._last_ms = max(self._last_ms, at_ms)

    def _heed(self, seq: int, fact: AnyFact, at_ms: int) -> None:
        """Take in a fact that is none of the partition's business."""
        match fact:
            case Entered() | Exited() | TraitComputed():
                self._note(self._did.get(fact.definition), fact)
            case Ticked(at_ms=tick_ms):
                self._see(tick_ms)
            case DefinitionSwitched(number=number):
                self._switch(number, seq)
            case DefinitionDeleted(number=number) if number in self._did:
                self._did[number].end(at_ms)
            case _:
                pass

    def _note(self, tally: _Tally | None, effect: Entered | Exited | TraitComputed) -> None:
        found = None if tally is None else tally.take(effect)
        if found is None or tally is None or not self._is_told(found[0]):
            return
        moves = tally.moves.setdefault(found[0], set())
        before = len(moves)
        moves.add(found[1])
        self._moves_left -= len(moves) - before
        if self._moves_left < 0:
            raise InvalidError(
                "too_many_changes",
                f"more than {self._moves_max:,} profiles enter and leave; tell of fewer days with --since and --until, "
                "or try fewer definitions at once",
            )

    def _is_told(self, day_ms: int) -> bool:
        since_ms, until_ms = self._span
        return (since_ms is None or day_ms >= _day(since_ms)) and (until_ms is None or day_ms <= _day(until_ms - 1))

    def _switch(self, number: int, seq: int) -> None:
        """Let a definition decide from here on, where the one of its key first did."""
        ours = self._from_switch.get(number)
        if ours is None or ours in self._live:
            return
        partition = self._partition
        self._live.add(ours)
        everyone = range(1, partition.last_entity + 1)
        partition.set_definitions(self._specs, self._live, lambda: everyone, seq)
        node = partition.program.nodes[ours]
        for one in everyone:
            entity = partition.find(one)
            if entity is not None:
                partition.ask(entity, node)
        partition.settle()

    async def _put_away(self) -> None:
        """Store what changed, and let half of the entities leave memory."""
        cut = Cut(self._partition)
        while cut.dump_slice():
            pass
        await self._store.store([cut.changes(Definitions(), {}, {}, 0)])
        cut.stored()
        self._stored_entity = self._partition.last_entity
        put_away(self._partition, self._active_max // 2)

    # -- what came out -----------------------------------------------------------------------------------------------

    def _tallies(self) -> Iterator[tuple[str, _Tally, _Tally | None]]:
        """Yield of each definition its key, what would have been, and what was (None: nothing has ever decided)."""
        by_key = {key: number for number, key in self._actual.items()}
        for number, draft in self._drafts.items():
            yield draft.key, self._would[number], self._did.get(by_key.get(draft.key, 0))

    def _days(self) -> range:
        if self._first_ms is None:
            return range(0)
        since_ms, until_ms = self._span
        first, last = _day(self._first_ms), _day(self._last_ms)
        first = first if since_ms is None else max(first, _day(since_ms))
        last = last if until_ms is None else min(last, _day(until_ms - 1))
        return range(first, last + 1, DAY_MS)

    def days(self) -> Iterator[Day]:
        """Yield each day from the first to the last event, or of the part that was asked for, by definition."""
        days = self._days()
        for key, would, did in self._tallies():
            size, was = would.size_before(days.start), 0 if did is None else did.size_before(days.start)
            for day_ms in days:
                size = would.sizes.get(day_ms, size)
                actual: tuple[int | None, int | None, int | None] = (None, None, None)
                if did is not None:
                    was = did.sizes.get(day_ms, was)
                    actual = (was, *did.count(day_ms))
                yield Day(key, day_ms, size, *would.count(day_ms), *actual)

    def moves(self) -> Iterator[Move]:
        """Yield everybody who entered or left, by day, key and entity."""
        tallies = sorted(self._tallies(), key=lambda one: one[0])
        for day_ms in self._days():
            for key, would, did in tallies:
                ours, theirs = would.moves.get(day_ms, set()), (did or _NOBODY).moves.get(day_ms, set())
                for one in sorted(ours | theirs):
                    yield Move(day_ms, key, one >> 1, "entered" if one & 1 else "left", one in ours, one in theirs)

    def movers(self) -> set[int]:
        """Return everybody who entered or left."""
        return {one.entity for one in self.moves()}


async def replayed_with(commits: Iterable[Commit], fold: WhatIf, hear: Callable[[int], None]) -> WhatIf:
    """Fold all commits and return the fold; `hear` is told how far it is."""
    for commit in commits:
        await fold.feed(commit)
        hear(commit.last_seq)
    return fold


def held_in(facts: Iterable[tuple[int, AnyFact]]) -> Definitions:
    """Return the definitions that the facts of a log make."""
    held = Definitions()
    for seq, fact in facts:
        if isinstance(fact, DefinitionSaved | DefinitionSwitched | DefinitionDeleted):
            held.apply(fact, seq)
    return held


def _closure(drafts: Iterable[Definition], by_key: Mapping[str, Definition]) -> list[Definition]:
    """Return the standing definitions that drafts refer to, directly or not. Raises InvalidError for a cycle."""
    found: dict[str, Definition] = {}
    refers: dict[str, Sequence[str]] = {}
    stack = list(drafts)
    own = {one.key for one in stack}
    while stack:
        one = stack.pop()
        if one.key in refers:
            continue
        refers[one.key] = sorted(references(tree_of(one.query, one.entity_type, one.kind)))
        stack += [by_key[key] for key in refers[one.key] if key in by_key]
        if one.key not in own:
            found[one.key] = one
    for key in own:
        cycle = cycle_of(key, lambda one: refers.get(one, ()))
        if cycle is not None:
            raise InvalidError("cycle", f"these definitions refer to each other: {' -> '.join(cycle)}", field="query")
    return list(found.values())


def _day(at_ms: int) -> int:
    return at_ms - at_ms % DAY_MS
