"""`lag`: from an event's arrival to its requests, with 50 destinations of which one is dead and one allows 1 a second.

The space, its log on disk and the deliveries run as in a daemon; requests go over HTTP to a local sink in a process of
its own, and are timed as they leave. The dead destination takes a connection and never answers. The others must not
notice: the same is measured before, with all 50 well. Not shown: TLS, a network, reading the event off HTTP.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import anyio
import msgspec

from actors.delivery import Answer, Ask, Call, Destination
from actors.destinations_state import Destinations
from actors.space import Space, open_space
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS, transports
from adapters.destinations.sealing import new_seal
from eventlog.clock import WallClock
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.deliver import sink
from scenarios.benchmarks.report import Report, percentile
from scenarios.benchmarks.subjects import as_the_daemon, incoming, scratch

DESTINATIONS_COUNT = 50
EVENTS_PER_S = 10
FAST = {"rate": 100_000, "burst": 100_000, "timeoutSeconds": 5}
SETTLE_S = 60.0  # the well ones have told everything by then, or the benchmark fails


class Timed:
    """A transport that notes when each request leaves."""

    def __init__(self, folder: Path) -> None:
        self._transport = transports(folder, allow_private=True)
        self.left_s: dict[str, dict[str, float]] = defaultdict(dict)  # by destination, by user

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Perform an ask."""
        for call in calls:
            self.left_s[destination.name].setdefault(call.user_id or "", time.perf_counter())
        return await self._transport(destination, ask, calls)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """Listen, take what comes, and never answer."""
    over = asyncio.Event()

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        over.set()
        server.close()


async def connected(space: Space, destinations: Destinations, settings: dict[str, dict[str, object]]) -> None:
    """Connect a webhook of each name to an audience of its own, all of the same people."""
    for name, own in settings.items():
        definition = await space.create_definition(
            kind="audience", name=name, entity_type="USERS", query="event('Here').count() >= 1"
        )
        await space.backfilled()
        made = await destinations.create_destination(type="webhook", name=name, source_id="src", settings=own)
        await destinations.connect(definition.id, made.id, settings={"sendIdentify": False})


async def lags_ms(
    folder: Path, name: str, settings: dict[str, dict[str, object]], events: int, well: list[str]
) -> list[float]:
    """Return how long after each event the request of each well destination left."""
    log = await SqliteLog.open(folder / f"{name}.log")
    arrived_s: dict[str, float] = {}
    timed = Timed(folder)
    async with open_space("spa", log, WallClock(), suppression_key=b"k" * 32) as space:
        random = Random(1)
        destinations = Destinations(space, DESTINATIONS, new_seal(), random)
        destinations.load()
        deliveries = Deliveries(space, destinations, transport=timed, random=random)
        await connected(space, destinations, settings)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliveries.run)
            began_s = time.perf_counter()
            for number in range(events):
                await anyio.sleep(max(0.0, began_s + number / EVENTS_PER_S - time.perf_counter()))
                user = f"user-{number}"
                message = {"type": "track", "event": "Here", "messageId": f"m{number}", "userId": user}
                arrived_s[user] = time.perf_counter()
                await space.ingest(incoming(iter([msgspec.json.encode(message)]), space.clock.now_ms()), [], "src")
            with anyio.fail_after(SETTLE_S):
                while any(len(timed.left_s[one]) < events for one in well):  # noqa: ASYNC110 - seen from outside
                    await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
    await timed.close()
    await log.close()
    return [1000 * (left - arrived_s[user]) for one in well for user, left in timed.left_s[one].items()]


async def _measure(events: int) -> None:
    as_the_daemon()
    report = Report("lag", "How long from a change to its request, and does a dead destination delay the others?")
    with scratch() as folder:
        async with sink() as url, silent() as dead:
            names = [f"d{number}" for number in range(DESTINATIONS_COUNT)]
            all_well = {name: {"url": url, **FAST} for name in names}
            well = names[2:]
            before = await lags_ms(folder, "well", dict(all_well), events, well)
            ill: dict[str, dict[str, object]] = dict(all_well)
            ill[names[0]] = {"url": dead, **FAST}
            ill[names[1]] = {"url": url, "rate": 1, "burst": 1}
            after = await lags_ms(folder, "ill", ill, events, well)
    for what, found, beside in (
        (f"{DESTINATIONS_COUNT} destinations, all well", before, None),
        ("one dead, one at 1/s: the other 48", after, before),
    ):
        for part in (0.5, 0.99):
            figure = percentile(found, part)
            ratio = "" if beside is None else f"{figure / percentile(beside, part):.2f} of all well"
            report.row(f"{what}, p{part * 100:g}", f"{figure:.1f} ms", ratio, f"{EVENTS_PER_S} events/s, {events}")
    report.print()


def run(events: int = 400) -> None:
    """Measure and print."""
    anyio.run(_measure, events, backend_options={"use_uvloop": True})
