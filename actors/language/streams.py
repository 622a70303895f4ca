"""The part of a chain that asks about events: which calls, filtered how, reduced to what.

A `Stream` collects the filters until a reducer makes it an `Event`. `where` alone needs conditions, so that the parser
reads it; every other filter, the reducers and the fields they look at are read here.
"""

from typing import Any, Final, TypeVar
from typing import Literal as OneOf

from lark import Token

from actors.language.arguments import cast_of, duration, impossible_date, named, nothing, one, plain, several, text, two
from actors.language.spelling import number_of_text, path_of, unquoted
from actors.language.syntax import Call, Chain, Constant, Shape, quoted, refusal
from actors.language.tree import And, Condition, Context, Event, Literal, Property, Reducer, Window
from eventlog.instants import instant_ms

_T = TypeVar("_T")
_FIELDS: Final = ("property('…')", "context('…')")
_NAME: Final = "a name in quotes"


class Places:
    """Where each node of a tree, and the name in it, stands in the text."""

    def __init__(self) -> None:
        # By identity, since equal nodes stand in several places; holding the node keeps its identity its own.
        self._places: dict[int, tuple[Any, Token, Token]] = {}

    def mark(self, node: _T, at: Token, name: Token | None = None) -> _T:
        """Remember the node's token and that of its name; return the node."""
        self._places[id(node)] = (node, at, name or at)
        return node

    def of(self, node: Any, otherwise: Token) -> Token:
        """Return the token that a node began with."""
        found = self._places.get(id(node))
        return found[1] if found else otherwise

    def of_name(self, node: Any, otherwise: Token) -> Token:
        """Return the token of the name in a node."""
        found = self._places.get(id(node))
        return found[2] if found else otherwise


class Stream:
    """An event whose filters are being read: it has no reducer yet."""

    def __init__(self, call: Call) -> None:
        self.at = call.at
        self.name_at = call.arguments[0].value.at if call.arguments else call.at
        self.name = name_of(call) if call.arguments else None
        self.wheres: list[Condition] = []
        self._windows: list[Window] = []
        self._exclude_sources: list[str] = []
        self._once: dict[str, int] = {}  # since_ms, until_ms, expires_after_ms

    def narrow(self, call: Call, places: Places) -> None:
        """Take a filter other than `where`."""
        match str(call.at):
            case "within":
                parent = named(call, "parent")
                window = Window(0, duration(one(call, "a duration such as 7 days").value).ms, parent is not None)
                self._windows.append(places.mark(window, parent or call.at))
            case "between":
                parent = named(call, "parent")
                after, before = two(call, "two durations, the shorter first: between(30 days, 90 days)")
                after_ms, before_ms = duration(after.value).ms, duration(plain(before)).ms
                later = parent is not None and after_ms == 0
                window = Window(after_ms, before_ms, parent is not None, later)
                self._windows.append(places.mark(window, parent or call.at))
            case "sources":
                self._exclude_sources += _sources(call)
            case "expires_after":
                self._set_once(call, "expires_after_ms", duration(plain(one(call, "a duration such as 1 hour"))).ms)
            case bound:
                self._set_once(call, f"{bound}_ms", _instant(call))

    def reduced(self, reducer: Reducer, places: Places) -> Event:
        """Return the event with its reducer."""
        event = Event(
            call=self._call(),
            reducer=reducer,
            name=self.name,
            where=And(tuple(self.wheres)) if len(self.wheres) > 1 else next(iter(self.wheres), None),
            windows=tuple(self._windows),
            exclude_sources=tuple(dict.fromkeys(self._exclude_sources)),
            since_ms=self._once.get("since_ms"),
            until_ms=self._once.get("until_ms"),
            expires_after_ms=self._once.get("expires_after_ms"),
        )
        return places.mark(event, self.at, self.name_at)

    def _call(self) -> OneOf["track", "page", "screen", "any"]:
        match str(self.at):
            case "page":
                return "page"
            case "screen":
                return "screen"
            case _:
                return "any" if self.name is None else "track"

    def _set_once(self, call: Call, field: str, value: int) -> None:
        if field in self._once:
            raise refusal(call.at, f"a second {quoted(call.at)}", ("only one of an event",))
        self._once[field] = value


