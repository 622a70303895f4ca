"""Calls that come as one batch say what they would say one by one."""

from tests.space.room import Room, call


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
