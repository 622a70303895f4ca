"""`merge`: two profiles of 10,000 events each become one: how long it takes, and how long others wait meanwhile.

States are summaries that join, so a merge reads no history. Beside it the same space without a merge, in the same run:
others send single events all the while, and the time to their answer is measured.
"""

import time
from pathlib import Path

import anyio

from actors.space import Space, open_space
from eventlog.clock import SimulatedClock
from eventlog.instants import iso
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.report import Report, percentile
from scenarios.benchmarks.subjects import as_the_daemon, incoming, scratch

START_MS = 1_772_323_200_000
BATCH = 1_000
MERGES = 10
BETWEEN_MS = 240_000  # 10,000 events in four weeks
CALM_S = 1.0
AUDIENCES = {
    "Buyers": "event('Order Completed').count() >= 3",
    "Big": "event('Order Completed').sum(property('total')) >= 1000",
    "Recent": "event('Order Completed').within(7 days).count() >= 50",
    "Funnel": "event('Viewed').where(NOT event('Order Completed').within(parent: 1 hours).count() >= 1)"
    ".within(7 days).count() >= 1",
}


async def _lived(space: Space, who: str, events: int) -> None:
    """Give a profile a past of some weeks."""
    for begin in range(0, events, BATCH):
        batch = (
            f'{{"type":"track","event":"{"Viewed" if n % 2 else "Order Completed"}","messageId":"{who}-{n}",{_id(who)},'
            f'"timestamp":"{iso(START_MS - (events - n) * BETWEEN_MS)}","properties":{{"total":{n % 90}}}}}'.encode()
            for n in range(begin, min(events, begin + BATCH))
        )
        await space.ingest(incoming(batch, space.clock.now_ms()), [], "src")


def _id(who: str) -> str:
    return f'"userId":"{who}"' if who.startswith("user") else f'"anonymousId":"{who}"'


async def _others(space: Space, durations: list[float], name: str) -> None:
    """Send single events for ever, and take the time of each."""
    number = 0
    while True:
        number += 1
        event = f'{{"type":"track","event":"Viewed","messageId":"{name}-{number}","userId":"other-{number % 50}"}}'
        began = time.perf_counter()
        await space.ingest(incoming(iter([event.encode()]), space.clock.now_ms()), [], "src")
        durations.append(time.perf_counter() - began)


async def _measure(events: int) -> None:
    report = Report("merge", f"What does joining two profiles of {events:,} events each do to the others?")
    with scratch() as folder:
        log = await SqliteLog.open(Path(folder) / "space.log")
        try:
            async with open_space("spa_1", log, SimulatedClock(START_MS), suppression_key=b"k" * 32) as space:
                for name, query in AUDIENCES.items():
                    await space.create_definition(kind="audience", name=name, entity_type="USERS", query=query)
                await space.backfilled()
                for number in range(MERGES):
                    await _lived(space, f"user-{number}", events)
                    await _lived(space, f"visitor-{number}", events)
                await space.settle()
                calm, busy, merges = await _sides(space)
        finally:
            await log.close()
    calm_s, busy_s = percentile(calm, 0.99), percentile(busy, 0.99)
    report.row("a merge", f"{percentile(merges, 0.5) * 1000:.1f} ms", "", f"slowest of {MERGES}: {max(merges):.3f} s")
    report.row(
        "others, nothing else going on",
        f"{calm_s * 1000:.2f} ms",
        "1",
        f"99 % of {len(calm):,}; worst {max(calm):.3f} s",
    )
    report.row(
        "others, while profiles merge",
        f"{busy_s * 1000:.2f} ms",
        f"{busy_s / calm_s:.2f}",
        f"99 % of {len(busy):,}; worst {max(busy):.3f} s",
    )
    report.print()


async def _sides(space: Space) -> tuple[list[float], list[float], list[float]]:
    """Return how long others waited without merges and with them, and how long each merge took until it was folded."""
    calm: list[float] = []
    with anyio.move_on_after(CALM_S):
        await _others(space, calm, "calm")
    busy: list[float] = []
    merges: list[float] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_others, space, busy, "busy")
        for number in range(MERGES):
            await anyio.sleep(CALM_S / MERGES)
            joined = (
                f'{{"type":"identify","messageId":"j-{number}","userId":"user-{number}",'
                f'"anonymousId":"visitor-{number}"}}'
            )
            began = time.perf_counter()
            await space.ingest(incoming(iter([joined.encode()]), space.clock.now_ms()), [], "src")
            await space.folded(space.log.last_seq)
            merges.append(time.perf_counter() - began)
        tasks.cancel_scope.cancel()
    return calm, busy, merges


def run(events: int = 10_000) -> None:
    """Measure and print."""
    as_the_daemon()
    anyio.run(_measure, events, backend_options={"use_uvloop": True})
