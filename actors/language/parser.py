"""Text to a checked tree: which function a call is, what it takes, and where in a chain it may stand.

A chain is read from left to right and is always one of three things: an event that is being filtered (`_Stream`), a
value, or a condition. Each call turns it into the next; a call that does not fit is refused at its name. Where every
node of the tree began is kept beside it, so that the rules of checker.py can name lines and columns too.
"""

from typing import Any, Final, TypeGuard, TypeVar
from typing import Literal as OneOf

from lark import Token
from msgspec.structs import replace

from actors.language.checker import EntityType, Flaw, Kind, check
from actors.language.printer import print_query
from actors.language.spelling import number_of_text, path_of, unquoted
from actors.language.syntax import (
    Argument,
    Call,
    Chain,
    Constant,
    Items,
    Junction,
    Prefix,
    Relation,
    Shape,
    Span,
    Word,
    quoted,
    refusal,
    shape_of,
)
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
from actors.language.vocabulary import (
    CASTS,
    COMPARISONS,
    DEFINITION_CHARS_MAX,
    EVENT_CALLS,
    EXTRACTORS,
    FILTERS,
    REDUCERS,
    UNIT_WORDS,
    UNITS_MS,
    did_you_mean,
)
from eventlog.errors import QueryError
from eventlog.instants import instant_ms


def parse(text: str, *, entity_type: EntityType = "USERS", kind: Kind = "audience") -> Definition:
    """Return the checked tree of a definition's text. Raises QueryError with line, column and a hint."""
    shape = shape_of(text)
    reader = _Reader()
    tree = reader.definition(shape, kind)
    try:
        check(tree, entity_type=entity_type, kind=kind)
    except Flaw as flaw:
        at = reader.place_of(flaw.node, shape.at)
        raise refusal(at, flaw.found, flaw.accepted, flaw.hint) from None
    if len(print_query(tree)) > DEFINITION_CHARS_MAX:  # so that the canonical text can always be parsed again
        raise refusal(
            shape.at, "a definition too long to be spelled out", (f"at most {DEFINITION_CHARS_MAX} characters",)
        )
    return tree


class _Stream:
    """An event whose filters are being read: it has no reducer yet."""

    def __init__(self, call: OneOf["track", "page", "screen", "any"], name: str | None, at: Token) -> None:
        self.call = call
        self.name = name
        self.at = at
        self.wheres: list[Condition] = []
        self.windows: list[Window] = []
        self.exclude_sources: list[str] = []
        self.once: dict[str, int] = {}  # since_ms, until_ms, expires_after_ms

    def reduced(self, reducer: Reducer) -> Event:
        """Return the event with its reducer."""
        where = And(tuple(self.wheres)) if len(self.wheres) > 1 else next(iter(self.wheres), None)
        return Event(
            call=self.call,
            reducer=reducer,
            name=self.name,
            where=where,
            windows=tuple(self.windows),
            exclude_sources=tuple(dict.fromkeys(self.exclude_sources)),
            **self.once,
        )


_T = TypeVar("_T")
_Made = Value | Condition | _Stream
_VALUES: Final = (Literal, Property, Context, Trait, Event)
_CONDITIONS: Final = (Comparison, Audience, And, Or, Not, Users)


def _is_value(made: _Made) -> TypeGuard[Value]:
    return isinstance(made, _VALUES)


def _is_condition(made: _Made) -> TypeGuard[Condition]:
    return isinstance(made, _CONDITIONS)


