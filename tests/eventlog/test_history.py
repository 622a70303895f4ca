"""The history index: what is in its runs and what is in memory make one answer."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import history as history_module
from eventlog.entries import Event
from eventlog.history import HISTORY_PROJECTION, ProfileHistory
from eventlog.log import HISTORY, Changes
from eventlog.memory import MemoryLog
from tests.eventlog.worlds import commit

STEPS = ["write", "begin a write", "end it", "merge", "restart", "forget 2"]

actions = st.lists(
    st.one_of(
        st.integers(1, 6),  # so many events are appended
        st.sampled_from(STEPS),
    ),
    max_size=40,
)


@pytest.fixture(autouse=True, scope="module")
def _small_runs() -> Iterator[None]:
    """Let a few events fill chunks and runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_module, "CHUNK_ROWS", 3)
        patch.setattr(history_module, "RUNS_MERGED", 2)
        patch.setattr(history_module, "PAGE_CHUNKS", 2)
        yield


@given(actions)
async def test_the_history_agrees_with_all_of_the_log(script: list[int | str]) -> None:
    """Whatever was written behind, merged, forgotten, is being written, or was lost with the process and replayed."""
    log = MemoryLog()
    history = ProfileHistory(log)
    events: list[Event] = []
    under_way: Changes | None = None
    forgotten_seq = 0
    for action in script:
        if isinstance(action, int):
            made = commit(log.last_seq + 1, action)
            await log.append([made])
            events += made.events
            history.note_events(made.events)
        elif action == "write" and (changes := history.pending_changes()):
            await log.store([changes])
            history.stored(changes)
            under_way = None
        elif action == "begin a write":
            under_way = history.pending_changes()
        elif action == "end it" and under_way:
            await log.store([under_way])
            history.stored(under_way)
            under_way = None
        elif action == "merge":
            while merging := history.merging_changes():
                await log.store([merging])
                history.stored(merging)
                under_way = None
        elif action == "restart":
            history, under_way = ProfileHistory(log), None
            history.note_events([e for c in log.read(history.cursor_seq) for e in c.events])
        elif action == "forget 2" and not under_way and history.cursor_seq == log.last_seq:
            await log.store([history.forget([2])])
            forgotten_seq = log.last_seq
        for entities in ([1], [2, 3], [4, 1], [9]):
            whose = [(e, {e.profile, e.account} & set(entities)) for e in events]
            expected = [e for e, found in whose if found - ({2} if e.seq <= forgotten_seq else set())]
            assert history.events_of(entities) == expected
            some = [e for e in expected if 3 < e.seq <= 8]
            assert history.events_of(entities, after_seq=3, until_seq=8) == some


async def test_rows_are_written_in_order_with_the_cursor_of_the_last_noted_event() -> None:
    log = MemoryLog()
    await log.append([commit(1, 9)])
    history = ProfileHistory(log)
    assert history.pending_changes() is None
    for entity, seq in ((5, 3), (2, 4), (5, 1), (2, 7)):
        history.note(entity, seq)
    changes = history.pending_changes()
    assert changes is not None
    assert [key for key, _ in changes.puts[0][1]] == [(1, 5, 1), (1, 5, 3)]  # a chunk is named by its last row
    assert changes.cursor_seq == 7
    await log.store([changes])
    history.stored(changes)
    assert history.seqs_of([2]) == [4, 7]
    assert history.seqs_of([5]) == [1, 3]


async def test_a_failed_write_is_offered_again_with_what_came_meanwhile() -> None:
    log = MemoryLog()
    await log.append([commit(1, 9)])
    history = ProfileHistory(log)
    history.note(1, 1)
    assert history.pending_changes() is not None
    history.note(1, 2)
    changes = history.pending_changes()
    assert changes is not None
    await log.store([changes])
    history.stored(changes)
    assert history.pending_rows == 0
    assert history.seqs_of([1]) == [1, 2]


async def test_an_event_noted_twice_is_there_once_wherever_its_chunk_ends() -> None:
    log = MemoryLog()
    await log.append([commit(1, 9)])
    for seqs in ([1, 2, 3, 3, 3, 3], [1, 1, 1, 1], [1, 2, 2]):
        history = ProfileHistory(log)
        await log.store([Changes(HISTORY_PROJECTION, 0, cleared=(HISTORY,))])
        history = ProfileHistory(log)
        for seq in seqs:
            history.note(7, seq)
        changes = history.pending_changes()
        assert changes is not None
        await log.store([changes])
        history.stored(changes)
        assert history.seqs_of([7]) == sorted(set(seqs))


async def test_runs_of_one_size_become_one_and_the_chunks_they_were_are_gone() -> None:
    log = MemoryLog()
    history = ProfileHistory(log)
    for _ in range(2):
        made = commit(log.last_seq + 1, 4)
        await log.append([made])
        history.note_events(made.events)
        changes = history.pending_changes()
        assert changes is not None
        await log.store([changes])
        history.stored(changes)
    before = {entity: history.seqs_of([entity]) for entity in range(1, 100)}
    assert len(history.runs) == 2
    merging = history.merging_changes()
    assert merging is not None
    await log.store([merging])
    history.stored(merging)
    assert len(history.runs) == 1
    assert {key[0] for key, _ in log.range(HISTORY)} == {0, history.runs[0].number}
    assert {entity: history.seqs_of([entity]) for entity in range(1, 100)} == before
    assert {entity: ProfileHistory(log).seqs_of([entity]) for entity in range(1, 100)} == before
    assert history.merging_changes() is None


async def test_a_run_of_the_largest_size_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "RUN_ROWS_MAX", 7)
    log = MemoryLog()
    history = ProfileHistory(log)
    for seq in range(1, 9):
        history.note(seq % 4, seq)
        if seq % 4 == 0:
            changes = history.pending_changes()
            assert changes is not None
            await log.store([changes])
            history.stored(changes)
    assert history.merging_changes() is None  # two runs of 4 would make one of 8


async def test_numbers_too_far_apart_for_four_bytes_are_kept_whole() -> None:
    log = MemoryLog()
    history = ProfileHistory(log)
    rows = [(1, 5), (1, 5 + (1 << 32)), (1 << 40, 7), (2, (1 << 33) - 1)]
    for entity, seq in rows:
        history.note(entity, seq)
    changes = history.pending_changes()
    assert changes is not None
    await log.append([commit(1, 9)])
    await log.store([Changes(HISTORY_PROJECTION, 1, puts=changes.puts)])
    history.stored(changes)
    assert history.seqs_of([1]) == [5, 5 + (1 << 32)]
    assert history.seqs_of([1 << 40]) == [7]
    assert history.seqs_of([2]) == [(1 << 33) - 1]


async def test_a_forgotten_entity_has_no_events() -> None:
    log = MemoryLog()
    made = commit(1, 9)
    await log.append([made])
    history = ProfileHistory(log)
    for event in made.events[:5]:
        history.note(1, event.seq)
        history.note(2, event.seq)
    changes = history.pending_changes()
    assert changes is not None
    await log.store([changes])
    history.stored(changes)
    history.note(1, 6)
    await log.store([history.forget([1])])
    assert history.seqs_of([1]) == []
    assert history.seqs_of([2]) == [1, 2, 3, 4, 5]
    assert history.cursor_seq == 5
    await log.store([history.forget([2])])
    assert [key for key, _ in log.range(HISTORY)] == [(0, 0, 0)]  # nothing is left but the list of runs
    assert ProfileHistory(log).seqs_of([1, 2]) == []
