"""Funnels: events that pass or not by what came after them, by the profile's traits, or by the clock.

Every event node of the chain is a *stream*: stream 0 the outer event, the others the events nested in `where`, each
with the stream it is nested in. What can be told of an event alone decides at arrival whether it is kept (see
`program`); the rest is asked of the kept records, `match`. Answers are remembered per outer record and asked again
only where a new record, a changed trait or the clock may have changed them: a nested event reaches the outer records
before it, within `within(parent:)`, and with the same value where both are joined by `property(x) = property(parent:
y)`.

Keeps, per stream, the records that may still count (timestamp, sequence, the values looked at): all within the outer
window, or all there are where there is none. Size: those records. A record is
[event_ms, sequence, reducer's value, values looked at, passes]; the last only in memory.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from actors.conditions.compare import CLOCKED, clocked, clocked_due_ms, compare
from actors.conditions.compare import test as constant_test
from actors.conditions.leaves import cap_of
from actors.conditions.queries import FOREVER, Entity, Query, Record, State, reduce_values, reduced, session_start
from actors.conditions.values import number_of, text_of
from actors.language.tree import (
    And,
    Audience,
    Comparison,
    Condition,
    Context,
    Duration,
    Event,
    Literal,
    Not,
    Or,
    Property,
    Trait,
    Users,
    Value,
    Window,
)

PASSES: Final = 4  # index in a record
PRUNE_AT: Final = 64  # records of a stream before old ones are looked for

Field = Property | Context


class View:
    """What a match looks at: the records kept, the time, and whose they are."""

    __slots__ = ("entity", "now_ms", "state")

    def __init__(self, state: "FunnelState", now_ms: int, entity: Entity) -> None:
        self.state = state
        self.now_ms = now_ms
        self.entity = entity


Getter = Callable[[Record, Record | None, View], Any]
Match = Callable[[Record, Record | None, View], bool]


class FunnelState:
    """The records of each stream in order, with what is derived from them."""

    __slots__ = ("asked", "dirty", "joined", "matched", "parents", "pending", "streams")

    def __init__(self, streams: list[list[Record]]) -> None:
        self.streams = streams
        self.joined: list[dict[Any, list[Record]]] = []  # by stream: join key -> records
        self.parents: list[dict[Any, list[Record]]] = []  # by stream: join key -> records of stream 0
        self.matched: list[Record] = []  # records of stream 0 that pass
        self.pending: list[Record] = []  # records of stream 0 to ask again
        self.dirty = True
        self.asked: tuple[Any, ...] = ()  # the trait values that the answers rest on


class Join(Struct, frozen=True):
    """`property(own) = property(parent: theirs)`: places in the two records' values."""

    own: int
    parent: int


class Stream:
    """One event node of a funnel."""

    __slots__ = ("before_ms", "depth", "event", "fields", "index", "join", "match", "parent", "reach_ms", "static")

    def __init__(self, index: int, parent: "Stream | None", event: Event) -> None:
        self.index = index
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.event = event
        self.fields: list[Field] = []
        self.static: list[Condition] = []
        self.match: Match | None = None
        self.join: Join | None = None
        self.reach_ms = min((w.before_ms for w in event.windows if w.parent), default=FOREVER)
        own = min((w.before_ms for w in event.windows if not w.parent), default=FOREVER)
        self.before_ms: int = min(own, parent.before_ms if parent else FOREVER)

    def field(self, path: tuple[str, ...], context: bool) -> int:
        """Return the place of a property (or context field) in the stream's values."""
        wanted: Field = Context(path) if context else Property(path)
        if wanted not in self.fields:
            self.fields.append(wanted)
        return self.fields.index(wanted)


def conjuncts(condition: Condition | None) -> list[Condition]:
    """Return the parts that must all hold."""
    if condition is None:
        return []
    if isinstance(condition, And):
        return [part for item in condition.of for part in conjuncts(item)]
    return [condition]


def is_static(condition: Condition) -> bool:
    """Tell whether the event alone decides the condition."""
    if isinstance(condition, And | Or):
        return all(is_static(part) for part in condition.of)
    if isinstance(condition, Not):
        return is_static(condition.of)
    if isinstance(condition, Comparison) and condition.op not in CLOCKED:
        sides = (condition.left, *condition.right)
        return all(isinstance(s, Literal) or (isinstance(s, Property | Context) and not s.parent) for s in sides)
    return False


