"""The states that questions keep decide as all of history would. Times are small numbers, so that edges meet."""

from fractions import Fraction
from math import fsum, isclose
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.language.tree import Comparison, Event, Literal, Property, Reducer, Window
from tests.conditions.kept import Kept
from tests.conditions.plain import Happened, Plain

X = Property(("x",))
VALUES: tuple[Any, ...] = (
    None,
    1,
    2,
    2,
    10,
    0.5,
    -1.5,
    "2",
    " 3 ",
    "b",
    "a",
    "ab",
    "[",
    True,
    [],
    ["b", "a", 1],
    [1],
    {"k": 1},
)
REDUCERS = (
    Reducer("count"),
    Reducer("sum", X),
    Reducer("avg", X),
    Reducer("min", X),
    Reducer("max", X),
    Reducer("min", X, cast="string"),
    Reducer("max", X, cast="string"),
    Reducer("first", X),
    Reducer("last", X),
    Reducer("mode", X),
    Reducer("mode", X, frequency=1),
    Reducer("mode", X, cast="array"),
    Reducer("unique", X),
    Reducer("unique", X, counted=True),
)
WINDOWS: tuple[tuple[Window, ...], ...] = (
    (),
    (Window(0, 3),),
    (Window(2, 5),),
    (Window(0, 4), Window(1, 6)),
)
KINDS = [
    Event("track", reducer, "A", windows=windows, expires_after_ms=session)
    for reducer in REDUCERS
    for windows in WINDOWS
    for session in (None, 2)
]
kinds = st.sampled_from(KINDS)
often = settings(max_examples=6 * settings().max_examples)  # there are 112 kinds

times = st.integers(0, 8)
arrivals = st.lists(st.tuples(times, st.sampled_from(VALUES)), max_size=8)
"""Events in the order they come in: when they happened, and the property looked at."""


def happened(given_arrivals: list[tuple[int, Any]]) -> list[Happened]:
    return [
        Happened(ms, seq, "A", {} if value is None else {"x": value})
        for seq, (ms, value) in enumerate(given_arrivals, 1)
    ]


def heard(event: Event, events: list[Happened]) -> tuple[Kept, int]:
    """Return the question after these events came in as they are listed, and the time it then is."""
    kept, now_ms = Kept(event), 0
    for one in events:
        now_ms = max(now_ms, one.ms)
        kept.hear(one, now_ms)
    return kept, now_ms


@often
@given(kinds, arrivals, st.integers(0, 7))
@example(Event("track", Reducer("mode", X, cast="array"), "A"), [(0, "[")] * 2, 0)
def test_what_is_kept_answers_as_all_of_history_would_however_late_events_come(
    event: Event, given_arrivals: list[tuple[int, Any]], idle_ms: int
) -> None:
    events = happened(given_arrivals)
    kept, now_ms = Kept(event), 0
    for count, one in enumerate(events, 1):
        now_ms = max(now_ms, one.ms)
        kept.hear(one, now_ms)
        assert kept.value(now_ms) == Plain(events[:count], now_ms, {}).answer(event)
    for at_ms in range(now_ms, now_ms + idle_ms + 1):
        assert kept.value(at_ms) == Plain(events, at_ms, {}).answer(event)


@often
@given(kinds, arrivals, st.integers(0, 255), st.integers(0, 3))
def test_two_states_joined_are_the_state_of_all_their_events(
    event: Event, given_arrivals: list[tuple[int, Any]], whose: int, idle_ms: int
) -> None:
    events = happened(given_arrivals)
    now_ms = max((one.ms for one in events), default=0) + idle_ms
    one, _ = heard(event, [e for e in events if whose >> e.seq & 1])
    two, _ = heard(event, [e for e in events if not whose >> e.seq & 1])
    before = two.value(now_ms)
    one.join(two, now_ms)
    assert one.value(now_ms) == Plain(events, now_ms, {}).answer(event)
    one.hear(Happened(now_ms, 100, "A", {"x": 7}), now_ms)
    assert two.value(now_ms) == before, "a state is shared with another profile"


