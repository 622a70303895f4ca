"""Entities in memory, their timers, and what is asked of them: the part of a partition that decides.

Leaves and definitions are asked in order of rank, over all entities at once, so that nobody sees a combination that
was never true. A timer wakes its entity as it was just before, so that what changes at that instant shows. Times are
milliseconds since the epoch, UTC.
"""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any, Final

from actors.conditions.handlers import Plan, bits_of
from actors.conditions.program import ACCOUNT, USER, Change, Leaf, Node, Program, Scope
from actors.conditions.queries import FOREVER
from actors.entities import Account, Entity, User
from actors.timers import Timers
from eventlog.entries import AnyFact, Entered, Exited, TraitComputed

KNOWN_ID_TYPES: Final = frozenset({"user_id", "email", "android.idfa", "ios.idfa"})  # contract, section 3

LEAVES_FEW: Final = 64  # ours: that are asked one and all, sooner than it is found out which matter

Load = Callable[[int], Entity | None]


def nothing(_number: int) -> Entity | None:
    """Load nobody: every entity is in memory, or new."""
    return None


class _Blank:
    """One of which nothing is known: what its leaves say, and what is to be asked of it."""

    __slots__ = ("asks", "bits", "entity", "version")

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.bits = 0
        self.asks: dict[Leaf | Node, None] = {}
        self.version = -1  # of the program that says so


