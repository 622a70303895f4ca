"""`memory`: a daemon that knows 1,000,000 profiles, of which few are active.

First as a shop's traffic leaves them; then a million profiles with three external ids each, which is what identity has
to hold: the daemon is measured at rest after a restart, and after events of people drawn from all of them have come,
so that its caches are full.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread

from adapters.opening import open_data
from eventlog.clock import WallClock
from scenarios.benchmarks.load import requests_of, send
from scenarios.benchmarks.report import Report, peak_of
from scenarios.benchmarks.restart import BATCH, load_into
from scenarios.benchmarks.subjects import EIGHT, as_the_daemon, daemon, incoming, prepare, scratch

AIM_MB = 500.0
AIM_IDS_MB = 600.0
LATER = 200_000  # events of people drawn from all
PER_REQUEST = 100
CONNECTIONS = 4


async def _of_traffic(report: Report, events: int, profiles: int) -> None:
    with scratch() as folder:
        data = folder / "data"
        secrets = await prepare(data, EIGHT)
        await load_into(data, events, profiles)
        async with daemon(data, secrets) as running:
            peak = peak_of(running.pid)
    report.row(
        "a shop's, at start",
        f"{peak:.0f} MB",
        f"{peak / AIM_MB:.2f} of the aim of {AIM_MB:.0f} MB",
        f"{profiles:,} drawn from",
    )


def _with_three_ids(profiles: int) -> Iterator[bytes]:
    for n in range(profiles):
        yield (
            f'{{"type":"identify","messageId":"i-{n}","userId":"user-{n}","anonymousId":"3f6c2a90-{n:012x}",'
            f'"traits":{{"email":"someone.{n}@example.com"}}}}'
        ).encode()


def _later(profiles: int) -> Iterator[bytes]:
    draw = random.Random(7)
    for n in range(LATER):
        user = draw.randrange(profiles)
        yield (
            f'{{"type":"track","event":"Order Completed","messageId":"t-{n}","userId":"user-{user}",'
            '"properties":{"total":20}}'
        ).encode()


def _size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


async def _of_ids(report: Report, profiles: int) -> None:
    with scratch() as folder:
        data = folder / "data"
        secrets = await prepare(data, EIGHT)
        async with open_data(data, WallClock(), holder="benchmark") as opened:
            space = opened.spaces()[0]
            batch: list[bytes] = []
            for message in _with_three_ids(profiles):
                batch.append(message)
                if len(batch) == BATCH:
                    await space.ingest(incoming(iter(batch), space.clock.now_ms()), [], "src")
                    batch.clear()
            await space.ingest(incoming(iter(batch), space.clock.now_ms()), [], "src")
        size_mb = _size_mb(data)
        async with daemon(data, secrets) as running:
            at_start = peak_of(running.pid)
            requests = requests_of(list(_later(profiles)), PER_REQUEST, running.authorization)
            loaded = await anyio.to_thread.run_sync(
                lambda: send(requests, port=running.port, per_request=PER_REQUEST, connections=CONNECTIONS)
            )
            assert loaded.refused == 0, loaded
            later = peak_of(running.pid)
    aim = f"of the aim of {AIM_IDS_MB:.0f} MB"
    report.row(
        "three ids each, at start",
        f"{at_start:.0f} MB",
        f"{at_start / AIM_IDS_MB:.2f} {aim}",
        f"{profiles:,} profiles; {size_mb:,.0f} MB on disk",
    )
    report.row(f"and after {LATER:,} events of any of them", f"{later:.0f} MB", f"{later / AIM_IDS_MB:.2f} {aim}")


async def _measure(events: int, profiles: int) -> None:
    report = Report("memory", "How large is a daemon that knows a million profiles?")
    await _of_traffic(report, events, profiles)
    await _of_ids(report, profiles * 2 // 3)
    report.print()


def run(events: int = 2_000_000, profiles: int = 1_500_000) -> None:
    """Measure and print."""
    as_the_daemon()
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
