"""`connect`: a destination is connected to an audience of 1,000,000: memory, rate, and what live changes notice of it.

The space and the deliveries run as in a daemon, the log on disk; the receiver is the PostgreSQL type's batches taken at
once by a transport in the process, so that what is measured is ours. A second audience of the same destination changes
20 times a second all the while. Memory is the process's peak, beside what it was just before the connection.
"""

import time
from pathlib import Path
from random import Random

import anyio
import msgspec

from actors.delivery import Answer, Ask, Call, Destination
from actors.destinations_state import Destinations
from actors.space import Space, open_space
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS
from adapters.destinations.sealing import new_seal
from eventlog.clock import WallClock
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.report import Report, peak_mb, percentile, rate
from scenarios.benchmarks.subjects import as_the_daemon, incoming, scratch

LIVE_PER_S = 20
CHUNK = 5_000
MEASURED_S = 60.0  # the fill is measured for at most so long, then its rate is known
SETTINGS = {"url": "postgres://benchmark@localhost/x", "rate": 100_000, "burst": 1_000}


class Taking:
    """A destination that takes everything at once, and notes when."""

    def __init__(self) -> None:
        self.filled = 0
        self.left_s: dict[str, float] = {}

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Take a batch."""
        now_s = time.perf_counter()
        for call in calls:
            if call.key == "everyone":
                self.filled += 1
            else:
                self.left_s.setdefault(call.user_id or "", now_s)
        return Answer(status=200)


async def _people(space: Space, count: int) -> None:
    """Make an audience of so many."""
    for name, query in (("Everyone", "event('Here').count() >= 1"), ("Live", "event('Now').count() >= 1")):
        await space.create_definition(kind="audience", name=name, entity_type="USERS", query=query)
    await space.backfilled()
    for start in range(0, count, CHUNK):
        messages = [
            msgspec.json.encode({"type": "track", "event": "Here", "messageId": f"m{n}", "userId": f"user-{n}"})
            for n in range(start, min(start + CHUNK, count))
        ]
        await space.ingest(incoming(iter(messages), space.clock.now_ms()), [], "src")
    await space.settle()


async def _live(space: Space, arrived_s: dict[str, float]) -> None:
    """Change the other audience again and again."""
    number = 0
    while True:
        user = f"live-{number}"
        message = {"type": "track", "event": "Now", "messageId": user, "userId": user}
        arrived_s[user] = time.perf_counter()
        await space.ingest(incoming(iter([msgspec.json.encode(message)]), space.clock.now_ms()), [], "src")
        number += 1
        await anyio.sleep(1 / LIVE_PER_S)


async def _fill(folder: Path, profiles: int, report: Report) -> None:
    log = await SqliteLog.open(folder / "log")
    taking, arrived_s = Taking(), dict[str, float]()
    async with open_space("spa", log, WallClock(), suppression_key=b"k" * 32) as space:
        await _people(space, profiles)
        random = Random(1)
        destinations = Destinations(space, DESTINATIONS, new_seal(), random)
        destinations.load()
        deliveries = Deliveries(space, destinations, transport=taking, random=random)
        made = await destinations.create_destination(type="postgres", name="sink", source_id="src", settings=SETTINGS)
        await destinations.connect(space.definition("live").definition.id, made.id)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliveries.run)
            tasks.start_soon(_live, space, arrived_s)
            await anyio.sleep(5)
            calm, before_mb = _lags_ms(arrived_s, taking), peak_mb()
            arrived_s.clear()
            began_s = time.perf_counter()
            await destinations.connect(space.definition("everyone").definition.id, made.id)
            while taking.filled < profiles and time.perf_counter() - began_s < MEASURED_S:  # noqa: ASYNC110 - seen from outside
                await anyio.sleep(0.05)
            seconds, filled = time.perf_counter() - began_s, taking.filled
            busy = _lags_ms(arrived_s, taking)
            tasks.cancel_scope.cancel()
    await log.close()
    report.row("members sent", rate(filled, seconds), f"{filled:,} of {profiles:,}", f"in {seconds:.0f} s")
    report.row("memory, peak", f"{peak_mb():.0f} MB", f"{before_mb:.0f} MB before", "flat: what waits is in the log")
    for part in (0.5, 0.99):
        figure = percentile(busy, part)
        beside = f"{percentile(calm, part):.1f} ms before"
        report.row(
            f"live changes' lag meanwhile, p{part * 100:g}", f"{figure:.1f} ms", beside, f"{len(busy):,} changes"
        )


def _lags_ms(arrived_s: dict[str, float], taking: Taking) -> list[float]:
    """Return how long after its event each live change left; what has not left by now counts as leaving now."""
    now_s = time.perf_counter()
    return [1000 * (taking.left_s.get(user, now_s) - at_s) for user, at_s in arrived_s.items()]


async def _measure(profiles: int) -> None:
    as_the_daemon()
    report = Report("connect", "What does connecting a destination to a large audience cost, and whom does it delay?")
    with scratch() as folder:
        await _fill(folder, profiles, report)
    report.print()


def run(profiles: int = 1_000_000) -> None:
    """Measure and print."""
    anyio.run(_measure, profiles, backend_options={"use_uvloop": True})
