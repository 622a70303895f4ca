"""A log folded under other definitions: the same one gives what happened, another what the reference says each day."""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from actors.definitions import Definitions, Kind
from actors.identity_rules import settings_from_json
from actors.space_api import EntityType
from eventlog.entries import Definition, Options
from eventlog.errors import InvalidError
from eventlog.instants import instant_ms
from eventlog.log import Log
from eventlog.memory import MemoryLog
from scenarios.format import AudienceSpec
from scenarios.reference_run import ReferenceWorld
from scenarios.what_if import DAY_MS, Day, Move, WhatIf, replayed_with
from scenarios.world import simulated

START_MS = instant_ms("2026-03-01T00:00:00Z") or 0
BUYERS = "event('Order Completed').within(2 days).count() >= 2"
ONE_DAY = "event('Order Completed').within(1 days).count() >= 1"
DAYS = 8


def sent() -> list[tuple[int, str]]:
    """Return when who bought: some twice within two days, some once, some again after they left."""
    hours = [(1, "ann"), (5, "ben"), (20, "ann"), (30, "cat"), (71, "cat"), (72, "dan"), (80, "ann"), (90, "dan")]
    hours += [(100, "ann"), (101, "eve"), (150, "eve")]
    return [(START_MS + hour * 3_600_000, who) for hour, who in hours]


def draft(key: str, query: str) -> Definition:
    """Return a definition as a file gives it."""
    return Definition(0, "", "audience", key, key, "USERS", query, options=Options())


class Outcome(Struct, frozen=True):
    """What a replay under other definitions gave."""

    days: list[Day]
    moves: list[Move]


async def folded(log: Log, drafts: Sequence[Definition], held: Definitions, **options: Any) -> Outcome:
    """Fold a log under other definitions."""
    fold = await replayed_with(log.read(), WhatIf(drafts, held, MemoryLog(), **options), lambda _: None)
    return Outcome(list(fold.days()), list(fold.moves()))


async def outcome_of(*drafts: Definition, made_after: int = 0) -> Outcome:
    """Live through the days with `buyers`, made after so many events; then fold the log under other definitions."""
    async with simulated(START_MS, 1, {}) as world:
        for place, (at_ms, who) in enumerate(sent()):
            if place == made_after:
                await world.space.create_definition(kind="audience", name="Buyers", entity_type="USERS", query=BUYERS)
                await world.space.backfilled()
            await world.move_to(at_ms)
            message: dict[str, Any] = {"type": "track", "userId": who, "event": "Order Completed"}
            await world.send(message, "src")
        await world.move_to(START_MS + DAYS * DAY_MS - 1)
        await world.space.settle()
        held: Definitions = world.space.definitions_held
        return await folded(world.space.log, drafts, held)


@pytest.mark.parametrize("made_after", [0, 3])
async def test_the_same_definition_gives_what_happened(made_after: int) -> None:
    """Every day, every size, every name is the same, also where the audience was made over a past."""
    outcome = await outcome_of(draft("buyers", BUYERS), made_after=made_after)
    assert {move.direction for move in outcome.moves} == {"entered", "left"}
    assert all(move.would and move.did for move in outcome.moves)
    assert [(d.size, d.entered, d.left) for d in outcome.days] == [
        (d.actual_size, d.actual_entered, d.actual_left) for d in outcome.days
    ]


@pytest.mark.parametrize("key", ["buyers", "quick_buyers"])
async def test_another_definition_gives_what_the_reference_says_each_day(key: str) -> None:
    """The size at the end of each day is that of an evaluation of everything from scratch."""
    outcome = await outcome_of(draft(key, ONE_DAY))
    world = ReferenceWorld(settings_from_json({}))
    world.now_ms = START_MS
    world.define(AudienceSpec(name="Quick", query=ONE_DAY))
    for at_ms, who in sent():
        world.now_ms = at_ms
        world.send({"type": "track", "userId": who, "event": "Order Completed"}, "src")
    expected = {}
    for day in range(DAYS):
        end_ms = START_MS + (day + 1) * DAY_MS - 1
        expected[START_MS + day * DAY_MS] = len(world.answers(at_ms=end_ms).members("quick"))
    found = {day.day_ms: day.size for day in outcome.days}
    assert found == {day: expected[day] for day in found}
    assert len(set(found.values())) > 1
    assert all((day.actual_size is None) is (key == "quick_buyers") for day in outcome.days)


async def test_days_outside_the_span_are_left_out_but_counted_into_the_first_size() -> None:
    """A span begins with the size that the days before it left."""
    async with simulated(START_MS, 1, {}) as world:
        for at_ms, who in sent():
            await world.move_to(at_ms)
            await world.send({"type": "track", "userId": who, "event": "Order Completed"}, "src")
        await world.space.settle()
        ever = draft("ever", "event('Order Completed').count() >= 1")
        held, span = (
            world.space.definitions_held,
            {"since_ms": START_MS + 2 * DAY_MS, "until_ms": START_MS + 4 * DAY_MS},
        )
        whole = await folded(world.space.log, [ever], held)
        some = await folded(world.space.log, [ever], held, **span)
    part = some.days
    assert some.moves == [one for one in whole.moves if span["since_ms"] <= one.day_ms < span["until_ms"]] != []
    assert part == [day for day in whole.days if START_MS + 2 * DAY_MS <= day.day_ms < START_MS + 4 * DAY_MS]
    assert part[0].size > part[0].entered


async def test_definitions_that_refer_to_each_other_are_refused() -> None:
    """A cycle is told before anything is folded."""
    pair = [draft("one", "audience('two')"), draft("two", "audience('one')")]
    with pytest.raises(InvalidError, match="refer to each other"):
        WhatIf([replace(one) for one in pair], Definitions(), MemoryLog())


