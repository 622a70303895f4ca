"""What if: a log folded under other definitions, day by day beside what did happen.

The entries are fed to a partition as they were live, in their order and by the time they were received, so that what
comes out is what Turnout would have said then. A definition with the key of an existing one decides from the entry on
at which that one first did; one with a new key from the beginning. What did happen are the effects in the log. Days are
UTC days, times milliseconds since the epoch. All entities stay in memory, and each change that is told.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from typing import Literal as OneOf

from msgspec import Struct
from msgspec.structs import replace

from actors.conditions.program import Spec, cycle_of
from actors.definitions import SHADOW, Definitions, spec_of, tree_of
from actors.language import references
from actors.partition import Partition
from eventlog.entries import (
    AccountsErased,
    AnyFact,
    Commit,
    Definition,
    DefinitionDeleted,
    DefinitionSaved,
    DefinitionSwitched,
    Entered,
    Erased,
    Exited,
    IdAdded,
    IdRefused,
    IdSeenEarlier,
    Merged,
    Ticked,
    TraitComputed,
)
from eventlog.errors import InvalidError
from eventlog.messages import decode_data

DAY_MS: Final = 86_400_000
DRAFT: Final = SHADOW * 2  # above every number of a space

_IDENTITY = (IdAdded, IdSeenEarlier, Merged, IdRefused)
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


class Outcome(Struct, frozen=True):
    """What a replay under other definitions gave."""

    days: tuple[Day, ...]
    moves: tuple[Move, ...]
    last_seq: int


class _Tally:
    """Who is in by day, read off effects."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.sizes: dict[int, int] = {}  # day -> size at its end
        self.moves: dict[int, set[tuple[int, Direction]]] = {}

    def take(self, effect: Entered | Exited | TraitComputed) -> None:
        """Take an effect into account; a computed trait's other value is no change."""
        is_in = isinstance(effect, Entered) or (isinstance(effect, TraitComputed) and effect.value is not None)
        if is_in is (effect.entity in self.inside):
            return
        (self.inside.add if is_in else self.inside.discard)(effect.entity)
        day_ms = effect.at_ms - effect.at_ms % DAY_MS
        self.moves.setdefault(day_ms, set()).add((effect.entity, "entered" if is_in else "left"))
        self.sizes[day_ms] = len(self.inside)

    def end(self, at_ms: int) -> None:
        """Take note that the definition is gone: nobody is in it."""
        self.inside.clear()
        self.sizes[at_ms - at_ms % DAY_MS] = 0


