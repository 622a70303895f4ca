"""Calls that come as one batch say what they would say one by one."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from eventlog.entries import IdAdded, Merged
from eventlog.memory import MemoryLog
from tests.space.room import Room, call, room


async def test_who_is_joined_within_a_batch_is_one_for_the_rest_of_it(here: Room) -> None:
    await here.define("Thrice", "event('A').count() >= 3")
    await here.track("ann", "A")
    await here.track("anon7", "A")
    await here.send(
        call("ann", "identify", anonymousId="anon7", traits={}),
        call("anon7", "track", event="A"),
        call("anon7", "track", event="B"),
    )
    await here.space.settle()
    assert await here.members("thrice") == ["ann"]
    *_, joins, after, last = (event for commit in here.log.read() for event in commit.events)
    assert after.profile == last.profile == joins.profile


async def test_who_is_made_within_a_batch_is_known_for_the_rest_of_it(here: Room) -> None:
    await here.define("Twice", "event('A').count() >= 2")
    await here.send(*(call("ben", "track", event="A") for _ in range(2)), call("cat", "track", event="A"))
    await here.space.settle()
    assert await here.members("twice") == ["ben"]
    assert here.space.partition.last_entity == 2


_IDS = ("ann", "ben", "anon1", "null", "null", "cat")
_CALLS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["track", "track", "identify", "group"]),
        "userId": st.sampled_from([*_IDS, None]),
        "anonymousId": st.sampled_from(["anon1", "anon2", "anon3", "-1", None]),
        "messageId": st.sampled_from([f"m{number}" for number in range(5)]),
        "groupId": st.sampled_from(["g1", "g2", "null"]),
        "event": st.just("A"),
    }
).filter(lambda one: one["userId"] or one["anonymousId"])


@given(st.lists(_CALLS, min_size=1, max_size=12), st.sampled_from([[], ["cat"]]))
async def test_a_batch_ends_as_its_calls_would_alone(calls: list[dict[str, Any]], suppressed: list[str]) -> None:
    """Whoever is made, merged, refused or there twice within it: the same events of the same people, and refusals."""
    ends = []
    for size in (len(calls), 1):
        log = MemoryLog()

        async def reopen(log: MemoryLog = log) -> MemoryLog:
            return log

        async with room(reopen) as here:
            if suppressed:
                await here.space.regulate("r1", "SUPPRESS_ONLY", suppressed)
            refused = []
            for start in range(0, len(calls), size):
                refused += await here.send(*calls[start : start + size])
            await here.space.settle()
            identity = here.space.identity
            events = [event for commit in log.read() for event in commit.events]
            facts = [fact for commit in log.read() for fact in commit.facts if isinstance(fact, IdAdded | Merged)]
            causes = {event.seq: event.message_id for event in events}
            ends.append(
                (
                    [(one.code, one.message_id) for one in refused],
                    [(one.message_id, identity.canonical(one.profile), one.account, one.body) for one in events],
                    [(causes[fact.cause_seq], replace(fact, cause_seq=0)) for fact in facts],
                    here.space.duplicates,
                )
            )
    (refused_at_once, *at_once), (refused_alone, *alone) = ends
    assert sorted(refused_at_once) == sorted(refused_alone)
    assert at_once == alone


async def test_a_message_id_that_was_refused_may_come_again_in_the_same_batch_and_later(here: Room) -> None:
    nobodys, somebodys = call("null", "track", event="A", messageId="m"), call("ann", "track", event="A", messageId="m")
    assert [one.code for one in await here.send(nobodys, nobodys)] == ["value_blocked"] * 2
    assert [one.code for one in await here.send(nobodys, somebodys, somebodys)] == ["value_blocked"]
    assert [event.message_id for commit in here.log.read() for event in commit.events] == ["m"]
    assert here.space.duplicates == 1
