"""`turnout replay --check` and `--as-of` on the directory of a daemon that is at work, which notices nothing."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from msgspec import Struct

from actors.checkpoint import PARTITION
from actors.space import Space
from adapters.cli.replay_snapshot import scratch
from adapters.config import Settings
from adapters.daemon import Daemon, running
from adapters.opening import open_data
from eventlog.clock import SimulatedClock
from eventlog.datadir import SCRATCH_PREFIX, holder_of
from eventlog.entries import DefinitionSaved
from eventlog.errors import LogFullError
from eventlog.log import ENTITIES, IDS, MEMBERS, STATES, TIMERS, Changes
from scenarios.benchmarks.subjects import incoming
from tests.privacy.test_daemon import Console, console

BATCH_EVENTS = 50
BEFORE = 2_000  # events acknowledged before anything is looked at


class Ran(Struct, frozen=True):
    """How a command in a process of its own went."""

    status: int
    results: list[dict[str, Any]]
    told: str


async def replay(data: Path, *options: str) -> Ran:
    """Run `turnout replay` on a directory, in a process of its own."""
    command = [sys.executable, "-m", "scenarios.cli", "replay", "--data", str(data), "--format", "json", *options]
    done = await anyio.run_process(command, check=False)
    return Ran(done.returncode, json.loads(done.stdout or b"[]"), " ".join(done.stderr.decode().split()))


class Load:
    """Events that keep coming, each batch acknowledged before the next."""

    def __init__(self, admin: Console) -> None:
        self.acknowledged = 0
        self.has_begun = anyio.Event()  # once BEFORE are
        self._admin = admin

    async def run(self, source: int) -> None:
        """Send until cancelled."""
        for number in count():
            calls: list[dict[str, Any]] = [
                {
                    "type": "track",
                    "userId": f"u{(number * 7 + n) % 400}",
                    "event": "Order Completed",
                    "messageId": f"{source}-{number}-{n}",
                    "properties": {"total": n},
                }
                for n in range(BATCH_EVENTS)
            ]
            assert (await self._admin.send(*calls)).json() == {"success": True}
            self.acknowledged += len(calls)
            if self.acknowledged >= BEFORE:
                self.has_begun.set()


@asynccontextmanager
async def at_work(data: Path) -> AsyncIterator[tuple[Daemon, Load]]:
    """Run a daemon with an audience and a trait, under load."""
    async with running(Settings(data=str(data), port=0)) as daemon, console(daemon) as admin:
        await admin.lived()
        load = Load(admin)
        async with anyio.create_task_group() as tasks:
            for source in range(2):
                tasks.start_soon(load.run, source)
            await load.has_begun.wait()
            yield daemon, load
            tasks.cancel_scope.cancel()


async def test_a_daemon_under_load_is_checked_and_goes_on_meanwhile(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with at_work(data) as (daemon, load):
        space = daemon.data.spaces()[0]
        holder = holder_of(data)
        for with_checkpoint in (False, True):
            if with_checkpoint:
                await space.checkpoint()
            before, seq = load.acknowledged, space.log.last_seq
            ran = await replay(data, "--check")
            assert (ran.status, ran.results[0]["differences"]) == (0, []), ran.told
            assert ran.results[0]["entries"] >= seq
            assert load.acknowledged > before
        assert holder_of(data) == holder
        assert list(data.glob(f"{SCRATCH_PREFIX}*")) == []
        as_of = await replay(data, "--as-of", "2100-01-01")
        assert as_of.status == 0
        assert {row["key"]: row["size"] > 0 for row in as_of.results[0]["standing"]}["buyers"]
        nothing = await replay(data, "--as-of", "2020-01-01")
        assert (nothing.results[0]["entries"], nothing.results[0]["standing"]) == (0, [])
    assert (await replay(data, "--check")).status == 0


async def test_a_definition_that_is_backfilling_is_said_and_does_not_fail_the_check(tmp_path: Path) -> None:
    data, clock = tmp_path / "data", SimulatedClock(1_772_323_200_000)
    async with open_data(data, clock, holder="turnout serve") as opened:
        space = opened.spaces()[0]
        body = '{"type":"track","userId":"ann","event":"A","messageId":"m"}'
        await space.ingest(incoming(iter([body.encode()]), clock.now_ms()), [], "src")
        async with space.still:  # nothing folds, so nothing is gathered
            query = "event('A').count() >= 1"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    lambda: space.create_definition(kind="audience", name="X", entity_type="USERS", query=query)
                )
                async for commit in space.log.follow():
                    if any(isinstance(fact, DefinitionSaved) for fact in commit.facts):
                        break
                ran = await replay(data, "--check")
                then = await replay(data, "--as-of", "2100-01-01")
                tasks.cancel_scope.cancel()
    assert ran.status == 0, ran.told
    assert "x backfilling; done in the copy, too" in ran.told
    assert [(row["key"], row["size"]) for row in ran.results[0]["standing"]] == [("x", 1)]
    assert [(row["key"], row["size"]) for row in then.results[0]["standing"]] == [("x", 0)]  # it had not decided


def _altered_state(space: Space) -> Changes:
    """Return a change of the first entity's custom traits."""
    (key, data), *_ = space.log.range(STATES)
    parts = msgspec.msgpack.decode(data)
    parts[4] = {"made_up": [0, 1, True]}
    return Changes(PARTITION, space.log.cursor(PARTITION), puts=((STATES, [(key, msgspec.msgpack.encode(parts))]),))


