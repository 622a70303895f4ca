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
from time import perf_counter
from typing import Any, Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from adapters.http import health, tracking
from adapters.http.auth import management_refusal
from adapters.http.health import OperationsApp
from adapters.http.singles import Singles
from adapters.http.tracking import TAKEN, TAKEN_HEADERS, Headers, TrackingApp
from eventlog.entries import SourceRecord
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
    singles: Callable[[], Singles | None]  # what takes single calls the short way; None: all go to the app
    _taken: tuple[Headers | None, bytes] = (None, b"")

    def taken(self, headers: Headers) -> bytes:
        """Return the response to a call that was taken, made once for the headers that uvicorn adds in a second."""
        if self._taken[0] is not headers:
            self._taken = headers, _response(200, [*headers, *TAKEN_HEADERS], TAKEN)
        return self._taken[1]


class _Awaited:
    """Stands for the event that uvicorn's protocol sets and nobody here waits for."""

    def set(self) -> None:
        """Do nothing."""


class SingleCall:
    """A single call on a connection: to uvicorn's protocol what a cycle of its own is, with no ASGI app behind it."""

    __slots__ = (
        "_protocol",
        "begun_s",
        "body",
        "disconnected",
        "is_whole",
        "keep_alive",
        "kind",
        "response_complete",
        "response_started",
        "singles",
        "source",
    )
    message_event: Final = _Awaited()

    def __init__(self, protocol: "BoundedProtocol", singles: Singles, kind: str, source: SourceRecord) -> None:
        self._protocol = protocol
        self.singles = singles
        self.kind = kind
        self.source = source
        self.body = b""
        self.begun_s = perf_counter()
        self.is_whole = False
        self.keep_alive = True
        self.disconnected = self.response_started = self.response_complete = False

    def succeed(self) -> None:
        """Answer that the call was taken, with 200."""
        self._end(self._protocol.config.taken(self._protocol.server_state.default_headers))

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer something else."""
        self._end(_response(status, [*self._protocol.server_state.default_headers, *headers], body))

    def _end(self, response: bytes) -> None:
        self.response_started = self.response_complete = True
        protocol = self._protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        if self.keep_alive:
            protocol.transport.write(response)
        else:  # the server is being stopped
            protocol.transport.write(response.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
            protocol.transport.close()
        protocol.on_response_complete()


def _response(status: int, headers: Headers, body: bytes) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"%bcontent-length: %d\r\n\r\n%b" % (b"".join((STATUS_LINE[status], *lines)), len(body), body)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection, within bounds."""

    config: ServerLimits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_arriving = False  # the head or the body of a request is not whole yet
        self._single: SingleCall | None = None  # the request that arrives, if it goes the short way
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
        single = self._single
        if single is not None and not single.is_whole:
            single.singles.gave_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        super().data_received(data)
        if not self._is_arriving:
            self._disarm()
        elif self._deadline is None:
            self._arm()

    def on_message_begin(self) -> None:
        """Begin a request; what uvicorn makes for its app comes once it is known to go there."""
        self._head_bytes = 0
        self._is_arriving = True
        self._single = None
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to those who answer it: single calls to `Singles`, all else to the app."""
        if self._is_single():
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._single is None:
            super().on_body(body)
        else:
            self._single.body += body

    def on_message_complete(self) -> None:
        """End a request: all of it has arrived."""
        self._is_arriving = False
        single = self._single
        if single is None:
            super().on_message_complete()
        else:
            single.is_whole = True
            single.singles.put(single)

    def _is_single(self) -> bool:
        """Tell whether a request goes the short way, and begin it."""
        singles = self.config.singles()
        if singles is None or self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return False
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return False
        admitted = singles.admits(self.url, self.headers)
        if admitted is None:
            return False
        self._single = SingleCall(self, singles, *admitted)
        self.cycle = self._single  # type: ignore[assignment] # what uvicorn asks of a cycle, it has
        return True

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
    app: App,
    *,
    connections_max: int,
    request_timeout_s: float,
    keep_alive_s: int,
    shutdown_timeout_s: float,
    singles: Callable[[], Singles | None] = lambda: None,
) -> Server:
    """Return a server for an app, to be run with `serve(sockets=[…])` and stopped by `should_exit = True`.

    `singles` returns who takes single calls the short way, None while all of them go to the app.
    """
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
    config.singles = singles
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
        self._singles: Singles | None = None
        self._api: App | None = None
        self._console: App | None = None

    def open(self, tracking_app: TrackingApp, singles: Singles, api: App, console: App) -> None:
        """Begin to answer everything."""
        self._tracking = tracking_app
        self._singles = singles
        self._api = api
        self._console = console

    def shut(self) -> None:
        """Answer but for health from now on that the daemon is not there."""
        self._tracking = None
        self._singles = None
        self._api = None
        self._console = None

    def singles(self) -> Singles | None:
        """Return who takes single calls the short way, None while nobody does."""
        return self._singles

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
