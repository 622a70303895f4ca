"""The partition: feeds the log's entries to entity actors, fires their timers, and returns the effects.

A pure fold: time comes in with entries, states of entities that are not in memory through `load`. Per entry: timers
due by its time fire first, all those of one instant together; then the entry changes states; then leaves and
definitions are asked in order of rank, over all entities at once, so that nobody sees a combination that was never
true. Effects are dated when they became true: a timer's at its due time, an event's at its receipt.
"""

from collections.abc import Iterable, Iterator, Set
from typing import Any, Final

from msgspec import Struct

from actors.conditions.handlers import Handler, bits_of
from actors.conditions.program import ACCOUNT, USER, Leaf, Program
from actors.conditions.queries import CANNOT, FOREVER, Query
from actors.deciding import KNOWN_ID_TYPES, LEAVES_FEW, Load, nothing
from actors.defining import Defining
from actors.entities import Account, Entity, User, copied, shared
from actors.gathering import Gathered
from eventlog.entries import GROUP, IDENTIFY, SCREEN, AnyFact, Entered, Event, Exited, IdAdded, Merged, TraitComputed
from eventlog.messages import EventData, decode_data

__all__ = ["KNOWN_ID_TYPES", "LEFT_TRAIT", "Partition"]

_UNREAD: Final = EventData()
LEFT_TRAIT: Final = "$left"  # our own extension: a group call with it set to true leaves the account
GATHER_SLICE: Final = 128  # users of an account whose states are joined before others get a turn
ROUTES_MAX: Final = 10_000  # names of events of which who listens is kept at hand; more are asked each time


class _Route(Struct, frozen=True):
    """Who listens to events of a name."""

    users: Handler | None
    accounts: Handler | None
    looks_inside: bool


NOBODY: Final = _Route(None, None, False)


