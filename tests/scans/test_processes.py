"""A space whose log is scanned by processes says what one says that scans itself, whatever becomes of the processes."""

import os
import signal
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from actors.scanning import HERE, Backfill, Question
from actors.space import Space
from adapters.scan_job import FRAME, Order, framed
from adapters.scan_process import TRIES, ScanProcesses
from eventlog.entries import Definition
from eventlog.errors import LogError
from eventlog.log import Log
from eventlog.sqlite import SqliteLog
from tests.space.room import Room

QUERIES = {
    "twice": "event('A').count() >= 2",
    "spent": "event('A').sum(property('x')) >= 10 AND NOT event('B').within(1 days).count() >= 1",
    "not b": "event('A').where(NOT event('B').within(parent: 1 hours).count() >= 1).count() >= 1",
    "nobody's": "NOT event('C').count() >= 1",
    "just spent": "event('A').within(1 hours).sum(property('x')) >= 1",
    "of them": "audience('twice') AND trait('plan') = 'pro'",
}
ROOT = Path(__file__).parents[2]


class Scanned(Room):
    """A room whose space has its log scanned by processes."""

    scans = ScanProcesses(here_entries_max=0)

    async def _run(self, space: Space, ended: anyio.Event, backfills: bool) -> None:
        space.scans = self.scans
        await super()._run(space, ended, backfills)


@asynccontextmanager
async def scanned(folder: Path) -> AsyncIterator[Scanned]:
    """Open a room with some history in it."""
    opened: list[SqliteLog] = []

    async def reopen() -> Log:
        opened.append(await SqliteLog.open(folder / "spa_1.log", durability="off"))
        return opened[-1]

    here = Scanned(reopen)
    here.scans = ScanProcesses(here_entries_max=0)
    async with anyio.create_task_group() as tasks:
        await here.start(tasks)
        for n in range(60):
            await here.track(f"u{n % 7}", "AB"[n % 4 == 3], x=n % 5, ago_s=(60 - n) * 1000)
        for n in range(3):
            await here.identify(f"u{n}", plan="pro")
            await here.track(f"anon{n}", "A", x=20)
        try:
            yield here
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                for log in opened:
                    await log.close()


async def process_of(scans: ScanProcesses) -> int:
    """Return the process that scans, once there is one."""
    with anyio.fail_after(30):
        while not scans.pids:  # noqa: ASYNC110 - another program's process: nobody tells when it is there
            await anyio.sleep(0.005)
    return next(iter(scans.pids))


async def test_backfills_and_questions_answered_by_processes_agree_with_those_answered_here(tmp_path: Path) -> None:
    async with scanned(tmp_path) as here:
        for name, query in QUERIES.items():
            await here.define(name, query)
        await here.define("total", "event('A').sum(property('x'))", kind="trait")
        await here.check()
        now_ms = here.clock.now_ms()
        keys = [view.definition.key for view in here.space.definitions() if view.definition.kind == "audience"]
        by_process: list[Any] = [await here.members(key, at_ms=now_ms - 5_000_000) for key in keys]
        by_process.append((await here.space.preview(QUERIES["twice"])).size)
        here.space.scans = HERE
        by_itself: list[Any] = [await here.members(key, at_ms=now_ms - 5_000_000) for key in keys]
        by_itself.append((await here.space.preview(QUERIES["twice"])).size)
        assert by_process == by_itself
        assert sum(map(bool, by_itself)) > 3, "the questions tell something apart"
        assert here.scans.pids == set()


async def test_a_process_that_is_killed_is_noticed_and_its_scan_done_again(tmp_path: Path) -> None:
    async with scanned(tmp_path) as here:
        await here.define("twice", QUERIES["twice"], wait=False)
        os.kill(await process_of(here.scans), signal.SIGKILL)
        await here.space.backfilled()
        assert len(await here.members("twice")) == 7
        await here.check()


