"""The tracking API over a real socket: what is taken, what is refused, and what a client is told."""

import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from adapters.http import tracking
from adapters.http.body import inflate
from eventlog.entries import ALIAS, GROUP, IDENTIFY, PAGE, SCREEN, TRACK
from eventlog.errors import LogError, LogFullError, RefusedError
from tests.http.served import START_MS, Served, served

TRACKED: dict[str, Any] = {"type": "track", "userId": "ann", "event": "Order Completed"}
OK = {"success": True}


@pytest.fixture(params=["the short way", "the long way"])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    async with served(short_way=request.param == "the short way") as running:
        yield running


def call(number: int, **more: Any) -> dict[str, Any]:
    return {**TRACKED, "messageId": f"m{number}", **more}


# -- what is taken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "kind", "name"),
    [
        ("track", {"userId": "ann", "event": "A"}, TRACK, "A"),
        ("page", {"anonymousId": "x", "name": "Home"}, PAGE, "Home"),
        ("screen", {"userId": "ann", "name": "Cart"}, SCREEN, "Cart"),
        ("identify", {"userId": "ann", "traits": {"plan": "pro"}}, IDENTIFY, ""),
        ("group", {"userId": "ann", "groupId": "acme"}, GROUP, ""),
        ("alias", {"userId": "ann", "previousId": "x"}, ALIAS, ""),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_each_call_is_durable_when_it_is_answered(
    api: Served, path: str, body: dict[str, Any], kind: int, name: str, slash: str
) -> None:
    answer = await api.client.post(f"/v1/{path}{slash}", json=body)
    [event] = api.events()  # at once, without settling
    assert (answer.status_code, answer.json()) == (200, OK)
    assert (event.kind, event.name, event.received_ms) == (kind, name, START_MS)
    assert json.loads(event.body) == body


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import", "/v1/batch/"])
async def test_a_batch_is_taken_in_its_order(api: Served, path: str) -> None:
    calls = [call(1), {"type": "identify", "userId": "ann", "messageId": "m2"}, call(3)]
    answer = await api.client.post(path, json={"batch": calls})
    assert (answer.status_code, answer.json()) == (200, OK)
    assert [(event.kind, event.message_id) for event in api.events()] == [
        (TRACK, "m1"),
        (IDENTIFY, "m2"),
        (TRACK, "m3"),
    ]


async def test_an_empty_batch_is_taken(api: Served) -> None:
    answer = await api.batch()
    assert (answer.status_code, answer.json(), api.log.last_seq) == (200, OK, 0)


async def test_an_event_is_taken_once_whatever_the_call(api: Served) -> None:
    assert (await api.batch(call(1), call(1))).json() == OK
    assert (await api.client.post("/v1/track", json=call(1, event="Other"))).json() == OK
    assert [event.name for event in api.events()] == ["Order Completed"]


async def test_the_batch_says_when_it_was_sent_and_in_which_context(api: Served) -> None:
    answer = await api.batch(
        call(1, timestamp="2026-03-01T10:59:50Z"), sentAt="2026-03-01T11:00:00Z", context={"ip": "192.0.2.1"}
    )
    assert answer.json() == OK
    [event] = api.events()
    assert event.event_ms == START_MS - 10_000
    assert json.loads(event.body)["context"] == {"ip": "192.0.2.1"}


async def test_a_byte_order_mark_is_let_pass(api: Served) -> None:
    assert (await api.raw(b"\xef\xbb\xbf" + json.dumps(TRACKED).encode())).json() == OK


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "text/plain;charset=UTF-8", "text/json", ""]
)
async def test_content_types_that_clients_send_are_let_pass(api: Served, content_type: str) -> None:
    assert (await api.raw(json.dumps(TRACKED).encode(), content_type=content_type)).json() == OK


# -- a bad event in a batch ------------------------------------------------------------------------------------------


async def test_a_bad_event_does_not_sink_its_batch(api: Served) -> None:
    answer = await api.batch(
        call(1), call(2, userId=None), call(3, timestamp="x"), call(4, userId="-1"), call(5, event=7), call(6)
    )
    assert answer.status_code == 200
    said = answer.json()
    assert said["success"] is True
    assert [(one["index"], one["messageId"], one["code"]) for one in said["rejected"]] == [
        (1, "m2", "missing_id"),
        (2, "m3", "invalid_timestamp"),
        (3, "m4", "value_blocked"),
        (4, "m5", "invalid_type"),
    ]
    assert all(one["message"].startswith(f"batch[{one['index']}]") for one in said["rejected"])
    assert [event.message_id for event in api.events()] == ["m1", "m6"]
    assert sorted(api.refused()) == [
        ("invalid_timestamp", "m3"),
        ("invalid_type", "m5"),
        ("missing_id", "m2"),
        ("value_blocked", "m4"),
    ]


