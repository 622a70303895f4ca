"""A log from which people were erased, or old events forgotten, folded anew gives what stands: over random worlds."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from adapters.cli.replaying import Replayed, replayed
from adapters.cli.terminal import bar
from adapters.opening import open_data
from eventlog.clock import SimulatedClock
from eventlog.instants import iso
from tests.destinations.stage import DAY_MS, HOUR_MS, START_MS, group, identify, track
from tests.privacy.follows import differences
from tests.privacy.room import Room, kept_up, room

USERS = [f"user-{n}" for n in range(8)]
DEFINITIONS: list[tuple[str, str, str]] = [
    ("Recent", "USERS", "event('A').within(1 days).count() >= 1"),
    ("Repeated", "USERS", "event('A').within(2 days).count() >= 2"),
    ("Lost", "USERS", "event('A').between(1 days, 3 days).count() >= 1 AND NOT event('A').within(1 days).count() >= 1"),
    (
        "Funnel",
        "USERS",
        "event('A').where(NOT event('B').within(parent: 6 hours).count() >= 1).within(2 days).count() >= 1",
    ),
    ("Named", "USERS", "trait('color') = 'red'"),
    ("Busy", "ACCOUNTS", "event('A').within(2 days).count() >= 3"),
    ("Some busy", "ACCOUNTS", "ANY event('A').within(2 days).count() >= 2"),
    ("All quiet", "ACCOUNTS", "ALL NOT event('B').within(2 days).count() >= 1"),
    ("Colleagues", "USERS", "audience('busy') AND NOT event('B').within(1 days).count() >= 1"),
]
EVER: list[tuple[str, str, str]] = [
    ("Ever", "USERS", "event('A').count() >= 3"),
    ("Ever busy", "ACCOUNTS", "event('A').sum(property('x')) >= 20"),
]


def drawn(chance: Random, now_ms: int) -> dict[str, Any]:
    """Return a random call."""
    user = chance.choice(USERS)
    match chance.randrange(10):
        case 0:
            return identify(user, color=chance.choice(["red", "blue"]), email=f"{user}@x.com")
        case 1:
            return group(user, f"account-{chance.randrange(3)}", traits={"$left": chance.random() < 0.3})
        case 2:
            return {"type": "alias", "userId": user, "previousId": f"device-{chance.randrange(12)}"}
        case 3:
            return {
                "type": "track",
                "anonymousId": f"device-{chance.randrange(12)}",
                "event": "A",
                "properties": {"x": 7},
            }
        case 4:
            return track(user, "A", properties={"x": 3}, timestamp=iso(now_ms - chance.randrange(20 * HOUR_MS)))
        case _:
            return track(user, chance.choice("AAB"), properties={"x": chance.randrange(9)})


async def lived(here: Room, seed: int, *, days: int) -> set[str]:
    """Live through some days at random, now and then deleting somebody; return who was deleted and not seen again."""
    chance = Random(seed)  # noqa: S311 - a seed, so that a failure can be repeated
    gone: set[str] = set()
    for step in range(days * 8):
        await here.until(step * 3 * HOUR_MS + chance.randrange(HOUR_MS))
        for _ in range(chance.randrange(5)):
            call = drawn(chance, here.clock.now_ms())
            gone.discard(call.get("userId", ""))
            await here.send(call, step=False)
        if chance.random() < 0.12:
            some = chance.sample(USERS, chance.randrange(1, 3))
            await here.regulated(*some, name=f"reg_{step}")
            gone.update(some)
        if chance.random() < 0.08:
            await here.restart()
        await here.space.retention.forget()
    return gone


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 24))])
async def test_what_stands_after_deletions_follows_from_the_log(tmp_path: Path, seed: int) -> None:
    async with room(tmp_path) as here:
        for name, entity_type, query in DEFINITIONS + EVER:
            await here.audience(name, query, entity_type=entity_type)
        gone = await lived(here, seed, days=6)
        assert await differences(here) == []
        assert any(view.size for view in here.space.definitions())
        if gone:
            assert here.holders(*(f"{one}@x.com" for one in gone), *(f'"{one}"' for one in gone)) == set()
        await here.restart()
        assert await differences(here) == []


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 16))])
async def test_what_stands_while_old_events_are_forgotten_follows_from_the_log(tmp_path: Path, seed: int) -> None:
    async with room(tmp_path) as here:
        for name, entity_type, query in DEFINITIONS:
            await here.audience(name, query, entity_type=entity_type)
        await here.space.change_settings({"eventRetentionDays": 3})
        await lived(here, 100 + seed, days=8)
        assert here.space.retention.forgotten_ms is not None
        assert await differences(here) == []
        await here.restart()
        assert await differences(here) == []


async def test_turnout_replay_check_agrees_after_a_deletion(tmp_path: Path) -> None:
    clock = SimulatedClock(START_MS)
    async with open_data(tmp_path / "data", clock, holder="a test", beside=kept_up) as data:
        space = data.spaces()[0]
        here = Room(tmp_path / "none")
        here.space, here.clock = space, clock
        for name, entity_type, query in DEFINITIONS + EVER:
            await here.audience(name, query, entity_type=entity_type)
        people: list[dict[str, Any]] = [track(f"u{n}", "A", properties={"x": 9}) for n in range(9)]
        await here.send(*people, *(group(f"u{n}", "acme") for n in range(9)), *people, step=False)
        clock.set_ms(START_MS + DAY_MS)
        await data.advance()
        before = await checked(data, space)
        assert (before.differences, before.effects > 30) == ([], True)
        await space.regulate("reg_1", "DELETE_ONLY", [f"u{n}" for n in range(5)])
        await space.regulated("reg_1")
        assert (await checked(data, space)).differences == []


async def checked(data: Any, space: Any) -> Replayed:
    with bar("replaying") as show:
        return await replayed(space, show)
