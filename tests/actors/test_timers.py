"""Timers come in the order of their times and entities, whatever order they were set in."""

from heapq import heappop, heappush

from hypothesis import given
from hypothesis import strategies as st

from actors.timers import Timers

HOUR_MS = 3_600_000
times = st.integers(-3 * HOUR_MS, 40 * HOUR_MS) | st.integers(0, 3).map(lambda day: day * 24 * HOUR_MS)
steps = st.lists(
    st.tuples(st.just("add"), times, st.integers(1, 2**40 - 1)) | st.tuples(st.just("pop"), times, st.just(0)),
    max_size=60,
)


@given(steps)
def test_timers_come_as_from_one_sorted_list(script: list[tuple[str, int, int]]) -> None:
    timers, plain = Timers(), list[tuple[int, int]]()
    for what, at_ms, entity in script:
        if what == "add":
            timers.add(at_ms, entity)
            heappush(plain, (at_ms, entity))
        else:
            while (popped := timers.pop_due(at_ms)) is not None:
                due_ms, entities = popped
                expected = []
                while plain and plain[0][0] == due_ms:
                    expected.append(heappop(plain)[1])
                assert entities == expected
            assert not plain or plain[0][0] > at_ms
        assert timers.next_ms() == (plain[0][0] if plain else None)
        assert len(timers) == len(plain)


def test_a_question_for_the_next_time_brings_nothing_nearer() -> None:
    """Else all that is set afterwards, and is due before it, would lie in one large heap."""
    timers = Timers()
    timers.add(30 * 24 * HOUR_MS, 1)
    assert timers.next_ms() == 30 * 24 * HOUR_MS
    assert timers.pop_due(29 * 24 * HOUR_MS) is None
    timers.add(24 * HOUR_MS, 2)
    assert not timers._near
    assert timers.pop_due(24 * HOUR_MS) == (24 * HOUR_MS, [2])
