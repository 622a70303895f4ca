"""Hundreds of definitions at once: their pasts are gathered together, none holds up or spoils the others."""

from array import array
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from actors import backfill
from actors.history import Progress, unheard
from actors.scanning import HERE, Backfill, Job, Page
from eventlog.errors import LogError
from eventlog.log import Log
from eventlog.memory import MemoryLog
from tests.space.room import Room, room

PEOPLE = 40


class Watched:
    """Scans that are counted, that can be held up, and of which some fail."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []  # the keys of each scan's definitions
        self.go_on = anyio.Event()
        self.go_on.set()
        self.spoilt = ""  # a scan with this definition fails

    @asynccontextmanager
    async def run(
        self, log: Log, job: Job, canonical: "array[int]", hear: Progress = unheard
    ) -> AsyncIterator[Iterable[Page]]:
        """See `Scans`."""
        if isinstance(job, Backfill):
            keys = [one.key for one in job.definitions]
            self.batches.append(keys)
            await self.go_on.wait()
            if self.spoilt in keys:
                raise LogError("it died three times")
        async with HERE.run(log, job, canonical, hear) as pages:
            yield pages


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Room, Watched]]:
    """Open a room with some history, whose scans are watched."""
    log = MemoryLog()

    async def reopen() -> Log:
        return log

    async with room(reopen) as here:
        for n in range(PEOPLE):
            await here.track(f"u{n}", "A", x=n % 10)
            await here.track(f"u{n}", f"B{n % 4}", x=n)
        scans = Watched()
        here.space.scans = scans
        yield here, scans


def query_of(n: int) -> str:
    """Return the n-th of some definitions: of one event name or of several, sharing questions or not."""
    return (
        f"event('A').where(property('x') = {n % 10}).count() >= 1",
        f"event('B{n % 4}').where(property('x') > {n}).count() >= 1",
        f"event('A').count() >= {n % 3 + 1}",
        f"event('A').count() >= 1 AND NOT event('B1').within({n} days).count() >= 1",
    )[n % 4]


async def test_those_that_wait_are_gathered_by_one_scan_and_none_counts_twice() -> None:
    async with watched() as (here, scans):
        scans.go_on = anyio.Event()
        for n in range(60):
            await here.define(f"d{n}", query_of(n), wait=False)
            if n % 7 == 0:
                await here.track(f"u{n % PEOPLE}", "A", x=n % 10)
        assert {view.status for view in here.space.definitions()} == {"Backfilling", "Preparing"}
        scans.go_on.set()
        await here.space.backfilled()
        assert len(scans.batches) == 2
        assert {view.status for view in here.space.definitions()} == {"Live"}
        await here.track("u1", "A", x=3)
        await here.check()
        await here.die()
        await here.check()


async def test_a_batch_is_bounded_and_who_has_waited_longest_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "BATCH_MAX", 5)
    async with watched() as (here, scans):
        scans.go_on = anyio.Event()
        for n in range(12):
            await here.define(f"d{n}", f"event('A').where(property('x') = {n}).count() >= 1", wait=False)
        await here.space.edit_definition("d3", enabled=False)
        await here.space.edit_definition("d3", enabled=True)
        scans.go_on.set()
        await here.space.backfilled()
        assert scans.batches[0] == ["d0"]
        assert scans.batches[1:] == [["d1", "d2", "d4", "d5", "d6"], ["d7", "d8", "d9", "d10", "d11"], ["d3"]]
        await here.check()


async def test_a_batch_of_a_long_log_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "WORK_MAX", 3 * (2 * PEOPLE + 60))
    async with watched() as (here, scans):
        scans.go_on = anyio.Event()
        for n in range(10):
            await here.define(f"d{n}", f"event('A').where(property('x') = {n}).count() >= 1", wait=False)
        scans.go_on.set()
        await here.space.backfilled()
        assert max(map(len, scans.batches)) in (2, 3)
        await here.check()


async def test_what_is_deleted_meanwhile_leaves_the_rest_of_its_batch_alone() -> None:
    async with watched() as (here, scans):
        await here.define("first", "event('A').count() >= 5")
        scans.go_on = anyio.Event()
        for n in range(8):
            await here.define(f"d{n}", query_of(n), wait=False)
        await here.space.delete_definition("d0")
        await here.space.delete_definition("d4")
        await here.space.edit_definition("d5", enabled=False)
        scans.go_on.set()
        await here.space.backfilled()
        statuses = {view.definition.key: view.status for view in here.space.definitions()}
        assert statuses.pop("d5") == "Disabled"
        assert set(statuses.values()) == {"Live"}
        for entity in here.space.partition.entities.values():
            asked = {one.index for one in here.space.partition.program.asked.values()}
            assert {*entity.s, *entity.a} <= asked
        await here.space.edit_definition("d5", enabled=True)
        await here.space.backfilled()
        await here.check()


async def test_one_whose_scan_fails_does_not_fail_the_others_of_its_batch() -> None:
    async with watched() as (here, scans):
        scans.go_on = anyio.Event()
        scans.spoilt = "d4"
        for n in range(6):
            await here.define(f"d{n}", f"event('A').where(property('x') = {n}).count() >= 1", wait=False)
        scans.go_on.set()
        await here.space.backfilled()
        failures = {view.definition.key: view.failure for view in here.space.definitions()}
        assert failures.pop("d4") == "it died three times"
        assert set(failures.values()) == {None}
        assert scans.batches[1] == ["d1", "d2", "d3", "d4", "d5"]
        assert scans.batches[2:] == [["d1"], ["d2"], ["d3"], ["d4"], ["d5"]]
        await here.check()


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_a_space_that_dies_with_hundreds_waiting_goes_on_with_all_of_them(checkpoint: bool) -> None:
    async with watched() as (here, scans):
        scans.go_on = anyio.Event()
        for n in range(120):
            await here.define(f"d{n}", query_of(n), wait=False)
        if checkpoint:
            await here.space.checkpoint()
        await here.die()
        await here.track("u2", "A", x=7)
        await here.space.backfilled()
        assert {view.status for view in here.space.definitions()} == {"Live"}
        await here.check()
        await here.die(backfills=False)
        await here.check()


async def test_hundreds_are_changed_one_by_one_and_each_says_what_hindsight_says() -> None:
    async with watched() as (here, _):
        for n in range(150):
            await here.define(f"d{n}", query_of(n), wait=False)
        await here.space.backfilled()
        for n in range(0, 150, 3):
            await change(here, n)
        await here.space.backfilled()
        for n in range(PEOPLE):
            await here.track(f"u{n}", "A", x=n % 7)
        await here.check()
        await here.die()
        await here.check()


async def change(here: Room, n: int) -> None:
    """Edit, disable or delete a definition."""
    how: dict[str, Any] = {"query": query_of(n + 2)} if n % 2 else {"enabled": False}
    if n % 5 == 0:
        await here.space.delete_definition(f"d{n}")
    else:
        await here.space.edit_definition(f"d{n}", **how)
