"""`turnout replay`: what stands follows from the log, and where it does not, it is told."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from adapters.opening import open_data
from eventlog.clock import SimulatedClock, WallClock
from eventlog.datadir import DataDir
from eventlog.entries import AnyFact, Entered, Exited
from eventlog.log import MEMBERS, META, Changes
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.subjects import incoming
from tests.cli.conftest import Turnout


def results(told: str) -> dict[str, Any]:
    (one,) = json.loads(told)
    found: dict[str, Any] = one
    return found


def sizes(told: str) -> dict[str, int]:
    return {row["key"]: row["size"] for row in results(told)["standing"]}


def record(shop: Path, fact: AnyFact) -> None:
    async def write() -> None:
        async with open_data(shop, WallClock(), holder="a test") as data:
            await data.spaces()[0].record([fact])

    anyio.run(write)


def on_log(shop: Path, changes: Changes) -> None:
    async def write() -> None:
        with DataDir.open(shop, holder="a test") as folder:
            log = await SqliteLog.open(folder.space_path(folder.space_ids()[0]))
            await log.store([changes])
            await log.close()

    anyio.run(write)


def test_a_sound_log_passes_and_gives_the_same_hash_every_time(turnout: Turnout, shop: Path) -> None:
    ran = turnout("replay", "--check", "--data", shop, "--format", "json")
    assert ran.status == 0
    assert "everything that stands follows from the log" in ran.err
    again = turnout("replay", "--check", "--data", shop, "--format", "json")
    assert results(again.out)["hash"] == results(ran.out)["hash"]
    assert results(ran.out)["effects"] > 1_000
    assert sizes(ran.out)["big_spenders"] == 145


@pytest.mark.parametrize("fact", [Entered(1, 2, 0, 1), Exited(1, 1, 0, 1)], ids=["entered", "exited"])
def test_an_effect_that_does_not_follow_is_told_and_fails(turnout: Turnout, shop: Path, fact: AnyFact) -> None:
    record(shop, fact)
    ran = turnout("replay", "--check", "--data", shop)
    assert ran.status == 1
    assert f"the log has {fact!r}, the replay nothing" in " ".join(ran.err.split())
    assert "log and live state differ" in ran.err


def test_a_member_that_does_not_follow_is_told_and_fails_until_all_is_built_anew(turnout: Turnout, shop: Path) -> None:
    on_log(shop, Changes("test", 0, puts=((MEMBERS, [((2, 1), (0).to_bytes(8, "big"))]),)))
    ran = turnout("replay", "--check", "--data", shop)
    assert ran.status == 1
    assert "lapsing: live and replay differ for 1 members" in ran.err
    assert turnout("replay", "--data", shop).status == 0
    assert turnout("replay", "--check", "--data", shop).status == 0


def test_building_anew_gives_what_stood(turnout: Turnout, shop: Path) -> None:
    before = turnout("replay", "--check", "--data", shop, "--format", "json")
    members = turnout("members", "big_spenders", "--data", shop, "--format", "json").out
    ran = turnout("replay", "--data", shop, "--format", "json")
    assert (ran.status, sizes(ran.out)) == (0, sizes(before.out))
    assert results(ran.out)["hash"] == results(before.out)["hash"]
    assert turnout("members", "big_spenders", "--data", shop, "--format", "json").out == members


def test_building_anew_keeps_the_key_that_suppressed_ids_are_hashed_with(turnout: Turnout, shop: Path) -> None:
    def key() -> bytes | None:
        async def read() -> bytes | None:
            async with open_data(shop, WallClock(), holder="a test") as data:
                return data.spaces()[0].log.get(META, ("suppression_key",))

        return anyio.run(read)

    before = key()
    turnout("replay", "--data", shop)
    assert key() == before is not None


def test_as_of_a_time_only_what_was_received_by_then_counts_and_nothing_changes(turnout: Turnout, shop: Path) -> None:
    log = next((shop / "spaces").glob("*.log"))
    before = log.read_bytes()
    ran = turnout("replay", "--as-of", "2020-01-01", "--data", shop, "--format", "json")
    assert (ran.status, sizes(ran.out)) == (0, {})
    assert results(ran.out)["entries"] == 0
    now = turnout("replay", "--as-of", "2100-01-01", "--data", shop, "--format", "json")
    assert sizes(now.out)["big_spenders"] == 145
    assert log.read_bytes() == before
    assert not list(shop.glob("turnout-replay-*"))


def test_as_of_a_time_what_was_due_by_then_has_happened(turnout: Turnout, tmp_path: Path) -> None:
    start_ms = 1_772_323_200_000  # 2026-03-01

    async def live() -> None:
        clock = SimulatedClock(start_ms)
        async with open_data(tmp_path / "data", clock, holder="a test") as data:
            space = data.spaces()[0]
            query = "event('A').within(3 days).count() >= 1"
            await space.create_definition(kind="audience", name="Recent", entity_type="USERS", query=query)
            body = b'{"type":"track","userId":"ann","event":"A","messageId":"m"}'
            await space.ingest(incoming(iter([body]), start_ms), [], "src")

    anyio.run(live)
    for as_of, size in (("2026-03-03T23:59:59Z", 1), ("2026-03-04", 0)):
        ran = turnout("replay", "--as-of", as_of, "--data", tmp_path / "data", "--format", "json")
        assert sizes(ran.out) == {"recent": size}, as_of
