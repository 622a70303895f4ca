"""The door: a raw tracking call becomes an accepted message or a refusal with its reason.

Everything that may be wrong with a call is found here and nowhere later: what passes is JSON of bounded size and depth,
with ids as text, a time that can be counted, and properties, context and traits that are objects. Pure: the time of
receipt, the source and new ids are arguments. Times are milliseconds since the epoch, UTC.

Choices where the contract is silent (docs/tracking.md tells them to users): numbers given as ids become text; an empty
userId counts as none; a number as timestamp is milliseconds; `originalTimestamp` goes before `timestamp` where both are
given, since the contract's correction is made from it; a call that says when another system first received it
(`receivedAt`) is corrected by that, so that an exported archive keeps its dates.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from actors.conditions.values import text_of
from actors.external_ids import VALUE_CHARS_MAX, ExternalId, group_of_message, ids_of_message
from eventlog.entries import ALIAS, GROUP, IDENTIFY, KINDS, PAGE, SCREEN, TRACK, Rejected
from eventlog.instants import instant_ms
from eventlog.messages import EventData

EVENT_BYTES_MAX: Final = 32 * 1024  # contract, section 1
BATCH_BYTES_MAX: Final = 500 * 1024  # contract, section 1
BATCH_EVENTS_MAX: Final = 2_500  # contract, section 1
MESSAGE_ID_CHARS_MAX: Final = 100  # Segment: "less than 100 characters"; a prefix and a UUID are 60
GROUP_ID_CHARS_MAX: Final = 500  # Segment drops calls with a longer one
NAME_CHARS_MAX: Final = 500  # names are keys of every program; the longest seen in the wild are sentences
DEPTH_MAX: Final = 64  # objects and arrays within one another; later steps recurse over values
DEPTH_CUT: Final = 2 * DEPTH_MAX  # where a batch is cut to be readable at all: deep enough to be refused for it
BRACKETS_CUT_MAX: Final = 100_000  # in a batch of 512,000 bytes; more takes too long to walk and is no batch of events
INTEGER_DIGITS_SAFE: Final = 18  # any integer of so many digits fits 64 bits
INTEGER_MAX: Final = 2**63 - 1
INTEGER_MIN: Final = -(2**63)
EPOCH_MS_LEAST: Final = 100_000_000_000  # 1973-03-03; a smaller number is most likely seconds
DAY_MS: Final = 86_400_000
EARLIEST_MS: Final = -62_135_596_800_000  # 0001-01-01, the first time that has an ISO spelling
LATEST_MS: Final = 253_402_300_799_999  # 9999-12-31

REASONS: Final = {
    "event_too_large": "the event has more than 32,768 bytes",
    "invalid_json": "the event is not JSON (broken UTF-8, NaN, Infinity, a syntax error)",
    "too_deep": "objects and arrays lie more than 64 deep",
    "number_out_of_range": "a number does not fit 64 bits (integers) or a double",
    "invalid_type": "a field is of a type it cannot be",
    "unknown_type": "`type` is missing or none of track, page, screen, identify, group, alias",
    "missing_event": "a track call without `event`",
    "missing_id": "none of the ids that the call needs",
    "id_too_long": "a groupId of more than 500 characters",
    "message_id_too_long": "a messageId of more than 100 characters",
    "name_too_long": "an event's or page's name of more than 500 characters",
    "invalid_timestamp": "`timestamp`, `originalTimestamp`, `sentAt` or `receivedAt` cannot be read",
}
"""The codes of refusals made here, with what they mean. Codes stay; sentences may improve."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NO_KEY: Final = ("", "")
_PLAIN_KINDS: Final = {name: KINDS[name] for name in ("track", "page", "screen", "identify")}
_LONE_SURROGATES: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
# Digits become "0", an exponent's letter "e", what opens a level "{", all else blank, "+" is deleted: what may be too
# long or too deep is then seen at a glance, and only that is looked at again.
_SHAPE: Final = bytes(
    48 if 48 <= byte <= 57 else 101 if byte in b"eE" else 123 if byte in b"{[" else 32 for byte in range(256)
)
_LONG_INTEGER: Final = b"0" * (INTEGER_DIGITS_SAFE + 1)
_LARGE_EXPONENT: Final = b"0e000"
_EXPECTED: Final = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<found>[^`]*)`(?: - at `\$\.?(?P<field>.*)`)?")
_NO_ID: Final = (None, "")
_SAYS_WHO: Final = frozenset(("traits", "device", "externalIds"))  # the parts of a context that may hold ids
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_TIMES: Final = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")
_IN_WORDS: Final = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
}


