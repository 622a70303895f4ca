"""The condition program: from the definitions of a space to what an event touches.

Definitions are cut into *leaves*, their primary expressions; equal leaves, and equal questions about events within
them, are shared by all definitions of a space (hash-consing by JSON form: `1` and `true` are equal in Python, not
here). A question subscribes to event names; per event name one function is generated that loads each property once,
tests all filters and updates the states that match. A definition is a boolean function of leaf bits, asked again only
when one of its leaves flips. Definitions that refer to others have a higher *rank* and follow them within the same
entry.

Two scopes: questions of users, and those an ACCOUNTS definition asks, outside quantifiers, of all events of all the
account's users. A quantified condition becomes a hidden user definition whose flips the account counts.
"""

from collections.abc import Callable, Iterable, Sequence
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
from actors.conditions.handlers import Handler, Subscription, generate
from actors.conditions.leaves import cap_of, due_of, is_rising, quantifier, simple_due, simple_holds
from actors.conditions.queries import Entity, Query, Records, static_query
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

Scope = OneOf["user", "account"]
USER: Final[Scope] = "user"
ACCOUNT: Final[Scope] = "account"

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

    __slots__ = ("index", "query", "scope", "stable", "subscriptions")

    def __init__(self, index: int, identity: str, scope: Scope, query: Query) -> None:
        self.index = index
        self.stable = stable_number(identity)
        self.scope = scope
        self.query = query
        self.subscriptions: list[Subscription] = []


class Leaf:
    """A primary expression: a bit of each entity."""

    __slots__ = (
        "asked",
        "audiences",
        "due",
        "hidden",
        "holds",
        "index",
        "mask",
        "nodes",
        "rank",
        "rising",
        "scope",
        "timeless",
        "traits",
    )

    def __init__(self, index: int, scope: Scope) -> None:
        self.index = index
        self.mask = 1 << index
        self.scope = scope
        self.hidden: Node | None = None  # what a quantifier counts
        self.timeless = True  # False: the clock may change it for an entity that nothing is known of
        self.rank = 0
        self.rising = False  # True: while it holds, further events leave it so
        self.asked: list[Asked] = []
        self.traits: list[str] = []  # keys that it looks at
        self.audiences: list[str] = []
        self.holds: Callable[[Any, int], bool] = _never
        self.due: Callable[[Any, int], int | None] | None = None  # None: time alone never changes it
        self.nodes: tuple[Node, ...] = ()


class Node:
    """A definition, or (hidden) the condition under a quantifier, compiled."""

    __slots__ = (
        "asked",
        "hidden",
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

    def __init__(self, number: int, scope: Scope, spec: Spec | None) -> None:
        self.number = number  # of the definition; hidden ones are negative
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


def _never(_entity: Any, _now_ms: int) -> bool:
    return False


def identity_of(scope: Scope, bounds: Bounds, tree: Any, extra: str = "") -> str:
    """Return a text that is equal for equal parts only."""
    return f"{scope} {bounds.after_seq} {bounds.since_ms} {extra} {msgspec.json.encode(tree).decode()}"


def stable_number(identity: str) -> int:
    """Return 62 bits that stand for a text in snapshots and across restarts."""
    return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest()) >> 2


@lru_cache(TRUTHS_CACHED_MAX)
def _truth_of(source: str) -> Callable[[int], bool]:
    """Return what tells the truth from a profile's bits. Each change of a definition asks for those of all others."""
    truth: Callable[[int], bool] = eval(f"lambda b: bool({source})", {"bool": bool})  # noqa: S307 - of our own making
    return truth


