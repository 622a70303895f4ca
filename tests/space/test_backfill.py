"""The past that a backfill found is added once, whatever fails or dies half-way, and in bounded memory."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from actors import backfill
from actors.backfill import MERGE_SLICE, CancelledError
from actors.checkpoint import load_core
from actors.history import Canonical, Progress, unheard
from actors.scanning import Job, Page, scan
from eventlog.errors import LogError
from eventlog.log import STATES, Key, Log, Table
from eventlog.memory import MemoryLog
from tests.space.room import Room, call, room

PEOPLE = 4 * MERGE_SLICE + 50
SPEND = "event('A').sum(property('x'))"


class Faulty(MemoryLog):
    """A log where, for a while, one read of a snapshot fails."""

    fails_in: int | None = None  # so many reads from now on

    def get(self, table: Table, key: Key) -> bytes | None:
        """See `Log`."""
        if table == STATES and self.fails_in is not None:
            self.fails_in -= 1
            if self.fails_in < 0:
                self.fails_in = None
                raise LogError("the disk has a bad sector")
        return super().get(table, key)


@asynccontextmanager
async def crowd(log: MemoryLog, *, groups: bool = False) -> AsyncIterator[Room]:
    """Open a room with many people, next to none of them in memory."""

    async def reopen() -> Log:
        return log

    async with room(reopen, active_max=1) as here:
        calls = [call(f"u{n}", "track", event="A", properties={"x": n % 7}) for n in range(PEOPLE)]
        calls += [call(f"u{n}", "track", event="A", properties={"x": 100}) for n in range(0, PEOPLE, 3)]
        if groups:
            calls += [call(f"u{n}", "group", groupId=f"g{n % 5}") for n in range(PEOPLE)]
        await here.send(*calls)
        await here.space.settle()
        await here.space.checkpoint()
        assert len(here.space.partition.entities) <= 1
        yield here


def expected() -> dict[str, int]:
    """Return what everybody spent."""
    return {f"u{n}": n % 7 + (100 if n % 3 == 0 else 0) for n in range(PEOPLE)}


async def test_a_read_that_fails_half_way_makes_nothing_count_twice_for_those_who_share_the_question() -> None:
    log = Faulty()
    async with crowd(log) as here:
        log.fails_in = 2 * MERGE_SLICE + 33
        await here.define("big", f"{SPEND} >= 100", wait=False)
        await here.define("spent", SPEND, kind="trait", wait=False)
        await here.space.backfilled()
        assert log.fails_in is None
        big = here.space.definition("big")
        assert (big.status, big.failure) == ("Failed", "the disk has a bad sector")
        assert here.space.definition("spent").status == "Live"
        assert await here.values("spent") == expected()
        await here.space.edit_definition("big", query=f"{SPEND} >= 101")
        await here.space.backfilled()
        assert len(await here.members("big")) == sum(total >= 101 for total in expected().values())
        await here.check()


@pytest.mark.parametrize("fails_in", [0, 1, 2, 5, MERGE_SLICE])
async def test_somebody_whose_account_cannot_be_read_is_not_added_by_half(fails_in: int) -> None:
    log = Faulty()
    async with crowd(log, groups=True) as here:
        log.fails_in = fails_in
        await here.define("accounts", f"{SPEND} >= 100", entity_type="ACCOUNTS", wait=False)
        await here.define("sums", SPEND, kind="trait", entity_type="ACCOUNTS", wait=False)
        await here.space.backfilled()
        assert here.space.definition("sums").status == "Live"
        sums = {f"g{n}": 0 for n in range(5)}
        for n, total in enumerate(expected().values()):
            sums[f"g{n % 5}"] += total
        assert await here.values("sums") == sums
        await here.check()


async def test_memory_stays_bounded_while_a_past_is_added() -> None:
    async with crowd(MemoryLog()) as here:
        most = 0

        async def look() -> None:
            nonlocal most
            while True:
                if here.space.partly:
                    most = max(most, len(here.space.partition.entities))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await here.define("spent", SPEND, kind="trait")
            tasks.cancel_scope.cancel()
        # Added to since the last checkpoint, one slice more, and who may stay.
        assert 0 < most <= 2 * MERGE_SLICE + 1
        assert await here.values("spent") == expected()


async def until_partly_stored(here: Room, log: MemoryLog) -> None:
    """Return once a checkpoint holds a past that is in by half."""
    with anyio.fail_after(20):
        while True:
            core = load_core(log)
            if core is not None and core.partly:
                return
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("meanwhile", ["nothing", "merge", "new events", "a reference"])
async def test_a_death_between_two_checkpoints_of_a_past_goes_on_where_the_first_one_left_it(meanwhile: str) -> None:
    log = MemoryLog()
    async with crowd(log) as here:
        await here.define("spent", SPEND, kind="trait", wait=False)
        await until_partly_stored(here, log)
        await here.stop()
        totals = expected()
        await here.start(here._tasks, backfills=False)
        if meanwhile == "merge":  # of one who is in already with one who is not
            await here.space.change_settings({"idLimits": {"user_id": {"count": 2, "period": "ever"}}})
            for known, late in (("u1", f"u{PEOPLE - 1}"), ("u2", f"u{PEOPLE - 2}")):
                both = [{"id": who, "type": "user_id", "collection": "users"} for who in (known, late)]
                await here.send({"type": "identify", "userId": known, "context": {"externalIds": both}})
                totals[known] += totals.pop(late)
        elif meanwhile == "new events":
            await here.track("u0", "A", x=1000)
            await here.track(f"u{PEOPLE - 1}", "A", x=1000)
            totals["u0"] += 1000
            totals[f"u{PEOPLE - 1}"] += 1000
        elif meanwhile == "a reference":
            await here.define("big", f"{SPEND} >= 100", wait=False)
        await here.space.settle()
        await here.die()
        await here.space.backfilled()
        assert await here.values("spent") == totals
        await here.check()


@pytest.mark.parametrize("is_long", [True, False])
async def test_a_start_behind_the_switch_gathers_nothing_of_a_long_log(
    monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    log = MemoryLog()
    monkeypatch.setattr(backfill, "CHEAP_ENTRIES", 0 if is_long else 1_000_000)
    monkeypatch.setattr(backfill, "CHANGED_MAX", 1_000_000)
    async with crowd(log) as here:
        here.space.active_max = 1_000_000
        await here.define("spent", SPEND, kind="trait")
        scans: list[object] = []

        def noted(*args: Any) -> list[Page]:
            scans.append(args)
            return list(scan(*args))

        monkeypatch.setattr(backfill, "scan", noted)
        await here.die()
        await here.space.backfilled()
        assert (len(scans), await here.values("spent")) == (0 if is_long else 1, expected())
        await here.check()


async def test_a_definition_deleted_while_its_past_is_added_leaves_nothing_that_counts_twice() -> None:
    log = MemoryLog()
    async with crowd(log) as here:
        await here.define("big", f"{SPEND} >= 100", wait=False)
        await until_partly_stored(here, log)
        await here.define("spent", SPEND, kind="trait", wait=False)
        await here.space.delete_definition("big")
        await here.space.backfilled()
        assert await here.values("spent") == expected()
        await here.check()


class Halting:
    """Scans that stop half-way until they are told to go on, and tell when their caller has ended one."""

    def __init__(self) -> None:
        self.at_half = anyio.Event()
        self.go_on = anyio.Event()
        self.was_ended = anyio.Event()

    @asynccontextmanager
    async def run(
        self, log: Log, job: Job, canonical: Canonical, hear: Progress = unheard
    ) -> AsyncIterator[Iterable[Page]]:
        """See `Scans`."""
        last_seq = job.until_seq
        hear(last_seq // 2)
        self.at_half.set()
        await self.go_on.wait()
        try:
            hear(last_seq)
        except CancelledError:
            self.was_ended.set()
            raise
        yield scan(job, log, canonical)


async def test_progress_is_told_from_0_to_1_with_the_seconds_that_are_left() -> None:
    async with crowd(MemoryLog()) as here:
        here.space.scans = scans = Halting()
        await here.define("spent", SPEND, kind="trait", wait=False)
        await scans.at_half.wait()
        here.clock.set_ms(here.clock.now_ms() + 8_000)
        half = here.space.definition("spent")
        assert (half.status, half.locked) == ("Backfilling", True)
        assert half.progress == pytest.approx(0.5, abs=0.01)
        assert half.seconds_left == pytest.approx(8, rel=0.05)
        await here.define("waits", f"{SPEND} >= 100", wait=False)
        waits = here.space.definition("waits")
        assert (waits.status, waits.progress, waits.seconds_left) == ("Preparing", 0.0, None)
        scans.go_on.set()
        await here.space.backfilled()
        done = here.space.definition("spent")
        assert (done.status, done.locked, done.progress, done.seconds_left) == ("Live", False, 1.0, None)


async def test_a_scan_hears_that_its_definition_is_gone_and_ends() -> None:
    async with crowd(MemoryLog()) as here:
        here.space.scans = scans = Halting()
        await here.define("spent", SPEND, kind="trait", wait=False)
        await scans.at_half.wait()
        await here.space.delete_definition("spent")
        scans.go_on.set()
        with anyio.fail_after(5):
            await scans.was_ended.wait()
        await here.space.backfilled()
        await here.check()
