"""The chain of a funnel, compiled: its events as streams, their `where` as closures over the records kept of each.

What can be told of an event alone decides at its arrival whether it is kept (`Stream.static`). The rest is told apart
by what it costs: an equality with the parent is an index (`joins`); what looks at the nested event alone, its own
nested ones included, is asked once a round for all parents (`Stream.own`); only what compares the two is asked for each
pair (`Stream.paired`). A count against a constant, with nothing but windows from its parent and an equality, is
*plain*: a new event tips only few parents (`Stream.tips`).
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from actors.conditions.compare import CLOCKED, clocked, compare
from actors.conditions.compare import test as constant_test
from actors.conditions.joins import Join, Reach
from actors.conditions.leaves import NUMERIC, cap_of, tips_of
from actors.conditions.queries import FOREVER, Entity, Record, reduce_values, reduced, session_start
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
)

if TYPE_CHECKING:
    from actors.conditions.funnels import FunnelState

Field = Property | Context


class View:
    """What a round of asking looks at: the records kept, the time, whose they are; and what it has found already."""

    __slots__ = ("entity", "found", "now_ms", "state")

    def __init__(self, state: "FunnelState", now_ms: int, entity: Entity) -> None:
        self.state = state
        self.now_ms = now_ms
        self.entity = entity
        self.found: dict[tuple[int, Any], Any] = {}


Getter = Callable[[Record, Record | None, View], Any]
Match = Callable[[Record, Record | None, View], bool]


class Stream:
    """One event node of a funnel."""

    __slots__ = (
        "before_ms",
        "depth",
        "event",
        "fields",
        "index",
        "join",
        "own",
        "paired",
        "parent",
        "reach",
        "static",
        "tips",
        "windows",
    )

    def __init__(self, index: int, parent: "Stream | None", event: Event) -> None:
        self.index = index
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.event = event
        self.fields: list[Field] = []
        self.static: list[Condition] = []
        self.join: Join | None = None
        self.own: Match | None = None
        self.paired: Match | None = None
        self.tips: tuple[int, ...] | None = None  # plain: the counts at which a new event tips a parent
        of_parent = [window for window in event.windows if window.parent]
        self.windows = tuple(window for window in event.windows if not window.parent)
        self.reach = Reach(
            max((window.after_ms for window in of_parent), default=0),
            min((window.before_ms for window in of_parent), default=FOREVER),
        )
        own = min((window.before_ms for window in self.windows), default=FOREVER)
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


def _sees_parent(condition: Condition) -> bool:
    """Tell whether a condition looks at the parent of the event that it is asked of."""
    if isinstance(condition, And | Or):
        return any(_sees_parent(part) for part in condition.of)
    if isinstance(condition, Not):
        return _sees_parent(condition.of)
    if not isinstance(condition, Comparison):
        return False
    return any(isinstance(s, Property | Context) and s.parent for s in (condition.left, *condition.right))


class Chain:
    """The streams of an event and of all events nested in it, and what else their conditions look at."""

    def __init__(self, event: Event) -> None:
        self.streams: list[Stream] = []
        self.traits: list[tuple[str, ...]] = []
        self.audiences: list[str] = []
        self.clock_terms: list[tuple[Stream | None, Getter, str, int]] = []
        self._stream(event, None)

    def _stream(self, event: Event, parent: Stream | None) -> Stream:
        stream = Stream(len(self.streams), parent, event)
        self.streams.append(stream)
        own: list[Condition] = []
        paired: list[Condition] = []
        for part in conjuncts(event.where):
            if is_static(part):
                stream.static.append(part)
            elif parent is not None and stream.join is None and (join := _join(part, stream, parent)) is not None:
                stream.join = join
            else:
                (paired if _sees_parent(part) else own).append(part)
        stream.own = self._all(own, stream)
        stream.paired = self._all(paired, stream)
        return stream

    def _all(self, parts: list[Condition], stream: Stream) -> Match | None:
        if not parts:
            return None
        return self._condition(And(tuple(parts)) if len(parts) > 1 else parts[0], stream)

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
        cap = cap_of(comparison)
        if op in CLOCKED:
            return self._clocked(comparison, stream)
        if cap is not None and isinstance(comparison.left, Event):
            return self._counted(comparison, comparison.left, stream, cap)
        left = self._value(comparison.left, stream)
        if all(isinstance(right, Literal) for right in comparison.right):
            holds = constant_test(op, tuple(right.value for right in comparison.right))  # type: ignore[union-attr]
            return lambda record, parent, view: holds(left(record, parent, view))
        rights = [self._value(right, stream) for right in comparison.right if not isinstance(right, Duration)]
        return lambda record, parent, view: compare(
            op, left(record, parent, view), tuple(right(record, parent, view) for right in rights)
        )

    def _clocked(self, comparison: Comparison, stream: Stream) -> Match:
        op, span = comparison.op, comparison.right[0]
        left = self._value(comparison.left, stream)
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

    def _counted(self, comparison: Comparison, event: Event, stream: Stream, cap: int) -> Match:
        """Return what holds a nested event's count against a constant; beyond `cap` it need not be told."""
        holds, right = NUMERIC[comparison.op], comparison.right[0]
        assert isinstance(right, Literal)
        bound: Any = right.value
        nested = self._stream(event, stream)
        is_plain = nested.own is None and nested.paired is None and event.expires_after_ms is None
        if is_plain and not nested.windows:
            nested.tips = tips_of(comparison)
            count = _plain_count(nested, cap)
            return lambda record, _parent, view: holds(count(record, view), bound)
        value = _remembered(nested, _count(nested, cap))
        return lambda record, parent, view: holds(value(record, parent, view), bound)

    def _value(self, value: Value | Duration, stream: Stream) -> Getter:
        """Return what gives a value."""
        if isinstance(value, Literal):
            constant = value.value
            return lambda record, parent, view: constant
        if isinstance(value, Trait):
            path = value.path
            self.traits.append(path)
            return lambda record, parent, view: view.entity.trait(path)
        if isinstance(value, Event):
            return _remembered(nested := self._stream(value, stream), _reduced(nested))
        assert isinstance(value, Property | Context)
        if value.parent:
            assert stream.parent is not None, "only a nested event has a parent"
            place = stream.parent.field(value.path, isinstance(value, Context))
            return lambda record, parent, view: parent[3][place]  # type: ignore[index]
        own = stream.field(value.path, isinstance(value, Context))
        return lambda record, parent, view: record[3][own]


