"""The rules that a tree must keep, whether it was parsed from text or came as JSON.

A rule that is broken raises a `Flaw` with the node it is about: the parser turns that into a line and column, the JSON
form into a path. What only looks like a mistake is told by lint.py instead.

An event is *nested* if it stands inside another event's `where`. The depth of a place is how many events' `where` or
reducer it stands in: `property` needs one (the event looked at), `property(parent: …)` needs two.
"""

import math
from typing import Any, Final
from typing import Literal as OneOf

import re2
from msgspec import Struct
from msgspec.structs import replace

from actors.language.tree import (
    OPERATORS,
    And,
    Audience,
    Comparison,
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
    DATE_OPERATORS,
    DURATION_MS_MAX,
    FREQUENCY_MAX,
    NAME_CHARS_MAX,
    PRIMARIES_MAX,
    SPAN_OPERATORS,
    did_you_mean,
)
from eventlog.instants import instant_ms

EntityType = OneOf["USERS", "ACCOUNTS"]
Kind = OneOf["audience", "trait"]

INSTANT_MS_MIN: Final = -62_135_596_800_000  # year 1, the first that ISO 8601 text with four digits spells
INSTANT_MS_MAX: Final = 253_402_300_799_999  # the end of year 9999, the last

_RE2_OPTIONS: Final = re2.Options()
_RE2_OPTIONS.log_errors = False