def _torn_state(data: bytes) -> Callable[[Space], Changes]:
    """Return what puts other bytes in the place of the first entity's state."""

    def put(space: Space) -> Changes:
        (key, _), *_ = space.log.range(STATES)
        return Changes(PARTITION, space.log.cursor(PARTITION), puts=((STATES, [(key, data)]),))

    return put


def _lost(table: Any) -> Callable[[Space], Changes]:
    def changes(space: Space) -> Changes:
        (key, _), *_ = space.log.range(table)
        return Changes("test", 0, deletes=((table, [key]),))

    return changes


def _led_elsewhere(space: Space) -> Changes:
    (key, _), (_, other), *_ = space.log.range(IDS)
    return Changes("test", 0, puts=((IDS, [(key, other)]),))


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (_altered_state, "states: live and replay differ for 1, {name} (entity 1): its custom traits, made_up"),
        (_torn_state(b""), "states: live and replay differ for 1, {name} (entity 1): what is stored cannot be read"),
        (
            _torn_state(b"\x93\x01\xa1\xff\x02"),
            "states: live and replay differ for 1, {name} (entity 1): what is stored",
        ),
        (_lost(STATES), "states: live and replay differ for 1, {name} (entity 1), whom live does not know"),
        (_lost(TIMERS), "timers: live and replay differ for 1, {name} (entity 1): none, but due "),
        (_lost(MEMBERS), "recent: live and replay differ for 1 members, {name} first"),
        (_led_elsewhere, "ids: live and replay differ for 1, user_id 'u"),
        (_lost(ENTITIES), "identities: live and replay differ for 1"),
    ],
    ids=["a trait", "an emptied state", "a torn state", "a state", "a timer", "a member", "an id", "an identity"],
)
async def test_what_is_wrong_in_the_checkpoint_of_a_running_daemon_is_named(
    tmp_path: Path, alter: Callable[[Space], Changes], told: str
) -> None:
    data, clock = tmp_path / "data", SimulatedClock(1_772_323_200_000)
    async with open_data(data, clock, holder="turnout serve") as opened:
        space = opened.spaces()[0]
        query = "event('A').within(3 days).count() >= 1"
        await space.create_definition(kind="audience", name="Recent", entity_type="USERS", query=query)
        await space.backfilled()
        bodies = [f'{{"type":"track","userId":"u{n}","event":"A","messageId":"m{n}"}}'.encode() for n in range(9)]
        await space.ingest(incoming(iter(bodies), clock.now_ms()), [], "src")
        await space.close()
        assert (await replay(data, "--check")).status == 0
        await space.log.store([alter(space)])
        ran = await replay(data, "--check")
        assert ran.status == 1
        assert told.format(name=space.name_of(1)) in ran.told
        assert holder_of(data) is not None


def test_where_there_is_no_room_for_copies_it_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look() -> None:
        async with open_data(tmp_path / "data", SimulatedClock(0), holder="a test") as opened:
            space_id = opened.spaces()[0].id
            monkeypatch.setattr("adapters.cli.replay_snapshot.ROOM_LEFT_BYTES", 1 << 60)
            with scratch(tmp_path / "data") as room:
                async with room.log(space_id):
                    pass

    with pytest.raises(LogFullError, match="copies of it need"):
        anyio.run(look)
