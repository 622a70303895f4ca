r"""The syntax tree of a definition: what the parser makes and everything else reads.

The nodes are frozen, comparable and hashable, so equal parts of different definitions are equal values. Their msgspec
JSON encoding *is* the JSON form that the API returns beside the text. Durations and times are milliseconds (since the
epoch, UTC). Paths are tuples of keys: `trait('a.b')` is `("a", "b")`; an escaped dot (`\\.`) stays inside its key.
"""

from typing import Literal as OneOf

from msgspec import Struct


class Node(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a tree. In JSON a field that it does not have is refused: a misspelt filter must not be left out."""


class Literal(Node, frozen=True, tag="literal"):
    """A constant: text, a number or a boolean."""

    value: str | int | float | bool


class Property(Node, frozen=True, tag="property", omit_defaults=True):
    """A property of the event that is looked at, or of its parent event in a funnel."""

    path: tuple[str, ...]
    parent: bool = False


class Context(Node, frozen=True, tag="context", omit_defaults=True):
    """A field of the event's context, or of its parent's."""

    path: tuple[str, ...]
    parent: bool = False


class Trait(Node, frozen=True, tag="trait"):
    """A trait of the profile: custom, computed, or an audience as a boolean. `path[0]` is its key."""

    path: tuple[str, ...]


class Window(Node, frozen=True, tag="window", omit_defaults=True):
    """`within(d)` is after_ms 0, before_ms d; `between(a, b)` is a and b. Holds where t - before < ts <= t - after.

    With `parent` it is measured forward from the parent event: parent.ts + after < ts <= parent.ts + before (and for
    `within(parent: d)`, where after_ms is 0: after the parent in (timestamp, sequence) order and ts <= parent.ts + d).
    `later` tells `between(parent: 0 days, d)` from that: what happens at the parent's own instant is not in.
    """

    after_ms: int
    before_ms: int
    parent: bool = False
    later: bool = False

    @property
    def open_low_ms(self) -> int:
        """Return what the distance from the parent must exceed; -1 where its own instant is in, if after it."""
        return self.after_ms if self.after_ms or self.later else -1


class Reducer(Node, frozen=True, tag="reducer", omit_defaults=True):
    """How the events that pass become one value.

    `of` is what is looked at (None for count). `cast` is the `as` type: "string" or "array", or None.
    `frequency` is what `mode` needs. `counted` is `unique(...).count()`.
    """

    name: OneOf["count", "sum", "avg", "min", "max", "mode", "first", "last", "unique"]
    of: Property | Context | None = None
    cast: str | None = None
    frequency: int = 2
    counted: bool = False


class Event(Node, frozen=True, tag="event", omit_defaults=True):
    """A question about a profile's events: which calls, filtered how, reduced to what.

    `call` "any" is `event()`: any track, page or screen call. `name` None is any name. All windows must hold.
    `since_ms` is closed (ts >= since), `until_ms` open (ts < until).
    """

    call: OneOf["track", "page", "screen", "any"]
    reducer: Reducer
    name: str | None = None
    where: "Condition | None" = None
    windows: tuple[Window, ...] = ()
    exclude_sources: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    expires_after_ms: int | None = None


class Duration(Node, frozen=True, tag="duration"):
    """The argument of within_last and its kin."""

    ms: int


Value = Literal | Property | Context | Trait | Event


class Comparison(Node, frozen=True, tag="comparison"):
    """`left op right`; `op` is a name of OPERATORS; `right` has as many values as the operator takes."""

    left: Value
    op: str
    right: tuple[Value | Duration, ...] = ()


class Audience(Node, frozen=True, tag="audience"):
    """True for members of the audience with this key."""

    key: str


class And(Node, frozen=True, tag="and"):
    """True if all of its parts are."""

    of: tuple["Condition", ...]


class Or(Node, frozen=True, tag="or"):
    """True if any of its parts is."""

    of: tuple["Condition", ...]


class Not(Node, frozen=True, tag="not"):
    """True if its part is not."""

    of: "Condition"


class Users(Node, frozen=True, tag="users"):
    """A quantifier over the users of an account: ANY, ALL (needs at least one user) or NONE."""

    quantifier: OneOf["ANY", "ALL", "NONE"]
    of: "Condition"


Condition = Comparison | Audience | And | Or | Not | Users
Definition = Condition | Event
"""An audience is a Condition; a computed trait is an Event with its reducer."""

OPERATORS: dict[str, tuple[int, int | None]] = {
    "equals": (1, 1),
    "differs": (1, 1),
    "greater_than": (1, 1),
    "at_least": (1, 1),
    "less_than": (1, 1),
    "at_most": (1, 1),
    "exists": (0, 0),
    "absent": (0, 0),
    "contains": (1, None),
    "omits": (1, None),
    "starts_with": (1, None),
    "ends_with": (1, None),
    "one_of": (1, None),
    "none_of": (1, None),
    "before_date": (1, 1),
    "after_date": (1, 1),
    "within_last": (1, 1),
    "within_next": (1, 1),
    "before_last": (1, 1),
    "after_next": (1, 1),
    "matches": (1, 1),
}
"""Each comparison's name, with the least and the most arguments it takes (None: any number)."""

SYMBOLS: dict[str, str] = {
    "=": "equals",
    "==": "equals",
    "!=": "differs",
    ">": "greater_than",
    ">=": "at_least",
    "<": "less_than",
    "<=": "at_most",
}
