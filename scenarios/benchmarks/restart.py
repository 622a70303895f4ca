"""`restart`: seconds from a start to ready with 1,000,000 events over 100,000 profiles in the log.

After a clean stop (a checkpoint is there), and after a kill (what came since the last checkpoint is folded again).
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.to_thread

from adapters.opening import open_data
from eventlog.clock import WallClock
from scenarios.benchmarks.report import Report, peak_of, rate
from scenarios.benchmarks.subjects import (
    EIGHT,
    daemon,
    environment,
    free_port,
    incoming,
    prepare,
    ready,
    scratch,
    traffic,
)

AIM_S = 3.0
BATCH = 2_000


async def load_into(data: Path, events: int, profiles: int) -> None:
    """Take traffic into a data directory, and close it cleanly."""
    async with open_data(data, WallClock(), holder="benchmark") as opened:
        space = opened.spaces()[0]
        batch: list[bytes] = []
        for message in traffic(events, profiles).messages():
            batch.append(message)
            if len(batch) == BATCH:
                await space.ingest(incoming(iter(batch), space.clock.now_ms()), [], "src")
                batch.clear()
        await space.ingest(incoming(iter(batch), space.clock.now_ms()), [], "src")


async def _seconds(data: Path, secrets: tuple[str, str]) -> tuple[float, float]:
    began = time.perf_counter()
    async with daemon(data, secrets) as running:
        return time.perf_counter() - began, peak_of(running.pid)


async def _killed(data: Path, events: int, profiles: int) -> None:
    """Send more, then kill the daemon before it has written a checkpoint."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own
        [sys.executable, "-m", "scenarios.cli", "serve", "--data", str(data), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    await ready(f"http://127.0.0.1:{port}")
    process.send_signal(signal.SIGKILL)
    await anyio.to_thread.run_sync(process.wait)


async def _measure(events: int, profiles: int) -> None:
    report = Report("restart", "How long until a daemon is ready, with a million events in its log?")
    with scratch() as folder:
        data = folder / "data"
        secrets = await prepare(data, EIGHT)
        await load_into(data, events, profiles)
        await _seconds(data, secrets)  # compiles the program, as an installation does
        clean_s, peak = await _seconds(data, secrets)
        report.row(
            "after a clean stop", f"{clean_s:.2f} s", f"{clean_s / AIM_S:.2f} of the aim of 3 s", f"peak {peak:.0f} MB"
        )
        await _killed(data, events, profiles)
        killed_s, _ = await _seconds(data, secrets)
        report.row("after a kill", f"{killed_s:.2f} s", "", "the tail since the last checkpoint is folded again")
        report.row("events", f"{events:,}", "", f"{profiles:,} profiles; {rate(events, clean_s)} as it were")
    report.print()


def run(events: int = 1_000_000, profiles: int = 100_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
