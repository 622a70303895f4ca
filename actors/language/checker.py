"""The rules that a tree must keep, whether it was parsed from text or came as JSON.

What only looks like a mistake is told by lint.py instead.

An event is *nested* if it stands inside another event's `where`. The depth of a place is how many events' `where` or
reducer it stands in: `property` needs one (the event looked at), `property(parent: …)` needs two.
"""

from typing import Any
from typing import Literal as OneOf

from msgspec.structs import replace

from actors.language.rules import (
    INSTANT_MS_MAX,
    INSTANT_MS_MIN,
    Flaw,
    Place,
    check_duration,
    check_field,
    check_literal,
    check_name,
    check_path,
    check_pattern,
    check_reducer,
    check_window,
    gives_number,
    is_list,
    is_no_date,
    told,
)
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
    Trait,
    Users,
)
from actors.language.vocabulary import DATE_OPERATORS, PRIMARIES_MAX, SPAN_OPERATORS, did_you_mean

EntityType = OneOf["USERS", "ACCOUNTS"]
Kind = OneOf["audience", "trait"]


def check(tree: Definition, *, entity_type: EntityType, kind: Kind) -> None:
    """Raise a Flaw for the first rule that the tree breaks."""
    _Checker(entity_type).definition(tree, kind)


class _Checker:
    """One walk over a tree, counting its primary expressions."""

    def __init__(self, entity_type: EntityType) -> None:
        self.entity_type = entity_type
        self.primaries = 0

    def definition(self, tree: Definition, kind: Kind) -> None:
        """Check a whole definition."""
        top = Place("")
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

    def _condition(self, node: Any, place: Place) -> None:
        match node:
            case Comparison():
                self._primary(node, place)
                self._comparison(node, place)
            case Audience(key=key):
                self._primary(node, place)
                check_name(key, node, place.down("key"), "the key of an audience")
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

    def _primary(self, node: Any, place: Place) -> None:
        self.primaries += 1
        if self.primaries > PRIMARIES_MAX:
            raise Flaw(
                node,
                place.path,
                found=f"primary expression number {self.primaries}",
                accepted=(f"at most {PRIMARIES_MAX} comparisons and audience() calls",),
                hint="several alternatives for one value are one comparison: .one_of('a', 'b')",
            )

    def _users(self, node: Users, place: Place) -> None:
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

    def _comparison(self, node: Comparison, place: Place) -> None:
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
            )
        self._value(node.left, place.down("left"))
        self._left_kind(node, place.down("left"))
        for index, right in enumerate(node.right):
            self._right(node, right, place.down(f"right[{index}]"))

    def _left_kind(self, node: Comparison, place: Place) -> None:
        left = node.left
        if is_list(left) and node.op not in {"exists", "absent"}:
            raise Flaw(
                node,
                place.path,
                found=f"'{node.op}' on a list",
                accepted=(".count()", ".exists()", ".absent()"),
                hint="unique(…) gives a list, which is only counted: .unique(…).count() >= 2",
            )
        if node.op in DATE_OPERATORS and (gives_number(left) or is_no_date(left)):
            raise Flaw(
                node,
                place.path,
                found=f"'{node.op}' on {'a number' if gives_number(left) else 'a constant that is no date'}",
                accepted=("a date on the left",),
                hint="to bound when events happened say .within(7 days), .since(2026-01-01) or .until(2026-02-01)",
            )

    def _right(self, node: Comparison, right: Any, place: Place) -> None:
        op = node.op
        if op in SPAN_OPERATORS:
            if not isinstance(right, Duration):
                raise Flaw(right, place.path, found=told(right), accepted=("a duration such as 7 days",))
            check_duration(right.ms, right, place.down("ms"))
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
        if is_list(right):
            raise Flaw(right, place.path, found="a list", accepted=("a single value",), hint="count it: .count()")
        if op in DATE_OPERATORS and (gives_number(right) or is_no_date(right)):
            raise Flaw(
                right,
                place.path,
                found=told(right),
                accepted=("a date",),
                hint="dates are ISO 8601 and must exist: '2026-01-31' or '2026-01-31T12:00:00Z'",
            )
        if op == "matches":
            check_pattern(right, place)

    def _value(self, node: Any, place: Place) -> None:
        match node:
            case Literal():
                check_literal(node, place)
            case Trait(path=path):
                check_path(path, node, place, "a trait")
            case Property() | Context():
                check_field(node, place)
            case Event():
                self._event(node, place)
            case _:
                raise Flaw(node, place.path, found=type(node).__name__, accepted=("a value",))

    def _event(self, node: Event, place: Place) -> None:
        if node.call == "any" and node.name is not None:
            raise Flaw(node, place.down("name").path, found="a name", accepted=("none",), hint="event() is any call")
        if node.name is not None:
            check_name(node.name, node, place.down("name"), f"the name of a {node.call} call")
        elif node.call == "track":
            raise Flaw(node, place.path, found="a track call without a name", accepted=("a name", 'call "any"'))
        for index, window in enumerate(node.windows):
            check_window(window, place.down(f"windows[{index}]"))
        for index, source in enumerate(node.exclude_sources):
            check_name(source, node, place.down(f"exclude_sources[{index}]"), "the id of a source")
        for field, instant in (("since_ms", node.since_ms), ("until_ms", node.until_ms)):
            if instant is not None and not INSTANT_MS_MIN <= instant <= INSTANT_MS_MAX:
                raise Flaw(node, place.down(field).path, found=str(instant), accepted=("a time in years 1 to 9999",))
        if node.expires_after_ms is not None:
            check_duration(node.expires_after_ms, node, place.down("expires_after_ms"))
        if node.where is not None:
            self._condition(node.where, place.inside("where"))
        check_reducer(node.reducer, place.down("reducer"))
        if node.reducer.of is not None:
            check_field(node.reducer.of, place.inside("reducer").down("of"))
