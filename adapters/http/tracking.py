"""Events in: the tracking API as a bare ASGI app, since a framework's routing costs half of the throughput.

A request is let in by its write key, read within bounds, judged event by event at the door, handed to its source's
space, and answered when the space has made it durable: 200 is a promise. What is wrong with the call itself is a 400
with nothing taken; what is wrong with one event of a batch is told beside what was taken, and kept in the list of
rejected events. The JSON envelope of a batch is read without looking into its events, so each is judged alone.
"""

from bisect import bisect_left
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, Final, TypeVar

import msgspec
import structlog
from msgspec import Raw, Struct

from actors.control import EVENTS_WRITE, Control, grants, hash_of
from actors.door import (
    BATCH_BYTES_MAX,
    BATCH_EVENTS_MAX,
    Incoming,
    accept,
    accept_all,
    cut_depth,
    mend_surrogates,
    read_time_ms,
)
from actors.space_api import SpaceApi
from adapters.http.auth import refusal_headers, secret_of, tracking_refusal
from adapters.http.body import CallError, ClientGoneError, Receive, read_body
from adapters.http.turns import Turns
from eventlog.clock import Clock
from eventlog.entries import KINDS, Rejected, SourceRecord
from eventlog.errors import ForbiddenError, InvalidError, LogFullError, RefusedError, UnauthorizedError

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
T = TypeVar("T")

