"""Whatever a space goes through, its members are what hindsight says, and its log tells each change once.

Events come late, profiles merge, accounts are joined and left, definitions come, change and go, the space dies, is
stored, and forgets who is not needed, in any order.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.errors import RefusedError
from eventlog.memory import MemoryLog
from tests.space.room import Room, call, room

USERS = ("ann", "bob", "anon1", "anon2")
QUERIES: tuple[tuple[str, str, str], ...] = (
    ("audience", "USERS", "event('A').count() >= 1"),
    ("audience", "USERS", "event('A').count() = 0"),
    ("audience", "USERS", "event('A').within(3 seconds).count() >= 2"),
    ("audience", "USERS", "event('A').between(2 seconds, 5 seconds).count() >= 1 AND NOT audience('d1')"),
    ("audience", "USERS", "trait('t') = 'b' OR trait('d2') = true"),
    ("audience", "USERS", "event('A').where(event('B').within(parent: 2 seconds).count() >= 1).count() >= 1"),
    ("audience", "USERS", "audience('d3') OR trait('d1').exists()"),
    ("audience", "ACCOUNTS", "ANY (event('A').within(3 seconds).count() >= 1) AND NOT ALL (trait('t') = 'a')"),
    ("audience", "ACCOUNTS", "event('A').within(4 seconds).count() >= 2 OR NONE (audience('d1'))"),
    ("trait", "USERS", "event('A').within(4 seconds).sum(property('x'))"),
    ("trait", "USERS", "event('B').where(property('x') >= trait('d4')).last(property('x'))"),
    ("trait", "ACCOUNTS", "event('A').unique(property('x'))"),
)

users = st.sampled_from(USERS)
ago = st.sampled_from((0, 0, 0, 1, 2, 4))
queries = st.sampled_from(QUERIES)
tracks = st.tuples(st.just("track"), users, st.sampled_from("AB"), ago, st.sampled_from((None, 1, 2, "2")))
steps = st.lists(
    st.one_of(
        tracks,
        tracks,
        tracks,
        st.tuples(st.just("identify"), users, ago, st.sampled_from((None, "a", "b"))),
        st.tuples(st.just("group"), users, st.sampled_from(("acme", "beta")), ago, st.booleans()),
        st.tuples(st.just("link"), st.sampled_from(USERS[:2]), st.sampled_from(USERS[2:])),
        st.tuples(st.just("wait"), st.sampled_from((0.5, 1, 2, 3))),
        st.tuples(st.just("define"), queries, st.booleans()),
        st.tuples(st.just("edit"), st.integers(1, 4), queries, st.booleans()),
        st.tuples(st.just("toggle"), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.integers(1, 4)),
        st.just(("die",)),
        st.just(("die",)),
        st.just(("checkpoint",)),
        st.just(("checkpoint",)),
        st.just(("store identity",)),
    ),
    min_size=3,
    max_size=14,
)


async def perform(here: Room, step: tuple[Any, ...]) -> None:
    """Let one thing happen."""
    match step:
        case ("track", user, name, ago_s, x):
            await here.track(user, name, ago_s=ago_s, **({} if x is None else {"x": x}))
        case ("identify", user, ago_s, value):
            await here.send(call(user, "identify", ago_s=ago_s, traits={"t": value}))
        case ("group", user, account, ago_s, left):
            await here.send(call(user, "group", ago_s=ago_s, groupId=account, traits={"$left": left}))
        case ("link", user, other):
            await here.send(call(user, "identify", anonymousId=other))
        case ("wait", seconds):
            await here.wait(seconds)
        case ("die",):
            await here.die()
        case ("checkpoint",):
            await here.space.checkpoint()
        case ("store identity",):
            changes = here.space.identity.pending_changes(here.log.last_seq)
            if changes is not None:
                await here.log.store([changes])
                here.space.identity.stored(changes)
        case _:
            await change(here, step)


async def change(here: Room, step: tuple[Any, ...]) -> None:
    """Change the definitions, unless that is refused."""
    try:
        match step:
            case ("define", (kind, entity_type, query), everyone):
                name = f"d{here.space.definitions_held.last_number + 1}"
                types = ("user_id", "anonymous_id") if everyone and kind == "audience" else None
                await here.define(
                    name, query, kind=kind, entity_type=entity_type, filter_by_external_ids=types, wait=False
                )
            case ("edit", number, (kind, entity_type, query), wait):
                definition = here.space.definition(f"d{number}").definition
                if (definition.kind, definition.entity_type) == (kind, entity_type):
                    await here.space.edit_definition(f"d{number}", query=query)
                if wait:
                    await here.space.backfilled()
            case ("toggle", number):
                enabled = here.space.definition(f"d{number}").definition.enabled
                await here.space.edit_definition(f"d{number}", enabled=not enabled)
            case ("delete", number):
                await here.space.delete_definition(f"d{number}")
    except RefusedError:
        pass


@settings(max_examples=2 * settings().max_examples)
@given(st.lists(queries, min_size=2, max_size=4), steps, st.sampled_from((0, 1, 100)))
async def test_a_space_agrees_with_hindsight_whatever_it_goes_through(
    first: list[tuple[str, str, str]], given_steps: list[tuple[Any, ...]], active_max: int
) -> None:
    log = MemoryLog()

    async def reopen() -> MemoryLog:
        return log

    async with room(reopen, active_max=active_max) as here:
        for query in first:
            await change(here, ("define", query, True))
        for step in given_steps:
            await perform(here, step)
        await here.space.backfilled()
        await here.space.advance()
        await here.check()
        await here.die()
        await here.check()