def is_dynamic(event: Event) -> bool:
    """Tell whether an event's passing depends on more than the event."""
    return not all(is_static(part) for part in conjuncts(event.where))


class Funnel(Query):
    """A question about events whose `where` looks beyond the event."""

    __slots__ = ("audiences", "clock_terms", "clocked", "clocked_inside", "streams", "traits")
    dynamic = True

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.streams: list[Stream] = []
        self.traits: list[tuple[str, ...]] = []
        self.audiences: list[str] = []
        self.clock_terms: list[tuple[Stream | None, Getter, str, int]] = []
        self._stream(event, None)
        self.clocked_inside = bool(self.clock_terms) or any(
            stream.event.expires_after_ms is not None or any(not w.parent for w in stream.event.windows)
            for stream in self.streams[1:]
        )
        self.clocked = self.clocked_inside or bool(event.windows) or event.expires_after_ms is not None

    # -- compiling ---------------------------------------------------------------------------------------------------

    def _stream(self, event: Event, parent: Stream | None) -> Stream:
        stream = Stream(len(self.streams), parent, event)
        self.streams.append(stream)
        dynamic: list[Condition] = []
        for part in conjuncts(event.where):
            (stream.static if is_static(part) else dynamic).append(part)
        if parent is not None:
            stream.join = next(filter(None, (self._join(part, stream, parent) for part in dynamic)), None)
        if dynamic:
            stream.match = self._condition(And(tuple(dynamic)) if len(dynamic) > 1 else dynamic[0], stream)
        return stream

    def _join(self, part: Condition, stream: Stream, parent: Stream) -> Join | None:
        if not (isinstance(part, Comparison) and part.op == "equals"):
            return None
        sides = [part.left, part.right[0]]
        if not all(isinstance(side, Property | Context) for side in sides):
            return None
        own, theirs = sorted(sides, key=lambda side: side.parent)  # type: ignore[union-attr]
        if own.parent or not theirs.parent:  # type: ignore[union-attr]
            return None
        return Join(
            stream.field(own.path, isinstance(own, Context)),  # type: ignore[union-attr]
            parent.field(theirs.path, isinstance(theirs, Context)),  # type: ignore[union-attr]
        )

    def _condition(self, condition: Condition, stream: Stream) -> Match:
        if isinstance(condition, And | Or):
            parts = [self._condition(part, stream) for part in condition.of]
            if isinstance(condition, And):
                return lambda record, parent, view: all(part(record, parent, view) for part in parts)
            return lambda record, parent, view: any(part(record, parent, view) for part in parts)
        if isinstance(condition, Not):
            inner = self._condition(condition.of, stream)
            return lambda record, parent, view: not inner(record, parent, view)
        if isinstance(condition, Audience):
            key = condition.key
            self.audiences.append(key)
            return lambda record, parent, view: view.entity.in_audience(key)
        if isinstance(condition, Users):
            raise AssertionError("quantifiers do not stand inside where")
        return self._comparison(condition, stream)

    def _comparison(self, comparison: Comparison, stream: Stream) -> Match:
        op = comparison.op
        left = self._value(comparison.left, stream, cap_of(comparison))
        if op in CLOCKED:
            span = comparison.right[0]
            assert isinstance(span, Duration)
            span_ms = span.ms
            home = stream if isinstance(comparison.left, Property | Context | Event) else None
            if isinstance(comparison.left, Property | Context) and comparison.left.parent:
                home = stream.parent
                assert home is not None
                place = home.field(comparison.left.path, isinstance(comparison.left, Context))
                self.clock_terms.append((home, lambda record, _p, _v: record[3][place], op, span_ms))
            else:
                self.clock_terms.append((home, left, op, span_ms))
            return lambda record, parent, view: clocked(op, left(record, parent, view), span_ms, view.now_ms)
        if all(isinstance(right, Literal) for right in comparison.right):
            holds = constant_test(op, tuple(right.value for right in comparison.right))  # type: ignore[union-attr]
            return lambda record, parent, view: holds(left(record, parent, view))
        rights = [self._value(right, stream) for right in comparison.right if not isinstance(right, Duration)]
        if op == "equals":
            return _equal(left, rights[0])
        return lambda record, parent, view: compare(
            op, left(record, parent, view), tuple(right(record, parent, view) for right in rights)
        )

    def _value(self, value: Value, stream: Stream, cap: int | None = None) -> Getter:
        """Return what gives a value; `cap`: of a count, what is beyond it need not be told."""
        if isinstance(value, Literal):
            constant = value.value
            return lambda record, parent, view: constant
        if isinstance(value, Trait):
            path = value.path
            self.traits.append(path)
            return lambda record, parent, view: view.entity.trait(path)
        if isinstance(value, Event):
            nested = self._stream(value, stream)
            return self._nested(nested) if cap is None else _counted(nested, cap)
        if value.parent:
            assert stream.parent is not None, "only a nested event has a parent"
            place = stream.parent.field(value.path, isinstance(value, Context))
            return lambda record, parent, view: parent[3][place]  # type: ignore[index]
        own = stream.field(value.path, isinstance(value, Context))
        return lambda record, parent, view: record[3][own]

    def _nested(self, stream: Stream) -> Getter:
        """Return what gives a nested event's value for the record it is nested in."""
        reducer = stream.event.reducer
        session_ms = stream.event.expires_after_ms
        of_parent = reducer.of if reducer.of is not None and reducer.of.parent else None
        place = -1
        if of_parent is not None:
            assert stream.parent is not None
            place = stream.parent.field(of_parent.path, isinstance(of_parent, Context))

        def value_of(record: Record, _parent: Record | None, view: View) -> Any:
            records = _candidates(stream, record, view)
            match = stream.match
            if match is not None:
                records = [child for child in records if match(child, record, view)]
            if session_ms is not None and records:
                records = records[session_start(records, 0, len(records), session_ms, view.now_ms) :]
            if reducer.name == "count":
                return len(records)
            if of_parent is not None:
                seen = reduced(record[3][place], reducer)
                return reduce_values((seen for _ in records), reducer)
            return reduce_values((child[2] for child in records), reducer)

        return value_of

    # -- state -------------------------------------------------------------------------------------------------------

    def observe_stream(
        self, state: FunnelState | None, index: int, event_ms: int, seq: int, values: tuple[Any, ...], now_ms: int
    ) -> FunnelState | None:
        """Return the state now that an event passed the filters of stream `index`; `values` are its `fields`."""
        stream = self.streams[index]
        horizon = now_ms - stream.before_ms
        if event_ms <= horizon:
            return state
        if state is None:
            state = self._derived([[] for _ in self.streams])
            state.dirty = False
        reducer = stream.event.reducer
        own = reducer.of is not None and not reducer.of.parent
        record: Record = [event_ms, seq, reduced(values[-1], reducer) if own else None, values, False]
        _insert(state.streams[index], record)
        if len(state.streams[index]) % PRUNE_AT == 0 and self._prune(state, now_ms):
            return state
        self._index(state, stream, record)
        self._invalidate(state, stream, record)
        return state

    def _derived(self, streams: list[list[Record]]) -> FunnelState:
        state = FunnelState(streams)
        state.joined = [{} for _ in self.streams]
        state.parents = [{} for _ in self.streams]
        for stream in self.streams:
            for record in streams[stream.index]:
                self._index(state, stream, record)
        return state

    def _index(self, state: FunnelState, stream: Stream, record: Record) -> None:
        if stream.join is not None:
            for key in join_keys(record[3][stream.join.own]):
                _insert(state.joined[stream.index].setdefault(key, []), record)
        if stream.index == 0:
            for child in self.streams:
                if child.join is not None and child.depth == 1:
                    for key in join_keys(record[3][child.join.parent]):
                        _insert(state.parents[child.index].setdefault(key, []), record)

    def _invalidate(self, state: FunnelState, stream: Stream, record: Record) -> None:
        if stream.depth > 1:
            state.dirty = True
        elif stream.depth == 0:
            state.pending.append(record)
        elif stream.join is None:
            state.pending.extend(_before(state.streams[0], record, stream.reach_ms))
        else:
            by_key = state.parents[stream.index]
            for key in join_keys(record[3][stream.join.own]):
                state.pending.extend(_before(by_key.get(key, []), record, stream.reach_ms))

    def _prune(self, state: FunnelState, now_ms: int) -> bool:
        dropped = False
        for stream in self.streams:
            records = state.streams[stream.index]
            if records and stream.before_ms != FOREVER and records[0][0] <= now_ms - stream.before_ms:
                del records[: bisect_right(records, [now_ms - stream.before_ms, FOREVER])]
                dropped = True
        if dropped:
            fresh = self._derived(state.streams)
            for name in FunnelState.__slots__:
                setattr(state, name, getattr(fresh, name))
        return dropped

    def observe(self, state: State, event_ms: int, seq: int, value: Any, now_ms: int) -> State:
        """Take an event of the outer stream."""
        return self.observe_stream(state, 0, event_ms, seq, value, now_ms)

    def merge(self, state: State, other: State, now_ms: int) -> State:
        """Join the records of both."""
        for mine, theirs in zip(state.streams, other.streams, strict=True):
            mine.extend([*record] for record in theirs)
            mine.sort(key=lambda record: (record[0], record[1]))
        return self._derived(state.streams)

    def dump(self, state: State) -> Any:
        """Return the records of each stream."""
        return [[record[:PASSES] for record in records] for records in state.streams]

    def load(self, data: Any) -> State:
        """Return a state of dumped records."""
        return self._derived([[[r[0], r[1], r[2], tuple(r[3]), False] for r in records] for records in data])

    # -- answers -----------------------------------------------------------------------------------------------------

    def value(self, state: State, now_ms: int, entity: Entity) -> Any:
        """Return the reducer's value over the outer records that pass now."""
        if state is None:
            return reduce_values((), self.reducer)
        self._ask(state, now_ms, entity)
        first, last = self._span(state.matched, now_ms)
        if self.reducer.name == "count":
            return last - first
        return reduce_values((record[2] for record in state.matched[first:last]), self.reducer)

    def counted(self, state: State, now_ms: int, entity: Entity) -> list[Record]:
        """Return the outer records that count now."""
        if state is None:
            return []
        self._ask(state, now_ms, entity)
        first, last = self._span(state.matched, now_ms)
        return list(state.matched[first:last])

    def _span(self, records: list[Record], now_ms: int) -> tuple[int, int]:
        first = bisect_right(records, [now_ms - self.before_ms, FOREVER]) if self.before_ms != FOREVER else 0
        last = bisect_right(records, [now_ms - self.after_ms, FOREVER]) if self.after_ms else len(records)
        if self.session_ms is None or first >= last:
            return (first, max(first, last))
        return (session_start(records, first, last, self.session_ms, now_ms), last)

    def _ask(self, state: FunnelState, now_ms: int, entity: Entity) -> None:
        if self.traits or self.audiences:
            asked = (*map(entity.trait, self.traits), *map(entity.in_audience, self.audiences))
            if repr(asked) != repr(state.asked):
                state.dirty = True
                state.asked = asked
        match = self.streams[0].match
        assert match is not None
        view = View(state, now_ms, entity)
        if state.dirty or self.clocked_inside:
            state.dirty = False
            state.matched = [record for record in state.streams[0] if _passes(record, match(record, None, view))]
        else:
            for record in state.pending:
                passes = match(record, None, view)
                if passes != record[PASSES]:
                    record[PASSES] = passes
                    if passes:
                        _insert(state.matched, record)
                    else:
                        del state.matched[bisect_left(state.matched, record[:2])]
        state.pending = []

    def due_ms(self, state: State, now_ms: int, entity: Entity) -> int | None:
        """Return when a record next enters or leaves a window, or a date comparison may change."""
        if state is None:
            return None
        if state.dirty or state.pending:  # as when it was loaded: nobody has asked yet
            self._ask(state, now_ms, entity)
        edges = _window_edges(state.matched, self.reducer_windows(), self.session_ms, now_ms)
        if self.clocked_inside:
            for stream in self.streams[1:]:
                own = tuple(window for window in stream.event.windows if not window.parent)
                edges += _window_edges(state.streams[stream.index], own, None, now_ms)
                session_ms = stream.event.expires_after_ms
                if session_ms is not None:
                    edges += _window_edges(state.streams[stream.index], (Window(0, session_ms),), None, now_ms)
            edges += self._term_edges(state, now_ms, entity)
        return min(edges, default=None)

    def reducer_windows(self) -> tuple[Window, ...]:
        """Return the windows of the outer event."""
        return tuple(window for window in self.streams[0].event.windows if not window.parent)

    def _term_edges(self, state: FunnelState, now_ms: int, entity: Entity) -> list[int]:
        view = View(state, now_ms, entity)
        edges: list[int] = []
        for home, left, op, span_ms in self.clock_terms:
            records = [[0, 0, None, (), False]] if home is None else state.streams[home.index]
            for record in records:
                edge = clocked_due_ms(op, left(record, None, view), span_ms, now_ms)
                if edge is not None:
                    edges.append(edge)
        return edges


