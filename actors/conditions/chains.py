"""The chain of a funnel, compiled: its events as streams, their `where` as closures over the records kept of each.

What can be told of an event alone decides at its arrival whether it is kept (`Stream.static`). The rest is told apart
by what it costs: an equality with the parent is an index (`joins`); what looks at the nested event alone, its own
nested ones included, is remembered for it and asked again only where it may have changed (`Stream.own`); only what
compares the two is asked for each pair (`Stream.paired`). Where nothing does, a parent's nested events lie together,
and are reduced without looking at each (`spans`); where their count is held against a constant, one more or less tips
only few parents (`Stream.tips`).
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from actors.conditions.compare import CLOCKED, clocked, compare
from actors.conditions.compare import test as constant_test
from actors.conditions.joins import Join, Key, Reach
from actors.conditions.leaves import NUMERIC, cap_of, tips_of
from actors.conditions.queries import FOREVER, Entity, Record, reduce_values, reduced, session_start
from actors.conditions.spans import Lying
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

    __slots__ = ("entity", "found", "lying", "now_ms", "state")

    def __init__(self, state: "FunnelState", now_ms: int, entity: Entity) -> None:
        self.state = state
        self.now_ms = now_ms
        self.entity = entity
        self.found: dict[tuple[int, int], Any] = {}  # by stream and record
        self.lying: dict[tuple[int, Key | None], Lying] = {}


Getter = Callable[[Record, Record | None, View], Any]
Match = Callable[[Record, Record | None, View], bool]


_ALL: Final = (None,)  # where there is no join all records lie under one key


class Stream:
    """One event node of a funnel."""

    __slots__ = (
        "after_ms",
        "before_ms",
        "depth",
        "event",
        "fields",
        "in_pair",
        "index",
        "join",
        "own",
        "pair_is_plain",
        "paired",
        "parent",
        "reach",
        "settled",
        "static",
        "tips",
        "windows",
        "within_ms",
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
        self.pair_is_plain = True  # the two events alone decide `paired`
        self.in_pair = False  # asked within what is `paired`
        self.settled: bool | None = None  # what `own` says that further nested events cannot change
        self.tips: tuple[int, ...] | None = None  # the counts at which one more or less tips a parent
        of_parent = [window for window in event.windows if window.parent]
        self.windows = tuple(window for window in event.windows if not window.parent)
        self.reach = Reach(
            max((window.open_low_ms for window in of_parent), default=-1),
            min((window.before_ms for window in of_parent), default=FOREVER),
        )
        self.after_ms: int = max((window.after_ms for window in self.windows), default=0)
        self.within_ms: int = min((window.before_ms for window in self.windows), default=FOREVER)
        self.before_ms: int = min(self.within_ms, parent.before_ms if parent else FOREVER)

    def field(self, path: tuple[str, ...], context: bool) -> int:
        """Return the place of a property (or context field) in the stream's values."""
        wanted: Field = Context(path) if context else Property(path)
        if wanted not in self.fields:
            self.fields.append(wanted)
        return self.fields.index(wanted)

    def keys(self, record: Record) -> Iterable[Key | None]:
        """Return what a record is filed under for its parents."""
        return _ALL if self.join is None else self.join.own_keys(record)

    def is_remembered(self) -> bool:
        """Tell whether a nested event may pass at one time and not at another, whatever its parent."""
        return self.own is not None or bool(self.windows)

    def passes(self, record: Record, view: View) -> bool:
        """Tell whether a nested event lies in its windows, and passes what looks at it alone."""
        if self.windows and not view.now_ms - self.within_ms < record[0] <= view.now_ms - self.after_ms:
            return False
        return self.own is None or self.own(record, None, view)


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


def _is_plain(condition: Condition) -> bool:
    """Tell whether an event and its parent alone decide the condition."""
    if isinstance(condition, And | Or):
        return all(_is_plain(part) for part in condition.of)
    if isinstance(condition, Not):
        return _is_plain(condition.of)
    if not isinstance(condition, Comparison) or condition.op in CLOCKED:
        return False
    return all(isinstance(side, Property | Context | Literal) for side in (condition.left, *condition.right))