class Incoming(Struct, frozen=True, gc=False):
    """A tracking call that was found good, with all that later steps need decoded once."""

    kind: int  # entries.TRACK, …
    name: str  # track: the event; page and screen: the call's name or ""; else ""
    message_id: str
    event_ms: int  # corrected for skew, never after the time of receipt
    received_ms: int
    ids: tuple[ExternalId, ...]  # what it says about a user, in order
    group: ExternalId | None  # the account of a group call
    data: EventData  # its properties, context and traits
    body: bytes  # the call as JSON, as it came, with what its batch shared put in
    index: int = 0  # its place in the batch
    only: tuple[str, str] = NO_KEY  # type and value of its only id, where that is all that has to be looked up


class _Call(EventData, rename="camel", gc=False):
    """A call as it comes. What is not named here is kept in the body and not looked at."""

    type: Any = None
    message_id: str | int | float | None = None
    user_id: str | int | float | None = None
    anonymous_id: str | int | float | None = None
    group_id: str | int | float | None = None
    previous_id: str | int | float | None = None
    timestamp: str | int | float | None = None
    original_timestamp: str | int | float | None = None
    sent_at: str | int | float | None = None
    received_at: str | int | float | None = None


_PlainId = Annotated[str, Meta(min_length=1, max_length=VALUE_CHARS_MAX)] | None
_PlainName = Annotated[str, Meta(max_length=NAME_CHARS_MAX)] | None


class _Plain(EventData, rename="camel", gc=False, kw_only=True):
    """A call as nearly all come: what is odd about one does not decode as this."""

    event: _PlainName = None
    name: _PlainName = None
    type: str | None = None
    message_id: Annotated[str, Meta(min_length=1, max_length=MESSAGE_ID_CHARS_MAX)]
    user_id: _PlainId = None
    anonymous_id: _PlainId = None
    timestamp: str
    sent_at: str | None = None
    original_timestamp: None = None
    received_at: None = None