@often
@given(kinds, arrivals, arrivals)
def test_a_state_that_was_bytes_for_a_while_goes_on_as_if_nothing_had_been(
    event: Event, first: list[tuple[int, Any]], second: list[tuple[int, Any]]
) -> None:
    events = happened([*first, *second])
    kept, now_ms = heard(event, events[: len(first)])
    kept.thaw()
    for one in events[len(first) :]:
        now_ms = max(now_ms, one.ms)
        kept.hear(one, now_ms)
    assert kept.value(now_ms) == Plain(events, now_ms, {}).answer(event)


@often
@given(kinds, arrivals)
def test_nothing_changes_by_itself_before_it_is_due(event: Event, given_arrivals: list[tuple[int, Any]]) -> None:
    kept, now_ms = heard(event, happened(given_arrivals))
    for at_ms in range(now_ms, now_ms + 12):
        due_ms = kept.due_ms(at_ms)
        assert due_ms is None or due_ms > at_ms
        for later_ms in range(at_ms, 24 if due_ms is None else due_ms):
            assert kept.value(later_ms) == kept.value(at_ms)


# -- sums --------------------------------------------------------------------------------------------------------------

numbers = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)


def summed(values: list[int | float], *windows: Window) -> Any:
    events = [Happened(1, seq, "A", {"x": value}) for seq, value in enumerate(values, 1)]
    kept, now_ms = heard(Event("track", Reducer("sum", X), "A", windows=windows), events)
    kept.thaw()
    return kept.value(now_ms)


@given(st.lists(numbers, max_size=8), st.randoms(use_true_random=False))
@example([1e308, 1e308, -1e308], None)
@example([2**53 + 1, 0.5], None)
@example([5e-324, 1e308, -1e308], None)
@example([1e308, 1e308], None)
@example([8_007_199_254_740_994, 999_999_999_999_999.0], None)
def test_a_sum_is_exact_and_rounded_once_in_any_order_with_or_without_a_window(values: list[Any], random: Any) -> None:
    exact = sum(map(Fraction, values))
    try:
        expected: Any = float(exact)
    except OverflowError:
        expected = None
    # A double that is whole and below 10^15 is a whole number, and a sum of whole numbers is one.
    whole = all(type(value) is int or (value.is_integer() and abs(value) < 10**15) for value in values)
    if whole and -(2**63) < exact < 2**63:
        expected = int(exact)
    if random is not None:
        random.shuffle(values)
    assert summed(values) == expected
    assert summed(values, Window(0, 10)) == expected


@given(st.lists(st.floats(-1e100, 1e100), max_size=8))
def test_a_sum_of_floats_is_what_fsum_says(values: list[float]) -> None:
    assert summed(list(values)) == fsum(values)


@given(st.lists(st.integers(-(2**62), 2**62), max_size=8))
def test_a_sum_of_integers_is_an_integer(values: list[int]) -> None:
    total = sum(values)
    if -(2**63) < total < 2**63:
        assert type(summed(list(values))) is int
        assert summed(list(values)) == total


@pytest.mark.parametrize("windows", [(), (Window(0, 10),)])
def test_an_average_of_numbers_whose_sum_overflows_is_null_or_right_and_never_an_error(
    windows: tuple[Window, ...],
) -> None:
    events = [Happened(1, seq, "A", {"x": 1.5e308}) for seq in (1, 2)]
    kept, now_ms = heard(Event("track", Reducer("avg", X), "A", windows=windows), events)
    assert isclose(kept.value(now_ms), 1.5e308)


def test_an_array_counted_whole_and_a_text_spelled_like_it_are_two_things() -> None:
    event = Event("track", Reducer("mode", X, cast="array"), "A")
    kept, now_ms = heard(event, happened([(1, [1]), (2, "[1]")]))
    assert kept.value(now_ms) is None
    kept.hear(Happened(3, 3, "A", {"x": "[1]"}), 3)
    assert kept.value(3) == "[1]"
    kept.hear(Happened(4, 4, "A", {"x": [1]}), 4)
    kept.hear(Happened(5, 5, "A", {"x": [1]}), 5)
    assert kept.value(5) == [1]


