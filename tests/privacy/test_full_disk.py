"""A deletion that cannot be stored waits, says so, and is done once it can."""

from collections.abc import AsyncIterator

import pytest

from actors.regulations import ATTEMPTS_MAX
from eventlog.errors import LogError, LogFullError
from eventlog.memory import MemoryLog
from tests.destinations.stage import Stage, stage, track
from tests.privacy.room import kept_up


@pytest.fixture
async def here() -> AsyncIterator[Stage]:
    async with stage() as opened:
        await opened.audience("Buyers", "event('Order Completed').count() >= 1")
        await opened.send(track("ann", "Order Completed"), track("bob", "Order Completed"))
        yield opened


async def looked(here: Stage, times: int) -> None:
    for _ in range(times):
        here.space.regulating.look()
        await here.space.regulating.moved()


def bodies(log: MemoryLog) -> bytes:
    return b"".join(event.body for commit in log.read() for event in commit.events)


async def test_a_regulation_that_cannot_be_stored_is_not_taken(here: Stage) -> None:
    here.log.fail_with = LogFullError("full")
    with pytest.raises(LogError, match="full"):
        await here.space.regulate("reg_1", "DELETE_ONLY", ["ann"])
    here.log.fail_with = None
    assert here.space.regulations() == []
    assert here.space.find("users", "user_id", "ann") is not None


async def test_a_deletion_goes_on_when_the_disk_has_room_again(here: Stage) -> None:
    await here.space.regulate("reg_1", "DELETE_ONLY", ["ann"])
    assert len(await here.space.members("buyers")) == 1
    here.log.fail_with = LogFullError("full")
    async with kept_up(here.space):
        await looked(here, 3)
        assert here.space.regulations()[0]["status"] == "RUNNING"
        assert b"ann" in bodies(here.log)
        here.log.fail_with = None
        here.space.regulating.look()
        await here.space.regulated("reg_1")
    assert here.space.regulations()[0]["status"] == "FINISHED"
    assert b"ann" not in bodies(here.log)


async def test_a_deletion_that_fails_for_long_says_so_and_is_tried_again_at_the_next_start(here: Stage) -> None:
    await here.space.regulate("reg_1", "DELETE_ONLY", ["ann"])
    here.log.fail_with = LogFullError("full")
    async with kept_up(here.space):
        await looked(here, ATTEMPTS_MAX + 2)
        said = here.space.regulations()[0]
        assert (said["status"], said["error"]) == ("FAILED", "full")
        here.log.fail_with = None
        await here.send(track("cay", "Order Completed"))
    await here.restart()
    async with kept_up(here.space):
        await here.space.regulated("reg_1")
    assert here.space.regulations()[0]["status"] == "FINISHED"
    assert "error" not in here.space.regulations()[0]
    assert b"ann" not in bodies(here.log)
