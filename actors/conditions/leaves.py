"""How a leaf is asked: fast where it is a question about events against a number, generally for everything else.

Each function returns a closure over the entity, made once when a definition is compiled.
"""

from bisect import bisect_right
from collections.abc import Callable
from operator import eq, ge, gt, le, lt, ne
from typing import TYPE_CHECKING, Any, Final

from actors.conditions.compare import clocked_due_ms
from actors.conditions.queries import FOREVER, Count, Extreme, Query, Recent, Records, Sum, Tally, quotient
from actors.conditions.writing import Inline
from actors.language.tree import Comparison, Event, Literal, Reducer

if TYPE_CHECKING:
    from actors.conditions.program import Leaf, Scope

Holds = Callable[[Any, int], bool]
Due = Callable[[Any, int], int | None]

CAPPED: Final = {"at_least": 0, "less_than": 0, "greater_than": 1, "at_most": 1, "equals": 1, "differs": 1}
"""What must be added to the constant so that counting up to it decides the comparison."""
CAP_MAX: Final = 10_000  # a larger constant keeps the whole window
NUMERIC: Final = {"at_least": ge, "less_than": lt, "greater_than": gt, "at_most": le, "equals": eq, "differs": ne}

_SIGNS: Final = {ge: ">=", lt: "<", gt: ">", le: "<=", eq: "==", ne: "!="}


def cap_of(tree: Comparison) -> int | None:
    """Return up to which count the comparison with a constant needs to know, or None."""
    if isinstance(tree.left, Event) and tree.left.reducer.name == "count" and tree.op in CAPPED:
        right = tree.right[0]
        if isinstance(right, Literal) and type(right.value) is int and 0 <= right.value < CAP_MAX:
            return max(1, right.value + CAPPED[tree.op])
    return None


def tips_of(tree: Comparison) -> tuple[int, ...]:
    """Return the counts at which one more may change a comparison that `cap_of` has a cap for."""
    right = tree.right[0]
    assert isinstance(right, Literal)
    bound = int(right.value)
    counts = {"at_least": (bound,), "less_than": (bound,), "greater_than": (bound + 1,), "at_most": (bound + 1,)}
    return tuple(count for count in counts.get(tree.op, (bound, bound + 1)) if count > 0)


def simple_holds(leaf: "Leaf", tree: Comparison) -> Holds | None:
    """Return a faster test of a question about events against a number; None for anything else."""
    right = tree.right[0] if tree.right else None
    numeric = isinstance(right, Literal) and type(right.value) in (int, float) and tree.op in NUMERIC
    if not numeric or not leaf.asked or not isinstance(right, Literal):
        return None
    query, index, bound = leaf.asked[0].query, leaf.asked[0].index, right.value
    if leaf.scope == "user" and tree.op == "at_least" and type(bound) is int and bound >= 1:
        if isinstance(query, Count):
            return lambda entity, now_ms: entity.s.get(index, 0) >= bound
        if isinstance(query, Recent):
            before_ms, newest_needed = query.before_ms, bound

            def holds(entity: Any, now_ms: int) -> bool:
                newest = entity.s.get(index)
                if newest is None or len(newest) < newest_needed:
                    return False
                return bool(newest[-newest_needed] > now_ms - before_ms)

            return holds
        if _is_plain_count(query):
            return _records_reach(index, query, bound)
    return _against_number(leaf, tree)


def inline_of(leaf: "Leaf", tree: Comparison) -> Inline | None:
    """Return the source of the test of a question about events against a number; None for anything else.

    As `simple_holds` and `simple_due`, about the question's state just after an event changed it.
    """
    right = tree.right[0] if tree.right else None
    if len(leaf.asked) != 1 or not isinstance(right, Literal) or type(right.value) not in (int, float):
        return None
    query = leaf.asked[0].query
    if tree.op not in NUMERIC or not _is_numeric(query.reducer):
        return None
    against = f"{_SIGNS[NUMERIC[tree.op]]} {right.value!r}"
    if isinstance(query, Count):
        return Inline(f"n {against}")
    if isinstance(query, Recent) and tree.op == "at_least" and query.cap == right.value:
        is_full = f"len(n) == {query.cap} and " if query.cap > 1 else ""
        return Inline(f"n and {is_full}n[0] > now - {query.before_ms}", due=f"n[0] + {query.before_ms}")
    if leaf.rising:
        return None
    if isinstance(query, Extreme):
        return Inline(f"n and n[0] {against}")
    if isinstance(query, Tally):
        return Inline(f"len(n) {against}")
    if isinstance(query, Sum) and query.reducer.name == "sum":
        return Inline(f"(m := VALUE(n[0], n[1])) is not None and m {against}", quotient)
    return Inline(f"(m := VALUE(n, now, e)) is not None and m {against}", query.value)


