"""`state`: what the eight audiences keep of each profile, in bytes: as a snapshot, and in memory."""

import tracemalloc

import anyio

from actors.snapshots import dump_entity
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.replay import filled, fold
from scenarios.benchmarks.report import Report, percentile
from scenarios.benchmarks.subjects import EIGHT, as_the_daemon, scratch


async def _measure(events: int, profiles: int) -> None:
    as_the_daemon()
    with scratch() as folder:
        log = await SqliteLog.open(folder / "log.db")
        await filled(log, events, profiles)
        tracemalloc.start()
        partition, _, _ = fold(log, EIGHT)
        partition.take_effects()
        live = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        await log.close()
    sizes = [len(dump_entity(entity)) for entity in partition.entities.values()]
    report = Report("state", "What do the eight audiences keep of a profile?")
    mean = sum(sizes) / len(sizes)
    report.row("snapshot", f"{mean:.0f} bytes", "", f"p50 {percentile(sizes, 0.5)}, p99 {percentile(sizes, 0.99)}")
    report.row("in memory", f"{live / len(sizes):,.0f} bytes", f"{live / len(sizes) / mean:.1f} times a snapshot")
    report.row("profiles", f"{len(sizes):,}", "", f"{events / len(sizes):.1f} events each")
    report.print()


def run(events: int = 200_000, profiles: int = 20_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
