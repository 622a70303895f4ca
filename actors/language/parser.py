"""Text to a checked tree: which function a call is, and where in a chain it may stand.

A chain is read from left to right and is always one of three things: an event that is being filtered (`Stream`), a
value, or a condition. Each call turns it into the next; a call that does not fit is refused at its name. Where every
node of the tree began is kept beside it, so that the rules of checker.py can name lines and columns too.
"""

from typing import Final, TypeGuard

from msgspec.structs import replace

from actors.language.arguments import duration, misplaced_word, nothing, one, plain, several
from actors.language.checker import EntityType, Kind, check
from actors.language.printer import print_query
from actors.language.rules import Flaw
from actors.language.spelling import path_of
from actors.language.streams import Places, Stream, constant_of, field_of, name_of, reducer_of
from actors.language.syntax import (
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
    Event,
    Literal,
    Not,
    Or,
    Property,
    Trait,
    Users,
    Value,
)
from actors.language.vocabulary import (
    COMPARISONS,
    DEFINITION_CHARS_MAX,
    EVENT_CALLS,
    EXTRACTORS,
    FILTERS,
    REDUCERS,
    did_you_mean,
)
from eventlog.errors import QueryError

_Made = Value | Condition | Stream
_VALUES: Final = (Literal, Property, Context, Trait, Event)
_CONDITIONS: Final = (Comparison, Audience, And, Or, Not, Users)

_CONSTANT: Final = "a text, number, date, true or false"
_REDUCERS: Final = tuple(f".{name}" for name in REDUCERS)
_STEPS: Final = tuple(f".{name}" for name in (*FILTERS, *REDUCERS))
_COUNT_HINT: Final = "events are reduced to a value first: event('…').count() >= 1"
_TRAIT_HINT: Final = "a computed trait ends in a reducer such as .count()"


def parse(text: str, *, entity_type: EntityType = "USERS", kind: Kind = "audience") -> Definition:
    """Return the checked tree of a definition's text. Raises QueryError with line, column and a hint."""
    shape = shape_of(text)
    reader = _Reader()
    tree = reader.definition(shape, kind)
    try:
        check(tree, entity_type=entity_type, kind=kind)
    except Flaw as flaw:
        place = reader.places.of_name if flaw.about_name else reader.places.of
        raise refusal(place(flaw.node, shape.at), flaw.found, flaw.accepted, flaw.hint) from None
    if len(print_query(tree)) > DEFINITION_CHARS_MAX:  # so that the canonical text can always be parsed again
        raise refusal(
            shape.at, "a definition too long when spelled out", (f"at most {DEFINITION_CHARS_MAX} characters",)
        )
    return tree


def _is_value(made: _Made) -> TypeGuard[Value]:
    return isinstance(made, _VALUES)


def _is_condition(made: _Made) -> TypeGuard[Condition]:
    return isinstance(made, _CONDITIONS)