def is_rising(leaf: "Leaf", tree: Comparison) -> bool:
    """Tell whether further events can only make a comparison true: while it holds they need not ask it.

    The time that it was due at stays early enough, too: it is reckoned anew when it has come.
    """
    right = tree.right[0] if tree.right else None
    if tree.op != "at_least" or len(leaf.asked) != 1 or not isinstance(tree.left, Event):
        return False
    query = leaf.asked[0].query
    is_count = isinstance(query, Count | Recent) or _is_plain_count(query)
    return is_count and isinstance(right, Literal) and type(right.value) is int


def _is_plain_count(query: Query) -> bool:
    return isinstance(query, Records) and query.reducer.name == "count" and query.session_ms is None


def _records_reach(index: int, query: Query, bound: int) -> Holds:
    """Return the test whether so many records of a user lie in a window."""
    after_ms, before_ms = query.after_ms, query.before_ms

    def holds(entity: Any, now_ms: int) -> bool:
        records = entity.s.get(index)
        if not records:
            return False
        last = bisect_right(records, [now_ms - after_ms, FOREVER]) if after_ms else len(records)
        return last >= bound and bool(records[last - bound][0] > now_ms - before_ms)

    return holds


def _records_due(index: int, query: Query, bound: int) -> Due:
    """Return when so many records may next begin or cease to lie in a window: not at each that comes or goes."""
    after_ms, before_ms = query.after_ms, query.before_ms

    def due_ms(entity: Any, now_ms: int) -> int | None:
        records = entity.s.get(index)
        if not records:
            return None
        last = bisect_right(records, [now_ms - after_ms, FOREVER]) if after_ms else len(records)
        if last >= bound and records[last - bound][0] > now_ms - before_ms:
            due: int = records[last - bound][0] + before_ms
            return due
        first = bisect_right(records, [now_ms - before_ms, FOREVER], 0, last)
        place = first + bound - 1  # the one whose coming makes them so many, if none has gone by then
        return records[place][0] + after_ms if place < len(records) else None

    return due_ms


def _against_number(leaf: "Leaf", tree: Comparison) -> Holds | None:
    """Return a test of a question whose answer is a number or nothing."""
    right = tree.right[0]
    query, index = leaf.asked[0].query, leaf.asked[0].index
    if leaf.scope == "account" or not (isinstance(right, Literal) and _is_numeric(query.reducer)):
        return None
    holds, bound = NUMERIC[tree.op], right.value

    def against(entity: Any, now_ms: int) -> bool:
        value = query.value(entity.s.get(index), now_ms, entity)
        return value is not None and holds(value, bound)

    return against


def _is_numeric(reducer: Reducer) -> bool:
    if reducer.name in {"count", "sum", "avg"} or reducer.counted:
        return True
    return reducer.name in {"min", "max"} and reducer.cast is None


def simple_due(leaf: "Leaf", tree: Comparison) -> Callable[[Any, int], int | None] | None:
    """Return the same for when it changes by itself: only a count that is reached can be lost."""
    right = tree.right[0] if tree.right else None
    if not leaf.asked or not isinstance(right, Literal):
        return None
    query, index = leaf.asked[0].query, leaf.asked[0].index
    if leaf.scope == "user" and is_rising(leaf, tree) and _is_plain_count(query) and int(right.value) >= 1:
        return _records_due(index, query, int(right.value))
    if not isinstance(query, Recent):
        return None
    if leaf.scope == "account" or tree.op != "at_least" or query.cap != right.value:
        return None
    before_ms, bound = query.before_ms, query.cap

    def due_ms(entity: Any, now_ms: int) -> int | None:
        newest = entity.s.get(index)
        if newest is None or len(newest) < bound:
            return None
        due: int = newest[0] + before_ms
        return due if due > now_ms else None

    return due_ms


def due_of(
    scope: "Scope",
    timed: list[tuple[int, Query]],
    op: str,
    left: Callable[[Any, int], Any] | None,
    span_ms: int,
) -> Callable[[Any, int], int | None]:
    """Return when questions, or a date compared with the clock, may next change by themselves."""

    def due_ms(entity: Any, now_ms: int) -> int | None:
        states = entity.s if scope == "user" else entity.a
        dues = [query.due_ms(states.get(index), now_ms, entity) for index, query in timed]
        if left is not None:
            dues.append(clocked_due_ms(op, left(entity, now_ms), span_ms, now_ms))
        return min((due for due in dues if due is not None), default=None)

    return due_ms


def quantifier(quantifier: str, hidden: int) -> Callable[[Any, int], bool]:
    r"""Return the test of ANY, ALL or NONE: by how many of the account\'s users a hidden condition holds for."""
    if quantifier == "ANY":
        return lambda account, now_ms: account.counts.get(hidden, 0) > 0
    if quantifier == "NONE":
        return lambda account, now_ms: account.counts.get(hidden, 0) == 0
    return lambda account, now_ms: 0 < len(account.users) == account.counts.get(hidden, 0)