# -- counts up to a constant -------------------------------------------------------------------------------------------


@given(
    st.sampled_from(("at_least", "less_than", "greater_than", "at_most", "equals", "differs")),
    st.integers(0, 4),
    st.integers(1, 6),
    st.lists(times, max_size=8),
    st.integers(0, 8),
)
def test_a_comparison_with_a_count_needs_only_the_newest_timestamps(
    op: str, bound: int, window_ms: int, given_times: list[int], idle_ms: int
) -> None:
    event = Event("track", Reducer("count"), "A", windows=(Window(0, window_ms),))
    kept = Kept(Comparison(event, op, (Literal(bound),)))
    leaf = kept.node.leaves[0]
    events = happened([(ms, None) for ms in given_times])
    now_ms = 0
    for one in events:
        now_ms = max(now_ms, one.ms)
        kept.hear(one, now_ms)
    tests = {
        "at_least": bound.__le__,
        "less_than": bound.__gt__,
        "greater_than": bound.__lt__,
        "at_most": bound.__ge__,
        "equals": bound.__eq__,
        "differs": bound.__ne__,
    }
    for at_ms in range(now_ms, now_ms + idle_ms + 1):
        assert leaf.holds(kept.user, at_ms) is tests[op](Plain(events, at_ms, {}).answer(event))
    assert len(kept.state or ()) <= bound + 1
    assert leaf.due is not None
    due_ms = leaf.due(kept.user, now_ms)
    for later_ms in range(now_ms, 24 if due_ms is None else due_ms):
        assert leaf.holds(kept.user, later_ms) is leaf.holds(kept.user, now_ms)


# -- edges -------------------------------------------------------------------------------------------------------------


def test_an_event_is_within_a_window_until_it_is_as_old_as_the_window() -> None:
    #  [A----------)      in at 9, out at 10
    kept, _ = heard(Event("track", Reducer("count"), "A", windows=(Window(0, 10),)), [Happened(0, 1, "A", {})])
    assert [kept.value(at_ms) for at_ms in (0, 9, 10)] == [1, 1, 0]
    assert kept.due_ms(0) == 10
    assert kept.due_ms(10) is None


def test_an_event_is_between_two_ages_from_the_first_until_the_second() -> None:
    #  A   [---------)    out at 3, in at 4, in at 9, out at 10
    kept, _ = heard(Event("track", Reducer("count"), "A", windows=(Window(4, 10),)), [Happened(0, 1, "A", {})])
    assert [kept.value(at_ms) for at_ms in (0, 3, 4, 9, 10)] == [0, 0, 1, 1, 0]
    assert [kept.due_ms(at_ms) for at_ms in (0, 3, 4, 10)] == [4, 4, 10, None]


def test_a_session_ends_when_its_gap_has_passed_and_a_gap_as_long_begins_another() -> None:
    #  A--A-)  A-)        gap 3: 0 and 2 are one run, 5 begins another, over at 8
    event = Event("track", Reducer("count"), "A", expires_after_ms=3)
    kept, _ = heard(event, [Happened(0, 1, "A", {}), Happened(2, 2, "A", {})])
    assert [kept.value(at_ms) for at_ms in (2, 4, 5)] == [2, 2, 0]
    assert kept.due_ms(2) == 5
    kept.hear(Happened(5, 3, "A", {}), 5)
    assert [kept.value(at_ms) for at_ms in (5, 7, 8)] == [1, 1, 0]


def test_what_can_no_longer_count_is_dropped() -> None:
    kept = Kept(Event("track", Reducer("sum", X), "A", windows=(Window(0, 10),)))
    for ms in range(1_000):
        kept.hear(Happened(ms, ms + 1, "A", {"x": 1}), ms)
        assert kept.value(ms) == min(ms + 1, 10)
    assert len(kept.state) <= 12


@pytest.mark.parametrize("event", KINDS)
def test_a_question_that_nothing_was_heard_of_has_no_events(event: Event) -> None:
    assert Kept(event).value(5) == Plain([], 5, {}).answer(event)
    assert Kept(event).due_ms(5) is None