async def test_an_event_that_is_too_large_is_refused_alone(api: Served) -> None:
    answer = await api.batch(call(1), call(2, properties={"a": "x" * 33_000}), call(3))
    [one] = answer.json()["rejected"]
    assert (one["index"], one["code"]) == (1, "event_too_large")
    assert one["message"].startswith("batch[1] 'Order Completed': 33")
    assert one["message"].endswith(" bytes, at most 32768")
    assert [event.message_id for event in api.events()] == ["m1", "m3"]


GOOD = json.dumps(call(1)).encode()


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"5", "invalid_type"),
        (b"null", "invalid_type"),
        (b'{"type":"track","userId":"u","event":"A","x":"\xff"}', "invalid_json"),
        (b'{"type":"track","userId":"u","event":"A","x":1e999}', "number_out_of_range"),
        (b'{"type":"track","userId":"u","event":"A","x":%s}' % (b"[" * 5_000 + b"]" * 5_000), "too_deep"),
    ],
)
async def test_what_is_wrong_within_one_event_stays_there(api: Served, bad: bytes, code: str) -> None:
    answer = await api.raw(b'{"batch":[%s,%s]}' % (bad, GOOD), "/v1/batch")
    assert [one["code"] for one in answer.json()["rejected"]] == [code]
    assert [event.message_id for event in api.events()] == ["m1"]


async def test_half_a_character_costs_nothing(api: Served) -> None:
    body = rb'{"writeKey":"%s","batch":[{"type":"track","userId":"u","event":"cut \ud83d"}]}' % api.write_key.encode()
    async with httpx.AsyncClient(base_url=api.client.base_url) as browser:
        answer = await browser.post("/v1/batch", content=body)
    assert answer.json() == OK
    assert [event.name for event in api.events()] == ["cut �"]


async def test_a_batch_of_which_nothing_was_taken_is_refused(api: Served) -> None:
    answer = await api.batch(call(1, event=""), call(2, userId=""))
    said = answer.json()
    assert (answer.status_code, said["success"], said["code"]) == (400, False, "missing_event")
    assert said["message"].startswith("none of the 2 events was taken; the first: batch[0]")
    assert [one["code"] for one in said["rejected"]] == ["missing_event", "missing_id"]
    assert len(api.refused()) == 2


async def test_a_refused_call_is_told_and_kept(api: Served) -> None:
    answer = await api.client.post("/v1/track", json={"userId": "ann", "messageId": "m1"})
    assert answer.status_code == 400
    said = answer.json()
    assert (said["success"], said["code"]) == (False, "missing_event")
    assert said["message"].startswith("track: a track call needs `event`")
    assert api.refused() == [("missing_event", "m1")]
    # it was not taken, so the mended call is no duplicate
    assert (await api.client.post("/v1/track", json=call(1))).json() == OK


# -- a bad request ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"batch":[{"type":"track"',
        b"not json",
        b'{"batch":[{"a":NaN}],"x":NaN}',
        b'{"batch":[],}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b"{}{}",
    ],
)
async def test_malformed_json_is_refused_and_nothing_is_taken(api: Served, path: str, body: bytes) -> None:
    answer = await api.raw(body, path)
    said = answer.json()
    assert (answer.status_code, said["success"]) == (400, False)
    assert said["code"] in ("malformed_json", "event_too_large"), said
    assert api.events() == []


@pytest.mark.parametrize("body", ["[]", "5", "null", '"text"', "true"])
async def test_json_that_is_no_object_is_refused(api: Served, body: str) -> None:
    answer = await api.raw(body.encode(), "/v1/batch")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    answer = await api.raw(body.encode(), "/v1/track")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_type")


@pytest.mark.parametrize(
    "envelope",
    [{}, {"batch": {}}, {"batch": "x"}, {"batch": None}, {"batch": [], "context": 5}, {"batch": [], "sentAt": "never"}],
)
async def test_a_batch_that_is_none_is_refused(api: Served, envelope: dict[str, Any]) -> None:
    answer = await api.client.post("/v1/batch", json=envelope)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_batch")


