"""kill -9 at random moments under load: nothing acknowledged is lost, nothing happens twice.

A real daemon, real sockets, a real receiver. After every kill the daemon starts again over the same directory and the
senders go on; at the end the log is read and held against what was acknowledged and what was delivered.
"""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import msgspec
import pytest
from aiohttp import web

from adapters.opening import open_data
from eventlog.clock import WallClock
from eventlog.entries import Entered, Exited, Merged
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.subjects import free_port, ready

ROOT = Path(__file__).parents[2]
SENDERS = 6
AUDIENCES = {
    "twice": "event('A').count() >= 2",
    "lately": "event('A').within(1 second).count() >= 1",
    "not_b": "event('A').where(NOT event('B').within(parent: 1 days).count() >= 1).count() >= 1",
    "of_both": "audience('twice') AND trait('plan') = 'pro'",
}
CONNECTED = "twice"
STARTED: "list[subprocess.Popen[bytes]]" = []


class Receiver:
    """What the webhook got, by message id."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.differing: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        """Take one request."""
        body: dict[str, Any] = msgspec.json.decode(await request.read())
        known = self.bodies.setdefault(body["messageId"], body)
        if known != body:
            self.differing.append(body["messageId"])
        return web.Response()


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, str]]:
    """Listen for webhooks."""
    receiver, port = Receiver(), free_port()
    app = web.Application()
    app.router.add_post("/", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield receiver, f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


async def prepared(data: Path) -> tuple[str, str]:
    """Make a data directory with its audiences; return the admin token and the write key."""
    async with open_data(data, WallClock(), holder="test") as opened:
        assert opened.first is not None
        space = opened.spaces()[0]
        for key, query in AUDIENCES.items():
            await space.create_definition(kind="audience", name=key, entity_type="USERS", query=query)
        await space.create_definition(
            kind="audience", name="any did", entity_type="ACCOUNTS", query="ANY (event('A').count() >= 3)"
        )
        await space.backfilled()
        return opened.first.admin_token, opened.first.write_key


def start(data: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a daemon, which ends with the test whatever becomes of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scenarios.cli", "serve", "--data", str(data), "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "TURNOUT_ALLOW_PRIVATE_DESTINATIONS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def _nothing_outlives() -> Iterator[None]:
    """Kill what a failed test left running."""
    yield
    while STARTED:
        STARTED.pop().kill()


def message(draw: random.Random, number: str) -> dict[str, Any]:
    """Return some call of somebody: tracked, told apart, or found to be the same as a visitor."""
    user, visitor = f"u{draw.randrange(12)}", f"v{draw.randrange(40)}"
    kind = draw.random()
    base: dict[str, Any] = {"messageId": number, "userId": user}
    if kind < 0.1:
        return {**base, "type": "identify", "traits": {"plan": draw.choice(["free", "pro"])}}
    if kind < 0.15:
        return {**base, "type": "group", "groupId": f"g{draw.randrange(3)}"}
    if kind < 0.25:  # at most five visitors a user, by the default limits: the rest are refused as ids
        return {**base, "type": "track", "event": "A", "anonymousId": visitor}
    if kind < 0.5:
        return {"messageId": number, "anonymousId": visitor, "type": "track", "event": draw.choice("AB")}
    return {**base, "type": "track", "event": draw.choice("AB")}


async def connect(url: str, admin: str, hook: str) -> None:
    """Send the changes of one audience to the receiver."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {admin}"}, timeout=20) as client:
        spaces = (await client.get("/spaces")).raise_for_status().json()["data"]["spaces"]
        space = spaces[0]["id"]
        made = await client.post(
            "/sources", json={"slug": "crash", "enabled": True, "metadataId": "http", "settings": {"spaceId": space}}
        )
        source = made.raise_for_status().json()["data"]["source"]["id"]
        settings = {"url": hook, "rate": 10_000, "burst": 10_000}
        body = {"sourceId": source, "metadataId": "webhook", "name": "crm", "settings": settings}
        destination = (await client.post("/destinations", json=body)).raise_for_status().json()["data"]["destination"]
        audiences = (await client.get(f"/spaces/{space}/audiences")).raise_for_status().json()["data"]["audiences"]
        audience = next(one["id"] for one in audiences if one["key"] == CONNECTED)
        path = f"/spaces/{space}/audiences/{audience}/destination-connections"
        asked = {
            "destination": {"id": destination["id"], "type": "webhook"},
            "idSyncConfiguration": [
                {"externalId": "user_id", "strategy": "all"},
                {"externalId": "anonymous_id", "strategy": "all"},
            ],
            "connectionSettings": {"sendIdentify": False, "sendTrack": True},
        }
        (await client.post(path, json=asked)).raise_for_status()