class Partition(Defining):
    """The entity actors of a space and what decides for them."""

    def __init__(self, program: Program | None = None, *, load: Load = nothing) -> None:
        super().__init__(program, load=load)
        self.in_slices = False  # what takes long is left to `rest`, which whoever folds goes through before all else
        self.shrunk: dict[int, set[int]] = {}  # account -> questions that are to be gathered anew: somebody left
        self._absorbed: list[tuple[User, User]] = []
        self._routes: dict[tuple[int, str], _Route] = {}
        self._routes_version = -1  # of the program that they are of

    # -- entries -----------------------------------------------------------------------------------------------------

    def fold_event(self, event: Event, data: EventData | None, facts: Iterable[AnyFact] = ()) -> None:
        """Fold an event, with what it made known of who is who; its body is opened if need be where `data` is None."""
        self.cause_seq = event.seq
        received_ms = event.received_ms
        if received_ms > self.now_ms:
            if received_ms < self.timers.soonest_ms:
                self.now_ms = received_ms
            else:
                self.advance(received_ms)
        for fact in facts:
            self._fold_identity(fact)
        profile = event.profile
        if profile:
            user: Any = self.entities.get(profile)
            if user is None:
                user = self.user(profile)
            self.changed.add(profile)
            if event.event_ms < user.first_ms:
                user.first_ms = event.event_ms
            kind = event.kind
            if kind <= SCREEN:
                if self._routes_version != self.program.version:
                    self._routes_version = self.program.version
                    self._routes = {}
                route = self._routes.get((kind, event.name))
                if route is None:
                    route = self._route(kind, event.name)
                if route is not NOBODY:
                    self._observe(user, event, data, route)
            elif kind == IDENTIFY:
                self._write_traits(user, decode_data(event.body) if data is None else data, event)
        if event.account and event.kind == GROUP:
            self._group(event, decode_data(event.body) if data is None else data)
        if self._queue:
            self._settle()

    def fold_stored(self, event: Event, facts: Iterable[AnyFact] = ()) -> None:
        """Fold an event as it lies in the log: its body is opened only if something looks at what is in it."""
        self.fold_event(event, None, facts)

    def _route(self, kind: int, name: str) -> "_Route":
        """Return who listens to events of a name, and keep it at hand."""
        users, accounts = (self.program.handler(scope, kind, name) for scope in (USER, ACCOUNT))
        route = NOBODY
        if users is not None or accounts is not None:
            looks_inside = any(one is not None and one.looks_inside for one in (users, accounts))
            route = _Route(users, accounts, looks_inside)
        if len(self._routes) < ROUTES_MAX:
            self._routes[kind, name] = route
        return route

    def fold_erased(self, event: Event, facts: Iterable[AnyFact] = ()) -> None:
        """Fold what is left of an erased event: that time went on, and what it made known of who is who."""
        self.cause_seq = event.seq
        if event.received_ms > self.now_ms:
            self.advance(event.received_ms)
        for fact in facts:
            self._fold_identity(fact)
        self._settle()

    def fold_fact(self, fact: AnyFact, seq: int) -> None:
        """Fold a fact about who is who that no event of the same commit caused."""
        self.cause_seq = seq
        self._fold_identity(fact)
        self._settle()

    def _fold_identity(self, fact: AnyFact) -> None:
        if isinstance(fact, IdAdded):
            number, id_type = fact.entity, fact.id_type
            entity = self.account(number) if fact.collection == "accounts" else self.user(number)
            self.changed.add(number)
            if id_type not in entity.ids:
                self._add_ids(entity, frozenset((id_type,)))
        elif isinstance(fact, Merged):
            for absorbed in fact.absorbed:
                self._merge(self.user(fact.survivor), self.user(absorbed))

    def _add_ids(self, entity: Entity, types: frozenset[str]) -> None:
        """Ask the definitions that count an entity only by its ids, where they would count it."""
        entity.ids = shared(entity.ids | types)
        if entity.is_account:
            return
        program = self.program
        nodes = self._may_hold(entity)
        for index in entity.s:
            if index in program.by_question:
                nodes.update(program.by_question[index][1])
        for node in nodes:
            if node in program.by_ids and (node.asked is not None or node.truth(entity.bits)):
                self._push(entity, node)

    def _observe(self, user: User, event: Event, data: EventData | None, route: "_Route") -> None:
        if data is None:
            data = decode_data(event.body) if route.looks_inside else _UNREAD
        handler, of_accounts = route.users, route.accounts
        if handler is not None:
            matched = handler.fold(self, user, user.s, event.event_ms, event.seq, data, event.source)
            if self.flipped:
                flipped, self.flipped = self.flipped, []
                if matched or of_accounts is not None or self._queue or self.shrunk:
                    self._push_readers(user, flipped)
                else:
                    self._flip(user, flipped)
            if matched:
                self._touch(user, handler.plan(matched))
        if of_accounts is not None:
            of_accounts.run(user.a, event.event_ms, event.seq, data, event.source, self.now_ms)
            for number in user.joined():
                account = self.account(number)
                self.changed.add(number)
                matched = of_accounts.fold(self, account, account.a, event.event_ms, event.seq, data, event.source)
                if self.flipped:
                    flipped, self.flipped = self.flipped, []
                    self._push_readers(account, flipped)
                if matched:
                    self._touch(account, of_accounts.plan(matched))

    def _push_readers(self, entity: Entity, flipped: list[Leaf]) -> None:
        for leaf in flipped:
            for node in leaf.nodes:
                self._push(entity, node)

    def _write_traits(self, entity: Entity, data: EventData, event: Event) -> None:
        written = data.traits or {}
        if event.kind == IDENTIFY and data.context and type(data.context.get("traits")) is dict:
            written = {**data.context["traits"], **written}
        scope = ACCOUNT if entity.is_account else USER
        for key, value in written.items():
            if entity.write_trait(key, event.event_ms, event.seq, value) and key not in self.program.owners:
                self._ask_readers(entity, scope, key)

    # -- accounts ----------------------------------------------------------------------------------------------------

    def _group(self, event: Event, data: EventData) -> None:
        account = self.account(event.account)
        self.changed.add(event.account)
        account.first_ms = min(account.first_ms, event.event_ms)
        traits = data.traits or {}
        if traits:
            self._write_traits(account, EventData(traits={k: v for k, v in traits.items() if k != LEFT_TRAIT}), event)
        if event.profile:
            user = self.user(event.profile)
            said = user.accounts.get(event.account)
            if said is None or (said[0], said[1]) < (event.event_ms, event.seq):
                was = said is not None and said[2]
                joined = traits.get(LEFT_TRAIT) is not True
                user.accounts[event.account] = [event.event_ms, event.seq, joined, said[3] if said else set()]
                if joined and not was:
                    self._join(user, account)
                elif was and not joined:
                    self._leave(user, account)

    def _join(self, user: User, account: Account) -> None:
        """Count a user's whole history and what holds of it for the account."""
        account.users[user.number] = None
        self._add_states(account.a, user.a)
        for hidden in user.inside:
            if hidden < 0:
                account.count(hidden, 1)
        user.accounts[account.number][3] = self._saying(account)
        self._ask_all(account)
        self._ask_audience_readers(user)

    def _leave(self, user: User, account: Account) -> None:
        account.users.pop(user.number, None)
        for hidden in user.inside:
            if hidden < 0:
                account.count(hidden, -1)
        user.accounts[account.number][3] = set()
        self._gather(account, self._take_out(account, user.a))
        self._ask_all(account)
        self._ask_audience_readers(user)

    def _take_out(self, account: Account, told: dict[int, Any]) -> set[int]:
        """Take what a user told an account out of its states; return the questions where that cannot be done."""
        anew = set()
        for index, state in told.items():
            mine = account.a.get(index)
            if mine is None or state is None:
                continue
            rest = self._query(index).without(mine, state)
            if rest is CANNOT:
                anew.add(index)
            elif rest is None:
                del account.a[index]
            else:
                account.a[index] = rest
        return anew

    def _gather(self, account: Account, questions: Set[int]) -> None:
        """Make the account's states of these questions anew from those of its users."""
        if questions:
            self.shrunk.setdefault(account.number, set()).update(questions)
            if not self.in_slices:
                for _ in self._gathered():
                    pass

    def _gathered(self) -> Iterator[None]:
        """Gather what is to be gathered; yields now and then."""
        while self.shrunk:
            number, questions = next(iter(self.shrunk.items()))
            account = self.account(number)
            gathered = Gathered(lambda index, one, other: self._query(index).merge(one, other, self.now_ms))
            for place, user in enumerate(account.users, 1):
                for index, state in self._told_by(user).items():
                    if index in questions and state is not None:
                        query = self._query(index)
                        gathered.add(index, query.load(copied(query.dump(state))))
                if place % GATHER_SLICE == 0:
                    yield
            rest = {index: state for index, state in account.a.items() if index not in questions}
            account.a = {**rest, **gathered.states()}
            del self.shrunk[number]

    def _told_by(self, number: int) -> dict[int, Any]:
        """Return what a user tells its accounts; one that is not in memory stays out of it."""
        user = self.entities.get(number) or self._load(number)
        return {} if user is None else user.a

    def _query(self, index: int) -> Query:
        return self.program.asked_by_index[index].query

    def rest(self) -> Iterator[None]:
        """Do what is left of folding an entry after which an account is `shrunk`; yields now and then."""
        yield from self._gathered()
        self._settle()

    def _ask_all(self, entity: Entity) -> None:
        """Ask everything that may say something else now than before: what it knows something of, or did."""
        program = self.program
        scope = ACCOUNT if entity.is_account else USER
        leaves: dict[Leaf, None] = program.scoped[scope]
        if len(program.leaves) > LEAVES_FEW:
            blank = self._blank_of(entity.is_account)
            leaves = self._touched(entity, blank)
            for place in (*bits_of(entity.bits ^ blank.bits), *(key for key in entity.dues if key >= 0)):
                if program.by_index[place].nodes:
                    leaves[program.by_index[place]] = None
        for leaf in leaves:
            self._push(entity, leaf)
        for index in entity.a if entity.is_account else entity.s:
            for node in program.by_question[index][1] if index in program.by_question else ():
                self._push(entity, node)
        for number in entity.values:
            if number in program.nodes:
                self._push(entity, program.nodes[number])

    def _add_states(self, states: dict[int, Any], others: dict[int, Any]) -> None:
        """Add copies of all states of another entity."""
        for index, other in others.items():
            self._merge_state(states, index, other)

    def _take_over(self, states: dict[int, Any], others: dict[int, Any]) -> None:
        """Add all states of an entity that is no more."""
        for index, other in others.items():
            if other is not None:
                self._join_state(states, index, other)

    def _merge_state(self, states: dict[int, Any], index: int, other: Any) -> None:
        """Add a copy of a state to those of another entity."""
        query = self._query(index)
        if other is not None:
            self._join_state(states, index, query.load(copied(query.dump(other))))

    def _join_state(self, states: dict[int, Any], index: int, other: Any) -> None:
        """Add a state that nobody else has to those of another entity."""
        mine = states.get(index)
        states[index] = other if mine is None else self._query(index).merge(mine, other, self.now_ms)

    # -- merges and erasure ------------------------------------------------------------------------------------------

    def _merge(self, user: User, absorbed: User) -> None:
        """Join a profile into another: from now on there has only ever been one."""
        before = {n: (n in user.joined(), n in absorbed.joined()) for n in (*user.joined(), *absorbed.joined())}
        for one in (user, absorbed):
            for number in one.joined():
                account = self.account(number)
                account.users.pop(one.number, None)
                for hidden in one.inside:
                    if hidden < 0:
                        account.count(hidden, -1)
        for number, (mine, theirs) in before.items():
            if mine != theirs:  # the account knows one half's events; those of the other join them
                self._add_states(self.account(number).a, absorbed.a if mine else user.a)
        self._take_over(user.s, absorbed.s)
        self._take_over(user.a, absorbed.a)
        for key, (event_ms, seq, value) in absorbed.traits.items():
            user.write_trait(key, event_ms, seq, value)
        for number, said in absorbed.accounts.items():
            own = user.accounts.get(number)
            if own is None or (own[0], own[1]) < (said[0], said[1]):
                user.accounts[number] = [said[0], said[1], said[2], set()]
        user.first_ms = min(user.first_ms, absorbed.first_ms)
        user.inside = {number for number in user.inside if number > 0}
        self._join_frozen(user, absorbed)
        for number in before:
            self._regroup(user, self.account(number))
        self.changed.update((user.number, absorbed.number, *before))
        self._add_ids(user, absorbed.ids)
        self._ask_all(user)
        for node in self._may_hold(user):
            self._push(user, node)
        self.entities.pop(absorbed.number, None)
        self.gone.add(absorbed.number)
        self._absorbed.append((absorbed, user))

    def _join_frozen(self, user: User, absorbed: User) -> None:
        """Keep what disabled definitions say of either half; of two values that of the survivor, the older half."""
        nodes = self.program.nodes
        for number in sorted({*absorbed.inside, *absorbed.values}):
            if number < 0 or number not in nodes or number in self.live:
                continue  # a hidden condition, gone, or decided anew
            if number in user.inside or number in user.values:
                continue
            self.members.setdefault(number, {})[user.number] = self.now_ms
            self.member_changes[number, user.number] = self.now_ms
            if number in absorbed.inside:
                user.enter(number)
                self.effects.append(Entered(user.number, number, self.now_ms, self.cause_seq))
            else:
                user.values[number] = absorbed.values[number]
                self.effects.append(
                    TraitComputed(user.number, number, user.values[number], self.now_ms, self.cause_seq)
                )

    def _regroup(self, user: User, account: Account) -> None:
        """Put the joined profile into an account that either half belonged to, or take it out."""
        if user.accounts[account.number][2]:
            account.users[user.number] = None
            user.accounts[account.number][3] = self._saying(account)
        else:
            user.accounts[account.number][3] = set()
            self._gather(account, self._take_out(account, user.a))
        self._ask_all(account)

    def _settle(self, most: int = -1) -> None:
        """Ask everything queued; then profiles that were absorbed can be taken out."""
        if self.shrunk:
            return  # what accounts know is not complete: `rest` goes on
        super()._settle(most)
        if self._absorbed:
            self._end_absorbed()

    def _end_absorbed(self) -> None:
        """Take absorbed profiles out; their memberships end, told to destinations only if the survivor has none."""
        into = {absorbed.number: survivor for absorbed, survivor in self._absorbed}
        for absorbed, survivor in self._absorbed:
            last = survivor
            while last.number in into:
                last = into[last.number]
            for number in sorted(absorbed.inside):
                if number > 0 and number in self.program.nodes:
                    merged_into = last.number if number in last.inside else 0
                    self.effects.append(Exited(absorbed.number, number, self.now_ms, self.cause_seq, merged_into))
            self._drop(absorbed)
        self._absorbed = []

    def _drop(self, entity: Entity) -> None:
        for number, members in self.members.items():
            if members.pop(entity.number, None) is not None:
                self.member_changes[number, entity.number] = None
        self.entities.pop(entity.number, None)
        self._asleep.pop(entity.number, None)
        self.changed.add(entity.number)
        self.gone.add(entity.number)
        entity.due_ms = entity.scheduled_ms = FOREVER
        entity.dues.clear()

    def erase(self, numbers: Iterable[int], seq: int) -> None:
        """Forget entities: their memberships end, their accounts no longer count them."""
        self.cause_seq = seq
        shrunk: dict[int, list[dict[int, Any]]] = {}  # account -> what those who leave it had told it
        for number in numbers:
            entity = self.find(number)
            if entity is None:
                continue
            if isinstance(entity, User):
                for joined in entity.joined():
                    account = self.account(joined)
                    account.users.pop(number, None)
                    for hidden in entity.inside:
                        if hidden < 0:
                            account.count(hidden, -1)
                    shrunk.setdefault(joined, []).append(entity.a)
            for node in sorted(entity.inside):
                if node > 0 and node in self.program.nodes:
                    self.effects.append(Exited(number, node, self.now_ms, self.cause_seq))
            self._drop(entity)
        for number, told in shrunk.items():
            account = self.account(number)
            self._gather(account, set().union(*(self._take_out(account, states) for states in told)))
            self._ask_all(account)
            self.changed.add(number)
        self._settle()

    def erase_traits(self, traits: Iterable[tuple[int, str, int]], seq: int) -> None:
        """Remove traits of accounts, given by key and the entry that wrote them, where no later one has."""
        self.cause_seq = seq
        for number, key, written_seq in traits:
            entity = self.find(number)
            written = None if entity is None else entity.traits.get(key)
            if entity is not None and written is not None and written[1] == written_seq:
                written[2] = None
                self.changed.add(number)
                if key not in self.program.owners:
                    self._ask_readers(entity, ACCOUNT if entity.is_account else USER, key)
        self._settle()

    # -- backfills ---------------------------------------------------------------------------------------------------

    def add_history(self, entity: Entity, states: dict[int, Any]) -> None:
        """Add what a backfill found of an entity's past, to it and to its accounts; all, or LogError and nothing."""
        accounts = [self.account(number) for number in entity.joined()] if isinstance(entity, User) else []
        self.changed.add(entity.number)
        for index, state in states.items():
            if self.program.asked_by_index[index].scope == USER:
                self._merge_state(entity.s, index, state)
                continue
            self._merge_state(entity.a, index, state)
            for account in accounts:
                self._merge_state(account.a, index, state)
                self.changed.add(account.number)

    def settle(self) -> None:
        """Ask everything queued."""
        self._settle()

    def settle_some(self, most: int) -> bool:
        """Ask so many of what is queued; tell whether something is left. Nothing else is folded until there is not."""
        super()._settle(most)
        if not self._queue and self._absorbed:
            self._end_absorbed()
        return bool(self._queue)

    def take_effects(self) -> list[AnyFact]:
        """Return the effects since the last call."""
        effects, self.effects = self.effects, []
        return effects
