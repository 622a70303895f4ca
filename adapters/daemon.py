"""The daemon: a data directory, opened and served over HTTP until it is told to stop.

It listens at once and answers health checks while its data is being opened. A stop takes no new connections, lets
requests end, settles what was acknowledged, and closes: nothing is lost, and the next start has nothing to catch up.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Final
from uuid import UUID

import anyio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from uvicorn.lifespan.on import LifespanOn

from actors.control import Control, FirstStart
from actors.space_api import SpaceApi
from actors.supervisor import Deliveries
from adapters.config import Settings
from adapters.console.app import build_console
from adapters.console.rendering import SIGN_IN
from adapters.console.sessions import Sessions
from adapters.delivering import Delivering
from adapters.delivery_metrics import DeliveryCollector
from adapters.http.api import build_api
from adapters.http.auth import Gate
from adapters.http.body import CallError
from adapters.http.health import DaemonCollector, OperationsApp
from adapters.http.server import App, Front, allow_connections, listen, server_for
from adapters.http.singles import Singles
from adapters.http.tracking import TrackingApp
from adapters.opening import OpenData, alone, open_data
from adapters.scan_process import ScanProcesses
from eventlog.clock import Clock, SimulatedClock, WallClock
from eventlog.entries import SpaceRecord
from eventlog.errors import ConfigError, ConflictError

HOLDER: Final = "turnout serve"
DAY_MS: Final = 24 * 3600 * 1000
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


class Daemon:
    """A daemon that listens; its data is there once `condition` is ready."""

    def __init__(self, settings: Settings, clock: Clock, port: int, registry: CollectorRegistry) -> None:
        """Use `running`."""
        self.settings = settings
        self.clock = clock
        self.port = port
        self.url = f"http://{_reachable(settings.host)}:{port}"
        self.condition = "starting"
        self._registry = registry
        self._front = Front(OperationsApp(self, registry))
        self._server = server_for(
            self._front,
            connections_max=settings.connections_max,
            request_timeout_s=settings.request_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            shutdown_timeout_s=settings.shutdown_timeout_s,
            singles=self._front.singles,
        )
        self._stopped = anyio.Event()
        self._delivering = Delivering(Path(settings.data), allow_private=settings.allow_private_destinations)
        self._data: OpenData | None = None
        self._gate: Gate | None = None
        self._sessions = Sessions(WallClock())  # people's time, also where the spaces' clock is simulated
        self._clock_lock = anyio.Lock()

    # -- what its parts ask of it ------------------------------------------------------------------------------------

    @property
    def data(self) -> OpenData:
        """Return the open data. Raises CallError (503) while there is none."""
        if self._data is None:
            raise CallError(503, "unavailable", "the daemon is starting or stopping; try again", retry_after="1")
        return self._data

    @property
    def first(self) -> FirstStart | None:
        """Return the secrets made by a first start; nobody can tell them again."""
        return self.data.first

    @property
    def control(self) -> Control:
        """Return the control plane."""
        return self.data.control

    @property
    def data_dir(self) -> Path:
        """Return where the data lies."""
        return self.data.path

    @property
    def cursor_key(self) -> bytes:
        """Return the key that cursors of pages are made with."""
        return self.data.cursor_key

    @property
    def exports_keep_ms(self) -> int:
        """Return how long the file of an export is kept once it is finished."""
        return round(self.settings.exports_keep_days * DAY_MS)

    @property
    def gate(self) -> Gate:
        """Return what lets requests in."""
        if self._gate is None:
            raise CallError(503, "unavailable", "the daemon is starting or stopping; try again", retry_after="1")
        return self._gate

    def console_address(self, token: str) -> str:
        """Return the console's address on this machine that signs in with a token, once and soon."""
        return f"{self.url}{SIGN_IN}?code={self._sessions.issue_code(token)}"

    def space(self, space_id: str) -> SpaceApi:
        """Return an open space. Raises NotFoundError."""
        return self.data.space(space_id)

    def deliveries(self, space_id: str) -> Deliveries:
        """Return the destinations of an open space at work. Raises NotFoundError."""
        return self._delivering.of(space_id)

    async def create_space(self, name: str, *, slug: str | None = None, actor: str = "") -> SpaceRecord:
        """Create a space and open it. Raises InvalidError, ConflictError."""
        return await self.data.create_space(name, slug=slug, actor=actor)

    async def set_clock(self, now_ms: int) -> None:
        """Move the simulated clock, and return once all that follows has happened. Raises ConflictError."""
        if not isinstance(self.clock, SimulatedClock):
            raise ConflictError("not_simulated", "this daemon runs on real time; start it with --simulated-clock T")
        async with self._clock_lock:
            if now_ms < self.clock.now_ms():
                raise ConflictError("clock_goes_back", "a clock never goes back", field="now")
            self.clock.set_ms(now_ms)
            await self.data.advance()
            self._delivering.wake()

    def stop(self) -> None:
        """Begin to stop."""
        self.condition = "stopping"
        self._server.should_exit = True

    # -- its life ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the data and answer requests about it while the block lasts."""
        settings = self.settings
        async with open_data(
            Path(settings.data),
            self.clock,
            holder=HOLDER,
            url=self.url,
            durability="normal" if settings.durability == "normal" else "full",
            beside=self._delivering.beside,
            scans=ScanProcesses(),
        ) as data:
            self._data = data
            # Real time, also where the spaces' clock is simulated: a bucket must fill while that one stands still.
            rate_per_s, burst = settings.token_rate_per_s, settings.token_burst
            self._gate = Gate(data.control, WallClock(), rate_per_s=rate_per_s, burst=burst)
            tracking = TrackingApp(data.control, self.space, self.clock, new_message_id, settings.requests_max)
            self._registry.register(DaemonCollector(tracking.counts, data.spaces, self._lag_ms, self._connections))
            self._registry.register(DeliveryCollector(self._delivering.open))
            api = build_api(self)
            async with lifespan_of(api):
                singles = Singles(tracking, self._server.server_state.tasks)
                self._front.open(tracking, singles, api, build_console(api.app.state.api, self._sessions))
                self.condition = "ready"
                log.info("ready", url=self.url, data=str(data.path), spaces=len(data.spaces()))
                try:
                    yield
                finally:
                    self.stop()
                    with anyio.CancelScope(shield=True):
                        await self._stopped.wait()
                    self._front.shut()
        await self._delivering.close()
        log.info("stopped", url=self.url)

    async def serve(self, sock: socket) -> None:
        """Run the server until it is stopped."""
        try:
            await self._server.serve(sockets=[sock])
        finally:
            self._stopped.set()

    def _lag_ms(self) -> int:
        return max(self.data.lag_ms.values(), default=0)

    def _connections(self) -> int:
        return len(self._server.server_state.connections)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Daemon]:
    """Run a daemon while the block lasts; it is ready when the block begins.

    Raises ConfigError for an address that cannot be used, LogHeldError where another process has the data directory.
    """
    allow_connections(settings.connections_max)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    start_ms = settings.simulated_clock_ms
    clock = WallClock() if start_ms is None else SimulatedClock(start_ms)
    with listen(settings.host, settings.port) as sock:
        daemon = Daemon(settings, clock, sock.getsockname()[1], registry)
        with alone():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(daemon.serve, sock)
                try:
                    async with daemon.opened():
                        yield daemon
                finally:
                    daemon.stop()


