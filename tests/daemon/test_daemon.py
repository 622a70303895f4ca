"""The daemon as a whole: a first start, the stock clients, its health, its clock, and stops that lose nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import rudderstack.analytics.client as rudder_client
import segment.analytics.client as segment_client

from adapters.config import Settings
from adapters.daemon import Daemon, running
from adapters.http.health import METRIC_NAMES, wanted_time_ms
from adapters.opening import open_data
from eventlog.clock import WallClock
from eventlog.entries import Exited
from eventlog.errors import ConfigError, InvalidError, LogHeldError

ROOT = Path(__file__).parents[2]
NOON = "2026-03-01T12:00:00Z"
TRACKED = {"userId": "ann", "event": "Order Completed"}
BUYERS = {
    "name": "Buyers",
    "audienceType": "USERS",
    "definition": {"query": "event('Order Completed').within(7 days).count() >= 1"},
}


def settings_for(tmp_path: Path, **more: Any) -> Settings:
    return Settings(data=str(tmp_path / "data"), port=0, **more)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running(settings_for(tmp_path, simulated_clock=NOON)) as started:
        yield started


@pytest.fixture
async def admin(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    assert daemon.first is not None
    async with httpx.AsyncClient(base_url=daemon.url, auth=(daemon.first.admin_token, ""), timeout=20) as client:
        yield client


async def messages_of(daemon: Daemon, profile: str) -> list[dict[str, Any]]:
    """Return the messages in the log of the user with this user_id."""
    space = daemon.data.spaces()[0]
    entity = space.find("users", "user_id", profile)
    assert entity is not None
    return await space.events_of(entity)


# -- starting --------------------------------------------------------------------------------------------------------


async def test_a_first_start_tells_secrets_that_work_and_a_second_one_tells_none(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as daemon:
        first = daemon.first
        assert first is not None
    async with running(settings_for(tmp_path)) as daemon, httpx.AsyncClient(base_url=daemon.url) as client:
        assert daemon.first is None
        answer = await client.post("/v1/track", json=TRACKED, auth=(first.write_key, ""))
        assert answer.json() == {"success": True}
        answer = await client.get("/spaces", headers={"authorization": f"Bearer {first.admin_token}"})
        assert [space["slug"] for space in answer.json()["data"]["spaces"]] == ["default"]


async def test_a_second_daemon_is_told_who_has_the_data(daemon: Daemon) -> None:
    with pytest.raises(LogHeldError, match=rf"held by turnout serve \(pid {os.getpid()}, {re.escape(daemon.url)}\)"):
        async with running(daemon.settings):
            pass


async def test_a_port_that_is_taken_stops_the_start(daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {daemon.port}"):
        async with running(Settings(data=str(tmp_path / "other"), port=daemon.port)):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "localhost"])  # noqa: S104 - that is what it is for
async def test_a_daemon_is_reached_where_it_says(tmp_path: Path, host: str) -> None:
    async with running(settings_for(tmp_path, host=host)) as daemon, httpx.AsyncClient() as client:
        assert (await client.get(f"{daemon.url}/health/live")).json() == {"status": "live"}


# -- events in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("module", [segment_client, rudder_client], ids=["segment", "rudderstack"])
async def test_a_stock_client_works_with_only_its_host_and_write_key_changed(
    daemon: Daemon, module: Any, gzip: bool
) -> None:
    assert daemon.first is not None
    write_key = daemon.first.write_key
    failed: list[Exception] = []

    def send() -> None:
        client = module.Client(
            write_key, host=daemon.url, gzip=gzip, on_error=lambda error, _: failed.append(error), max_retries=0
        )
        client.identify("ann", {"email": "Ann@Example.com"})
        client.track("ann", "Order Completed", {"total": 129.5, "items": ["a"]})
        client.page("ann", "Shop", "Home")
        client.screen("ann", "App", "Cart")
        client.group("ann", "acme", {"plan": "pro"})
        client.alias("anonymous-1", "ann")
        client.flush()
        client.join()

    await anyio.to_thread.run_sync(send)
    assert failed == []
    messages = await messages_of(daemon, "ann")
    assert [message["type"] for message in messages] == ["identify", "track", "page", "screen", "group", "alias"]
    space = daemon.data.spaces()[0]
    assert space.find("users", "email", "ann@example.com") == space.find("users", "anonymous_id", "anonymous-1")
    assert space.find("accounts", "group_id", "acme") is not None


async def test_a_stock_client_is_told_of_a_write_key_that_is_wrong(daemon: Daemon) -> None:
    failed: list[Exception] = []

    def send() -> None:
        client = segment_client.Client(
            "wrong", host=daemon.url, on_error=lambda error, _: failed.append(error), max_retries=0
        )
        client.track("ann", "Order Completed")
        client.flush()
        client.join()

    await anyio.to_thread.run_sync(send)
    assert [str(error).startswith("[Segment] unauthorized") for error in failed] == [True]


async def test_events_go_to_the_space_of_their_source(daemon: Daemon, admin: httpx.AsyncClient) -> None:
    other = (await admin.post("/spaces", json={"name": "Other"})).json()["data"]["space"]
    body = {"slug": "web", "enabled": True, "metadataId": "x", "settings": {"spaceId": other["id"]}}
    answer = await admin.post("/sources", json=body)
    assert answer.status_code == 201
    [write_key] = answer.json()["data"]["source"]["writeKeys"]
    await admin.post("/v1/track", json=TRACKED, auth=(write_key, ""))
    spaces = {space.id: space for space in daemon.data.spaces()}
    found = {space_id: space.find("users", "user_id", "ann") is not None for space_id, space in spaces.items()}
    assert found.pop(other["id"]) is True
    assert list(found.values()) == [False]


# -- health, metrics, clock ------------------------------------------------------------------------------------------


async def test_health_answers_anyone_and_nothing_else_does(daemon: Daemon) -> None:
    async with httpx.AsyncClient(base_url=daemon.url) as stranger:
        assert (await stranger.get("/health/live")).status_code == 200
        answer = await stranger.get("/health/ready")
        assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
        for path in (
            "/metrics",
            "/clock",
            "/spaces",
            "/v1/spaces/default/x",
            "/nowhere",
            "/",
            "/health",
            "/v1/track/x",
        ):
            assert (await stranger.get(path)).status_code == 401, path
        assert (await stranger.post("/health/live")).status_code == 405


async def test_metrics_take_a_token_that_may_read_and_count_what_happened(
    daemon: Daemon, admin: httpx.AsyncClient
) -> None:
    assert daemon.first is not None
    await admin.post("/v1/track", json=TRACKED, auth=(daemon.first.write_key, ""))
    await admin.post("/v1/track", json={"userId": "ann"}, auth=(daemon.first.write_key, ""))
    _, profiles = await daemon.control.issue_token("p", ["profiles:read"])
    _, reader = await daemon.control.issue_token("a", ["audiences:read"], space_id="default")
    assert (await admin.get("/metrics", auth=(profiles, ""))).status_code == 403
    answer = await admin.get("/metrics", auth=(reader, ""))
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert "turnout_events_taken_total 1.0" in lines
    assert 'turnout_events_refused_total{code="missing_event"} 1.0' in lines
    assert 'turnout_tracking_requests_total{status="200"} 1.0' in lines
    assert 'turnout_tracking_requests_total{status="400"} 1.0' in lines
    assert "turnout_tracking_request_seconds_count 2.0" in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    ours = {line.split("{")[0].split(" ")[0] for line in lines if line.startswith("turnout_")}
    undeclared = {name for name in ours if not any(name.startswith(known) for known in METRIC_NAMES)}
    assert undeclared == set()
    for accept in ("application/openmetrics-text; version=x", "application/json", ";,"):
        assert (await admin.get("/metrics", headers={"accept": accept})).status_code == 200


def test_every_metric_is_documented() -> None:
    documented = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in METRIC_NAMES if f"`{name}" not in documented] == []


async def test_a_window_closes_when_the_clock_is_moved(daemon: Daemon, admin: httpx.AsyncClient) -> None:
    assert daemon.first is not None
    created = (await admin.post("/spaces/default/audiences", json=BUYERS)).json()["data"]["audience"]
    assert created["key"] == "buyers"
    await daemon.data.spaces()[0].backfilled()
    await admin.post("/v1/track", json=TRACKED, auth=(daemon.first.write_key, ""))
    path = "/v1/spaces/default/collections/users/profiles/user_id:ann/traits"

    async def is_member() -> bool:
        return bool((await admin.get(path)).json()["traits"]["buyers"])

    #  [event----------)   in at 7 d - 1 ms, out at 7 d
    assert await is_member()
    answer = await admin.put("/clock", json={"now": "2026-03-08T11:59:59.999Z"})
    assert answer.json() == {"data": {"now": "2026-03-08T11:59:59.999Z"}}
    assert await is_member()
    await admin.put("/clock", json={"now": 1_772_971_200_000})
    assert not await is_member()
    assert (await admin.get("/clock")).json() == {"data": {"now": "2026-03-08T12:00:00.000Z"}}


async def test_a_clock_that_cannot_be_moved_so_says_why(daemon: Daemon, admin: httpx.AsyncClient) -> None:
    answer = await admin.put("/clock", json={"now": "2026-02-28"})
    assert (answer.status_code, answer.json()["errors"][0]["type"]) == (409, "clock_goes_back")
    for body in (b"", b"{}", b"[]", b'{"now":null}', b'{"now":"noon"}', b'{"now":-1}', b'{"now":1e999}', b"x" * 2_000):
        answer = await admin.put("/clock", content=body)
        assert answer.status_code == 400, body
    _, reader = await daemon.control.issue_token("a", ["audiences:write"])
    assert (await admin.put("/clock", json={"now": NOON}, auth=(reader, ""))).status_code == 403
    assert (await admin.delete("/clock")).status_code == 405


def test_a_time_is_read_in_either_spelling() -> None:
    assert wanted_time_ms(b'{"now": "2026-03-01T12:00:00Z"}') == wanted_time_ms(b'{"now": 1772366400000}')
    with pytest.raises(InvalidError, match="expected a time as in"):
        wanted_time_ms(b'{"now": "later"}')


async def test_the_clock_of_a_real_daemon_stands_not_still(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as daemon, httpx.AsyncClient(base_url=daemon.url) as client:
        assert daemon.first is not None
        answer = await client.put("/clock", json={"now": "2099-01-01"}, auth=(daemon.first.admin_token, ""))
        assert (answer.status_code, answer.json()["errors"][0]["type"]) == (409, "not_simulated")


# -- real time, real processes ---------------------------------------------------------------------------------------


async def test_an_exit_happens_on_time_with_no_event(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as daemon, httpx.AsyncClient(base_url=daemon.url, timeout=20) as client:
        assert daemon.first is not None
        admin, writer = (daemon.first.admin_token, ""), (daemon.first.write_key, "")
        query = "event('Order Completed').within(1 second).count() >= 1"
        await client.post("/spaces/default/audiences", json={**BUYERS, "definition": {"query": query}}, auth=admin)
        space = daemon.data.spaces()[0]
        await space.backfilled()
        await client.post("/v1/track", json=TRACKED, auth=writer)
        await space.settle()
        begun_s = time.monotonic()
        assert space.definition("buyers").size == 1
        with anyio.fail_after(5):
            async for commit in space.changes():
                exits = [fact for fact in commit.facts if isinstance(fact, Exited)]
                if exits:
                    break
        assert 0.5 < time.monotonic() - begun_s < 2  # due after 1 s; the contract allows 1 s more
        assert 0 <= commit.at_ms - exits[0].at_ms < 1_000


def started(tmp_path: Path, *more: str) -> tuple["subprocess.Popen[str]", str, str, str]:
    """Start `turnout serve`; return the process, its address, the admin token and the write key."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scenarios.cli", "serve", "--data", str(tmp_path / "data"), "--port", "0", *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    assert process.stdout is not None
    while "Turnout listens on" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line

    def found(pattern: str) -> str:
        match = re.search(pattern, said)
        return match[1] if match else ""

    return process, found(r"listens on (\S+)"), found(r"admin token\s+(\S+)"), found(r"write key\s+(\S+)")