async def test_more_changes_than_fit_are_refused_with_a_way_out() -> None:
    """What is not told of does not count."""
    async with simulated(START_MS, 1, {}) as world:
        for at_ms, who in sent():
            await world.move_to(at_ms)
            await world.send({"type": "track", "userId": who, "event": "Order Completed"}, "src")
        ever, held = [draft("ever", "event('Order Completed').count() >= 1")], Definitions()
        with pytest.raises(InvalidError, match="more than 3 profiles enter and leave; tell of fewer days with --since"):
            await folded(world.space.log, ever, held, moves_max=3)
        assert len((await folded(world.space.log, ever, held, moves_max=5)).moves) == 5
        assert len((await folded(world.space.log, ever, held, moves_max=1, since_ms=START_MS + 4 * DAY_MS)).moves) == 1


# -- everything at once ------------------------------------------------------------------------------------------------

EVERYTHING: list[tuple[Kind, EntityType, str, str]] = [
    ("audience", "USERS", "recent", "event('A').within(1 days).count() >= 2"),
    ("audience", "USERS", "lost", "event('A').between(1 days, 3 days).count() >= 1 AND NOT audience('recent')"),
    ("audience", "USERS", "named", "trait('color') = 'red' AND event('B').count() >= 1"),
    (
        "audience",
        "USERS",
        "waited",
        "event('A').where(NOT event('B').within(parent: 6 hours).count() >= 1).count() >= 1",
    ),
    ("audience", "ACCOUNTS", "busy", "event('A').within(2 days).count() >= 3"),
    ("audience", "ACCOUNTS", "some_busy", "ANY event('A').within(2 days).count() >= 2"),
    ("audience", "ACCOUNTS", "all_quiet", "ALL NOT event('B').within(1 days).count() >= 1"),
    ("audience", "USERS", "colleagues", "audience('busy') AND NOT event('B').within(1 days).count() >= 1"),
    ("trait", "USERS", "spent", "event('A').within(2 days).sum(property('x'))"),
    ("trait", "ACCOUNTS", "spent_together", "event('A').avg(property('x'))"),
    ("audience", "USERS", "spenders", "trait('spent') >= 15"),
]


def everything() -> list[Definition]:
    """Return them as a file gives them."""
    return [Definition(0, "", kind, key, key, entity_type, query) for kind, entity_type, key, query in EVERYTHING]


def random_call(chance: Random) -> dict[str, Any]:
    """Return a call of few people: they join accounts and leave them, and turn out to be each other."""
    user, device, kind = f"u{chance.randrange(6)}", f"d{chance.randrange(8)}", chance.randrange(9)
    if kind == 0:
        return {"type": "identify", "userId": user, "traits": {"color": chance.choice(["red", "blue"])}}
    if kind == 1:
        left = {"$left": True} if chance.random() < 0.3 else {}
        return {"type": "group", "userId": user, "groupId": f"g{chance.randrange(2)}", "traits": left}
    if kind == 2:
        return {"type": "identify", "userId": user, "anonymousId": device}
    who = {"anonymousId": device} if kind < 5 else {"userId": user}
    return {"type": "track", **who, "event": chance.choice("AAB"), "properties": {"x": chance.randrange(9)}}


async def lived(seed: int, defined: Sequence[Definition]) -> tuple[Outcome, Counter[str]]:
    """Live through days at random, with definitions made at the start; return the log under `everything`, and facts."""
    chance = Random(seed)  # noqa: S311 - reproducible
    async with simulated(START_MS, seed, {}) as world:
        for one in defined:
            await world.space.create_definition(
                kind=one.kind, name=one.key, key=one.key, entity_type=one.entity_type, query=one.query
            )
        await world.space.backfilled()
        for step in range(70):
            await world.move_to(START_MS + step * 3 * 3_600_000 + chance.randrange(3_600_000))
            for _ in range(chance.randrange(3)):
                call = random_call(chance)
                await world.send({**call, "messageId": f"{step}-{chance.random()}"}, "src")
                await world.folded()
        await world.move_to(START_MS + 9 * DAY_MS)
        await world.send({"type": "track", "userId": "end", "event": "C"}, "src")
        await world.space.settle()
        facts = Counter(type(fact).__name__ for commit in world.space.log.read() for fact in commit.facts)
        few = await folded(world.space.log, everything(), world.space.definitions_held, active_max=1)
        outcome = await folded(world.space.log, everything(), world.space.definitions_held)
        assert few == outcome  # whatever was put away
        return outcome, facts


@pytest.mark.parametrize("seed", range(6))
async def test_accounts_traits_and_merges_are_as_if_all_had_been_defined_from_the_start(seed: int) -> None:
    """A log without any definition, under all of them, gives what happened where they stood from the start."""
    would, facts = await lived(seed, [])
    did, _ = await lived(seed, everything())
    assert facts["Merged"] >= 1
    assert [(one.key, one.day_ms, one.size, one.entered, one.left) for one in would.days] == [
        (one.key, one.day_ms, one.actual_size, one.actual_entered, one.actual_left) for one in did.days
    ]
    assert [(one.day_ms, one.key, one.entity, one.direction) for one in would.moves] == [
        (one.day_ms, one.key, one.entity, one.direction) for one in did.moves if one.did
    ]
    assert all(one.would and one.did for one in did.moves)
    moved = {one.key for one in would.moves}
    assert {"recent", "busy", "colleagues", "spent", "spent_together", "spenders"} <= moved