def _join(part: Condition, stream: Stream, parent: Stream) -> Join | None:
    """Return a condition as a join, if it is an equality of a property with one of the parent's."""
    if not (isinstance(part, Comparison) and part.op == "equals"):
        return None
    left, right = part.left, part.right[0]
    if not (isinstance(left, Property | Context) and isinstance(right, Property | Context)):
        return None
    if left.parent == right.parent:
        return None
    own, theirs = (right, left) if left.parent else (left, right)
    return Join(
        stream.field(own.path, isinstance(own, Context)),
        parent.field(theirs.path, isinstance(theirs, Context)),
        parent_is_left=left.parent,
    )


def _plain_count(stream: Stream, cap: int) -> Callable[[Record, View], int]:
    """Return what counts a plain stream's records for the record they are nested in, as far as `cap`."""
    index, join, count = stream.index, stream.join, stream.reach.count
    if join is None:
        return lambda record, view: count(view.state.streams[index], record, cap)

    def count_joined(record: Record, view: View) -> int:
        by_key, found = view.state.joined[index], 0
        for key in join.parent_keys(record):
            records = by_key.get(key)
            if records is not None:
                found += count(records, record, cap - found)
                if found >= cap:
                    break
        return found

    return count_joined


def _spans(stream: Stream, record: Record, view: View) -> list[tuple[list[Record], int, int]]:
    """Return where a nested stream's records after `record` lie that pass on their own, by index: list, from, to."""
    spans = []
    keys: Any = (None,) if stream.join is None else stream.join.parent_keys(record)
    for key in keys:
        records = _passing(stream, key, view)
        if not records:
            continue
        first = stream.reach.first(records, record)
        last = first + stream.reach.count(records, record, len(records))
        for window in stream.windows:
            first = max(first, _after(records, view.now_ms - window.before_ms))
            last = min(last, _after(records, view.now_ms - window.after_ms))
        if first < last:
            spans.append((records, first, last))
    return spans


