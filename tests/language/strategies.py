"""Valid definitions drawn at random: `definitions(entity_type, kind)`.

Names, numbers and durations come from small sets, so that different parts of a definition, and the events and traits
that others draw from the same sets, meet. `wild=True` adds odd names and texts, for tests of spelling.
"""

from typing import Any
from typing import Literal as OneOf

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from actors.language import EntityType, Kind
from actors.language.tree import (
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

EVENT_NAMES = ("A", "B", "C")
PROPERTY_PATHS = (("x",), ("y",), ("o", "z"))
CONTEXT_PATHS = (("page", "url"), ("ip",))
TRAIT_PATHS = (("t",), ("u",), ("o", "v"))
AUDIENCE_KEYS = ("k", "l")
SOURCES = ("web", "app")
TEXTS = ("", "a", "ab", "5", "true", "2026-03-01", "2026-03-01T12:00:00Z")
DATES = ("2026-03-01", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00+02:00")
PATTERNS = ("a", "^a$", r"\d+", "(?i)AB")
INSTANTS_MS = (1_772_323_200_000, 1_772_366_400_000, 1_772_409_600_001)  # 2026-03-01, its noon, the next midnight
SECOND_MS = 1_000
DAY_MS = 86_400_000

SYMBOL_OPERATORS = ("equals", "differs", "greater_than", "at_least", "less_than", "at_most")
LIST_OPERATORS = ("contains", "starts_with", "ends_with", "one_of", "none_of")
SPAN_OPERATORS = ("within_last", "within_next", "before_last", "after_next")

CALLS: tuple[OneOf["track", "page", "screen", "any"], ...] = ("track", "track", "page", "screen", "any")
REDUCERS: tuple[OneOf["count", "sum", "avg", "min", "max", "mode", "first", "last", "unique"], ...] = (
    "count",
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "mode",
    "first",
    "last",
    "unique",
)

_NUMERIC_REDUCERS = frozenset({"count", "sum", "avg"})


class Scope(Struct, frozen=True):
    """What may stand at a place of a definition."""

    wild: bool = False
    depth: int = 0  # events whose where this is inside of
    budget: int = 3  # how many more junctions or events may be nested


def definitions(
    entity_type: EntityType = "USERS", kind: Kind = "audience", *, wild: bool = False
) -> st.SearchStrategy[Definition]:
    """Draw a valid definition."""
    scope = Scope(wild=wild)
    if kind == "trait":
        return events(scope)
    if entity_type == "USERS":
        return conditions(scope)
    users = st.builds(Users, st.sampled_from(("ANY", "ALL", "NONE")), conditions(replace(scope, budget=2)))
    either = users | conditions(replace(scope, budget=1))
    return either | _junctions(either)


def conditions(scope: Scope) -> st.SearchStrategy[Condition]:
    """Draw a condition without quantifiers."""
    leaf = comparisons(scope) | st.builds(Audience, _names(AUDIENCE_KEYS, scope))
    if scope.budget == 0:
        return leaf
    inner = st.deferred(lambda: conditions(replace(scope, budget=scope.budget - 1)))
    return leaf | st.builds(Not, inner) | _junctions(inner)


def _junctions(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(And, parts) | st.builds(Or, parts)


@st.composite
def comparisons(draw: st.DrawFn, scope: Scope) -> Comparison:
    """Draw a comparison whose sides are of kinds that go together."""
    left = draw(values(scope))
    if isinstance(left, Event) and left.reducer.name == "unique" and not left.reducer.counted:
        return Comparison(left, draw(st.sampled_from(("exists", "absent"))))
    family = draw(st.sampled_from(("symbol", "presence", "list", "omits", "date", "span", "matches")))
    if family in {"date", "span"} and not _may_be_date(left):
        family = "symbol"
    match family:
        case "symbol":
            return Comparison(left, draw(st.sampled_from(SYMBOL_OPERATORS)), (draw(single_values(scope)),))
        case "presence":
            return Comparison(left, draw(st.sampled_from(("exists", "absent"))))
        case "list":
            right = draw(st.lists(single_values(scope), min_size=1, max_size=3))
            return Comparison(left, draw(st.sampled_from(LIST_OPERATORS)), tuple(right))
        case "omits":
            return Comparison(left, "omits", tuple(draw(st.lists(single_values(scope), min_size=1, max_size=2))))
        case "date":
            date: Value = Literal(draw(st.sampled_from(DATES)))
            right_date = draw(st.just(date) | single_values(scope).filter(_may_be_date))
            return Comparison(left, draw(st.sampled_from(("before_date", "after_date"))), (right_date,))
        case "span":
            return Comparison(left, draw(st.sampled_from(SPAN_OPERATORS)), (Duration(draw(durations_ms())),))
        case _:
            return Comparison(left, "matches", (Literal(draw(st.sampled_from(PATTERNS))),))


def _may_be_date(value: Value) -> bool:
    if isinstance(value, Literal):
        return value.value in DATES
    if not isinstance(value, Event):
        return True
    reducer = value.reducer
    is_number = reducer.name in _NUMERIC_REDUCERS or (reducer.name in {"min", "max"} and reducer.cast is None)
    return not is_number and reducer.name != "unique"


def values(scope: Scope) -> st.SearchStrategy[Value]:
    """Draw a left side: a list (unique) too."""
    kinds: list[st.SearchStrategy[Any]] = [literals(scope), st.builds(Trait, _paths(TRAIT_PATHS, scope))]
    if scope.depth:
        kinds.append(fields(scope))
    if scope.budget:
        kinds.append(events(replace(scope, budget=scope.budget - 1)))
    return st.one_of(kinds)


def single_values(scope: Scope) -> st.SearchStrategy[Value]:
    """Draw a right side: anything but a list."""
    return literals(scope) | values(replace(scope, budget=min(scope.budget, 1))).filter(
        lambda value: not (isinstance(value, Event) and value.reducer.name == "unique" and not value.reducer.counted)
    )


def fields(scope: Scope) -> st.SearchStrategy[Property | Context]:
    """Draw a field of the event at hand, or of its parent if it has one."""
    parent = st.booleans() if scope.depth > 1 else st.just(value=False)
    return st.builds(Property, _paths(PROPERTY_PATHS, scope), parent) | st.builds(
        Context, _paths(CONTEXT_PATHS, scope), parent
    )


@st.composite
def events(draw: st.DrawFn, scope: Scope) -> Event:
    """Draw an event with its filters and reducer."""
    call = draw(st.sampled_from(CALLS))
    names = _names(EVENT_NAMES, scope)
    inside = replace(scope, depth=scope.depth + 1, budget=max(scope.budget - 1, 0))
    return Event(
        call=call,
        reducer=draw(reducers(inside)),
        name=None if call == "any" else draw(names if call == "track" else st.none() | names),
        where=draw(st.none() | conditions(inside)),
        windows=tuple(draw(st.lists(windows(is_nested=scope.depth > 0), max_size=2))),
        exclude_sources=tuple(draw(st.lists(_names(SOURCES, scope), max_size=2, unique=True))),
        since_ms=draw(st.none() | st.sampled_from(INSTANTS_MS)),
        until_ms=draw(st.none() | st.sampled_from(INSTANTS_MS)),
        expires_after_ms=draw(st.none() | durations_ms()),
    )


@st.composite
def windows(draw: st.DrawFn, *, is_nested: bool) -> Window:
    """Draw `within` or `between`."""
    parent = is_nested and draw(st.booleans())
    after_ms = draw(st.just(0) | durations_ms())
    return Window(after_ms, draw(durations_ms()), parent, later=parent and after_ms == 0 and draw(st.booleans()))


@st.composite
def reducers(draw: st.DrawFn, scope: Scope) -> Reducer:
    """Draw a reducer; the scope is inside the event."""
    name = draw(st.sampled_from(REDUCERS))
    if name == "count":
        return Reducer("count")
    of = draw(fields(scope))
    if name == "mode":
        return Reducer("mode", of, draw(st.sampled_from((None, "array"))), draw(st.integers(1, 3)))
    cast = draw(st.sampled_from((None, "string"))) if name in {"min", "max"} else None
    return Reducer(name, of, cast, counted=draw(st.booleans()) if name == "unique" else False)


def literals(scope: Scope) -> st.SearchStrategy[Literal]:
    """Draw a constant: text, a number or a boolean."""
    drawn = st.sampled_from(TEXTS) | st.integers(-2, 10) | st.sampled_from((0.5, -1.25)) | st.booleans()
    if scope.wild:
        numbers = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
        drawn = drawn | _wild_texts() | numbers | st.integers(-(2**62), 2**62)
    return st.builds(Literal, drawn)


def durations_ms() -> st.SearchStrategy[int]:
    """Draw a duration, in milliseconds."""
    return st.sampled_from((SECOND_MS, 2 * SECOND_MS, 3_600_000, DAY_MS, 2 * DAY_MS, 7 * DAY_MS))


def _names(known: tuple[str, ...], scope: Scope) -> st.SearchStrategy[str]:
    return st.sampled_from(known) | _wild_texts(min_size=1) if scope.wild else st.sampled_from(known)


def _paths(known: tuple[tuple[str, ...], ...], scope: Scope) -> st.SearchStrategy[tuple[str, ...]]:
    plain = st.sampled_from(known)
    return plain | st.lists(_wild_texts(min_size=1), min_size=1, max_size=3).map(tuple) if scope.wild else plain


def _wild_texts(min_size: int = 0) -> st.SearchStrategy[str]:
    awkward = st.text(st.sampled_from("\\'\".ab -\n\t(é中🎉\0"), min_size=min_size, max_size=6)
    return awkward | st.text(st.characters(codec="utf-8"), min_size=min_size, max_size=6)
