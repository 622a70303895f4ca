"""What a question about events keeps for one profile, how an event changes it, and how it answers.

A `Query` is an event chain whose own filters are decided when an event arrives (funnels are in `funnels`). Its state
is a summary of the *set* of events that passed: `observe` may come in any order, `merge` joins two summaries, and
with a now that only moves forward, what can no longer decide is dropped. States are plain ints, floats, strings,
lists and dicts, never shared between profiles, `None` for "nothing yet"; `observe`, `merge` and `without` may change
their first argument.

| query | keeps | size |
|---|---|---|
| Count | a number | 1 int |
| Sum (sum, avg) | the exact sum as a fraction, and how many | 3 ints |
| Extreme (min, max) | the value | 1 |
| Edge (first, last) | (timestamp, sequence, value) | 3 |
| Tally (mode, unique) | text -> how often | distinct values |
| Recent (count, within, against a constant) | the n newest timestamps, n from the constant | n ints |
| Records (any other window, sessions) | the events that may still count | events in the window; sessions: all |

Times are milliseconds since the epoch, UTC.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import fsum
from typing import Any, Final, Protocol

import msgspec

from actors.conditions.values import INTEGRAL_MAX, number_of, text_of
from actors.language.tree import Event, Reducer

State = Any
Record = list[Any]  # [event_ms, sequence, value]

CANNOT: Final = object()  # what `without` returns where a state does not know what else there was
FOREVER: Final = 1 << 62
PRUNE_EVERY: Final = 32  # records; dropping the old ones costs a move of the rest
INT_EXACT: Final = 2**53  # up to here a double holds every integer
NO_ARRAY: Final = "\0"  # ends a text that begins with "[", where arrays are counted by their JSON text


class Entity(Protocol):
    """What a query may ask about the entity it is evaluated for (see `actors.entities`)."""

    def trait(self, path: tuple[str, ...]) -> Any:
        """Return the value of a trait."""

    def in_audience(self, key: str) -> bool:
        """Tell whether the entity is a member of an audience."""


class Query(ABC):
    """A question about events: its answer is `value`, which may next change by itself at `due_ms`."""

    __slots__ = ("after_ms", "before_ms", "reducer", "session_ms")
    clocked = False  # may its answer change with time alone
    dynamic = False  # does an event's passing depend on more than the event

    def __init__(self, event: Event) -> None:
        self.reducer = event.reducer
        own = [window for window in event.windows if not window.parent]
        self.after_ms = max((window.after_ms for window in own), default=0)
        self.before_ms = min((window.before_ms for window in own), default=FOREVER)
        self.session_ms = event.expires_after_ms

    @property
    def update(self) -> str:
        """Return `observe` as source that changes `s[INDEX]` and leaves it as `n`, where that is short; else "".

        `INDEX` and `OBSERVE` stand for what they say.
        """
        return ""

    def observe(self, state: State, event_ms: int, seq: int, value: Any, now_ms: int) -> State:
        """Return the state now that an event passed; `value` is what the reducer looks at, None if missing."""
        raise NotImplementedError("it is written into the functions that events are given to: see `update`")

    @abstractmethod
    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Return the summary of the events of both (disjoint) states."""

    def without(self, state: State, other: State) -> State:
        """Return the summary without the events of another that was merged into it; CANNOT where it does not tell."""
        return CANNOT

    @abstractmethod
    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the answer now: a scalar, a list for unique, or None."""

    def due_ms(self, state: State, now_ms: int, entity: Entity) -> int | None:
        """Return when the answer may next change by itself, or None."""
        return None

    def dump(self, state: State) -> Any:
        """Return the state as plain data."""
        return state

    def load(self, data: Any) -> State:
        """Return the state that `dump` gave."""
        return data


class Count(Query):
    """How many, ever."""

    __slots__ = ()

    @property
    def update(self) -> str:
        """Count one more."""
        return "n = s[INDEX] = (s.get(INDEX) or 0) + 1"

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Add the counts."""
        return state + other

    def without(self, state: State, other: State) -> State:
        """Subtract the count."""
        return state - other or None

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the count."""
        return state or 0


class Sum(Query):
    """Sum or average of all numbers, exact.

    Numerator, denominator (a power of two; 0: only integers so far), how many.
    """

    __slots__ = ()

    def observe(self, state: State, event_ms: int, seq: int, value: Any, now_ms: int) -> State:
        """Add a number; count the event even where it has none (it makes a computed trait present)."""
        if state is None:
            state = [0, 0, 0]
        number = number_of(value)
        if number is not None:
            state[2] += 1
            if type(number) is int:
                state[0] += number * (state[1] or 1)
            else:
                _add_fraction(state, *number.as_integer_ratio())
        return state

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Add the sums."""
        if other[1]:
            _add_fraction(state, other[0], other[1])
        else:
            state[0] += other[0] * (state[1] or 1)
        state[2] += other[2]
        return state

    def without(self, state: State, other: State) -> State:
        """Subtract the sum, which is exact; not where no number is left, or ones so large that their kind shows."""
        if state[2] <= other[2] or (other[1] and abs(state[0]) >= INTEGRAL_MAX * (state[1] or 1)):
            return CANNOT
        return self.merge(state, [-other[0], other[1], -other[2]], 0)

    def dump(self, state: State) -> Any:
        """Return the state; an exact sum may need more than 64 bits."""
        return [format(state[0], "x"), format(state[1], "x"), state[2]]

    def load(self, data: Any) -> State:
        """Return a dumped state."""
        return [int(data[0], 16), int(data[1], 16), data[2]]

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the sum (0 of nothing) or the average (None of nothing)."""
        if self.reducer.name == "sum":
            return 0 if state is None else quotient(state[0], state[1])
        if state is None or not state[2]:
            return None
        return average(quotient(state[0], state[1]), state[2], Fraction(state[0], state[1] or 1))


def _add_fraction(state: State, numerator: int, denominator: int) -> None:
    mine = state[1] or 1
    if denominator > mine:
        state[0] = state[0] * (denominator // mine) + numerator
        state[1] = denominator
    else:
        state[0] += numerator * (mine // denominator)
        state[1] = mine


def quotient(numerator: int, denominator: int) -> Any:
    """Return a fraction as a number, rounded once; a denominator of 0 says that there are integers only."""
    try:
        return number_of(numerator / denominator if denominator else numerator)
    except OverflowError:
        return None


def average(total: Any, count: int, exact: Fraction) -> Any:
    """Return an average: of the rounded sum, as is usual, and of the exact one where that overflows."""
    if total is not None:
        return number_of(float(total) / count)
    return number_of(float(exact / count))


class Extreme(Query):
    """The smallest or largest number or text, ever; kept in a list of none or one."""

    __slots__ = ()

    def observe(self, state: State, event_ms: int, seq: int, value: Any, now_ms: int) -> State:
        """Keep the value if it is further out."""
        seen = text_of(value) if self.reducer.cast == "string" else number_of(value)
        if seen is None:
            return state or []
        if state and not (seen < state[0] if self.reducer.name == "min" else seen > state[0]):
            return state
        return [seen]

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Keep the one further out."""
        if not state or not other:
            return state or other
        return [min(state[0], other[0]) if self.reducer.name == "min" else max(state[0], other[0])]

    def without(self, state: State, other: State) -> State:
        """Return the state where it is not the other's."""
        return state if state and state != other else CANNOT

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the extreme."""
        return state[0] if state else None


class Edge(Query):
    """The value of the first or last event that has one, ever."""

    __slots__ = ()

    def observe(self, state: State, event_ms: int, seq: int, value: Any, now_ms: int) -> State:
        """Keep the value if it is earlier (later)."""
        return self.merge(state or [], [] if value is None else [event_ms, seq, value], now_ms)

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Keep the earlier (later) one."""
        if not state or not other:
            return state or other
        earlier = state[:2] < other[:2]
        return state if earlier == (self.reducer.name == "first") else other

    def without(self, state: State, other: State) -> State:
        """Return the state where it is not the other's."""
        return state if state and state[:2] != other[:2] else CANNOT

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the value."""
        return state[2] if state else None


class Tally(Query):
    """How often each text was seen, ever: mode and unique."""

    __slots__ = ()

    def observe(self, state: State, event_ms: int, seq: int, value: Any, now_ms: int) -> State:
        """Count the value, each element of an array on its own."""
        state = {} if state is None else state
        for text in texts_in(value, self.reducer):
            state[text] = state.get(text, 0) + 1
        return state

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Add the tallies."""
        for text, count in other.items():
            state[text] = state.get(text, 0) + count
        return state

    def without(self, state: State, other: State) -> State:
        """Subtract the tally."""
        for text, count in other.items():
            state[text] -= count
            if not state[text]:
                del state[text]
        return state or CANNOT

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the mode, the sorted texts, or how many there are."""
        return of_tally(state or {}, self.reducer)


def texts_in(value: Any, reducer: Reducer) -> list[str]:
    """Return the texts that mode and unique count in a value: of each element of an array, or of the whole.

    Counted `as array`, an array is its JSON text, which ends with "]"; a text that begins like one gets a mark at its
    end, so that it is never taken for one.
    """
    if type(value) is list:
        if reducer.cast == "array":
            return [msgspec.json.encode(value).decode()]
        return [text for text in map(text_of, value) if text is not None]
    text = text_of(value)
    if text is None:
        return []
    return [text + NO_ARRAY] if reducer.cast == "array" and text.startswith("[") else [text]


def of_tally(tally: dict[str, int], reducer: Reducer) -> Any:
    """Return what mode or unique make of a tally. Ties of mode go to the first in code-point order."""
    if reducer.name == "unique":
        if reducer.counted:
            return len(tally)
        return sorted(tally) if tally else None
    most = max(tally.values(), default=0)
    if most < max(reducer.frequency, 1):
        return None
    text = min(text for text, count in tally.items() if count == most)
    if reducer.cast != "array" or not text.startswith("["):
        return text
    return text[: -len(NO_ARRAY)] if text.endswith(NO_ARRAY) else msgspec.json.decode(text)


class Recent(Query):
    """How many within a window, exact up to `cap`: the newest `cap` timestamps, oldest first.

    They alone decide, since the oldest of them leaves the window first.
    """

    __slots__ = ("cap",)
    clocked = True

    def __init__(self, event: Event, cap: int) -> None:
        super().__init__(event)
        self.cap = cap

    @property
    def update(self) -> str:
        """Keep the timestamp if it is among the newest."""
        lines = ["n = s.get(INDEX)", f"if ts > now - {self.before_ms}:", "    if not n: n = s[INDEX] = [ts]"]
        if self.cap == 1:
            return "\n".join([*lines, "    elif ts > n[0]: n[0] = ts"])
        kept = ["if ts >= n[-1]: n.append(ts)", "else: insort(n, ts)", f"if len(n) > {self.cap}: del n[0]"]
        return "\n".join([*lines, "    else:", *(f"        {line}" for line in kept)])

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Keep the newest of both."""
        return sorted(state + other)[-self.cap :]

    def without(self, state: State, other: State) -> State:
        """Take its timestamps out, unless older ones that were let go would have to take their place."""
        if len(state) < self.cap:
            for event_ms in other:
                place = bisect_left(state, event_ms)
                if place < len(state) and state[place] == event_ms:
                    del state[place]
            return state or None
        return state if not other or other[-1] < state[0] else CANNOT

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return how many lie in the window, at most `cap`."""
        return len(state) - bisect_right(state, now_ms - self.before_ms) if state else 0

    def due_ms(self, state: State, now_ms: int, entity: Entity) -> int | None:
        """Return when the oldest in the window leaves it."""
        if not state:
            return None
        oldest = bisect_right(state, now_ms - self.before_ms)
        return state[oldest] + self.before_ms if oldest < len(state) else None


class Records(Query):
    """Any reducer over a window or session: the events that may still count, in (timestamp, sequence) order."""

    __slots__ = ()
    clocked = True

    @property
    def update(self) -> str:
        """Append a record that only counts, where it is the newest and no old ones are looked for; else `observe`."""
        if self.reducer.name != "count":
            return ""
        is_other = f"n[-1][0] >= ts or len(n) % {PRUNE_EVERY} == {PRUNE_EVERY - 1}"
        lines = ["n = s.get(INDEX)", "if n is None: n = s[INDEX] = []"]
        lines += [f"if n and ({is_other}): OBSERVE(n, ts, seq, None, now)"]
        lines += [f"elif ts > now - {self.before_ms}: n.append([ts, seq, None])"]
        return "\n".join(lines)

    def observe(self, state: State, event_ms: int, seq: int, value: Any, now_ms: int) -> State:
        """Keep the event if it is not too old."""
        return insert_record(self, state or [], [event_ms, seq, reduced(value, self.reducer)], now_ms)

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Join the records."""
        return sorted(state + other, key=_place)

    def without(self, state: State, other: State) -> State:
        """Take its records out."""
        for record in other:
            place = bisect_left(state, record[:2])
            if place < len(state) and state[place][:2] == record[:2]:
                del state[place]
        return state or None

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the reducer's value over those that count now."""
        return self.reduce_now(state or [], now_ms)

    def reduce_now(self, records: list[Record], now_ms: int) -> Any:
        """Return the reducer's value over sorted records that count now."""
        first, last = self.span(records, now_ms)
        if self.reducer.name == "count":
            return last - first
        return reduce_values((record[2] for record in records[first:last]), self.reducer)

    def counted(self, state: State, now_ms: int, entity: Entity) -> list[Record]:
        """Return the records that count now."""
        first, last = self.span(state or [], now_ms)
        return list((state or [])[first:last])

    def span(self, records: list[Record], now_ms: int) -> tuple[int, int]:
        """Return which records count now: from the first index, before the last."""
        first = bisect_right(records, [now_ms - self.before_ms, FOREVER]) if self.before_ms != FOREVER else 0
        last = bisect_right(records, [now_ms - self.after_ms, FOREVER]) if self.after_ms else len(records)
        if self.session_ms is None or first >= last:
            return (first, max(first, last))
        return (session_start(records, first, last, self.session_ms, now_ms), last)

    def due_ms(self, state: State, now_ms: int, entity: Entity) -> int | None:
        """Return when a record next enters or leaves."""
        return self.next_edge(state, now_ms) if state else None

    def next_edge(self, records: list[Record], now_ms: int) -> int | None:
        """Return when one of the sorted records next enters or leaves."""
        edges: list[int] = []
        if self.before_ms != FOREVER:
            first = bisect_right(records, [now_ms - self.before_ms, FOREVER])
            if first < len(records):
                edges.append(records[first][0] + self.before_ms)
        last = len(records)
        if self.after_ms:
            last = bisect_right(records, [now_ms - self.after_ms, FOREVER])
            if last < len(records):
                edges.append(records[last][0] + self.after_ms)
        if self.session_ms is not None and last and records[last - 1][0] + self.session_ms > now_ms:
            edges.append(records[last - 1][0] + self.session_ms)
        return min(edges, default=None)