class WhatIf:
    """A fold of a log under other definitions. Feed it all commits in order, then ask for the outcome."""

    def __init__(self, drafts: Sequence[Definition], held: Definitions) -> None:
        """Take definitions (their numbers are given anew) and those that stand; raise InvalidError for a cycle."""
        standing = {one.latest.key: one.active or one.latest for one in held.held.values()}
        placed = [replace(one, number=DRAFT + place, enabled=True) for place, one in enumerate(drafts)]
        self._drafts = {one.number: one for one in placed}
        self._by_key = {one.key: one for one in placed}
        helping = _closure(placed, {**standing, **self._by_key})
        self._specs: list[Spec] = [spec_of(one, one.number) for one in (*placed, *helping)]
        self._from_switch = {
            standing[one.key].number if one.key in standing else one.number: one.number for one in (*placed, *helping)
        }
        self._actual = {standing[one.key].number: one.key for one in placed if one.key in standing}
        self._live = {one.number for one in placed if one.key not in standing}
        self._would: dict[int, _Tally] = {number: _Tally() for number in self._drafts}
        self._did: dict[int, _Tally] = {number: _Tally() for number in self._actual}
        self._partition = Partition()
        self._partition.set_definitions(self._specs, self._live, tuple)
        self._first_ms: int | None = None
        self._last_ms = 0
        self.last_seq = 0

    def feed(self, commit: Commit) -> None:
        """Fold a commit."""
        first, after = commit.first_seq, commit.first_seq + len(commit.events)
        caused: dict[int, list[AnyFact]] = {}
        rest: list[tuple[int, AnyFact]] = []
        for seq, fact in enumerate(commit.facts, after):
            if isinstance(fact, _IDENTITY) and first <= fact.cause_seq < after:
                caused.setdefault(fact.cause_seq, []).append(fact)
            else:
                rest.append((seq, fact))
        partition = self._partition
        for event in commit.events:
            if event.kind:
                partition.fold_event(event, decode_data(event.body), caused.get(event.seq, ()))
            else:
                partition.fold_erased(event, caused.get(event.seq, ()))
            self._see(event.received_ms)
        for seq, fact in rest:
            self._fact(fact, seq, commit.at_ms)
        self._take()
        self.last_seq = commit.last_seq

    def _see(self, at_ms: int) -> None:
        self._first_ms = at_ms if self._first_ms is None else self._first_ms
        self._last_ms = max(self._last_ms, at_ms)

    def _fact(self, fact: AnyFact, seq: int, at_ms: int) -> None:
        partition = self._partition
        partition.cause_seq = seq
        match fact:
            case Entered() | Exited() | TraitComputed():
                if fact.definition in self._did:
                    self._did[fact.definition].take(fact)
            case Ticked(at_ms=tick_ms):
                partition.advance(tick_ms)
                self._see(tick_ms)
            case IdAdded() | Merged():
                partition.advance(at_ms)
                partition.fold_fact(fact, seq)
            case Erased(entity=entity):
                partition.advance(at_ms)
                partition.erase([entity], seq)
            case AccountsErased(traits=traits):
                partition.advance(at_ms)
                partition.erase_traits(traits, seq)
            case DefinitionSwitched(number=number):
                partition.advance(at_ms)
                self._switch(number, seq)
            case DefinitionDeleted(number=number):
                if number in self._did:
                    self._did[number].end(at_ms)
            case _:
                pass

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

    def _take(self) -> None:
        for effect in self._partition.take_effects():
            assert isinstance(effect, Entered | Exited | TraitComputed)
            tally = self._would.get(effect.definition)
            if tally is not None:
                tally.take(effect)

    def outcome(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Outcome:
        """Return each day from the first to the last event, or of a part of them (`since_ms` <= day < `until_ms`)."""
        if self._first_ms is None:
            return Outcome((), (), self.last_seq)
        first, last = _day(self._first_ms), _day(self._last_ms)
        first = first if since_ms is None else max(first, _day(since_ms))
        last = last if until_ms is None else min(last, _day(until_ms - 1))
        days: list[Day] = []
        moves: list[Move] = []
        by_key = {key: number for number, key in self._actual.items()}
        for number, draft in self._drafts.items():
            would, did = self._would[number], self._did.get(by_key.get(draft.key, 0))
            size, was = _size_before(would, first), 0 if did is None else _size_before(did, first)
            for day_ms in range(first, last + 1, DAY_MS):
                size = would.sizes.get(day_ms, size)
                was = was if did is None else did.sizes.get(day_ms, was)
                ours = would.moves.get(day_ms, set())
                theirs = set() if did is None else did.moves.get(day_ms, set())
                counts = (_count(ours, "entered"), _count(ours, "left"))
                actual = (None, None, None) if did is None else (was, _count(theirs, "entered"), _count(theirs, "left"))
                days.append(Day(draft.key, day_ms, size, *counts, *actual))
                moves += [
                    Move(
                        day_ms, draft.key, entity, direction, (entity, direction) in ours, (entity, direction) in theirs
                    )
                    for entity, direction in ours | theirs
                ]
        return Outcome(tuple(days), tuple(sorted(moves)), self.last_seq)


def replayed_with(
    commits: Iterable[Commit], drafts: Sequence[Definition], held: Definitions, hear: Callable[[int], None]
) -> WhatIf:
    """Fold all commits under these definitions; `hear` is told how far it is."""
    fold = WhatIf(drafts, held)
    for commit in commits:
        fold.feed(commit)
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
        cycle = cycle_of(key, refers)
        if cycle is not None:
            raise InvalidError("cycle", f"these definitions refer to each other: {' -> '.join(cycle)}", field="query")
    return list(found.values())


def _day(at_ms: int) -> int:
    return at_ms - at_ms % DAY_MS


def _size_before(tally: _Tally, day_ms: int) -> int:
    earlier = [day for day in tally.sizes if day < day_ms]
    return tally.sizes[max(earlier)] if earlier else 0


def _count(moves: set[tuple[int, Direction]], direction: Direction) -> int:
    return sum(one[1] == direction for one in moves)