async def serve(settings: Settings, on_ready: Callable[[Daemon], None]) -> None:
    """Run a daemon until SIGTERM or SIGINT; `on_ready` is told once it takes requests.

    A signal while it starts, or a second one while it stops, ends it at once: what was acknowledged is in the log.
    """
    told, is_serving = anyio.Event(), False

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                is_gentle = is_serving and not told.is_set()
                log.info("stopping", signal=signal.Signals(number).name, at_once=not is_gentle)
                told.set()
                if not is_gentle:
                    scope.cancel()

    with alone():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            async with running(settings) as daemon:
                is_serving = True
                on_ready(daemon)
                await told.wait()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def lifespan_of(app: App) -> AsyncIterator[App]:
    """Run an ASGI app's lifespan around the block."""
    lifespan = LifespanOn(uvicorn.Config(app, lifespan="on", log_config=None, interface="asgi3"))
    await lifespan.startup()
    if lifespan.should_exit:
        raise ConfigError("the API did not start; the log says why")
    try:
        yield app
    finally:
        with anyio.CancelScope(shield=True):
            await lifespan.shutdown()


def new_message_id() -> str:
    """Return an id for an event that came without one."""
    return str(UUID(bytes=os.urandom(16), version=4))


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a server that listens on `host`."""
    named = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared only
    return f"[{named}]" if ":" in named else named
