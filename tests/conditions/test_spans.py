"""A span of records is reduced as its records would be, whatever was asked before."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.conditions.queries import Record, reduce_values, reduced, session_start
from actors.conditions.spans import Lying
from actors.language.tree import Property, Reducer

REDUCERS = [
    Reducer("count"),
    *(Reducer(name, Property(("x",))) for name in ("sum", "avg", "min", "max", "first", "last", "mode", "unique")),
    *(Reducer(name, Property(("x",)), cast="string") for name in ("min", "max")),
    Reducer("mode", Property(("x",)), cast="array", frequency=1),
    Reducer("unique", Property(("x",)), counted=True),
]
values = st.sampled_from(
    (None, 1, 2, -3, 0.1, 0.2, 2.5, 1e16, 2**53 + 1, 2**70, 1.7e308, -1.7e308, "7", "x", True, ["x", 1], [], {"k": 1})
)
cuts = st.tuples(st.integers(0, 12), st.integers(0, 12))


@pytest.mark.parametrize("reducer", REDUCERS, ids=lambda one: f"{one.name}{one.cast or ''}{one.counted}")
@given(st.lists(values, max_size=12), st.lists(cuts, min_size=1, max_size=6))
def test_any_span_is_reduced_as_its_records_are(
    reducer: Reducer, given_values: list[Any], spans: list[tuple[int, int]]
) -> None:
    records: list[Record] = [[ms, ms, reduced(value, reducer)] for ms, value in enumerate(given_values)]
    lying = Lying(records)
    for span in spans:
        first, last = sorted(min(place, len(records)) for place in span)
        found = lying.reduced(reducer, first, last)
        expected = reduce_values((record[2] for record in records[first:last]), reducer)
        assert (found, type(found)) == (expected, type(expected))


@given(st.lists(st.integers(0, 9), max_size=8).map(sorted), cuts, st.integers(1, 4), st.integers(0, 4))
def test_a_session_begins_where_its_records_say(times: list[int], span: tuple[int, int], gap: int, idle: int) -> None:
    records: list[Record] = [[ms, place, None] for place, ms in enumerate(times)]
    first, last = sorted(min(place, len(records)) for place in span)
    now_ms = max(times, default=0) + idle
    expected = session_start(records, first, last, gap, now_ms) if first < last else last
    assert Lying(records).session_start(first, last, gap, now_ms) == expected
