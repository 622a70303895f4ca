"""Nested records that lie together, reduced without looking at each: many parents ask about the same ones.

A parent's nested records are a span of those under a key. What is worked out of a key's records once (running sums, a
tree of extremes, a tally that slides along, where sessions begin) answers for any span in a few steps. It holds for
one round of asking, in which the records stay as they are. Times are milliseconds.
"""

from bisect import bisect_left
from fractions import Fraction
from typing import Any

from actors.conditions.queries import Record, average, of_tally, quotient
from actors.conditions.values import number_of
from actors.language.tree import Reducer


class Lying:
    """The records under a key, with what has been worked out of them."""

    __slots__ = ("_extremes", "_places", "_runs", "_sums", "_tally", "_values", "records")

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self._places: list[int] | None = None  # of the records that have a value
        self._values: list[Any] = []
        self._sums: _Sums | None = None
        self._extremes: list[Any] | None = None
        self._tally: _Tally | None = None
        self._runs: list[int] | None = None

    def reduced(self, reducer: Reducer, first: int, last: int) -> Any:
        """Return the reducer's value of the records from `first` on, before `last`."""
        name = reducer.name
        if name == "count":
            return last - first
        if self._places is None:
            self._places = [place for place, record in enumerate(self.records) if record[2] is not None]
            self._values = [self.records[place][2] for place in self._places]
        low, high = bisect_left(self._places, first), bisect_left(self._places, last)
        if name in {"mode", "unique"}:
            if self._tally is None:
                self._tally = _Tally(self._values)
            return of_tally(self._tally.of(low, high), reducer)
        if name in {"sum", "avg"}:
            if self._sums is None:
                self._sums = _Sums(self._values)
            return self._sums.total(low, high) if name == "sum" else self._sums.average(low, high)
        if low == high:
            return None
        if name in {"first", "last"}:
            return self._values[low if name == "first" else high - 1]
        return self._extreme(low, high, least=name == "min")

    def _extreme(self, low: int, high: int, *, least: bool) -> Any:
        """Return the least or greatest of the values of a span, by a tree: a node has that of the two below."""
        further = min if least else max
        size = len(self._values)
        if self._extremes is None:
            self._extremes = [None] * size + self._values
            for node in range(size - 1, 0, -1):
                self._extremes[node] = further(self._extremes[2 * node], self._extremes[2 * node + 1])
        found = self._values[low]
        low, high = low + size, high + size
        while low < high:
            if low & 1:
                found = further(found, self._extremes[low])
                low += 1
            if high & 1:
                high -= 1
                found = further(found, self._extremes[high])
            low, high = low >> 1, high >> 1
        return found

    def session_start(self, first: int, last: int, gap_ms: int, now_ms: int) -> int:
        """Return where the latest run of a span begins, with gaps under `gap_ms`; `last` if it has expired."""
        records = self.records
        if self._runs is None:
            self._runs = [0] * len(records)
            for place in range(1, len(records)):
                joined = records[place][0] - records[place - 1][0] < gap_ms
                self._runs[place] = self._runs[place - 1] if joined else place
        if first >= last or now_ms - records[last - 1][0] >= gap_ms:
            return last
        return max(first, self._runs[last - 1])


class _Sums:
    """Running sums, exact: numerators over one power of two."""

    __slots__ = ("denominator", "fractions", "numerators")

    def __init__(self, numbers: list[Any]) -> None:
        parts = [number.as_integer_ratio() for number in numbers]
        self.denominator: int = max((below for _, below in parts), default=1)
        self.numerators: list[int] = [0]
        self.fractions: list[int] = [0]  # how many of the numbers before are no integers
        for (above, below), number in zip(parts, numbers, strict=True):
            self.numerators.append(self.numerators[-1] + above * (self.denominator // below))
            self.fractions.append(self.fractions[-1] + (type(number) is not int))

    def total(self, low: int, high: int) -> Any:
        """Return the sum of a span, rounded once; integers stay exact. None where it overflows."""
        numerator = self.numerators[high] - self.numerators[low]
        if self.fractions[high] == self.fractions[low]:
            return number_of(numerator // self.denominator)
        return quotient(numerator, self.denominator)

    def average(self, low: int, high: int) -> Any:
        """Return the mean of a span, None of nothing."""
        if low == high:
            return None
        exact = Fraction(self.numerators[high] - self.numerators[low], self.denominator)
        return average(self.total(low, high), high - low, exact)


class _Tally:
    """How often each text occurs in a span; the next span mostly begins and ends a little further on."""

    __slots__ = ("first", "last", "tally", "values")

    def __init__(self, values: list[list[str]]) -> None:
        self.values = values
        self.first = 0
        self.last = 0
        self.tally: dict[str, int] = {}

    def of(self, first: int, last: int) -> dict[str, int]:
        """Return the tally of a span."""
        if abs(first - self.first) + abs(last - self.last) > last - first:
            self.first, self.last, self.tally = first, first, {}
        self._add(range(self.last, last))
        self._add(range(first, self.first))
        self._take(range(last, self.last))
        self._take(range(self.first, first))
        self.first, self.last = first, last
        return self.tally

    def _add(self, places: range) -> None:
        for place in places:
            for text in self.values[place]:
                self.tally[text] = self.tally.get(text, 0) + 1

    def _take(self, places: range) -> None:
        for place in places:
            for text in self.values[place]:
                left = self.tally[text] - 1
                if left:
                    self.tally[text] = left
                else:
                    del self.tally[text]
