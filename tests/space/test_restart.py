"""A space dies anywhere and goes on: the same members, no effect twice, none missing."""

import pytest

from actors import checkpoint as checkpoints
from actors import snapshots, space_core
from actors.entities import STATE_VERSION
from eventlog import history
from eventlog.errors import LogFullError
from eventlog.log import STATES, Changes
from eventlog.memory import MemoryLog
from tests.space.room import Room, call, room

RECENT = "event('A').within(10 seconds).count() >= 2"
CONVERTED = "event('A').where(event('B').within(parent: 5 seconds).count() >= 1).within(20 seconds).count() >= 1"


async def test_what_happened_is_durable_folded_and_announced(here: Room) -> None:
    await here.define("Recent", RECENT)
    await here.track("ann", "A")
    await here.track("ann", "A")
    assert await here.members("recent") == ["ann"]
    await here.wait(60)
    assert await here.members("recent") == []
    assert await here.told() == [("+recent", "ann", 0), ("-recent", "ann", 10)]
    await here.check()


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_a_death_between_two_events_changes_nothing(here: Room, checkpoint: bool) -> None:
    await here.define("Recent", RECENT)
    await here.define("Converted", CONVERTED)
    await here.track("ann", "A")
    await here.track("bob", "A")
    if checkpoint:
        await here.space.checkpoint()
    await here.die()
    await here.track("ann", "B")
    await here.track("bob", "A")
    assert await here.members("recent") == ["bob"]
    assert await here.members("converted") == ["ann"]
    if checkpoint:
        await here.space.checkpoint()
    await here.die()
    await here.wait(60)
    assert await here.told() == [
        ("+converted", "ann", 0),
        ("+recent", "bob", 0),
        ("-recent", "bob", 10),
        ("-converted", "ann", 20),
    ]
    await here.check()


async def test_effects_that_were_not_yet_written_when_it_died_are_written_then_and_once(here: Room) -> None:
    await here.define("Recent", RECENT)
    await here.track("ann", "A")
    await here.space.settle()
    # The event is durable when this returns, its effects are not.
    await here.track("ann", "A")
    await here.die()
    assert await here.told() == [("+recent", "ann", 0)]
    await here.die()
    assert await here.told() == [("+recent", "ann", 0)]
    await here.check()


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_windows_that_closed_while_it_was_down_exit_dated_when_they_closed(here: Room, checkpoint: bool) -> None:
    await here.define("Recent", RECENT)
    await here.track("ann", "A")
    await here.track("ann", "A")
    await here.space.settle()
    if checkpoint:
        await here.space.checkpoint()
    await here.stop()
    here.clock.set_ms(here.clock.now_ms() + 3_600_000)
    await here.die()
    await here.space.advance()
    assert await here.told() == [("+recent", "ann", 0), ("-recent", "ann", 10)]


async def test_a_due_date_that_only_a_new_definition_knows_outlives_a_restart(here: Room) -> None:
    await here.identify("ann", when="2026-03-01T00:00:50Z")
    await here.space.settle()
    await here.space.checkpoint()
    await here.define("Renewing", "trait('when').within_next(10 seconds)")
    await here.space.checkpoint()
    await here.die()
    await here.wait(100)
    assert await here.told() == [("+renewing", "ann", 40), ("-renewing", "ann", 50.001)]


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_profiles_that_merge_around_a_restart_are_one(here: Room, checkpoint: bool) -> None:
    await here.define("Recent", RECENT)
    await here.define("Team", "ANY (event('A').count() >= 2)", entity_type="ACCOUNTS")
    await here.track("anon1", "A")
    await here.send(call("ann", "group", groupId="acme"))
    await here.track("ann", "A")
    if checkpoint:
        await here.space.checkpoint()
        await here.die()
    await here.send(call("ann", "identify", anonymousId="anon1"))
    await here.die()
    assert await here.members("recent") == ["ann"]
    assert await here.members("team") == ["acme"]
    await here.space.checkpoint()
    await here.die()
    assert await here.members("recent") == ["ann"]
    assert await here.told() == [("+recent", "ann", 0), ("+team", "acme", 0)]
    await here.check()


