"""What an answer means, when to try again, and when to stop trying: backoff, `Retry-After`, the circuit breaker.

Three things hold deliveries back, and each holds as little as it can. A failing delivery waits by itself, and holds its
own profile. A `429`, or any answer with `Retry-After`, holds the destination until then. An open circuit holds it too:
after some failures in a row, of more than one profile (a message that the destination cannot stomach must not stop the
others), one probe at a time is sent, and the first that is not refused closes the circuit again.
"""

from email.utils import parsedate_to_datetime
from random import Random
from typing import Final
from typing import Literal as OneOf

from msgspec import Struct
from msgspec.structs import replace

from actors.delivery import DELIVERED, Answer, Limits, Verdict

RETRY_AFTER_MAX_MS: Final = 3_600_000  # an hour: a date far off is a mistake of the sender's
JITTER: Final = 0.2  # a pause is drawn from 80 % to 120 % of what it nominally is
BREAKER_FAILURES: Final = 5  # in a row open the circuit
BREAKER_PROFILES: Final = 2  # and of at least so many profiles
REASON_CHARS_MAX: Final = 500  # of an answer's body, in a reason
RETRIED: Final = frozenset({408, 429})  # contract, section 5: every other 4xx is final


def judge(answer: Answer, now_ms: int) -> Verdict:
    """Return what an HTTP answer means to the calls it was for."""
    if answer.status == 0:
        how: OneOf["retry", "dead"] = "retry" if answer.again else "dead"
        return Verdict(how=how, reason=answer.error, unsure=answer.again)
    if 200 <= answer.status < 300:
        return DELIVERED
    reason = f"answered {answer.status}{excerpt(answer.body)}"
    if 300 <= answer.status < 400:
        target = answer.headers.get("location", "elsewhere")
        return Verdict(
            how="dead", status=answer.status, reason=f"redirects to {target}: set the address that answers itself"
        )
    if answer.status >= 500 or answer.status in RETRIED:
        pause_ms = retry_after_ms(answer, now_ms)
        return Verdict(
            how="retry",
            reason=reason,
            status=answer.status,
            retry_after_ms=pause_ms,
            slow=answer.status == 429 or pause_ms is not None,
            unsure=answer.status >= 500,
        )
    return Verdict(how="dead", reason=reason, status=answer.status)


def excerpt(body: bytes) -> str:
    """Return the beginning of an answer in one line, after a colon, or nothing."""
    text = " ".join(body[: 4 * REASON_CHARS_MAX].decode("utf-8", "replace").split())
    text = "".join(char if char.isprintable() else "?" for char in text)[:REASON_CHARS_MAX]
    return f": {text}" if text else ""


def retry_after_ms(answer: Answer, now_ms: int) -> int | None:
    """Return for how long a destination asked to wait (seconds or a date), None if it did not say or made no sense."""
    text = answer.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        pause_ms = int(float(text) * 1000)
    except (ValueError, OverflowError):
        try:
            pause_ms = int(parsedate_to_datetime(text).timestamp() * 1000) - now_ms
        except (ValueError, OverflowError, TypeError):
            return None
    return min(max(pause_ms, 0), RETRY_AFTER_MAX_MS)


def backoff_ms(attempts: int, limits: Limits, random: Random) -> int:
    """Return the pause after so many attempts (from 1): the first, doubled each time up to the longest, with jitter."""
    nominal = min(limits.retry_max_ms, limits.retry_first_ms << min(attempts - 1, 40))
    return max(1, round(nominal * random.uniform(1 - JITTER, 1 + JITTER)))


def gives_up(first_ms: int, next_ms: int, limits: Limits) -> bool:
    """Tell whether the next attempt would come after the time that a delivery is tried for."""
    return next_ms > first_ms + limits.retry_for_ms


class Breaker(Struct, frozen=True, omit_defaults=True):
    """The circuit to a destination, as everyone can see it."""

    state: OneOf["closed", "open", "half_open"] = "closed"
    failures: int = 0  # in a row
    profiles: tuple[int, ...] = ()  # the first few that failed since the last success
    opened: int = 0  # times in a row
    until_ms: int = 0  # when a probe may go
    since_ms: int = 0


def failed(breaker: Breaker, entity: int, now_ms: int, limits: Limits, random: Random) -> Breaker:
    """Return the circuit after a request failed without the message being to blame."""
    profiles = breaker.profiles
    if entity not in profiles and len(profiles) < BREAKER_PROFILES:
        profiles = (*profiles, entity)
    failures = breaker.failures + 1
    trips = failures >= BREAKER_FAILURES and len(profiles) >= BREAKER_PROFILES
    if breaker.state == "open" or (breaker.state == "closed" and not trips):
        return replace(breaker, failures=failures, profiles=profiles)
    opened = breaker.opened + 1
    return Breaker(
        state="open",
        failures=failures,
        profiles=profiles,
        opened=opened,
        until_ms=now_ms + backoff_ms(opened, limits, random),
        since_ms=breaker.since_ms if breaker.state == "half_open" else now_ms,
    )


def succeeded(breaker: Breaker) -> Breaker:
    """Return the circuit after a request was answered, be it by a refusal: the destination is there."""
    return breaker if breaker == Breaker() else Breaker()


def probing(breaker: Breaker) -> Breaker:
    """Return the circuit while a probe is under way."""
    return replace(breaker, state="half_open") if breaker.state == "open" else breaker