async def test_a_batch_may_have_2500_events_and_not_one_more(api: Served) -> None:
    calls = [{"type": "track", "userId": "u", "event": "A", "messageId": str(n)} for n in range(2_501)]
    answer = await api.batch(*calls)
    assert (answer.status_code, answer.json()["code"]) == (400, "too_many_events")
    assert answer.json()["message"].startswith("batch: 2501 events, at most 2500; batch[2500]")
    assert api.log.last_seq == 0
    assert (await api.batch(*calls[:2_500])).json() == OK
    assert len(api.events()) == 2_500


def sized(size: int) -> bytes:
    """Return a batch of so many bytes."""
    calls: list[dict[str, Any]] = []
    body = b""
    while len(body) < size - 20_000:
        calls.append(call(len(calls), properties={"a": "x" * 15_000}))
        body = json.dumps({"batch": calls}).encode()
    return body + b" " * (size - len(body))


async def test_a_body_may_have_512000_bytes_and_not_one_more(api: Served) -> None:
    answer = await api.raw(sized(512_001), "/v1/batch")
    assert (answer.status_code, answer.json()["code"]) == (400, "batch_too_large")
    assert api.log.last_seq == 0
    assert (await api.raw(sized(512_000), "/v1/batch")).json() == OK


async def test_a_body_without_length_is_read_up_to_the_bound(api: Served) -> None:
    async def pieces(number: int) -> AsyncIterator[bytes]:
        yield b'{"userId":"u","event":"A","properties":{"a":"'
        for _ in range(number):
            yield b"x" * 10_000
        yield b'"}}'

    answer = await api.client.post("/v1/track", content=pieces(60))
    assert (answer.status_code, answer.json()["code"]) == (400, "batch_too_large")
    assert (await api.client.post("/v1/track", content=pieces(3))).json() == OK


async def test_a_context_copied_into_many_events_is_bounded(api: Served) -> None:
    answer = await api.batch(*[call(n) for n in range(1_000)], context={"a": "x" * 3_000})
    assert (answer.status_code, answer.json()["code"]) == (400, "batch_too_large")


async def test_gzip_is_unpacked(api: Served) -> None:
    packed = gzip.compress(json.dumps(call(1)).encode())
    assert (await api.raw(packed, content_encoding="gzip")).json() == OK
    twice = gzip.compress(b'{"userId":"u",') + gzip.compress(b'"event":"A"}') + b"\0\0"
    assert (await api.raw(twice, content_encoding="GZIP")).json() == OK
    assert len(api.events()) == 2


PACKED = gzip.compress(json.dumps(TRACKED).encode(), mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        pytest.param(gzip.compress(b"x" * 10_000_000, mtime=0), "gzip", 400, "batch_too_large", id="a bomb"),
        pytest.param(gzip.compress(b" " * 200_000, mtime=0) * 3, "gzip", 400, "batch_too_large", id="a bomb in parts"),
        pytest.param(b"{}", "gzip", 400, "invalid_encoding", id="not packed"),
        pytest.param(PACKED[:-6], "gzip", 400, "invalid_encoding", id="cut off"),
        pytest.param(PACKED + b"more", "gzip", 400, "invalid_encoding", id="something after it"),
        pytest.param(b"{}", "br", 415, "unsupported_encoding", id="another encoding"),
        pytest.param(b"", "gzip", 400, "malformed_json", id="nothing"),
    ],
)
async def test_a_bad_encoding_is_refused(api: Served, body: bytes, encoding: str, status: int, code: str) -> None:
    answer = await api.raw(body, content_encoding=encoding)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert api.events() == []


