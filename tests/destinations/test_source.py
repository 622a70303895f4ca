"""What destinations look at in a log: every relevant entry once, in order, however it is read."""

import pytest

from actors import delivery_source
from actors.delivery_source import EffectSource, Linked
from eventlog.entries import GROUP, TRACK, Commit, Entered, Event, Ticked
from eventlog.memory import MemoryLog


def commit(first_seq: int) -> Commit:
    """Return a commit with two events, one of them a group call, and two facts, one of them an entry."""
    events = (
        Event(first_seq, 0, 0, 1, 0, TRACK, "x", "src", f"m{first_seq}", b"{}"),
        Event(first_seq + 1, 0, 0, 1, 2, GROUP, "", "src", f"g{first_seq}", b"{}"),
    )
    return Commit(first_seq, 0, events, (Ticked(0), Entered(1, 1, 0, first_seq)))


async def filled(count: int) -> tuple[MemoryLog, list[int]]:
    """Return a log of so many commits, and the relevant sequences."""
    log = MemoryLog()
    for number in range(count):
        await log.append([commit(1 + 4 * number)])
    return log, [seq for number in range(count) for seq in (2 + 4 * number, 4 + 4 * number)]


async def everything(source: EffectSource, after_seq: int = 0) -> list[int]:
    """Read to the end."""
    found: list[int] = []
    while True:
        part = await source.read(after_seq)
        found += [item.seq for item in part.items]
        if part.until_seq <= after_seq:
            return found
        after_seq = part.until_seq


@pytest.mark.parametrize("kept", [1, 3, 1000])
@pytest.mark.parametrize("slice_entries", [1, 2, 500])
async def test_every_relevant_entry_is_read_once_and_in_order(
    kept: int, slice_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_source, "KEPT_MAX", kept)
    monkeypatch.setattr(delivery_source, "SLICE_ENTRIES", slice_entries)
    log = MemoryLog()
    source = EffectSource(log)
    expected: list[int] = []
    for number in range(10):
        await log.append([commit(1 + 4 * number)])
        expected += [2 + 4 * number, 4 + 4 * number]
        for after in range(4 * number):
            assert await everything(source, after) == [seq for seq in expected if seq > after]


async def test_a_commit_that_is_offered_twice_or_late_counts_once() -> None:
    log, expected = await filled(5)
    source = EffectSource(MemoryLog())
    commits = list(log.read())
    for one in (*commits[:3], commits[1], commits[0], *commits[2:]):
        source.offer(one)
    source.following = True
    found = await source.read(0)
    assert [item.seq for item in found.items] == expected
    assert found.until_seq == 20
    assert isinstance(found.items[0].what, Linked)


async def test_a_reader_far_behind_reads_the_log_and_then_what_is_kept() -> None:
    log, expected = await filled(300)
    source = EffectSource(log)  # begins at the end
    assert await everything(source) == expected
    await log.append([commit(1201)])
    assert await everything(source, 1190) == [seq for seq in expected if seq > 1190] + [1202, 1204]
