"""What went wrong lately: requests that failed, with what was asked and what was answered, secrets taken out.

The newest few are kept beside the destination, cut to what a person reads. They may name people, so whoever is deleted
takes those with them that their profile was part of.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from actors.delivery import Answer, Ask, Call
from actors.delivery_settings import MASK, scrubbed

FAILURES_MAX: Final = 20  # kept of a destination
ENTITIES_MAX: Final = 100  # named of a batch; a larger one goes with whoever is deleted first
BODY_CHARS_MAX: Final = 2_000
BODY_BYTES_READ: Final = 4 * BODY_CHARS_MAX
PLAIN_HEADERS: Final = frozenset(  # the others' values may be secret
    {
        "accept",
        "cf-ray",
        "connection",
        "content-length",
        "content-type",
        "date",
        "location",
        "request-id",
        "retry-after",
        "server",
        "via",
        "webhook-id",
        "webhook-timestamp",
        "x-request-id",
    }
)


class Exchange(Struct, frozen=True):
    """The last thing that was asked in a conversation, and what came back."""

    ask: Ask
    answer: Answer


class Failure(Struct, frozen=True, omit_defaults=True):
    """A request that failed."""

    at_ms: int
    reason: str
    status: int
    calls: int  # that it carried
    entities: tuple[int, ...]  # whose they were, the first few
    method: str
    address: str
    headers: dict[str, str]
    body: str
    answer_headers: dict[str, str]
    answer_body: str

    def is_about(self, entity: int) -> bool:
        """Tell whether it may name a profile."""
        return entity in self.entities or self.calls > len(self.entities)


def failure_of(
    exchange: Exchange, calls: tuple[Call, ...], reason: str, now_ms: int, secrets: Iterable[str]
) -> Failure:
    """Return what is kept of an exchange that failed."""
    shown, answer, secrets = exchange.ask.shown(), exchange.answer, tuple(secrets)
    return Failure(
        at_ms=now_ms,
        reason=reason,
        status=answer.status,
        calls=len(calls),
        entities=tuple(call.entity for call in calls[:ENTITIES_MAX]),
        method=shown.method,
        address=scrubbed(shown.address, secrets),
        headers=_headers(dict(shown.headers), secrets),
        body=_text(shown.body, secrets),
        answer_headers=_headers(answer.headers, secrets),
        answer_body=_text(answer.body, secrets),
    )


def _headers(headers: Mapping[str, str], secrets: tuple[str, ...]) -> dict[str, str]:
    return {
        name: scrubbed(value, secrets)[:BODY_CHARS_MAX] if name.lower() in PLAIN_HEADERS else MASK
        for name, value in headers.items()
    }


def _text(body: bytes, secrets: tuple[str, ...]) -> str:
    return scrubbed(body[:BODY_BYTES_READ].decode("utf-8", "replace"), secrets)[:BODY_CHARS_MAX]
