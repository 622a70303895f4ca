"""`check`: events a second of `turnout replay --check`, beside a plain scan of the same log."""

import time

import anyio

from adapters.cli.opened import opened
from adapters.cli.options import Target
from adapters.cli.replaying import replayed
from adapters.cli.terminal import bar
from adapters.opening import open_data
from eventlog.clock import SimulatedClock
from scenarios.benchmarks.report import Report, peak_mb, rate
from scenarios.benchmarks.subjects import EIGHT, as_the_daemon, incoming, scratch, traffic

BATCH_EVENTS = 2_000


async def measured(events: int, profiles: int, report: Report) -> None:
    """Fill a data directory, then check it."""
    work = traffic(events, profiles)
    received_ms = work.start_ms + work.span_ms
    with scratch() as folder:
        path = folder / "data"
        async with open_data(path, SimulatedClock(received_ms), holder="a benchmark") as data:
            space = data.spaces()[0]
            for number, query in enumerate(EIGHT):
                await space.create_definition(
                    kind="audience", name=f"Audience {number}", entity_type="USERS", query=query
                )
            await space.backfilled()
            batch: list[bytes] = []
            for message in work.messages():
                batch.append(message)
                if len(batch) == BATCH_EVENTS:
                    await space.ingest(list(incoming(iter(batch), received_ms)), [], "src")
                    batch.clear()
            if batch:
                await space.ingest(list(incoming(iter(batch), received_ms)), [], "src")
            await space.settle()
        async with opened(Target(data=path), "a benchmark") as found:
            await found.space.backfilled()
            until_seq = found.space.log.last_seq
            started = time.perf_counter()
            count = sum(len(commit.events) for commit in found.space.log.read(0, until_seq))
            plain_s = time.perf_counter() - started
            with bar("checking") as show:
                started = time.perf_counter()
                result = await replayed(found.space, show)
                check_s = time.perf_counter() - started
    assert result.differences == [], result.differences
    report.row("plain scan, every event decoded", rate(count, plain_s))
    report.row("replay --check, eight audiences", rate(count, check_s), f"{plain_s / check_s:.3f}")
    report.row("effects compared", f"{result.effects:,}", note=f"peak {peak_mb():,.0f} MB")


def run(events: int = 50_000, profiles: int = 5_000) -> None:
    """Run it, and print the table."""
    as_the_daemon()
    report = Report("check", "How fast is a log checked against what stands?")
    anyio.run(measured, events, profiles, report, backend_options={"use_uvloop": True})
    report.print()
