"""Many share a destination, and a destination shares its maker's limits: turns, pace, what a pause holds."""

from itertools import pairwise
from typing import Any

import pytest
from msgspec import json

import actors.delivery_lanes as lanes
from actors.delivery import Answer, HttpAsk
from actors.delivery_lanes import WINDOW_MAX, Turns
from actors.delivery_pace import METER_S, SHARE_MIN, Meter, Pace, recovered, slowed
from actors.door import accept
from eventlog.entries import Rejected
from tests.destinations.stage import HOUR_MS, MINUTE_MS, SECOND_MS, START_MS, Stage, answer, stage, track

RATE_PER_S = 100
BURST = 100
FOR_S = 60


async def crowd(it: Stage, event: str, count: int) -> None:
    """Have so many do something at once, without a chance to deliver in between."""
    now_ms = it.clock.now_ms()
    calls = []
    for number in range(count):
        raw = json.encode({"messageId": f"{event}-{number}", **track(f"{event}{number}", event)})
        call = accept(raw, kind=None, received_ms=now_ms, sent_at=None, index=0, source="src", new_id=lambda: "x")
        assert not isinstance(call, Rejected), call
        calls.append(call)
    for first in range(0, count, 1_000):
        await it.space.ingest(calls[first : first + 1_000], [], "src")
    await it.space.settle()


def told(it: Stage, key: str) -> list[int]:
    """Return when an audience's calls were taken, in ms after the start."""
    return [one.at_ms - START_MS for one in it.receiver.seen for call in one.calls if call.key == key]


async def test_at_100_a_second_the_rate_over_60_seconds_is_exact_never_above_it_and_at_least_99_percent() -> None:
    async with stage() as it:
        everyone = await it.audience("Everyone", "event('Here').count() >= 1")
        await crowd(it, "Here", RATE_PER_S * FOR_S + BURST + 500)
        crm = await it.webhook(rate=RATE_PER_S, burst=BURST)
        await it.connect(everyone, crm, step=False, sendIdentify=False)
        await it.until(FOR_S * SECOND_MS)
        times = sorted(one.at_ms - START_MS for one in it.receiver.seen)
        allowed = RATE_PER_S * FOR_S + BURST
        assert 0.99 * allowed <= len(times) <= allowed
        for first in range(0, len(times), 37):  # any stretch, not just the whole: no second has more than its due
            for last in range(first, min(first + 500, len(times))):
                assert last - first + 1 <= RATE_PER_S * (times[last] - times[first]) / 1000 + BURST
        status = it.deliveries.status(crm)
        assert status.allowed_per_s == RATE_PER_S
        assert status.achieved_per_s == pytest.approx(RATE_PER_S, rel=0.02)


async def test_an_audience_with_much_to_tell_does_not_hold_up_another_at_the_same_destination() -> None:
    async with stage() as it:
        crm = await it.webhook(rate=10, burst=1)
        for name in ("Big", "Small"):
            audience = await it.audience(name, f"event('{name}').count() >= 1")
            await it.connect(audience, crm, sendIdentify=False)
        await crowd(it, "Big", 6_000)
        await crowd(it, "Small", 5)
        await it.until(5 * SECOND_MS)
        assert len(told(it, "small")) == 5  # behind 6,000 others it would be ten minutes
        assert len(told(it, "big")) >= 40
        assert max(told(it, "small")) <= 2 * SECOND_MS


async def test_what_a_crowded_audience_owes_is_told_in_the_end_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "WINDOW_MAX", 20)
    monkeypatch.setattr(lanes, "SHARED_MAX", 50)
    async with stage() as it:
        crm = await it.webhook(rate=100, burst=1)
        for name in ("Big", "Small"):
            audience = await it.audience(name, f"event('{name}').within(1 hour).count() >= 1")
            await it.connect(audience, crm, sendIdentify=False)
        await crowd(it, "Big", 300)
        await it.restart()
        await crowd(it, "Small", 30)
        await it.until(30 * SECOND_MS)
        entered = [(call.key, call.user_id) for one in it.receiver.seen for call in one.calls]
        assert sorted(entered) == sorted(
            [("big", f"Big{n}") for n in range(300)] + [("small", f"Small{n}") for n in range(30)]
        )
        await it.until(2 * HOUR_MS)
        left = [(call.key, call.user_id) for one in it.receiver.seen for call in one.calls if call.value is False]
        assert sorted(left) == sorted(entered)


