"""Erasing events: of a profile for good, or of all that are older than is kept.

An erased event keeps its place in the numbering and the time it was received, so that sequences, cursors and a
replay's clock stay as they were; its kind is ERASED and all else is empty. Facts are the caller's business: they are
replaced one by one, never removed. Tables are not touched: the projections that own them delete their rows.
"""

from collections.abc import Callable, Set

import numpy as np

from eventlog.columns import EventColumns
from eventlog.entries import ERASED, KINDS, AnyFact, Commit, Event
from eventlog.log import Log


def erased(event: Event) -> Event:
    """Return what stays of an event."""
    return Event(event.seq, event.received_ms, event.received_ms, 0, 0, ERASED, "", "", "", b"")


def edited(commit: Commit, gone: Callable[[Event], bool], facts: Callable[[AnyFact], AnyFact] | None = None) -> Commit:
    """Return the commit with the events that are `gone` erased and its facts replaced; itself if nothing changes."""
    kept = tuple(erased(event) if event.kind != ERASED and gone(event) else event for event in commit.events)
    replaced = commit.facts if facts is None else tuple(map(facts, commit.facts))
    if all(map(_same, kept, commit.events)) and all(map(_same, replaced, commit.facts)):
        return commit
    return Commit(commit.first_seq, commit.at_ms, kept, replaced)


async def erase_entities(log: Log, entities: Set[int], facts: Callable[[AnyFact], AnyFact] | None = None) -> int:
    """Erase all events of these profiles and accounts; return how many commits changed.

    `facts` says what stays of each fact (the same fact: all of it). Without it, only commits with events are decoded.
    """
    wanted = np.array(sorted(entities), np.int64)

    def touching(columns: EventColumns) -> bool:
        return bool(np.isin(columns.profile, wanted).any() or np.isin(columns.account, wanted).any())

    def edit(commit: Commit) -> Commit:
        return edited(commit, lambda event: event.profile in entities or event.account in entities, facts)

    return await log.rewrite(edit, touching=touching if facts is None else None)


async def forget_before(log: Log, before_ms: int, kinds: Set[int] = frozenset(KINDS.values())) -> int:
    """Erase all events of these kinds that happened before a time; return how many commits changed. Facts stay."""
    wanted = np.array(sorted(kinds), np.uint8)

    def touching(columns: EventColumns) -> bool:
        return bool(((columns.event_ms < before_ms) & np.isin(columns.kind, wanted)).any())

    def edit(commit: Commit) -> Commit:
        return edited(commit, lambda event: event.event_ms < before_ms and event.kind in kinds)

    return await log.rewrite(edit, touching=touching)


def _same(one: object, other: object) -> bool:
    return one is other
