"""What a call was given: how many arguments, named or typed as they may be, and the plain ones among them read.

Everything here looks at shapes alone and refuses, at the offending token, what the function in question does not take.
"""

from typing import Final

from lark import Token

from actors.language.spelling import number_of_text, unquoted
from actors.language.syntax import Argument, Call, Constant, Items, Shape, Span, Word, quoted, refusal
from actors.language.tree import Duration
from actors.language.vocabulary import CASTS, DURATION_MS_MAX, EXTRACTORS, UNIT_WORDS, UNITS_MS, did_you_mean
from eventlog.errors import QueryError

_HINT_CHARS_MAX: Final = 40  # of the user's own words repeated in a hint


def named(call: Call, name: str) -> Token | None:
    """Return the name of the first argument, which must be `name` if it has one; the others have none."""
    for index, argument in enumerate(call.arguments):
        if argument.name is not None and (index or argument.name != name):
            hint = f"{name}: stands once, before the first argument" if argument.name == name else ""
            raise refusal(argument.name, f"{quoted(argument.name)}:", (f"{name}:",) if index == 0 else (), hint)
    return call.arguments[0].name if call.arguments else None


def plain(argument: Argument) -> Shape:
    """Return the argument's value, which must be neither named nor typed."""
    if argument.name is not None:
        hint = "parent: stands in within, between, property and context" if argument.name == "parent" else ""
        raise refusal(argument.name, f"{quoted(argument.name)}:", ("an argument without a name",), hint)
    return untyped(argument)


def untyped(argument: Argument) -> Shape:
    """Return the argument's value, which must not be followed by `as`."""
    if argument.cast is not None:
        hint = "types stand in min, max and mode: max(property('…') as string)"
        raise refusal(argument.cast, f"'as {argument.cast}'", ("')'",), hint)
    return argument.value


def one(call: Call, wanted: str) -> Argument:
    """Return the only argument."""
    if not call.arguments:
        raise refusal(call.at, f"'{call.at}()' without an argument", (wanted,))
    if len(call.arguments) > 1:
        raise refusal(call.arguments[1].value.at, f"a second argument of {call.at}", (f"only {wanted}",))
    return call.arguments[0]


def two(call: Call, wanted: str) -> tuple[Argument, Argument]:
    """Return the two arguments."""
    if len(call.arguments) != 2:
        raise refusal(call.at, f"'{call.at}' with {len(call.arguments)} arguments", (wanted,))
    return call.arguments[0], call.arguments[1]


def nothing(call: Call, hint: str) -> None:
    """Refuse any argument."""
    if call.arguments:
        raise refusal(call.arguments[0].value.at, f"an argument of {call.at}", (f"{call.at}()",), hint)


def several(call: Call) -> list[Shape]:
    """Return all arguments, those in square brackets one by one; only the first may have a name."""
    shapes: list[Shape] = []
    for argument in call.arguments:
        value = untyped(argument)
        shapes.extend(value.of if isinstance(value, Items) else [value])
    return shapes


def cast_of(argument: Argument, reducer: str) -> str | None:
    """Return the cast that an `as` means in a reducer."""
    if argument.cast is None:
        return None
    casts = CASTS.get(reducer, {})
    name = argument.cast.lower()
    if name not in casts:
        hint = did_you_mean(name, casts) if casts else f"{reducer} takes no type; min, max and mode do"
        raise refusal(argument.cast, quoted(argument.cast), tuple(casts) or ("')'",), hint)
    return casts[name]


def text(shape: Shape, wanted: str) -> str:
    """Return the text in quotes."""
    if isinstance(shape, Constant) and shape.at.type == "STRING":
        return unquoted(shape.at)
    hint = f"put quotes around it: '{shape.at[:_HINT_CHARS_MAX]}'" if isinstance(shape, Word | Constant) else ""
    raise refusal(shape.at, quoted(shape.at), (wanted,), hint)


def duration(shape: Shape) -> Duration:
    """Return the duration."""
    if not isinstance(shape, Span):
        is_number = isinstance(shape, Constant) and shape.at.type == "NUMBER"
        hint = f"did you mean {shape.at[:_HINT_CHARS_MAX]} days?" if is_number else ""
        raise refusal(shape.at, quoted(shape.at), ("a duration such as 7 days",), hint)
    unit = shape.unit.lower()
    unit_ms = UNITS_MS.get(unit) or UNITS_MS.get(unit.removesuffix("s"))
    if unit_ms is None:
        raise refusal(shape.unit, quoted(shape.unit), UNIT_WORDS, did_you_mean(unit, UNIT_WORDS))
    count = number_of_text(shape.at)
    if not isinstance(count, int):
        hint = "take a smaller unit: a day and a half is 36 hours"
        raise refusal(shape.at, quoted(shape.at), (f"a whole number of {unit}",), hint)
    if not 0 <= count * unit_ms <= DURATION_MS_MAX:
        raise refusal(shape.at, quoted(f"{shape.at} {unit}"), ("0 to 36500 days",))
    return Duration(count * unit_ms)


def misplaced_word(at: Token) -> QueryError:
    """Return the error for a bare word."""
    if at.lower() in {"null", "nil", "undefined"}:
        hint = ".absent() tells that a value is missing or null, .exists() that it is not"
    elif at in EXTRACTORS:
        hint = f"{at} takes a name: {at}('…')"
    else:
        hint = f"put quotes around text: '{at[:_HINT_CHARS_MAX]}'"
    return refusal(at, quoted(at), ("a function with its brackets", "a value"), hint)


def impossible_date(at: Token) -> QueryError:
    """Return the error for what is no date, or none that exists."""
    hint = "dates are ISO 8601 and must exist: 2026-01-31 or 2026-01-31T12:00:00Z"
    return refusal(at, f"{quoted(at)}, which is no date", ("a date",), hint)