def session_start(records: list[Record], first: int, last: int, gap_ms: int, now_ms: int) -> int:
    """Return where the latest run of records with gaps under `gap_ms` begins; `last` if it has expired."""
    if now_ms - records[last - 1][0] >= gap_ms:
        return last
    start = last - 1
    while start > first and records[start][0] - records[start - 1][0] < gap_ms:
        start -= 1
    return start


def insert_record(query: Query, records: list[Record], record: Record, now_ms: int) -> list[Record]:
    """Insert a record in order, unless it is too old to count; drop old ones now and then."""
    horizon = now_ms - query.before_ms
    if record[0] <= horizon:
        return records
    if not records or records[-1] < record[:2]:
        records.append(record)
    else:
        records.insert(bisect_right(records, record[:2]), record)
    if len(records) % PRUNE_EVERY == 0 and records[0][0] <= horizon:
        del records[: bisect_right(records, [horizon, FOREVER])]
    return records


def _place(record: Record) -> tuple[int, int]:
    return (record[0], record[1])


def reduced(value: Any, reducer: Reducer) -> Any:
    """Return of a value what the reducer needs: a number, text, texts, or the value itself."""
    if value is None or reducer.name == "count":
        return None
    if reducer.name in {"sum", "avg"}:
        return number_of(value)
    if reducer.name in {"min", "max"}:
        return text_of(value) if reducer.cast == "string" else number_of(value)
    if reducer.name in {"mode", "unique"}:
        return texts_in(value, reducer)
    return value


