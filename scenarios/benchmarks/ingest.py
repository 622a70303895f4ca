"""`ingest`: events a second into a daemon on one core, load from the other, beside the ceiling of the same requests.

Durable (`synchronous=FULL`), batches of 100 events of about 240 bytes, 100,000 profiles, eight audiences. Not shown:
a network, several spaces, or what destinations cost.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from scenarios.benchmarks.load import Loaded
from scenarios.benchmarks.report import Report, peak_of, rate
from scenarios.benchmarks.subjects import EIGHT, daemon, free_port, prepare, scratch, traffic

FLOOR_PER_S = 50_000
FLOOR_CEILING_PER_S = 433_000  # the bare server where the floor was set; machines and their phases differ


def send_from(
    file: Path, port: int, authorization: str, per_request: int, connections: int, events_per_s: float = 0
) -> Loaded:
    """Send the messages of a file from the other core."""
    command = [sys.executable, "-m", "scenarios.benchmarks.load", str(file), "--port", str(port)]
    command += ["--authorization", authorization, "--per-request", str(per_request)]
    command += ["--connections", str(connections), "--events-per-s", str(events_per_s)]
    done = subprocess.run(["taskset", "-c", "1", *command], check=True, capture_output=True)  # noqa: S603, S607 - our own
    return msgspec.json.decode(done.stdout, type=Loaded)


@contextmanager
def _ceiling(folder: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "scenarios.benchmarks.ceiling", str(folder / "bare.db"), str(port)]
    process = subprocess.Popen(["taskset", "-c", "0", *command])  # noqa: S603, S607 - our own
    try:
        time.sleep(2)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def _measure(events: int, profiles: int) -> None:
    report = Report("ingest", "How many events a second does one daemon on one core take, durably?")
    with scratch() as folder:
        many, single = folder / "many.ndjson", folder / "single.ndjson"
        many.write_bytes(b"\n".join(traffic(events, profiles).messages()))
        single.write_bytes(b"\n".join(traffic(max(events // 10, 1000), profiles, seed=2).messages()))
        with _ceiling(folder) as port:
            bare = await anyio.to_thread.run_sync(send_from, many, port, "x", 100, 16)
            bare_single = await anyio.to_thread.run_sync(send_from, single, port, "x", 1, 64)
        secrets = await prepare(folder / "data", EIGHT)
        async with daemon(folder / "data", secrets) as running:
            ours = await anyio.to_thread.run_sync(send_from, many, running.port, running.authorization, 100, 16)
            ours_single = await anyio.to_thread.run_sync(send_from, single, running.port, running.authorization, 1, 64)
            peak = peak_of(running.pid)
    for name, one, limit in (("batches of 100", ours, bare), ("one event a request", ours_single, bare_single)):
        share = one.events / one.seconds / (limit.events / limit.seconds)
        note = f"p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms, {one.refused} refused"
        report.row(f"Turnout, {name}", rate(one.events, one.seconds), f"{share:.0%} of the ceiling", note)
        note = f"p50 {limit.p50_ms:.1f} ms, p99 {limit.p99_ms:.1f} ms"
        report.row(f"the ceiling, {name}", rate(limit.events, limit.seconds), "", note)
    floor = ours.events / ours.seconds / FLOOR_PER_S
    report.row("against the floor of 50,000/s", "", f"{floor:.2f}", f"peak memory {peak:.0f} MB")
    relative = (ours.events / ours.seconds) / (bare.events / bare.seconds) / (FLOOR_PER_S / FLOOR_CEILING_PER_S)
    report.row("against its share of the ceiling there", "", f"{relative:.2f}", "50,000 of 433,000: 12%")
    report.print()


def run(events: int = 1_000_000, profiles: int = 100_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
