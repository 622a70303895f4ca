"""A log folded under other definitions: the same one gives what happened, another what the reference says each day."""

from typing import Any

import pytest
from msgspec.structs import replace

from actors.definitions import Definitions
from actors.identity_rules import settings_from_json
from eventlog.entries import Definition, Options
from eventlog.errors import InvalidError
from eventlog.instants import instant_ms
from scenarios.format import AudienceSpec
from scenarios.reference_run import ReferenceWorld
from scenarios.what_if import DAY_MS, Outcome, replayed_with
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
        return replayed_with(world.space.log.read(), drafts, held, lambda _: None).outcome()


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
        fold = replayed_with(world.space.log.read(), [ever], world.space.definitions_held, lambda _: None)
    whole = fold.outcome().days
    part = fold.outcome(since_ms=START_MS + 2 * DAY_MS, until_ms=START_MS + 4 * DAY_MS).days
    assert list(part) == [day for day in whole if START_MS + 2 * DAY_MS <= day.day_ms < START_MS + 4 * DAY_MS]
    assert part[0].size > part[0].entered


async def test_definitions_that_refer_to_each_other_are_refused() -> None:
    """A cycle is told before anything is folded."""
    pair = [draft("one", "audience('two')"), draft("two", "audience('one')")]
    with pytest.raises(InvalidError, match="refer to each other"):
        replayed_with([], [replace(one) for one in pair], Definitions(), lambda _: None)