class Flaw(Exception):  # noqa: N818 - internal: callers see QueryError or InvalidError
    """A rule is broken at a node (whose field chain is `path`)."""

    def __init__(self, node: Any, path: str, *, found: str, accepted: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(found)
        self.node = node
        self.path = path
        self.found = found
        self.accepted = accepted
        self.hint = hint

    @property
    def about_name(self) -> bool:
        """Tell whether it is the name in the node that is wrong."""
        return self.path.rpartition(".")[2] in {"name", "path", "key"}


class _Place(Struct, frozen=True):
    """Where a node stands."""

    path: str
    depth: int = 0
    quantified: bool = False

    def down(self, step: str) -> "_Place":
        """Return the place of a field of the node here."""
        return replace(self, path=f"{self.path}.{step}" if self.path else step)

    def inside(self, step: str) -> "_Place":
        """Return the place of a field that looks at the event here."""
        return replace(self.down(step), depth=self.depth + 1)


def check(tree: Definition, *, entity_type: EntityType, kind: Kind) -> None:
    """Raise a Flaw for the first rule that the tree breaks."""
    _Checker(entity_type).definition(tree, kind)


def gives_number(value: Any) -> bool:
    """Tell whether a value is a number whenever it is there at all."""
    if isinstance(value, Literal):
        return isinstance(value.value, int | float) and not isinstance(value.value, bool)
    if not isinstance(value, Event):
        return False
    reducer = value.reducer
    if reducer.name in {"min", "max"}:
        return reducer.cast is None
    return reducer.name in {"count", "sum", "avg"} or reducer.counted


def pattern_flaw(pattern: str) -> str | None:
    """Return what is wrong with a regular expression, or None."""
    try:
        re2.compile(pattern, _RE2_OPTIONS)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return None


class _Checker:
    """One walk over a tree, counting its primary expressions."""

    def __init__(self, entity_type: EntityType) -> None:
        self.entity_type = entity_type
        self.primaries = 0

    def definition(self, tree: Definition, kind: Kind) -> None:
        """Check a whole definition."""
        top = _Place("")
        if kind == "trait":
            if not isinstance(tree, Event):
                raise Flaw(
                    tree,
                    "",
                    found="a condition",
                    accepted=("an event with a reducer",),
                    hint="a computed trait ends in a reducer such as .count()",
                )
            self._event(tree, top)
        elif isinstance(tree, Event):
            raise Flaw(
                tree,
                "",
                found="a value",
                accepted=("a condition",),
                hint=f"an audience compares it with something, as in .{tree.reducer.name}(…) >= 1",
            )
        else:
            self._condition(tree, top)

    def _condition(self, node: Any, place: _Place) -> None:
        match node:
            case Comparison():
                self._primary(node, place)
                self._comparison(node, place)
            case Audience(key=key):
                self._primary(node, place)
                _name(key, node, place.down("key"), "the key of an audience")
            case And(of=parts) | Or(of=parts):
                if not parts:
                    raise Flaw(node, place.path, found="no parts", accepted=("at least one",))
                for index, part in enumerate(parts):
                    self._condition(part, place.down(f"of[{index}]"))
            case Not(of=part):
                self._condition(part, place.down("of"))
            case Users():
                self._users(node, place)
            case _:
                raise Flaw(node, place.path, found=type(node).__name__, accepted=("a condition",))

    def _primary(self, node: Any, place: _Place) -> None:
        self.primaries += 1
        if self.primaries > PRIMARIES_MAX:
            raise Flaw(
                node,
                place.path,
                found=f"primary expression number {self.primaries}",
                accepted=(f"at most {PRIMARIES_MAX} comparisons and audience() calls",),
                hint="several alternatives for one value are one comparison: .one_of('a', 'b')",
            )

    def _users(self, node: Users, place: _Place) -> None:
        if self.entity_type != "ACCOUNTS":
            raise Flaw(
                node,
                place.path,
                found=f"'{node.quantifier}' in a definition of USERS",
                accepted=("a condition",),
                hint=f"{node.quantifier} asks about the users of an account: make it an ACCOUNTS definition",
            )
        if place.depth or place.quantified:
            where = "another quantifier" if place.quantified else "where"
            raise Flaw(
                node,
                place.path,
                found=f"'{node.quantifier}' inside {where}",
                accepted=("a condition on one user" if place.quantified else "a condition on the event",),
                hint="ANY, ALL and NONE stand outside of each other and of where",
            )
        self._condition(node.of, replace(place.down("of"), quantified=True))

    def _comparison(self, node: Comparison, place: _Place) -> None:
        if node.op not in OPERATORS:
            raise Flaw(
                node,
                place.down("op").path,
                found=f"'{node.op}'",
                accepted=("a comparison",),
                hint=did_you_mean(node.op, OPERATORS),
            )
        least, most = OPERATORS[node.op]
        if len(node.right) < least or (most is not None and len(node.right) > most):
            wanted = f"at least {least}" if most is None else "one" if most else "none"
            raise Flaw(
                node,
                place.down("right").path,
                found=f"'{node.op}' with {len(node.right) or 'no'} argument{'' if len(node.right) == 1 else 's'}",
                accepted=(wanted,),
                hint="none_of(…) with several, or NOT ….contains(…)" if node.op == "omits" else "",
            )
        self._value(node.left, place.down("left"))
        self._left_kind(node, place.down("left"))
        for index, right in enumerate(node.right):
            self._right(node, right, place.down(f"right[{index}]"))

    def _left_kind(self, node: Comparison, place: _Place) -> None:
        left = node.left
        if _is_list(left) and node.op not in {"exists", "absent"}:
            raise Flaw(
                node,
                place.path,
                found=f"'{node.op}' on a list",
                accepted=(".count()", ".exists()", ".absent()"),
                hint="unique(…) gives a list, which is only counted: .unique(…).count() >= 2",
            )
        if node.op in DATE_OPERATORS and (gives_number(left) or _is_no_date(left)):
            raise Flaw(
                node,
                place.path,
                found=f"'{node.op}' on {'a number' if gives_number(left) else 'a constant that is no date'}",
                accepted=("a date on the left",),
                hint="to bound when events happened say .within(7 days), .since(2026-01-01) or .until(2026-02-01)",
            )

    def _right(self, node: Comparison, right: Any, place: _Place) -> None:
        op = node.op
        if op in SPAN_OPERATORS:
            if not isinstance(right, Duration):
                raise Flaw(right, place.path, found=_told(right), accepted=("a duration such as 7 days",))
            _duration(right.ms, right, place.down("ms"))
            return
        if isinstance(right, Duration):
            raise Flaw(
                right,
                place.path,
                found="a duration",
                accepted=("a value",),
                hint="durations stand in within_last, within_next, before_last and after_next",
            )
        self._value(right, place)
        if _is_list(right):
            raise Flaw(right, place.path, found="a list", accepted=("a single value",), hint="count it: .count()")
        if op in DATE_OPERATORS and (gives_number(right) or _is_no_date(right)):
            raise Flaw(
                right,
                place.path,
                found=_told(right),
                accepted=("a date",),
                hint="dates are ISO 8601 and must exist: '2026-01-31' or '2026-01-31T12:00:00Z'",
            )
        if op == "matches":
            _pattern(right, place)

    def _value(self, node: Any, place: _Place) -> None:
        match node:
            case Literal():
                _literal(node, place)
            case Trait(path=path):
                _path(path, node, place, "a trait")
            case Property() | Context():
                _field(node, place)
            case Event():
                self._event(node, place)
            case _:
                raise Flaw(node, place.path, found=type(node).__name__, accepted=("a value",))

    def _event(self, node: Event, place: _Place) -> None:
        if node.call == "any" and node.name is not None:
            raise Flaw(node, place.down("name").path, found="a name", accepted=("none",), hint="event() is any call")
        if node.name is not None:
            _name(node.name, node, place.down("name"), f"the name of a {node.call} call")
        elif node.call == "track":
            raise Flaw(node, place.path, found="a track call without a name", accepted=("a name", 'call "any"'))
        for index, window in enumerate(node.windows):
            _window(window, place.down(f"windows[{index}]"))
        for index, source in enumerate(node.exclude_sources):
            _name(source, node, place.down(f"exclude_sources[{index}]"), "the id of a source")
        for field, instant in (("since_ms", node.since_ms), ("until_ms", node.until_ms)):
            if instant is not None and not INSTANT_MS_MIN <= instant <= INSTANT_MS_MAX:
                raise Flaw(node, place.down(field).path, found=str(instant), accepted=("a time in years 1 to 9999",))
        if node.expires_after_ms is not None:
            _duration(node.expires_after_ms, node, place.down("expires_after_ms"))
            if place.depth:
                raise Flaw(
                    node,
                    place.down("expires_after_ms").path,
                    found="'expires_after' on a nested event",
                    accepted=("a window such as within(parent: 1 hour)",),
                    hint="a session is a run of events up to now; it stands on the outermost event",
                )
        if node.where is not None:
            self._condition(node.where, place.inside("where"))
        _reducer(node.reducer, place.down("reducer"))
        if node.reducer.of is not None:
            _field(node.reducer.of, place.inside("reducer").down("of"))


def _reducer(node: Reducer, place: _Place) -> None:
    if (node.of is None) != (node.name == "count"):
        wanted = "none" if node.name == "count" else "a property or context"
        raise Flaw(node, place.down("of").path, found=f"{node.name} of {_told(node.of)}", accepted=(wanted,))
    casts = set(CASTS.get(node.name, {}).values()) | {None}
    if node.cast not in casts:
        names = tuple(sorted(str(cast) for cast in casts if cast)) or ("no type",)
        raise Flaw(node, place.down("cast").path, found=f"'{node.cast}' for {node.name}", accepted=names)
    if node.name != "mode" and node.frequency != _FREQUENCY_DEFAULT:
        raise Flaw(
            node, place.down("frequency").path, found="a frequency", accepted=("none",), hint="only mode has one"
        )
    if not 1 <= node.frequency <= FREQUENCY_MAX:
        raise Flaw(
            node,
            place.down("frequency").path,
            found=str(node.frequency),
            accepted=(f"a whole number from 1 to {FREQUENCY_MAX}",),
        )
    if node.counted and node.name != "unique":
        raise Flaw(node, place.down("counted").path, found=f"{node.name} counted", accepted=("unique counted",))


_FREQUENCY_DEFAULT: Final = Reducer("count").frequency


def _field(node: Property | Context, place: _Place) -> None:
    name = "property" if isinstance(node, Property) else "context"
    if place.depth == 0:
        raise Flaw(
            node,
            place.path,
            found=f"'{name}' outside of an event",
            accepted=("a value of the profile, such as trait('…')",),
            hint=f"{name} looks at an event: it stands inside .where(…) or a reducer",
        )
    if node.parent and place.depth < 2:
        raise Flaw(
            node,
            place.path,
            found=f"'{name}(parent: …)' where no event is nested",
            accepted=(f"{name}('…')",),
            hint="parent: stands in a nested event's where or reducer; here the name alone means this event's",
        )
    _path(node.path, node, place, f"a {name}")


def _path(path: tuple[str, ...], node: Any, place: _Place, what: str) -> None:
    if not path or not all(path):
        raise Flaw(
            node,
            place.down("path").path,
            found=f"an empty name of {what}",
            accepted=("a name, or names joined by dots",),
            hint="a dot inside a name is written \\\\.",
        )
    _name(".".join(path), node, place.down("path"), f"the name of {what}")


def _name(name: str, node: Any, place: _Place, what: str) -> None:
    if not name:
        raise Flaw(node, place.path, found=f"nothing as {what}", accepted=("a name",), hint="event() is any event")
    if len(name) > NAME_CHARS_MAX:
        raise Flaw(
            node,
            place.path,
            found=f"{len(name)} characters as {what}",
            accepted=(f"at most {NAME_CHARS_MAX}",),
            hint="is a closing quote missing?",
        )
    _whole_text(name, node, place)


def _whole_text(text: str, node: Any, place: _Place) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise Flaw(node, place.path, found="half a surrogate pair", accepted=("whole characters",))


def _literal(node: Literal, place: _Place) -> None:
    value = node.value
    if isinstance(value, str):
        _whole_text(value, node, place.down("value"))
    elif not isinstance(value, bool) and not _is_finite(value):
        raise Flaw(
            node, place.down("value").path, found="a number that is not finite", accepted=("a number below 1e308",)
        )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the range of floats
        return False


def _window(node: Window, place: _Place) -> None:
    if node.parent and place.depth == 0:
        raise Flaw(
            node,
            place.path,
            found="'parent:' where no event is nested",
            accepted=("a duration such as 7 days",),
            hint="parent: measures from the outer event, for an event inside another's where",
        )
    _duration(node.after_ms, node, place.down("after_ms"))
    _duration(node.before_ms, node, place.down("before_ms"))


def _duration(ms: int, node: Any, place: _Place) -> None:
    if not 0 <= ms <= DURATION_MS_MAX:
        raise Flaw(
            node,
            place.path,
            found="a duration below zero" if ms < 0 else "a duration over a hundred years",
            accepted=("0 to 36500 days",),
        )
    if ms % 1000:
        raise Flaw(node, place.path, found=f"{ms} milliseconds", accepted=("whole seconds",))


def _pattern(node: Value, place: _Place) -> None:
    if not isinstance(node, Literal) or not isinstance(node.value, str):
        raise Flaw(node, place.path, found=_told(node), accepted=("a regular expression in quotes",))
    reason = pattern_flaw(node.value)
    if reason is not None:
        raise Flaw(
            node,
            place.path,
            found=f"an invalid regular expression: {reason}",
            accepted=("RE2 syntax",),
            hint="look-around and back-references are left out, which keeps matching linear in the text",
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, Event) and value.reducer.name == "unique" and not value.reducer.counted


def _is_no_date(value: Any) -> bool:
    return isinstance(value, Literal) and (not isinstance(value.value, str) or instant_ms(value.value) is None)


def _told(node: Any) -> str:
    """Say what a node is."""
    match node:
        case None:
            return "nothing"
        case Literal(value=str() as text):
            return f"the text '{text[:40]}'"
        case Literal(value=bool() as truth):
            return str(truth).lower()
        case Literal(value=number):
            return f"the number {number}"
        case Event(reducer=reducer):
            return f"the {reducer.name} of events"
        case Property():
            return "a property"
        case _:
            return f"a {type(node).__name__.lower()}"