def _slope(condition: Condition) -> int | None:
    """Tell what further nested events do to a condition: 1 make it true, -1 make it false, 0 nothing, None either."""
    if isinstance(condition, Not):
        slope = _slope(condition.of)
        return None if slope is None else -slope
    if isinstance(condition, And | Or):
        slopes = set(map(_slope, condition.of)) - {0}
        return slopes.pop() if len(slopes) == 1 else None if slopes else 0
    if not isinstance(condition, Comparison):
        return 0
    if not any(isinstance(side, Event) for side in (condition.left, *condition.right)):
        return 0
    left, right = condition.left, condition.right[0] if condition.right else None
    if isinstance(left, Event) and isinstance(right, Literal) and type(right.value) in (int, float):
        if left.reducer.name == "count" or left.reducer.counted:
            return {"at_least": 1, "greater_than": 1, "less_than": -1, "at_most": -1}.get(condition.op)
    return None


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
        self._pairing: Stream | None = None  # whose `paired` is being compiled
        self._stream(event, None)

    def _stream(self, event: Event, parent: Stream | None) -> Stream:
        stream = Stream(len(self.streams), parent, event)
        stream.in_pair = parent is not None and (parent.in_pair or parent is self._pairing)
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
        slopes = set(map(_slope, own)) - {0}
        stream.settled = slopes == {1} if slopes in ({1}, {-1}) else None
        pairing, self._pairing = self._pairing, stream
        stream.paired = self._all(paired, stream)
        self._pairing = pairing
        stream.pair_is_plain = all(_is_plain(part) for part in paired)
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
        if nested.paired is None and event.expires_after_ms is None:
            nested.tips = tips_of(comparison)
            count = _plain_count(nested, cap)
            return lambda record, _parent, view: holds(count(record, view), bound)
        value = _remembered(nested, _paired_count(nested, cap) if nested.paired is not None else _reduced(nested))
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
    """Return what counts a stream's records for the record they are nested in, as far as `cap`."""
    index, join, count = stream.index, stream.join, stream.reach.count
    if join is None:
        return lambda record, view: count(view.state.passing[index][None], record, cap)

    def count_joined(record: Record, view: View) -> int:
        by_key, found = view.state.passing[index], 0
        for key in join.parent_keys(record):
            records = by_key.get(key)
            if records is not None:
                found += count(records, record, cap - found)
                if found >= cap:
                    break
        return found

    return count_joined


def _spans(stream: Stream, record: Record, view: View) -> list[tuple[Key | None, int, int]]:
    """Return where a nested stream's passing records lie that `record` reaches: under which key, from, to."""
    by_key = view.state.passing[stream.index]
    spans: list[tuple[Key | None, int, int]] = []
    for key in _ALL if stream.join is None else stream.join.parent_keys(record):
        records = by_key.get(key)
        if records is not None:
            first = stream.reach.first(records, record)
            count = stream.reach.count(records, record, len(records))
            if count:
                spans.append((key, first, first + count))
    return spans


def _lying(stream: Stream, key: Key | None, view: View) -> Lying:
    """Return the passing records under a key, with what has been worked out of them in this round."""
    place = (stream.index, key)
    found: Lying | None = view.lying.get(place)
    if found is None:
        found = view.lying[place] = Lying(view.state.passing[stream.index][key])
    return found


def children(stream: Stream, record: Record, view: View) -> list[Record]:
    """Return the nested records that count for `record`, in order."""
    by_key = view.state.passing[stream.index]
    spans = _spans(stream, record, view)
    found = [child for key, first, last in spans for child in by_key[key][first:last]]
    if len(spans) > 1:
        found.sort(key=_order)
    paired = stream.paired
    if paired is not None:
        found = [child for child in found if paired(child, record, view)]
    session_ms = stream.event.expires_after_ms
    if session_ms is not None and found:
        return found[session_start(found, 0, len(found), session_ms, view.now_ms) :]
    return found


def _paired_count(stream: Stream, cap: int) -> Getter:
    """Return what counts a nested event's records that pass together with the record it is nested in, up to `cap`."""
    paired = stream.paired
    if paired is None or stream.event.expires_after_ms is not None:
        return lambda record, _parent, view: len(children(stream, record, view))

    def count(record: Record, _parent: Record | None, view: View) -> int:
        found = 0
        for key, first, last in _spans(stream, record, view):
            records = view.state.passing[stream.index][key]
            for place in range(last - 1, first - 1, -1):  # the newest are those that were not asked before
                if paired(records[place], record, view):
                    found += 1
                    if found >= cap:
                        return found
        return found

    return count


def _reduced(stream: Stream) -> Getter:
    """Return what gives a nested event's value for the record it is nested in."""
    reducer, session_ms = stream.event.reducer, stream.event.expires_after_ms
    of_parent = reducer.of if reducer.of is not None and reducer.of.parent else None
    if of_parent is not None:
        assert stream.parent is not None
        place = stream.parent.field(of_parent.path, isinstance(of_parent, Context))
    by_span = stream.paired is None and of_parent is None
    if by_span and reducer.name == "count" and session_ms is None:
        count = _plain_count(stream, FOREVER)
        return lambda record, _parent, view: count(record, view)

    def value_of(record: Record, _parent: Record | None, view: View) -> Any:
        spans = _spans(stream, record, view) if by_span else []
        if len(spans) == 1:
            key, first, last = spans[0]
            lying = _lying(stream, key, view)
            if session_ms is not None:
                first = lying.session_start(first, last, session_ms, view.now_ms)
            return lying.reduced(reducer, first, last)
        records = children(stream, record, view)
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


def _order(record: Record) -> tuple[int, int]:
    return (record[0], record[1])
