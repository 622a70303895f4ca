"""Who looks at what in a program, kept part by part: what comes or goes costs what it looks at, not what all do.

Every leaf and definition has a *rank* above all it refers to, by which they are asked. It follows from the owners of
the keys that are looked at; when one changes, only those who look at it are reckoned anew.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar
from typing import Literal as OneOf

from actors.conditions.funnels import Funnel
from actors.conditions.handlers import AskedBy, Handlers

if TYPE_CHECKING:
    from actors.conditions.program import Asked, Leaf, Node

Scope = OneOf["user", "account"]
USER: Final[Scope] = "user"
ACCOUNT: Final[Scope] = "account"
K = TypeVar("K")
V = TypeVar("V")
SCOPES: Final[tuple[Scope, Scope]] = (USER, ACCOUNT)


class Readers:
    """The leaves and definitions in use by what they look at, and in what order they are to be asked."""

    def __init__(self) -> None:
        self.owners: dict[str, Node] = {}  # by key
        self.scoped: dict[Scope, dict[Leaf, None]] = {USER: {}, ACCOUNT: {}}  # the leaves in use
        self.by_ids: dict[Node, None] = {}  # those of users that count a profile only if it has certain ids
        self.by_hidden: dict[int, dict[Leaf, None]] = {}  # the leaves that count a hidden condition
        self.by_question: AskedBy = {}
        self.handlers: dict[Scope, Handlers] = {scope: Handlers(self.by_question) for scope in SCOPES}
        self.by_trait: dict[Scope, dict[str, dict[Leaf, None]]] = {USER: {}, ACCOUNT: {}}
        self.by_audience: dict[Scope, dict[str, dict[Leaf, None]]] = {USER: {}, ACCOUNT: {}}
        self.traits_by_trait: dict[Scope, dict[str, dict[Node, None]]] = {USER: {}, ACCOUNT: {}}
        self.heard: dict[str, int] = {}  # the account audiences that users look at: key -> number

    def says(self, key: str) -> bool:
        """Tell whether users look at this account audience."""
        return key in self.by_audience[USER] or key in self.by_trait[USER] or key in self.traits_by_trait[USER]

    def is_read(self, key: str) -> bool:
        """Tell whether anything looks at a trait or audience."""
        tables = (self.by_trait, self.by_audience, self.traits_by_trait)
        return any(key in table[scope] for table in tables for scope in SCOPES)

    def keys_read(self) -> set[str]:
        """Return the keys of all traits and audiences that anything looks at."""
        tables = (self.by_trait, self.by_audience, self.traits_by_trait)
        return {key for table in tables for scope in SCOPES for key in table[scope]}

    # -- coming and going --------------------------------------------------------------------------------------------

    def _add_question(self, asked: "Asked") -> None:
        self.by_question[asked.index] = ({}, {})
        for subscription in asked.subscriptions:
            self.handlers[asked.scope].add(subscription)

    def _drop_question(self, asked: "Asked") -> None:
        self.handlers[asked.scope].drop(asked.index, asked.subscriptions)
        del self.by_question[asked.index]

    def _add_leaf(self, leaf: "Leaf") -> None:
        self.scoped[leaf.scope][leaf] = None
        for asked in leaf.asked:
            self.by_question[asked.index][0][leaf] = None
        for table, keys in ((self.by_trait, leaf.traits), (self.by_audience, leaf.audiences)):
            for key in keys:
                table[leaf.scope].setdefault(key, {})[leaf] = None
        if leaf.hidden is not None:
            self.by_hidden.setdefault(leaf.hidden.number, {})[leaf] = None
        leaf.rank = self._rank_of_leaf(leaf)
        self._replan(leaf.asked)

    def _drop_leaf(self, leaf: "Leaf") -> None:
        del self.scoped[leaf.scope][leaf]
        for asked in leaf.asked:
            self.by_question[asked.index][0].pop(leaf, None)
        for table, keys in ((self.by_trait, leaf.traits), (self.by_audience, leaf.audiences)):
            for key in keys:
                _discard(table[leaf.scope], key, leaf)
        if leaf.hidden is not None:
            _discard(self.by_hidden, leaf.hidden.number, leaf)
        self._replan(leaf.asked)

    def _add_node(self, node: "Node") -> None:
        """Let a definition look at what it looks at by itself, not through its leaves."""
        if node.key:
            self.owners[node.key] = node
        if _counts_by_ids(node):
            self.by_ids[node] = None
        for asked in node.questions():
            self.by_question[asked.index][1][node] = None
            for key in keys_of(asked):
                self.traits_by_trait[node.scope].setdefault(key, {})[node] = None
        self._replan(node.questions())

    def _drop_node(self, node: "Node") -> None:
        if self.owners.get(node.key) is node:
            del self.owners[node.key]
        self.by_ids.pop(node, None)
        for asked in node.questions():
            self.by_question[asked.index][1].pop(node, None)
            for key in keys_of(asked):
                _discard(self.traits_by_trait[node.scope], key, node)
        self._replan(node.questions())

    def _replan(self, questions: Iterable["Asked"]) -> None:
        for asked in questions:
            self.handlers[asked.scope].replan(asked.subscriptions)

    def _hear(self, keys: Iterable[str]) -> set[int]:
        """Look again which account audiences users look at; return the numbers of those they did not before."""
        newly = set()
        for key in keys:
            owner = self.owners.get(key)
            if owner is None or owner.scope == USER or owner.asked is not None or not self.says(key):
                self.heard.pop(key, None)
            elif self.heard.get(key) != owner.number:
                self.heard[key] = owner.number
                newly.add(owner.number)
        return newly

    # -- order -------------------------------------------------------------------------------------------------------

    def _rank(self, nodes: Iterable["Node"], moved: Iterable[str]) -> None:
        """Give these definitions, and all that looks at them or at keys that changed hands, their ranks.

        Cycles were refused before; one would end where no definition can stand higher.
        """
        waiting = deque(nodes)
        queued = set(waiting)

        def wake(leaves: Iterable["Leaf"], others: Iterable["Node"] = ()) -> None:
            for node in (*(node for leaf in leaves if self._has_new_rank(leaf) for node in leaf.nodes), *others):
                if node not in queued:
                    queued.add(node)
                    waiting.append(node)

        for key in moved:
            wake(*self._lookers(key))
        while waiting:
            node = waiting.popleft()
            queued.discard(node)
            rank = self._rank_of(node)
            if rank == node.rank or rank > len(self.owners) + len(self.by_hidden):
                continue
            node.rank = rank
            wake(self.by_hidden.get(node.number, ()))
            if self.owners.get(node.key) is node:
                wake(*self._lookers(node.key))

    def _lookers(self, key: str) -> tuple[Iterator["Leaf"], Iterator["Node"]]:
        """Return the leaves and the computed traits that look at a key."""
        tables = (self.by_trait, self.by_audience)
        leaves = (leaf for table in tables for scope in SCOPES for leaf in table[scope].get(key, ()))
        return leaves, (node for scope in SCOPES for node in self.traits_by_trait[scope].get(key, ()))

    def _has_new_rank(self, leaf: "Leaf") -> bool:
        rank = self._rank_of_leaf(leaf)
        if rank == leaf.rank:
            return False
        leaf.rank = rank
        self._replan(leaf.asked)
        return True

    def _rank_of_leaf(self, leaf: "Leaf") -> int:
        owners = self.owners
        ranks = [owners[key].rank for key in (*leaf.traits, *leaf.audiences) if key in owners]
        if leaf.hidden is not None:
            ranks.append(leaf.hidden.rank)
        return 1 + max(ranks) if ranks else 0

    def _rank_of(self, node: "Node") -> int:
        owners = self.owners
        keys = [key for asked in node.questions() for key in keys_of(asked) if key in owners]
        return max([0, *(leaf.rank for leaf in node.leaves), *(1 + owners[key].rank for key in keys)])


def keys_of(asked: "Asked") -> list[str]:
    """Return the keys of traits and audiences that a question looks at."""
    query = asked.query
    return [path[0] for path in query.traits] + query.audiences if isinstance(query, Funnel) else []


def _counts_by_ids(node: "Node") -> bool:
    if node.spec is None or node.scope == ACCOUNT:
        return False
    return not node.spec.anonymous if node.asked is not None else node.spec.id_types is not None


def _discard(table: dict[K, dict[V, None]], key: K, one: V) -> None:
    """Take somebody out of a table; keys that nobody looks at are not in it."""
    found = table.get(key)
    if found is not None:
        found.pop(one, None)
        if not found:
            del table[key]
