"""Whatever a random world went through, all that lies beside its log follows from it: to the last row."""

import pytest

from actors.footing import Footing
from actors.space import open_space
from adapters.cli.replay_check import states_that_differ
from eventlog.clock import SimulatedClock
from eventlog.log import STATES, TIMERS, Changes
from scenarios.differential import UNRESTS
from scenarios.edges import MortalLog
from scenarios.generator import random_scenario
from scenarios.restless import restless
from scenarios.runner import run_to_end
from scenarios.world import SUPPRESSION_KEY, SimulatedWorld


async def told_of(world: SimulatedWorld) -> list[str]:
    """Fold a world's log anew and return what differs from what stands."""
    await world.survived(world.settle)
    await world.space.close()
    log = MortalLog()
    for commit in world.log.read():
        await log.append([commit])
    clock = SimulatedClock(world.clock.now_ms())
    async with open_space("anew", log, clock, suppression_key=SUPPRESSION_KEY) as anew:
        await anew.backfilled()
        await anew.close()
        return states_that_differ(world.space, anew, Footing(log.read_facts()))


@pytest.mark.parametrize("name", ["dies_after_checkpoints", "closes", "forgets"])
async def test_all_that_stands_after_unrest_follows_from_the_log(name: str) -> None:
    unrest = UNRESTS[name]
    assert unrest is not None
    for seed in range(20):
        told: list[str] = []

        async def look(world: SimulatedWorld, told: list[str] = told) -> None:
            told += await told_of(world)

        assert await run_to_end(random_scenario(seed), look, opened=restless(unrest)) == []
        assert told == [], seed


@pytest.mark.parametrize("table", [STATES, TIMERS], ids=["states", "timers"])
async def test_a_row_that_was_lost_is_told_with_its_name(table: object) -> None:
    told: list[str] = []

    async def look(world: SimulatedWorld) -> None:
        await world.space.close()
        (key, _), *_ = world.log.range(table)  # type: ignore[arg-type] # one of the two
        await world.log.store([Changes("test", 0, deletes=((table, [key]),))])  # type: ignore[arg-type]
        told.extend(await told_of(world))

    await run_to_end(random_scenario(1), look)
    assert [line.partition(":")[0] for line in told] == ["states" if table is STATES else "timers"]
    assert "(entity 1)" in told[0] or "(entity 2)" in told[0]