async def load(url: str, write_key: str, acknowledged: list[str], seed: int, kill: "subprocess.Popen[bytes]") -> None:
    """Send from several sides until the daemon is killed, some time soon."""
    draw = random.Random(seed)  # noqa: S311 - a seed, so that the load can be sent again

    async def send(sender: int) -> None:
        own = random.Random(seed * 100 + sender)  # noqa: S311 - as above
        async with httpx.AsyncClient(base_url=url, auth=(write_key, ""), timeout=20) as client:
            for count in range(100_000):
                batch = [message(own, f"{seed}-{sender}-{count}-{n}") for n in range(own.choice([1, 1, 5, 50]))]
                try:
                    answer = await client.post("/v1/batch", json={"batch": batch})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                assert answer.json() == {"success": True}
                acknowledged.extend(one["messageId"] for one in batch)

    async with anyio.create_task_group() as tasks:
        for sender in range(SENDERS):
            tasks.start_soon(send, sender)
        before = len(acknowledged)
        while len(acknowledged) < before + 50:  # noqa: ASYNC110 - several senders add to it
            await anyio.sleep(0.01)  # real time: how far the real daemon is cannot be known otherwise
        await anyio.sleep(draw.random() * 0.4)
        kill.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(kill.wait)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)], ids=["a_few_times", "twenty_times"])
async def test_a_killed_daemon_loses_nothing_and_does_nothing_twice(tmp_path: Path, kills: int) -> None:
    data = tmp_path / "data"
    acknowledged: list[str] = []
    admin, write_key = await prepared(data)
    async with receiving() as (receiver, hook):
        for life in range(kills):
            port = free_port()
            process = start(data, port)
            url = f"http://127.0.0.1:{port}"
            await ready(url)
            if life == 0:
                await connect(url, admin, hook)
            await load(url, write_key, acknowledged, life, process)
        port = free_port()
        process = start(data, port)
        await ready(f"http://127.0.0.1:{port}")
        await delivered(f"http://127.0.0.1:{port}", admin)
        process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(process.wait) == 0
    await held(data, acknowledged, receiver)
    await command("replay", "--check", "--data", str(data))
    members = set((await command("members", CONNECTED, "--data", str(data))).split())
    told = {body["userId"]: body["event"] for body in receiver.bodies.values() if "userId" in body}
    assert {user for user, event in told.items() if event == "Audience Entered"} == members


async def command(*words: str) -> str:
    """Run a command of the command line; return what it says."""
    line = [sys.executable, "-m", "scenarios.cli", *words]
    done = await anyio.to_thread.run_sync(lambda: subprocess.run(line, cwd=ROOT, capture_output=True, text=True))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def delivered(url: str, admin: str) -> None:
    """Wait until nothing is on its way any more."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {admin}"}, timeout=20) as client:
        space = (await client.get("/spaces")).json()["data"]["spaces"][0]["id"]
        destination = (await client.get("/destinations")).json()["data"]["destinations"][0]["id"]
        with anyio.fail_after(60):
            quiet = 0
            while quiet < 5:
                answer = await client.get(f"/spaces/{space}/destinations/{destination}/deliveries")
                status = answer.raise_for_status().json()["data"]["state"]
                busy = status["pending"] + status["inFlight"] + status["retrying"] + status["behind"]
                quiet = 0 if busy else quiet + 1
                await anyio.sleep(0.1)


async def held(data: Path, acknowledged: list[str], receiver: Receiver) -> None:
    """Hold the log against what was acknowledged and what was delivered."""
    path = next((data / "spaces").glob("*.log"))
    log = await SqliteLog.open(path, read_only=True)
    ids: Counter[str] = Counter()
    inside: set[tuple[int, int]] = set()
    entries = 0
    merges = 0
    for commit in log.read():
        ids.update(event.message_id for event in commit.events)
        for fact in commit.facts:
            merges += isinstance(fact, Merged)
            if isinstance(fact, Entered):
                assert (fact.definition, fact.entity) not in inside, f"entered twice: {fact}"
                inside.add((fact.definition, fact.entity))
                entries += 1
            elif isinstance(fact, Exited):
                assert (fact.definition, fact.entity) in inside, f"left without having entered: {fact}"
                inside.discard((fact.definition, fact.entity))
    await log.close()
    assert acknowledged
    assert merges
    assert entries
    assert [one for one, count in ids.items() if count > 1] == []
    missing = [one for one in acknowledged if one not in ids]
    assert missing == []
    assert receiver.differing == []
    assert receiver.bodies, "nothing was delivered"
    assert {body["event"] for body in receiver.bodies.values()} <= {"Audience Entered", "Audience Exited"}