async def test_who_is_put_away_is_found_again_by_time_events_and_accounts(crowded: Room) -> None:
    await crowded.define("Recent", RECENT)
    await crowded.define("Team", "ALL (event('A').within(10 seconds).count() >= 1)", entity_type="ACCOUNTS")
    for name in ("ann", "bob", "cid"):
        await crowded.send(call(name, "group", groupId="acme"))
        await crowded.track(name, "A")
    await crowded.space.settle()
    await crowded.space.checkpoint()
    assert len(crowded.space.partition.entities) == 1
    await crowded.track("ann", "A")
    assert await crowded.members("team") == ["acme"]
    await crowded.space.checkpoint()
    await crowded.wait(5)
    await crowded.track("bob", "A")
    await crowded.space.checkpoint()
    await crowded.wait(30)
    told = await crowded.told()
    assert sorted(told) == sorted(
        [
            ("+team", "acme", 0),
            ("-team", "acme", 0),
            ("+team", "acme", 0),
            ("-team", "acme", 0),
            ("+team", "acme", 0),
            ("+recent", "ann", 0),
            ("+recent", "bob", 5),
            ("-recent", "bob", 10),
            ("-recent", "ann", 10),
            ("-team", "acme", 10),
        ]
    )
    await crowded.check()


async def test_a_full_disk_acknowledges_nothing_and_forgets_what_was_decided_for_it() -> None:
    log = MemoryLog()

    async def reopen() -> MemoryLog:
        return log

    async with room(reopen) as here:
        await here.define("Recent", RECENT)
        await here.track("ann", "A")
        await here.space.settle()
        log.fail_with = LogFullError("no space left")
        message = call("ann", "track", event="A", anonymousId="anon1", messageId="again")
        before = log.last_seq
        with pytest.raises(LogFullError):
            await here.send(message)
        assert log.last_seq == before
        assert here.space.find("users", "anonymous_id", "anon1") is None
        log.fail_with = None
        assert await here.send(message) == []  # no duplicate: it had not been taken
        assert await here.members("recent") == ["ann"]
        assert here.space.duplicates == 0
        await here.send(message)
        assert here.space.duplicates == 1
        await here.check()


async def test_effects_that_a_full_disk_refused_are_written_when_there_is_room_again() -> None:
    log = MemoryLog()

    async def reopen() -> MemoryLog:
        return log

    async with room(reopen) as here:
        await here.define("Recent", RECENT)
        await here.track("ann", "A")
        await here.space.settle()
        await here.track("ann", "A")
        log.fail_with = LogFullError("no space left")
        await here.space.settle()
        assert await here.members("recent") == ["ann"]
        log.fail_with = None
        assert await here.told() == [("+recent", "ann", 0)]
        await here.check()


async def test_a_full_disk_and_then_a_death_lose_no_effect() -> None:
    log = MemoryLog()

    async def reopen() -> MemoryLog:
        return log

    async with room(reopen) as here:
        await here.define("Recent", RECENT)
        await here.track("ann", "A")
        await here.space.settle()
        await here.track("ann", "A")
        log.fail_with = LogFullError("no space left")
        await here.space.settle()
        await here.stop()
        log.fail_with = None
        await here.die()
        assert await here.told() == [("+recent", "ann", 0)]


async def test_close_stores_all_so_that_a_start_folds_nothing(here: Room) -> None:
    await here.define("Recent", RECENT)
    await here.track("ann", "A")
    await here.track("ann", "A")
    await here.space.close()
    assert here.log.cursor("partition") == here.log.last_seq
    await here.die()
    assert await here.members("recent") == ["ann"]
    await here.wait(10)
    assert await here.told() == [("+recent", "ann", 0), ("-recent", "ann", 10)]


async def test_a_checkpoint_of_another_version_is_left_aside_and_the_log_folded_anew(
    here: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.define("Recent", RECENT)
    for name in ("ann", "ann", "bob"):
        await here.track(name, "A")
    await here.space.close()
    told = await here.told()
    for module in (checkpoints, snapshots):
        monkeypatch.setattr(module, "STATE_VERSION", STATE_VERSION + 1)
    rows = [((here.entity(name), 0), b"what an older version kept") for name in ("ann", "bob")]
    await here.log.store([Changes("older", 0, puts=((STATES, rows),))])
    await here.die()
    assert await here.members("recent") == ["ann"]
    assert await here.told() == told
    await here.check()
    await here.space.close()
    core = checkpoints.load_core(here.log)
    assert core is not None
    assert core.state_version == STATE_VERSION + 1


async def test_the_index_of_events_is_written_in_runs_that_are_merged(
    here: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a long life leaves ever more runs, and every question looks into each."""
    monkeypatch.setattr(space_core, "HISTORY_ROWS", 1)
    monkeypatch.setattr(history, "RUNS_MERGED", 2)
    for n in range(40):
        await here.track(("ann", "bob")[n % 2], "A", n=n)
    runs = here.space.events.runs
    assert sum(run.rows for run in runs) + here.space.events.pending_rows == 40
    assert len(runs) <= 8
    await here.die()
    assert len(await here.space.events_of(here.entity("ann"))) == 20
