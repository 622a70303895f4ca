"""Reading requests end with their caller, and with nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from adapters.http.leaving import while_wanted
from tests.http.test_server import serving, whole

GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def app_of(answer: Callable[[Any, Any], Awaitable[None]]) -> Any:
    """Return an app that answers as long as it is wanted."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await while_wanted(answer, receive, send)

    return app


async def say(send: Any, *parts: bytes) -> None:
    """Answer in parts."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    for place, part in enumerate(parts):
        await send({"type": "http.response.body", "body": part, "more_body": place < len(parts) - 1})


async def test_a_client_that_hangs_up_cancels_what_answers_it() -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def answer(receive: Any, send: Any) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with serving(app_of(answer)) as (server, port):
        with anyio.fail_after(10):
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(GET)
                await begun.wait()
            await ended.wait()
            while server.server_state.tasks:
                await anyio.lowlevel.checkpoint()


async def test_an_app_that_streams_and_waits_for_its_client_to_go_comes_to_its_end() -> None:
    seen: list[str] = []

    async def answer(receive: Any, send: Any) -> None:
        seen.append((await receive())["type"])
        await say(send, b"ab", b"cd")
        seen.append((await receive())["type"])
        await anyio.lowlevel.checkpoint()
        seen.append("went on")

    async with serving(app_of(answer)) as (server, port):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(GET)
            assert (await whole(stream)).endswith(b"\r\n\r\nabcd")
        with anyio.fail_after(10):
            while server.server_state.tasks:
                await anyio.lowlevel.checkpoint()
    assert seen == ["http.request", "http.disconnect", "went on"]


async def test_a_body_that_nobody_expects_is_handed_on() -> None:
    got = b""

    async def answer(receive: Any, send: Any) -> None:
        nonlocal got
        more = True
        while more:
            message = await receive()
            got += message["body"]
            more = message["more_body"]
        await say(send, b"good")

    async with serving(app_of(answer)) as (_, port):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(GET.replace(b"\r\n\r\n", b"\r\ncontent-length: 6\r\n\r\nabc"))
            await anyio.lowlevel.checkpoint()
            await stream.send(b"def")
            assert (await whole(stream)).endswith(b"\r\n\r\ngood")
    assert got == b"abcdef"