async def test_a_backfill_whose_processes_die_each_time_has_failed_and_says_how_and_a_new_edit_tries_again(
    tmp_path: Path,
) -> None:
    async with scanned(tmp_path) as here:
        await here.define("twice", QUERIES["twice"], wait=False)
        for _ in range(TRIES):
            pid = await process_of(here.scans)
            os.kill(pid, signal.SIGKILL)
            while pid in here.scans.pids:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.005)
        await here.space.backfilled()
        view = here.space.definition("twice")
        assert view.status == "Failed"
        assert f"ended with status -9, {TRIES} times" in (view.failure or "")
        await here.space.edit_definition("twice", query="event('A').count() >= 3")
        await here.space.backfilled()
        assert here.space.definition("twice").status == "Live"
        await here.check()


async def test_who_goes_away_takes_the_process_along(tmp_path: Path) -> None:
    async with scanned(tmp_path) as here:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.space.preview, QUERIES["twice"])
            pid = await process_of(here.scans)
            tasks.cancel_scope.cancel()
        assert not psutil.pid_exists(pid)
        assert here.scans.pids == set()


async def test_a_definition_that_is_deleted_ends_the_process_of_its_backfill(tmp_path: Path) -> None:
    async with scanned(tmp_path) as here:
        await here.define("twice", QUERIES["twice"], wait=False)
        pid = await process_of(here.scans)
        await here.space.delete_definition("twice")
        await here.space.backfilled()
        with anyio.fail_after(30):
            while psutil.pid_exists(pid):  # noqa: ASYNC110 - as above
                await anyio.sleep(0.005)
        assert here.space.definitions() == []


async def test_a_space_that_dies_while_a_process_scans_gathers_the_past_again(tmp_path: Path) -> None:
    async with scanned(tmp_path) as here:
        await here.define("twice", QUERIES["twice"], wait=False)
        pid = await process_of(here.scans)
        await here.die()
        assert not psutil.pid_exists(pid)
        await here.space.backfilled()
        assert len(await here.members("twice")) == 7
        await here.check()


async def test_what_cannot_be_read_is_told_and_not_tried_again(tmp_path: Path) -> None:
    async with scanned(tmp_path) as here:
        log, broken = here.log, tmp_path / "broken.log"
        broken.write_bytes(b"no log at all" * 1000)
        assert isinstance(log, SqliteLog)
        log.path, path = broken, log.path
        job = Question((), (), at_ms=0, until_seq=1)
        with pytest.raises(LogError, match="not a database"):
            async with here.scans.run(log, job, array("I", [0])):
                pass
        log.path = path


async def test_few_scans_run_at_a_time_and_the_others_wait(tmp_path: Path) -> None:
    async with scanned(tmp_path) as here:
        most = 0
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(here.space.preview, QUERIES["twice"])
            done = anyio.Event()

            async def look() -> None:
                nonlocal most
                while not done.is_set():
                    most = max(most, len(here.scans.pids))
                    await anyio.sleep(0.002)

            async with anyio.create_task_group() as lookers:
                lookers.start_soon(look)
                for _ in range(3):
                    assert (await here.space.preview(QUERIES["twice"])).size == 7
                done.set()
        assert 1 <= most <= 2


def test_a_process_whose_daemon_is_gone_ends_by_itself(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(read, True)
    worker = subprocess.Popen(
        [sys.executable, "-m", "adapters.scan_job"],
        stdin=read,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    os.close(read)
    order = framed(Order(str(tmp_path / "none.log"), Question((), (), 0, 0), 4), array("I", [0]))
    os.write(write, order[: FRAME.size + 3])  # half of what it needs to begin
    os.close(write)
    out, err = worker.communicate(timeout=60)
    assert (worker.returncode, out, err) == (1, b"", b"")


def test_a_job_says_up_to_where_it_looks() -> None:

    made = Definition(1, "aud_1", "audience", "a", "A", "USERS", QUERIES["twice"], created_ms=0)
    assert Backfill((made,), (("a", 3), ("b", 7)), at_ms=0).until_seq == 7
    assert Backfill((made,), (), at_ms=0).until_seq == 0