SHARED_BYTES_MAX: Final = 4 * BATCH_BYTES_MAX  # a batch's context, copied into each of its events; ours
FULL_RETRY_AFTER_S: Final = 10  # a full disk is seldom freed sooner
BUSY_RETRY_AFTER_S: Final = 1
TURN_BYTES: Final = 64 * 1024  # of batches judged in a turn of the loop: some 5 ms of work
KEYS_REMEMBERED_MAX: Final = 1_000  # headers with a write key, so that it is not unpacked and hashed each time
SECONDS_LEAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The edges that the metrics count durations by."""

PATHS: Final = {
    **{f"/v1/{kind}": kind for kind in KINDS},
    "/v1/batch": None,
    "/v1/import": None,
}
"""Each path of the API with the kind of its call; None: its events say it. A slash at the end is let pass."""

CODES: Final = {
    "unauthorized": "401: no write key, or one that is unknown",
    "forbidden": "403: a token without the scope `events:write`",
    "source_disabled": "403: the source of this write key is disabled",
    "method_not_allowed": "405: something other than POST",
    "malformed_json": "400: the body is not JSON, or not an object",
    "invalid_encoding": "400: the body is not the gzip that its header says, or is cut off",
    "unsupported_encoding": "415: a Content-Encoding other than gzip",
    "unsupported_media_type": "415: a Content-Type other than JSON, or text/plain as browsers send it",
    "batch_too_large": "400: more than 512,000 bytes, unpacked",
    "too_many_events": "400: more than 2,500 events in a batch",
    "invalid_batch": "400: `batch` is missing or no list, or what goes with it is of the wrong type",
    "request_timeout": "408: the body did not arrive in time",
    "overloaded": "503: too many requests are being worked on; nothing was taken, try again",
    "log_full": "503: the disk is full; nothing was taken, try again",
    "internal_error": "500: our fault; nothing is promised about the call",
}
"""The codes of refused calls, beside those of single events in `actors.door.REASONS`."""

TAKEN: Final = b'{"success":true}'
_JSON: Final = (b"content-type", b"application/json")
_CORS: Final = (b"access-control-allow-origin", b"*")
TAKEN_HEADERS: Final = (_JSON, _CORS)
_PREFLIGHT: Final = (
    _CORS,
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-max-age", b"86400"),
    (b"vary", b"access-control-request-headers"),
)
_HEADERS_ALLOWED: Final = b"authorization, content-type, content-encoding"
_HEADERS_ASKED_BYTES_MAX: Final = 1_000

log = structlog.get_logger(__name__)


class Counts:
    """What came in so far, for the metrics."""

    __slots__ = ("bytes_in", "events_refused", "events_taken", "in_flight", "requests", "seconds", "within_s")

    def __init__(self) -> None:
        self.requests: dict[int, int] = {}  # by status
        self.events_taken = 0
        self.events_refused: dict[str, int] = {}  # by code
        self.bytes_in = 0
        self.in_flight = 0
        self.seconds = 0.0  # all requests' together
        self.within_s = [0] * (len(SECONDS_LEAST) + 1)  # how many took at most each of SECONDS_LEAST; longer at the end

    def answered(self, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests[status] = self.requests.get(status, 0) + 1
        self.seconds += seconds
        self.within_s[bisect_left(SECONDS_LEAST, seconds)] += 1


class _Batch(Struct, frozen=True, rename="camel"):
    """A batch, its events unread."""

    batch: list[Raw] | None = None
    sent_at: str | int | float | None = None
    context: dict[str, Any] | None = None


class _Key(Struct, frozen=True, rename="camel"):
    """The write key in a body."""

    write_key: Any = None


_decode_batch: Final = msgspec.json.Decoder(_Batch).decode
_decode_key: Final = msgspec.json.Decoder(_Key).decode
_encode: Final = msgspec.json.Encoder().encode


class TrackingApp:
    """The ASGI app of the tracking API."""

    def __init__(
        self,
        control: Control,
        space: Callable[[str], SpaceApi],
        clock: Clock,
        new_id: Callable[[], str],
        requests_max: int,
    ) -> None:
        """Serve the tracking API.

        Args:
            control: knows the write keys.
            space: returns an open space by its id.
            clock: tells when a call was received.
            new_id: makes a message id for an event without one.
            requests_max: how many requests are worked on at once; each holds at most a body.
        """
        self._control = control
        self._space = space
        self._clock = clock
        self._new_id = new_id
        self.requests_max = requests_max
        self.counts = Counts()
        self._turns = Turns(TURN_BYTES)
        self._key_hashes: dict[bytes, str] = {}  # header -> hash of the write key in it; whose it is, is asked anew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to one of PATHS."""
        counts = self.counts
        counts.in_flight += 1
        begun_s = perf_counter()
        try:
            status, headers, body = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered as JSON
            status, headers, body = answer_to(error, scope["path"])
        finally:
            counts.in_flight -= 1
        counts.answered(status, perf_counter() - begun_s)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = dict(scope["headers"])
        if scope["method"] == "OPTIONS":
            return 204, _preflight(headers), b""
        if scope["method"] != "POST":
            raise CallError(405, "method_not_allowed", f"found {scope['method']}, expected POST", allow="POST, OPTIONS")
        if self.counts.in_flight > self.requests_max:
            message = f"{self.requests_max} requests are being worked on; nothing was taken, try again"
            raise CallError(503, "overloaded", message, retry_after=str(BUSY_RETRY_AFTER_S))
        source = self._source_by_header(headers)
        _check_type(headers)
        body = await read_body(headers, receive, bytes_max=BATCH_BYTES_MAX)
        body = body.removeprefix(BOM_UTF8)
        self.counts.bytes_in += len(body)
        kind = PATHS[scope["path"].rstrip("/")]
        if kind is None:
            return await self._take_batch(body, source)
        return await self._take_call(body, kind, source)

    # -- who sends ---------------------------------------------------------------------------------------------------

    def _source_by_header(self, headers: Mapping[bytes, bytes]) -> SourceRecord | None:
        """Return the source that the header names, None where there is no header: the body may say it."""
        authorization = headers.get(b"authorization")
        if authorization is None:
            return None
        source = self.source_of_key(authorization)
        if source is not None and source.enabled:
            return source
        return self._source_of(secret_of(authorization.decode("latin-1")))

    def source_of_key(self, authorization: bytes) -> SourceRecord | None:
        """Return the source whose write key is in a header; None where that is no write key, or none any more."""
        key_hash = self._key_hashes.get(authorization)
        if key_hash is not None:
            return self._control.source_of_key_hash(key_hash)
        secret = secret_of(authorization.decode("latin-1"))
        source = None if secret is None else self._control.source_of_write_key(secret)
        if secret is not None and source is not None:
            if len(self._key_hashes) >= KEYS_REMEMBERED_MAX:
                self._key_hashes.clear()
            self._key_hashes[authorization] = hash_of(secret)
        return source

    def _source_of(self, secret: object) -> SourceRecord:
        if not isinstance(secret, str) or not secret:
            raise UnauthorizedError(
                "unauthorized", "no write key; send it as the user name of Basic authentication, or as `writeKey`"
            )
        source = self._control.source_of_write_key(secret)
        if source is None:
            source = self._source_of_token(secret)
        if not source.enabled:
            raise ForbiddenError("source_disabled", f"the source {source.name!r} is disabled")
        return source

    def _source_of_token(self, secret: str) -> SourceRecord:
        """Let a token with the scope `events:write` send for the first source of its space."""
        token = self._control.token_of(secret)
        if token is None:
            raise UnauthorizedError(
                "unauthorized", "the write key is unknown; if it was lost, give its source another one"
            )
        if not grants(token.scopes, EVENTS_WRITE):
            raise ForbiddenError("forbidden", f"the token {token.name!r} lacks the scope {EVENTS_WRITE}")
        space_id = token.space_id or self._control.spaces()[0].id
        sources = self._control.sources(space_id)
        if not sources:
            raise ForbiddenError("forbidden", "the token's space has no source; create one first")
        return sources[0]

    # -- taking ------------------------------------------------------------------------------------------------------

    def judge(self, body: bytes, kind: str, source: SourceRecord) -> Incoming | Rejected:
        """Judge a single call. Raises InvalidError for what is no JSON: nothing is kept of it."""
        judged = accept(
            body,
            kind=kind,
            received_ms=self._clock.now_ms(),
            sent_at=None,
            index=0,
            source=source.id,
            new_id=self._new_id,
        )
        if isinstance(judged, Rejected) and judged.code == "invalid_json":
            raise _malformed(judged.message)
        return judged

    async def take(
        self, accepted: list[Incoming], rejected: list[Rejected], source: SourceRecord
    ) -> dict[int, Rejected]:
        """Hand single calls to their space; return, once durable, which of the accepted were refused after all."""
        refused = await self._space(source.space_id).ingest_calls(accepted, rejected, source.id)
        self._count(len(accepted) - len(refused), (*rejected, *refused.values()))
        return refused

    async def _take_call(self, body: bytes, kind: str, source: SourceRecord | None) -> Answer:
        source = source or self._source_of(_write_key_in(body))
        judged = self.judge(body, kind, source)
        refused = await self._ingest([judged], source)
        return refused_call(refused[0]) if refused else (200, [_JSON, _CORS], TAKEN)

    async def _take_batch(self, body: bytes, source: SourceRecord | None) -> Answer:
        source = source or self._source_of(_write_key_in(body))
        await self._turns.enter(len(body))
        batch = _envelope(body)
        judged = self._judge(batch, source)
        refused = await self._ingest(judged, source)
        if not refused:
            return 200, [_JSON, _CORS], TAKEN
        told = [
            {"index": one.index, "messageId": one.message_id, "code": one.code, "message": one.message}
            for one in sorted(refused, key=lambda one: one.index)
        ]
        if len(refused) < len(judged):
            return 200, [_JSON, _CORS], _encode({"success": True, "rejected": told})
        whole = {"success": False, "code": told[0]["code"], "message": _none_taken(told), "rejected": told}
        return 400, [_JSON, _CORS], _encode(whole)

    def _judge(self, batch: _Batch, source: SourceRecord) -> list[Incoming | Rejected]:
        """Judge every event of a batch, each alone. Raises InvalidError for what is wrong with the batch itself."""
        events = batch.batch
        if events is None:
            raise InvalidError("invalid_batch", 'found no `batch`, expected {"batch": [event, …]}')
        if len(events) > BATCH_EVENTS_MAX:
            message = (
                f"batch: {len(events)} events, at most {BATCH_EVENTS_MAX}; batch[{BATCH_EVENTS_MAX}] and those after it"
                " are too many. Nothing was taken: send them in several batches"
            )
            raise InvalidError("too_many_events", message)
        if batch.sent_at is not None:
            _check_sent_at(batch.sent_at)
        if batch.context:
            _check_shared(batch.context, len(events))
        return accept_all(
            events,
            received_ms=self._clock.now_ms(),
            sent_at=batch.sent_at,
            source=source.id,
            new_id=self._new_id,
            shared_context=batch.context,
        )

    async def _ingest(self, judged: list[Incoming | Rejected], source: SourceRecord) -> list[Rejected]:
        """Hand a call's events to its space; return, once durable, those that were refused at the door or behind it."""
        accepted = [one for one in judged if isinstance(one, Incoming)]
        rejected = [one for one in judged if isinstance(one, Rejected)]
        refused = await self._space(source.space_id).ingest(accepted, rejected, source.id) if judged else []
        self._count(len(judged) - len(refused), refused)
        return refused

    def _count(self, taken: int, refused: Iterable[Rejected]) -> None:
        counts = self.counts
        counts.events_taken += taken
        for one in refused:
            counts.events_refused[one.code] = counts.events_refused.get(one.code, 0) + 1


