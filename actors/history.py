"""Questions about the past, by folding the log anew: what a definition's past is, and who is a member at some time.

A scan touches only the events whose names are looked at and decodes only those. Since a state is a summary of a *set*
of events, those of absorbed profiles simply go to their survivor, and what a scan finds is added to what was kept live.
`at_ms` cuts by the events' own time and sets the clock; `until_seq` cuts by what was known. Times are milliseconds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from actors.conditions.handlers import generate
from actors.conditions.program import ACCOUNT, USER, Asked, Leaf, Left, Node, Program, Scope, Spec
from actors.entities import Account, Entity, User, copied
from actors.partition import KNOWN_ID_TYPES, LEFT_TRAIT
from eventlog.columns import EventColumns
from eventlog.entries import GROUP, IDENTIFY
from eventlog.log import Log
from eventlog.messages import EventData, decode_data

Canonical = Sequence[int]
States = dict[int, dict[int, Any]]  # entity -> question -> state

HasIds = Callable[[int, frozenset[str]], bool]


class Progress(Protocol):
    """Is told how far a scan has come; may raise to cancel it."""

    def __call__(self, seq: int, /) -> None:
        """Take note that the scan has reached this sequence."""


def unheard(_seq: int, /) -> None:
    """Take note of nothing."""


def gather(
    log: Log,
    asked: Iterable[Asked],
    *,
    until_seq: int,
    at_ms: int,
    canonical: Canonical,
    progress: Progress = unheard,
    untils: Mapping[int, int] | None = None,
) -> States:
    """Return the states of these questions over the log up to `until_seq`, by the profile that is who today.

    `untils` says of questions, by index, where in the log they end before that.
    """
    ends = untils or {}
    handlers = generate(
        replace(one, until_seq=ends[one.asked]) if ends.get(one.asked, until_seq) < until_seq else one
        for question in asked
        for one in question.subscriptions
    )
    states: States = {}
    for columns in log.scan_columns(handlers.keys(), 0, until_seq):
        named = [
            [handlers.get((kind, name)) or handlers.get((kind, None)) for name in columns.names] for kind in range(7)
        ]
        chosen = _by(columns, at_ms)
        for seq, event_ms, profile, kind, name, source, body in _rows(chosen):
            entity = canonical[profile]
            mine = states.get(entity)
            if mine is None:
                mine = states[entity] = {}
            handler = named[kind][name]
            if handler is not None:
                handler.run(mine, event_ms, seq, decode_data(body), chosen.sources[source], at_ms)
        progress(int(columns.seq[-1]))
    return {entity: mine for entity, mine in states.items() if mine}


def _by(columns: EventColumns, at_ms: int) -> EventColumns:
    wanted = (columns.event_ms <= at_ms) & (columns.profile > 0)
    return columns if wanted.all() else columns.select(np.flatnonzero(wanted))


def _rows(columns: EventColumns) -> Iterable[tuple[int, int, int, int, int, int, bytes]]:
    return zip(
        columns.seq.tolist(),
        columns.event_ms.tolist(),
        columns.profile.tolist(),
        columns.kind.tolist(),
        columns.name.tolist(),
        columns.source.tolist(),
        columns.bodies(),
        strict=True,
    )


class LeftBehind(Struct, frozen=True):
    """The last values of a deleted definition, as custom traits."""

    key: str
    at_ms: int
    seq: int
    values: Mapping[int, Any]  # by entity
    is_account: bool
    left: Left | None  # audiences: false for all others


class Hindsight:
    """A world seen from one moment: all entities with their states, and what holds of them."""

    def __init__(
        self,
        specs: Iterable[Spec],
        at_ms: int,
        left_behind: Iterable[LeftBehind] = (),
        frozen: Mapping[int, Mapping[int, Any]] | None = None,
    ) -> None:
        self.at_ms = at_ms
        self._frozen = frozen or {}  # what disabled definitions say, by number and entity
        self.program = Program()
        self.program.set_definitions(specs)
        self.users: dict[int, User] = {}
        self.accounts: dict[int, Account] = {}
        self._left_behind = [one for one in left_behind if one.at_ms <= at_ms]
        self.program.left = {one.key: one.left for one in self._left_behind if one.left is not None}
        nodes = self.program.nodes.values()
        self.needs_groups = any(node.scope == ACCOUNT for node in nodes)
        self.needs_traits = any(self._looked_at(scope) for scope in (USER, ACCOUNT))
        # Who is not heard of says false of a deleted audience, but nothing if yet unknown at its deletion.
        blanks = {0, *(left.last_entity + 1 for left in self.program.left.values())}
        self.needs_everyone = any(
            node.asked is None and node.truth(self._blank_bits(node.scope, number))
            for node in nodes
            for number in blanks
        )

    def _looked_at(self, scope: Scope) -> bool:
        program = self.program
        return bool(program.by_trait[scope]) or bool(program.traits_by_trait[scope])

    def _blank_bits(self, scope: Scope, number: int) -> int:
        entity: Entity = Account(number, self.program) if scope == ACCOUNT else User(number, self.program)
        bits = 0
        for leaf in self.program.scoped[scope]:
            if leaf.holds(entity, self.at_ms):
                bits |= leaf.mask
        return bits

    def id_types(self) -> set[frozenset[str]]:
        """Return the sets of id types of which `decide` asks whether somebody has one."""
        found: set[frozenset[str]] = set()
        for node in self.program.nodes.values():
            if node.spec is not None and node.asked is not None:
                found |= set() if node.spec.anonymous else {KNOWN_ID_TYPES}
            elif node.spec is not None and node.spec.id_types is not None:
                found.add(node.spec.id_types)
        return found

    # -- feeding -----------------------------------------------------------------------------------------------------

    def names(self) -> set[tuple[int, str | None]]:
        """Return which events have to be fed."""
        names = self.program.names()
        if self.needs_traits:
            names.add((IDENTIFY, None))
        if self.needs_groups or self.needs_traits:
            names.add((GROUP, None))
        return names

    def scan(self, log: Log, until_seq: int, canonical: Canonical, progress: Progress = unheard) -> None:
        """Feed all of the log up to a sequence."""
        if self.needs_everyone:
            for columns in log.scan_columns(None, 0, until_seq):
                for number in np.unique(columns.profile[columns.event_ms <= self.at_ms]).tolist():
                    if number:
                        self.user(canonical[number])
        for columns in log.scan_columns(self.names(), 0, until_seq):
            self.feed(columns, canonical)
            progress(int(columns.seq[-1]))

    def feed(self, columns: EventColumns, canonical: Canonical) -> None:
        """Take some events."""
        chosen = columns.select(np.flatnonzero(columns.event_ms <= self.at_ms))
        accounts = chosen.account.tolist()
        for row, (seq, event_ms, profile, kind, name, source, body) in enumerate(_rows(chosen)):
            data = decode_data(body)
            user = self.user(canonical[profile]) if profile else None
            if kind == GROUP:
                self._group(user, canonical[accounts[row]] if accounts[row] else 0, event_ms, seq, data)
            elif user is not None and kind == IDENTIFY:
                self._identify(user, event_ms, seq, data)
            elif user is not None:
                self._observe(user, kind, chosen.names[name], event_ms, seq, chosen.sources[source], data)

    def user(self, number: int) -> User:
        """Return a user, made when it is first heard of."""
        user = self.users.get(number)
        if user is None:
            user = self.users[number] = User(number, self.program)
        return user

    def _observe(self, user: User, kind: int, name: str, event_ms: int, seq: int, source: str, data: EventData) -> None:
        handler = self.program.handler(USER, kind, name)
        if handler is not None:
            handler.run(user.s, event_ms, seq, data, source, self.at_ms)
        handler = self.program.handler(ACCOUNT, kind, name)
        if handler is not None:
            handler.run(user.a, event_ms, seq, data, source, self.at_ms)

    @staticmethod
    def _identify(user: User, event_ms: int, seq: int, data: EventData) -> None:
        written = data.traits or {}
        if data.context and type(data.context.get("traits")) is dict:
            written = {**data.context["traits"], **written}
        for key, value in written.items():
            user.write_trait(key, event_ms, seq, value)

    def _group(self, user: User | None, number: int, event_ms: int, seq: int, data: EventData) -> None:
        if not number:
            return
        account = self.accounts.get(number)
        if account is None:
            account = self.accounts[number] = Account(number, self.program)
        traits = data.traits or {}
        for key, value in traits.items():
            if key != LEFT_TRAIT:
                account.write_trait(key, event_ms, seq, value)
        if user is not None:
            said = user.accounts.get(number)
            if said is None or (said[0], said[1]) < (event_ms, seq):
                user.accounts[number] = [event_ms, seq, traits.get(LEFT_TRAIT) is not True, set()]

    # -- deciding ----------------------------------------------------------------------------------------------------

    def decide(self, has_ids: HasIds) -> None:
        """Ask everything of everyone, in order of rank."""
        for one in self._left_behind:
            for number, value in one.values.items():
                # A user may have nothing else that is looked at; accounts are all known where they matter.
                entity = self.accounts.get(number) if one.is_account else self.user(number)
                if entity is not None:
                    entity.write_trait(one.key, one.at_ms, one.seq, value)
        for definition, frozen in self._frozen.items():
            if self.program.nodes[definition].scope == USER:
                for number in frozen:
                    self.user(number)
        self._gather_accounts()
        leaves: dict[int, list[Leaf]] = {}
        for scope in (USER, ACCOUNT):
            for leaf in self.program.scoped[scope]:
                leaves.setdefault(leaf.rank, []).append(leaf)
        nodes: dict[int, list[Node]] = {}
        for node in self.program.by_rank():
            nodes.setdefault(node.rank, []).append(node)
        for rank in range(1 + max([0, *leaves, *nodes])):
            for leaf in leaves.get(rank, ()):
                self._ask_leaf(leaf)
            for node in nodes.get(rank, ()):
                self._ask_node(node, has_ids)

    def _gather_accounts(self) -> None:
        for user in self.users.values():
            for number in user.joined():
                account = self.accounts[number]
                account.users[user.number] = None
                for index, state in user.a.items():
                    if state is not None:
                        query = self.program.asked_by_index[index].query
                        theirs = query.load(copied(query.dump(state)))
                        mine = account.a.get(index)
                        account.a[index] = theirs if mine is None else query.merge(mine, theirs, self.at_ms)

    def of_scope(self, scope: Scope) -> "Iterable[Entity]":
        """Return all users, or all accounts."""
        return self.accounts.values() if scope == ACCOUNT else self.users.values()

    def _ask_leaf(self, leaf: Leaf) -> None:
        for entity in self.of_scope(leaf.scope):
            if leaf.holds(entity, self.at_ms):
                entity.bits |= leaf.mask

    def _ask_node(self, node: Node, has_ids: HasIds) -> None:
        frozen = self._frozen.get(node.number)
        for entity in self.of_scope(node.scope):
            if frozen is not None:
                self._say_frozen(entity, node, frozen.get(entity.number))
            elif node.asked is not None:
                value = self._trait_value(entity, node, has_ids)
                if value is not None:
                    entity.values[node.number] = value
            elif node.truth(entity.bits) and self._counts(entity, node, has_ids):
                entity.enter(node.number)
                self._tell(entity, node)

    def _say_frozen(self, entity: Entity, node: Node, value: Any) -> None:
        if value is None:
            return
        if node.asked is not None:
            entity.values[node.number] = value
        else:
            entity.enter(node.number)
            self._tell(entity, node)

    @staticmethod
    def _counts(entity: Entity, node: Node, has_ids: HasIds) -> bool:
        types = node.spec.id_types if node.spec is not None else None
        return types is None or has_ids(entity.number, types)

    def _tell(self, entity: Entity, node: Node) -> None:
        if node.hidden:
            assert isinstance(entity, User)
            for number in entity.joined():
                self.accounts[number].count(node.number, 1)
        elif isinstance(entity, Account):
            for number in entity.users:
                self.users[number].accounts[entity.number][3].add(node.number)

    def _trait_value(self, entity: Entity, node: Node, has_ids: HasIds) -> Any:
        assert node.asked is not None
        assert node.spec is not None
        if not (node.spec.anonymous or entity.is_account or has_ids(entity.number, KNOWN_ID_TYPES)):
            return None
        states = entity.a if node.scope == ACCOUNT else entity.s
        state = states.get(node.asked.index)
        if node.present is None:
            if state is None:
                return None
        elif not node.present.query.value(states.get(node.present.index), self.at_ms, entity):
            return None
        return node.asked.query.value(state, self.at_ms, entity)

    # -- answers -----------------------------------------------------------------------------------------------------

    def entity(self, number: int) -> Entity | None:
        """Return an entity by number."""
        return self.users.get(number) or self.accounts.get(number)

    def value(self, number: int, definition: int) -> Any:
        """Return what a definition says of an entity: true for a member, a trait's value, None for neither."""
        entity = self.entity(number)
        if entity is None:
            return None
        return True if definition in entity.inside else entity.values.get(definition)

    def members(self, number: int) -> list[int]:
        """Return the entities in an audience, or with a value of a computed trait, in order."""
        node = self.program.nodes[number]
        if node.asked is not None:
            return sorted(entity.number for entity in self.of_scope(node.scope) if number in entity.values)
        return sorted(entity.number for entity in self.of_scope(node.scope) if number in entity.inside)
