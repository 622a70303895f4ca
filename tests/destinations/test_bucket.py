"""The bucket against an obvious reference: count what went in every stretch of time."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from actors import bucket
from actors.bucket import TOKEN
from actors.delivery import Limits
from actors.delivery_allowance import Allowance
from actors.delivery_pace import Pace

rates = st.sampled_from([0.5, 1.0, 3.0, 7.0, 50.0, 333.0])


@given(rates, st.integers(1, 5), st.lists(st.tuples(st.integers(0, 900), st.integers(1, 3)), max_size=40))
def test_no_stretch_of_time_ever_sees_more_than_rate_times_it_plus_burst(
    rate: float, burst: int, wishes: list[tuple[int, int]]
) -> None:
    state = bucket.full(rate, burst, 0)
    now_ms = 0
    gone: list[int] = []
    for pause_ms, count in wishes:
        now_ms += pause_ms
        taken = bucket.take(state, now_ms, count)
        if taken is not None:
            state = taken
            gone += [now_ms] * count
    for first, start_ms in enumerate(gone):
        for last in range(first, len(gone)):
            assert last - first + 1 <= rate * (gone[last] - start_ms) / 1000 + burst + 1e-9


@given(rates, st.integers(2, 5), st.integers(1, 20_000))  # a burst of 1 loses what comes within the millisecond
def test_under_load_at_least_99_percent_of_the_rate_is_used(rate: float, burst: int, for_ms: int) -> None:
    state = bucket.full(rate, burst, 0)
    now_ms = sent = 0
    while now_ms <= for_ms:
        taken = bucket.take(state, now_ms)
        if taken is None:
            now_ms = bucket.due_ms(state, now_ms)
        else:
            state = taken
            sent += 1
    assert sent >= int(0.99 * (rate * for_ms / 1000 + burst))


@given(rates, st.integers(1, 5), st.integers(1, 5), st.integers(0, 3000))
def test_due_is_the_first_moment_at_which_it_may_go(rate: float, burst: int, count: int, now_ms: int) -> None:
    count = min(count, burst)
    empty = bucket.take(bucket.full(rate, burst, 0), 0, burst)
    assert empty is not None
    due = bucket.due_ms(empty, now_ms, count)
    assert bucket.take(empty, due, count) is not None
    assert due == now_ms or bucket.take(empty, due - 1, count) is None


def test_a_clock_that_steps_back_brings_nothing() -> None:
    empty = bucket.take(bucket.full(10, 1, 1000), 1000)
    assert empty is not None
    assert bucket.take(empty, 0) is None
    assert bucket.take(bucket.refill(empty, 500), 1050) is None
    assert bucket.take(empty, 1100) is not None


def test_what_is_given_back_may_go_but_never_above_the_burst() -> None:
    state = bucket.full(1, 2, 0)
    assert bucket.give_back(state, 5).level == 2 * TOKEN
    taken = bucket.take(state, 0, 2)
    assert taken is not None
    assert bucket.available(bucket.give_back(taken, 1), 0) == 1


def test_another_limit_keeps_what_was_taken() -> None:
    taken = bucket.take(bucket.full(10, 10, 0), 0, 10)
    assert taken is not None
    wider = bucket.reconfigured(taken, 100, 100, 0)
    assert bucket.available(wider, 0) == 0
    assert bucket.available(wider, 100) == 10
    assert bucket.reconfigured(taken, 10, 10, 50) is taken
    assert bucket.available(bucket.reconfigured(bucket.full(10, 10, 0), 10, 3, 0), 0) == 3


def test_levels_never_rise_without_time() -> None:
    state = bucket.full(2, 3, 0)
    levels = [state.level]
    for _ in range(3):
        state = bucket.take(state, 0) or state
        levels.append(state.level)
    assert all(after < before for before, after in pairwise(levels))


@given(st.lists(st.tuples(st.sampled_from([0] * 60 + [100, 5_000]), st.integers(1, 5)), min_size=60, max_size=90))
def test_no_window_of_a_vendor_holds_more_than_its_rate_whatever_conversations_take(
    conversations: list[tuple[int, int]],
) -> None:
    limits = Limits(
        rate_per_s=5.0,
        burst=5,
        concurrency=1,
        interval_ms=0,
        retry_first_ms=1_000,
        retry_max_ms=1_000,
        retry_for_ms=1_000,
        window_s=20.0,
    )
    allowance = Allowance()
    allowance.configure(limits, None, Pace(), 0, least=5)
    now_ms = 0
    asked: list[int] = []
    for pause_ms, asks in conversations:
        now_ms = allowance.due_ms(now_ms + pause_ms, 5)
        allowance.spend(now_ms, 5)
        allowance.give_back(5 - asks, now_ms)
        asked += [now_ms] * asks
    for first, later in zip(asked, asked[100:], strict=False):  # 100 calls in 20 seconds, and no more
        assert later - first >= 20_000
