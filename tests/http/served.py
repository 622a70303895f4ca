"""A tracking API to send to: the real app before a real space, on a real socket, in memory and on a simulated clock."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import httpx

from actors.control import Control
from actors.space import Space, open_space
from adapters.http.server import Server, listen, server_for
from adapters.http.singles import Singles
from adapters.http.tracking import TrackingApp
from eventlog.clock import SimulatedClock
from eventlog.entries import Event
from eventlog.memory import MemoryLog

START_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z


class Served:
    """What is being served, and a client that has the write key."""

    def __init__(
        self,
        control: Control,
        space: Space,
        app: TrackingApp,
        server: Server,
        client: httpx.AsyncClient,
        write_key: str,
        port: int,
    ) -> None:
        self.control = control
        self.space = space
        self.app = app
        self._server = server
        self.client = client
        self.write_key = write_key
        self.port = port

    @property
    def log(self) -> MemoryLog:
        """Return the space's log."""
        assert isinstance(self.space.log, MemoryLog)
        return self.space.log

    @property
    def clock(self) -> SimulatedClock:
        """Return the clock."""
        assert isinstance(self.space.clock, SimulatedClock)
        return self.space.clock

    @property
    def authorization(self) -> str:
        """Return the header that the client sends."""
        return "Basic " + base64.b64encode(f"{self.write_key}:".encode()).decode()

    def stop(self) -> None:
        """Begin to stop the server."""
        self._server.should_exit = True

    def events(self) -> list[Event]:
        """Return all events in the log, as durable now."""
        return [event for commit in self.log.read() for event in commit.events]

    def refused(self) -> list[tuple[str, str]]:
        """Return the refused events in the log, oldest first: code and message id."""
        rows = [(row.code, row.message_id) for _, _, row in self.space.rejected()]
        return rows[::-1]

    async def batch(self, *calls: dict[str, Any], **envelope: Any) -> httpx.Response:
        """Send a batch."""
        return await self.client.post("/v1/batch", json={"batch": calls, **envelope})

    async def raw(self, body: bytes, path: str = "/v1/track", **headers: str) -> httpx.Response:
        """Send a body as it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=body, headers={"content-type": "application/json", **named})


@asynccontextmanager
async def served(
    *, requests_max: int = 1_000, request_timeout_s: float = 10.0, short_way: bool = True
) -> AsyncIterator[Served]:
    """Serve the tracking API while the block lasts; without the short way every call goes through the ASGI app."""
    clock = SimulatedClock(START_MS)
    drawn, made = count(1), count(1)
    control = await Control.open(MemoryLog(), clock, lambda size: next(drawn).to_bytes(size, "big"))
    first = await control.start()
    assert first is not None
    async with open_space(first.space.id, MemoryLog(), clock, suppression_key=b"k" * 32) as space:
        app = TrackingApp(control, lambda _: space, clock, lambda: f"made-{next(made)}", requests_max)
        singles: list[Singles] = []
        server = server_for(
            app,
            connections_max=2_000,
            request_timeout_s=request_timeout_s,
            keep_alive_s=5,
            shutdown_timeout_s=5,
            singles=lambda: singles[0] if short_way else None,
        )
        singles.append(Singles(app, server.server_state.tasks))
        sock = listen("127.0.0.1", 0)
        port = sock.getsockname()[1]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [sock])
            while not server.started:
                await anyio.lowlevel.checkpoint()
            try:
                async with httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}", auth=(first.write_key, ""), timeout=20
                ) as client:
                    yield Served(control, space, app, server, client, first.write_key, port)
            finally:
                server.should_exit = True
