"""`deliver`: deliveries a second of one process to a local sink with no limit, beside the HTTP client alone.

And, on a simulated clock, what a limit of 100 a second lets through in 60 seconds: never more than rate x t + burst.
Not shown: TLS, a network, a slow receiver.
"""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import anyio
import msgspec

from actors.delivery import Answer, Ask, Call, Destination
from actors.destinations_state import Destinations
from actors.space import Space, open_space
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS, transports
from adapters.destinations.sealing import new_seal
from eventlog.clock import SimulatedClock, WallClock
from eventlog.memory import MemoryLog
from scenarios.benchmarks.report import Report, rate
from scenarios.benchmarks.subjects import as_the_daemon, free_port, incoming, scratch

RATE_PER_S = 100
BURST = 100
SIMULATED_S = 60
START_MS = 1_767_225_600_000


@asynccontextmanager
async def sink() -> AsyncIterator[str]:
    """Run a sink in a process of its own."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own
        [sys.executable, "-m", "scenarios.benchmarks.sink", str(port)]
    )
    try:
        await anyio.sleep(1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


async def _members(space: Space, count: int) -> None:
    """Make an audience of so many."""
    await space.create_definition(
        kind="audience", name="Everyone", entity_type="USERS", query="event('Here').count() >= 1"
    )
    await space.backfilled()
    for start in range(0, count, 1000):
        messages = [
            msgspec.json.encode({"type": "track", "event": "Here", "messageId": f"m{n}", "userId": f"user-{n}"})
            for n in range(start, min(start + 1000, count))
        ]
        await space.ingest(incoming(iter(messages), space.clock.now_ms()), [], "src")
    await space.settle()


async def _connected(space: Space, transport: object, settings: dict[str, object]) -> tuple[Destinations, Deliveries]:
    random = Random(1)
    destinations = Destinations(space, DESTINATIONS, new_seal(), random)
    destinations.load()
    deliveries = Deliveries(space, destinations, transport=transport, random=random)  # type: ignore[arg-type] # one of two
    sink = await destinations.create_destination(type="webhook", name="sink", source_id="src", settings=settings)
    await destinations.connect(space.definition("everyone").definition.id, sink.id, settings={"sendIdentify": False})
    return destinations, deliveries


async def _unlimited(folder: Path, url: str, count: int) -> float:
    async with open_space("spa", MemoryLog(), WallClock(), suppression_key=b"k" * 32) as space:
        await _members(space, count)
        transport = transports(folder, allow_private=True)
        settings: dict[str, object] = {"url": url, "rate": 100_000, "burst": 100_000}
        destinations, deliveries = await _connected(space, transport, settings)
        sink = destinations.destinations()[0].id
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliveries.run)
            while deliveries.status(sink).delivered < count:  # noqa: ASYNC110 - what is measured is from outside
                await anyio.sleep(0.02)
            seconds = time.perf_counter() - began
            tasks.cancel_scope.cancel()
        await transport.close()
        return seconds


async def _client_alone(url: str, count: int) -> float:
    body = b'{"type":"track","event":"Audience Entered","userId":"user-1","properties":{"audience_key":"everyone"}}' * 3
    left = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as session:

        async def send() -> None:
            for _ in left:
                async with session.post(url, data=body) as response:
                    await response.read()

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(32):
                tasks.start_soon(send)
        return time.perf_counter() - began


async def _limited() -> tuple[int, int]:
    """Return how many requests a limited destination got in the simulated time, and the most in any second."""
    clock = SimulatedClock(START_MS)
    times: list[int] = []

    async def take(_destination: Destination, _ask: Ask, calls: tuple[Call, ...]) -> Answer:
        times.append(clock.now_ms())
        return Answer(status=200, headers={}, body=b"{}")

    async with open_space("spa", MemoryLog(), clock, suppression_key=b"k" * 32) as space:
        await _members(space, RATE_PER_S * SIMULATED_S * 2)
        settings: dict[str, object] = {"url": "https://crm.example/", "rate": RATE_PER_S, "burst": BURST}
        _, deliveries = await _connected(space, take, settings)
        while True:
            due_ms = await deliveries.step(clock.now_ms())
            if due_ms is None or due_ms > START_MS + SIMULATED_S * 1000:
                break
            clock.set_ms(max(due_ms, clock.now_ms()))
    return len(times), max(sum(at <= one < at + 1000 for one in times) for at in times[:: RATE_PER_S // 2])


async def _measure(count: int) -> None:
    as_the_daemon()
    report = Report("deliver", "How many deliveries a second does one process make?")
    with scratch() as folder:
        async with sink() as url:
            alone_s = await _client_alone(url, count)
            ours_s = await _unlimited(folder, url, count)
    limited, most = await _limited()
    allowed = RATE_PER_S * SIMULATED_S + BURST
    report.row("webhooks to a local sink", rate(count, ours_s), f"{alone_s / ours_s:.0%} of the client alone", "signed")
    report.row("the HTTP client alone, 32 at once", rate(count, alone_s))
    report.row(
        f"{RATE_PER_S}/s with bursts of {BURST}, 60 simulated s",
        f"{limited:,}",
        f"{limited / allowed:.2%} of the {allowed:,} allowed",
        f"at most {most} within a second",
    )
    report.print()


def run(events: int = 20_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, backend_options={"use_uvloop": True})
