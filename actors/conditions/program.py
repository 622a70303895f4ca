"""The condition program: from the definitions of a space to what an event touches.

Definitions are cut into *leaves*, their primary expressions; equal leaves, and equal questions about events within
them, are shared by all definitions of a space (hash-consing by JSON form: `1` and `true` are equal in Python, not
here). A question subscribes to event names; per event name one function is generated that loads each property once,
tests all filters and updates the states that match. A definition is a boolean function of leaf bits, asked again only
when one of its leaves flips. Definitions that refer to others have a higher *rank* and follow them within the same
entry.

A change of one definition costs what that definition is made of, however many there are: parts say who uses them
(`readers`), and what nobody uses goes.

Two scopes: questions of users, and those an ACCOUNTS definition asks, outside quantifiers, of all events of all the
account's users. A quantified condition becomes a hidden user definition whose flips the account counts.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final
from typing import Literal as OneOf

import msgspec
from msgspec import Struct

from actors.conditions.chains import Stream, is_dynamic
from actors.conditions.compare import CLOCKED, clocked, compare
from actors.conditions.compare import test as constant_test
from actors.conditions.funnels import Funnel
from actors.conditions.handlers import Handler, looks_inside
from actors.conditions.leaves import cap_of, due_of, inline_of, is_rising, quantifier, simple_due, simple_holds
from actors.conditions.queries import Entity, Query, Records, static_query
from actors.conditions.readers import ACCOUNT, USER, Readers, Scope, keys_of
from actors.conditions.writing import Inline, Subscription
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
)
from eventlog.entries import PAGE, SCREEN, TRACK

TRUTHS_CACHED_MAX: Final = 16_384  # ours: definitions whose function is kept ready, about 1 KB each
_CALLS: Final = {"track": (TRACK,), "page": (PAGE,), "screen": (SCREEN,), "any": (TRACK, PAGE, SCREEN)}


class Bounds(Struct, frozen=True):
    """Which part of history a definition counts (contract, section 4)."""

    after_seq: int = 0
    since_ms: int | None = None


class Spec(Struct, frozen=True):
    """One definition to compile."""

    number: int
    key: str
    kind: OneOf["audience", "trait"]
    scope: Scope
    tree: Definition
    bounds: Bounds = Bounds()
    id_types: frozenset[str] | None = None  # an audience of users counts only profiles with one of these
    anonymous: bool = True  # a computed trait also of profiles without any of the default ids


class Left(Struct, frozen=True):
    """What a deleted audience left behind: false for every entity up to `last_entity` that was not a member."""

    is_account: bool
    at_ms: int
    seq: int
    last_entity: int


class Asked:
    """A query with where its state lives and what it is subscribed to. `stable` names it in snapshots."""

    __slots__ = ("identity", "index", "query", "scope", "stable", "subscriptions")

    def __init__(self, index: int, identity: str, born: int | None, scope: Scope, query: Query) -> None:
        self.index = index
        self.identity = identity  # equal for equal questions; begun elsewhere in the log they are others in snapshots
        self.stable = stable_number(identity if born is None else f"{born} {identity}")
        self.scope = scope
        self.query = query
        self.subscriptions: list[Subscription] = []


class Leaf:
    """A primary expression: a bit of each entity."""

    __slots__ = (
        "after_ms",
        "asked",
        "audiences",
        "due",
        "hidden",
        "holds",
        "identity",
        "index",
        "inline",
        "mask",
        "nodes",
        "rank",
        "rising",
        "scope",
        "timeless",
        "traits",
    )

    def __init__(self, index: int, identity: str, scope: Scope) -> None:
        self.index = index
        self.identity = identity
        self.mask = 1 << index
        self.scope = scope
        self.hidden: Node | None = None  # what a quantifier counts
        self.timeless = True  # False: the clock may change it for an entity that nothing is known of
        self.rank = 0
        self.rising = False  # True: while it holds, further events leave it so
        self.after_ms = 0  # of a rising one: how old an event must be to count
        self.asked: list[Asked] = []
        self.traits: list[str] = []  # keys that it looks at
        self.audiences: list[str] = []
        self.holds: Callable[[Any, int], bool] = _never
        self.due: Callable[[Any, int], int | None] | None = None  # None: time alone never changes it
        self.inline: Inline | None = None  # the same as source, where it is short
        self.nodes: dict[Node, None] = {}  # the definitions that it is a part of


class Node:
    """A definition, or (hidden) the condition under a quantifier, compiled."""

    __slots__ = (
        "asked",
        "hidden",
        "identity",
        "key",
        "leaves",
        "number",
        "present",
        "quantified",
        "rank",
        "scope",
        "spec",
        "truth",
    )

    def __init__(self, number: int, scope: Scope, spec: Spec | None, identity: str = "") -> None:
        self.number = number  # of the definition; hidden ones are negative
        self.identity = identity  # of a hidden one
        self.scope = scope
        self.spec = spec
        self.key = spec.key if spec else ""
        self.hidden = spec is None
        self.rank = 0
        self.leaves: list[Leaf] = []
        self.truth: Callable[[int], bool] = bool
        self.asked: Asked | None = None  # a computed trait's value
        self.present: Asked | None = None  # and what tells that it is there; None: a state is enough
        self.quantified: list[Node] = []  # account definitions: the hidden ones they count

    def questions(self) -> list[Asked]:
        """Return what a computed trait asks by itself, not through leaves."""
        return [asked for asked in dict.fromkeys((self.asked, self.present)) if asked is not None]


class Change:
    """What came and went with a change of the definitions."""

    __slots__ = ("came", "gone", "gone_leaves", "gone_questions", "leaves", "moved", "newly_heard", "questions")

    def __init__(self) -> None:
        self.came: list[Node] = []  # what is compiled anew, hidden conditions too
        self.gone: list[Node] = []  # what is no more, also where another has taken its number
        self.leaves: list[Leaf] = []  # new ones
        self.gone_leaves: list[Leaf] = []
        self.questions: list[Asked] = []  # that nobody asked before
        self.gone_questions: list[Asked] = []
        self.moved: set[str] = set()  # keys that have an owner now and had none, or the other way round
        self.newly_heard: set[int] = set()  # account audiences that users begin to look at


def _never(_entity: Any, _now_ms: int) -> bool:
    return False


def identity_of(scope: Scope, bounds: Bounds, tree: Any, extra: str = "") -> str:
    """Return a text that is equal for equal parts only."""
    return f"{scope} {bounds.after_seq} {bounds.since_ms} {extra} {msgspec.json.encode(tree).decode()}"


def stable_number(identity: str) -> int:
    """Return 62 bits that stand for a text in snapshots and across restarts."""
    return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest()) >> 2


def _born_as(hidden: Node) -> str:
    """Return under which name it is kept where in the log a hidden condition began."""
    return f"hidden {hidden.identity}"


@lru_cache(TRUTHS_CACHED_MAX)
def _truth_of(source: str) -> Callable[[int], bool]:
    """Return what tells the truth from a profile's bits."""
    truth: Callable[[int], bool] = eval(f"lambda b: bool({source})", {"bool": bool})  # noqa: S307 - of our own making
    return truth


