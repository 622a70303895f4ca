"""A definition as an indented outline that reads aloud: what `turnout check` shows.

all of:
count of event('Checkout Started') >= 1
between 1 day and 7 days ago
where:
not:
count of event('Order Completed') >= 1
within 1 day after event('Checkout Started')
"""

from collections.abc import Iterator

from actors.language.printer import call_text, reducer_text, symbol_of, value_text
from actors.language.spelling import duration_text, instant_text
from actors.language.tree import (
    And,
    Audience,
    Comparison,
    Condition,
    Definition,
    Duration,
    Event,
    Not,
    Or,
    Reducer,
    Users,
    Value,
    Window,
)

_QUANTIFIERS = {"ANY": "any user:", "ALL": "all users, at least one:", "NONE": "no user:"}


def describe(tree: Definition) -> str:
    """Return a definition as an outline, a line for each part, the parts of a part indented below it."""
    if isinstance(tree, Event):
        lines = [_event_head(tree), *_indented(_filters(tree, None))]
    else:
        lines = list(_condition(tree, None))
    return "\n".join(lines)


def _condition(node: Condition, parent: Event | None) -> Iterator[str]:
    match node:
        case Comparison():
            yield from _comparison(node, parent)
        case Audience(key=key):
            yield f"member of {key}"
        case And(of=parts):
            yield "all of:"
            for part in parts:
                yield from _indented(_condition(part, parent))
        case Or(of=parts):
            yield "any of:"
            for part in parts:
                yield from _indented(_condition(part, parent))
        case Not(of=part):
            yield "not:"
            yield from _indented(_condition(part, parent))
        case Users(quantifier=quantifier, of=part):
            yield _QUANTIFIERS[quantifier]
            yield from _indented(_condition(part, parent))


def _comparison(node: Comparison, parent: Event | None) -> Iterator[str]:
    rights = ", ".join(_side(right) for right in node.right)
    operator = symbol_of(node.op) or node.op.replace("_", " ")
    yield f"{_side(node.left)} {operator} {rights}".rstrip()
    sides = [side for side in (node.left, *node.right) if isinstance(side, Event)]
    for side in sides:
        filters = list(_filters(side, parent))
        if filters and len(sides) > 1:
            yield f"  {_event_head(side)}:"
            filters = list(_indented(filters))
        yield from _indented(filters)


def _side(value: Value | Duration) -> str:
    return _event_head(value) if isinstance(value, Event) else value_text(value)


def _event_head(event: Event) -> str:
    return f"{_reducer(event.reducer)} of {call_text(event)}"


def _reducer(reducer: Reducer) -> str:
    if reducer.of is None:
        return reducer.name
    if reducer.counted:
        return f"count of unique {value_text(reducer.of)}"
    if reducer.cast or reducer.name == "mode":
        return reducer_text(reducer)
    return f"{reducer.name} {value_text(reducer.of)}"


def _filters(event: Event, parent: Event | None) -> Iterator[str]:
    for window in event.windows:
        yield _window(window, parent)
    if event.since_ms is not None:
        yield f"since {instant_text(event.since_ms)}"
    if event.until_ms is not None:
        yield f"until {instant_text(event.until_ms)}"
    if event.exclude_sources:
        yield f"not from {', '.join(event.exclude_sources)}"
    if event.expires_after_ms is not None:
        yield f"in the latest session, which ends after {duration_text(event.expires_after_ms)} without one"
    if event.where is not None:
        yield "where:"
        yield from _indented(_condition(event.where, event))


def _window(window: Window, parent: Event | None) -> str:
    before = duration_text(window.before_ms)
    origin = f"after {call_text(parent)}" if window.parent and parent is not None else "ago"
    if window.after_ms or window.later:
        return f"between {duration_text(window.after_ms)} and {before} {origin}"
    return f"within {before} {origin}" if window.parent else f"within the last {before}"


def _indented(lines: Iterator[str] | list[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
