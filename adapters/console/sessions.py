"""Who is signed in: a random id in a cookie leads to a token, in this process's memory alone.

Ids and one-time codes are kept as hashes, and they end: by time, when there are too many, with the process. What a
session may do is what its token may do by now: the token itself is checked at every request.
"""

from collections import OrderedDict
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final, TypeVar

from msgspec import Struct

from eventlog.clock import Clock

SESSION_MS: Final = 12 * 3600 * 1000  # a working day
CODE_MS: Final = 15 * 60 * 1000
SESSIONS_MAX: Final = 1_000  # the oldest is signed out; only who has a token makes one
CODES_MAX: Final = 100
ID_BYTES: Final = 32

K = TypeVar("K", bound="Session | Code")


class Session(Struct, frozen=True):
    """Somebody signed in."""

    token: str  # as it was handed in
    form_token: str  # what this session's forms carry
    ends_ms: int


class Code(Struct, frozen=True):
    """A way in that works once."""

    token: str
    ends_ms: int


class Sessions:
    """The sessions and one-time codes there are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._codes: OrderedDict[bytes, Code] = OrderedDict()

    def start(self, token: str) -> str:
        """Sign a token's holder in and return the id for the cookie."""
        session_id = token_urlsafe(ID_BYTES)
        ends_ms = self._clock.now_ms() + SESSION_MS
        _keep(self._sessions, session_id, Session(token, token_urlsafe(ID_BYTES), ends_ms), SESSIONS_MAX)
        return session_id

    def get(self, session_id: str) -> Session | None:
        """Return a session that has not ended."""
        found = self._sessions.get(_hash(session_id))
        return found if found is not None and self._clock.now_ms() < found.ends_ms else None

    def end(self, session_id: str) -> None:
        """Sign out."""
        self._sessions.pop(_hash(session_id), None)

    def issue_code(self, token: str) -> str:
        """Return a code that signs in with a token, once."""
        code = token_urlsafe(ID_BYTES)
        _keep(self._codes, code, Code(token, self._clock.now_ms() + CODE_MS), CODES_MAX)
        return code

    def redeem(self, code: str) -> str | None:
        """Use a code up and return its token; None where it is unknown, used or too old."""
        found = self._codes.pop(_hash(code), None)
        return found.token if found is not None and self._clock.now_ms() < found.ends_ms else None


def _keep(held: OrderedDict[bytes, K], secret: str, what: K, most: int) -> None:
    held[_hash(secret)] = what
    while len(held) > most:
        held.popitem(last=False)


def _hash(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
