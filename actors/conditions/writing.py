"""Writes the functions that events of one name are given to: source text, made of what is asked of them.

Two kinds. `run` updates states and tells which subscriptions matched. `fold` is what a live partition goes by: beside
each state that it updates it asks the leaves that rest on nothing else, so that an event which changes nothing costs
little more than its states. What it cannot ask there, it tells as bits, as `run` does.

Names in them: `s` the states, `ts` and `seq` the event's place, `d` what its body says, `src` its source, `now`; in a
fold `e` the entity, `b` its bits, `x` the partition.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from actors.conditions.compare import compare
from actors.conditions.compare import test as constant_test
from actors.conditions.values import at_path
from actors.language.tree import And, Comparison, Condition, Context, Literal, Not, Or, Property

if TYPE_CHECKING:
    from actors.conditions.program import Leaf

CODE_MAX: Final = 2048  # ours: functions whose code is kept, of one to ten KB each
Field = Property | Context
_SYMBOLS: Final = {"greater_than": ">", "at_least": ">=", "less_than": "<", "at_most": "<=", "equals": "=="}
_ROOTS: Final = {Property: ("p", "properties"), Context: ("c", "context")}


class Subscription(Struct, frozen=True):
    """Which events change which state, and what of them is looked at."""

    asked: int
    kinds: tuple[int, ...]
    name: str | None
    conditions: tuple[Condition, ...]
    exclude_sources: tuple[str, ...]
    since_ms: int | None
    until_ms: int | None
    after_seq: int
    fields: tuple[Field, ...]
    as_tuple: bool
    observe: Callable[[Any, int, int, Any, int], Any]
    looks_inside: bool  # at properties or context
    update: str = ""  # the source of what `observe` does, where it is short (`Query.update`)
    until_seq: int | None = None


class Inline(Struct, frozen=True):
    """How a leaf is asked within a fold: source about the state `n` that it rests on."""

    holds: str
    value: Any = None  # what `VALUE` stands for in it
    due: str = ""  # of a leaf that is `rising`: when it changes by itself, once it holds; "": never


@lru_cache(maxsize=CODE_MAX)
def _compiled(source: str) -> CodeType:
    """Return a function's code. Constants stand in it by name, so questions asked again and again share it."""
    return compile(source, "<handler>", "exec")


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