def reduce_values(values: Iterable[Any], reducer: Reducer) -> Any:
    """Return the reducer's value of already `reduced` values, in order; count counts them all."""
    name = reducer.name
    if name == "count":
        return sum(1 for _ in values)
    there: Sequence[Any] = [value for value in values if value is not None]
    if name == "sum":
        return exact_sum(there)
    if name in {"mode", "unique"}:
        tally: dict[str, int] = {}
        for texts in there:
            for text in texts:
                tally[text] = tally.get(text, 0) + 1
        return of_tally(tally, reducer)
    if not there:
        return None
    if name == "avg":
        total = exact_sum(there)
        return average(total, len(there), sum(map(Fraction, there), Fraction(0)) if total is None else Fraction(0))
    if name in {"min", "max"}:
        return min(there) if name == "min" else max(there)
    return there[0] if name == "first" else there[-1]


def exact_sum(numbers: Sequence[int | float]) -> Any:
    """Return the sum, rounded once; integers stay exact. None where it overflows."""
    if all(type(number) is int for number in numbers):
        return number_of(sum(numbers))
    try:
        if all(-INT_EXACT <= number <= INT_EXACT for number in numbers if type(number) is int):
            return number_of(fsum(numbers))
    except OverflowError:
        pass  # on the way; the sum itself may not
    exact = sum(map(Fraction, numbers), Fraction(0))
    return quotient(exact.numerator, exact.denominator)


def static_query(event: Event, cap: int | None) -> Query:
    """Return the query that keeps least for an event chain; `cap`: a count beyond it need not be exact."""
    name = event.reducer.name
    if event.windows or event.expires_after_ms is not None:
        plain = all(not window.after_ms for window in event.windows) and event.expires_after_ms is None
        if name == "count" and plain and cap is not None:
            return Recent(event, cap)
        return Records(event)
    if name == "count":
        return Count(event)
    if name in {"sum", "avg"}:
        return Sum(event)
    if name in {"min", "max"}:
        return Extreme(event)
    return Edge(event) if name in {"first", "last"} else Tally(event)
