"""Reading what vendors answer, and writing what they ask for: JSON that may be anything, hashed addresses."""

import base64
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from actors.delivery import Answer, Call, Context, Done, HttpAsk, Verdict, overall
from actors.delivery_retry import judge


def json_of(answer: Answer) -> dict[str, Any]:
    """Return an answer's JSON object; an empty one where it is something else."""
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list that an answer may hold."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Return a value of an answer as text, nothing for null."""
    return "" if value is None else str(value)


def ask_json(context: Context, method: Any, url: str, body: object, headers: Mapping[str, str]) -> HttpAsk:
    """Return a request with a JSON body."""
    return HttpAsk(
        method=method,
        url=url,
        headers=(("Content-Type", "application/json"), *headers.items()),
        body=b"" if body is None else msgspec.json.encode(body),
        timeout_s=context.timeout_s,
    )


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Return the header of a bearer token."""
    return {"Authorization": f"Bearer {token}"}


def sha256(text: str) -> str:
    """Return the SHA-256 of the trimmed, lower-cased text, in lower-case hexadecimal."""
    return hashlib.sha256(text.strip().lower().encode()).hexdigest()


def patient(answer: Answer, wait_s: float) -> Answer:
    """Return an answer with the wait that a vendor tells in a form of its own as `Retry-After`, unless it has one."""
    headers = {"retry-after": f"{max(0.0, wait_s):.3f}", **answer.headers}
    return replace(answer, headers=headers)


def number_of(text: object) -> float | None:
    """Return a finite number that an answer may hold, as number or text; None for anything else."""
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        return None
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def ended(answer: Answer, context: Context, calls: tuple[Call, ...]) -> Done:
    """Return the end of a conversation in which one answer decides about all calls."""
    return Done(overall(judge(answer, context.now_ms), len(calls)))


def unfit(reason: str) -> Verdict:
    """Return the verdict on a call that this destination can make nothing of."""
    return Verdict(how="dead", reason=reason)


def gone(verdict: Verdict) -> Verdict:
    """Return the verdict of a remote list that is not there any more, with the way out."""
    return replace(verdict, reason=f"{verdict.reason}; the list is gone: resync the connection to make it anew")


def pinged(answer: Answer, context: Context) -> Done:
    """Return what an answer to a harmless question says."""
    return Done((judge(answer, context.now_ms),))