def _equal(left: Getter, right: Getter) -> Match:
    """Return `left = right`; two texts, as ids are, need no more than a look."""

    def equal(record: Record, parent: Record | None, view: View) -> bool:
        one, other = left(record, parent, view), right(record, parent, view)
        if type(one) is str and type(other) is str:
            return one == other
        return compare("equals", one, (other,))

    return equal


def _counted(stream: Stream, cap: int) -> Getter:
    """Return what counts a nested event's records for the record it is nested in, as far as `cap`."""
    match, session_ms = stream.match, stream.event.expires_after_ms

    def count(record: Record, _parent: Record | None, view: View) -> int:
        records = _candidates(stream, record, view)
        if session_ms is not None:
            if match is not None:
                records = [child for child in records if match(child, record, view)]
            if not records:
                return 0
            return len(records) - session_start(records, 0, len(records), session_ms, view.now_ms)
        if match is None:
            return len(records)
        found = 0
        for child in records:
            if match(child, record, view):
                found += 1
                if found >= cap:
                    break
        return found

    return count


def _passes(record: Record, passes: bool) -> bool:
    record[PASSES] = passes
    return passes


def _insert(records: list[Record], record: Record) -> None:
    if not records or records[-1] < record[:2]:
        records.append(record)
    else:
        records.insert(bisect_left(records, record[:2]), record)


