"""What benchmarks have in common: the eight audiences, made-up traffic, a daemon of one core, and a load for it."""

import base64
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import httpx
from msgspec import Struct
from msgspec.structs import replace

from actors.conditions.program import Spec
from actors.definitions import spec_of
from actors.door import Incoming, accept
from adapters.opening import open_data
from eventlog.clock import WallClock
from eventlog.entries import Definition
from scenarios.cli import COLLECT_AFTER
from scenarios.workload import DAY_MS, Workload

EIGHT: Final = (
    "event('Order Completed').sum(property('total')) >= 1000",
    "event('Order Completed').within(14 days).count() >= 2",
    "event('Order Completed').between(14 days, 35 days).count() >= 1"
    " AND NOT event('Order Completed').within(14 days).count() >= 1",
    "trait('country') != 'United Kingdom' AND event('Product Viewed').where(property('price') > 10).count() >= 1",
    "event('Product Viewed').where(property('category') = 'bags').within(7 days).count() >= 3",
    "event('Product Added').within(1 days).count() >= 1 AND NOT event('Order Completed').within(1 days).count() >= 1",
    "event('Checkout Started').count() >= 1 AND event('Order Completed').count() = 0",
    "page('Home').within(30 days).count() >= 5 AND trait('plan') = 'pro'",
)
"""Eight audiences of mixed kinds over the workload's events: lifetime sums, windows, gaps, traits, filters."""

SPAN_MS: Final = 30 * DAY_MS


def traffic(events: int, profiles: int, *, end_ms: int | None = None, seed: int = 1) -> Workload:
    """Return traffic whose thirty days end at a time, by default now."""
    end = int(time.time() * 1000) if end_ms is None else end_ms
    return Workload(events=events, profiles=profiles, seed=seed, start_ms=end - SPAN_MS, span_ms=SPAN_MS)


def specs(queries: Sequence[str], *, of_anybody: bool = False) -> list[Spec]:
    """Return audiences to compile, numbered from 1; `of_anybody` counts profiles without external ids too."""
    found = [
        spec_of(
            Definition(n, f"aud_{n}", "audience", f"audience_{n}", f"Audience {n}", "USERS", query, created_ms=0), n
        )
        for n, query in enumerate(queries, 1)
    ]
    return [replace(spec, id_types=None) for spec in found] if of_anybody else found


def incoming(messages: Iterator[bytes], received_ms: int) -> list[Incoming]:
    """Return messages as the door lets them in."""
    found = []
    for message in messages:
        one = accept(
            message, kind=None, received_ms=received_ms, sent_at=None, index=0, source="src", new_id=lambda: ""
        )
        assert isinstance(one, Incoming), one
        found.append(one)
    return found


def as_the_daemon() -> None:
    """Set this process up as the program does."""
    gc.set_threshold(*COLLECT_AFTER)


class Running(Struct, frozen=True):
    """A daemon in a process of its own."""

    url: str
    port: int
    pid: int
    data: Path
    write_key: str
    admin_token: str

    @property
    def authorization(self) -> str:
        """Return the tracking API's header."""
        return "Basic " + base64.b64encode(f"{self.write_key}:".encode()).decode()


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend a folder."""
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        yield Path(folder)


def environment(**more: str) -> dict[str, str]:
    """Return an environment for our program; it is compiled there, as an installed one is, whatever ours says."""
    found = {**os.environ, "TURNOUT_ALLOW_PRIVATE_DESTINATIONS": "1", **more}
    if found.pop("PYTHONDONTWRITEBYTECODE", ""):
        found["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / f"turnout-bench-compiled-{os.getuid()}")
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def prepare(data: Path, queries: Sequence[str]) -> tuple[str, str]:
    """Make a data directory with audiences; return its write key and admin token."""
    async with open_data(data, WallClock(), holder="benchmark") as opened:
        first = opened.first
        assert first is not None
        space = opened.spaces()[0]
        for n, query in enumerate(queries, 1):
            await space.create_definition(kind="audience", name=f"Audience {n}", entity_type="USERS", query=query)
        await space.backfilled()
        return first.write_key, first.admin_token


@asynccontextmanager
async def daemon(
    data: Path, secrets: tuple[str, str], *, core: int | None = 0, more: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """Run a daemon on one core over a prepared directory; `more` are variables of its environment."""
    port = free_port()
    command = [sys.executable, "-m", "scenarios.cli", "serve", "--data", str(data), "--port", str(port)]
    if core is not None and _has_taskset():
        command = ["taskset", "-c", str(core), *command]
    process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own program; started once
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(**(more or {})),
    )
    running = Running(f"http://127.0.0.1:{port}", port, process.pid, data, *secrets)
    try:
        await ready(running.url)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        await anyio.to_thread.run_sync(process.wait)


def _has_taskset() -> bool:
    return any((Path(folder) / "taskset").exists() for folder in os.environ.get("PATH", "").split(os.pathsep))


async def ready(url: str, seconds: float = 120) -> float:
    """Return how long it took a daemon to be ready."""
    began = time.perf_counter()
    async with httpx.AsyncClient() as client:
        with anyio.fail_after(seconds):
            while True:
                try:
                    if (await client.get(f"{url}/health/ready")).status_code == 200:
                        return time.perf_counter() - began
                except httpx.TransportError:
                    pass
                await anyio.sleep(0.02)
