"""The rules for the leaves of a tree: names, constants, durations, fields, reducers and patterns.

A rule that is broken raises a `Flaw` with the node it is about: the parser turns that into a line and column, the JSON
form into a path.
"""

import math
from typing import Any, Final

import re2
from msgspec import Struct
from msgspec.structs import replace

from actors.language.tree import Context, Event, Literal, Property, Reducer, Value, Window
from actors.language.vocabulary import (
    CASTS,
    DURATION_MS_MAX,
    FREQUENCY_MAX,
    NAME_CHARS_MAX,
    PATTERN_BYTES_MAX,
    PATTERN_CHARS_MAX,
)
from eventlog.instants import instant_ms

INSTANT_MS_MIN: Final = -62_135_596_800_000  # year 1, the first that ISO 8601 text with four digits spells
INSTANT_MS_MAX: Final = 253_402_300_799_999  # the end of year 9999, the last

_FREQUENCY_DEFAULT: Final = Reducer("count").frequency

_RE2_OPTIONS: Final = re2.Options()
_RE2_OPTIONS.log_errors = False
_RE2_OPTIONS.max_mem = PATTERN_BYTES_MAX


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


class Place(Struct, frozen=True):
    """Where a node stands."""

    path: str
    depth: int = 0
    quantified: bool = False

    def down(self, step: str) -> "Place":
        """Return the place of a field of the node here."""
        return replace(self, path=f"{self.path}.{step}" if self.path else step)

    def inside(self, step: str) -> "Place":
        """Return the place of a field that looks at the event here."""
        return replace(self.down(step), depth=self.depth + 1)


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
    if len(pattern) > PATTERN_CHARS_MAX:
        return f"{len(pattern)} characters, at most {PATTERN_CHARS_MAX}"
    try:
        re2.compile(pattern, _RE2_OPTIONS)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return None


def check_reducer(node: Reducer, place: Place) -> None:
    """Check that the reducer has what it takes and nothing else."""
    if (node.of is None) != (node.name == "count"):
        wanted = "none" if node.name == "count" else "a property or context"
        raise Flaw(node, place.down("of").path, found=f"{node.name} of {told(node.of)}", accepted=(wanted,))
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


def check_field(node: Property | Context, place: Place) -> None:
    """Check that there is an event to look at, and a parent if it is the parent's field."""
    name = "property" if isinstance(node, Property) else "context"
    if place.depth == 0:
        raise Flaw(
            node,
            place.path,
            found=f"'{name}' outside of an event",
            accepted=("a value of the profile, such as trait('…')",),
            hint=f"{name} looks at an event: it stands inside .where(…) or a reducer",
        )
    if node.parent and place.depth <= 1:  # the outermost event has no parent
        raise Flaw(
            node,
            place.path,
            found=f"'{name}(parent: …)' where no event is nested",
            accepted=(f"{name}('…')",),
            hint="parent: stands in a nested event's where or reducer; here the name alone means this event's",
        )
    check_path(node.path, node, place, f"a {name}")


def check_path(path: tuple[str, ...], node: Any, place: Place, what: str) -> None:
    """Check that no key of a path is empty."""
    if not path or not all(path):
        raise Flaw(
            node,
            place.down("path").path,
            found=f"an empty name of {what}",
            accepted=("a name, or names joined by dots",),
            hint="a dot inside a name is written \\\\.",
        )
    check_name(".".join(path), node, place.down("path"), f"the name of {what}")


def check_name(name: str, node: Any, place: Place, what: str) -> None:
    """Check that a name is there, whole and not too long."""
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


def _whole_text(text: str, node: Any, place: Place) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise Flaw(node, place.path, found="half a surrogate pair", accepted=("whole characters",))


def check_literal(node: Literal, place: Place) -> None:
    """Check that a number is finite and text is whole."""
    value = node.value
    if isinstance(value, str):
        _whole_text(value, node, place.down("value"))
    elif not _is_finite(value):
        raise Flaw(
            node, place.down("value").path, found="a number that is not finite", accepted=("a number below 1e308",)
        )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the range of floats
        return False


def check_window(node: Window, place: Place) -> None:
    """Check a window's durations, and that there is a parent if it is measured from one."""
    if node.parent and place.depth == 0:
        raise Flaw(
            node,
            place.path,
            found="'parent:' where no event is nested",
            accepted=("a duration such as 7 days",),
            hint="parent: measures from the outer event, for an event inside another's where",
        )
    check_duration(node.after_ms, node, place.down("after_ms"))
    check_duration(node.before_ms, node, place.down("before_ms"))


def check_duration(ms: int, node: Any, place: Place) -> None:
    """Check that a duration is in bounds and has whole seconds, as its text has."""
    if not 0 <= ms <= DURATION_MS_MAX:
        raise Flaw(
            node,
            place.path,
            found="a duration below zero" if ms < 0 else "a duration over a hundred years",
            accepted=("0 to 36500 days",),
        )
    if ms % 1000:
        raise Flaw(node, place.path, found=f"{ms} milliseconds", accepted=("whole seconds",))


def check_pattern(node: Value, place: Place) -> None:
    """Check that a value is a regular expression of the linear-time engine."""
    if not isinstance(node, Literal) or not isinstance(node.value, str):
        raise Flaw(node, place.path, found=told(node), accepted=("a regular expression in quotes",))
    reason = pattern_flaw(node.value)
    if reason is not None:
        raise Flaw(
            node,
            place.path,
            found=f"an invalid regular expression: {reason}",
            accepted=("RE2 syntax",),
            hint="look-around and back-references are left out, which keeps matching linear in the text",
        )


def is_list(value: Any) -> bool:
    """Tell whether a value is a list, which cannot be compared."""
    return isinstance(value, Event) and value.reducer.name == "unique" and not value.reducer.counted


def is_no_date(value: Any) -> bool:
    """Tell whether a value is a constant that no date operator can read."""
    return isinstance(value, Literal) and (not isinstance(value.value, str) or instant_ms(value.value) is None)


def told(node: Any) -> str:
    """Say what a node is."""
    match node:
        case None:
            return "nothing"
        case Literal(value=str() as text):
            return f"the text '{text[:40]}'"
        case Literal(value=bool() as truth):
            return str(truth).lower()
        case Literal(value=int() | float() as number):
            return f"the number {number}" if _is_finite(number) else "an infinite number"
        case Event(reducer=reducer):
            return f"the {reducer.name} of events"
        case _:
            return f"a {type(node).__name__.lower()}"