class _Refusal(Exception):  # noqa: N818 - a way out of this module's functions, never seen outside
    """Why a call is refused."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


T = TypeVar("T")
_decode: Final = msgspec.json.Decoder(_Call).decode
_decode_plain: Final = msgspec.json.Decoder(_Plain).decode
_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_anything: Final = msgspec.json.Decoder().decode


def accept(
    raw: bytes,
    *,
    kind: str | None,
    received_ms: int,
    sent_at: str | float | None,
    index: int,
    source: str,
    new_id: Callable[[], str],
    shared_context: dict[str, Any] | None = None,
) -> Incoming | Rejected:
    """Judge one call.

    Args:
        raw: the call as JSON, alone or as it stood in its batch.
        kind: the call's name from the path, or None where the event's own `type` says it.
        received_ms: when it was received.
        sent_at: the batch's `sentAt`, used where the event has none of its own.
        index: the event's place in its batch.
        source: the id of the source it came by.
        new_id: makes a message id for an event without one.
        shared_context: the batch's `context`; the event's own keys go before it.
    """
    if sent_at is None and not shared_context and _is_small(raw) and _is_tame(raw):
        plain = _plain(raw, kind, received_ms, 0, index)
        if plain is not None:
            return plain
    try:
        try:
            return _accept(raw, kind, received_ms, sent_at, index, new_id, shared_context)
        except _Refusal as refusal:
            mended = mend_surrogates(raw) if refusal.code == "invalid_json" else raw
            if mended == raw:
                raise
            return _accept(mended, kind, received_ms, sent_at, index, new_id, shared_context)
    except _Refusal as refusal:
        label, message_id = _label(raw, kind, index)
        return Rejected(
            index=index,
            message_id=message_id,
            code=refusal.code,
            message=f"{label}: {refusal.message}",
            source=source,
            body=bytes(raw[:EVENT_BYTES_MAX]),
        )


def accept_all(
    raws: Iterable[Raw],
    *,
    received_ms: int,
    sent_at: str | float | None,
    source: str,
    new_id: Callable[[], str],
    shared_context: dict[str, Any] | None = None,
) -> list[Incoming | Rejected]:
    """Judge every call of a batch, each alone, as `accept` does."""
    bodies = list(map(bytes, raws))
    joined = b",".join(bodies)  # looked at as a whole, which costs a third of looking at each
    skew_ms = _skew_ms(sent_at, received_ms) if not shared_context and _is_tame(joined) else None
    arrays = joined.count(b"[")
    judged: list[Incoming | Rejected] = []
    for index, raw in enumerate(bodies):
        plain = None
        if skew_ms is not None and _is_small(raw, arrays):
            plain = _plain(raw, None, received_ms, skew_ms, index)
        if plain is None:
            judged.append(
                accept(
                    raw,
                    kind=None,
                    received_ms=received_ms,
                    sent_at=sent_at,
                    index=index,
                    source=source,
                    new_id=new_id,
                    shared_context=shared_context,
                )
            )
        else:
            judged.append(plain)
    return judged


def read_time_ms(value: str | float, field: str = "timestamp") -> int:
    """Return the time that a client wrote; raise ValueError saying what would be right.

    Text is ISO 8601, without a zone UTC, a date alone its first moment. A number is milliseconds since the epoch.
    """
    if isinstance(value, str):
        instant = _usual_time_ms(value)
        if instant is None:
            instant = instant_ms(value)
        if instant is None:
            raise ValueError(f"{field} {_shortened(value)} cannot be read; send ISO 8601, as in 2026-03-01T12:00:00Z")
        return instant
    if not EPOCH_MS_LEAST <= value <= LATEST_MS:
        hint = ", this looks like seconds" if 0 <= value < EPOCH_MS_LEAST else ""
        raise ValueError(
            f"{field} {value!r} cannot be read{hint}; send ISO 8601 (2026-03-01T12:00:00Z) or milliseconds since 1970"
        )
    return int(value)


def mend_surrogates(raw: bytes) -> bytes:
    r"""Return JSON with each half of a character that stands alone (`\ud83d`) replaced by U+FFFD.

    Browsers write such halves when a text is cut within an emoji; one of them must not cost a whole batch.
    """
    return _LONE_SURROGATES.sub(lambda match: b"\\ufffd" if match.group(1) else match.group(0), raw)


def cut_depth(raw: bytes) -> bytes:
    """Return JSON with everything far deeper than DEPTH_MAX replaced by null.

    No decoder reads it otherwise, and one such event must not cost a whole batch. It is still too deep to be taken.
    """
    if raw.count(b"{") + raw.count(b"[") > BRACKETS_CUT_MAX:
        return raw
    kept: list[bytes] = []
    depth = start = 0
    for match in _BRACKETS.finditer(raw):
        if match.group() in (b"{", b"["):
            depth += 1
            if depth == DEPTH_CUT:
                kept.append(raw[start : match.start()])
        elif match.group() in (b"}", b"]"):
            depth -= 1
            if depth == DEPTH_CUT - 1:
                kept.append(b"null")
                start = match.end()
    return b"".join((*kept, raw[start:])) if depth == 0 and kept else raw


def _plain(raw: bytes, kind: str | None, received_ms: int, skew_ms: int, index: int) -> Incoming | None:
    """Let in what nearly every call is, at less than half the cost; None: `_accept` has to look at it.

    That is a call whose JSON is tame and not deep, with a user or anonymous id as text, no email, no further ids in its
    context, and the usual spelling of its times. `skew_ms` is how far the batch's clock is behind ours, 0 where it does
    not say. `tests/actors/test_door.py` holds it against `_accept`.
    """
    try:
        call = _decode_plain(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    kind = call.type if kind is None else kind
    number = _PLAIN_KINDS.get(kind) if kind is not None else None
    if number == TRACK:
        name = call.event
        if not name:
            return None
    elif number is None:
        return None
    else:
        name = (call.name or "") if number != IDENTIFY else ""
    if (call.traits and "email" in call.traits) or (call.context and not _SAYS_WHO.isdisjoint(call.context)):
        return None
    user_id, anonymous_id = call.user_id, call.anonymous_id
    only = NO_KEY
    if anonymous_id is None:
        if user_id is None:
            return None
        only = ("user_id", user_id)
        ids: tuple[ExternalId, ...] = (ExternalId("users", "user_id", user_id),)
    elif user_id is None:
        only = ("anonymous_id", anonymous_id)
        ids = (ExternalId("users", "anonymous_id", anonymous_id),)
    else:
        ids = (ExternalId("users", "user_id", user_id), ExternalId("users", "anonymous_id", anonymous_id))
    event_ms = _usual_time_ms(call.timestamp)
    if event_ms is None:
        return None
    if call.sent_at is not None:
        sent_ms = _usual_time_ms(call.sent_at)
        if sent_ms is None:
            return None
        skew_ms = received_ms - sent_ms
    event_ms += skew_ms
    if event_ms < EARLIEST_MS:
        return None
    if event_ms > received_ms:
        event_ms = received_ms
    return Incoming(number, name, call.message_id, event_ms, received_ms, ids, None, call, raw, index, only)


def _is_tame(raw: bytes) -> bool:
    """Tell that JSON is surely readable text without a number that may be too large; False: it has to be looked at."""
    if not raw.isascii():
        try:
            raw.decode()  # parts that no decoder reads must be text, too
        except UnicodeDecodeError:
            return False
    if (b"\\ud" in raw or b"\\uD" in raw) and mend_surrogates(raw) != raw:
        return False
    shape = raw.translate(_SHAPE, b"+")
    return _LONG_INTEGER not in shape and _LARGE_EXPONENT not in shape


def _is_small(raw: bytes, arrays: int | None = None) -> bool:
    """Tell that a call is not too large and surely not too deep; `arrays` is how many it has at most, where known."""
    if len(raw) > EVENT_BYTES_MAX:
        return False
    objects = raw.count(b"{")
    return (arrays is not None and objects + arrays <= DEPTH_MAX) or objects + raw.count(b"[") <= DEPTH_MAX


def _skew_ms(sent_at: str | float | None, received_ms: int) -> int | None:
    """Return how far the clock of a batch is behind ours; None where that has to be looked at."""
    if sent_at is None:
        return 0
    sent_ms = _usual_time_ms(sent_at) if isinstance(sent_at, str) else None
    return None if sent_ms is None else received_ms - sent_ms


def _usual_time_ms(text: str) -> int | None:
    """Read a time as nearly every client writes it; None: `read_time_ms` has to look at it."""
    return _common_time_ms(text) if text[10:11] == "T" and text[5:6] in "01" else None


def _accept(
    raw: bytes,
    kind: str | None,
    received_ms: int,
    sent_at: str | float | None,
    index: int,
    new_id: Callable[[], str],
    shared_context: dict[str, Any] | None,
) -> Incoming:
    if len(raw) > EVENT_BYTES_MAX:
        raise _Refusal("event_too_large", f"{len(raw)} bytes, at most {EVENT_BYTES_MAX}")
    if shared_context:
        raw = _with_context(raw, shared_context)
    shape = raw.translate(_SHAPE, b"+")
    if shape.count(b"{") > DEPTH_MAX:
        _check_depth(raw)
    call = _decoded(_decode, raw)
    if not raw.isascii() or _LONG_INTEGER in shape or _LARGE_EXPONENT in shape:
        _check_numbers(_decoded(_anything, raw), "")
    number = _kind_of(call.type if kind is None else kind)
    name = _name_of(call, number)
    _check_ids(call, number)
    return Incoming(
        kind=number,
        name=name,
        message_id=_message_id_of(call, new_id),
        event_ms=_event_ms(call, received_ms, sent_at),
        received_ms=received_ms,
        ids=tuple(ids_of_message(call, number)),
        group=group_of_message(call, number) if number == GROUP else None,
        data=call,
        body=bytes(raw),
        index=index,
    )


def _decoded(decode: Callable[[bytes], T], raw: bytes) -> T:
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refusal("invalid_json", f"not JSON: {error}") from None
    except RecursionError:
        raise _too_deep() from None


def _wrong_type(error: str) -> _Refusal:
    """Word msgspec's complaint as ours: which field, what was found, what would be right."""
    if "out of range" in error:
        field = error.partition("$.")[2].rstrip("`").replace("[...]", "")
        return _Refusal("number_out_of_range", f"a number in {field or 'it'} is too large to be kept exactly")
    match = _EXPECTED.match(error)
    if match is None:
        return _Refusal("invalid_type", error)
    found = _IN_WORDS.get(match["found"], match["found"])
    names = [_IN_WORDS.get(name, name) for name in match["expected"].split(" | ") if name != "null"]
    expected = " or ".join(dict.fromkeys(reversed(names)))
    where = f"{match['field']}: " if match["field"] else ""
    code = "invalid_timestamp" if match["field"] in _TIMES else "invalid_type"
    return _Refusal(code, f"{where}found {found}, expected {expected}")


