"""Warnings of what is allowed but surely a mistake: windows that hold no event, comparisons that are always the same.

A warning shows the part that it is about, in its canonical text. Where there is a doubt there is no warning.
"""

import re
from collections.abc import Iterable, Iterator
from math import inf, nextafter
from typing import Final

from msgspec import json

from actors.language.printer import call_text, print_query, value_text, window_text
from actors.language.reach import Reach, reach_of
from actors.language.rules import gives_number
from actors.language.tree import (
    And,
    Comparison,
    Condition,
    Definition,
    Duration,
    Event,
    Literal,
    Not,
    Or,
    Trait,
    Users,
    Value,
)
from actors.language.vocabulary import ORDER_OPERATORS

_SHOWN_CHARS_MAX: Final = 100  # of the part that a warning is about
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ALWAYS: Final = "is always true"
_NEVER: Final = "is never true"
_PART_OPERATORS: Final = frozenset({"contains", "omits", "starts_with", "ends_with"})


def lint(tree: Definition) -> list[str]:
    """Return what is surely a mistake in a definition, each as a sentence; an empty list if nothing is."""
    found = _event(tree, None, None) if isinstance(tree, Event) else _condition(tree, None, None)
    return list(dict.fromkeys(found))


def _shown(node: Condition | Value | Duration) -> str:
    text = value_text(node) if isinstance(node, Value | Duration) else print_query(node)
    return f"`{text}`" if len(text) <= _SHOWN_CHARS_MAX else f"`{text[:_SHOWN_CHARS_MAX]}…`"


def _condition(node: Condition, parent: Event | None, reach: Reach | None) -> Iterator[str]:
    match node:
        case Comparison():
            yield from _comparison(node)
            for value in (node.left, *node.right):
                if isinstance(value, Event):
                    yield from _event(value, parent, reach)
        case And(of=parts) | Or(of=parts):
            yield from _junction(node)
            for part in parts:
                yield from _condition(part, parent, reach)
        case Not(of=part) | Users(of=part):
            yield from _condition(part, parent, reach)


# -- windows ---------------------------------------------------------------------------------------------------------


def _event(node: Event, parent: Event | None, outer: Reach | None) -> Iterator[str]:
    alone, reach = reach_of(node), reach_of(node, outer)
    yield from _single_windows(node)
    if node.since_ms is not None and node.until_ms is not None and node.since_ms >= node.until_ms:
        yield f"{call_text(node)}: since is not before until, so that no event lies between"
    elif any(window.after_ms >= window.before_ms for window in node.windows) or node.expires_after_ms == 0:
        pass  # said already
    elif alone.is_empty:
        windows = ", ".join(window_text(window) for window in node.windows)
        yield f"{call_text(node)}: no event can lie in all of its windows ({windows})"
    elif reach.is_empty and parent is not None and outer is not None and not outer.is_empty:
        yield (
            f"{call_text(node)} inside {call_text(parent)}: no event can lie in its windows and also come after "
            f"{call_text(parent)}, given the windows of that"
        )
    if node.where is not None:
        yield from _condition(node.where, node, reach)


def _single_windows(node: Event) -> Iterator[str]:
    for window in node.windows:
        shown = f"`{window_text(window)}`"
        if window.after_ms > window.before_ms:
            swapped = type(window)(window.before_ms, window.after_ms, window.parent, later=window.before_ms == 0)
            yield f"{shown} has its ends swapped and holds no event: write {window_text(swapped)}"
        elif window.after_ms == window.before_ms:
            is_tie = window.parent and window.open_low_ms < 0
            yield f"{shown} " + ("holds only what happens in the same millisecond" if is_tie else "is empty")
    if node.expires_after_ms == 0:
        yield "`expires_after(0 days)`: a session that ends at once holds no event"


# -- comparisons -----------------------------------------------------------------------------------------------------


def _comparison(node: Comparison) -> Iterator[str]:
    shown = _shown(node)
    if isinstance(node.left, Literal) and all(isinstance(right, Literal) for right in node.right):
        yield f"{shown} compares constants: it is the same for everyone"
        return
    fate = _fate(node)
    if fate:
        yield f"{shown} {fate}"
        return
    if _key(node.left) in {_key(right) for right in node.right}:
        yield f"{shown} compares a value with itself"
    for right in node.right:
        yield from _constant(node, right)
    if len({_key(right) for right in node.right}) < len(node.right):
        yield f"{shown} lists a value twice"


def _constant(node: Comparison, right: Value | Duration) -> Iterator[str]:
    shown = _shown(node)
    if isinstance(right, Duration):
        if right.ms == 0 and node.op in {"within_last", "within_next"}:
            yield f"{shown} holds for a single millisecond only"
        return
    if not isinstance(right, Literal):
        return
    value = right.value
    if node.op in ORDER_OPERATORS and isinstance(value, bool):
        yield f"{shown} {_NEVER}: true and false have no order"
    elif node.op in ORDER_OPERATORS and isinstance(value, str) and _spells_number(value):
        yield f"{shown} compares as text, where '10' comes before '9': leave the quotes out to compare numbers"
    elif node.op in _PART_OPERATORS and value == "":
        yield f"{shown}: every text has an empty text in it"
    elif node.op in _PART_OPERATORS and gives_number(node.left):
        yield f"{shown} looks at the digits of a number"


