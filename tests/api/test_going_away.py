"""Who goes away takes along what was worked out for them: over real sockets, with scans in processes of their own."""

import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import psutil
import pytest

from actors.scanning import HERE, AbandonedError, Page
from actors.space import Space
from adapters.daemon import Daemon
from adapters.http.previews import Previews, PreviewSpec
from adapters.scan_process import ScanProcesses
from tests.api.room import BUYERS, NOON, Room, data_of, open_room, track

PATIENCE_S = 30


@pytest.fixture
async def scanned(daemon: Daemon, client: httpx.AsyncClient) -> AsyncIterator[tuple[Room, ScanProcesses]]:
    """A space with some history that processes scan."""
    room = await open_room(daemon, client)
    await room.send(*[track(f"u{n}", total=n) for n in range(20)])
    assert isinstance(room.space, Space)
    room.space.scans = scans = ScanProcesses(here_entries_max=0)
    yield room, scans
    room.space.scans = HERE


async def scanning(scans: ScanProcesses) -> int:
    """Return the process that scans, once there is one."""
    with anyio.fail_after(PATIENCE_S):
        while not scans.pids:  # noqa: ASYNC110 - another program's process: nobody tells when it is there
            await anyio.sleep(0.002)
    return next(iter(scans.pids))


async def gone(pid: int) -> None:
    """Return once a process is gone."""
    with anyio.fail_after(PATIENCE_S):
        while psutil.pid_exists(pid):  # noqa: ASYNC110 - as above
            await anyio.sleep(0.002)


async def waited_for(daemon: Daemon, count: int) -> None:
    """Return once so many requests wait for previews."""
    front: Any = daemon._front
    previews: Previews = front._api.app.state.api.previews
    with anyio.fail_after(PATIENCE_S):
        while previews.waiting != count:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.002)


@asynccontextmanager
async def asked(room: Room, path: str) -> AsyncIterator[anyio.abc.SocketStream]:
    """Send a request by hand, and close the connection at the end of the block, whatever has come back."""
    address, port = room.daemon.url.removeprefix("http://").split(":")
    async with await anyio.connect_tcp(address, int(port)) as stream:
        authorization = room.client.headers["authorization"]
        await stream.send(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\r\n".encode())
        yield stream


@pytest.mark.parametrize("known", ["", f"&known={NOON}"])
async def test_a_reader_of_the_past_who_hangs_up_ends_the_scan(scanned: tuple[Room, ScanProcesses], known: str) -> None:
    room, scans = scanned
    made = await room.audience()
    path = f"{room.at}/audiences/{made['id']}/members?at={NOON}{known}"
    async with asked(room, path):
        pid = await scanning(scans)
    await gone(pid)
    assert scans.pids == set()
    assert len(data_of(await room.client.get(path))["members"]) == 20


async def test_the_last_who_waits_for_a_preview_and_hangs_up_cancels_it(scanned: tuple[Room, ScanProcesses]) -> None:
    room, scans = scanned
    body = {"audienceType": "USERS", "definition": {"query": BUYERS}}
    made = data_of(await room.client.post(f"{room.at}/audiences/previews", json=body))["audiencePreview"]
    path = f"{room.at}/audiences/previews/{made['id']}"
    pid = await scanning(scans)
    os.kill(pid, signal.SIGSTOP)  # it is at work until it is killed
    async with asked(room, f"{path}?wait=60"):
        await waited_for(room.daemon, 1)
    await gone(pid)
    found = await room.until(path, "audiencePreview", "RUNNING")
    assert (found["status"], found["failureReason"]) == ("FAILED", "who waited for it went away")
    waited = data_of(await room.client.post(f"{room.at}/audiences/previews", json=body))["audiencePreview"]
    answer = await room.client.get(f"{room.at}/audiences/previews/{waited['id']}", params={"wait": "60"})
    assert data_of(answer)["audiencePreview"]["size"]["count"] == 20


async def test_one_of_two_who_wait_may_hang_up(scanned: tuple[Room, ScanProcesses]) -> None:
    room, scans = scanned
    body = {"audienceType": "USERS", "definition": {"query": BUYERS}}
    made = data_of(await room.client.post(f"{room.at}/audiences/previews", json=body))["audiencePreview"]
    path = f"{room.at}/audiences/previews/{made['id']}"
    found: list[dict[str, Any]] = []

    async def stay() -> None:
        found.append(data_of(await room.client.get(path, params={"wait": "60"}))["audiencePreview"])

    pid = await scanning(scans)
    os.kill(pid, signal.SIGSTOP)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stay)
        async with asked(room, f"{path}?wait=60"):
            await waited_for(room.daemon, 2)
        await waited_for(room.daemon, 1)
        os.kill(pid, signal.SIGCONT)
    assert found[0]["size"]["count"] == 20


async def test_the_diff_of_an_edit_is_cancelled_by_its_builder(scanned: tuple[Room, ScanProcesses]) -> None:
    room, scans = scanned
    made = await room.audience()
    body = {"audienceType": "USERS", "definition": {"query": BUYERS}, "editOf": made["id"]}
    preview = data_of(await room.client.post(f"{room.at}/audiences/previews", json=body))["audiencePreview"]
    path = f"{room.at}/audiences/previews/{preview['id']}"
    pid = await scanning(scans)
    assert data_of(await room.client.delete(path)) == {"status": "SUCCESS"}
    await gone(pid)
    assert (await room.client.get(path)).status_code == 404
    assert (await room.client.delete(path)).status_code == 404


async def test_a_preview_that_nobody_asks_for_ends_and_says_why(scanned: tuple[Room, ScanProcesses]) -> None:
    room, scans = scanned
    previews = Previews(unasked_s_max=0.0)
    made = previews.start(room.space, PreviewSpec(BUYERS, "USERS"))
    with anyio.fail_after(PATIENCE_S):
        while (found := previews.get(room.space_id, made.id)).status == "RUNNING":
            await anyio.lowlevel.checkpoint()
    assert (found.status, found.failure) == ("FAILED", "nobody asked for it for 0 seconds")
    assert scans.pids == set()
    await previews.close()


@pytest.mark.parametrize("wait", ["-1", "61", "soon", "nan"])
async def test_nobody_waits_for_ever(room: Room, wait: str) -> None:
    preview = await room.preview(definition={"query": BUYERS})
    answer = await room.client.get(f"{room.at}/audiences/previews/{preview['id']}", params={"wait": wait})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "wait"


async def test_a_scan_in_a_thread_ends_once_nobody_waits_for_it(
    daemon: Daemon, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await open_room(daemon, client)
    await room.send(*[track(f"u{n}") for n in range(5)])
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def slow(job: Any, log: Any, canonical: Any, hear: Any) -> list[Page]:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        try:
            hear(1)
        except AbandonedError as error:
            raised.append(error)
            raise
        finally:
            ended.set()
        return []

    monkeypatch.setattr("actors.scanning.scan", slow)
    body = {"audienceType": "USERS", "definition": {"query": BUYERS}}
    made = data_of(await room.client.post(f"{room.at}/audiences/previews", json=body))["audiencePreview"]
    with anyio.fail_after(PATIENCE_S):
        while not begun.is_set():  # noqa: ASYNC110 - a thread's
            await anyio.sleep(0.002)
        await room.client.delete(f"{room.at}/audiences/previews/{made['id']}")
        go_on.set()
        while not ended.is_set():  # noqa: ASYNC110 - a thread's
            await anyio.sleep(0.002)
    assert len(raised) == 1
