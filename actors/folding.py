"""How a commit goes into a partition: its events, each with what it made known of who is who, then its other facts.

Whoever folds a log (a space, live or at its start; a what-if) does it by this, and deals with what is its own business
itself: definitions that come and go, what is counted and kept beside.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from actors.partition import Partition
from eventlog.entries import (
    AccountsErased,
    AnyFact,
    Commit,
    DefinitionDeleted,
    DefinitionFailed,
    DefinitionSaved,
    DefinitionSwitched,
    Erased,
    IdAdded,
    IdRefused,
    IdSeenEarlier,
    Merged,
    Ticked,
)
from eventlog.messages import EventData

FOLD_SLICE: Final = 256  # events folded before others get a turn
DEFINITION: Final = (DefinitionSaved, DefinitionSwitched, DefinitionFailed, DefinitionDeleted)

_IDENTITY: Final = (IdAdded, IdSeenEarlier, Merged, IdRefused)

Caused = dict[int, list[AnyFact]]
Placed = tuple[int, AnyFact]
"""A fact with its sequence."""


def told_apart(commit: Commit) -> tuple[Caused, list[Placed]]:
    """Return what each event of a commit made known of who is who, by its sequence, and the other facts."""
    caused: Caused = {}
    rest: list[Placed] = []
    first, last = commit.first_seq, commit.first_seq + len(commit.events)
    for seq, fact in enumerate(commit.facts, last):
        if isinstance(fact, _IDENTITY) and first <= fact.cause_seq < last:
            caused.setdefault(fact.cause_seq, []).append(fact)
        else:
            rest.append((seq, fact))
    return caused, rest


def fold_events(
    partition: Partition, commit: Commit, caused: Caused, datas: Sequence[EventData] | None = None, after_seq: int = 0
) -> Iterator[int | None]:
    """Fold the events of a commit after a sequence; yield that of each that had effects, and now and then of another.

    None comes in the middle of one that takes long, for others to get a turn, where the partition folds `in_slices`.
    `datas`: what their bodies say, where that is known.
    """
    fold_event = partition.fold_event
    for place, event in enumerate(commit.events):
        seq = event.seq
        if seq <= after_seq:
            continue
        facts = caused.get(seq, ())
        if not event.kind:
            partition.fold_erased(event, facts)
        elif datas is None:
            partition.fold_stored(event, facts)
        else:
            fold_event(event, datas[place], facts)
        if partition.shrunk:
            yield from partition.rest()
        if partition.effects or place % FOLD_SLICE == FOLD_SLICE - 1:
            yield seq


def fold_facts(partition: Partition, facts: Iterable[Placed], at_ms: int) -> Iterator[Placed | None]:
    """Fold facts of a commit that its events did not cause; yield each once the partition has taken it in.

    None comes in the middle of one that takes long, as from `fold_events`. Erasures that follow each other are folded
    at once: an account that they all leave is gathered anew once.
    """
    for is_erasing, run in groupby(facts, _is_erasing):
        if is_erasing:
            erased = list(run)
            _move(partition, erased[-1][0], at_ms)
            partition.erase([fact.entity for _, fact in erased if isinstance(fact, Erased)], erased[-1][0])
            yield from partition.rest()
            yield erased[-1]
            continue
        for seq, fact in run:
            _fold_fact(partition, seq, fact, at_ms)
            if partition.shrunk:
                yield from partition.rest()
            yield seq, fact


def _fold_fact(partition: Partition, seq: int, fact: AnyFact, at_ms: int) -> None:
    if isinstance(fact, Ticked):
        _move(partition, seq, fact.at_ms)
    elif isinstance(fact, IdAdded | Merged):
        _move(partition, seq, at_ms)
        partition.fold_fact(fact, seq)
    elif isinstance(fact, AccountsErased):
        _move(partition, seq, at_ms)
        partition.erase_traits(fact.traits, seq)
    elif isinstance(fact, DEFINITION):
        _move(partition, seq, at_ms)


def _move(partition: Partition, seq: int, to_ms: int) -> None:
    """Let time pass up to a fact."""
    partition.cause_seq = seq
    partition.advance(to_ms)


def _is_erasing(one: Placed) -> bool:
    return isinstance(one[1], Erased)