# -- the parts that need nothing of the app --------------------------------------------------------------------------


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what is surely not JSON. Browsers label a beacon's JSON text/plain; some clients label nothing."""
    found = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if found in (b"", b"application/json", b"text/plain") or found.endswith((b"+json", b"/json")):
        return
    raise CallError(
        415,
        "unsupported_media_type",
        f"found Content-Type {found[:100].decode('latin-1')!r}, expected application/json",
    )


def _write_key_in(body: bytes) -> object:
    """Return the `writeKey` of a body; None where there is none, or no JSON: nobody sends it, then."""
    try:
        return _decode_key(body).write_key
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        mended = _mended(body, error)
        return None if mended == body else _write_key_in(mended)


def _envelope(body: bytes) -> _Batch:
    """Read a batch without its events."""
    try:
        return _decode_batch(body)
    except msgspec.ValidationError as error:
        if str(error).startswith("Expected `object`, got `") and "$" not in str(error):
            raise _malformed(f"expected a JSON object: {error}") from None
        raise InvalidError("invalid_batch", f"the batch is not as it should be: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        mended = _mended(body, error)
        if mended == body:
            raise _malformed(f"not JSON: {error}") from None
    return _envelope(mended)


def _mended(body: bytes, error: Exception) -> bytes:
    """Return JSON without what keeps one event from being read, so that the door sees that one alone."""
    return cut_depth(body) if isinstance(error, RecursionError) else mend_surrogates(body)


def _check_sent_at(sent_at: str | float) -> None:
    try:
        read_time_ms(sent_at, "sentAt")
    except ValueError as error:
        raise InvalidError("invalid_batch", f"{error}. Nothing was taken") from None


def _check_shared(context: dict[str, Any], events: int) -> None:
    """Bound what a batch's context grows to, copied into each of its events."""
    size = len(_encode(context)) * events
    if size > SHARED_BYTES_MAX:
        message = f"the batch's context makes {size} bytes with its {events} events, at most {SHARED_BYTES_MAX}"
        raise InvalidError("batch_too_large", message)


def _none_taken(told: list[dict[str, Any]]) -> str:
    if len(told) == 1:
        return str(told[0]["message"])
    return f"none of the {len(told)} events was taken; the first: {told[0]['message']}"


def _malformed(why: str) -> InvalidError:
    return InvalidError("malformed_json", f"{why}. Nothing was taken")


def _preflight(headers: Mapping[bytes, bytes]) -> Headers:
    asked = headers.get(b"access-control-request-headers", _HEADERS_ALLOWED)
    if len(asked) > _HEADERS_ASKED_BYTES_MAX:
        asked = _HEADERS_ALLOWED
    return [*_PREFLIGHT, (b"access-control-allow-headers", asked)]


def refused_call(refused: Rejected) -> Answer:
    """Return what a client is told of a single call that was refused and kept."""
    return 400, [_JSON, _CORS], _encode({"success": False, "code": refused.code, "message": refused.message})


def answer_to(error: Exception, path: str) -> Answer:
    """Return what a client is told of an error, and log those that are ours."""
    if isinstance(error, RefusedError):
        return _refusal(error)
    if isinstance(error, LogFullError):
        log.error("log_full", path=path, error=str(error))
        message = "the disk is full; nothing of this call was taken, send it again later"
        return _refusal(CallError(503, "log_full", message, retry_after=str(FULL_RETRY_AFTER_S)))
    log.error("tracking_failed", path=path, exc_info=error)
    return _refusal(CallError(500, "internal_error", "this is a fault of the server; its log says more"))


def _refusal(error: RefusedError) -> Answer:
    headers = [_JSON, _CORS]
    headers.extend((name.lower().encode(), value.encode()) for name, value in refusal_headers(error).items())
    if isinstance(error, CallError):
        headers.extend((name.encode(), value.encode()) for name, value in error.headers.items())
    return error.status, headers, tracking_refusal(error)
