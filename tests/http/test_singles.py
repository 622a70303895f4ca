"""Single calls the short way: gathered in a turn of the loop, each judged and answered for itself."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from eventlog.errors import LogFullError
from tests.http.served import Served, served
from tests.http.test_server import some, whole


@pytest.fixture
async def api() -> AsyncIterator[Served]:
    async with served() as running:
        yield running


def track(number: int, **more: Any) -> bytes:
    return json.dumps({"userId": f"u{number}", "event": "Seen", "messageId": f"m{number}", **more}).encode()


def request(api: Served, body: bytes, path: str = "/v1/track", **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: {api.authorization}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


async def answer(stream: SocketStream) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return the next response: its status, headers and body."""
    head, _, body = (await some(stream, b"\r\n\r\n")).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += await stream.receive()
    found: dict[str, Any] = json.loads(body)
    return int(status.split()[1]), headers, found


async def all_at_once(api: Served, *requests: bytes) -> list[tuple[int, dict[str, str], dict[str, Any]]]:
    """Send requests over a connection each, so that the server finds them together; return the answers."""
    answers: dict[int, tuple[int, dict[str, str], dict[str, Any]]] = {}

    async def ask(place: int, stream: SocketStream) -> None:
        answers[place] = await answer(stream)
        await stream.aclose()

    streams = [await anyio.connect_tcp("127.0.0.1", api.port) for _ in requests]
    async with anyio.create_task_group() as tasks:
        for place, (stream, sent) in enumerate(zip(streams, requests, strict=True)):
            await stream.send(sent)
            tasks.start_soon(ask, place, stream)
    return [answers[place] for place in range(len(requests))]


async def test_calls_that_arrive_together_are_one_commit_and_each_has_its_own_answer(api: Served) -> None:
    bodies = [track(1), track(2, event=""), track(3, userId="-1"), b'{"userId"', track(1), track(4)]
    answers = await all_at_once(api, *(request(api, body) for body in bodies))
    assert [status for status, _, _ in answers] == [200, 400, 400, 400, 200, 200]
    codes = ["", "missing_event", "value_blocked", "malformed_json", "", ""]
    assert [body.get("code", "") for _, _, body in answers] == codes
    assert [event.message_id for event in api.events()] == ["m1", "m4"]
    assert len(list(api.log.read())) < len(bodies)
    assert sorted(api.refused()) == [("missing_event", "m2"), ("value_blocked", "m3")]
    assert api.app.counts.requests == {200: 3, 400: 3}
    assert api.app.counts.events_refused == {"missing_event": 1, "value_blocked": 1}
    assert (api.app.counts.events_taken, api.app.counts.in_flight) == (3, 0)


async def test_an_answer_has_the_headers_that_the_long_way_gives() -> None:
    heads = []
    for short_way in (True, False):
        async with served(short_way=short_way) as api:
            [taken, refused] = await all_at_once(api, request(api, track(1)), request(api, b"[1]"))
            heads.append([(status, list(headers), body) for status, headers, body in (taken, refused)])
    assert heads[0] == heads[1]


async def test_calls_one_behind_the_other_on_a_connection_are_answered_in_order(api: Served) -> None:
    async with await anyio.connect_tcp("127.0.0.1", api.port) as stream:
        sent = [track(1), track(2, event=""), track(3), b"{", track(4)]
        await stream.send(b"".join(request(api, body) for body in sent))
        received = b""
        with anyio.fail_after(10):
            while received.count(b"HTTP/1.1 ") < len(sent) or not received.endswith(b"}"):
                received += await stream.receive()
        assert [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]] == [200, 400, 200, 400, 200]
        await stream.send(request(api, track(5)))
        assert (await answer(stream))[0] == 200
    assert sorted(event.message_id for event in api.events()) == ["m1", "m3", "m4", "m5"]


async def test_a_call_in_pieces_is_taken_when_it_is_whole(api: Served) -> None:
    async with await anyio.connect_tcp("127.0.0.1", api.port) as stream:
        sent = request(api, track(1))
        for at in range(0, len(sent), 50):
            await stream.send(sent[at : at + 50])
            await anyio.sleep(0.001)
        assert (await answer(stream))[2] == {"success": True}
    assert [event.message_id for event in api.events()] == ["m1"]


async def test_a_call_that_does_not_arrive_in_time_is_refused_and_gives_its_place_back() -> None:
    async with served(request_timeout_s=0.1) as api, await anyio.connect_tcp("127.0.0.1", api.port) as stream:
        await stream.send(request(api, track(1))[:-5])
        assert (await whole(stream)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        while api.app.counts.in_flight:
            await anyio.lowlevel.checkpoint()
        assert api.events() == []


async def test_a_write_key_that_is_taken_away_is_refused_on_an_open_connection_too(api: Served) -> None:
    async with await anyio.connect_tcp("127.0.0.1", api.port) as stream:
        await stream.send(request(api, track(1)))
        assert (await answer(stream))[0] == 200
        [source] = api.control.sources()
        await api.control.change_source(source.id, enabled=False)
        await stream.send(request(api, track(2)))
        assert (await answer(stream))[2]["code"] == "source_disabled"
        await api.control.change_source(source.id, enabled=True)
        await api.control.add_write_key(source.id)
        await api.control.remove_write_key(source.id, api.write_key[-4:])
        await stream.send(request(api, track(3)))
        status, _, body = await answer(stream)
        assert (status, body["code"]) == (401, "unauthorized")
    assert [event.message_id for event in api.events()] == ["m1"]


async def test_short_and_long_ways_take_turns_on_a_connection(api: Served) -> None:
    async with await anyio.connect_tcp("127.0.0.1", api.port) as stream:
        for number, more in enumerate(({}, {"content_type": "text/plain"}, {}, {"expect": "100-continue"}, {})):
            await stream.send(request(api, track(number), **more))
            if "expect" in more:
                await some(stream, b"100 Continue\r\n\r\n")
            assert (await answer(stream))[2] == {"success": True}
    assert len(api.events()) == 5


async def test_calls_of_several_sources_keep_theirs(api: Served) -> None:
    source, write_key = await api.control.create_source("Other", slug="other")
    first = request(api, track(1))
    api.write_key = write_key
    await all_at_once(api, first, request(api, track(2)))
    assert {event.message_id: event.source == source.id for event in api.events()} == {"m1": False, "m2": True}


async def test_a_full_disk_is_told_to_each_and_all_are_taken_later(api: Served) -> None:
    requests = [request(api, track(1)), request(api, track(2)), request(api, track(3, event=""))]
    api.log.fail_with = LogFullError("no space left")
    answers = await all_at_once(api, *requests)
    assert [(status, headers["retry-after"]) for status, headers, _ in answers] == [(503, "10")] * 3
    api.log.fail_with = None
    assert [status for status, _, _ in await all_at_once(api, *requests)] == [200, 200, 400]
    assert sorted(event.message_id for event in api.events()) == ["m1", "m2"]


async def test_a_stop_answers_the_calls_that_are_there_and_closes_their_connections(api: Served) -> None:
    async with await anyio.connect_tcp("127.0.0.1", api.port) as stream:
        await stream.send(request(api, track(1))[:-5])
        while not api.app.counts.in_flight:
            await anyio.lowlevel.checkpoint()
        api.stop()
        await anyio.sleep(0.3)
        await stream.send(request(api, track(1))[-5:])
        received = await whole(stream)
        assert received.startswith(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
    assert [event.message_id for event in api.events()] == ["m1"]
