"""What comparisons mean (contract, section 3): one function a comparison, on JSON values.

`test(op, right)` gives a predicate for constants on the right, `compare` does the same for values known only later. A
missing or null left side is false but for `absent` and `omits`. On an array a positive comparison holds if any element
satisfies it, a negative one if none does and it has an element; null elements are ignored. On an object no positive one
holds. The type of a right value decides: numbers compare as numbers, text and booleans as text. Operators that look at
the clock take `now`; `boundaries` tells when they may change.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, Final

import re2

from actors.conditions.values import date_of, number_of, text_of

Scalar = str | int | float | bool
Predicate = Callable[[Any], bool]

CLOCKED: Final = frozenset({"within_last", "within_next", "before_last", "after_next"})
_ORDER: Final = {"greater_than": gt, "at_least": ge, "less_than": lt, "at_most": le}
_NEGATED: Final = {"differs": "equals", "none_of": "one_of", "omits": "contains"}


def _equals(right: Scalar) -> Predicate:
    if type(right) is bool:
        spelt = "true" if right else "false"
        return lambda value: value is right or value == spelt
    if type(right) is str:
        return lambda value: text_of(value) == right
    wanted = number_of(right)
    return lambda value: wanted is not None and number_of(value) == wanted


def _ordered(op: str, right: Scalar) -> Predicate:
    holds = _ORDER[op]
    if type(right) is bool:
        return lambda value: False
    if type(right) is str:

        def text_test(value: Any) -> bool:
            text = text_of(value)
            return text is not None and holds(text, right)

        return text_test
    bound = number_of(right)

    def number_test(value: Any) -> bool:
        number = number_of(value)
        return number is not None and bound is not None and holds(number, bound)

    return number_test


def _on_text(matches: Callable[[str, str], bool], rights: tuple[Scalar, ...]) -> Predicate:
    texts = tuple(text for text in map(text_of, rights) if text is not None)

    def test_text(value: Any) -> bool:
        text = text_of(value)
        return text is not None and any(matches(text, part) for part in texts)

    return test_text


def _on_date(op: str, right: Scalar) -> Predicate:
    bound = date_of(right)

    def test_date(value: Any) -> bool:
        date = date_of(value)
        if date is None or bound is None:
            return False
        return date < bound if op == "before_date" else date > bound

    return test_date


@lru_cache(maxsize=1024)
def pattern(text: str) -> Any:
    """Return a compiled linear-time regular expression."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(text, options)


def _matches(right: Scalar) -> Predicate:
    search = pattern(str(right)).search

    def test_pattern(value: Any) -> bool:
        text = text_of(value)
        return text is not None and search(text) is not None

    return test_pattern


def _scalar_test(op: str, rights: tuple[Scalar, ...]) -> Predicate:
    """Return the predicate of a positive comparison on one scalar that is not null."""
    if op == "equals":
        return _equals(rights[0])
    if op in _ORDER:
        return _ordered(op, rights[0])
    if op == "one_of":
        tests = tuple(_equals(right) for right in rights)
        return lambda value: any(is_it(value) for is_it in tests)
    if op == "contains":
        return _on_text(lambda text, part: part in text, rights)
    if op == "starts_with":
        return _on_text(str.startswith, rights)
    if op == "ends_with":
        return _on_text(str.endswith, rights)
    if op in {"before_date", "after_date"}:
        return _on_date(op, rights[0])
    return _matches(rights[0])


def test(op: str, rights: tuple[Scalar, ...]) -> Predicate:
    """Return the predicate `value op rights` for constants on the right; not for operators in CLOCKED."""
    if op == "exists":
        return lambda value: value is not None
    if op == "absent":
        return lambda value: value is None
    positive = _scalar_test(_NEGATED.get(op, op), rights)
    if op == "omits":
        return lambda value: not _any(value, positive)
    if op in _NEGATED:
        return lambda value: _has(value) and not _any(value, positive)
    return lambda value: _any(value, positive)


def _any(value: Any, holds: Predicate) -> bool:
    kind = type(value)
    if kind is list:
        return any(item is not None and type(item) is not list and holds(item) for item in value)
    return value is not None and kind is not dict and holds(value)


def _has(value: Any) -> bool:
    if type(value) is list:
        return any(item is not None for item in value)
    return value is not None


def compare(op: str, value: Any, rights: tuple[Any, ...]) -> bool:
    """Tell whether `value op rights` holds. A right that is null, an array or an object makes it false."""
    if any(right is None or type(right) in (list, dict) for right in rights):
        return False
    return _cached_test(op, tuple((type(right), right) for right in rights))(value)


@lru_cache(maxsize=4096)
def _cached_test(op: str, typed: tuple[tuple[type, Scalar], ...]) -> Predicate:
    return test(op, tuple(right for _, right in typed))


def clocked(op: str, value: Any, span_ms: int, now_ms: int) -> bool:
    """Tell whether a date (or any of an array's) lies in a span around now; both ends count."""
    dates = (date_of(item) for item in value) if type(value) is list else iter((date_of(value),))
    return any(date is not None and _in_span(op, date, span_ms, now_ms) for date in dates)


def _in_span(op: str, date_ms: int, span_ms: int, now_ms: int) -> bool:
    if op == "within_last":
        return now_ms - span_ms <= date_ms <= now_ms
    if op == "within_next":
        return now_ms <= date_ms <= now_ms + span_ms
    if op == "before_last":
        return date_ms <= now_ms - span_ms
    return date_ms >= now_ms + span_ms


def clocked_due_ms(op: str, value: Any, span_ms: int, now_ms: int) -> int | None:
    """Return when `clocked` may next change by itself, or None."""
    dates = [date_of(item) for item in value] if type(value) is list else [date_of(value)]
    edges: list[int] = []
    for date in dates:
        if date is None:
            continue
        if op == "within_last":
            edges += (date, date + span_ms + 1)
        elif op == "within_next":
            edges += (date - span_ms, date + 1)
        elif op == "before_last":
            edges.append(date + span_ms)
        else:
            edges.append(date - span_ms + 1)
    return min((edge for edge in edges if edge > now_ms), default=None)
