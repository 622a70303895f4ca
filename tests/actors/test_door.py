"""The door: what it takes, what it refuses and with which words, and when things happened."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from actors import door
from actors.door import Incoming, accept
from actors.external_ids import ExternalId
from eventlog.entries import ALIAS, GROUP, IDENTIFY, PAGE, SCREEN, TRACK, Rejected
from eventlog.messages import EventData

RECEIVED_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z
TRACKED = {"type": "track", "userId": "u1", "event": "Order Completed"}


def judge(call: object, **given: Any) -> Incoming | Rejected:
    raw = call if isinstance(call, bytes) else json.dumps(call).encode()
    settings: dict[str, Any] = {
        "kind": None,
        "received_ms": RECEIVED_MS,
        "sent_at": None,
        "index": 3,
        "source": "src_1",
        "new_id": (f"made-{number}" for number in count()).__next__,
    }
    return accept(raw, **{**settings, **given})


def taken(call: object, **given: Any) -> Incoming:
    judged = judge(call, **given)
    assert isinstance(judged, Incoming), judged
    return judged


def refused(call: object, **given: Any) -> tuple[str, str]:
    judged = judge(call, **given)
    assert isinstance(judged, Rejected), judged
    return judged.code, judged.message


# -- what is taken ---------------------------------------------------------------------------------------------------


def test_a_track_call_is_taken_with_all_that_it_says() -> None:
    raw = json.dumps(
        {
            **TRACKED,
            "anonymousId": "a1",
            "messageId": "m1",
            "timestamp": "2026-03-01T11:00:00.250Z",
            "properties": {"total": 9.5},
            "context": {"page": {"url": "/"}},
            "unheard": ["of"],
        }
    ).encode()
    call = taken(raw)
    assert (call.kind, call.name, call.message_id, call.index) == (TRACK, "Order Completed", "m1", 3)
    assert (call.event_ms, call.received_ms) == (RECEIVED_MS - 3_600_000 + 250, RECEIVED_MS)
    assert call.ids == (ExternalId("users", "user_id", "u1"), ExternalId("users", "anonymous_id", "a1"))
    assert call.group is None
    assert call.data.properties == {"total": 9.5}
    assert call.data.context == {"page": {"url": "/"}}
    assert call.data.traits is None
    assert call.body == raw


@pytest.mark.parametrize(
    ("call", "kind", "name"),
    [
        ({"type": "page", "userId": "u", "name": "Home"}, PAGE, "Home"),
        ({"type": "page", "userId": "u"}, PAGE, ""),
        ({"type": "screen", "anonymousId": "a", "name": "Cart"}, SCREEN, "Cart"),
        ({"type": "identify", "userId": "u", "traits": {"a": 1}, "name": "ignored"}, IDENTIFY, ""),
        ({"type": "group", "groupId": "acme"}, GROUP, ""),
        ({"type": "alias", "userId": "u", "previousId": "a"}, ALIAS, ""),
    ],
)
def test_each_call_has_its_kind_and_its_name(call: dict[str, Any], kind: int, name: str) -> None:
    judged = taken(call)
    assert (judged.kind, judged.name) == (kind, name)


def test_a_group_call_with_only_a_group_id_has_an_account_and_no_user() -> None:
    call = taken({"type": "group", "groupId": "acme", "traits": {"plan": "pro"}})
    assert call.ids == ()
    assert call.group == ExternalId("accounts", "group_id", "acme")


def test_the_path_says_the_kind_where_the_body_does_not() -> None:
    assert taken({"userId": "u", "event": "A"}, kind="track").kind == TRACK
    assert taken({"userId": "u", "event": "A", "type": "page"}, kind="track").kind == TRACK


def test_numbers_as_ids_become_text() -> None:
    call = taken({**TRACKED, "userId": 42, "anonymousId": 5.0, "messageId": 7})
    assert [one.value for one in call.ids] == ["42", "5"]
    assert call.message_id == "7"


@pytest.mark.parametrize("message_id", [None, ""])
def test_a_call_without_a_message_id_gets_one(message_id: str | None) -> None:
    assert taken({**TRACKED, "messageId": message_id}).message_id == "made-0"


def test_half_a_character_from_a_cut_text_is_replaced_and_costs_nothing() -> None:
    properties = rb'{"cut":"\ud83d","whole":"\ud83d\ude00","no":"\\ud83d"}'
    call = taken(b'{"type":"track","userId":"u","event":"A","properties":%s}' % properties)
    assert call.data.properties == {"cut": "�", "whole": "😀", "no": "\\ud83d"}
    assert json.loads(call.body)["properties"] == call.data.properties


def test_a_batch_context_is_put_into_the_event_and_the_events_own_keys_win() -> None:
    call = taken(
        b'{"type":"track","userId":"u","event":"A","n":1.50,"context":{"ip":"2"}}',
        shared_context={"ip": "1", "device": {"type": "ios", "id": "d1"}},
    )
    assert call.data.context == {"ip": "2", "device": {"type": "ios", "id": "d1"}}
    assert ExternalId("users", "ios.id", "d1") in call.ids
    assert json.loads(call.body)["context"] == call.data.context
    assert b'"n":1.50' in call.body  # the rest is as it came


# -- what is refused -------------------------------------------------------------------------------------------------

NESTED = b'{"type":"track","userId":"u","event":"A","properties":{"a":%s1%s}}'
CALL = b'{"type":"track","userId":"u","event":"A","properties":{"a":%s}}'

BAD: list[tuple[str, object, str, str]] = [
    ("no JSON", b'{"type":', "invalid_json", "not JSON"),
    ("nothing", b"", "invalid_json", "not JSON"),
    ("something after it", b"{} x", "invalid_json", "trailing"),
    ("NaN", CALL % b"NaN", "invalid_json", "invalid character"),
    ("Infinity", CALL % b"-Infinity", "invalid_json", "invalid"),
    ("broken UTF-8", CALL % b'"\xff"', "invalid_json", "utf-8"),
    (
        "broken UTF-8 where nobody looks",
        b'{"type":"track","userId":"u","event":"A","x":"\xff"}',
        "invalid_json",
        "utf-8",
    ),
    ("a surrogate in UTF-8", CALL % b'"\xed\xa0\x80"', "invalid_json", "utf-8"),
    ("a control character", CALL % b'"\x01"', "invalid_json", "invalid character"),
    ("an array", b"[]", "invalid_type", "found an array, expected an object"),
    ("a number", b"5", "invalid_type", "found a number, expected an object"),
    ("null", b"null", "invalid_type", "found null, expected an object"),
    (
        "properties as text",
        CALL.replace(b'{"a":%s}', b'"x"'),
        "invalid_type",
        "properties: found text, expected an object",
    ),
    ("traits as array", {**TRACKED, "traits": []}, "invalid_type", "traits: found an array, expected an object"),
    ("context as number", {**TRACKED, "context": 1}, "invalid_type", "context: found a number, expected an object"),
    (
        "userId true",
        {**TRACKED, "userId": True},
        "invalid_type",
        "userId: found true or false, expected text or a number",
    ),
    ("userId object", {**TRACKED, "userId": {}}, "invalid_type", "userId: found an object, expected text or a number"),
    ("event a number", {**TRACKED, "event": 5}, "invalid_type", "event: found a number, expected text"),
    ("messageId array", {**TRACKED, "messageId": []}, "invalid_type", "messageId: found an array"),
    ("no type", {"userId": "u", "event": "A"}, "unknown_type", "found no type, expected track, page, screen"),
    ("wrong type", {**TRACKED, "type": "tracks"}, "unknown_type", "found type 'tracks', expected track"),
    ("type a number", {**TRACKED, "type": 5}, "unknown_type", "found type 5"),
    ("no event", {"type": "track", "userId": "u"}, "missing_event", "needs `event`"),
    ("an empty event", {**TRACKED, "event": ""}, "missing_event", "needs `event`"),
    ("no id", {"type": "track", "event": "A"}, "missing_id", "needs `userId` or `anonymousId`"),
    ("empty ids", {**TRACKED, "userId": "", "anonymousId": ""}, "missing_id", "needs `userId` or `anonymousId`"),
    ("an identify of nobody", {"type": "identify", "traits": {"email": "a@b.c"}}, "missing_id", "needs `userId`"),
    ("a group without id", {"type": "group", "userId": "u"}, "missing_id", "needs `groupId`"),
    ("an empty groupId", {"type": "group", "userId": "u", "groupId": ""}, "missing_id", "needs `groupId`"),
    ("an alias of nothing", {"type": "alias", "userId": "u"}, "missing_id", "needs `previousId`"),
    ("an alias to nobody", {"type": "alias", "previousId": "a"}, "missing_id", "needs `userId` or `anonymousId`"),
    ("a long messageId", {**TRACKED, "messageId": "m" * 101}, "message_id_too_long", "101 characters, at most 100"),
    ("a long groupId", {"type": "group", "groupId": "g" * 501}, "id_too_long", "501 characters, at most 500"),
    ("a long name", {**TRACKED, "event": "e" * 501}, "name_too_long", "501 characters, at most 500"),
    ("a large integer", CALL % b"9223372036854775808", "number_out_of_range", "properties.a: 9223372036854775808"),
    ("a small integer", CALL % b"-9223372036854775809", "number_out_of_range", "does not fit 64 bits; send it as text"),
    ("a huge integer", CALL % (b"1" * 5000), "number_out_of_range", "properties"),
    ("a huge double", CALL % b"1e999", "number_out_of_range", "properties"),
    ("a huge double, signed", CALL % b"-1E+400", "number_out_of_range", "properties"),
    ("a huge double in full", CALL % (b"1" * 400 + b".5"), "number_out_of_range", "properties"),
    ("a huge double unseen", b'{"type":"track","userId":"u","event":"A","x":1e999}', "number_out_of_range", "x"),
    ("objects too deep", NESTED % (b'{"a":' * 63, b"}" * 63), "too_deep", "more than 64 deep"),
    ("arrays too deep", NESTED % (b"[" * 63, b"]" * 63), "too_deep", "more than 64 deep"),
    ("far too deep", NESTED % (b"[" * 10_000, b"]" * 10_000), "too_deep", "more than 64 deep"),
    (
        "no time",
        {**TRACKED, "timestamp": "yesterday"},
        "invalid_timestamp",
        "timestamp 'yesterday' cannot be read; send ISO",
    ),
    ("no such day", {**TRACKED, "timestamp": "2026-02-30T00:00:00Z"}, "invalid_timestamp", "cannot be read"),
    ("an empty time", {**TRACKED, "timestamp": ""}, "invalid_timestamp", "cannot be read"),
    ("a time that is true", {**TRACKED, "timestamp": True}, "invalid_timestamp", "timestamp: found true or false"),
    ("seconds", {**TRACKED, "timestamp": 1_772_366_400}, "invalid_timestamp", "looks like seconds"),
    ("a time too late", {**TRACKED, "timestamp": 1e300}, "invalid_timestamp", "cannot be read"),
    (
        "a bad sentAt",
        {**TRACKED, "timestamp": RECEIVED_MS, "sentAt": "x"},
        "invalid_timestamp",
        "sentAt 'x' cannot be read",
    ),
]


@pytest.mark.parametrize(("call", "code", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_call_is_refused_with_its_reason(call: object, code: str, words: str) -> None:
    found, message = refused(call)
    assert found == code, message
    assert words in message


def test_every_reason_has_been_seen_and_is_documented() -> None:
    assert {row[2] for row in BAD} | {"event_too_large"} == set(door.REASONS)
    documented = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    assert [code for code in door.REASONS if f"`{code}`" not in documented] == []


def test_a_refusal_says_which_event_and_keeps_it_for_the_list() -> None:
    raw = json.dumps({**TRACKED, "messageId": "m9", "timestamp": "x"}).encode()
    judged = judge(raw, index=17)
    assert isinstance(judged, Rejected)
    assert judged.message.startswith("batch[17] 'Order Completed': timestamp 'x' cannot be read")
    assert (judged.index, judged.message_id, judged.source, judged.body) == (17, "m9", "src_1", raw)
    assert refused({"event": "A"}, kind="track")[1].startswith("track 'A': needs `userId`")
    assert refused(b"{", kind="page")[1].startswith("page: not JSON")
    assert refused({"type": "identify"})[1].startswith("batch[3] identify: needs `userId`")


def test_an_event_may_have_32_kilobytes_and_not_one_more() -> None:
    def of_size(size: int) -> bytes:
        head = b'{"type":"track","userId":"u","event":"A","messageId":"m","properties":{"a":"'
        return head + b"x" * (size - len(head) - 3) + b'"}}'

    assert taken(of_size(32_768)).name == "A"
    judged = judge(of_size(32_769))
    assert isinstance(judged, Rejected)
    assert judged.code == "event_too_large"
    assert judged.message == "batch[3] 'A': 32769 bytes, at most 32768"
    assert judged.message_id == "m"
    assert len(judged.body) == 32_768


def test_a_batch_context_counts_towards_the_events_size() -> None:
    assert refused(TRACKED, shared_context={"a": "x" * 32_768})[0] == "event_too_large"


@pytest.mark.parametrize(
    ("shared", "code"),
    [({"a": 2**64}, "number_out_of_range"), ({"a": json.loads("[" * 70 + "]" * 70)}, "too_deep")],
)
def test_a_batch_context_is_judged_with_the_event(shared: dict[str, Any], code: str) -> None:
    assert refused(TRACKED, shared_context=shared)[0] == code


@pytest.mark.parametrize("call", [{**TRACKED, "context": 5}, b"[]", b"{"])
def test_a_batch_context_does_not_hide_what_is_wrong(call: object) -> None:
    assert refused(call, shared_context={"ip": "1"}) == refused(call)


def test_json_too_deep_for_any_decoder_is_cut_to_what_can_be_read_and_refused() -> None:
    deep = b'{"a":"]}[","b":%s}'
    cut = door.cut_depth(b'{"batch":[%s,{"c":1}]}' % (deep % (b"[" * 5000 + b"]" * 5000)))
    read = json.loads(cut)["batch"]
    assert (read[0]["a"], read[1]) == ("]}[", {"c": 1})
    assert refused(json.dumps({**TRACKED, **read[0]}).encode())[0] == "too_deep"
    assert door.cut_depth(deep % b"[1]") == deep % b"[1]"
    assert door.cut_depth(b"[" * 5000) == b"[" * 5000  # never closed: that is not JSON


@pytest.mark.parametrize("depth", [1, 62])
def test_what_is_as_deep_as_allowed_is_taken(depth: int) -> None:
    assert taken(NESTED % (b"[" * depth, b"]" * depth)).name == "A"


def test_brackets_within_text_are_not_depth() -> None:
    assert taken({**TRACKED, "properties": {"a": '[{"\\' * 100}}).name == "Order Completed"


def test_many_shallow_objects_are_not_depth() -> None:
    assert taken({**TRACKED, "properties": {"a": [{"b": []}] * 100}}).name == "Order Completed"


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 1e308, 123456789012345678])
def test_numbers_that_fit_are_taken_exactly(number: float) -> None:
    assert taken({**TRACKED, "properties": {"a": number}}).data.properties == {"a": number}


def test_long_digits_in_text_are_no_number() -> None:
    assert taken({**TRACKED, "userId": "1" * 40, "properties": {"a": "1e999"}}).name == "Order Completed"


# -- when it happened ------------------------------------------------------------------------------------------------

EXACT_MS = 1_772_323_445_678  # 2026-03-01T00:04:05.678Z


@pytest.mark.parametrize(
    ("spelling", "expected_ms"),
    [
        ("2026-03-01T00:04:05.678Z", EXACT_MS),
        ("2026-03-01T00:04:05.678123Z", EXACT_MS),
        ("2026-03-01T00:04:05.678123456Z", EXACT_MS),
        ("2026-03-01T00:04:05.678", EXACT_MS),
        ("2026-03-01 00:04:05.678", EXACT_MS),
        ("2026-03-01t00:04:05.678z", EXACT_MS),
        ("2026-03-01T00:04:05.678+00:00", EXACT_MS),
        ("2026-03-01T01:04:05.678+0100", EXACT_MS),
        ("2026-03-01T02:04:05.678+02", EXACT_MS),
        ("2026-02-28T19:34:05.678-04:30", EXACT_MS),
        (" 2026-03-01T00:04:05.678Z ", EXACT_MS),
        ("2026-03-01T00:04:05Z", EXACT_MS - 678),
        ("2026-03-01T00:04Z", EXACT_MS - 5_678),
        ("2026-03-01", EXACT_MS - 245_678),
        (EXACT_MS, EXACT_MS),
        (EXACT_MS + 0.9, EXACT_MS),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01T00:00:00Z", door.EARLIEST_MS),
    ],
)
def test_a_timestamp_is_read_in_any_common_spelling(spelling: str | float, expected_ms: int) -> None:
    assert taken({**TRACKED, "timestamp": spelling}).event_ms == expected_ms


def test_an_event_without_a_timestamp_happened_when_it_was_received() -> None:
    assert taken({**TRACKED, "sentAt": "2026-03-01T11:00:00Z"}).event_ms == RECEIVED_MS


def test_a_clock_that_is_wrong_is_corrected_by_when_it_was_sent() -> None:
    # the client's clock is an hour slow: sent at 11:00 its time, received at 12:00; it happened 10 s before sending
    call = {**TRACKED, "timestamp": "2026-03-01T10:59:50Z", "sentAt": "2026-03-01T11:00:00Z"}
    assert taken(call).event_ms == RECEIVED_MS - 10_000


def test_the_batch_says_when_it_was_sent_for_events_that_do_not() -> None:
    call = {**TRACKED, "timestamp": "2026-03-01T10:59:50Z"}
    assert taken(call, sent_at="2026-03-01T11:00:00Z").event_ms == RECEIVED_MS - 10_000
    own = {**call, "sentAt": "2026-03-01T10:59:55Z"}
    assert taken(own, sent_at="2026-03-01T11:00:00Z").event_ms == RECEIVED_MS - 5_000


def test_the_original_timestamp_goes_before_the_timestamp() -> None:
    call = {**TRACKED, "timestamp": "2026-01-01", "originalTimestamp": "2026-03-01T10:00:00Z"}
    assert taken(call).event_ms == RECEIVED_MS - 2 * 3_600_000


def test_an_archived_call_is_corrected_by_its_own_receipt() -> None:
    call = {
        **TRACKED,
        "originalTimestamp": "2020-03-01T10:00:00Z",
        "sentAt": "2020-03-01T10:00:10Z",
        "receivedAt": "2020-03-01T10:01:10Z",
        "timestamp": "2020-03-01T10:01:00Z",
    }
    assert taken(call).event_ms == door.read_time_ms("2020-03-01T10:01:00Z")


@pytest.mark.parametrize("timestamp", ["2026-03-01T12:00:00.001Z", "2027-01-01", "9999-12-31T23:59:59Z"])
def test_an_event_of_the_future_counts_from_when_it_was_received(timestamp: str) -> None:
    assert taken({**TRACKED, "timestamp": timestamp}).event_ms == RECEIVED_MS
    assert taken({**TRACKED, "messageId": "m1", "timestamp": timestamp}).event_ms == RECEIVED_MS


def test_a_correction_never_leaves_the_calendar() -> None:
    call = {**TRACKED, "timestamp": "0001-01-01", "sentAt": "9999-12-31"}
    assert taken(call).event_ms == door.EARLIEST_MS


# -- any input -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=4), parts, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    "type messageId userId anonymousId groupId previousId event name timestamp originalTimestamp sentAt receivedAt "
    "properties context traits".split()
)


@given(st.dictionaries(FIELDS, JSON), st.sampled_from([None, "track", "page", "identify", "group", "alias"]))
def test_no_call_gets_through_that_later_steps_cannot_read(call: dict[str, Any], kind: str | None) -> None:
    judged = judge(call, kind=kind)
    if isinstance(judged, Incoming):
        assert door.EARLIEST_MS <= judged.event_ms <= RECEIVED_MS
        assert 0 < len(judged.message_id) <= 100
        assert judged.ids or judged.group
        msgspec.msgpack.encode(msgspec.json.decode(judged.body))
    else:
        assert judged.code in door.REASONS
        assert judged.message.startswith(kind or "batch[3]")
        msgspec.msgpack.encode(judged)


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_door(raw: bytes) -> None:
    judged = judge(raw)
    assert isinstance(judged, Rejected)
    assert judged.code in door.REASONS


# -- the short way ---------------------------------------------------------------------------------------------------

_IDS = st.sampled_from(["u1", "", "x" * 1000, "x" * 1001, "ü", 7, True, None])
_CALLS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["track", "page", "screen", "identify", "group", "alias", "odd", 3, ["track"]]),
        "messageId": st.sampled_from(["m1", "", "m" * 100, "m" * 101, 7, None]),
        "userId": _IDS,
        "anonymousId": _IDS,
        "groupId": _IDS,
        "previousId": _IDS,
        "event": st.sampled_from(["Order Completed", "", "e" * 500, "e" * 501, None, 3]),
        "name": st.sampled_from(["Home", "", "n" * 501, None]),
        "timestamp": st.sampled_from(
            [
                "2026-03-01T11:00:00.250Z",
                "2026-03-01T11:00:00+02:00",
                "2027-01-01T00:00:00Z",
                "0001-01-01T00:00:00+14:00",
                "2026-03-01",
                "2026-03-01 11:00",
                "9999-12-31T23:59:59.999999Z",
                "soon",
                "",
                1_772_366_000_000,
                7,
                None,
            ]
        ),
        "originalTimestamp": st.sampled_from(["2026-03-01T10:00:00Z", None]),
        "sentAt": st.sampled_from(["2026-03-01T10:00:00Z", None]),
        "receivedAt": st.sampled_from(["2026-03-01T10:00:00Z", None]),
        "properties": st.sampled_from([{}, {"n": 10**18}, {"n": 10**19}, {"t": "ü"}, None, [1]]),
        "traits": st.sampled_from([{}, {"email": "A@b.c"}, {"email": None}, {"age": 3}, None]),
        "context": st.sampled_from(
            [
                {},
                {"library": {"name": "ü"}},
                {"externalIds": []},
                {"traits": {"email": "a@b.c"}},
                {"device": {"type": "ios", "id": "d"}},
                None,
            ]
        ),
    },
)

_USUAL = st.fixed_dictionaries(  # what may go the short way, each with a chance to hold one thing that may not
    {
        "type": st.sampled_from(["track", "page", "identify"]),
        "messageId": st.just("m1"),
        "userId": st.sampled_from(["u1", "u2"]),
        "event": st.just("Order Completed"),
        "timestamp": st.sampled_from(
            ["2026-03-01T11:00:00.250Z", "2026-03-01T12:59:59.999999+00:00", "0001-01-01T00:00:00+14:00"]
        ),
    },
    optional={
        "anonymousId": st.just("a1"),
        "name": st.just("Home"),
        "sentAt": st.sampled_from(["2026-03-01T11:00:01Z", "2026-03-01T13:00:00Z", "soon", 1_772_366_000_000]),
        "traits": st.sampled_from([{"age": 3}, {"email": "A@b.c"}]),
        "context": st.sampled_from(
            [
                {"library": {"name": "js"}},
                {"traits": {"email": "a@b.c"}},
                {"device": {"type": "ios", "id": "d"}},
                {"externalIds": [{"id": "x", "type": "crm_id"}]},
            ]
        ),
    },
)
_ANY_CALLS = _CALLS | _USUAL


@given(
    _ANY_CALLS, st.sampled_from([None, "track", "identify", "page"]), st.sampled_from([None, "2026-03-01T10:59:00Z"])
)
def test_the_short_way_in_decides_as_the_long_one(call: dict[str, Any], kind: str | None, sent_at: str | None) -> None:
    raw = json.dumps(call, ensure_ascii=False).encode()
    skew_ms = door._skew_ms(sent_at, RECEIVED_MS)
    assert skew_ms is not None
    short = door._plain(raw, kind, RECEIVED_MS, skew_ms, 3) if door._is_small(raw) and door._is_tame(raw) else None
    if short is not None:
        long = door._accept(raw, kind, RECEIVED_MS, sent_at, 3, lambda: "made", None)
        assert seen_of(short.data) == seen_of(long.data)
        assert short.only == ((short.ids[0].id_type, short.ids[0].value) if len(short.ids) == 1 else door.NO_KEY)
        assert replace(short, data=long.data, only=door.NO_KEY) == long


def seen_of(data: EventData) -> list[Any]:
    """What definitions can look at."""
    return [data.event, data.name, data.properties, data.context, data.traits]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"userId": "u", "anonymousId": "a"},
        {
            "context": {
                "library": {"name": "analytics.js", "version": "2.1"},
                "locale": "de",
                "timezone": "Europe/Berlin",
            }
        },
        {"sentAt": "2026-03-01T11:00:01.000Z"},
        {"properties": {"name": "Müller"}},
        {"properties": {"name": "smile \U0001f600"}},
    ],
)
def test_what_nearly_every_client_sends_takes_the_short_way(more: dict[str, Any]) -> None:
    usual = {
        **TRACKED,
        "messageId": "m1",
        "timestamp": "2026-03-01T11:00:00.250Z",
        "properties": {"total": 9.5},
        **more,
    }
    for ascii_only in (True, False):
        raw = json.dumps(usual, ensure_ascii=ascii_only).encode()
        assert door._is_small(raw)
        assert door._is_tame(raw)
        assert door._plain(raw, None, RECEIVED_MS, 0, 0) is not None


@pytest.mark.parametrize(
    "part",
    ['"n":1234567890123456789', '"n":1e999', '"n":1E+400', '"t":"\\ud83d"', '"t":"\\uD83D x"', '"t":"\xff"'],
)
def test_text_that_may_hide_something_is_not_tame(part: str) -> None:
    assert not door._is_tame(f"{{{part}}}".encode("latin-1"))


def test_what_is_large_or_may_be_deep_is_not_small() -> None:
    assert not door._is_small(b" " * (door.EVENT_BYTES_MAX + 1))
    assert not door._is_small(b"[" * 40 + b"{" * 25)
    assert not door._is_small(b"[" * 40 + b"{" * 25, arrays=40)
    assert door._is_small(b"[" * 40 + b"{" * 24)
    assert door._is_small(b"{" * 24, arrays=1000)


@given(st.lists(_ANY_CALLS, min_size=1, max_size=4), st.sampled_from([None, "2026-03-01T10:59:00Z", "soon", 7]))
def test_a_batch_is_judged_as_its_events_alone(calls: list[dict[str, Any]], sent_at: str | float | None) -> None:
    raws = [msgspec.Raw(json.dumps(call, ensure_ascii=False).encode()) for call in calls]
    judged = door.accept_all(raws, received_ms=RECEIVED_MS, sent_at=sent_at, source="src", new_id=lambda: "made")
    for index, (raw, found) in enumerate(zip(raws, judged, strict=True)):
        try:
            alone = door._accept(bytes(raw), None, RECEIVED_MS, sent_at, index, lambda: "made", None)
        except door._Refusal as refusal:
            code = refusal.code
            assert isinstance(found, Rejected)
            assert found.code == code
        else:
            assert isinstance(found, Incoming)
            assert replace(found, data=alone.data, only=door.NO_KEY) == alone
            assert seen_of(found.data) == seen_of(alone.data)