def test_a_bomb_is_unpacked_up_to_the_bound_and_no_further() -> None:
    bomb = gzip.compress(bytes(40_000_000), mtime=0)
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError):
            inflate(bomb, 100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("content_type", ["text/html", "application/xml", "multipart/form-data; boundary=x"])
async def test_what_is_labelled_as_something_else_is_refused(api: Served, content_type: str) -> None:
    answer = await api.raw(json.dumps(TRACKED).encode(), content_type=content_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_only_posts_are_taken(api: Served, method: str) -> None:
    answer = await api.client.request(method, "/v1/track")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")


# -- who sends -------------------------------------------------------------------------------------------------------


async def test_the_write_key_may_stand_in_the_body(api: Served) -> None:
    async with httpx.AsyncClient(base_url=api.client.base_url) as browser:
        for path, body in (("/v1/track", call(1)), ("/v1/batch", {"batch": [call(2)]})):
            answer = await browser.post(path, json={**body, "writeKey": api.write_key})
            assert answer.json() == OK
            for wrong in ("nope", None, 5, ""):
                answer = await browser.post(path, json={**body, "writeKey": wrong})
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert len(api.events()) == 2


@pytest.mark.parametrize(
    "authorization", ["", "Basic", "Basic !!!", "Basic Og==", "Basic bm9wZTo=", "Bearer nope", "Digest x", "\x80"]
)
async def test_without_a_known_key_nothing_is_taken(api: Served, authorization: str) -> None:
    async with httpx.AsyncClient(base_url=api.client.base_url) as stranger:
        answer = await stranger.post(
            "/v1/track",
            json={**TRACKED, "writeKey": api.write_key},
            headers={b"authorization": authorization.encode("latin-1")},
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Basic ")
        answer = await stranger.post("/v1/batch", content=b"{")
        assert answer.status_code == 401
    assert api.log.last_seq == 0


async def test_a_source_that_is_disabled_sends_nothing(api: Served) -> None:
    await api.control.change_source("default", enabled=False)
    answer = await api.client.post("/v1/track", json=TRACKED)
    assert (answer.status_code, answer.json()["code"]) == (403, "source_disabled")


async def test_a_token_sends_only_with_its_scope(api: Served) -> None:
    _, reader = await api.control.issue_token("reader", ["profiles:read"])
    _, writer = await api.control.issue_token("writer", ["events:write"], space_id="default")
    answer = await api.client.post("/v1/track", json=TRACKED, auth=(reader, ""))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    async with httpx.AsyncClient(base_url=api.client.base_url) as client:
        answer = await client.post("/v1/track", json=TRACKED, headers={"authorization": f"Bearer {writer}"})
    assert answer.json() == OK
    assert [event.source for event in api.events()] == [api.control.source("default").id]


async def test_browsers_may_send_from_anywhere(api: Served) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    answer = await api.client.options("/v1/track", headers={**asked, "access-control-request-headers": "x-one,x-two"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "x-one,x-two"
    for answer in (await api.client.post("/v1/track", json=TRACKED), await api.raw(b"{")):
        assert answer.headers["access-control-allow-origin"] == "*"


# -- when things go wrong --------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_the_same_call_is_taken_later(api: Served) -> None:
    api.log.fail_with = LogFullError("no space left")
    answer = await api.client.post("/v1/track", json=call(1))
    assert (answer.status_code, answer.json()["code"]) == (503, "log_full")
    assert answer.headers["retry-after"] == "10"
    api.log.fail_with = None
    assert (await api.client.post("/v1/track", json=call(1))).json() == OK
    assert [event.message_id for event in api.events()] == ["m1"]


async def test_a_fault_of_ours_is_answered_as_one(api: Served) -> None:
    api.log.fail_with = LogError("the disk caught fire")
    answer = await api.client.post("/v1/track", json=TRACKED)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "fire" not in answer.text


async def test_too_many_requests_at_once_are_told_to_come_again() -> None:
    async with served(requests_max=1) as api, await anyio.connect_tcp("127.0.0.1", api.port) as slow:
        head = (
            f"POST /v1/track HTTP/1.1\r\nhost: x\r\nauthorization: {api.authorization}\r\ncontent-length: 100\r\n\r\n"
        )
        await slow.send(head.encode())
        while not api.app.counts.in_flight:
            await anyio.lowlevel.checkpoint()
        answer = await api.client.post("/v1/track", json=TRACKED)
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        await slow.aclose()
        while api.app.counts.in_flight:
            await anyio.lowlevel.checkpoint()
        assert (await api.client.post("/v1/track", json=TRACKED)).json() == OK
        assert len(api.events()) == 1


async def test_hundreds_of_clients_at_once_are_all_answered(api: Served) -> None:
    answers: list[int] = []

    async def send(number: int) -> None:
        async with await anyio.connect_tcp("127.0.0.1", api.port) as stream:
            body = json.dumps(call(number)).encode()
            head = f"POST /v1/track HTTP/1.1\r\nhost: x\r\nauthorization: {api.authorization}\r\n"
            await stream.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answers.append(int((await stream.receive()).split()[1]))

    async with anyio.create_task_group() as tasks:
        for number in range(300):
            tasks.start_soon(send, number)
    assert answers == [200] * 300
    assert len(api.events()) == 300
    assert api.app.counts.requests == {200: 300}
    assert sum(api.app.counts.within_s) == 300


def test_every_code_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    assert [code for code in tracking.CODES if f"`{code}`" not in documented] == []
