"""A partition's definitions, and what their change does to the entities in memory; what holds of them is asked anew.

Only what came and went is looked at. An entity is asked a new leaf, but not where it knows nothing that the leaf looks
at: then it says what it says of one of whom nothing is known. Where all in memory are gone through, others get a turn.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from actors.conditions.program import ACCOUNT, USER, Asked, Change, Leaf, Left, Node, Scope, Spec
from actors.deciding import Deciding
from actors.entities import Account, Entity, User

ENTITIES_SLICE: Final = 2_000  # told of a change, about a millisecond, before others get a turn

Everyone = Callable[[], Iterable[int]]


class Defining(Deciding):
    """The part of a partition that its definitions come and go by."""

    def set_definitions(
        self, specs: Iterable[Spec], live: Iterable[int], everyone: Everyone, seq: int = 0
    ) -> list[Asked]:
        """Put other definitions in place of all there were; return the questions whose past is to be added."""
        self.cause_seq = seq
        change = self.program.set_definitions(specs, seq)
        self.live = set(live)
        for _ in self._changed(change, everyone):
            pass
        return change.questions

    def change_definitions(
        self, specs: Mapping[int, Spec | None], live: Mapping[int, bool], everyone: Everyone, seq: int
    ) -> tuple[Change, Iterator[None]]:
        """Put definitions in place, by number, or take them out (None); those that are `live` are announced.

        Returns what changed, and what is left to do: it yields now and then. `everyone` lists all entities; they are
        asked only where a key that others look at changes hands.
        """
        self.cause_seq = seq
        change = self.program.change(specs, seq)
        for number, is_live in live.items():
            (self.live.add if is_live else self.live.discard)(number)
        return change, self._changed(change, everyone)

    def _changed(self, change: Change, everyone: Everyone) -> Iterator[None]:
        """Let entities forget what is gone, know what has come, and ask what has other answers now."""
        self._change_blank(change)
        gone, asks = _Gone(change, self.program.nodes), self._asks(change)
        concerned = self.entities.values() if gone or any(asks.values()) else ()
        active = iter(list(concerned))
        while some := list(islice(active, ENTITIES_SLICE)):
            for one in some:
                gone.forget(one)
                self._ask_new(one, asks[ACCOUNT if one.is_account else USER])
            yield
        moved = [key for key in sorted(change.moved) if self.program.is_read(key)]
        if moved or change.newly_heard:
            for place, number in enumerate(list(everyone()), 1):
                self._ask_anew(number, moved, tell_users=bool(change.newly_heard))
                if place % ENTITIES_SLICE == 0:
                    yield
        self._settle()

    def _ask_anew(self, number: int, moved: Iterable[str], *, tell_users: bool) -> None:
        """Ask an entity what looks at keys that have changed hands; where users look at an account anew, it tells."""
        entity = self.find(number)
        if entity is None:
            return
        if tell_users and isinstance(entity, Account):
            self._tell_users(entity)
        for key in moved:
            self._ask_readers_anew(entity, ACCOUNT if entity.is_account else USER, key)

    def _asks(self, change: Change) -> dict[Scope, list[Leaf]]:
        """Return the new leaves that entities are to be asked.

        One that looks at new questions alone finds nothing of them in anybody: it is not asked where that means no.
        """
        new = {asked.index for asked in change.questions}
        asks: dict[Scope, list[Leaf]] = {USER: [], ACCOUNT: []}
        for leaf in change.leaves:
            looks = leaf.traits or leaf.audiences or leaf.hidden or any(one.index not in new for one in leaf.asked)
            if looks or not leaf.timeless or self._holds_of_blank(leaf):
                asks[leaf.scope].append(leaf)
        return asks

    def _ask_new(self, entity: Entity, leaves: Iterable[Leaf]) -> None:
        """Set the bits of leaves that an entity has not been asked yet, without effects."""
        for leaf in leaves:
            if leaf.holds(entity, self.now_ms):
                entity.bits |= leaf.mask
            if leaf.due is not None:
                self._due(entity, leaf.index, leaf.due(entity, self.now_ms))

    # -- keys that change hands --------------------------------------------------------------------------------------

    def _ask_readers_anew(self, entity: Entity, scope: Scope, key: str) -> None:
        """Ask all that looks at a key, also where the leaves tell of no change: those of an entity just loaded are new.

        They were asked when it was loaded, by the definitions of now; what was decided before was decided by others.
        """
        program = self.program
        for table in (program.by_trait, program.by_audience):
            for leaf in table[scope].get(key, ()):
                for node in leaf.nodes:
                    self._push(entity, node)
        self._ask_readers(entity, scope, key)

    def _tell_users(self, account: Account) -> None:
        """Let an account tell its users again what it is in."""
        saying = self._saying(account)
        for number in account.users:
            user = self.user(number)
            if user.accounts[account.number][3] != saying:
                user.accounts[account.number][3] = set(saying)
                self.changed.add(number)
                self._ask_audience_readers(user)

    def _saying(self, account: Account) -> set[int]:
        """Return the audiences an account is in that users look at."""
        program = self.program
        return {n for n in account.inside if n in program.nodes and program.says(program.nodes[n].key)}

    def _ask_audience_readers(self, user: User) -> None:
        for key in self.program.heard:
            self._ask_readers(user, USER, key)

    # -- what a definition begins and ends with ------------------------------------------------------------------------

    def ask(self, entity: Entity, node: Node) -> None:
        """Queue all that a definition rests on, and itself, for an entity."""
        for leaf in node.leaves:
            if leaf.scope == (ACCOUNT if entity.is_account else USER):
                self._push(entity, leaf)
        if (node.scope == ACCOUNT) == entity.is_account:
            self._push(entity, node)
        if not entity.is_account:
            for hidden in node.quantified:
                self.ask(entity, hidden)

    def leave_behind(self, node: Node, key: str, seq: int) -> None:
        """Write a deleted definition's last values as custom traits (contract, section 4)."""
        for number in sorted(self.members.pop(node.number, {})):
            self.member_changes[node.number, number] = None
            entity = self.find(number)
            if entity is None:
                continue
            entity.write_trait(key, self.now_ms, seq, entity.values.pop(node.number, True))
            entity.leave(node.number)
            self.changed.add(number)
        if node.asked is None:
            self.program.left[key] = Left(node.scope == ACCOUNT, self.now_ms, seq, self.last_entity)


class _Gone:
    """What entities may still hold of parts that are no more."""

    def __init__(self, change: Change, nodes: Mapping[int, Any]) -> None:
        self._questions = [asked.index for asked in change.gone_questions]
        self._nodes = [node.number for node in change.gone if node.number not in nodes]
        self._dues = [*(leaf.index for leaf in change.gone_leaves), *(-number for number in self._nodes)]
        self._hidden = [number for number in self._nodes if number < 0]

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self._questions or self._dues)

    def forget(self, entity: Entity) -> None:
        """Drop what an entity holds of them, but its place in audiences, which is left behind."""
        for index in self._questions:
            entity.s.pop(index, None)
            entity.a.pop(index, None)
        if entity.dues:
            for key in self._dues:
                entity.dues.pop(key, None)
        for number in self._hidden:
            entity.leave(number)
            if isinstance(entity, Account):
                entity.counts.pop(number, None)
