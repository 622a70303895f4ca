"""The history index: what is on disk and what is in memory make one answer."""

from hypothesis import given
from hypothesis import strategies as st

from eventlog.entries import Event
from eventlog.log import HISTORY
from eventlog.memory import MemoryLog
from eventlog.projections import ProfileHistory
from tests.eventlog.worlds import commit

actions = st.lists(
    st.one_of(
        st.integers(1, 6),  # so many events are appended
        st.sampled_from(["write", "begin a write", "end it", "restart"]),
    ),
    max_size=25,
)


@given(actions)
async def test_the_history_agrees_with_all_of_the_log(script: list[int | str]) -> None:
    """Whatever was written behind, is being written, or was lost with the process and replayed."""
    log = MemoryLog()
    history = ProfileHistory(log)
    events: list[Event] = []
    under_way = None
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
        elif action == "restart":
            history, under_way = ProfileHistory(log), None
            history.note_events([e for c in log.read(history.cursor_seq) for e in c.events])
        for entities in ([1], [2, 3], [4, 1], [9]):
            expected = [e for e in events if e.profile in entities or e.account in entities]
            assert history.events_of(entities) == expected
            some = [e for e in expected if 3 < e.seq <= 8]
            assert history.events_of(entities, after_seq=3, until_seq=8) == some
    stored = len(log.range(HISTORY, limit=10_000))
    assert stored + history.pending_rows >= sum(len({e.profile, e.account} - {0}) for e in events)


async def test_rows_are_written_in_order_with_the_cursor_of_the_last_noted_event() -> None:
    log = MemoryLog()
    await log.append([commit(1, 9)])
    history = ProfileHistory(log)
    assert history.pending_changes() is None
    for entity, seq in ((5, 3), (2, 4), (5, 1), (2, 7)):
        history.note(entity, seq)
    changes = history.pending_changes()
    assert changes is not None
    assert [key for key, _ in changes.puts[0][1]] == [(2, 4), (2, 7), (5, 1), (5, 3)]
    assert changes.cursor_seq == 7


async def test_a_failed_write_is_offered_again_with_what_came_meanwhile() -> None:
    log = MemoryLog()
    await log.append([commit(1, 9)])
    history = ProfileHistory(log)
    history.note(1, 1)
    assert history.pending_changes() is not None
    history.note(1, 2)
    changes = history.pending_changes()
    assert changes is not None
    assert [key for key, _ in changes.puts[0][1]] == [(1, 1), (1, 2)]
    await log.store([changes])
    history.stored(changes)
    assert history.pending_rows == 0
    assert history.seqs_of([1]) == [1, 2]


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
