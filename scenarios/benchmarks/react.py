"""`react`: from an event's arrival to the destination's request, at half of the load that the daemon takes.

An event arrives at its time of receipt, which the webhook carries as `timestamp`; a request has left when it is at the
local receiver. Each profile's first order makes a change. Not shown: a network, a slow destination.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import msgspec
from aiohttp import web

from adapters.opening import open_data
from eventlog.clock import WallClock
from eventlog.instants import instant_ms
from scenarios.benchmarks.ingest import send_from
from scenarios.benchmarks.report import Report, percentile, rate
from scenarios.benchmarks.subjects import EIGHT, Running, daemon, free_port, prepare, scratch, traffic

AIM_MS = 50
FIRST_ORDER = "event('Order Completed').count() >= 1"


@asynccontextmanager
async def receiver(delays_ms: list[float]) -> AsyncIterator[str]:
    """Listen for webhooks; note how long after the change each came."""

    async def take(request: web.Request) -> web.Response:
        now_ms = time.time() * 1000
        at_ms = instant_ms(msgspec.json.decode(await request.read())["timestamp"])
        assert at_ms is not None
        delays_ms.append(now_ms - at_ms)
        return web.Response()

    app, port = web.Application(), free_port()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


async def connect(running: Running, hook: str, key: str) -> None:
    """Send an audience's changes, as track calls alone, to a webhook."""
    headers = {"Authorization": f"Bearer {running.admin_token}"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=20) as client:
        space = (await client.get("/spaces")).json()["data"]["spaces"][0]["id"]
        source = {"slug": "benchmark", "enabled": True, "metadataId": "http", "settings": {"spaceId": space}}
        made = (await client.post("/sources", json=source)).raise_for_status().json()
        settings = {"url": hook, "rate": 100_000, "burst": 100_000}
        body = {"sourceId": made["data"]["source"]["id"], "metadataId": "webhook", "name": "sink", "settings": settings}
        sink = (await client.post("/destinations", json=body)).raise_for_status().json()["data"]["destination"]
        audiences = (await client.get(f"/spaces/{space}/audiences")).json()["data"]["audiences"]
        audience = next(one["id"] for one in audiences if one["key"] == key)
        asked = {"destination": {"id": sink["id"], "type": "webhook"}, "connectionSettings": {"sendIdentify": False}}
        path = f"/spaces/{space}/audiences/{audience}/destination-connections"
        (await client.post(path, json=asked)).raise_for_status()


async def _first_order(data: Path) -> None:
    async with open_data(data, WallClock(), holder="benchmark") as opened:
        space = opened.spaces()[0]
        await space.create_definition(kind="audience", name="First order", entity_type="USERS", query=FIRST_ORDER)
        await space.backfilled()


async def _measure(events: int, profiles: int, events_per_s: float) -> None:
    report = Report("react", "How long until a change has left for its destination?")
    delays_ms: list[float] = []
    with scratch() as folder:
        file = folder / "events.ndjson"
        file.write_bytes(b"\n".join(traffic(events, profiles).messages()))
        secrets = await prepare(folder / "data", EIGHT)
        await _first_order(folder / "data")
        async with receiver(delays_ms) as hook, daemon(folder / "data", secrets) as running:
            await connect(running, hook, "first_order")
            loaded = await anyio.to_thread.run_sync(
                send_from, file, running.port, running.authorization, 100, 16, events_per_s
            )
            await anyio.sleep(2)
    p50, p99 = percentile(delays_ms, 0.5), percentile(delays_ms, 0.99)
    report.row("p50", f"{p50:.0f} ms", f"{p50 / AIM_MS:.2f} of the aim of 50 ms", f"{len(delays_ms):,} requests")
    report.row("p99", f"{p99:.0f} ms", f"{p99 / AIM_MS:.2f} of the aim of 50 ms")
    report.row("load", rate(loaded.events, loaded.seconds), "", f"asked for {events_per_s:,.0f}/s")
    report.print()


def run(events: int = 300_000, profiles: int = 100_000, events_per_s: float = 20_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, events_per_s, backend_options={"use_uvloop": True})
