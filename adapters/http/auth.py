"""Who asks, and whether they may: tokens in `Authorization`, scopes, spaces, and how many requests a second.

A token comes as `Bearer TOKEN` or as the user name of Basic authentication, as the clients of both APIs send it.
Refusals are errors of `eventlog.errors`; here is also how they are worded in the envelope that each API's clients read.
"""

import base64
from typing import Any, Final

import msgspec

from actors import bucket
from actors.bucket import Bucket
from actors.control import Control, grants
from eventlog.clock import Clock
from eventlog.entries import TokenRecord
from eventlog.errors import ForbiddenError, RefusedError, TooManyError, UnauthorizedError

AUTHORIZATION_CHARS_MAX: Final = 4_096  # ours have under 100; some clients send an OAuth token of a kilobyte or two
CHALLENGE: Final = 'Basic realm="turnout", charset="UTF-8"'
PROFILE_CODES: Final = {
    401: "authentication_error",
    403: "authorization_error",
    404: "not_found",
    429: "rate_limit_error",
}
"""The `code` of the Profile API by status (contract, section 6); what a caller did wrong keeps its own."""


def secret_of(authorization: str | None) -> str | None:
    """Return the token or write key in an `Authorization` header; None where it holds none."""
    if authorization is None or len(authorization) > AUTHORIZATION_CHARS_MAX:
        return None
    scheme, _, credentials = authorization.strip().partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials or None
    if scheme.lower() != "basic":
        return None
    try:
        user = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
    except ValueError:
        return None
    return user or None


class Gate:
    """Lets requests in by their token: known, with the scope, in the space, not too many."""

    def __init__(self, control: Control, clock: Clock, *, rate_per_s: float, burst: int) -> None:
        """Watch over requests.

        Args:
            control: knows the tokens.
            clock: fills the buckets; the wall clock, also where the space has a simulated one that stands still.
            rate_per_s: how many requests a second a token may make for long.
            burst: how many it may make at once.
        """
        self._control = control
        self._clock = clock
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._buckets: dict[str, Bucket] = {}  # by token id, of tokens that exist: as many as there are tokens

    def authenticate(self, authorization: str | None) -> TokenRecord:
        """Return the token of a request. Raises UnauthorizedError, TooManyError."""
        secret = secret_of(authorization)
        token = None if secret is None else self._control.token_of(secret)
        if token is None:
            found = "no token" if secret is None else "a token that is unknown, revoked or expired"
            raise UnauthorizedError(
                "unauthorized",
                f"found {found}; send 'Authorization: Bearer TOKEN', or Basic with the token as user name",
            )
        self._count(token)
        return token

    def admit(self, authorization: str | None, scope: str, space_id: str | None = None) -> TokenRecord:
        """Return the token of a request that may do what needs `scope`, in that space. Raises ForbiddenError too."""
        token = self.authenticate(authorization)
        authorize(token, scope, space_id)
        return token

    def _count(self, token: TokenRecord) -> None:
        now_ms = self._clock.now_ms()
        held = self._buckets.get(token.id)
        if held is None:
            held = bucket.full(self._rate_per_s, self._burst, now_ms)
        left = bucket.take(held, now_ms)
        if left is None:
            raise TooManyError(
                "rate_limited",
                f"more than {self._rate_per_s:g} requests a second with the token {token.name!r}",
                retry_after_ms=bucket.due_ms(held, now_ms) - now_ms,
            )
        self._buckets[token.id] = left


def authorize(token: TokenRecord, scope: str, space_id: str | None = None) -> None:
    """Check that a token may do what needs `scope` ("": any token may), in that space. Raises ForbiddenError."""
    if scope and not grants(token.scopes, scope):
        raise ForbiddenError("forbidden", f"this needs the scope {scope}; the token has {', '.join(token.scopes)}")
    if space_id is not None and token.space_id not in ("", space_id):
        raise ForbiddenError("forbidden", f"the token is for the space {token.space_id} alone")


# -- refusals in the words of each API -------------------------------------------------------------------------------


def retry_after_s(error: Exception) -> int | None:
    """Return the whole seconds for `Retry-After`, at least 1, where an error says when to try again."""
    if not isinstance(error, TooManyError):
        return None
    return max(1, -(-error.retry_after_ms // 1000))


def refusal_headers(error: RefusedError) -> dict[str, str]:
    """Return the headers that go with a refusal."""
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = CHALLENGE
    if (seconds := retry_after_s(error)) is not None:
        headers["Retry-After"] = str(seconds)
    return headers


def management_refusal(error: RefusedError) -> dict[str, Any]:
    """Return `{"errors": [{type, message, field, status}]}`, as the management API's clients read it."""
    said: dict[str, Any] = {"type": error.code, "message": error.message, "status": error.status}
    if error.field is not None:
        said["field"] = error.field
    return {"errors": [said]}


def tracking_refusal(error: RefusedError) -> bytes:
    """Return `{"success": false, "code", "message"}`, as the tracking API's clients read it."""
    return msgspec.json.encode({"success": False, "code": error.code, "message": error.message})