def _before(records: list[Record], record: Record, reach_ms: int) -> list[Record]:
    """Return the records that come before one, at most `reach_ms` earlier."""
    last = bisect_left(records, record[:2])
    first = bisect_left(records, [record[0] - reach_ms, 0]) if reach_ms != FOREVER else 0
    return records[first:last]


def _candidates(stream: Stream, record: Record, view: View) -> list[Record]:
    """Return the records of a nested stream after `record`, within its windows, joined where there is a join."""
    records: list[Record]
    if stream.join is None:
        records = view.state.streams[stream.index]
    else:
        by_key = view.state.joined[stream.index]
        keys = join_keys(record[3][stream.join.parent])
        if not keys:
            return []
        # An array may meet several keys; then all are asked.
        records = by_key.get(keys[0], []) if len(keys) == 1 else view.state.streams[stream.index]
    first = bisect_left(records, [record[0], record[1] + 1])
    last = len(records)
    for window in stream.event.windows:
        if window.parent:
            if window.after_ms:
                first = max(first, bisect_right(records, [record[0] + window.after_ms, FOREVER]))
            last = min(last, bisect_right(records, [record[0] + window.before_ms, FOREVER]))
        else:
            first = max(first, bisect_right(records, [view.now_ms - window.before_ms, FOREVER]))
            last = min(last, bisect_right(records, [view.now_ms - window.after_ms, FOREVER]))
    return records[first:last]


def _window_edges(records: list[Record], windows: tuple[Window, ...], session_ms: int | None, now_ms: int) -> list[int]:
    """Return when a record next enters or leaves one of the windows, or the session of the last one ends."""
    edges: list[int] = []
    for window in windows:
        for span_ms in (window.after_ms, window.before_ms):
            place = bisect_right(records, [now_ms - span_ms, FOREVER])
            if span_ms and place < len(records):
                edges.append(records[place][0] + span_ms)
    if session_ms is not None:
        place = bisect_right(records, [now_ms - session_ms, FOREVER])
        edges += [record[0] + session_ms for record in records[place:]]
    return edges


def join_keys(value: Any) -> list[Any]:
    """Return keys such that equal values share one: what equals compares as, for each element of an array."""
    if type(value) is list:
        return list({key: None for item in value if type(item) is not list for key in join_keys(item)})
    number = number_of(value)
    if number is not None:
        return [float(number) if abs(number) < 1e308 else str(number)]
    text = text_of(value)
    return [] if text is None else [text]