class _Reader:
    """Reads one definition; remembers where each node of its tree stands in the text."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[Any, Token]] = {}  # by identity; holding the node keeps its identity its own

    def place_of(self, node: Any, otherwise: Token) -> Token:
        """Return the token that a node began with."""
        found = self._places.get(id(node))
        return found[1] if found else otherwise

    def definition(self, shape: Shape, kind: Kind) -> Definition:
        """Return the tree of a whole definition."""
        made = self._made(shape)
        if isinstance(made, _Stream):
            hint = "a computed trait ends in a reducer such as .count()" if kind == "trait" else _COUNT_HINT
            raise refusal(made.at, "an event without a reducer", _dotted(REDUCERS), hint)
        if kind == "trait":
            if isinstance(made, Event):
                return made
            what = "a condition" if _is_condition(made) else "a value that is not of events"
            raise refusal(
                shape.at, what, ("an event with a reducer",), "a computed trait ends in a reducer such as .count()"
            )
        return self._need_condition(made, shape)

    # -- shapes ------------------------------------------------------------------------------------------------------

    def _at(self, node: _T, at: Token) -> _T:
        self._places[id(node)] = (node, at)
        return node

    def _made(self, shape: Shape) -> _Made:
        match shape:
            case Constant():
                return self._constant(shape)
            case Chain():
                return self._chain(shape)
            case Relation():
                return self._relation(shape)
            case Junction(conjunction=conjunction, of=parts):
                conditions = tuple(self._condition(part) for part in parts)
                return self._at(And(conditions) if conjunction else Or(conditions), shape.at)
            case Prefix(at=at, of=part):
                return self._at(self._prefixed(at, self._condition(part)), at)
            case Span(at=at, unit=unit):
                found, hint = f"{at} {unit}", "durations stand in within, between, within_last and the like"
                raise refusal(at, f"the duration '{found}'", ("a value or a condition",), hint)
            case Items(at=at):
                raise refusal(
                    at, "a list", ("a single value or a condition",), "lists stand in one_of, none_of, sources"
                )
            case Word(at=at):
                raise _misplaced_word(at)

    def _prefixed(self, at: Token, part: Condition) -> Condition:
        match at.upper():
            case "NOT":
                return Not(part)
            case "ANY":
                return Users("ANY", part)
            case "ALL":
                return Users("ALL", part)
            case _:
                return Users("NONE", part)

    def _condition(self, shape: Shape) -> Condition:
        return self._need_condition(self._made(shape), shape)

    def _need_condition(self, made: _Made, shape: Shape) -> Condition:
        if isinstance(made, _Stream):
            raise refusal(made.at, "an event without a reducer", _dotted(REDUCERS), _COUNT_HINT)
        if _is_value(made):
            hint = "compare it with something"
            if isinstance(made, Event):
                hint += f": .{made.reducer.name}({'…' if made.reducer.of else ''}) >= 1"
            else:
                hint += ": = true" if not isinstance(made, Literal) else ""
            raise refusal(shape.at, "a value", ("a condition",), hint)
        assert _is_condition(made)
        return made

    def _value(self, shape: Shape) -> Value:
        made = self._made(shape)
        if isinstance(made, _Stream):
            raise refusal(made.at, "an event without a reducer", _dotted(REDUCERS), _COUNT_HINT)
        if _is_condition(made):
            raise refusal(shape.at, "a condition", ("a value",), "a comparison has one value on each side")
        assert _is_value(made)
        return made

    def _constant(self, shape: Constant) -> Literal:
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
                    raise _impossible_date(token)
                value = str(token)
        return self._at(Literal(value), token)

    def _relation(self, shape: Relation) -> Condition:
        op = SYMBOLS[str(shape.symbol)]
        made = self._made(shape.left)
        if isinstance(made, _Stream):
            raise refusal(shape.symbol, quoted(shape.symbol), _dotted(REDUCERS), _COUNT_HINT)
        if isinstance(made, Audience):
            return self._membership(made, op, self._value(shape.right), shape.symbol)
        left = made if _is_value(made) else self._value(shape.left)
        return self._at(Comparison(left, op, (self._value(shape.right),)), shape.symbol)

    def _membership(self, audience: Audience, op: str, right: Value, at: Token) -> Condition:
        """`audience('k') = true` is the audience itself."""
        truth = right.value if isinstance(right, Literal) else None
        if op not in {"equals", "differs"} or not isinstance(truth, bool):
            hint = "audience('…') is a condition by itself: put NOT before it for those outside"
            raise refusal(at, quoted(at), ("AND", "OR", "= true"), hint)
        return audience if truth == (op == "equals") else self._at(Not(audience), at)

    # -- chains ------------------------------------------------------------------------------------------------------

    def _chain(self, shape: Chain) -> _Made:
        made = self._extractor(shape.calls[0])
        for call in shape.calls[1:]:
            made = self._step(made, call)
        return made

    def _step(self, made: _Made, call: Call) -> _Made:
        name = str(call.at)
        if isinstance(made, _Stream):
            return self._stream_step(made, call)
        if isinstance(made, Audience) and name in {"equals", "differs"}:
            return self._membership(made, name, self._one_value(call, "true or false"), call.at)
        if _is_condition(made):
            raise refusal(call.at, quoted(name), ("AND", "OR", "the end"), "a comparison ends its chain")
        assert _is_value(made)
        if _is_uncounted(made) and name == "count":
            _no_arguments(call, "")
            assert isinstance(made, Event)
            counted = self._at(replace(made.reducer, counted=True), call.at)
            return self._at(replace(made, reducer=counted), self.place_of(made, call.at))
        if name in COMPARISONS:
            return self._comparison(made, call)
        raise self._no_step(made, call)

    def _no_step(self, made: Value, call: Call) -> QueryError:
        name = str(call.at)
        if isinstance(made, Event) and name in FILTERS:
            hint = "filters stand before the reducer: event('…').within(7 days).count()"
        elif isinstance(made, Event) and name in REDUCERS:
            hint = "an event has one reducer"
        elif name in FILTERS or name in REDUCERS:
            hint = "only events are filtered and reduced"
        else:
            hint = did_you_mean(name, COMPARISONS)
        return refusal(call.at, quoted(name), ("a comparison: " + ", ".join(COMPARISONS),), hint)

    def _stream_step(self, stream: _Stream, call: Call) -> _Stream | Event:
        name = str(call.at)
        if name in FILTERS:
            self._filter(stream, call)
            return stream
        if name in REDUCERS:
            return self._at(stream.reduced(self._reducer(call)), stream.at)
        hint = _COUNT_HINT if name in COMPARISONS else did_you_mean(name, (*FILTERS, *REDUCERS))
        raise refusal(call.at, quoted(name), _dotted((*FILTERS, *REDUCERS)), hint)

    def _extractor(self, call: Call) -> _Made:
        name = str(call.at)
        at = call.at
        if name in EVENT_CALLS:
            return self._stream(call)
        match name:
            case "trait":
                return self._at(Trait(path_of(self._name(call))), at)
            case "property" | "context":
                parent = _named(call, "parent")
                path = path_of(self._name(call))
                return self._at(Property(path, parent) if name == "property" else Context(path, parent), at)
            case "audience":
                return self._at(Audience(self._name(call)), at)
            case "literal":
                value = self._one_value(call, "a text, number, date, true or false")
                if not isinstance(value, Literal):
                    accepted = ("a text, number, date, true or false",)
                    raise refusal(
                        self.place_of(value, at), "a value that is looked up", accepted, "leave literal() out"
                    )
                return value
        hint = did_you_mean(name, EXTRACTORS)
        if name in FILTERS or name in REDUCERS or name in COMPARISONS:
            hint = (
                f"it follows a dot: event('…').{name}(…)"
                if name not in COMPARISONS
                else f"it follows a dot: .{name}(…)"
            )
        raise refusal(at, quoted(name), EXTRACTORS, hint)

    def _stream(self, call: Call) -> _Stream:
        name = self._name(call) if call.arguments else None
        match str(call.at):
            case "page":
                return _Stream("page", name, call.at)
            case "screen":
                return _Stream("screen", name, call.at)
            case _:
                return _Stream("any" if name is None else "track", name, call.at)

    def _comparison(self, left: Value, call: Call) -> Comparison:
        shapes: list[Shape] = []
        for argument in call.arguments:
            _plain(argument)
            shapes.extend(argument.value.of if isinstance(argument.value, Items) else [argument.value])
        right = tuple(self._span(shape) if isinstance(shape, Span) else self._value(shape) for shape in shapes)
        return self._at(Comparison(left, str(call.at), right), call.at)

    # -- filters and reducers ----------------------------------------------------------------------------------------

    def _filter(self, stream: _Stream, call: Call) -> None:
        match str(call.at):
            case "where":
                argument = _one(call, "a condition")
                stream.wheres.append(self._condition(_plain(argument).value))
                if len(stream.wheres) > 1:
                    self._at(stream.wheres[-1], argument.value.at)
            case "within":
                parent = _named(call, "parent")
                window = Window(0, self._duration(_one(call, "a duration").value).ms, parent)
                stream.windows.append(self._at(window, call.at))
            case "between":
                parent = _named(call, "parent")
                after, before = _two(call, "two durations: between(30 days, 90 days)")
                window = Window(self._duration(after.value).ms, self._duration(_plain(before).value).ms, parent)
                stream.windows.append(self._at(window, call.at))
            case "sources":
                stream.exclude_sources.extend(self._sources(call))
            case "expires_after":
                span = self._duration(_plain(_one(call, "a duration")).value)
                self._set_once(stream, call, "expires_after_ms", span.ms)
            case bound:
                self._set_once(stream, call, f"{bound}_ms", self._instant(call))

    def _set_once(self, stream: _Stream, call: Call, field: str, value: int) -> None:
        if field in stream.once:
            raise refusal(call.at, f"a second {quoted(call.at)}", ("only one of an event",))
        stream.once[field] = value

    def _sources(self, call: Call) -> list[str]:
        if not _named(call, "exclude"):
            raise refusal(call.at, f"{quoted(call.at)} without exclude:", ("exclude: ['source id']",))
        shapes: list[Shape] = []
        for argument in call.arguments:
            shapes.extend(argument.value.of if isinstance(argument.value, Items) else [argument.value])
        if not shapes:
            raise refusal(call.at, "no source ids", ("exclude: ['source id']",))
        return [self._text(shape, "a source id in quotes") for shape in shapes]

    def _instant(self, call: Call) -> int:
        value = self._one_value(call, "a date")
        instant = instant_ms(value.value) if isinstance(value, Literal) and isinstance(value.value, str) else None
        if instant is None:
            raise _impossible_date(self.place_of(value, call.at))
        return instant

    def _reducer(self, call: Call) -> Reducer:
        match str(call.at):
            case "count":
                _no_arguments(call, ".unique(property('…')).count() counts different values")
                return self._at(Reducer("count"), call.at)
            case "mode":
                of, cast, frequency = self._reduced(call, most=2)
                return self._at(Reducer("mode", of, cast, frequency), call.at)
            case "sum" | "avg" | "min" | "max" | "first" | "last" | "unique" as name:
                of, cast, _ = self._reduced(call, most=1)
                return self._at(Reducer(name, of, cast), call.at)
            case name:
                raise AssertionError(name)

    def _reduced(self, call: Call, *, most: int) -> tuple[Property | Context, str | None, int]:
        name = str(call.at)
        wanted = ("property('…')", "context('…')")
        if not call.arguments:
            raise refusal(call.at, f"'{name}()' without an argument", wanted, f"say what of: .{name}(property('…'))")
        if len(call.arguments) > most:
            at = call.arguments[most].value.at
            raise refusal(at, f"argument {most + 1} of {name}", (f"at most {most}",))
        first = call.arguments[0]
        if first.name is not None:
            raise refusal(first.name, quoted(first.name), wanted)
        if isinstance(first.value, Constant):
            text = unquoted(first.value.at) if first.value.at.type == "STRING" else str(first.value.at)
            raise refusal(first.value.at, quoted(first.value.at), wanted, f"property('{text[:40]}')")
        of = self._made(first.value)
        if not isinstance(of, Property | Context):
            raise refusal(first.value.at, quoted(first.value.at), wanted, f"{name} looks at the events themselves")
        frequency = Reducer("mode").frequency
        if len(call.arguments) > 1:
            frequency = self._frequency(_plain(call.arguments[1]).value)
        return of, _cast(first, name), frequency

    def _frequency(self, shape: Shape) -> int:
        made = self._value(shape)
        if not isinstance(made, Literal) or isinstance(made.value, bool) or not isinstance(made.value, int):
            raise refusal(shape.at, quoted(shape.at), ("a whole number",), "how often the value must occur")
        return made.value

    # -- arguments ---------------------------------------------------------------------------------------------------

    def _name(self, call: Call) -> str:
        argument = _one(call, "a name in quotes")
        return self._text(argument.value if argument.name else _plain(argument).value, "a name in quotes")

    def _text(self, shape: Shape, wanted: str) -> str:
        if isinstance(shape, Constant) and shape.at.type == "STRING":
            return unquoted(shape.at)
        hint = f"put quotes around it: '{shape.at[:40]}'" if isinstance(shape, Word | Constant) else ""
        raise refusal(shape.at, quoted(shape.at), (wanted,), hint)

    def _one_value(self, call: Call, wanted: str) -> Value:
        return self._value(_plain(_one(call, wanted)).value)

    def _duration(self, shape: Shape) -> Duration:
        if not isinstance(shape, Span):
            wanted = ("a duration such as 7 days",)
            is_number = isinstance(shape, Constant) and shape.at.type == "NUMBER"
            raise refusal(shape.at, quoted(shape.at), wanted, f"{shape.at} days?" if is_number else "")
        return self._span(shape)

    def _span(self, shape: Span) -> Duration:
        unit = shape.unit.lower()
        unit_ms = UNITS_MS.get(unit) or UNITS_MS.get(unit.removesuffix("s"))
        if unit_ms is None:
            raise refusal(shape.unit, quoted(shape.unit), UNIT_WORDS, did_you_mean(unit, UNIT_WORDS))
        count = number_of_text(shape.at)
        if not isinstance(count, int):
            hint = "take a smaller unit: 36 hours is a day and a half"
            raise refusal(shape.at, quoted(shape.at), (f"a whole number of {unit}",), hint)
        return self._at(Duration(count * unit_ms), shape.at)


_COUNT_HINT: Final = "events are reduced to a value first: event('…').count() >= 1"


def _dotted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f".{name}" for name in names)


def _is_uncounted(made: _Made) -> bool:
    return isinstance(made, Event) and made.reducer.name == "unique" and not made.reducer.counted


def _named(call: Call, name: str) -> bool:
    """Tell whether the first argument is called `name`; only the first may be."""
    first = call.arguments[0].name if call.arguments else None
    for index, argument in enumerate(call.arguments):
        if argument.name is not None and (index or argument.name != name):
            hint = f"{name}: stands once, before the first argument" if argument.name == name else ""
            raise refusal(argument.name, quoted(argument.name), (f"{name}:",) if index == 0 else (), hint)
    return first is not None


def _plain(argument: Argument) -> Argument:
    """Refuse a named argument or an `as` where there is none."""
    if argument.name is not None:
        hint = "parent: stands in within, between, property and context" if argument.name == "parent" else ""
        raise refusal(argument.name, f"{quoted(argument.name)}:", ("an argument without a name",), hint)
    if argument.cast is not None:
        hint = "types stand in min, max and mode: max(property('…') as string)"
        raise refusal(argument.cast, f"'as {argument.cast}'", ("')'",), hint)
    return argument


def _one(call: Call, wanted: str) -> Argument:
    if not call.arguments:
        raise refusal(call.at, f"'{call.at}()' without an argument", (wanted,))
    if len(call.arguments) > 1:
        raise refusal(call.arguments[1].value.at, f"a second argument of {call.at}", (f"only {wanted}",))
    if call.arguments[0].cast is not None:
        _plain(Argument(call.arguments[0].value, None, call.arguments[0].cast))
    return call.arguments[0]


def _two(call: Call, wanted: str) -> tuple[Argument, Argument]:
    if len(call.arguments) != 2:
        raise refusal(call.at, f"{len(call.arguments)} arguments of {call.at}", (wanted,))
    return call.arguments[0], call.arguments[1]


def _no_arguments(call: Call, hint: str) -> None:
    if call.arguments:
        at = call.arguments[0].value.at
        raise refusal(at, f"an argument of {call.at}", ("none: count()",), hint)


def _cast(argument: Argument, reducer: str) -> str | None:
    if argument.cast is None:
        return None
    casts = CASTS.get(reducer, {})
    name = argument.cast.lower()
    if name not in casts:
        accepted = tuple(casts) or ("no type",)
        hint = did_you_mean(name, casts) if casts else f"{reducer} takes no type; min, max and mode do"
        raise refusal(argument.cast, quoted(argument.cast), accepted, hint)
    return casts[name]


def _misplaced_word(at: Token) -> QueryError:
    if at.lower() in {"null", "none", "nil", "undefined"}:
        hint = ".absent() tells that a value is missing or null, .exists() that it is not"
    elif at in EXTRACTORS:
        hint = f"{at} takes a name: {at}('…')"
    else:
        hint = f"put quotes around text: '{at[:40]}'"
    return refusal(at, quoted(at), ("a function with its brackets", "a value"), hint)


def _impossible_date(at: Token) -> QueryError:
    hint = "dates are ISO 8601 and must exist: 2026-01-31 or 2026-01-31T12:00:00Z"
    return refusal(at, f"{quoted(at)}, which is no date", ("a date",), hint)
