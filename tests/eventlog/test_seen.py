"""Message ids seen within a window: exact, whatever lies in memory and whatever in the log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import seen as seen_module
from eventlog.entries import TRACK, Commit, Event
from eventlog.erasure import erase_entities
from eventlog.memory import MemoryLog
from eventlog.seen import SeenIds

WINDOW_MS = 8


def make_event(seq: int, message_id: str, received_ms: int, profile: int = 1) -> Event:
    return Event(seq, received_ms, received_ms, profile, 0, TRACK, "A", "s", message_id, b"{}")


async def take(log: MemoryLog, seen: SeenIds, message_id: str, now_ms: int) -> bool:
    """Do what a partition does with a message: ask for its batch, then for itself, append, note."""
    if not (seen.add_all([message_id], now_ms) or seen.add(message_id, now_ms)):
        return False
    event = make_event(log.last_seq + 1, message_id, now_ms)
    await log.append([Commit(event.seq, now_ms, (event,))])
    seen.note([event])
    return True


steps = st.lists(
    st.tuples(st.sampled_from([0, 1, 3, 7, 8]), st.sampled_from("abcdef"), st.sampled_from(["", "restart"])),
    max_size=40,
)


@given(steps, st.integers(0, 4))
async def test_seen_ids_agree_with_a_plain_dictionary(arrivals: list[tuple[int, str, str]], recent: int) -> None:
    """In the dict or in the tables, before and after a restart: an id is taken once in a window, and then again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen_module, "RECENT_IDS", recent)
        log = MemoryLog()
        seen = SeenIds(log, WINDOW_MS)
        first_ms: dict[str, int] = {}
        now_ms = 1000
        for wait_ms, message_id, restart in arrivals:
            now_ms += wait_ms
            if restart:
                seen = SeenIds(log, WINDOW_MS)
                seen.restore(now_ms)
            expected = message_id not in first_ms or now_ms - first_ms[message_id] >= WINDOW_MS
            assert await take(log, seen, message_id, now_ms) is expected
            if expected:
                first_ms[message_id] = now_ms


#  [m)           seen at 0: a duplicate up to window - 1 ms, new at the window
@pytest.mark.parametrize("recent", [0, 100])
async def test_an_id_is_taken_again_exactly_when_the_window_has_passed(
    monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    monkeypatch.setattr(seen_module, "RECENT_IDS", recent)
    log = MemoryLog()
    seen = SeenIds(log, 1000)
    assert await take(log, seen, "m", 5000)
    assert not await take(log, seen, "m", 5999)
    assert await take(log, seen, "m", 6000)
    assert not await take(log, seen, "m", 6999)


async def test_an_id_taken_again_outlives_its_first_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first receipt moves to the tables while the second is still in the dict."""
    monkeypatch.setattr(seen_module, "RECENT_IDS", 1)
    log = MemoryLog()
    seen = SeenIds(log, WINDOW_MS)
    assert await take(log, seen, "m", 1000)
    assert await take(log, seen, "m", 1008)
    assert await take(log, seen, "other", 1009)
    assert not await take(log, seen, "m", 1010)


async def test_ids_with_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "RECENT_IDS", 0)
    monkeypatch.setattr(seen_module, "hash", lambda _: 77, raising=False)
    log = MemoryLog()
    seen = SeenIds(log)
    for number in range(300):
        assert await take(log, seen, f"m{number}", 1000 + number)
    for number in range(300):
        assert not await take(log, seen, f"m{number}", 5000)
    seen = SeenIds(log)
    seen.restore(5000)
    assert not await take(log, seen, "m123", 5000)
    assert await take(log, seen, "new", 5000)


async def test_an_id_whose_event_was_not_stored_may_come_again() -> None:
    log = MemoryLog()
    seen = SeenIds(log)
    assert seen.add("m", 1000)
    assert not seen.add("m", 1001)
    seen.discard(["m"])
    assert seen.add("m", 1002)


async def test_what_has_left_the_window_is_dropped_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "RECENT_IDS", 100)
    log = MemoryLog()
    seen = SeenIds(log, 10_000)
    for block in range(100):
        events = tuple(make_event(log.last_seq + 1 + i, f"{block}-{i}", block * 1000) for i in range(500))
        for event in events:
            assert seen.add(event.message_id, event.received_ms)
        await log.append([Commit(log.last_seq + 1, block * 1000, events)])
        seen.note(events)
    assert len(seen) < 3 * 10 * 500  # 50,000 came, 5,000 are in the window
    assert seen.table_bytes < 64 * 8 * 1000
    for i in range(500):
        assert not seen.add(f"95-{i}", 99_000)
        assert seen.add(f"5-{i}", 99_000)


async def test_an_erased_events_id_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "RECENT_IDS", 0)
    log = MemoryLog()
    seen = SeenIds(log)
    assert await take(log, seen, "m", 1000)
    await erase_entities(log, {1})
    seen = SeenIds(log)
    seen.restore(1001)
    assert len(seen) == 0
    assert seen.add("m", 1001)
