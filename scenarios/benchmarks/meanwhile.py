"""`meanwhile`: events a second into a daemon while a backfill runs over its history, beside the same without one.

The daemon is pinned to core 0 and the load to core 1, as in `ingest`. The process that scans is measured twice: where
it starts, on the daemon's own core (nice to it), and moved to core 1, where it is nice to the load instead. Backfills
of new audiences follow each other for as long as the load lasts. Not shown: a machine with a core to spare.
"""

import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import psutil

from scenarios.benchmarks.ingest import send_from
from scenarios.benchmarks.report import Report, peak_of, rate
from scenarios.benchmarks.restart import load_into
from scenarios.benchmarks.subjects import EIGHT, Running, daemon, prepare, scratch, traffic

AIM = 0.7
POLL_S = 0.02


class _Backfills:
    """New audiences one after the other, and the processes that gather their past."""

    def __init__(self, running: Running, core: int) -> None:
        self._running = running
        self._core = core
        self.finished = 0
        self.seconds = 0.0
        self.peak_mb = 0.0

    async def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._running.admin_token}"}
        async with httpx.AsyncClient(base_url=self._running.url, headers=headers, timeout=120) as client:
            spaces = (await client.get("/spaces")).raise_for_status().json()["data"]["spaces"]
            audiences = f"/spaces/{spaces[0]['id']}/audiences"
            for n in range(10_000):
                await self._one(client, audiences, n)

    async def _one(self, client: httpx.AsyncClient, audiences: str, n: int) -> None:
        query = EIGHT[n % len(EIGHT)].replace(">= ", f">= {n // len(EIGHT) + 2}0", 1)
        began = anyio.current_time()
        body: dict[str, Any] = {
            "name": f"Again {self._core} {n}",
            "definition": {"query": query, "type": "USERS"},
            "audienceType": "USERS",
        }
        made = (await client.post(audiences, json=body)).raise_for_status().json()["data"]["audience"]
        while True:
            self._move()
            await anyio.sleep(POLL_S)
            found = (await client.get(f"{audiences}/{made['id']}")).raise_for_status().json()["data"]["audience"]
            if found["status"] in ("Live", "Failed"):
                assert found["status"] == "Live", found
                break
        self.finished += 1
        self.seconds += anyio.current_time() - began

    def _move(self) -> None:
        """Put the process that scans on its core."""
        for child in psutil.Process(self._running.pid).children():
            try:
                os.sched_setaffinity(child.pid, {self._core})
                self.peak_mb = max(self.peak_mb, peak_of(child.pid))
            except ProcessLookupError:  # it has just ended
                continue


async def _one_way(
    folder: Path, history: int, events: int, profiles: int, core: int | None
) -> tuple[float, Any, float]:
    """Return the seconds of a load into a fresh daemon with history, what was backfilled, and the daemon's peak."""
    data = folder / f"data-{core}"
    secrets = await prepare(data, EIGHT)
    await load_into(data, history, profiles)
    file = folder / f"more-{core}.ndjson"
    file.write_bytes(b"\n".join(traffic(events, profiles, seed=9).messages()))
    async with daemon(data, secrets) as running, anyio.create_task_group() as tasks:
        backfills = _Backfills(running, core or 0)
        if core is not None:
            tasks.start_soon(backfills.run)
            await anyio.sleep(1)
        loaded = await anyio.to_thread.run_sync(send_from, file, running.port, running.authorization, 100, 16)
        tasks.cancel_scope.cancel()
    return loaded.seconds, backfills, peak_of(running.pid)


async def _measure(events: int, profiles: int) -> None:
    report = Report("meanwhile", "How much of its speed does ingest keep while a backfill runs?")
    more = max(events // 2, 1000)
    with scratch() as folder:
        alone_s, _, _ = await _one_way(folder, events, more, profiles, None)
        report.row("ingest alone", rate(more, alone_s), "", f"after {events:,} events of history")
        for core, where in ((0, "the scan on the daemon's core"), (1, "the scan on the load's core")):
            seconds, backfills, _ = await _one_way(folder, events, more, profiles, core)
            note = f"{backfills.finished} backfills ended, the process held {backfills.peak_mb:.0f} MB"
            report.row(where, rate(more, seconds), f"keeps {alone_s / seconds:.0%} (aim {AIM:.0%})", note)
    report.print()


def run(events: int = 1_000_000, profiles: int = 100_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
