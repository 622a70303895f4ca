"""The layer around Litestar: lets requests in, mends paths, picks the answer's media type, numbers the answers."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from secrets import token_hex
from typing import Any, Final, cast
from urllib.parse import quote, unquote_to_bytes

import msgspec
from litestar import Litestar

from adapters.http.auth import Gate
from adapters.http.leaving import READING, while_wanted
from adapters.http.refusals import PROFILE_PREFIX, answer_to, problem_of
from eventlog.errors import RefusedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON: Final = "application/json"
MEDIA_TYPES: Final = (
    "application/vnd.segment.v1+json",
    "application/vnd.segment.v1beta+json",
    "application/vnd.segment.v1alpha+json",
    JSON,
)
ACCEPT_CHARS_MAX: Final = 1_000
_PROFILE: Final = re.compile(
    r"(/v1/spaces/[^/]+/collections/[^/]+/profiles/)(.+)(/(?:traits|external_ids|events|metadata|links))/?\Z", re.DOTALL
)


class Edge:
    """The ASGI app of the HTTP APIs; wraps Litestar's."""

    def __init__(self, app: Litestar, gate: Callable[[], Gate]) -> None:
        self.app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or pass a lifespan on."""
        if scope["type"] != "http":
            await self.app(cast("Any", scope), cast("Any", receive), cast("Any", send))
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        raw_path = scope.get("raw_path") or quote(scope["path"]).encode()
        request_id = token_hex(16)
        path = routed_path(raw_path.decode("latin-1"))
        media_type = (
            JSON if path.startswith(PROFILE_PREFIX) else wanted_type(headers.get(b"accept", b"").decode("latin-1"))
        )

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": list(_marked(message.get("headers", ()), media_type, request_id))}
            await send(message)

        authorization = headers.get(b"authorization")
        try:
            token = self._gate().authenticate(None if authorization is None else authorization.decode("latin-1"))
        except RefusedError as error:
            await _refuse(error, path, send_marked)
            return
        marked = {**scope, "path": path, "raw_path": raw_path, "auth": token, "user": token, "request_id": request_id}

        async def answer(receive: Receive, send: Send) -> None:
            await self.app(cast("Any", marked), cast("Any", receive), cast("Any", send))

        async def answer_head(receive: Receive, send: Send) -> None:
            await answer(receive, without_body(send))

        if scope["method"] == "HEAD":  # what `GET` would answer, and no body (RFC 9110)
            marked["method"] = "GET"
            await while_wanted(answer_head, receive, send_marked)
        elif scope["method"] in READING:
            await while_wanted(answer, receive, send_marked)
        else:
            await answer(receive, send_marked)


def without_body(send: Send) -> Send:
    """Return what sends the head of an answer alone; a stream ends there, too."""
    is_done = False

    async def send_head(message: Message) -> None:
        nonlocal is_done
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_done:
            is_done = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head


def routed_path(raw_path: str) -> str:
    """Return the path to route by: decoded but for `/` and `%` within a part, which stay encoded.

    The id in a Profile API path may hold slashes that a client did not encode: what lies between is one part.
    """
    path = "/".join(_decode_part(part) for part in raw_path.split("?", 1)[0].split("/"))
    if match := _PROFILE.fullmatch(path):
        path = match[1] + match[2].replace("/", "%2F") + match[3]
    return path


def _decode_part(part: str) -> str:
    text = unquote_to_bytes(part).decode("utf-8", "replace")
    return text.replace("%", "%25").replace("/", "%2F")


def wanted_type(accept: str) -> str:
    """Return the media type to answer in: of those we speak the one that `Accept` likes best, JSON by default."""
    best, best_q = JSON, 0.0
    for item in accept[:ACCEPT_CHARS_MAX].split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        liking = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
        q = float(liking) if re.fullmatch(r"[01](\.\d{0,3})?", liking) else 0.0
        if name in MEDIA_TYPES and q > best_q:
            best, best_q = name, q
    return best


def _marked(headers: Iterable[tuple[bytes, bytes]], media_type: str, request_id: str) -> Iterable[tuple[bytes, bytes]]:
    for name, value in headers:
        if name.lower() == b"content-type" and value.split(b";")[0].strip() == JSON.encode():
            yield name, media_type.encode()
        else:
            yield name, value
    yield b"request-id", request_id.encode()


async def _refuse(error: RefusedError, path: str, send: Send) -> None:
    problem = problem_of(error)
    body, extra = answer_to(problem, path)
    encoded = msgspec.json.encode(body)
    headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(encoded)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": encoded})
