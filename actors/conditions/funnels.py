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
from typing import Any, Final

from actors.conditions.chains import Chain, Stream, View
from actors.conditions.compare import clocked_due_ms
from actors.conditions.joins import tipped
from actors.conditions.queries import FOREVER, Entity, Query, Record, State, reduce_values, reduced, session_start
from actors.language.tree import Event, Window

PASSES: Final = 4  # index in a record
PRUNE_AT: Final = 64  # records of a stream before old ones are looked for

# Ours: how many of the newest records of a step are kept, so that no event takes longer than some ten milliseconds
# however busy its profile is. Funnels of plain counts need none.
TRAITS_MAX: Final = 10_000  # all are asked again when a trait changes
ROUND_MAX: Final = 5_000  # all are asked again with each event, or as time passes
PAIRS_MAX: Final = 2_000  # and each with each: some 0.2 s an event for who has so many


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


class Funnel(Query):
    """A question about events whose `where` looks beyond the event."""

    __slots__ = (
        "_children",
        "audiences",
        "clock_terms",
        "clocked",
        "clocked_inside",
        "records_max",
        "streams",
        "traits",
    )
    dynamic = True

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        chain = Chain(event)
        self.streams = chain.streams
        self.traits = chain.traits
        self.audiences = chain.audiences
        self.clock_terms = chain.clock_terms
        self._children = [stream for stream in self.streams if stream.depth == 1 and stream.join is not None]
        self.clocked_inside = bool(self.clock_terms) or any(
            stream.event.expires_after_ms is not None or stream.windows for stream in self.streams[1:]
        )
        self.clocked = self.clocked_inside or bool(event.windows) or event.expires_after_ms is not None
        self.records_max = self._records_max()

    def _records_max(self) -> int:
        """Return how many records of a stream are kept."""
        nested = [stream for stream in self.streams[1:] if stream.tips is None or stream.depth > 1]
        if any(stream.paired is not None or stream.event.reducer.name != "count" for stream in self.streams[1:]):
            return PAIRS_MAX
        if any(stream.event.expires_after_ms is not None for stream in nested):
            return PAIRS_MAX
        if nested or self.clocked_inside:
            return ROUND_MAX
        return TRAITS_MAX if self.traits or self.audiences else FOREVER

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
        records = state.streams[index]
        _insert(records, record)
        self._index(state, stream, record)
        if len(records) > self.records_max:
            self._drop(state, stream, 1)
            state.dirty = True
        elif len(records) % PRUNE_AT == 0 and records[len(records) // 4][0] <= horizon:
            self._drop(state, stream, bisect_left(records, [horizon + 1]))
        self._invalidate(state, stream, record)
        return state

    def _derived(self, streams: list[list[Record]]) -> FunnelState:
        state = FunnelState([records[-self.records_max :] for records in streams])
        state.joined = [{} for _ in self.streams]
        state.parents = [{} for _ in self.streams]
        for stream in self.streams:
            for record in state.streams[stream.index]:
                self._index(state, stream, record)
        return state

    def _index(self, state: FunnelState, stream: Stream, record: Record) -> None:
        if stream.join is not None:
            for key in stream.join.own_keys(record):
                _insert(state.joined[stream.index].setdefault(key, []), record)
        if stream.index == 0:
            for child in self._children:
                assert child.join is not None
                for key in child.join.parent_keys(record):
                    _insert(state.parents[child.index].setdefault(key, []), record)

    def _invalidate(self, state: FunnelState, stream: Stream, record: Record) -> None:
        """Note which outer records an event may have changed."""
        if state.dirty:
            return
        if stream.depth > 1 or len(state.pending) > len(state.streams[0]) + PRUNE_AT:
            state.dirty = True
        elif stream.depth == 0:
            state.pending.append(record)
        elif stream.join is None:
            self._tip(state, stream, state.streams[0], state.streams[stream.index], record)
        else:
            for key in stream.join.own_keys(record):
                parents = state.parents[stream.index].get(key)
                if parents is not None:
                    self._tip(state, stream, parents, state.joined[stream.index][key], record)

    @staticmethod
    def _tip(state: FunnelState, stream: Stream, parents: list[Record], records: list[Record], record: Record) -> None:
        if stream.tips is None:
            state.pending += parents[stream.reach.parents(parents, record)]
            return
        counts = stream.tips
        if counts and stream.join is not None and stream.join.parent_is_left:
            counts = tuple(range(1, max(counts) + 1))  # a parent may count records under other keys besides
        if counts:
            state.pending += tipped(stream.reach, parents, records, record, counts)

    def _drop(self, state: FunnelState, stream: Stream, count: int) -> None:
        """Drop the oldest records of a stream, which lie first under every key."""
        dropped = state.streams[stream.index][:count]
        del state.streams[stream.index][:count]
        last = [dropped[-1][0], dropped[-1][1] + 1]
        touched: list[tuple[dict[Any, list[Record]], Any]] = []
        for record in dropped:
            if stream.join is not None:
                touched += [(state.joined[stream.index], key) for key in stream.join.own_keys(record)]
            if stream.index == 0:
                for child in self._children:
                    assert child.join is not None
                    touched += [(state.parents[child.index], key) for key in child.join.parent_keys(record)]
        for by_key, key in touched:
            records = by_key.get(key)
            if records is not None:
                del records[: bisect_left(records, last)]
                if not records:
                    del by_key[key]
        if stream.index == 0:
            del state.matched[: bisect_left(state.matched, last)]
            state.dirty = state.dirty or bool(state.pending)

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
        match = self.streams[0].own
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
                edges += _window_edges(state.streams[stream.index], stream.windows, None, now_ms)
                session_ms = stream.event.expires_after_ms
                if session_ms is not None:
                    edges += _window_edges(state.streams[stream.index], (Window(0, session_ms),), None, now_ms)
            edges += self._term_edges(state, now_ms, entity)
        return min(edges, default=None)

    def reducer_windows(self) -> tuple[Window, ...]:
        """Return the windows of the outer event."""
        return self.streams[0].windows

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


def _passes(record: Record, passes: bool) -> bool:
    record[PASSES] = passes
    return passes


def _insert(records: list[Record], record: Record) -> None:
    if not records or records[-1] < record[:2]:
        records.append(record)
    else:
        records.insert(bisect_left(records, record[:2]), record)


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
        if place < len(records):
            edges.append(records[place][0] + session_ms)
    return edges