class Program(Readers):
    """All definitions of a space, compiled. Indexes of queries and leaves are never reused while it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[int, Node] = {}  # by number, hidden ones too
        self.left: dict[str, Left] = {}  # by key of a deleted audience
        self.asked: dict[str, Asked] = {}
        self.leaves: dict[str, Leaf] = {}
        self.by_index: list[Leaf] = []
        self.asked_by_index: list[Asked] = []
        self.hidden: dict[str, Node] = {}
        self.by_stable: dict[int, Asked] = {}
        self.born: dict[str, int] = {}  # identity of a question -> where in the log it began to be kept
        self.seq = 0
        self.version = 0
        self._change = Change()

    # -- building ----------------------------------------------------------------------------------------------------

    def set_definitions(self, specs: Iterable[Spec], seq: int = 0) -> Change:
        """Compile these definitions instead of those there were; see `change`."""
        wanted = {spec.number: spec for spec in specs}
        changes: dict[int, Spec | None] = {
            number: None for number, node in self.nodes.items() if not node.hidden and number not in wanted
        }
        changes.update(wanted)
        change = self.change(changes, seq)
        # A start is told where questions began to be kept; of those that nobody asks any more it keeps nothing.
        kept = (*self.asked, *map(_born_as, self.hidden.values()))
        self.born = {identity: self.born[identity] for identity in kept}
        return change

    def change(self, specs: Mapping[int, Spec | None], seq: int = 0) -> Change:
        """Compile these definitions, by number, instead of those of the same numbers; None takes one out.

        What a definition shares with others, and with what it was, keeps its index and state; what is dropped and asked
        again later begins anew, whatever entities still hold of it. `seq` is where in the log new questions begin to
        be kept.
        """
        self.seq = seq
        change = self._change = Change()
        specs = {number: spec for number, spec in specs.items() if spec is None or not self._is_there(spec)}
        old = [self.nodes[number] for number in specs if number in self.nodes]
        keys = {node.key for node in old} | {spec.key for spec in specs.values() if spec is not None}
        owned = keys & self.owners.keys()
        first_leaf, first_question = len(self.by_index), len(self.asked_by_index)
        for number, spec in specs.items():
            if spec is None:
                self.nodes.pop(number, None)
            else:
                self._define(spec)
        for node in old:
            self._release(node)
        change.leaves = self.by_index[first_leaf:]
        change.questions = self.asked_by_index[first_question:]
        change.moved = owned ^ (keys & self.owners.keys())
        self._rank(change.came, change.moved)
        looked_at = {key for leaf in (*change.leaves, *change.gone_leaves) for key in (*leaf.traits, *leaf.audiences)}
        for node in (*change.came, *change.gone):
            looked_at.update(key for asked in node.questions() for key in keys_of(asked))
        change.newly_heard = self._hear((keys | looked_at) - {""})
        self.version += 1
        return change

    def _is_there(self, spec: Spec) -> bool:
        node = self.nodes.get(spec.number)
        return node is not None and node.spec == spec

    def _release(self, node: Node) -> None:
        """Take a definition that is no more out of what it was made of, and drop what nobody uses any more."""
        self._change.gone.append(node)
        self._drop_node(node)
        for leaf in node.leaves:
            leaf.nodes.pop(node, None)
            if not leaf.nodes:
                self._forget_leaf(leaf)
        self._forget_unasked(node.questions())

    def _forget_leaf(self, leaf: Leaf) -> None:
        self._change.gone_leaves.append(leaf)
        self._drop_leaf(leaf)
        del self.leaves[leaf.identity]
        self._forget_unasked(dict.fromkeys(leaf.asked))
        hidden = leaf.hidden
        if hidden is not None and hidden.number not in self.by_hidden:
            del self.nodes[hidden.number]
            del self.hidden[hidden.identity]
            del self.born[_born_as(hidden)]
            self._release(hidden)

    def _forget_unasked(self, questions: Iterable[Asked]) -> None:
        """Drop those of these questions that nobody asks any more."""
        for asked in questions:
            if any(self.by_question[asked.index]):
                continue
            self._change.gone_questions.append(asked)
            self._drop_question(asked)
            del self.asked[asked.identity]
            del self.by_stable[asked.stable]
            del self.born[asked.identity]

    def _define(self, spec: Spec) -> None:
        node = Node(spec.number, spec.scope, spec)
        before = self.nodes.get(spec.number)
        if before is not None:
            node.rank = before.rank  # who looks at its key reckons with that, until it changes
        self.nodes[spec.number] = node
        self._change.came.append(node)
        if isinstance(spec.tree, Event):
            node.asked = self._ask(spec.tree, spec.scope, spec.bounds, None)
            if spec.tree.windows or spec.tree.expires_after_ms is not None or node.asked.query.dynamic:
                bare = msgspec.structs.replace(spec.tree, windows=(), expires_after_ms=None, reducer=Reducer("count"))
                node.present = self._ask(bare, spec.scope, spec.bounds, None)
        else:
            self._expression(node, spec.tree, spec.scope, spec.bounds)
        self._add_node(node)

    def _expression(self, node: Node, tree: Condition, scope: Scope, bounds: Bounds) -> None:
        source = self._boolean(node, tree, scope, bounds)
        node.truth = _truth_of(source)
        for leaf in node.leaves:
            leaf.nodes[node] = None

    def _boolean(self, node: Node, tree: Condition, scope: Scope, bounds: Bounds) -> str:
        if isinstance(tree, And | Or):
            word = " and " if isinstance(tree, And) else " or "
            return f"({word.join(self._boolean(node, part, scope, bounds) for part in tree.of)})"
        if isinstance(tree, Not):
            return f"(not {self._boolean(node, tree.of, scope, bounds)})"
        leaf = self._leaf(node, tree, scope, bounds)
        if leaf not in node.leaves:
            node.leaves.append(leaf)
        return f"b & {leaf.mask:#x}"  # in decimal, Python reads and writes no more than 4,300 digits

    def _leaf(self, node: Node, tree: Comparison | Audience | Users, scope: Scope, bounds: Bounds) -> Leaf:
        hidden = self._quantified(tree, bounds) if isinstance(tree, Users) else None
        if hidden is not None and hidden not in node.quantified:
            node.quantified.append(hidden)
        identity = identity_of(scope, bounds, tree)
        leaf = self.leaves.get(identity)
        if leaf is None:
            leaf = Leaf(len(self.by_index), identity, scope)
            self.by_index.append(leaf)
            self.leaves[identity] = leaf
            if isinstance(tree, Comparison):
                self._comparison(leaf, tree, bounds)
            elif isinstance(tree, Audience):
                key = tree.key
                leaf.audiences.append(key)
                leaf.holds = lambda entity, now_ms: entity.in_audience(key)
            elif hidden is not None:
                leaf.hidden = hidden
                leaf.holds = quantifier(tree.quantifier, hidden.number)
            self._add_leaf(leaf)
        return leaf

    def _quantified(self, tree: Users, bounds: Bounds) -> Node:
        identity = identity_of(USER, bounds, tree.of)
        node = self.hidden.get(identity)
        if node is None:
            # Forgotten and asked again it is another: counts of the first may still lie in snapshots.
            born = self.born.setdefault(f"hidden {identity}", self.seq)
            node = Node(-1 - stable_number(f"{born} {identity}"), USER, None, identity)
            self.hidden[identity] = node
            self.nodes[node.number] = node
            self._change.came.append(node)
            self._expression(node, tree.of, USER, bounds)
        return node

    def _comparison(self, leaf: Leaf, tree: Comparison, bounds: Bounds) -> None:
        left = self._value(leaf, tree.left, bounds, cap_of(tree))
        op = tree.op
        if op in CLOCKED:
            span = tree.right[0]
            assert isinstance(span, Duration)
            span_ms = span.ms
            leaf.holds = lambda entity, now_ms: clocked(op, left(entity, now_ms), span_ms, now_ms)
        elif all(isinstance(right, Literal) for right in tree.right):
            holds = constant_test(op, tuple(right.value for right in tree.right if isinstance(right, Literal)))
            leaf.holds = simple_holds(leaf, tree) or (lambda entity, now_ms: holds(left(entity, now_ms)))
        else:
            rights = [self._value(leaf, r, bounds, None) for r in tree.right if not isinstance(r, Duration)]
            leaf.holds = lambda entity, now_ms: compare(
                op, left(entity, now_ms), tuple(right(entity, now_ms) for right in rights)
            )
        leaf.rising = is_rising(leaf, tree)
        leaf.after_ms = leaf.asked[0].query.after_ms if leaf.rising else 0
        leaf.inline = inline_of(leaf, tree)
        timed = [(asked.index, asked.query) for asked in leaf.asked if asked.query.clocked]
        span_of = tree.right[0].ms if op in CLOCKED and isinstance(tree.right[0], Duration) else None
        if timed or span_of is not None:
            leaf.timeless = not isinstance(tree.left, Literal)
            leaf.due = simple_due(leaf, tree) or due_of(
                leaf.scope, timed, op, left if span_of is not None else None, span_of or 0
            )

    def _value(self, leaf: Leaf, value: Value, bounds: Bounds, cap: int | None) -> Callable[[Any, int], Any]:
        if isinstance(value, Literal):
            constant = value.value
            return lambda entity, now_ms: constant
        if isinstance(value, Trait):
            path = value.path
            leaf.traits.append(path[0])
            return lambda entity, now_ms: entity.trait(path)
        assert isinstance(value, Event), "property and context stand inside where only"
        asked = self._ask(value, leaf.scope, bounds, cap)
        leaf.asked.append(asked)
        if isinstance(asked.query, Funnel):
            leaf.traits += [path[0] for path in asked.query.traits]
            leaf.audiences += asked.query.audiences
        index, query = asked.index, asked.query
        if leaf.scope == USER:
            return lambda entity, now_ms: query.value(entity.s.get(index), now_ms, entity)
        return lambda entity, now_ms: query.value(entity.a.get(index), now_ms, entity)

    def _ask(self, event: Event, scope: Scope, bounds: Bounds, cap: int | None) -> Asked:
        dynamic = is_dynamic(event)
        capped = cap is not None and not dynamic and bool(event.windows)
        identity = identity_of(scope, bounds, event, f"cap {cap}" if capped else "")
        asked = self.asked.get(identity)
        if asked is None:
            query = Funnel(event) if dynamic else static_query(event, cap)
            born = self.born.setdefault(identity, self.seq)
            asked = Asked(len(self.asked_by_index), identity, born, scope, query)
            self.asked_by_index.append(asked)
            self.by_stable[asked.stable] = asked
            self.asked[identity] = asked
            streams = query.streams if isinstance(query, Funnel) else [_plain_stream(event)]
            asked.subscriptions = [_subscription(asked, stream, bounds) for stream in streams]
            self._add_question(asked)
        return asked

    # -- looking up --------------------------------------------------------------------------------------------------

    def by_rank(self) -> list[Node]:
        """Return all definitions, each after those it refers to."""
        return sorted(self.nodes.values(), key=lambda node: (node.rank, node.number))

    def names(self) -> set[tuple[int, str | None]]:
        """Return the (kind, name) of the events that any definition looks at; a name of None is any."""
        return {*self.handlers[USER], *self.handlers[ACCOUNT]}

    def handler(self, scope: Scope, kind: int, name: str) -> Handler | None:
        """Return what an event is given to, if anything looks at it."""
        handlers = self.handlers[scope]
        return handlers.get((kind, name)) or handlers.get((kind, None))


def cycle_of(key: str, refers_to: Callable[[str], Iterable[str]]) -> list[str] | None:
    """Return the cycle through `key` in who refers to whom, spelled out, or None."""
    stack = [(key, [key])]
    seen = set()
    while stack:
        at, path = stack.pop()
        for target in refers_to(at):
            if target == key:
                return [*path, key]
            if target not in seen:
                seen.add(target)
                stack.append((target, [*path, target]))
    return None


def evidence_question(event: Event, scope: Scope, bounds: Bounds) -> Asked:
    """Return a question that keeps every event it rests on, for explaining; it has index 0."""
    query: Query = Funnel(event) if is_dynamic(event) else Records(event)
    asked = Asked(0, identity_of(scope, bounds, event, "evidence"), None, scope, query)
    streams = query.streams if isinstance(query, Funnel) else [_plain_stream(event)]
    asked.subscriptions = [_subscription(asked, stream, bounds) for stream in streams]
    return asked


def _plain_stream(event: Event) -> Stream:
    stream = Stream(0, None, event)
    stream.static = [event.where] if event.where is not None else []
    return stream


def _subscription(asked: Asked, stream: Stream, bounds: Bounds) -> Subscription:
    event = stream.event
    reducer = event.reducer
    own = reducer.of if reducer.of is not None and not reducer.of.parent else None
    query = asked.query
    fields: tuple[Property | Context, ...]
    if isinstance(query, Funnel):
        fields = (*stream.fields, *((own,) if own is not None else ()))
        index = stream.index

        def observe_stream(state: Any, event_ms: int, seq: int, values: Any, now_ms: int, /) -> Any:
            return query.observe_stream(state, index, event_ms, seq, values, now_ms)

        observe: Callable[[Any, int, int, Any, int], Any] = observe_stream
    else:
        fields = (own,) if own is not None else ()
        observe = query.observe
    floors = [ms for ms in (event.since_ms, bounds.since_ms) if ms is not None]
    return Subscription(
        asked=asked.index,
        kinds=_CALLS[event.call],
        name=event.name,
        conditions=tuple(stream.static),
        exclude_sources=event.exclude_sources,
        since_ms=max(floors, default=None),
        until_ms=event.until_ms,
        after_seq=bounds.after_seq,
        fields=fields,
        as_tuple=isinstance(query, Funnel),
        observe=observe,
        looks_inside=looks_inside(stream.static, fields),
        update=query.update,
    )


__all__ = ["ACCOUNT", "USER", "Bounds", "Change", "Entity", "Leaf", "Node", "Program", "Scope", "Spec"]