def _passing(stream: Stream, key: Any, view: View) -> list[Record]:
    """Return the records under a join key that pass what looks at them alone."""
    state = view.state
    records = state.streams[stream.index] if stream.join is None else state.joined[stream.index].get(key, [])
    own = stream.own
    if own is None:
        return records
    place = (stream.index, key)
    found: list[Record] | None = view.found.get(place)
    if found is None:
        found = view.found[place] = [record for record in records if own(record, None, view)]
    return found


def _children(stream: Stream, record: Record, view: View) -> list[Record]:
    """Return the nested records that count for `record`, in order."""
    spans = _spans(stream, record, view)
    if len(spans) == 1:
        records, first, last = spans[0]
        found = records[first:last]
    else:
        found = sorted((r for records, first, last in spans for r in records[first:last]), key=_order)
    paired = stream.paired
    if paired is not None:
        found = [child for child in found if paired(child, record, view)]
    session_ms = stream.event.expires_after_ms
    if session_ms is not None and found:
        return found[session_start(found, 0, len(found), session_ms, view.now_ms) :]
    return found


def _count(stream: Stream, cap: int) -> Getter:
    """Return what counts a nested event's records for the record it is nested in, as far as `cap`."""
    paired = stream.paired
    if stream.event.expires_after_ms is not None:
        return lambda record, _parent, view: len(_children(stream, record, view))
    if paired is None:
        return lambda record, _parent, view: sum(last - first for _, first, last in _spans(stream, record, view))

    def count(record: Record, _parent: Record | None, view: View) -> int:
        found = 0
        for records, first, last in _spans(stream, record, view):
            for place in range(first, last):
                if paired(records[place], record, view):
                    found += 1
                    if found >= cap:
                        return found
        return found

    return count


def _reduced(stream: Stream) -> Getter:
    """Return what gives a nested event's value for the record it is nested in."""
    reducer = stream.event.reducer
    of_parent = reducer.of if reducer.of is not None and reducer.of.parent else None
    if of_parent is not None:
        assert stream.parent is not None
        place = stream.parent.field(of_parent.path, isinstance(of_parent, Context))

    def value_of(record: Record, _parent: Record | None, view: View) -> Any:
        records = _children(stream, record, view)
        if of_parent is not None:
            seen = reduced(record[3][place], reducer)
            return reduce_values((seen for _ in records), reducer)
        return reduce_values((child[2] for child in records), reducer)

    return value_of


def _remembered(stream: Stream, value: Getter) -> Getter:
    """Return the same getter; of a stream further in it is asked once a round for each record it is nested in."""
    if stream.depth < MEMORY_DEPTH:
        return value
    index = stream.index

    def remembered(record: Record, parent: Record | None, view: View) -> Any:
        place = (index, id(record))
        if place not in view.found:
            view.found[place] = value(record, parent, view)
        return view.found[place]

    return remembered


MEMORY_DEPTH: Final = 2  # a record of the outer stream is asked once a round anyhow


def _after(records: list[Record], ms: int) -> int:
    return bisect_left(records, [ms + 1])


def _order(record: Record) -> tuple[int, int]:
    return (record[0], record[1])
