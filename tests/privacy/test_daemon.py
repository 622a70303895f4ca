"""Deletion over HTTP in a real daemon, searched for in every file of its data directory; and after `kill -9`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from adapters.cli.replaying import replayed
from adapters.cli.terminal import bar
from adapters.config import Settings
from adapters.daemon import Daemon, running
from adapters.opening import open_data
from eventlog.clock import WallClock

ROOT = Path(__file__).parents[2]
ANN = (b"ann-7f3a", b"ann.lee@example.com", b"Zanzibar-Road", b"coupon-ANN")
BUYERS = {
    "name": "Buyers",
    "audienceType": "USERS",
    "definition": {"query": "event('Order Completed').count() >= 1"},
}
COUPONS = {
    "name": "Coupons",
    "definition": {"query": "event('Order Completed').last(property('coupon'))", "type": "USERS"},
}
CALLS: list[dict[str, Any]] = [
    {"type": "identify", "userId": "ann-7f3a", "traits": {"email": "ann.lee@example.com", "street": "Zanzibar-Road"}},
    {"type": "track", "userId": "ann-7f3a", "event": "Order Completed", "properties": {"coupon": "coupon-ANN"}},
    {"type": "track", "userId": "bob", "event": "Order Completed", "properties": {"coupon": "coupon-BOB"}},
    {"type": "track", "userId": "ann-7f3a", "event": "", "properties": {"street": "Zanzibar-Road"}},
]
POLLS_MAX = 200
POLL_S = 0.05


def files_with(folder: Path, *texts: bytes) -> list[str]:
    """Return the files below a folder that hold any of these."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name for path in files if any(text in path.read_bytes() for text in texts))


async def entries_with(data: Path, *texts: bytes) -> int:
    """Return how many entries of all spaces' logs, which are compressed, hold any of these."""
    async with open_data(data, WallClock(), holder="a test") as opened:
        parts = [
            part
            for space in opened.spaces()
            for commit in space.log.read()
            for entry in (*commit.events, *commit.facts)
            for part in (getattr(entry, "body", b""), repr(entry).encode())
        ]
    return sum(any(text in part for text in texts) for part in parts)


class Console:
    """What an administrator and a source do."""

    def __init__(self, url: str, admin_token: str, write_key: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, auth=(admin_token, ""), timeout=20)
        self._write_key = write_key

    async def lived(self) -> str:
        """Define an audience and a trait, send calls; return the space's id."""
        space_id = (await self.client.get("/spaces")).json()["data"]["spaces"][0]["id"]
        made = await self.client.post(f"/spaces/{space_id}/audiences", json=BUYERS)
        made.raise_for_status()
        (await self.client.post(f"/spaces/{space_id}/computed-traits", json=COUPONS)).raise_for_status()
        await self.send(*CALLS)
        return str(space_id)

    async def send(self, *calls: dict[str, Any]) -> httpx.Response:
        """Send tracking calls."""
        return await self.client.post("/v1/batch", json={"batch": list(calls)}, auth=(self._write_key, ""))

    async def regulate(self, kind: str, *user_ids: str) -> str:
        """Take a regulation; return its id."""
        given = {"regulationType": kind, "subjectType": "USER_ID", "subjectIds": list(user_ids)}
        answer = await self.client.post("/regulations", json=given)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["regulateId"])

    async def over(self, regulate_id: str) -> dict[str, Any]:
        """Return a regulation once it is over."""
        for _ in range(POLLS_MAX):
            answer = await self.client.get(f"/regulations/{regulate_id}")
            regulation: dict[str, Any] = answer.json()["data"]["regulation"]
            if regulation["overallStatus"] not in ("INITIALIZED", "RUNNING"):
                return regulation
            await anyio.sleep(POLL_S)
        raise AssertionError(f"{regulate_id} does not end: {regulation}")


@asynccontextmanager
async def console(daemon: Daemon) -> AsyncIterator[Console]:
    assert daemon.first is not None
    opened = Console(daemon.url, daemon.first.admin_token, daemon.first.write_key)
    async with opened.client:
        yield opened


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running(Settings(data=str(tmp_path / "data"), port=0)) as started:
        yield started