def reducer_of(call: Call, places: Places) -> Reducer:
    """Return the reducer that a call is."""
    match str(call.at):
        case "count":
            nothing(call, "unique(property('…')).count() counts different values")
            return places.mark(Reducer("count"), call.at)
        case "mode":
            of, cast = _reduced(call, places, most=2)
            frequency = _frequency(plain(call.arguments[1])) if len(call.arguments) > 1 else Reducer("mode").frequency
            return places.mark(Reducer("mode", of, cast, frequency), call.at)
        case "sum" | "avg" | "min" | "max" | "first" | "last" | "unique" as name:
            of, cast = _reduced(call, places, most=1)
            return places.mark(Reducer(name, of, cast), call.at)
        case name:
            raise AssertionError(name)


def field_of(call: Call, places: Places) -> Property | Context:
    """Return the property or context field that a call is."""
    parent = named(call, "parent") is not None
    argument = one(call, _NAME)
    path = path_of(text(argument.value, _NAME))
    field = Property(path, parent) if call.at == "property" else Context(path, parent)
    return places.mark(field, call.at, argument.value.at)


def name_of(call: Call) -> str:
    """Return the name that is a call's only argument."""
    return text(plain(one(call, _NAME)), _NAME)


def constant_of(shape: Constant, places: Places) -> Literal:
    """Return the constant of a token."""
    token = shape.at
    value: str | float | bool
    match token.type:
        case "STRING":
            value = unquoted(token)
        case "BOOLEAN":
            value = token.lower() == "true"
        case "NUMBER":
            value = number_of_text(token)
        case _:
            if instant_ms(token) is None:
                raise impossible_date(token)
            value = str(token)
    return places.mark(Literal(value), token)


def _reduced(call: Call, places: Places, *, most: int) -> tuple[Property | Context, str | None]:
    name = str(call.at)
    if not call.arguments:
        raise refusal(call.at, f"'{name}()' without an argument", _FIELDS, f"say what of: .{name}(property('…'))")
    if len(call.arguments) > most:
        raise refusal(call.arguments[most].value.at, f"argument {most + 1} of {name}", (f"at most {most}",))
    first = call.arguments[0]
    if first.name is not None:
        hint = f"{name}(property({first.name}: '…'))" if first.name == "parent" else ""
        raise refusal(first.name, f"{quoted(first.name)}:", _FIELDS, hint)
    cast = cast_of(first, name)
    shape = first.value
    if isinstance(shape, Chain) and len(shape.calls) == 1 and shape.at in {"property", "context"}:
        return field_of(shape.calls[0], places), cast
    hint = f"{name} looks at the events themselves"
    if isinstance(shape, Constant) and shape.at.type == "STRING":
        hint = f"say property({shape.at})" if len(shape.at) < len("property") * 10 else ""
    raise refusal(shape.at, quoted(shape.at), _FIELDS, hint)


def _frequency(shape: Shape) -> int:
    value = number_of_text(shape.at) if isinstance(shape, Constant) and shape.at.type == "NUMBER" else None
    if not isinstance(value, int):
        raise refusal(shape.at, quoted(shape.at), ("a whole number",), "how often the value must occur")
    return value


def _sources(call: Call) -> list[str]:
    if named(call, "exclude") is None:
        raise refusal(call.at, f"{quoted(call.at)} without exclude:", ("exclude: ['source id']",))
    shapes = several(call)
    if not shapes:
        raise refusal(call.at, "no source ids", ("exclude: ['source id']",))
    return [text(shape, "a source id in quotes") for shape in shapes]


def _instant(call: Call) -> int:
    shape = plain(one(call, "a date such as 2026-01-31"))
    written = shape.at if isinstance(shape, Constant) else ""
    instant = instant_ms(unquoted(written) if isinstance(shape, Constant) and shape.at.type == "STRING" else written)
    if instant is None:
        raise impossible_date(shape.at)
    return instant
