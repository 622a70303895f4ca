"""The layer around the console's app: lets in who is signed in, and gives every answer the headers that keep it safe.

A page may run scripts and styles of this server alone, may not be framed, and is not kept by caches. Whatever changes
something has to come from this server's own pages: the cookie is sent with nothing else (`SameSite=Strict`), an
`Origin` of elsewhere is refused here, and forms carry their session's token, which `calls.py` checks.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, cast
from urllib.parse import urlsplit

from litestar import Litestar

from adapters.console.rendering import CSS_PATH, ROOT, SIGN_IN, problem_page, sign_in_page
from adapters.console.sessions import Session, Sessions
from adapters.http.auth import Gate, refusal_headers
from eventlog.entries import TokenRecord
from eventlog.errors import ForbiddenError, RefusedError, UnauthorizedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE: Final = "turnout_session"
COOKIE_CHARS_MAX: Final = 4_096  # what browsers keep of one; ours has under 100
OPEN_PATHS: Final = (SIGN_IN, CSS_PATH)
"""What answers anyone: the log-in page and what it looks like."""
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")

_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer browsers would send `Origin: null`
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Door:
    """The ASGI app of the console; wraps Litestar's."""

    def __init__(self, app: Litestar, gate: Callable[[], Gate], sessions: Sessions) -> None:
        self.app = app
        self._gate = gate
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or pass a lifespan on."""
        if scope["type"] != "http":
            await self.app(cast("Any", scope), cast("Any", receive), cast("Any", send))
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": list(_safe(message.get("headers", ())))}
            await send(message)

        session_id = session_id_of(headers.get(b"cookie", ""))
        try:
            if scope["method"] not in SAFE_METHODS:
                refuse_foreign(headers)
            session, token = self._admit(session_id, scope["path"])
        except RefusedError as error:
            await _refuse(error, scope, headers, send_safe)
            return
        marked = {**scope, "auth": token, "user": session, "session_id": session_id}
        await self.app(cast("Any", marked), cast("Any", receive), cast("Any", send_safe))

    def _admit(self, session_id: str, path: str) -> tuple[Session | None, TokenRecord | None]:
        """Return who asks. Raises UnauthorizedError, TooManyError."""
        session = self._sessions.get(session_id)
        if session is None:
            if path in OPEN_PATHS:
                return None, None
            raise UnauthorizedError("unauthorized", "Sign in first.")
        if path in OPEN_PATHS:
            return session, None
        try:
            return session, self._gate().authenticate(f"Bearer {session.token}")
        except UnauthorizedError:
            self._sessions.end(session_id)
            raise UnauthorizedError("unauthorized", "The token has been revoked or has expired.") from None


def session_id_of(cookies: str) -> str:
    """Return the session id in a `Cookie` header, "" for none."""
    try:
        jar: SimpleCookie = SimpleCookie(cookies[:COOKIE_CHARS_MAX])
    except CookieError:
        return ""
    return jar[COOKIE].value if COOKIE in jar else ""


def refuse_foreign(headers: Mapping[bytes, str]) -> None:
    """Refuse what a page of another origin sends. Raises ForbiddenError."""
    origin = headers.get(b"origin")
    if origin is not None and urlsplit(origin).netloc != headers.get(b"host", ""):
        raise ForbiddenError("forbidden", f"This was sent from {origin[:100]!r}, not from the console's own pages.")
    if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ForbiddenError("forbidden", "This was sent from another site, not from the console's own pages.")


def _safe(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    is_kept = False
    for name, value in headers:
        is_kept = is_kept or name.lower() == b"cache-control"
        yield name, value
    yield from _HEADERS
    if not is_kept:
        yield b"cache-control", b"no-store"


async def _refuse(error: RefusedError, scope: Scope, headers: Mapping[bytes, str], send: Send) -> None:
    is_part = b"hx-request" in headers
    extra = {name: value for name, value in refusal_headers(error).items() if name != "WWW-Authenticate"}
    if not isinstance(error, UnauthorizedError):
        body = problem_page(error.status, error.message, is_part=is_part)
    else:
        body = sign_in_page(scope["path"] if scope["method"] == "GET" and not is_part else ROOT)
        if is_part:
            extra["HX-Redirect"] = SIGN_IN
    encoded = body.encode()
    head = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(encoded))]
    head += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    await send({"type": "http.response.body", "body": encoded})