def ended(process: "subprocess.Popen[str]") -> int:
    """Return the exit status of a process that is on its end; one that is not is killed."""
    try:
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    return process.returncode


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)])
async def test_what_was_acknowledged_is_there_after_any_end(tmp_path: Path, number: int, status: int) -> None:
    process, url, _, write_key = await anyio.to_thread.run_sync(started, tmp_path)
    taken: list[str] = []
    enough = anyio.Event()
    async with httpx.AsyncClient(base_url=url, auth=(write_key, ""), timeout=20) as client:

        async def send(sender: int) -> None:
            for count in range(10_000):
                message_id = f"{sender}-{count}"
                try:
                    answer = await client.post("/v1/track", json={**TRACKED, "messageId": message_id})
                except httpx.HTTPError:
                    return
                if answer.status_code != 200:
                    return
                taken.append(message_id)
                if len(taken) == 100:
                    enough.set()

        with anyio.move_on_after(60):
            async with anyio.create_task_group() as tasks:
                for sender in range(8):
                    tasks.start_soon(send, sender)
                await enough.wait()
                process.send_signal(number)
    assert await anyio.to_thread.run_sync(ended, process) == status
    async with open_data(tmp_path / "data", WallClock(), holder="test") as data:
        [space] = data.spaces()
        stored = {event.message_id for commit in space.log.read() for event in commit.events}
    assert len(taken) >= 100
    assert set(taken) <= stored


async def test_a_request_under_way_is_answered_by_a_daemon_that_stops(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as daemon, await anyio.connect_tcp("127.0.0.1", daemon.port) as stream:
        assert daemon.first is not None
        body = json.dumps({**TRACKED, "writeKey": daemon.first.write_key}).encode()
        await stream.send(b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
        await stream.send(body[:10])
        await anyio.sleep(0.1)  # the head and a piece of the body are there
        daemon.stop()
        await anyio.sleep(0.3)  # the server notices within 0.1 s
        await stream.send(body[10:])
        assert b'{"success":true}' in await stream.receive()
        assert daemon.condition == "stopping"