def _kind_of(kind: object) -> int:
    number = KINDS.get(kind) if isinstance(kind, str) else None
    if number is None:
        found = "no type" if kind is None else f"type {_shortened(kind)}"
        raise _Refusal("unknown_type", f"found {found}, expected {', '.join(KINDS)}")
    return number


def _name_of(call: _Call, kind: int) -> str:
    if kind == TRACK:
        if not call.event:
            raise _Refusal("missing_event", "a track call needs `event`, the name of what happened")
        name = call.event
    elif kind in {PAGE, SCREEN}:
        name = call.name or ""
    else:
        return ""
    if len(name) > NAME_CHARS_MAX:
        raise _Refusal("name_too_long", f"a name of {len(name)} characters, at most {NAME_CHARS_MAX}")
    return name


def _check_ids(call: _Call, kind: int) -> None:
    """Refuse a call without the ids it needs. An empty text is none; whether one is blocked is decided later."""
    if kind == GROUP:
        if call.group_id in _NO_ID:
            raise _Refusal("missing_id", "a group call needs `groupId`")
        if isinstance(call.group_id, str) and len(call.group_id) > GROUP_ID_CHARS_MAX:
            raise _Refusal("id_too_long", f"groupId of {len(call.group_id)} characters, at most {GROUP_ID_CHARS_MAX}")
    elif call.user_id in _NO_ID and call.anonymous_id in _NO_ID:
        raise _Refusal("missing_id", "needs `userId` or `anonymousId`")
    elif kind == ALIAS and call.previous_id in _NO_ID:
        raise _Refusal("missing_id", "an alias call needs `previousId`")


