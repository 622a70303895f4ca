"""Which records of a funnel belong together, and which parents a new nested event can tip.

`property(x) = property(parent: y)` is not symmetric: the type of its right side says how the two compare (contract,
section 3). So a left value is filed under every key that a right one may look for: its text, and its number; a right
value has one key. Sharing a key is then the same as being equal, and no pair has to be compared.

A nested event adds one to the counts of the parents before it. Where a count is held against a constant, only those
parents matter that now count exactly what tips it: they lie together, between two nested events, and are found by
bisection. Hence each parent is asked again once or twice in its life, however many there are. Times are milliseconds.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from actors.conditions.queries import FOREVER, Record
from actors.conditions.values import number_of, text_of

Key = str | int | float


class Join(Struct, frozen=True):
    """`property(own) = property(parent: theirs)`, or the other way round: places in the two records' values."""

    own: int
    parent: int
    parent_is_left: bool

    def own_keys(self, record: Record) -> Iterable[Key]:
        """Return what a nested record is filed under."""
        value = record[3][self.own]
        return right_keys(value) if self.parent_is_left else left_keys(value)

    def parent_keys(self, record: Record) -> Iterable[Key]:
        """Return where the nested records of a parent are found; what lies under two keys is not the same."""
        value = record[3][self.parent]
        return left_keys(value) if self.parent_is_left else right_keys(value)


def right_keys(value: Any) -> tuple[Key, ...]:
    """Return the key of a value on the right of `=`; none for what equals nothing."""
    kind = type(value)
    if kind is str:
        return (value,)
    if kind is bool:
        return ("true" if value else "false",)
    number = number_of(value)
    return () if number is None else (number,)


def left_keys(value: Any) -> Iterable[Key]:
    """Return the keys of all that a value on the left of `=` equals: of each element of an array."""
    if type(value) is list:
        return dict.fromkeys(key for item in value if type(item) is not list for key in left_keys(item))
    text, number = text_of(value), number_of(value)
    if number is None:
        return () if text is None else (text,)
    return (number,) if text is None else (text, number)


class Reach(Struct, frozen=True):
    """How far before a nested event its parents lie: after_ms < nested - parent <= before_ms; -1: after it at all."""

    after_ms: int
    before_ms: int

    def first(self, records: list[Record], parent: Record) -> int:
        """Return the place of the first nested record that a parent counts, in sorted ones."""
        if self.after_ms >= 0:
            return bisect_left(records, [parent[0] + self.after_ms + 1])
        return bisect_left(records, [parent[0], parent[1] + 1])

    def count(self, records: list[Record], parent: Record, most: int) -> int:
        """Return how many nested records a parent counts, at most so many."""
        first = self.first(records, parent)
        last = min(first + most, len(records))
        if last > first and records[last - 1][0] > parent[0] + self.before_ms:
            last = bisect_left(records, [parent[0] + self.before_ms + 1], first, last)
        return max(0, last - first)

    def end(self, parents: list[Record], record: Record) -> int:
        """Return the place of the first parent that a nested record does not follow."""
        return bisect_left(parents, [record[0] - self.after_ms] if self.after_ms >= 0 else record[:2])

    def parents(self, parents: list[Record], record: Record) -> slice:
        """Return which parents count a nested record."""
        first = 0 if self.before_ms == FOREVER else bisect_left(parents, [record[0] - self.before_ms])
        return slice(first, self.end(parents, record))


def tipped(
    reach: Reach, parents: list[Record], records: list[Record], record: Record, counts: tuple[int, ...]
) -> list[Record]:
    """Return the parents that count one of `counts` nested records now that `record` is one of them."""
    span = reach.parents(parents, record)
    if span.stop - span.start <= len(counts):
        return parents[span]
    place, length = bisect_left(records, record[:2]), len(records)
    found: list[Record] = []
    for count in counts:
        if count > span.stop - span.start:
            return parents[span]  # fewer than the runs of nested events to look at
        for start in range(max(0, place - count + 1), min(place, length - count) + 1):
            first, last = span.start, min(span.stop, reach.end(parents, records[start]))
            if start:
                first = max(first, reach.end(parents, records[start - 1]))
            if start + count < length:
                if reach.before_ms == FOREVER:
                    continue
                last = min(last, bisect_left(parents, [records[start + count][0] - reach.before_ms]))
            if reach.before_ms != FOREVER:
                first = max(first, bisect_left(parents, [records[start + count - 1][0] - reach.before_ms]))
            found += parents[first:last]
    return found
