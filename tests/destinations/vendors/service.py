"""What the vendors' servers share: a real socket, the stage's clock, a window of requests, trouble on request."""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qsl

import anyio
from aiohttp import web
from msgspec import DecodeError, Struct, json

from eventlog.clock import Clock

JSON: Final = {"Content-Type": "application/json"}


class Asked(Struct, frozen=True):
    """A request as it arrived."""

    at_ms: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def message(self) -> Any:
        """Return the body's JSON; None where it is none, or is not declared as JSON."""
        if not self.headers.get("content-type", "").startswith("application/json"):
            return None
        try:
            return json.decode(self.body)
        except DecodeError:
            return None

    @property
    def form(self) -> dict[str, str]:
        """Return the body's form; nothing where it is not declared as one."""
        if self.headers.get("content-type", "") != "application/x-www-form-urlencoded":
            return {}
        return dict(parse_qsl(self.body.decode()))


class Said(Struct, frozen=True):
    """An answer."""

    status: int
    body: Any = None  # as JSON; None: empty
    headers: Mapping[str, str] = {}


class Refusal(Exception):  # noqa: N818 - it is an answer like any other
    """An answer that ends the reading of a request."""

    def __init__(self, said: Said) -> None:
        super().__init__(said)
        self.said = said


class Window:
    """At most so many requests in any stretch of so many ms."""

    def __init__(self, requests_max: int, window_ms: int) -> None:
        self.requests_max, self.window_ms = requests_max, window_ms
        self._taken: deque[int] = deque()

    def take(self, now_ms: int) -> int | None:
        """Count a request; return None if it is within the limit, else after how many ms another would be."""
        while self._taken and self._taken[0] <= now_ms - self.window_ms:
            self._taken.popleft()
        if len(self._taken) >= self.requests_max:
            return self._taken[0] + self.window_ms - now_ms
        self._taken.append(now_ms)
        return None


class Service:
    """A vendor's API: `answer` is told by each vendor's own class."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.url = ""
        self.seen: list[tuple[Asked, Said]] = []
        self.down = 0  # so many requests are answered 503
        self.lost = 0  # so many requests are carried out, and their answers get lost on the way
        self.lost_at = ""  # of requests whose path holds this
        self.gate: anyio.Event | None = None  # requests wait for it
        self.busy = 0
        self.busiest = 0  # requests under way at once, at most

    @property
    def now_ms(self) -> int:
        """Return the time."""
        return self.clock.now_ms()

    def answer(self, asked: Asked) -> Said:
        """Return what the vendor says to a request."""
        raise NotImplementedError

    def paths(self, status: int | None = None) -> list[str]:
        """Return the paths that were asked for, in order; those answered so."""
        return [asked.path for asked, said in self.seen if status is None or said.status == status]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take a request in from the wire."""
        asked = Asked(
            at_ms=self.now_ms,
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.content.read(),  # `read` has a limit of its own
        )
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            self.down -= 1
            said = Said(503, headers={"Content-Type": "text/html"})
        else:
            try:
                said = self.answer(asked)
            except Refusal as refused:
                said = refused.said
        self.busy -= 1
        self.seen.append((asked, said))
        if self.lost and said.status < 300 and self.lost_at in asked.path:
            self.lost -= 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        body = b"" if said.body is None else json.encode(said.body)
        return web.Response(status=said.status, body=body, headers={**JSON, **said.headers})


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[None]:
    """Serve while the block lasts."""
    runner = web.ServerRunner(web.Server(service.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()
