"""kill -9 while a backfill, an edit or an export runs: the audience, and the file, are whole in the end."""

import csv
import io
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import psutil
import pytest

from scenarios.benchmarks.restart import load_into
from scenarios.benchmarks.subjects import free_port, prepare, ready
from tests.crash.test_kill import STARTED, command, start

QUERY = "event('Product Viewed').count() >= 1"


@pytest.fixture(autouse=True)
def _no_daemon_outlives() -> Iterator[None]:
    """Kill what a failed test left running."""
    yield
    while STARTED:
        STARTED.pop().kill()


@asynccontextmanager
async def asked(url: str, token: str) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """Open a client, with the path of the audiences."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        spaces = (await client.get("/spaces")).raise_for_status().json()["data"]["spaces"]
        yield client, f"/spaces/{spaces[0]['id']}/audiences"


async def scanner_of(pid: int) -> psutil.Process:
    """Return the process that scans for a daemon, once there is one."""
    with anyio.fail_after(30):
        while True:
            for child in psutil.Process(pid).children():
                return child
            await anyio.sleep(0.005)


async def live(client: httpx.AsyncClient, audiences: str) -> dict[str, Any]:
    """Return the audience once its backfill has ended."""
    with anyio.fail_after(90):
        while True:
            rows = (await client.get(audiences)).raise_for_status().json()["data"]["audiences"]
            one: dict[str, Any] = next(row for row in rows if row["key"] == "seen")
            if one["status"] in ("Live", "Failed"):
                return one
            await anyio.sleep(0.05)


@pytest.mark.parametrize("whom", ["the_process", "the_daemon"])
async def test_a_backfill_outlives_the_death_of(tmp_path: Path, whom: str) -> None:
    data = tmp_path / "data"
    _, admin = await prepare(data, ())
    await load_into(data, 20_000, 1_000)
    port = free_port()
    process = start(data, port)
    url = f"http://127.0.0.1:{port}"
    await ready(url)
    async with asked(url, admin) as (client, audiences):
        body = {"name": "Seen", "audienceType": "USERS", "definition": {"query": QUERY, "type": "USERS"}}
        (await client.post(audiences, json=body)).raise_for_status()
        scanner = await scanner_of(process.pid)
        if whom == "the_process":
            os.kill(scanner.pid, signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL)
            await anyio.to_thread.run_sync(process.wait)
            gone, left = await anyio.to_thread.run_sync(lambda: psutil.wait_procs([scanner], timeout=30))
            assert (len(gone), left) == (1, []), "the process ends with its daemon"
            process = start(data, port)
            await ready(url)
        one = await live(client, audiences)
    assert one["status"] == "Live", one
    process.send_signal(signal.SIGTERM)
    assert await anyio.to_thread.run_sync(process.wait) == 0
    assert [file.name for file in (data / "spaces").iterdir() if file.name.startswith(".scan-")] == []
    members = (await command("members", "seen", "--data", str(data))).split()
    assert len(members) > 100
    await command("replay", "--check", "--data", str(data))


async def killed(process: subprocess.Popen[bytes], data: Path, port: int) -> subprocess.Popen[bytes]:
    """Kill a daemon, and return the one started behind it once it is ready."""
    process.send_signal(signal.SIGKILL)
    await anyio.to_thread.run_sync(process.wait)
    process = start(data, port)
    await ready(f"http://127.0.0.1:{port}")
    return process


async def test_an_edit_and_an_export_outlive_kills(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _, admin = await prepare(data, ())
    await load_into(data, 20_000, 1_000)
    port = free_port()
    process = start(data, port)
    url = f"http://127.0.0.1:{port}"
    await ready(url)
    async with asked(url, admin) as (client, audiences):
        body = {"name": "Seen", "audienceType": "USERS", "definition": {"query": QUERY}}
        (await client.post(audiences, json=body)).raise_for_status()
        at = f"{audiences}/{(await live(client, audiences))['id']}"
        before = await names(client, at)
        edited = {"definition": {"query": QUERY.replace(".count() >= 1", ".within(3650 days).count() >= 3")}}
        (await client.patch(at, json=edited)).raise_for_status()
        await scanner_of(process.pid)
        process = await killed(process, data, port)  # while the new version's past is gathered
        assert await names(client, at) == before, "the old membership stays readable"
        with anyio.fail_after(60):
            while (await client.get(at)).json()["data"]["audience"]["locked"]:  # noqa: ASYNC110 - another program
                await anyio.sleep(0.002)
        process = await killed(process, data, port)  # right behind the switch: what follows from it is written anew
        assert (await live(client, audiences))["status"] == "Live"
        after = await names(client, at)
        assert 0 < len(after) < len(before)
        made = (await client.post(f"{at}/exports", json={"format": "formatted"})).raise_for_status().json()
        process = await killed(process, data, port)  # before anybody could have written it, or in the middle
        export = await exported(client, f"{at}/exports/{made['data']['export']['id']}")
        rows = list(csv.DictReader(io.StringIO(export)))
        assert sorted(row["user_id"] for row in rows) == after
    process.send_signal(signal.SIGTERM)
    assert await anyio.to_thread.run_sync(process.wait) == 0
    assert [file.suffix for file in (data / "exports").iterdir() if file.suffix not in (".csv", ".json")] == []
    await command("replay", "--check", "--data", str(data))


async def names(client: httpx.AsyncClient, at: str) -> list[str]:
    """Return the names of all members."""
    found: list[str] = []
    params = {"pagination[count]": "1000"}
    while True:
        page = (await client.get(f"{at}/members", params=params)).raise_for_status().json()["data"]
        found += [one["name"] for one in page["members"]]
        if "next" not in page["pagination"]:
            return sorted(found)
        params["pagination[cursor]"] = page["pagination"]["next"]


async def exported(client: httpx.AsyncClient, at: str) -> str:
    """Return the file of an export once it is written."""
    with anyio.fail_after(60):
        while True:
            one = (await client.get(at)).raise_for_status().json()["data"]["export"]
            if one["status"] == "READY":
                return (await client.get(f"{at}/download")).raise_for_status().text
            assert one["status"] in ("PENDING", "RUNNING"), one
            await anyio.sleep(0.02)
