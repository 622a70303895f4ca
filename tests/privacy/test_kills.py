"""Killed in the middle of a deletion or of a merge, at every write: the next start makes it good."""

import shutil
import sys
from pathlib import Path

import anyio
import pytest

from tests.destinations.stage import DAY_MS, identify, track
from tests.privacy.follows import differences
from tests.privacy.room import Room, room
from tests.privacy.test_deletion import ANN, BUYERS, peopled

ROOT = Path(__file__).parents[2]
KILLS_MAX = 60


async def killed(file: Path, what: str, kill_at: int) -> tuple[bool, list[str]]:
    """Run a process until it is killed before a write; tell whether it was, and what it had acknowledged."""
    command = [sys.executable, "-m", "tests.privacy.crashing", str(file), what, str(kill_at)]
    done = await anyio.run_process(command, cwd=ROOT, check=False)
    assert done.returncode in (0, -9), done.stderr.decode()
    return done.returncode == -9, [line for line in done.stdout.decode().split() if not line.startswith("2")]


async def reopened(file: Path) -> Room:
    """Open what a killed process left, a day on."""
    here = Room(file)
    here.clock.set_ms(here.clock.now_ms() + DAY_MS)
    await here.open()
    return here


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target / "space.log"


@pytest.mark.slow
async def test_a_deletion_is_made_good_after_a_kill_at_any_write(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.audience("Buyers", BUYERS)
        await here.audience("Big accounts", "event('Order Completed').count() >= 2", entity_type="ACCOUNTS")
        await peopled(here)
        await here.step()
    told: list[str] = []
    for kill_at in range(KILLS_MAX):
        file = copied(tmp_path / "space", tmp_path / f"kill-{kill_at}")
        was_killed, acknowledged = await killed(file, "deletion", kill_at)
        after = await reopened(file)
        try:
            if after.space.regulations():
                await after.over()
                told.append(after.regulation()["status"])
                assert after.holders(*ANN) == set(), kill_at
                assert after.space.find("users", "user_id", "ann-7f3a") is None
                assert len(after.space.suppressed()) == 1
                assert "ann-7f3a" not in [after.space.name_of(one) for one, _ in await after.space.members("buyers")]
                assert await after.space.members("big_accounts") == []
            else:
                assert acknowledged == []
            assert "cay" not in acknowledged or after.space.find("users", "user_id", "cay") is not None
            assert await differences(after) == [], kill_at
        finally:
            await after.close()
        if not was_killed:
            break
    assert len(told) > 8
    assert set(told) == {"FINISHED"}


@pytest.mark.slow
async def test_a_merge_is_whole_or_not_there_after_a_kill_at_any_write(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.audience("Buyers", BUYERS)
        await here.audience("Many", "event('Order Completed').count() >= 5")
        await here.send(identify("bob"))
        for number in range(4):
            visitor = {"anonymousId": f"visitor-{number}", "type": "track"}
            await here.send(*[visitor | {"event": event} for event in ("Viewed", "Order Completed")])
    kills = 0
    for kill_at in range(KILLS_MAX):
        file = copied(tmp_path / "space", tmp_path / f"kill-{kill_at}")
        was_killed, acknowledged = await killed(file, "merge", kill_at)
        kills += was_killed
        after = await reopened(file)
        try:
            await after.space.settle()
            assert set(acknowledged) <= {event.message_id for event in after.events()}, kill_at
            bob = after.space.find("users", "user_id", "bob")
            assert bob is not None
            joined = sum(after.space.find("users", "anonymous_id", f"visitor-{n}") == bob for n in range(4))
            orders = sum(event["type"] == "track" for event in await after.space.events_of(bob))
            assert joined >= sum(one.startswith("join") for one in acknowledged)
            assert orders >= 2 * joined
            assert await differences(after) == [], kill_at
        finally:
            await after.close()
        if not was_killed:
            assert joined == 4
            break
    assert kills > 8


async def test_a_killed_deletion_told_its_destination_all_the_same(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        buyers = await here.audience("Buyers", BUYERS)
        await here.connect(buyers, await here.webhook())
        await here.send(track("ann-7f3a", "Order Completed"), track("bob", "Order Completed"))
        await here.space.regulate("reg_1", "DELETE_ONLY", ["ann-7f3a"])
        await here.restart()
        await here.over()
        assert ("ann-7f3a", "Audience Exited") in here.receiver.taken()
        assert here.holders("ann-7f3a") == set()
