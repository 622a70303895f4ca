"""Whatever happens in whatever order, the live partition says what all of the log says in hindsight.

Entities are put away at random, profiles merge and are erased, accounts are joined and left, events come late.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.partition.stage import Defined, Stage, accounts, audience, trait

USERS = ("ann", "bob", "anon1", "anon2")
ACCOUNTS = ("ACME", "BETA")
POOL: tuple[Defined, ...] = (
    audience("once", "event('A').count() >= 1", known_only=True),
    audience("none", "event('A').count() = 0"),
    audience("recently", "event('A').within(3 seconds).count() >= 2", known_only=True),
    audience("lapsed", "event('A').between(2 seconds, 5 seconds).count() >= 1 AND NOT audience('recently')"),
    audience("heavy", "event('A').where(property('x') > 1).sum(property('x')) >= 4 OR trait('t') = 'b'"),
    audience(
        "converted",
        "event('A').where(event('B').within(parent: 2 seconds).count() >= 1).within(4 seconds).count() >= 1",
    ),
    audience(
        "abandoned",
        "event('A').where(NOT event('B').where(property('x') = property(parent: 'x')).count() >= 1).count() >= 2",
    ),
    audience("even", "event('A').where(event('B').within(2 seconds).count() >= 1).count() >= 1 OR trait('sum') > 5"),
    audience("at_busy", "audience('busy') AND NOT audience('none')"),
    audience("at_alert", "trait('alert') = true OR event('B').where(audience('alert')).count() >= 1"),
    trait("sum", "event('A').sum(property('x'))"),
    trait("last", "event().within(4 seconds).last(property('x'))"),
    trait("seen", "event('B').where(property('x') >= trait('sum')).count()"),
    trait("session", "event().expires_after(2 seconds).count()"),
    trait("total", "event('A').sum(property('x'))", "ACCOUNTS"),
    accounts("busy", "ANY (event('A').within(3 seconds).count() >= 1)"),
    accounts("alert", "ALL (event('A').count() >= 1) OR event('A').within(3 seconds).count() >= 3"),
    accounts("quiet", "NONE (audience('recently')) AND trait('t').exists()"),
    accounts("rich", "trait('total') >= 5 AND NOT ALL (trait('t') = 'a')"),
    trait("largest", "event('A').max(property('x'))", "ACCOUNTS"),
    trait("texts", "event('A').unique(property('x'))", "ACCOUNTS"),
    trait("earliest", "event('B').first(property('x'))", "ACCOUNTS"),
    trait("average", "event('A').avg(property('x'))", "ACCOUNTS"),
    trait("lately", "event().within(4 seconds).sum(property('x'))", "ACCOUNTS"),
    trait("spell", "event().expires_after(2 seconds).count()", "ACCOUNTS"),
    trait("all_time", "event('B').count()", "ACCOUNTS"),
    accounts("thrice", "event('A').within(4 seconds).count() >= 3"),
    accounts("followed", "event('A').where(event('B').within(parent: 2 seconds).count() >= 1).count() >= 1"),
)
ALWAYS = {one.key for one in POOL if one.key in {"busy", "none", "recently", "sum", "alert", "total"}}

users = st.sampled_from(USERS)
teams = st.sampled_from(ACCOUNTS)
ago = st.sampled_from((0, 0, 0, 1, 2, 4))
calls = (
    st.tuples(st.just("track"), users, st.sampled_from("AB"), ago, st.sampled_from((None, 1, 2, 3, "2", 0.5))),
    st.tuples(st.just("identify"), users, ago, st.sampled_from((None, "a", "b"))),
    st.tuples(st.just("group"), st.sampled_from((*USERS, "")), teams, ago, st.booleans()),
)
steps = st.lists(
    calls[0]
    | calls[0]
    | calls[1]
    | calls[2]
    | st.tuples(st.just("merge"), users, users)
    | st.tuples(st.just("erase"), users)
    | st.tuples(st.just("wait"), st.sampled_from((0.5, 1, 1, 2, 3)))
    | st.tuples(st.just("sleep"), st.sampled_from(((), USERS[:1], USERS[:2], ACCOUNTS))),
    min_size=3,
    max_size=14,
)


def perform(stage: Stage, step: tuple[Any, ...]) -> None:
    """Let one thing happen."""
    match step:
        case ("track", user, name, ago_s, x):
            stage.track(user, name, ago_s=ago_s, **({} if x is None else {"x": x}))
        case ("identify", user, ago_s, value):
            stage.identify(user, ago_s=ago_s, t=value)
        case ("group", user, account, ago_s, left):
            stage.group(user, account, ago_s=ago_s, left=left, t="x")
        case ("merge", one, other):
            if {one, other} <= set(stage.numbers) and stage.entity(one) != stage.entity(other):
                first, second = sorted((one, other), key=stage.entity)
                stage.merge(first, second)
        case ("erase", user):
            if user in stage.numbers:
                stage.erase(user)
        case ("wait", seconds):
            stage.wait(seconds)
        case ("sleep", who):
            stage.sleep(*(one for one in who if one in stage.numbers))


@settings(max_examples=3 * settings().max_examples)
@given(
    st.sets(st.sampled_from(sorted({one.key for one in POOL} - ALWAYS)), min_size=1, max_size=6), steps, st.booleans()
)
async def test_live_membership_is_what_hindsight_says(
    keys: set[str], given_steps: list[tuple[Any, ...]], in_slices: bool
) -> None:
    stage = Stage(*(one for one in POOL if one.key in keys | ALWAYS))
    stage.partition.in_slices = in_slices
    for step in given_steps:
        perform(stage, step)
        await stage.check()


@settings(max_examples=3 * settings().max_examples)
@given(
    st.sets(st.sampled_from([one.key for one in POOL if one.entity_type == "ACCOUNTS"]), min_size=3),
    st.lists(calls[0] | calls[2] | st.tuples(st.just("erase"), users), min_size=6, max_size=20),
)
async def test_an_account_knows_nothing_more_of_those_who_left(keys: set[str], given_steps: list[Any]) -> None:
    stage = Stage(*(one for one in POOL if one.key in keys | ALWAYS))
    for step in given_steps:
        perform(stage, step)
    await stage.check()


@given(steps, steps)
async def test_definitions_that_come_and_go_leave_no_trace_in_those_that_stay(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    stage = Stage(*(one for one in POOL if one.key in ALWAYS))
    stage.define(*(one for one in POOL if one.key in {"at_busy", "session"}), accounts("b2", "ANY (trait('t') = 'a')"))
    for step in before:
        perform(stage, step)
    for key in ("at_busy", "session", "b2"):
        stage.delete(key)
    for step in after:
        perform(stage, step)
    await stage.check()