class Deciding:
    """The entity actors of a space that are in memory, and what holds of them."""

    def __init__(self, program: Program | None = None, *, load: Load = nothing) -> None:
        self.program = program or Program()
        self.now_ms = -FOREVER
        self.cause_seq = 0
        self.entities: dict[int, Entity] = {}
        self.timers = Timers()
        self.live: set[int] = set()  # numbers of the definitions that are announced
        self.members: dict[int, dict[int, int]] = {}  # definition -> entity -> since when, or since when a value
        self.member_changes: dict[tuple[int, int], int | None] = {}  # (definition, entity) -> since when; None: left
        self.effects: list[AnyFact] = []
        self._read: set[str] = set()  # keys that anything looks at
        self._read_version = -1  # of the program that says so
        self.flipped: list[Leaf] = []  # by the fold at work, of its entity
        self.last_entity = 0
        self.changed: set[int] = set()  # entities whose snapshot is stale
        self.gone: set[int] = set()  # entities that are no more, but whose snapshot may still be there
        self._load = load
        self._asleep: dict[int, int] = {}  # entities that are not in memory -> what the timers know of them
        self._queue: list[tuple[int, int, int, Entity, Leaf | Node]] = []  # a heap, in order of rank, entity, number
        self._queued: set[tuple[int, int, int]] = set()
        self._blanks: dict[bool, _Blank] = {}  # of users, and of accounts

    # -- entities ----------------------------------------------------------------------------------------------------

    def user(self, number: int) -> User:
        """Return a user, activated or new."""
        entity = self.entities.get(number)
        if entity is None:
            entity = self._activate(number, User)
        assert isinstance(entity, User)
        return entity

    def account(self, number: int) -> Account:
        """Return an account, activated or new."""
        entity = self.entities.get(number)
        if entity is None:
            entity = self._activate(number, Account)
        assert isinstance(entity, Account)
        return entity

    def find(self, number: int) -> Entity | None:
        """Return an entity, activated where it is not in memory; None if there is none."""
        entity = self.entities.get(number)
        if entity is None and number not in self.gone:
            entity = self._load(number)
            if entity is not None:
                self.entities[number] = entity
                self.last_entity = max(self.last_entity, number)
                entity.scheduled_ms = self._asleep.pop(number, FOREVER)
                self.refresh_bits(entity)
        return entity

    def put_away(self, number: int) -> None:
        """Let an entity leave memory, once its snapshot is stored; its timer stays."""
        entity = self.entities.pop(number)
        if entity.scheduled_ms != FOREVER:
            self._asleep[number] = entity.scheduled_ms

    def expect(self, number: int, due_ms: int) -> None:
        """Set the timer of an entity that is not in memory."""
        self.timers.add(due_ms, number)
        self._asleep[number] = due_ms

    def _activate(self, number: int, kind: type[User] | type[Account]) -> Entity:
        entity = self.find(number)
        if entity is None:
            entity = kind(number, self.program)
            self.entities[number] = entity
            self.last_entity = max(self.last_entity, number)
            self._begin(entity)
        return entity

    def _begin(self, entity: Entity) -> None:
        """Give a new entity the bits of one of which nothing is known, and ask what may hold of it."""
        blank = self._blank_of(entity.is_account)
        entity.bits = blank.bits
        for item in blank.asks:
            self._push(entity, item)

    def _blank_of(self, is_account: bool) -> "_Blank":
        blank = self._blanks.get(is_account)
        if blank is None or blank.version != self.program.version:
            blank = self._blanks[is_account] = self._new_blank(is_account)
        return blank

    def _new_blank(self, is_account: bool) -> "_Blank":
        scope = ACCOUNT if is_account else USER
        blank = _Blank(self._nobody(scope))
        self._add_to_blank(blank, self.program.scoped[scope], self.program.nodes.values())
        return blank

    def _add_to_blank(self, blank: "_Blank", leaves: Iterable[Leaf], nodes: Iterable[Node]) -> None:
        """Note what new leaves say of one of which nothing is known, and which of new definitions may hold of it."""
        entity = blank.entity
        scope = ACCOUNT if entity.is_account else USER
        for leaf in leaves:
            if leaf.scope == scope:
                if leaf.holds(entity, self.now_ms):
                    blank.bits |= leaf.mask
                if not leaf.timeless:
                    blank.asks[leaf] = None
        for node in nodes:
            if node.scope == scope and node.asked is None and node.truth(blank.bits):
                blank.asks[node] = None
        blank.version = self.program.version

    def _change_blank(self, change: Change) -> None:
        """Note what a change of the definitions says of one of which nothing is known; where keys moved, all anew."""
        is_anew = any(self.program.is_read(key) for key in change.moved)
        for is_account, blank in list(self._blanks.items()):
            if is_anew or blank.version != self.program.version - 1:
                del self._blanks[is_account]
                continue
            for node in change.gone:
                blank.asks.pop(node, None)
            for leaf in change.gone_leaves:
                blank.asks.pop(leaf, None)
                blank.bits &= ~leaf.mask
            self._add_to_blank(blank, change.leaves, change.came)

    def _holds_of_blank(self, leaf: Leaf) -> bool:
        """Tell whether a leaf holds of one of which nothing is known."""
        return leaf.holds(self._nobody(leaf.scope), self.now_ms)

    def _nobody(self, scope: Scope) -> Entity:
        """Return one of which nothing is known; its number is above all to whom a deleted audience left something."""
        return Account(FOREVER, self.program) if scope == ACCOUNT else User(FOREVER, self.program)

    def refresh_bits(self, entity: Entity) -> None:
        """Ask the leaves of an entity anew, without effects: after it was loaded, or the program changed."""
        now_ms = self.now_ms
        entity.dues.clear()
        bits = 0
        leaves: Iterable[Leaf] = self.program.scoped[ACCOUNT if entity.is_account else USER]
        if len(self.program.leaves) > LEAVES_FEW:
            blank = self._blank_of(entity.is_account)
            leaves = self._touched(entity, blank)
            bits = blank.bits & ~sum(leaf.mask for leaf in leaves)
        for leaf in leaves:
            if leaf.holds(entity, now_ms):
                bits |= leaf.mask
            if leaf.due is not None:
                self._due(entity, leaf.index, leaf.due(entity, now_ms))
        entity.bits = bits
        by_question = self.program.by_question
        for index in entity.a if entity.is_account else entity.s:
            for node in by_question[index][1] if index in by_question else ():
                self._due(entity, -node.number, self._trait_due_ms(entity, node))
        entity.due_ms = min(entity.dues.values(), default=FOREVER)

    def _touched(self, entity: Entity, blank: "_Blank") -> dict[Leaf, None]:
        """Return the leaves that may say something else of an entity than of one of which nothing is known.

        Those are leaves with a question that it has a state of, with a key that it has a value of, or that the clock
        changes of itself.
        """
        program = self.program
        scope = ACCOUNT if entity.is_account else USER
        found = {item: None for item in blank.asks if isinstance(item, Leaf)}
        for index in entity.a if entity.is_account else entity.s:
            if index in program.by_question:
                found.update(program.by_question[index][0])
        numbers = {*entity.inside, *entity.values}
        if isinstance(entity, User):
            numbers.update(*(said[3] for said in entity.accounts.values()))
        elif isinstance(entity, Account):
            for hidden in entity.counts:
                found.update(program.by_hidden.get(hidden, {}))
        keys = {program.nodes[number].key for number in numbers if number in program.nodes}
        for key in {*keys, *entity.traits, *(program.left.keys() & program.by_trait[scope].keys())}:
            found.update(program.by_trait[scope].get(key, {}))
            found.update(program.by_audience[scope].get(key, {}))
        return found

    def _may_hold(self, entity: Entity) -> dict[Node, None]:
        """Return the definitions that may hold as the leaves stand: something they rest on is not as of a blank one.

        Or they hold of one of which nothing is known.
        """
        blank = self._blank_of(entity.is_account)
        found: dict[Node, None] = {}
        if entity.bits != blank.bits:
            for place in bits_of(entity.bits ^ blank.bits):
                found.update(self.program.by_index[place].nodes)
        if blank.asks:
            found.update((item, None) for item in blank.asks if isinstance(item, Node))
        return found

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, to_ms: int) -> None:
        """Let time pass: fire every timer due by then, in order, dated when it was due."""
        while (popped := self.timers.pop_due(to_ms)) is not None:
            due_ms, numbers = popped
            if due_ms > self.now_ms:
                self.now_ms = due_ms
            if len(numbers) > 1:  # what one decides may wake another
                for number in numbers:
                    if number not in self.entities:
                        self._find_before(number, due_ms)
            for number in numbers:
                self._fire(number, due_ms)
            if self._queue:
                self._settle()
        if to_ms > self.now_ms:
            self.now_ms = to_ms

    def _fire(self, number: int, due_ms: int) -> None:
        entity = self.entities.get(number) or self._find_before(number, due_ms)
        if entity is None:
            return  # erased or merged away
        if entity.scheduled_ms > due_ms and entity.due_ms > due_ms:
            return
        self.changed.add(number)
        dues = entity.dues
        due = [key for key, ms in dues.items() if ms <= due_ms]
        for key in due:
            del dues[key]
        if self._queue or not self._ask_due(entity, due):
            for key in due:
                if key >= 0:
                    self._push(entity, self.program.by_index[key])
                elif -key in self.program.nodes:
                    self._push(entity, self.program.nodes[-key])
        next_ms = min(dues.values()) if dues else FOREVER
        entity.due_ms = entity.scheduled_ms = next_ms
        if next_ms != FOREVER:
            self.timers.add(next_ms, number)

    def _ask_due(self, entity: Entity, due: list[int]) -> bool:
        """Ask leaves that time may have changed at once, if they are of the first rank and nothing else is queued."""
        by_index = self.program.by_index
        leaves = []
        for key in due:
            if key < 0 or by_index[key].rank:
                return False
            leaves.append(by_index[key])
        now_ms = self.now_ms
        flipped = []
        for leaf in leaves:
            if leaf.holds(entity, now_ms) is not (entity.bits & leaf.mask != 0):
                entity.bits ^= leaf.mask
                flipped.append(leaf)
            if leaf.due is not None:
                next_ms = leaf.due(entity, now_ms)
                if next_ms is not None:
                    entity.dues[leaf.index] = next_ms
        if flipped:
            self._flip(entity, flipped)
        return True

    def _find_before(self, number: int, due_ms: int) -> Entity | None:
        """Return an entity activated as it was just before its timer fell due, so that what changes then shows."""
        now_ms = self.now_ms
        self.now_ms = due_ms - 1
        entity = self.find(number)
        self.now_ms = now_ms
        return entity

    def _due(self, entity: Entity, key: int, due_ms: int | None) -> None:
        if due_ms is None:
            if entity.dues:
                entity.dues.pop(key, None)
            return
        entity.dues[key] = due_ms
        if due_ms < entity.due_ms:
            entity.due_ms = due_ms
        if due_ms < entity.scheduled_ms:
            entity.scheduled_ms = due_ms
            self.timers.add(due_ms, entity.number)
            self.changed.add(entity.number)

    # -- asking ------------------------------------------------------------------------------------------------------

    def _touch(self, entity: Entity, plan: Plan) -> None:
        """Ask the leaves that an event touched; what flips, and what is of higher rank, is queued."""
        now_ms = self.now_ms
        for leaf in plan.leaves:
            if leaf.rising and entity.bits & leaf.mask:
                continue
            if leaf.holds(entity, now_ms) is not bool(entity.bits & leaf.mask):
                entity.bits ^= leaf.mask
                for node in leaf.nodes:
                    self._push(entity, node)
            if leaf.due is not None:
                self._due(entity, leaf.index, leaf.due(entity, now_ms))
        for item in plan.later:
            self._push(entity, item)

    def _flip(self, entity: Entity, flipped: list[Leaf]) -> None:
        """Decide the definitions of the first rank that leaves which flipped are parts of, and queue the others.

        As the queue would, in which nothing may be yet.
        """
        nodes: Iterable[Node] = flipped[0].nodes
        if len(flipped) > 1:
            nodes = {node for leaf in flipped for node in leaf.nodes}
            nodes = sorted(nodes, key=_number)
        elif len(flipped[0].nodes) > 1:
            nodes = sorted(nodes, key=_number)
        for node in nodes:
            if node.rank:
                self._push(entity, node)
            else:
                self._decide(entity, node)

    def _push(self, entity: Entity, item: Leaf | Node) -> None:
        if isinstance(item, Leaf):
            key = (2 * item.rank, entity.number, item.index)
        else:
            key = (2 * item.rank + 1, entity.number, item.number)
        if key not in self._queued:
            self._queued.add(key)
            heappush(self._queue, (*key, entity, item))

    def _settle(self, most: int = -1) -> None:
        """Ask everything queued, in order of rank; at most so many, where said."""
        while self._queue and most:
            most -= 1
            rank, number, place, entity, item = heappop(self._queue)
            self._queued.discard((rank, number, place))
            if self.entities.get(number) is not entity:
                continue  # absorbed or erased since
            if isinstance(item, Leaf):
                if item.holds(entity, self.now_ms) is not (entity.bits & item.mask != 0):
                    entity.bits ^= item.mask
                    for node in item.nodes:
                        self._push(entity, node)
                if item.due is not None:
                    self._due(entity, item.index, item.due(entity, self.now_ms))
            else:
                self._decide(entity, item)

    def _decide(self, entity: Entity, node: Node) -> None:
        if node.hidden:
            self._decide_hidden(entity, node)
        elif node.number not in self.live:
            return
        elif node.asked is not None:
            self._decide_trait(entity, node)
        else:
            self._decide_audience(entity, node)

    def belongs(self, entity: Entity, node: Node) -> bool:
        """Tell whether an audience holds of an entity as its leaves stand."""
        if not node.truth(entity.bits):
            return False
        types = node.spec.id_types if node.spec is not None else None
        return types is None or entity.is_account or not types.isdisjoint(entity.ids)

    def _decide_audience(self, entity: Entity, node: Node) -> None:
        is_in = self.belongs(entity, node)
        number, inside = node.number, entity.inside
        if is_in is (number in inside):
            return
        one, now_ms = entity.number, self.now_ms
        members = self.members.get(number)
        if members is None:
            members = self.members[number] = {}
        self.changed.add(one)
        if is_in:
            self.member_changes[number, one] = members[one] = now_ms
            if type(inside) is set:
                inside.add(number)
            else:
                entity.enter(number)
            self.effects.append(Entered(one, number, now_ms, self.cause_seq))
        else:
            self.member_changes[number, one] = None
            members.pop(one, None)
            entity.leave(number)
            self.effects.append(Exited(one, number, now_ms, self.cause_seq))
        program = self.program
        if self._read_version != program.version:
            self._read_version = program.version
            self._read = program.keys_read()
        if node.key in self._read:
            self._follow(entity, node, is_in)

    def _follow(self, entity: Entity, node: Node, is_in: bool) -> None:
        """Ask what refers to an audience; an account tells its users."""
        self._ask_readers(entity, node.scope, node.key)
        if isinstance(entity, Account) and self.program.says(node.key):
            for number in entity.users:
                user = self.user(number)
                said = user.accounts[entity.number][3]
                (said.add if is_in else said.discard)(node.number)
                self.changed.add(number)
                self._ask_readers(user, USER, node.key)

    def _decide_hidden(self, entity: Entity, node: Node) -> None:
        holds = node.truth(entity.bits)
        if holds is (node.number in entity.inside):
            return
        assert isinstance(entity, User)
        self.changed.add(entity.number)
        (entity.enter if holds else entity.leave)(node.number)
        for number in entity.joined():
            account = self.account(number)
            account.count(node.number, 1 if holds else -1)
            self.changed.add(number)
            for leaf in self.program.by_hidden.get(node.number, ()):
                self._push(account, leaf)

    def trait_value(self, entity: Entity, node: Node) -> Any:
        """Return a computed trait's value now: None where it is absent or null."""
        assert node.asked is not None
        assert node.spec is not None
        if not (node.spec.anonymous or entity.is_account or entity.ids & KNOWN_ID_TYPES):
            return None
        states = entity.a if node.scope == ACCOUNT else entity.s
        state = states.get(node.asked.index)
        if node.present is None:
            if state is None:
                return None
        elif not node.present.query.value(states.get(node.present.index), self.now_ms, entity):
            return None
        return node.asked.query.value(state, self.now_ms, entity)

    def _trait_due_ms(self, entity: Entity, node: Node) -> int | None:
        states = entity.a if node.scope == ACCOUNT else entity.s
        asked = [a for a in (node.asked, node.present) if a is not None and a.query.clocked]
        dues = [a.query.due_ms(states.get(a.index), self.now_ms, entity) for a in asked]
        return min((due for due in dues if due is not None), default=None)

    def _decide_trait(self, entity: Entity, node: Node) -> None:
        value = self.trait_value(entity, node)
        assert node.asked is not None
        if node.asked.query.clocked or (node.present is not None and node.present.query.clocked):
            self._due(entity, -node.number, self._trait_due_ms(entity, node))
        was = entity.values.get(node.number)
        if _is_same(value, was):
            return
        members = self.members.setdefault(node.number, {})
        self.changed.add(entity.number)
        self.member_changes[node.number, entity.number] = None if value is None else self.now_ms
        if value is None:
            entity.values.pop(node.number, None)
            members.pop(entity.number, None)
        else:
            entity.values[node.number] = value
            members[entity.number] = self.now_ms
        self.effects.append(TraitComputed(entity.number, node.number, value, self.now_ms, self.cause_seq))
        self._ask_readers(entity, node.scope, node.key)

    def _ask_readers(self, entity: Entity, scope: Any, key: str) -> None:
        """Ask everything of an entity that looks at one of its traits or audiences."""
        program = self.program
        for leaf in program.by_trait[scope].get(key, ()):
            self._push(entity, leaf)
        for leaf in program.by_audience[scope].get(key, ()):
            self._push(entity, leaf)
        for node in program.traits_by_trait[scope].get(key, ()):
            self._push(entity, node)


_number = attrgetter("number")


def _is_same(value: Any, was: Any) -> bool:
    """Tell whether two JSON values are the same; unlike Python, JSON tells true from 1, also within an array."""
    if type(value) is not type(was) or value != was:
        return False
    return type(value) not in (list, dict) or repr(value) == repr(was)
