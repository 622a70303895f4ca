"""The server's bounds, on real sockets: slow, greedy and many clients cost what they may and no more."""

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from adapters.http.server import HEAD_BYTES_MAX, Server, allow_connections, listen, server_for
from eventlog.errors import ConfigError

REQUEST = b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"


async def echo(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer with the body once it is whole."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: Any = echo, **limits: Any) -> AsyncIterator[tuple[Server, int]]:
    given = {"connections_max": 100, "request_timeout_s": 5.0, "keep_alive_s": 5, "shutdown_timeout_s": 2.0, **limits}
    server = server_for(app, **given)
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [sock])
        while not server.started:
            await anyio.lowlevel.checkpoint()
        try:
            yield server, port
        finally:
            server.should_exit = True


async def whole(stream: SocketStream) -> bytes:
    """Return all that the server sends until it closes."""
    received = b""
    with anyio.fail_after(10):
        try:
            while True:
                received += await stream.receive()
        except anyio.EndOfStream:
            return received


async def some(stream: SocketStream, until: bytes) -> bytes:
    received = b""
    with anyio.fail_after(10):
        while until not in received:
            received += await stream.receive()
    return received


async def test_requests_are_answered_one_after_the_other_on_one_connection() -> None:
    async with serving() as (_, port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        for text in (b"hello", b"world"):
            await stream.send(REQUEST + text)
            assert (await some(stream, text)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("sent", [REQUEST + b"hel", b"POST /v1/track HTTP/1.1\r\nhost", b"P"])
async def test_a_request_that_does_not_arrive_in_time_is_refused(sent: bytes) -> None:
    async with (
        serving(request_timeout_s=0.1) as (server, port),
        await anyio.connect_tcp("127.0.0.1", port) as stream,
    ):
        await stream.send(sent)
        answer = await whole(stream)
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        said = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert said == {
            "success": False,
            "code": "request_timeout",
            "message": "the request did not arrive within 0.1 seconds",
        }
        assert not server.server_state.connections


async def test_a_body_that_drips_in_does_not_move_the_deadline() -> None:
    async with (
        serving(request_timeout_s=0.2) as (_, port),
        await anyio.connect_tcp("127.0.0.1", port) as stream,
        anyio.create_task_group() as group,
    ):

        async def drip() -> None:
            await stream.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            try:
                while True:
                    await stream.send(b"1\r\nx\r\n")
                    await anyio.sleep(0.01)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass

        group.start_soon(drip)
        assert (await some(stream, b"seconds")).startswith(b"HTTP/1.1 408")
        group.cancel_scope.cancel()


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving(request_timeout_s=0.1) as (_, port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        assert await whole(stream) == b""


async def test_a_request_in_time_takes_the_deadline_away() -> None:
    async with serving(request_timeout_s=0.2) as (_, port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(REQUEST)
        await stream.send(b"hello")
        assert b"hello" in await some(stream, b"hello")
        await anyio.sleep(0.3)  # past the deadline, within keep-alive
        await stream.send(REQUEST + b"again")
        assert b"again" in await some(stream, b"again")


async def test_a_head_without_end_is_refused() -> None:
    async with serving() as (_, port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-long: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n")
        assert (await whole(stream)).startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x00\xf4", b"hello\r\n\r\n", b"GET  HTTP/9\r\n\r\n"])
async def test_what_is_no_http_is_refused(sent: bytes) -> None:
    async with serving() as (_, port), await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(sent)
        assert (await whole(stream)).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_connections_beyond_the_bound_are_turned_away_until_others_close() -> None:
    async with serving(connections_max=2) as (server, port):
        first = await anyio.connect_tcp("127.0.0.1", port)
        async with await anyio.connect_tcp("127.0.0.1", port) as second:
            await second.send(REQUEST + b"hello")
            await some(second, b"hello")
            async with await anyio.connect_tcp("127.0.0.1", port) as third:
                assert (await whole(third)).startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n")
            await first.aclose()
            while len(server.server_state.connections) > 1:
                await anyio.lowlevel.checkpoint()
            async with await anyio.connect_tcp("127.0.0.1", port) as fourth:
                await fourth.send(REQUEST + b"hello")
                assert b"200 OK" in await some(fourth, b"hello")


async def test_a_thousand_idle_connections_do_not_keep_a_request_from_its_answer() -> None:
    allow_connections(3_000)
    async with serving(connections_max=1_100) as (_, port):
        idle = []
        for _ in range(1_000):
            client = socket.create_connection(("127.0.0.1", port))
            client.setblocking(False)
            idle.append(client)
            await anyio.lowlevel.checkpoint()
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(REQUEST + b"hello")
            assert b"200 OK" in await some(stream, b"hello")
        for client in idle:
            client.close()


async def test_a_stop_lets_requests_end_and_takes_no_new_ones() -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await ended.wait()
        await echo(scope, receive, send)

    async with serving(slow) as (server, port):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(REQUEST + b"hello")
            await begun.wait()
            server.should_exit = True
            with pytest.raises(OSError, match="connect"):  # noqa: PT012 - until the listener is closed
                while True:
                    async with await anyio.connect_tcp("127.0.0.1", port):
                        await anyio.sleep(0.01)
            ended.set()
            assert b"hello" in await whole(stream)


def test_an_address_that_cannot_be_listened_on_names_the_setting() -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(ConfigError, match=f"host and port: cannot listen on 127.0.0.1 port {port}: .*in use"):
        listen("127.0.0.1", port)
    taken.close()
    with pytest.raises(ConfigError, match=r"host: 'no\.such\.host\.invalid' is no address"):
        listen("no.such.host.invalid", 0)


def test_more_connections_than_the_system_allows_are_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="connections_max: 10000000000 connections need"):
        allow_connections(10_000_000_000)
