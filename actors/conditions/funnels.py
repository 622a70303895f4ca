"""Funnels: events that pass or not by what came after them, by the profile's traits, or by the clock.

Every event node of the chain is a *stream*: stream 0 the outer event, the others the events nested in `where`, each
with the stream it is nested in. What can be told of an event alone decides at arrival whether it is kept (see
`program`); the rest is asked of the kept records. Answers are remembered for every record and asked again, the
innermost first, only where they may have changed: a nested event that comes, that begins or ceases to pass, or that
crosses an edge of its windows, reaches the records before it, within `within(parent:)`, and with the same value where
both are joined by `property(x) = property(parent: y)`.

Keeps, per stream, the records that may still count (timestamp, sequence, the values looked at): all within the outer
window, or all there are where there is none. Size: those records. A record is
[event_ms, sequence, reducer's value, values looked at, passes]; the last only in memory.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, Final

from actors.conditions.chains import Chain, Stream, View, children
from actors.conditions.compare import clocked_due_ms
from actors.conditions.joins import tipped
from actors.conditions.queries import FOREVER, Entity, Query, Record, State, reduce_values, reduced, session_start
from actors.language.tree import Event, Window

PASSES: Final = 4  # index in a record; None: the record was dropped
PRUNE_AT: Final = 64  # records of a stream before old ones are looked for

# Ours: how many of the newest records of a step are kept, so that no event takes longer than some tens of milliseconds
# however busy its profile is. Funnels of counts against constants need none.
TRAITS_MAX: Final = 10_000  # all are asked again when a trait changes
ROUND_MAX: Final = 5_000  # all are asked again with each event, or as time passes
PAIRS_MAX: Final = 2_000  # and each with each


class FunnelState:
    """The records of each stream in order, with what is derived from them."""

    __slots__ = ("asked", "asked_ms", "dirty", "matched", "parents", "passing", "pending", "streams")

    def __init__(self, streams: list[list[Record]]) -> None:
        self.streams = streams
        self.passing: list[dict[Any, list[Record]]] = []  # by stream: join key -> records that pass, parents aside
        self.parents: list[dict[Any, list[Record]]] = []  # by stream with a join: key -> records it may be nested in
        self.matched: list[Record] = []  # records of stream 0 that pass
        self.pending: list[list[Record]] = []  # by stream: records to ask again
        self.dirty = True  # all are to be asked again
        self.asked: tuple[Any, ...] = ()  # the trait values that the answers rest on
        self.asked_ms = 0  # and the time


class Funnel(Query):
    """A question about events whose `where` looks beyond the event."""

    __slots__ = (
        "_joined",
        "audiences",
        "clock_terms",
        "clocked",
        "clocked_inside",
        "records_max",
        "restless",
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
        self._joined = [  # by stream: those nested in it that are joined with it
            [inner for inner in self.streams if inner.parent is stream and inner.join is not None]
            for stream in self.streams
        ]
        nested = self.streams[1:]
        self.restless = bool(self.clock_terms) or any(inner.event.expires_after_ms is not None for inner in nested)
        self.clocked_inside = self.restless or any(inner.windows for inner in nested)
        self.clocked = self.clocked_inside or bool(event.windows) or event.expires_after_ms is not None
        self.records_max = self._records_max()

    def _records_max(self) -> int:
        """Return how many records of a stream are kept."""
        nested = self.streams[1:]
        if any(stream.tips is None for stream in nested):
            return PAIRS_MAX
        if self.clocked_inside or any(stream.own is not None and not stream.settled for stream in nested):
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
        for inner in self._joined[index]:
            assert inner.join is not None
            for key in inner.join.parent_keys(record):
                _insert(state.parents[inner.index].setdefault(key, []), record)
        if index == 0 or stream.is_remembered():
            self._ask_again(state, index, (record,))
        else:
            self._file(state, stream, record)
            self._tip(state, stream, record, comes=True)
        if len(records) > self.records_max:
            self._drop(state, stream, 1)
        elif len(records) % PRUNE_AT == 0 and records[len(records) // 4][0] <= horizon:
            self._drop(state, stream, bisect_left(records, [horizon + 1]))
        return state

    def _derived(self, streams: list[list[Record]]) -> FunnelState:
        """Return a state of these records, in which nothing was asked yet."""
        state = FunnelState([records[-self.records_max :] for records in streams])
        state.passing = [{} for _ in self.streams]
        state.parents = [{} for _ in self.streams]
        state.pending = [[] for _ in self.streams]
        for stream in self.streams:
            if stream.join is None:
                state.passing[stream.index][None] = [] if stream.is_remembered() else state.streams[stream.index]
            for record in state.streams[stream.index]:
                record[PASSES] = False
                if stream.index and stream.join is not None and not stream.is_remembered():
                    self._file(state, stream, record)
                for inner in self._joined[stream.index]:
                    assert inner.join is not None
                    for key in inner.join.parent_keys(record):
                        _insert(state.parents[inner.index].setdefault(key, []), record)
        return state

    def _file(self, state: FunnelState, stream: Stream, record: Record) -> None:
        """File a nested record that passes for its parents. Where nothing is asked of it, its stream is the file."""
        by_key = state.passing[stream.index]
        if stream.join is not None or stream.is_remembered():
            for key in stream.keys(record):
                _insert(by_key.setdefault(key, []), record)

    def _unfile(self, state: FunnelState, stream: Stream, record: Record) -> None:
        """Take a record out of what its parents count."""
        by_key = state.passing[stream.index]
        for key in stream.keys(record):
            records = by_key[key]
            del records[bisect_left(records, record[:2])]
            if not records and key is not None:
                del by_key[key]

    def _ask_again(self, state: FunnelState, index: int, records: Sequence[Record]) -> None:
        """Note records whose passing may have changed."""
        pending = state.pending[index]
        if len(pending) > len(state.streams[index]) + PRUNE_AT:
            state.dirty = True
        if not state.dirty:
            pending.extend(records)

    def _tip(self, state: FunnelState, stream: Stream, record: Record, *, comes: bool) -> None:
        """Note which parents' passing may change with a nested record that has come, or is about to go."""
        if state.dirty or stream.parent is None:
            return
        if stream.in_pair:
            state.dirty = True
            return
        above = stream.parent.index
        for key in stream.keys(record):
            if stream.join is None:
                parents: list[Record] | None = state.streams[above]
            else:
                parents = state.parents[stream.index].get(key)
            if parents:
                found = self._tipped(state, stream, parents, key, record, stream.parent.settled if comes else None)
                self._ask_again(state, above, found)

    @staticmethod
    def _tipped(
        state: FunnelState, stream: Stream, parents: list[Record], key: Any, record: Record, settled: bool | None
    ) -> list[Record]:
        counts = stream.tips
        if counts is None:
            reached = parents[stream.reach.parents(parents, record)]
            if settled is not None:
                reached = [parent for parent in reached if parent[PASSES] is not settled]
            paired = stream.paired
            if paired is None or not stream.pair_is_plain:
                return reached
            nothing = View(state, 0, _NOBODY)
            return [parent for parent in reached if paired(record, parent, nothing)]
        if counts and stream.join is not None and stream.join.parent_is_left:
            counts = tuple(range(1, max(counts) + 1))  # a parent may count records under other keys besides
        if not counts:
            return []
        return tipped(stream.reach, parents, state.passing[stream.index][key], record, counts)

    def _drop(self, state: FunnelState, stream: Stream, count: int) -> None:
        """Drop the oldest records of a stream, which lie first under every key.

        Those too old to count have parents that are too old, too. One that is dropped because there are too many may
        have been counted, and so may one whose own window has closed since it was asked.
        """
        records = state.streams[stream.index]
        dropped = records[:count]
        last = [dropped[-1][0], dropped[-1][1] + 1]
        if stream.index and stream.windows and any(record[PASSES] for record in dropped):
            state.dirty = True
        elif count == 1 and stream.index and (dropped[0][PASSES] or not stream.is_remembered()):
            self._tip(state, stream, dropped[0], comes=False)
        touched: list[tuple[dict[Any, list[Record]], Any]] = []
        for record in dropped:
            if stream.index and (stream.join is not None or stream.is_remembered()):
                touched += [(state.passing[stream.index], key) for key in stream.keys(record)]
            for inner in self._joined[stream.index]:
                assert inner.join is not None
                touched += [(state.parents[inner.index], key) for key in inner.join.parent_keys(record)]
            record[PASSES] = None
        del records[:count]
        for by_key, key in touched:
            filed = by_key.get(key)
            if filed is not None:
                del filed[: bisect_left(filed, last)]
                if not filed and key is not None:
                    del by_key[key]
        if stream.index == 0:
            del state.matched[: bisect_left(state.matched, last)]

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

    def nested(self, state: State, record: Record, now_ms: int, entity: Entity) -> list[Record]:
        """Return the nested records that count for an outer one, and those that count for them, in order."""
        view = View(state, now_ms, entity)
        found: dict[int, Record] = {}
        around = [(self.streams[0], record)]
        for stream, one in around:
            for inner in (inner for inner in self.streams if inner.parent is stream):
                for child in children(inner, one, view):
                    found.setdefault(child[1], child)
                    around.append((inner, child))
        return sorted(found.values(), key=lambda child: (child[0], child[1]))

    def _span(self, records: list[Record], now_ms: int) -> tuple[int, int]:
        first = bisect_right(records, [now_ms - self.before_ms, FOREVER]) if self.before_ms != FOREVER else 0
        last = bisect_right(records, [now_ms - self.after_ms, FOREVER]) if self.after_ms else len(records)
        if self.session_ms is None or first >= last:
            return (first, max(first, last))
        return (session_start(records, first, last, self.session_ms, now_ms), last)

    def _ask(self, state: FunnelState, now_ms: int, entity: Entity) -> None:
        """Ask again of every record that may pass now and did not before, or the other way round."""
        if self.traits or self.audiences:
            asked = (*map(entity.trait, self.traits), *map(entity.in_audience, self.audiences))
            if repr(asked) != repr(state.asked):
                state.dirty = True
                state.asked = asked
        view = View(state, now_ms, entity)
        if not (state.dirty or self.restless or now_ms < state.asked_ms):
            self._cross_edges(state, now_ms)
            for stream in reversed(self.streams):  # the innermost first
                self._ask_pending(state, stream, view)
        if state.dirty or self.restless or now_ms < state.asked_ms:
            self._ask_all(state, view)
        state.asked_ms = now_ms

    def _cross_edges(self, state: FunnelState, now_ms: int) -> None:
        """Ask again of nested records that have entered or left a window since they were asked."""
        for stream in self.streams[1:]:
            records = state.streams[stream.index]
            for window in stream.windows:
                for span_ms in (window.after_ms, window.before_ms):
                    first = bisect_right(records, [state.asked_ms - span_ms, FOREVER])
                    last = bisect_right(records, [now_ms - span_ms, FOREVER])
                    if first < last:
                        self._ask_again(state, stream.index, records[first:last])

    def _ask_pending(self, state: FunnelState, stream: Stream, view: View) -> None:
        pending = state.pending[stream.index]
        if not pending or state.dirty:
            return
        state.pending[stream.index] = []
        for record in pending:
            if record[PASSES] is None:
                continue  # dropped since
            passes = stream.passes(record, view) if stream.index else self._matches(record, view)
            if passes == record[PASSES]:
                continue
            record[PASSES] = passes
            if stream.index == 0:
                if passes:
                    _insert(state.matched, record)
                else:
                    del state.matched[bisect_left(state.matched, record[:2])]
            elif passes:
                self._file(state, stream, record)
                self._tip(state, stream, record, comes=True)
            else:
                self._tip(state, stream, record, comes=False)
                self._unfile(state, stream, record)

    def _matches(self, record: Record, view: View) -> bool:
        own = self.streams[0].own
        assert own is not None
        return own(record, None, view)

    def _ask_all(self, state: FunnelState, view: View) -> None:
        for stream in reversed(self.streams):
            records = state.streams[stream.index]
            state.pending[stream.index] = []
            if stream.index == 0:
                state.matched = [record for record in records if _passes(record, self._matches(record, view))]
            elif stream.is_remembered():
                by_key: dict[Any, list[Record]] = {} if stream.join is not None else {None: []}
                for record in records:
                    if _passes(record, stream.passes(record, view)):
                        for key in stream.keys(record):
                            by_key.setdefault(key, []).append(record)
                state.passing[stream.index] = by_key
        state.dirty = False

    def due_ms(self, state: State, now_ms: int, entity: Entity) -> int | None:
        """Return when a record next enters or leaves a window, or a date comparison may change."""
        if state is None:
            return None
        if state.dirty or any(state.pending):  # as when it was loaded: nobody has asked yet
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


class _Nobody:
    """Whom conditions are asked for that look at events alone."""

    def trait(self, path: tuple[str, ...]) -> Any:
        """Return nothing."""

    def in_audience(self, key: str) -> bool:
        """Return false."""
        return False


_NOBODY: Final = _Nobody()


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
