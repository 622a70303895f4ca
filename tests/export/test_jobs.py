"""Exports as jobs: the very people of the request whatever a restart does, and files that go when their time is up."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from msgspec import json

from actors.door import accept
from actors.space import Space, open_space
from adapters import export, export_jobs
from adapters.export import ExportSpec
from adapters.export_jobs import WAITING_MAX, ExportRecord, Exports
from eventlog.clock import SimulatedClock
from eventlog.entries import Rejected
from eventlog.errors import NotFoundError, TooManyError
from eventlog.memory import MemoryLog

NOON_MS = 1_772_366_400_000
DAY_MS = 86_400_000
USER_IDS = ExportSpec("single_column", "user_id", "none")


class Desk:
    """A space on a clock that stands still, and exports of it."""

    def __init__(self, space: Space, folder: Path) -> None:
        self.space = space
        self.folder = folder
        self.exports = self.begun()
        self._count = 0

    @property
    def clock(self) -> SimulatedClock:
        """Return the clock."""
        assert isinstance(self.space.clock, SimulatedClock)
        return self.space.clock

    def begun(self) -> Exports:
        """Return exports as a process that starts has them."""
        exports = Exports(self.folder, self.space.clock, lambda _: self.space, keep_ms=DAY_MS)
        exports.start()
        return exports

    async def restart(self) -> None:
        """Stop what runs, and begin anew with what lies there."""
        await self.exports.close()
        self.exports = self.begun()

    async def buy(self, user_id: str, total: float = 1) -> None:
        """Let somebody buy."""
        self._count += 1
        call = {"type": "track", "userId": user_id, "event": "Bought", "properties": {"total": total}}
        raw = json.encode({**call, "messageId": f"m{self._count}"})
        now_ms = self.clock.now_ms()
        taken = accept(raw, kind=None, received_ms=now_ms, sent_at=None, index=0, source="src", new_id=lambda: "x")
        assert not isinstance(taken, Rejected)
        await self.space.ingest([taken], [], "src")

    async def ask(self, key: str = "buyers", spec: ExportSpec = USER_IDS) -> ExportRecord:
        """Ask for an export."""
        return await self.exports.create(self.space, self.space.definition(key), spec)

    async def text(self, record: ExportRecord) -> str:
        """Return the file of an export once it is finished."""
        await self.exports.finished(record.id)
        found = self.exports.get(record.space_id, record.definition_id, record.id)
        assert found.status == "READY", found.failure
        return self.exports.path(record).read_text()


@asynccontextmanager
async def a_desk(folder: Path) -> AsyncIterator[Desk]:
    async with open_space("s", MemoryLog(), SimulatedClock(NOON_MS), suppression_key=b"k" * 32) as space:
        bought, spend = "event('Bought').count() >= 1", "event('Bought').sum(property('total'))"
        await space.create_definition(kind="audience", name="Buyers", entity_type="USERS", query=bought)
        await space.create_definition(kind="trait", name="Spend", entity_type="USERS", query=spend)
        await space.backfilled()
        desk = Desk(space, folder / "exports")
        try:
            yield desk
        finally:
            await desk.exports.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path) as made:
        yield made


async def test_a_restart_changes_nobody_who_is_in_an_export_not_even_within_the_same_millisecond(desk: Desk) -> None:
    await desk.buy("ann", 2)
    audience, trait = await desk.ask(), await desk.ask("spend")
    await desk.restart()
    await desk.buy("late")
    await desk.buy("ann", 3)
    assert await desk.text(audience) == "user_id\nann\n"
    assert await desk.text(trait) == "user_id,value\nann,2\n"
    assert sorted(path.suffix for path in desk.folder.iterdir()) == [".csv", ".csv", ".json", ".json"]


@pytest.mark.parametrize("left", [None, b"", b"[1,2", b'[1,2,"AAA=",null]'])
async def test_an_export_whose_snapshot_is_lost_is_taken_again_as_of_its_request(
    desk: Desk, left: bytes | None
) -> None:
    await desk.buy("ann")
    asked = await desk.ask()
    await desk.exports.close()
    kept = desk.folder / f"{asked.id}.snapshot"
    kept.unlink() if left is None else kept.write_bytes(left)
    desk.clock.set_ms(NOON_MS + 1)
    await desk.buy("late")
    await desk.restart()
    assert await desk.text(asked) == "user_id\nann\n"


async def test_files_go_when_their_time_is_up(desk: Desk) -> None:
    await desk.buy("ann")
    asked = await desk.ask()
    await desk.text(asked)
    desk.clock.set_ms(NOON_MS + DAY_MS - 1)
    await desk.text(asked)
    desk.clock.set_ms(NOON_MS + DAY_MS)
    with pytest.raises(NotFoundError):
        desk.exports.get(asked.space_id, asked.definition_id, asked.id)
    assert list(desk.folder.iterdir()) == []


async def test_a_start_clears_what_nobody_knows_and_goes_on_past_what_it_cannot_read(desk: Desk) -> None:
    await desk.buy("ann")
    asked = await desk.ask()
    await desk.text(asked)
    await desk.exports.close()
    for name in ("exp_1.spool", "exp_1.partial", "exp_1.snapshot", "exp_1.new"):
        (desk.folder / name).write_text("left over")
    (desk.folder / "exp_2.json").write_text('{"id": 5')
    await desk.restart()
    assert await desk.text(asked) == "user_id\nann\n"
    assert {path.name for path in desk.folder.iterdir()} == {f"{asked.id}.csv", f"{asked.id}.json", "exp_2.json"}


async def test_a_file_that_was_taken_away_is_told(desk: Desk) -> None:
    await desk.buy("ann")
    asked = await desk.ask()
    await desk.text(asked)
    desk.exports.path(asked).unlink()
    await desk.restart()
    found = desk.exports.get(asked.space_id, asked.definition_id, asked.id)
    assert (found.status, found.failure) == ("FAILED", "its file is gone from the data directory")


async def test_dropping_a_space_leaves_no_trace_of_its_exports_running_ones_too(desk: Desk) -> None:
    await desk.buy("ann")
    await desk.text(await desk.ask())
    await desk.ask()
    assert await desk.exports.drop_space("other") == 0
    assert await desk.exports.drop_space("s") == 2
    assert list(desk.folder.iterdir()) == []


async def test_who_is_deleted_while_an_export_is_asked_for_is_not_in_it(desk: Desk) -> None:
    await desk.buy("ann")
    await desk.buy("bob")
    limiter, go_on = anyio.to_thread.current_default_thread_limiter(), threading.Event()
    tokens, limiter.total_tokens = limiter.total_tokens, 1
    try:
        busy = asyncio.create_task(anyio.to_thread.run_sync(go_on.wait))  # files are written one after another
        asking = asyncio.create_task(desk.ask(spec=ExportSpec("formatted")))
        with anyio.fail_after(5):
            while limiter.statistics().tasks_waiting == 0:  # the snapshot is taken, its file waits to be written
                await anyio.lowlevel.checkpoint()
            await desk.space.regulate("reg_1", "DELETE_ONLY", ["ann"])
            assert await desk.exports.drop_space("s") == 0
        go_on.set()
        await busy
    finally:
        go_on.set()
        limiter.total_tokens = tokens
    [_, row] = (await desk.text(await asking)).splitlines()
    assert row.endswith(",bob")


async def test_more_than_may_wait_are_turned_away(desk: Desk) -> None:
    asked = await asyncio.gather(*(desk.ask() for _ in range(WAITING_MAX + 5)), return_exceptions=True)
    assert sum(isinstance(one, TooManyError) for one in asked) == 5
    for one in asked:
        if not isinstance(one, BaseException):
            await desk.text(one)
    await desk.text(await desk.ask())


async def test_an_audience_that_is_gone_fails_its_export_with_the_reason(desk: Desk) -> None:
    await desk.buy("ann")
    asked = await desk.ask()
    await desk.exports.close()
    await desk.space.delete_definition("buyers")
    await desk.restart()
    await desk.exports.finished(asked.id)
    found = desk.exports.get(asked.space_id, asked.definition_id, asked.id)
    assert found.status == "FAILED"
    assert "buyers" in (found.failure or "") or "aud_" in (found.failure or "")


async def test_progress_and_the_seconds_left_are_told_until_it_is_ready(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "SLICE_ROWS", 1)
    monkeypatch.setattr(export_jobs, "ROWS_PER_S_GUESS", 0.5)
    await desk.restart()
    for name in ("ann", "bob", "eve", "joe"):
        await desk.buy(name)
    asked = await desk.ask()
    assert (asked.status, asked.progress, asked.estimated_s) == ("PENDING", 0.0, 8.0)
    seen: dict[tuple[str, float, float | None], None] = {}
    with anyio.fail_after(5):
        while True:
            now = desk.exports.get(asked.space_id, asked.definition_id, asked.id)
            seen[now.status, now.progress, now.estimated_s] = None
            if now.status == "READY":
                break
            await anyio.lowlevel.checkpoint()
    told = list(seen)
    assert told[-1] == ("READY", 1.0, 0.0)
    running = [(progress, left) for status, progress, left in told if status == "RUNNING"]
    assert {(0.25, 6.0), (0.5, 4.0), (0.75, 2.0)} <= set(running)
    assert running == sorted(running)


async def test_expired_files_go_also_while_nobody_asks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_jobs, "PURGE_EVERY_S", 0.0)
    await desk.restart()
    await desk.buy("ann")
    await desk.text(await desk.ask())
    assert len(list(desk.folder.iterdir())) == 2
    desk.clock.set_ms(NOON_MS + DAY_MS)
    with anyio.fail_after(5):
        while list(desk.folder.iterdir()):  # asking would purge them
            await anyio.lowlevel.checkpoint()