async def test_a_person_deleted_over_http_is_in_no_file_of_the_data_directory(daemon: Daemon, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with console(daemon) as admin:
        space_id = await admin.lived()
        audience = (await admin.client.get(f"/spaces/{space_id}/audiences")).json()["data"]["audiences"][0]["id"]
        path = f"/spaces/{space_id}/audiences/{audience}"
        export = (await admin.client.post(f"{path}/exports", json={"format": "unformatted"})).json()["data"]["export"]
        for _ in range(POLLS_MAX):
            found = (await admin.client.get(f"{path}/exports/{export['id']}")).json()["data"]["export"]
            if found["status"] == "READY":
                break
            await anyio.sleep(POLL_S)
        assert f"{export['id']}.csv" in files_with(data, *ANN)

        regulate_id = await admin.regulate("SUPPRESS_WITH_DELETE", "ann-7f3a")
        members = (await admin.client.get(f"{path}/members")).json()["data"]
        assert "ann-7f3a" not in str(members)
        assert "bob" in str(members)
        regulation = await admin.over(regulate_id)

        assert (regulation["overallStatus"], regulation["regulationType"]) == ("FINISHED", "SUPPRESS_WITH_DELETE")
        assert regulation["streamStatus"] == [{"id": space_id, "destinationStatus": []}]
        assert regulation["finishedAt"] >= regulation["createdAt"]
        assert files_with(data, *ANN) == []
        refused = await admin.send(CALLS[1])
        assert (refused.status_code, refused.json()["code"]) == (400, "suppressed")
        suppressed = (await admin.client.get("/suppressions")).json()["data"]["suppressed"]
        assert len(suppressed[0]["subjectIds"]) == 1
        acts = (await admin.client.get("/audit-events")).json()["data"]["events"]
        assert [(one["type"], one["resourceId"]) for one in acts if one["resourceType"] == "regulation"] == [
            ("Regulation SUPPRESS_WITH_DELETE", regulate_id)
        ]
        assert files_with(data, *ANN) == []


async def test_exports_that_a_kill_left_after_a_deletion_are_gone_at_the_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running(Settings(data=str(data), port=0)) as daemon, console(daemon) as admin:
        space_id = await admin.lived()
        path = f"/spaces/{space_id}/audiences/buyers/exports"
        made = (await admin.client.post(path, json={"format": "unformatted"})).json()["data"]["export"]
        for _ in range(POLLS_MAX):
            if (await admin.client.get(f"{path}/{made['id']}")).json()["data"]["export"]["status"] == "READY":
                break
            await anyio.sleep(POLL_S)
        assert f"{made['id']}.csv" in files_with(data, *ANN)
    async with open_data(data, WallClock(), holder="a test") as opened:  # as if killed before exports were deleted
        await opened.spaces()[0].regulate("reg-1", "DELETE_ONLY", ["ann-7f3a"])
    assert f"{made['id']}.csv" in files_with(data, *ANN)
    async with running(Settings(data=str(data), port=0)):
        assert [name for name in files_with(data, *ANN) if name.endswith(".csv")] == []


async def test_a_retention_that_a_definition_exceeds_is_a_conflict_unless_forced(daemon: Daemon) -> None:
    async with console(daemon) as admin:
        space_id = await admin.lived()
        path = f"/spaces/{space_id}/settings"
        refused = await admin.client.patch(path, json={"eventRetentionDays": 30})
        assert refused.status_code == 409
        assert "buyers needs events of any age; coupons needs" in refused.text
        forced = await admin.client.patch(path, json={"eventRetentionDays": 30}, params={"force": "true"})
        assert forced.json()["data"]["warnings"] == [
            "buyers needs events of any age",
            "coupons needs events of any age",
        ]
        given = {"name": "More", "audienceType": "USERS", "definition": {"query": "event('A').count() >= 1"}}
        answer = await admin.client.post(f"/spaces/{space_id}/audiences", json=given)
        assert answer.status_code == 400
        assert "eventRetentionDays" in answer.text


def serving(data: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a daemon as a process of its own."""
    command = [sys.executable, "-m", "scenarios.cli", "serve", "--data", str(data), "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    )


def told(process: "subprocess.Popen[str]") -> tuple[str, str, str]:
    """Return the URL of a daemon that has just started, and the secrets of a first start ("" later)."""
    assert process.stdout is not None
    found = {"url": "", "admin token": "", "write key": ""}
    until_s = time.monotonic() + 30
    for line in process.stdout:
        words = line.strip()
        for name in ("admin token", "write key"):
            if words.startswith(name):
                found[name] = words.removeprefix(name).strip()
        if line.startswith("Turnout listens on"):
            found["url"] = "http://" + line.split("http://")[1].split()[0].strip("\"',;")
            break
        assert time.monotonic() < until_s, "the daemon does not start"
    return found["url"], found["admin token"], found["write key"]


@pytest.mark.slow
@pytest.mark.parametrize("pause_s", [0.0, 0.002, 0.01, 0.03])
async def test_a_daemon_killed_during_a_deletion_finishes_it_at_its_next_start(tmp_path: Path, pause_s: float) -> None:
    data = tmp_path / "data"
    process = serving(data)
    try:
        url, admin_token, write_key = await anyio.to_thread.run_sync(told, process)
        admin = Console(url, admin_token, write_key)
        async with admin.client:
            await admin.lived()
            for number in range(20):
                await admin.send(
                    *({"type": "track", "userId": f"u{number}-{n}", "event": "Viewed"} for n in range(200))
                )
            regulate_id = await admin.regulate("DELETE_ONLY", "ann-7f3a", *(f"u3-{n}" for n in range(200)))
            await anyio.sleep(pause_s)
            os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    async with running(Settings(data=str(data), port=0)) as daemon:
        admin = Console(daemon.url, admin_token, write_key)
        async with admin.client:
            assert (await admin.over(regulate_id))["overallStatus"] == "FINISHED"
    assert files_with(data, *ANN) == []
    assert await entries_with(data, *ANN, b'"u3-7"') == 0
    assert await entries_with(data, b'"u4-7"') > 0
    async with open_data(data, WallClock(), holder="a test") as opened:
        space = opened.spaces()[0]
        await space.settle()
        with bar("replaying") as show:
            assert (await replayed(space, show)).differences == []