async def test_two_fills_of_one_destination_go_side_by_side() -> None:
    async with stage() as it:
        audiences = [await it.audience(name, f"event('{name}').count() >= 1") for name in ("One", "Two")]
        await crowd(it, "One", 1_000)
        await crowd(it, "Two", 1_000)
        crm = await it.webhook(rate=10, burst=1)
        for audience in audiences:
            await it.connect(audience, crm, sendIdentify=False)
        await it.until(20 * SECOND_MS)
        assert min(len(told(it, "one")), len(told(it, "two"))) >= 70


def test_connections_take_turns_and_the_lanes_of_one_go_in_order() -> None:
    turns = Turns()
    for connection, entity in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("c", 6)):
        turns.append(connection, entity)
    assert [turns.pop() for _ in range(3)] == [1, 4, 5]
    turns.put_back("a", 1)
    assert turns.pop("a") == 1
    assert [turns.pop() for _ in range(3)] == [2, 6, 3]
    assert turns.pop() is None
    assert not turns.any


# -- pace ------------------------------------------------------------------------------------------------------------


async def test_a_destination_that_allows_less_than_is_set_is_asked_at_about_what_it_allows() -> None:
    """10 a second are taken, 100 are set: without a pace nine of ten requests would be refused for ever."""
    async with stage() as it:
        taken: list[int] = []

        def tenth(_ask: HttpAsk, _calls: Any) -> Answer | None:
            now_ms = it.clock.now_ms()
            if sum(at > now_ms - 1000 for at in taken) >= 10:
                return answer(429, {"retry-after": "1"})
            taken.append(now_ms)
            return None

        it.receiver.rule = tenth
        everyone = await it.audience("Everyone", "event('Here').count() >= 1")
        await crowd(it, "Here", 1_300)
        crm = await it.webhook(rate=100)
        await it.connect(everyone, crm, sendIdentify=False)
        await it.until(MINUTE_MS)
        count = len(it.receiver.seen)
        await it.until(2 * MINUTE_MS)
        seen = it.receiver.seen[count:]
        refused = sum(one.status == 429 for one in seen)
        assert refused <= 0.15 * len(seen)
        assert len(seen) - refused >= 0.5 * 10 * 60
        assert it.deliveries.status(crm).allowed_per_s < 30
        await it.restart()
        assert it.deliveries.status(crm).allowed_per_s < 30  # remembered: a restart does not run into it again
        it.receiver.rule = None
        await it.until(HOUR_MS)
        assert it.deliveries.status(crm).allowed_per_s == 100


def test_a_pace_halves_once_for_complaints_that_come_together_and_comes_back_step_by_step() -> None:
    pace = slowed(slowed(Pace(), 10_000), 10_500)
    assert pace.share == 0.5
    assert slowed(pace, 11_000).share == 0.25
    shares = [recovered(pace, 10_000 + ms).share for ms in (9_999, 10_000, 20_000, 79_999, 80_000, 10**9)]
    assert shares == [0.5, 0.5625, 0.625, 0.9375, 1.0, 1.0]
    for step in range(20):
        pace = slowed(pace, 20_000 * (step + 1))
    assert pace.share == SHARE_MIN


def test_a_meter_tells_the_last_minute_and_forgets_what_is_older() -> None:
    meter = Meter()
    assert meter.per_s(5_000) == 0.0
    for second in range(30):
        meter.add(second * 1000, 10)
    assert meter.per_s(29_999) == pytest.approx(10, rel=0.01)
    meter.add(29_999, -100)
    assert meter.per_s(29_999) == pytest.approx(200 / 30, rel=0.01)
    assert meter.per_s((METER_S + 14) * 1000) == pytest.approx(50 / METER_S)
    assert meter.per_s(10 * METER_S * 1000) == 0.0