class Program:
    """All definitions of a space, compiled. Indexes of queries and leaves are never reused while it lives."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}  # by number, hidden ones too
        self.owners: dict[str, Node] = {}  # by key
        self.left: dict[str, Left] = {}  # by key of a deleted audience
        self.asked: dict[str, Asked] = {}
        self.leaves: dict[str, Leaf] = {}
        self.by_index: list[Leaf] = []
        self.asked_by_index: list[Asked] = []
        self.hidden: dict[str, Node] = {}
        self.by_hidden: dict[int, list[Leaf]] = {}  # the leaves that count a hidden condition
        self.by_stable: dict[int, Asked] = {}
        self.scoped: dict[Scope, list[Leaf]] = {USER: [], ACCOUNT: []}  # the leaves in use, by rank
        self.nodes_by_rank: list[Node] = []
        self.by_ids: list[Node] = []  # those of users that count a profile only if it has certain ids
        self.handlers: dict[Scope, dict[tuple[int, str | None], Handler]] = {USER: {}, ACCOUNT: {}}
        self.by_trait: dict[Scope, dict[str, list[Leaf]]] = {USER: {}, ACCOUNT: {}}
        self.by_audience: dict[Scope, dict[str, list[Leaf]]] = {USER: {}, ACCOUNT: {}}
        self.traits_by_trait: dict[Scope, dict[str, list[Node]]] = {USER: {}, ACCOUNT: {}}
        self.born: dict[str, int] = {}  # identity of a question -> where in the log it began to be kept
        self.seq = 0
        self.version = 0

    # -- building ----------------------------------------------------------------------------------------------------

    def set_definitions(self, specs: Iterable[Spec], seq: int = 0) -> list["Asked"]:
        """Compile these definitions instead of those there were; shared parts keep their indexes and states.

        Returns the questions that nobody asked before: `seq` is where in the log they begin to be kept.
        """
        first_new = len(self.asked_by_index)
        self.seq = seq
        self.nodes = {}
        self.hidden = {}
        for leaf in self.leaves.values():
            leaf.nodes = ()
        for spec in specs:
            self._define(spec)
        self.owners.clear()
        self.owners.update((node.key, node) for node in self.nodes.values() if node.key)
        self._forget_unused()
        self._rank()
        self._subscribe()
        self.version += 1
        return [asked for asked in self.asked_by_index[first_new:] if asked.stable in self.by_stable]

    def _forget_unused(self) -> None:
        """Drop what no definition asks any more: asked again, it begins anew, whatever entities still hold."""
        self.leaves = {identity: leaf for identity, leaf in self.leaves.items() if leaf.nodes}
        used = {asked.index for leaf in self.leaves.values() for asked in leaf.asked}
        for node in self.nodes.values():
            used.update(asked.index for asked in (node.asked, node.present) if asked is not None)
        self.asked = {identity: asked for identity, asked in self.asked.items() if asked.index in used}
        kept = [*self.asked, *(f"hidden {identity}" for identity in self.hidden)]
        self.born = {identity: self.born[identity] for identity in kept}
        self.by_stable = {asked.stable: asked for asked in self.asked.values()}

    def _define(self, spec: Spec) -> None:
        node = Node(spec.number, spec.scope, spec)
        self.nodes[spec.number] = node
        if isinstance(spec.tree, Event):
            node.asked = self._ask(spec.tree, spec.scope, spec.bounds, None)
            if spec.tree.windows or spec.tree.expires_after_ms is not None or node.asked.query.dynamic:
                bare = msgspec.structs.replace(spec.tree, windows=(), expires_after_ms=None, reducer=Reducer("count"))
                node.present = self._ask(bare, spec.scope, spec.bounds, None)
            return
        self._expression(node, spec.tree, spec.scope, spec.bounds)

    def _expression(self, node: Node, tree: Condition, scope: Scope, bounds: Bounds) -> None:
        source = self._boolean(node, tree, scope, bounds)
        node.truth = _truth_of(source)
        for leaf in node.leaves:
            leaf.nodes = (*leaf.nodes, node)

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
            leaf = Leaf(len(self.by_index), scope)
            self.by_index.append(leaf)
            self.leaves[identity] = leaf
            if isinstance(tree, Comparison):
                self._comparison(leaf, tree, bounds)
            elif isinstance(tree, Audience):
                key = tree.key
                leaf.audiences.append(key)
                leaf.holds = lambda entity, now_ms: entity.in_audience(key)
        if hidden is not None and isinstance(tree, Users):
            leaf.hidden = hidden
            leaf.holds = quantifier(tree.quantifier, hidden.number)
        return leaf

    def _quantified(self, tree: Users, bounds: Bounds) -> Node:
        identity = identity_of(USER, bounds, tree.of)
        node = self.hidden.get(identity)
        if node is None:
            # Forgotten and asked again it is another: counts of the first may still lie in snapshots.
            born = self.born.setdefault(f"hidden {identity}", self.seq)
            node = Node(-1 - stable_number(f"{born} {identity}"), USER, None)
            self.hidden[identity] = node
            self.nodes[node.number] = node
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
            asked = Asked(len(self.asked_by_index), f"{born} {identity}", scope, query)
            self.asked_by_index.append(asked)
            self.by_stable[asked.stable] = asked
            self.asked[identity] = asked
            streams = query.streams if isinstance(query, Funnel) else [_plain_stream(event)]
            asked.subscriptions = [_subscription(asked, stream, bounds) for stream in streams]
        return asked

    # -- order -------------------------------------------------------------------------------------------------------

    def _rank(self) -> None:
        """Give every leaf and definition its rank: above all it refers to. Cycles were refused before."""
        ranks: dict[int, int] = {}

        def rank_of(node: Node) -> int:
            if node.number not in ranks:
                ranks[node.number] = 0  # a cycle would end here
                below = [rank_of(other) for other in self._below(node)]
                ranks[node.number] = 1 + max(below) if below else 0
                node.rank = ranks[node.number]
            return ranks[node.number]

        for node in self.nodes.values():
            rank_of(node)
        for leaf in self.by_index:
            refers = [self.owners[key].rank for key in (*leaf.traits, *leaf.audiences) if key in self.owners]
            if leaf.hidden is not None:
                refers.append(leaf.hidden.rank)
            leaf.rank = 1 + max(refers) if refers else 0
        for node in self.nodes.values():
            node.rank = max([node.rank, *(leaf.rank for leaf in node.leaves)])
        self.nodes_by_rank = sorted(self.nodes.values(), key=lambda node: (node.rank, node.number))
        self.by_ids = [
            node
            for node in self.nodes_by_rank
            if node.spec is not None
            and node.scope == USER
            and (not node.spec.anonymous if node.asked is not None else node.spec.id_types is not None)
        ]
        used = sorted((leaf for leaf in self.by_index if leaf.nodes), key=lambda leaf: leaf.rank)
        self.scoped = {scope: [leaf for leaf in used if leaf.scope == scope] for scope in (USER, ACCOUNT)}
        self.by_hidden = {}
        for leaf in used:
            if leaf.hidden is not None:
                self.by_hidden.setdefault(leaf.hidden.number, []).append(leaf)

    def _below(self, node: Node) -> list[Node]:
        keys = [key for leaf in node.leaves for key in (*leaf.traits, *leaf.audiences)]
        for asked in filter(None, (node.asked, node.present)):
            if isinstance(asked.query, Funnel):
                keys += [path[0] for path in asked.query.traits] + asked.query.audiences
        return [self.owners[key] for key in keys if key in self.owners] + node.quantified

    # -- events ------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        """Generate the functions that events are given to, for what the definitions still look at."""
        used: dict[int, Asked] = {}
        for node in self.nodes.values():
            for leaf in node.leaves:
                used.update((asked.index, asked) for asked in leaf.asked)
            used.update((asked.index, asked) for asked in (node.asked, node.present) if asked)
        readers: dict[int, tuple[list[Leaf], list[Node]]] = {index: ([], []) for index in used}
        for leaf in self.by_index:
            if leaf.nodes:
                for asked in leaf.asked:
                    readers[asked.index][0].append(leaf)
        for node in self.nodes.values():
            for asked in filter(None, (node.asked, node.present)):
                if node not in readers[asked.index][1]:
                    readers[asked.index][1].append(node)
        for scope in (USER, ACCOUNT):
            subscriptions = [s for asked in used.values() if asked.scope == scope for s in asked.subscriptions]
            self.handlers[scope] = generate(subscriptions, readers, self.handlers[scope])
            self.by_trait[scope] = {}
            self.by_audience[scope] = {}
            self.traits_by_trait[scope] = {}
        for leaf in self.by_index:
            if leaf.nodes:
                for key in dict.fromkeys(leaf.traits):
                    self.by_trait[leaf.scope].setdefault(key, []).append(leaf)
                for key in dict.fromkeys(leaf.audiences):
                    self.by_audience[leaf.scope].setdefault(key, []).append(leaf)
        self._trait_readers()

    def _trait_readers(self) -> None:
        """Note which computed traits look at other traits and audiences (inside `where`)."""
        for node in self.nodes.values():
            for asked in filter(None, (node.asked, node.present)):
                if isinstance(asked.query, Funnel):
                    keys = [path[0] for path in asked.query.traits] + asked.query.audiences
                    for key in dict.fromkeys(keys):
                        readers = self.traits_by_trait[node.scope].setdefault(key, [])
                        if node not in readers:
                            readers.append(node)

    def says(self, key: str) -> bool:
        """Tell whether users look at this account audience."""
        return key in self.by_audience[USER] or key in self.by_trait[USER] or key in self.traits_by_trait[USER]

    def names(self) -> set[tuple[int, str | None]]:
        """Return the (kind, name) of the events that any definition looks at; a name of None is any."""
        return {name for scope in (USER, ACCOUNT) for name in self.handlers[scope]}

    def handler(self, scope: Scope, kind: int, name: str) -> Handler | None:
        """Return what an event is given to, if anything looks at it."""
        handlers = self.handlers[scope]
        return handlers.get((kind, name)) or handlers.get((kind, None))


def cycle_of(key: str, refers: dict[str, Sequence[str]]) -> list[str] | None:
    """Return the cycle through `key` in who refers to whom, spelled out, or None."""
    stack = [(key, [key])]
    seen = set()
    while stack:
        at, path = stack.pop()
        for target in refers.get(at, ()):
            if target == key:
                return [*path, key]
            if target not in seen:
                seen.add(target)
                stack.append((target, [*path, target]))
    return None


def evidence_question(event: Event, scope: Scope, bounds: Bounds) -> Asked:
    """Return a question that keeps every event it rests on, for explaining; it has index 0."""
    query: Query = Funnel(event) if is_dynamic(event) else Records(event)
    asked = Asked(0, identity_of(scope, bounds, event, "evidence"), scope, query)
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
    )


__all__ = ["ACCOUNT", "USER", "Bounds", "Entity", "Leaf", "Node", "Program", "Spec"]