class _Reader:
    """Reads one definition."""

    def __init__(self) -> None:
        self.places = Places()

    def definition(self, shape: Shape, kind: Kind) -> Definition:
        """Return the tree of a whole definition."""
        made = self._made(shape)
        if kind == "audience":
            return self._need_condition(made, shape)
        if isinstance(made, Event):
            return made
        if isinstance(made, Stream):
            raise refusal(made.at, "an event without a reducer", _REDUCERS, _TRAIT_HINT)
        found = "a condition" if _is_condition(made) else "a value that is not of events"
        raise refusal(shape.at, found, ("an event with a reducer",), _TRAIT_HINT)

    # -- shapes ------------------------------------------------------------------------------------------------------

    def _made(self, shape: Shape) -> _Made:
        match shape:
            case Constant():
                return constant_of(shape, self.places)
            case Chain():
                return self._chain(shape)
            case Relation():
                return self._relation(shape)
            case Junction(conjunction=conjunction, of=parts):
                conditions = tuple(self._condition(part) for part in parts)
                return self.places.mark(And(conditions) if conjunction else Or(conditions), shape.at)
            case Prefix(at=at, of=part):
                return self.places.mark(_prefixed(at, self._condition(part)), at)
            case Span(at=at, unit=unit):
                hint = "durations stand in within, between, within_last and the like"
                raise refusal(at, f"the duration {quoted(f'{at} {unit}')}", ("a value or a condition",), hint)
            case Items(at=at):
                hint = "lists stand in one_of, none_of, contains and sources"
                raise refusal(at, "a list", ("a value or a condition",), hint)
            case Word(at=at):
                raise misplaced_word(at)

    def _condition(self, shape: Shape) -> Condition:
        return self._need_condition(self._made(shape), shape)

    def _need_condition(self, made: _Made, shape: Shape) -> Condition:
        if isinstance(made, Stream):
            raise refusal(made.at, "an event without a reducer", _REDUCERS, _COUNT_HINT)
        if _is_value(made):
            raise refusal(shape.at, "a value", ("a condition",), f"compare it with something: {_example(made)}")
        assert _is_condition(made), made
        return made

    def _value(self, shape: Shape) -> Value:
        made = self._made(shape)
        if isinstance(made, Stream):
            raise refusal(made.at, "an event without a reducer", _REDUCERS, _COUNT_HINT)
        if _is_condition(made):
            raise refusal(shape.at, "a condition", ("a value",), "a comparison has one value on each side")
        assert _is_value(made), made
        return made

    def _relation(self, shape: Relation) -> Condition:
        op = SYMBOLS[str(shape.symbol)]
        made = self._made(shape.left)
        if isinstance(made, Stream):
            raise refusal(shape.symbol, quoted(shape.symbol), _REDUCERS, _COUNT_HINT)
        if isinstance(made, Audience):
            return self._membership(made, op, self._value(shape.right), shape)
        if _is_condition(made):
            raise refusal(shape.left.at, "a condition", ("a value",), "a comparison has one value on each side")
        assert _is_value(made), made
        return self.places.mark(Comparison(made, op, (self._value(shape.right),)), shape.symbol)

    def _membership(self, audience: Audience, op: str, right: Value, shape: Relation | Call) -> Condition:
        """Read `audience('k') = true` as the audience itself."""
        at = shape.symbol if isinstance(shape, Relation) else shape.at
        truth = right.value if isinstance(right, Literal) else None
        if op not in {"equals", "differs"} or not isinstance(truth, bool):
            hint = "audience('…') is a condition by itself: put NOT before it for those outside"
            raise refusal(at, quoted(at), ("AND", "OR", "= true"), hint)
        return audience if truth == (op == "equals") else self.places.mark(Not(audience), at)

    # -- chains ------------------------------------------------------------------------------------------------------

    def _chain(self, shape: Chain) -> _Made:
        made = self._extractor(shape.calls[0])
        for call in shape.calls[1:]:
            made = self._step(made, call)
        return made

    def _step(self, made: _Made, call: Call) -> _Made:
        name = str(call.at)
        if isinstance(made, Stream):
            return self._stream_step(made, call)
        if isinstance(made, Audience) and name in {"equals", "differs"}:
            return self._membership(made, name, self._only_value(call, "true or false"), call)
        if _is_condition(made):
            raise refusal(call.at, quoted(name), ("AND", "OR", "the end"), _after_condition(made))
        assert _is_value(made), made
        if name == "count" and isinstance(made, Event) and made.reducer.name == "unique" and not made.reducer.counted:
            nothing(call, "")
            reducer = self.places.mark(replace(made.reducer, counted=True), self.places.of(made.reducer, call.at))
            event_at, name_at = self.places.of(made, call.at), self.places.of_name(made, call.at)
            return self.places.mark(replace(made, reducer=reducer), event_at, name_at)
        if name in COMPARISONS:
            return self._comparison(made, call)
        raise _no_step(made, call)

    def _stream_step(self, stream: Stream, call: Call) -> Stream | Event:
        name = str(call.at)
        if name == "where":
            stream.wheres.append(self._condition(plain(one(call, "a condition"))))
            return stream
        if name in FILTERS:
            stream.narrow(call, self.places)
            return stream
        if name in REDUCERS:
            return stream.reduced(reducer_of(call, self.places), self.places)
        hint = _COUNT_HINT if name in COMPARISONS else did_you_mean(name, (*FILTERS, *REDUCERS))
        raise refusal(call.at, quoted(name), _STEPS, hint)

    def _extractor(self, call: Call) -> _Made:
        name = str(call.at)
        if name in EVENT_CALLS:
            return Stream(call)
        match name:
            case "trait":
                return self.places.mark(Trait(path_of(name_of(call))), call.at, call.arguments[0].value.at)
            case "property" | "context":
                return field_of(call, self.places)
            case "audience":
                return self.places.mark(Audience(name_of(call)), call.at, call.arguments[0].value.at)
            case "literal":
                value = self._only_value(call, _CONSTANT)
                if not isinstance(value, Literal):
                    at = call.arguments[0].value.at
                    raise refusal(at, quoted(at), (_CONSTANT,), "leave literal() out")
                return value
        if name in FILTERS or name in REDUCERS:
            hint = f"it follows an event and a dot: event('…').{name}(…)"
        elif name in COMPARISONS:
            hint = f"it follows a value and a dot: trait('…').{name}(…)"
        else:
            hint = did_you_mean(name, EXTRACTORS)
        raise refusal(call.at, quoted(name), EXTRACTORS, hint)

    def _comparison(self, left: Value, call: Call) -> Comparison:
        for argument in call.arguments:
            plain(argument)
        right = tuple(
            self.places.mark(duration(shape), shape.at) if isinstance(shape, Span) else self._value(shape)
            for shape in several(call)
        )
        return self.places.mark(Comparison(left, str(call.at), right), call.at)

    def _only_value(self, call: Call, wanted: str) -> Value:
        return self._value(plain(one(call, wanted)))


def _prefixed(word: str, part: Condition) -> Condition:
    match word.upper():
        case "NOT":
            return Not(part)
        case "ANY":
            return Users("ANY", part)
        case "ALL":
            return Users("ALL", part)
        case _:
            return Users("NONE", part)


def _example(value: Value) -> str:
    """Show how a bare value becomes a condition."""
    match value:
        case Event(reducer=reducer):
            return f"….{reducer.name}({'…' if reducer.of else ''}) >= 1"
        case Trait():
            return "trait('…') = true, or trait('…').exists()"
        case _:
            return "… = true"


def _after_condition(made: Condition) -> str:
    if isinstance(made, Audience):
        return "audience('…') is a condition by itself; trait('…') compares the membership as a value"
    return "a comparison ends its chain"


def _no_step(made: Value, call: Call) -> QueryError:
    """Return the error for a call that cannot follow a value."""
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