class Writer:
    """Writes the source of one function, and collects the constants that it names."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"E": {}, "at_path": at_path, "compare": compare, "insort": insort}
        self.loads: dict[Field, str] = {}

    def run(self, subscriptions: Iterable[Subscription]) -> Callable[..., int]:
        """Return the function that updates states and tells by bits which subscriptions matched."""
        body = ["t = 0"]
        for bit, one in enumerate(subscriptions):
            body += self._guarded(one, [*self._updated(one), f"t |= {1 << bit:#x}"])
        return self._made("run(s, ts, seq, d, src, now)", [*body, "return t"])

    def fold(self, subscriptions: Sequence[Subscription], leaves: "Sequence[list[Leaf] | None]") -> Callable[..., int]:
        """Return the function that also asks leaves, and puts those that flip into `x.flipped`.

        `leaves`: for each subscription those to be asked here, None where somebody is to be asked afterwards: that it
        matched is told as a bit.
        """
        body = ["now = x.now_ms", "b = e.bits", "t = 0"]
        for bit, (one, mine) in enumerate(zip(subscriptions, leaves, strict=True)):
            lines = self._updated(one)
            if mine is None:
                lines.append(f"t |= {1 << bit:#x}")
            for leaf in mine or ():
                lines += self._asked(leaf)
            body += self._guarded(one, lines)
        return self._made("fold(x, e, s, ts, seq, d, src)", [*body, "e.bits = b", "return t"])

    def _made(self, head: str, body: list[str]) -> Callable[..., int]:
        loads = [f"{name} = {self._load(field)}" for field, name in self.loads.items()]
        roots = dict.fromkeys(_ROOTS[type(field)] for field in self.loads)
        lines = [*(f"{short} = d.{part} or E" for short, part in roots), *loads, *body]
        exec(_compiled("\n    ".join([f"def {head}:", *lines])), self.names)  # noqa: S102 - of our own making
        made: Callable[..., int] = self.names[head.partition("(")[0]]
        return made

    def _load(self, field: Field) -> str:
        root, _ = _ROOTS[type(field)]
        if len(field.path) == 1:
            return f"{root}.get({field.path[0]!r})"
        return f"at_path({root}, {field.path!r})"

    def _local(self, field: Field) -> str:
        return self.loads.setdefault(field, f"v{len(self.loads)}")

    def _constant(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def _guarded(self, subscription: Subscription, lines: list[str]) -> list[str]:
        """Return lines that are only for events that a subscription looks at."""
        tests = [self._condition(condition) for condition in subscription.conditions]
        if subscription.exclude_sources:
            tests.append(f"src not in {subscription.exclude_sources!r}")
        if subscription.since_ms is not None:
            tests.append(f"ts >= {subscription.since_ms}")
        if subscription.until_ms is not None:
            tests.append(f"ts < {subscription.until_ms}")
        if subscription.after_seq:
            tests.append(f"seq > {subscription.after_seq}")
        if subscription.until_seq is not None:
            tests.append(f"seq <= {subscription.until_seq}")
        return [f"if {' and '.join(tests)}:", *_indented(lines)] if tests else lines

    def _updated(self, subscription: Subscription) -> list[str]:
        """Return the lines that update a state, which is then also the variable `n`."""
        index = subscription.asked
        if subscription.update:
            lines = subscription.update.replace("INDEX", str(index))
            return lines.replace("OBSERVE", self._constant(subscription.observe)).splitlines()
        values = [self._local(field) for field in subscription.fields]
        if subscription.as_tuple:
            value = f"({', '.join(values)}{',' if len(values) == 1 else ''})"
        else:
            value = values[0] if values else "None"
        observe = self._constant(subscription.observe)
        return [f"n = s[{index}] = {observe}(s.get({index}), ts, seq, {value}, now)"]

    def _asked(self, leaf: "Leaf") -> list[str]:
        """Return the lines that ask a leaf of the question whose state is `n`."""
        mask, inline = self._constant(leaf.mask), leaf.inline
        flips = [f"b ^= {mask}", f"x.flipped.append({self._constant(leaf)})"]
        if inline is None:
            holds = f"{self._constant(leaf.holds)}(e, now)"
        else:
            holds = inline.holds.replace("VALUE", self._constant(inline.value)) if inline.value else inline.holds
            if leaf.rising:
                due = [f"x._due(e, {leaf.index}, {inline.due})"] if inline.due else []
                return [f"if {holds} and not b & {mask}:", *_indented(flips + due)]
        due = []
        if leaf.due is not None:
            due = [f"x._due(e, {leaf.index}, {self._constant(leaf.due)}(e, now))"]
        if leaf.rising:
            lines = [f"if {holds}:", *_indented(flips), *due]
            if leaf.after_ms:  # a newer one tips nothing yet, nor moves what it is due at nearer
                later = [f"if {leaf.index} not in e.dues or n[-1][1] != seq:", *_indented(due)]
                lines = [f"if ts <= now - {leaf.after_ms}:", *_indented(lines), "else:", *_indented(later)]
            return [f"if not b & {mask}:", *_indented(lines)]
        turns = [f"if {holds}:", *_indented([f"if not b & {mask}:", *_indented(flips)])]
        return [*turns, f"elif b & {mask}:", *_indented(flips), *due]

    def _condition(self, condition: Condition) -> str:
        if isinstance(condition, And | Or):
            word = " and " if isinstance(condition, And) else " or "
            return f"({word.join(self._condition(part) for part in condition.of)})"
        if isinstance(condition, Not):
            return f"(not {self._condition(condition.of)})"
        assert isinstance(condition, Comparison), "static conditions are made of comparisons"
        left = self._value(condition.left)
        if not all(isinstance(right, Literal) for right in condition.right):
            rights = [self._value(right) for right in condition.right]
            return f"compare({condition.op!r}, {left}, ({', '.join(rights)},))"
        literals = tuple(right.value for right in condition.right if isinstance(right, Literal))
        return self._test(condition.op, left, literals)

    def _test(self, op: str, left: str, literals: tuple[Any, ...]) -> str:
        if op == "exists":
            return f"({left} is not None)"
        if op == "absent":
            return f"({left} is None)"
        test = self._constant(constant_test(op, literals))
        slow = f"{test}({left})"
        constant = literals[0]
        if op == "equals" and type(constant) is str:
            return f"({left} == {constant!r} if {left}.__class__ is str else {slow})"
        if op == "differs" and type(constant) is str:
            return f"({left} != {constant!r} if {left}.__class__ is str else {slow})"
        if op in _SYMBOLS and type(constant) in (int, float):
            plain = f"{left}.__class__ is float or {left}.__class__ is int"
            return f"({left} {_SYMBOLS[op]} {constant!r} if {plain} else {slow})"
        return slow

    def _value(self, value: Any) -> str:
        if isinstance(value, Literal):
            return self._constant(value.value)
        assert isinstance(value, Property | Context)
        return self._local(value)
