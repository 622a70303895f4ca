"""Exports written by a process: the same bytes, and nothing left behind whatever becomes of it or of the caller."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest
from msgspec import msgpack

from adapters.export import Snapshot, take_snapshot, write_export
from adapters.export_format import ExportSpec, Format
from adapters.export_job import FRAME, Order
from eventlog.errors import LogError, LogFullError
from eventlog.memory import MemoryLog
from tests.space.room import Room, room

ROOT = Path(__file__).parents[2]
QUERY = "event('A').count() >= 1"


@asynccontextmanager
async def peopled(people: int = 30) -> AsyncIterator[Room]:
    """Open a room with some people, each with other ids."""
    log = MemoryLog()

    async def reopen() -> MemoryLog:
        return log

    async with room(reopen) as here:
        await here.define("some", QUERY)
        for n in range(people):
            await here.track(f"u{n}", "A")
            await here.identify(f"u{n}", **({"email": f'{n},"quoted"@x.io'} if n % 3 else {}))
        await here.space.settle()
        yield here


def children() -> list[int]:
    """Return the processes that this one has started, as far as they live."""
    return [one.pid for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_a_process_writes_the_bytes_that_a_thread_writes(tmp_path: Path) -> None:
    async with peopled() as here:
        view = here.space.definition("some")
        formats: tuple[Format, ...] = ("unformatted", "formatted", "single_column")
        for form in formats:
            by_thread, by_process = tmp_path / f"{form}-thread.csv", tmp_path / f"{form}-process.csv"
            shares: list[float] = []
            rows = await write_export(here.space, view, ExportSpec(form), by_thread)
            again = await write_export(
                here.space, view, ExportSpec(form), by_process, progress=shares.append, here_rows_max=0
            )
            assert (rows, shares[-1]) == (again, 1.0)
            assert by_thread.read_bytes() == by_process.read_bytes()
            assert len(by_thread.read_text().splitlines()) == rows + 1
        assert len(names(tmp_path)) == 6


async def test_ids_given_after_the_snapshot_are_left_out_by_a_process_too(tmp_path: Path) -> None:
    async with peopled(2) as here:
        view = here.space.definition("some")
        snapshot = await take_snapshot(here.space, view)
        await here.identify("u0", email="late@x.io")
        await here.space.settle()
        file = tmp_path / "out.csv"
        await write_export(here.space, view, ExportSpec("formatted"), file, snapshot=snapshot, here_rows_max=0)
        assert "late@x.io" not in file.read_text()


async def test_an_export_whose_process_is_killed_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    async with peopled() as here:
        view = here.space.definition("some")
        snapshot = await take_snapshot(here.space, view)
        many = Snapshot(snapshot.at_ms, snapshot.known_seq, list(snapshot.entities) * 20_000)

        def kill(share: float) -> None:
            for pid in children():
                os.kill(pid, signal.SIGKILL)

        with pytest.raises(LogError, match="ended with status -9"):
            await write_export(
                here.space, view, ExportSpec("formatted"), tmp_path / "out.csv", snapshot=many, progress=kill
            )
        assert names(tmp_path) == []
        assert children() == []


async def test_who_goes_away_takes_the_process_of_an_export_along(tmp_path: Path) -> None:
    async with peopled() as here:
        view = here.space.definition("some")
        snapshot = await take_snapshot(here.space, view)
        many = Snapshot(snapshot.at_ms, snapshot.known_seq, list(snapshot.entities) * 20_000)
        met: list[int] = []
        with anyio.CancelScope() as scope:

            def leave(share: float) -> None:
                met.extend(children())
                scope.cancel()

            await write_export(
                here.space, view, ExportSpec("formatted"), tmp_path / "out.csv", snapshot=many, progress=leave
            )
        assert met
        assert not any(map(psutil.pid_exists, met))
        assert names(tmp_path) == []


async def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    async with peopled() as here:
        view = here.space.definition("some")
        with pytest.raises(LogError, match="No such file or directory"):
            await write_export(here.space, view, ExportSpec(), tmp_path / "gone" / "out.csv", here_rows_max=0)
        (tmp_path / "out.partial").symlink_to("/dev/full")
        with pytest.raises(LogFullError, match="the disk is full"):
            await write_export(here.space, view, ExportSpec(), tmp_path / "out.csv", here_rows_max=0)


def test_a_process_whose_daemon_is_gone_ends_and_its_half_file_is_no_export(tmp_path: Path) -> None:
    order = msgpack.encode(Order(str(tmp_path / "out.partial"), ExportSpec(), 1))
    sent = FRAME.pack(len(order)) + order + FRAME.pack(1000) + b"half a frame"
    done = subprocess.run(
        [sys.executable, "-m", "adapters.export_job"],
        input=sent,
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