def _spells_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _fate(node: Comparison) -> str:
    """Tell whether a comparison of a count or a sum can only come out one way."""
    left = node.left
    if not isinstance(left, Event) or not (left.reducer.name in {"count", "sum"} or left.reducer.counted):
        return ""
    what = "a count" if left.reducer.name != "sum" else "a sum"
    if node.op in {"exists", "absent"}:
        return f"{_ALWAYS if node.op == 'exists' else _NEVER}: {what} of nothing is 0"
    right = node.right[0].value if len(node.right) == 1 and isinstance(node.right[0], Literal) else None
    if right is None:
        return ""
    if isinstance(right, bool) or (isinstance(right, str) and not _spells_number(right)):
        is_never = {"equals": _NEVER, "differs": _ALWAYS}.get(node.op, "")
        return f"{is_never}: {what} is a number" if is_never else ""
    if left.reducer.name == "sum" or isinstance(right, str):
        return ""
    return _count_fate(node.op, right)


def _count_fate(op: str, right: float) -> str:
    is_count = right >= 0 and right == int(right)
    match op:
        case "equals" if not is_count:
            return f"{_NEVER}: a count is a whole number from 0"
        case "differs" if not is_count:
            return f"{_ALWAYS}: a count is a whole number from 0"
        case "at_least" if right <= 0:
            return f"{_ALWAYS}: a count is at least 0"
        case "greater_than" if right < 0:
            return f"{_ALWAYS}: a count is at least 0"
        case "less_than" if right <= 0:
            return f"{_NEVER}: a count is at least 0"
        case "at_most" if right < 0:
            return f"{_NEVER}: a count is at least 0"
        case _:
            return ""


# -- junctions -------------------------------------------------------------------------------------------------------


def _junction(node: And | Or) -> Iterator[str]:
    word, fate = ("AND", _NEVER) if isinstance(node, And) else ("OR", _ALWAYS)
    seen: set[bytes] = set()
    for part in node.of:
        key = _key(part)
        if key in seen:
            yield f"{_shown(part)} stands twice in one {word}"
        seen.add(key)
    for part in node.of:
        if isinstance(part, Not) and _key(part.of) in seen:
            yield f"{_shown(part.of)} {word} its own negation {fate}"
    if isinstance(node, And):
        yield from _contradictions(node.of)
    else:
        yield from _alternatives(node.of)


def _contradictions(parts: Iterable[Condition]) -> Iterator[str]:
    """Warn of numbers that would have to lie in two places."""
    bounds: dict[bytes, tuple[float, float]] = {}
    for part in parts:
        if not isinstance(part, Comparison) or not isinstance(part.left, Event | Trait):
            continue
        low, high = _range(part)
        key = _key(part.left)
        before = bounds.get(key, (-inf, inf))
        bounds[key] = max(low, before[0]), min(high, before[1])
        if bounds[key][0] > bounds[key][1] and before[0] <= before[1]:
            warning = f"{_shown(part.left)} cannot be in both of the ranges that are joined by AND"
            if isinstance(part.left, Event) and gives_number(part.left):
                yield warning
            elif isinstance(part.left, Trait) and part.op in ORDER_OPERATORS:
                yield f"{warning}, unless it is an array"


def _range(node: Comparison) -> tuple[float, float]:
    """Return the least and greatest number for which a comparison holds."""
    right = node.right[0].value if len(node.right) == 1 and isinstance(node.right[0], Literal) else None
    if isinstance(right, bool | str) or right is None:
        return -inf, inf
    match node.op:
        case "equals" if isinstance(node.left, Event):
            return right, right
        case "at_least":
            return right, inf
        case "greater_than":
            return nextafter(right, inf), inf
        case "at_most":
            return -inf, right
        case "less_than":
            return -inf, nextafter(right, -inf)
        case _:
            return -inf, inf


def _alternatives(parts: Iterable[Condition]) -> Iterator[str]:
    """Warn of `x != 1 OR x != 2`, which was meant to be AND."""
    differing: dict[bytes, Comparison] = {}
    for part in parts:
        if not isinstance(part, Comparison) or part.op != "differs" or not isinstance(part.right[0], Literal):
            continue
        first = differing.setdefault(_key(part.left), part)
        if _key(first.right[0]) != _key(part.right[0]):
            yield (
                f"{_shown(first)} OR {_shown(part)} holds for every single value: "
                "write AND, or .none_of(…) with all of them"
            )


def _key(node: Condition | Value | Duration) -> bytes:
    """Return what tells two nodes apart (Python takes 1 and true for equal)."""
    return json.encode(node)
