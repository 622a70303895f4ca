"""What a value is and what comparisons mean, as the contract says it (section 3), for the reference evaluator.

Written to be read beside the contract: nothing here is fast and nothing is shared with the engine. A value is a JSON
value or None for "missing"; null and missing are the same to every comparison.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import re2

NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
"""A number in a string is one that JSON would take (RFC 8259, section 6)."""
INTEGRAL_TEXT_BELOW: Final = 1e15
"""Whole floats below it are spelled as ints; from there on as Python spells floats."""
DATE: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"([Tt ](?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)([.,](?P<fraction>\d{1,9}))?)?"
    r"\s?(?P<zone>[Zz]|[+-]\d\d(:?\d\d)?)?)?",
    re.ASCII,
)

NEGATIVE: Final = {"differs": "equals", "none_of": "one_of"}
"""Comparisons that hold where the other one does not and there is something to compare."""


def is_scalar(value: Any) -> bool:
    """Tell whether a value is text, a number or a boolean."""
    return isinstance(value, str | int | float | bool)


def number_of(value: Any) -> int | float | None:
    """Return the number that a value is or, as a string, spells; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        spelled = value.strip()
        found = NUMBER.fullmatch(spelled)
        if found is None:
            return None
        whole = found.group(2) is None and found.group(3) is None and math.isfinite(float(spelled))
        value = int(spelled) if whole else float(spelled)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float) else None


def text_of(value: Any) -> str:
    """Return a scalar's text: a string itself, numbers and booleans in their JSON spelling, 5.0 as 5."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < INTEGRAL_TEXT_BELOW:
        return str(int(value))
    return repr(value)


def list_text_of(value: list[Any]) -> str:
    """Return the text of an array taken as one value: its JSON, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def instant_of(value: Any) -> int | None:
    """Return the milliseconds since the epoch of an ISO 8601 string; None for anything else."""
    found = DATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
    fraction_ms = int((found["fraction"] or "0").ljust(3, "0")[:3])
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        instant = local - timedelta(minutes=offset_minutes(found["zone"]))
    except (ValueError, OverflowError):
        return None
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * 1000 + fraction_ms


def offset_minutes(zone: str | None) -> int:
    """Return how many minutes a zone is ahead of UTC; no zone is UTC."""
    if zone is None or zone in ("Z", "z"):
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return (hours * 60 + minutes) * (-1 if zone[0] == "-" else 1)


# -- one scalar against another ----------------------------------------------------------------------------------------


def equal(value: Any, other: Any) -> bool:
    """Tell whether a scalar equals another, whose type decides how they are compared."""
    if isinstance(other, bool):
        return isinstance(value, bool | str) and text_of(value) == text_of(other)
    if isinstance(other, str):
        return text_of(value) == other
    number = number_of(value)
    return number is not None and number == other


def ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return a comparison by order: as text against text, as numbers against a number, never against a boolean."""

    def holds(value: Any, other: Any) -> bool:
        if isinstance(other, bool):
            return False
        if isinstance(other, str):
            return compare(text_of(value), other)
        number = number_of(value)
        return number is not None and compare(number, other)

    return holds


def dated(compare: Callable[[int, int], bool]) -> Callable[[Any, Any], bool]:
    """Return a comparison of two dates, false where one of them is none."""

    def holds(value: Any, other: Any) -> bool:
        instant, other_instant = instant_of(value), instant_of(other)
        return instant is not None and other_instant is not None and compare(instant, other_instant)

    return holds


def pattern_found(pattern: str, text: str) -> bool:
    """Tell whether a pattern matches somewhere in a text; one that is no pattern never does."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options).search(text) is not None
    except re2.error:
        return False


SCALAR_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "equals": equal,
    "one_of": equal,
    "greater_than": ordered(lambda a, b: a > b),
    "at_least": ordered(lambda a, b: a >= b),
    "less_than": ordered(lambda a, b: a < b),
    "at_most": ordered(lambda a, b: a <= b),
    "contains": lambda value, other: text_of(other) in text_of(value),
    "starts_with": lambda value, other: text_of(value).startswith(text_of(other)),
    "ends_with": lambda value, other: text_of(value).endswith(text_of(other)),
    "matches": lambda value, other: pattern_found(text_of(other), text_of(value)),
    "before_date": dated(lambda a, b: a < b),
    "after_date": dated(lambda a, b: a > b),
}
"""The comparisons that hold if the value satisfies any one of the right-hand sides."""

SPAN_COMPARISONS: Final[dict[str, Callable[[int, int, int], bool]]] = {
    "within_last": lambda x, now, span: now - span <= x <= now,
    "within_next": lambda x, now, span: now <= x <= now + span,
    "before_last": lambda x, now, span: x <= now - span,
    "after_next": lambda x, now, span: x >= now + span,
}
"""The comparisons of a date with a span of time before or after now, both ends included."""


# -- a value against its right-hand sides ------------------------------------------------------------------------------


def compare(op: str, value: Any, others: Sequence[Any], now_ms: int) -> bool:
    """Tell whether `value op others` holds. A span of time stands in `others` as a timedelta."""
    if op == "exists":
        return value is not None
    if op == "absent":
        return value is None
    if any(not is_scalar(other) and not isinstance(other, timedelta) for other in others):
        return False
    if op == "omits":
        return not positive("contains", value, others, now_ms)
    if value is None:
        return False
    if op in NEGATIVE:
        something = not isinstance(value, list) or any(element is not None for element in value)
        return something and not positive(NEGATIVE[op], value, others, now_ms)
    return positive(op, value, others, now_ms)


def positive(op: str, value: Any, others: Sequence[Any], now_ms: int) -> bool:
    """Tell whether a scalar, or any element of an array, satisfies the comparison with any right-hand side."""
    elements = value if isinstance(value, list) else [value]
    return any(satisfies(op, element, other, now_ms) for element in elements if is_scalar(element) for other in others)


def satisfies(op: str, element: Any, other: Any, now_ms: int) -> bool:
    """Tell whether one scalar satisfies the comparison with one right-hand side."""
    if isinstance(other, timedelta):
        instant = instant_of(element)
        return instant is not None and SPAN_COMPARISONS[op](instant, now_ms, other // timedelta(milliseconds=1))
    return SCALAR_COMPARISONS[op](element, other)
