"""A space that starts again goes on as if it had never stopped."""

from collections.abc import AsyncIterator

import pytest

from eventlog.entries import Exited
from tests.destinations.stage import DAY_MS, HOUR_MS, START_MS, Stage, stage, track


@pytest.fixture
async def here() -> AsyncIterator[Stage]:
    async with stage() as opened:
        yield opened


async def test_a_window_that_closes_after_a_restart_ends_the_membership_on_time(here: Stage) -> None:
    await here.audience("Recent", "event('A').within(1 days).count() >= 1")
    await here.send(track("ann", "A"))
    await here.restart()
    await here.until(DAY_MS - 1)
    assert len(await here.space.members("recent")) == 1
    await here.until(3 * DAY_MS)
    assert await here.space.members("recent") == []
    exits = [fact for commit in here.log.read() for fact in commit.facts if isinstance(fact, Exited)]
    assert [one.at_ms for one in exits] == [START_MS + DAY_MS]


async def test_a_trait_with_a_window_changes_on_time_after_a_restart(here: Stage) -> None:
    await here.trait("Orders", "event('A').within(1 days).count()")
    await here.send(track("ann", "A"))
    await here.until(HOUR_MS)
    await here.send(track("ann", "A"))
    await here.restart()
    assert [value for _, value in await here.space.values("orders")] == [2]
    await here.until(DAY_MS)
    assert [value for _, value in await here.space.values("orders")] == [1]
    await here.restart()
    await here.until(DAY_MS + HOUR_MS)
    assert [value for _, value in await here.space.values("orders")] == [0]
