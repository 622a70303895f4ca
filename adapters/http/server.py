"""The server: uvicorn on httptools and uvloop, bounded, and which app answers which path.

The tracking API and what runs the daemon are bare ASGI apps; `/console` is an application, everything else the API's.
They are there once the data is open; before that, and while stopping, their paths answer 503 with `Retry-After`.
A client costs what it is allowed to cost: so many connections, so many bytes of head, and one deadline for a whole
request to arrive. The deadline is armed only for a request that did not come in one piece, so most never pay for it.
"""

import asyncio
import math
import resource
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters.http import health, tracking
from adapters.http.auth import management_refusal
from adapters.http.health import OperationsApp
from adapters.http.tracking import TrackingApp
from eventlog.errors import ConfigError, RefusedError

Scope = Mapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

HEAD_BYTES_MAX: Final = 64 * 1024  # of one request: address and headers; browsers and proxies stop at 8 to 32 KB
BACKLOG: Final = 2_048  # connections that the system holds until they are accepted
FILES_SPARE: Final = 512  # open files beside connections: logs, exports, destinations
STARTING_RETRY_AFTER_S: Final = 1

CONSOLE: Final = "/console"
_TRACKING_PATHS: Final = frozenset((*tracking.PATHS, *(f"{path}/" for path in tracking.PATHS)))
_CLOSED: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_LATE: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"access-control-allow-origin: *\r\ncontent-length: %d\r\n\r\n%s"
)


class ServerLimits(uvicorn.Config):
    """uvicorn's configuration with our own bounds beside it; protocols find them there."""

    connections_max: int
    request_timeout_s: float


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection, within bounds."""

    config: ServerLimits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_arriving = False  # the head or the body of a request is not whole yet
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Let a connection in, or turn it away."""
        super().connection_made(transport)
        if len(self.connections) > self.config.connections_max:
            transport.write(_CLOSED)
            transport.close()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        super().data_received(data)
        if not self._is_arriving:
            self._disarm()
        elif self._deadline is None:
            self._arm()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._head_bytes = 0
        self._is_arriving = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        """End a request: all of it has arrived."""
        self._is_arriving = False
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            raise ValueError(f"a head of more than {HEAD_BYTES_MAX} bytes")  # the parser makes a 400 of it

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.config.request_timeout_s, self._is_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_late(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._is_arriving and (self.cycle is None or not self.cycle.response_started):
            message = f"the request did not arrive within {self.config.request_timeout_s:g} seconds"
            error = RefusedError("request_timeout", message)
            said = {"success": False, "code": error.code, "message": message}
            body = msgspec.json.encode(said)
            self.transport.write(_LATE % (len(body), body))
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, stopped by its owner and not by signals of its own."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield


def server_for(
    app: App, *, connections_max: int, request_timeout_s: float, keep_alive_s: int, shutdown_timeout_s: float
) -> Server:
    """Return a server for an app, to be run with `serve(sockets=[…])` and stopped by `should_exit = True`."""
    config = ServerLimits(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        interface="asgi3",
        backlog=BACKLOG,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=math.ceil(shutdown_timeout_s),
    )
    config.connections_max = connections_max
    config.request_timeout_s = request_timeout_s
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ConfigError, naming the setting that will not do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except socket.gaierror as error:
        sock.close()
        raise ConfigError(f"host: {host!r} is no address of this machine: {error.strerror}") from None
    except OSError as error:
        sock.close()
        hint = "another process listens there; stop it or choose another port (0: any free one)"
        raise ConfigError(f"host and port: cannot listen on {host} port {port}: {error.strerror}; {hint}") from None
    sock.setblocking(False)
    return sock


def allow_connections(connections_max: int) -> None:
    """Raise this process's limit of open files to what so many connections need, as far as the system lets it."""
    wanted = connections_max + FILES_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        message = (
            f"connections_max: {connections_max} connections need {wanted} open files, this process may have {hard}"
        )
        raise ConfigError(f"{message}; lower the setting or raise the limit (ulimit -n)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Front:
    """The ASGI app that the server runs: hands each path to the app that answers it."""

    def __init__(self, operations: OperationsApp) -> None:
        self._operations = operations
        self._tracking: TrackingApp | None = None
        self._api: App | None = None
        self._console: App | None = None

    def open(self, tracking_app: TrackingApp, api: App, console: App) -> None:
        """Begin to answer everything."""
        self._tracking = tracking_app
        self._api = api
        self._console = console

    def shut(self) -> None:
        """Answer but for health from now on that the daemon is not there."""
        self._tracking = None
        self._api = None
        self._console = None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"]
        app: App | None
        if path in _TRACKING_PATHS:
            app = self._tracking
        elif path in health.PATHS:
            app = self._operations
        elif path == CONSOLE or path.startswith(f"{CONSOLE}/"):
            app = self._console
        else:
            app = self._api
        await (app or _not_open)(scope, receive, send)


async def _not_open(scope: Scope, receive: Any, send: Any) -> None:
    """Answer that the daemon is not ready, in words that clients of every API read."""
    error = RefusedError("unavailable", "the daemon is starting or stopping; try again in a moment")
    error.status = 503
    said = {"success": False, "code": error.code, "message": error.message, **management_refusal(error)}
    body = msgspec.json.encode(said)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % STARTING_RETRY_AFTER_S),
        (b"access-control-allow-origin", b"*"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
