"""When entities are due: a heap of (due_ms, entity), the earliest first. The entity itself tells stale entries."""

from heapq import heappop, heappush


class Timers:
    """The due times of a partition's entities."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []

    def add(self, due_ms: int, entity: int) -> None:
        """Note that an entity is due."""
        heappush(self._heap, (due_ms, entity))

    def next_ms(self) -> int | None:
        """Return the earliest due time, or None."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, until_ms: int) -> tuple[int, list[int]] | None:
        """Take all entities due at the earliest time, if that is not after `until_ms`."""
        if not self._heap or self._heap[0][0] > until_ms:
            return None
        due_ms = self._heap[0][0]
        entities = []
        while self._heap and self._heap[0][0] == due_ms:
            entities.append(heappop(self._heap)[1])
        return due_ms, entities

    def __len__(self) -> int:
        """Return how many entries are held, stale ones too."""
        return len(self._heap)