def _message_id_of(call: _Call, new_id: Callable[[], str]) -> str:
    value = call.message_id
    text = value if type(value) is str else text_of(value) or ""
    if len(text) > MESSAGE_ID_CHARS_MAX:
        raise _Refusal("message_id_too_long", f"messageId of {len(text)} characters, at most {MESSAGE_ID_CHARS_MAX}")
    return text or new_id()


def _event_ms(call: _Call, received_ms: int, batch_sent_at: str | float | None) -> int:
    """Return when it happened: corrected by the client's clock skew, and never after it was received."""
    field = "timestamp" if call.original_timestamp is None else "originalTimestamp"
    original = call.timestamp if call.original_timestamp is None else call.original_timestamp
    if original is None:
        return received_ms
    sent_at = batch_sent_at if call.sent_at is None else call.sent_at
    try:
        event_ms = read_time_ms(original, field)
        if sent_at is not None:
            first_ms = received_ms if call.received_at is None else read_time_ms(call.received_at, "receivedAt")
            event_ms += first_ms - read_time_ms(sent_at, "sentAt")
    except ValueError as error:
        raise _Refusal("invalid_timestamp", str(error)) from None
    return max(EARLIEST_MS, min(event_ms, received_ms))


def _common_time_ms(text: str) -> int | None:
    """Read what nearly every client writes, four times as fast as `instant_ms`; None: let that look at it."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000


def _check_depth(raw: bytes) -> None:
    """Refuse what nests deeper than DEPTH_MAX; brackets within strings do not count."""
    depth = 0
    for byte in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", raw):
        if byte in b"{[":
            depth += 1
            if depth > DEPTH_MAX:
                raise _too_deep()
        elif byte in b"}]":
            depth -= 1


def _too_deep() -> _Refusal:
    return _Refusal("too_deep", f"objects and arrays lie more than {DEPTH_MAX} deep")


def _check_numbers(value: object, path: str) -> None:
    """Refuse an integer that does not fit 64 bits: what is summed and stored later must stay exact."""
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for part in value:
            _check_numbers(part, path)
    elif isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        raise _Refusal("number_out_of_range", f"{path}: {_shortened(value)} does not fit 64 bits; send it as text")


def _with_context(raw: bytes, shared: dict[str, Any]) -> bytes:
    """Return the call with its batch's context put in: alone in the log, it must say all that its batch said."""
    fields = _decoded(_fields, raw)
    own = _decoded(_anything, bytes(fields["context"])) if "context" in fields else None
    if own is not None and not isinstance(own, dict):
        return raw  # it is refused for that
    fields["context"] = Raw(msgspec.json.encode({**shared, **(own or {})}))
    whole = msgspec.json.encode(fields)
    if len(whole) > EVENT_BYTES_MAX:
        raise _Refusal("event_too_large", f"{len(whole)} bytes with the batch's context, at most {EVENT_BYTES_MAX}")
    return whole


def _label(raw: bytes, kind: str | None, index: int) -> tuple[str, str]:
    """Return how to call a refused event, and its message id, as far as both can be read."""
    place = f"batch[{index}]" if kind is None else kind
    fields: dict[str, Any] = {}
    try:
        decoded = _anything(raw)
        fields = decoded if isinstance(decoded, dict) else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # it is refused anyway; its reason says what is wrong with it
    message_id = fields.get("messageId")
    name = fields.get("event") or fields.get("name")
    if isinstance(name, str):
        place += f" '{name[:NAME_CHARS_MAX]}'"
    elif kind is None and fields.get("type") in tuple(KINDS):  # whatever it is, hashable or not
        place += f" {fields['type']}"
    return place, message_id[:MESSAGE_ID_CHARS_MAX] if isinstance(message_id, str) else ""


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
