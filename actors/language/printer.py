"""A tree as text, in one canonical spelling: `parse(print_query(tree)) == tree`.

Keywords in capitals, symbols where there is one, single quotes, durations in their largest unit, filters in a fixed
order (where, windows, since, until, sources, session), brackets only where they mean something.
"""

from collections.abc import Iterator
from typing import Final

from actors.language.spelling import duration_text, instant_text, path_text, quoted_text
from actors.language.tree import (
    SYMBOLS,
    And,
    Audience,
    Comparison,
    Condition,
    Context,
    Definition,
    Duration,
    Event,
    Literal,
    Not,
    Or,
    Property,
    Reducer,
    Trait,
    Users,
    Value,
    Window,
)

_SYMBOL_OF: Final = {op: symbol for symbol, op in SYMBOLS.items() if symbol != "=="}


def print_query(tree: Definition) -> str:
    """Return the canonical text of a definition, or of a part of one."""
    return value_text(tree) if isinstance(tree, Event) else _condition(tree)


def value_text(value: Value | Duration) -> str:
    """Return the text of one side of a comparison."""
    match value:
        case Literal(value=constant):
            return _constant(constant)
        case Property(path=path, parent=parent):
            return _field("property", path, parent=parent)
        case Context(path=path, parent=parent):
            return _field("context", path, parent=parent)
        case Trait(path=path):
            return f"trait({quoted_text(path_text(path))})"
        case Duration(ms=ms):
            return duration_text(ms)
        case Event():
            return ".".join(_event(value))


def window_text(window: Window) -> str:
    """Return a window as the filter that makes it."""
    parent = "parent: " if window.parent else ""
    if window.after_ms == 0 and not (window.parent and window.later):
        return f"within({parent}{duration_text(window.before_ms)})"
    return f"between({parent}{duration_text(window.after_ms)}, {duration_text(window.before_ms)})"


def reducer_text(reducer: Reducer) -> str:
    """Return a reducer as its call."""
    if reducer.of is None:
        return f"{reducer.name}()"
    arguments = value_text(reducer.of)
    if reducer.cast is not None:
        arguments += f" as {reducer.cast}"
    if reducer.name == "mode":
        arguments += f", {reducer.frequency}"
    return f"{reducer.name}({arguments})" + (".count()" if reducer.counted else "")


def call_text(event: Event) -> str:
    """Return which calls an event's question is about."""
    name = "" if event.name is None else quoted_text(event.name)
    return f"{'event' if event.call in {'track', 'any'} else event.call}({name})"


def symbol_of(op: str) -> str | None:
    """Return the symbol that stands for a comparison, if one does."""
    return _SYMBOL_OF.get(op)


def _condition(node: Condition) -> str:
    node = _solid(node)
    match node:
        case Comparison():
            return _comparison(node)
        case Audience(key=key):
            return f"audience({quoted_text(key)})"
        case And(of=parts):
            return " AND ".join(_bracketed(part, And, Or) for part in parts)
        case Or(of=parts):
            return " OR ".join(_bracketed(part, Or) for part in parts)
        case Not(of=part):
            return f"NOT {_bracketed(part, And, Or)}"
        case Users(quantifier=quantifier, of=part):
            return f"{quantifier} {_bracketed(part, And, Or)}"


def _bracketed(node: Condition, *kinds: type[And] | type[Or]) -> str:
    """Return a part's text, in brackets if it is a junction that would otherwise dissolve into what is around it."""
    text = _condition(node)
    return f"({text})" if isinstance(_solid(node), kinds) else text


def _solid(node: Condition) -> Condition:
    """Return what a junction of one part stands for (text has none, JSON may)."""
    while isinstance(node, And | Or) and len(node.of) == 1:
        node = node.of[0]
    return node


def _comparison(node: Comparison) -> str:
    left = f"literal({value_text(node.left)})" if isinstance(node.left, Literal) else value_text(node.left)
    symbol = symbol_of(node.op)
    if symbol is not None and len(node.right) == 1:
        return f"{left} {symbol} {value_text(node.right[0])}"
    return f"{left}.{node.op}({', '.join(value_text(right) for right in node.right)})"


def _event(event: Event) -> Iterator[str]:
    yield call_text(event)
    if event.where is not None:
        yield f"where({_condition(event.where)})"
    for window in event.windows:
        yield window_text(window)
    if event.since_ms is not None:
        yield f"since({instant_text(event.since_ms)})"
    if event.until_ms is not None:
        yield f"until({instant_text(event.until_ms)})"
    if event.exclude_sources:
        yield f"sources(exclude: [{', '.join(quoted_text(source) for source in event.exclude_sources)}])"
    if event.expires_after_ms is not None:
        yield f"expires_after({duration_text(event.expires_after_ms)})"
    yield reducer_text(event.reducer)


def _field(name: str, path: tuple[str, ...], *, parent: bool) -> str:
    return f"{name}({'parent: ' if parent else ''}{quoted_text(path_text(path))})"


def _constant(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted_text(value) if isinstance(value, str) else repr(value)
