"""When entities are due, the earliest first. The entity itself tells entries that no longer count.

An entry is one int, the due time before the entity's number, so that their order is that of both. Most of them are
days away: those of each hour or so are a list that nobody sorts until its time comes, and only the hour at hand is a
heap, small enough to stay in the processor's cache.
"""

from heapq import heapify, heappop, heappush
from typing import Final

ENTITY_BITS: Final = 40
_ENTITY_MASK: Final = (1 << ENTITY_BITS) - 1
_SPAN_BITS: Final = 22  # 70 minutes of milliseconds
NEVER_MS: Final = 1 << 62


class Timers:
    """The due times of a partition's entities."""

    __slots__ = ("_count", "_first", "_later", "_near", "_span", "_spans", "soonest_ms")

    def __init__(self) -> None:
        self.soonest_ms = NEVER_MS  # the earliest due time
        self._near: list[int] = []  # a heap of all that is due before the end of the span at hand
        self._span = -(1 << 62)  # the span at hand: time has not come to any yet
        self._later: dict[int, list[int]] = {}  # by span, unsorted
        self._first: dict[int, int] = {}  # by span, the earliest of them
        self._spans: list[int] = []  # a heap of their keys
        self._count = 0

    def add(self, due_ms: int, entity: int) -> None:
        """Note that an entity is due."""
        entry = due_ms << ENTITY_BITS | entity
        self._count += 1
        if due_ms < self.soonest_ms:
            self.soonest_ms = due_ms
        span = due_ms >> _SPAN_BITS
        if span <= self._span:
            heappush(self._near, entry)
            return
        first = self._first.get(span)
        if first is None:
            self._later[span] = [entry]
            self._first[span] = entry
            heappush(self._spans, span)
            return
        self._later[span].append(entry)
        if entry < first:
            self._first[span] = entry

    def next_ms(self) -> int | None:
        """Return the earliest due time, or None."""
        return None if self.soonest_ms == NEVER_MS else self.soonest_ms

    def pop_due(self, until_ms: int) -> tuple[int, list[int]] | None:
        """Take all entities due at the earliest time, if that is not after `until_ms`."""
        due_ms = self.soonest_ms
        if due_ms > until_ms:
            return None
        if not self._near:
            self._come_nearer()
        near = self._near
        entities = [heappop(near) & _ENTITY_MASK]
        while near and near[0] >> ENTITY_BITS == due_ms:
            entities.append(heappop(near) & _ENTITY_MASK)
        self._count -= len(entities)
        if near:
            self.soonest_ms = near[0] >> ENTITY_BITS
        else:
            self.soonest_ms = self._first[self._spans[0]] >> ENTITY_BITS if self._spans else NEVER_MS
        return due_ms, entities

    def _come_nearer(self) -> None:
        """Take the next span at hand: nothing is left of the one before, and its time has come."""
        self._span = heappop(self._spans)
        self._near = self._later.pop(self._span)
        del self._first[self._span]
        heapify(self._near)

    def __len__(self) -> int:
        """Return how many entries are held, those that no longer count too."""
        return self._count