# -- what a pause and a dead destination hold ------------------------------------------------------------------------


async def test_a_paused_destination_holds_nothing_in_memory_and_loses_nothing() -> None:
    async with stage() as it:
        crm = await it.webhook(rate=1, burst=1)
        buyers = await it.audience("Buyers", "event('Bought').count() >= 1")
        await it.connect(buyers, crm, sendIdentify=False)
        it.receiver.script(503, 200, 200)
        await it.send(*(track(f"u{n}", "Bought") for n in range(50)))
        await it.until(2 * SECOND_MS)
        actor = it.deliveries._actors[crm]
        assert actor.lanes.size > 40
        await it.destinations.update_destination(crm, enabled=False)
        await it.step()
        assert (actor.lanes.size, actor.lanes.lanes()) == (0, [])
        before = len(it.receiver.seen)
        await it.send(track("late", "Bought"))
        await it.until(HOUR_MS)
        assert len(it.receiver.seen) == before
        await it.destinations.update_destination(crm, enabled=True)
        await it.until(2 * HOUR_MS)
        users = [user for user, _ in it.receiver.taken()]
        assert sorted(users, key=str) == sorted(["late", *(f"u{n}" for n in range(50))])


async def test_a_dead_destination_holds_a_bounded_window_of_the_log_and_tells_all_of_it_later() -> None:
    async with stage() as it:
        crm = await it.webhook(rate=10_000, burst=10_000, retryForSeconds=10**6, concurrency=16)
        buyers = await it.audience("Buyers", "event('Bought').count() >= 1")
        await it.connect(buyers, crm, sendIdentify=False)
        it.receiver.rule = lambda _ask, _calls: answer(0)
        await it.send(*(track(f"u{n}", "Bought") for n in range(WINDOW_MAX + 500)))
        await it.until(MINUTE_MS)
        status = it.deliveries.status(crm)
        assert status.circuit != "closed"
        size = it.deliveries._actors[crm].lanes.size
        assert size <= WINDOW_MAX + 100  # and what was parked before the circuit opened
        assert len(it.receiver.seen) < 50  # probes, no more
        it.receiver.rule = None
        await it.until(HOUR_MS)
        assert len(set(it.receiver.taken())) == WINDOW_MAX + 500
        assert it.deliveries.status(crm).pending == 0


async def test_lag_is_how_long_the_oldest_untold_change_has_been_in_the_log() -> None:
    async with stage() as it:
        crm = await it.webhook(rate=1, burst=1)
        buyers = await it.audience("Buyers", "event('Bought').count() >= 1")
        await it.connect(buyers, crm, sendIdentify=False)
        await it.send(*(track(f"u{n}", "Bought") for n in range(10)))
        lags = []
        for second in range(12):
            await it.until(second * SECOND_MS)
            lags.append(it.deliveries.status(crm).lag_s)
        assert lags[:9] == list(range(9))
        assert lags[-1] == 0
        assert all(after - before <= 1 for before, after in pairwise(lags))


async def test_dead_letters_are_found_by_any_text_in_them() -> None:
    async with stage() as it:
        crm = await it.webhook()
        buyers = await it.audience("Buyers", "event('Bought').count() >= 1")
        await it.connect(buyers, crm, sendIdentify=False)
        it.receiver.script(*[answer(400, body=f"bad {number}".encode()) for number in range(5)])
        await it.send(*(track(f"User{number}", "Bought") for number in range(5)))
        search = it.deliveries.search_dead_letters
        assert [one.call.user_id for one in search(crm, "uSER3").letters] == ["User3"]
        assert [one.call.user_id for one in search(crm, "bad 4").letters] == ["User4"]
        assert search(crm, "nobody").letters == ()
        first = search(crm, "entered", limit=3)
        assert first.after is not None
        rest = search(crm, "entered", after=first.after, limit=3)
        assert {one.call.user_id for one in (*first.letters, *rest.letters)} == {f"User{number}" for number in range(5)}
        assert rest.after is None
