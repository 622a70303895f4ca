"""A partition on a stage: told in seconds what happens to whom, it says in short what it announced.

Whatever it is told goes into a log too, so that the same world can be seen in hindsight. `sleep` puts entities away as
bytes and takes them out of memory, as a checkpoint of a full space does.
"""

from collections.abc import Iterable
from typing import Any
from typing import Literal as OneOf

import msgspec
from msgspec import Struct

from actors.conditions.program import ACCOUNT, USER, Bounds, Spec
from actors.entities import Account, Entity, User
from actors.history import Hindsight
from actors.language import parse
from actors.partition import KNOWN_ID_TYPES, Partition
from actors.snapshots import dump_entity, load_entity
from eventlog.entries import (
    GROUP,
    IDENTIFY,
    TRACK,
    AnyFact,
    Commit,
    Entered,
    Event,
    Exited,
    IdAdded,
    Merged,
    TraitComputed,
)
from eventlog.memory import MemoryLog
from eventlog.messages import decode_data

SECOND_MS = 1000


class Defined(Struct, frozen=True):
    """A definition, in short."""

    key: str
    query: str
    kind: OneOf["audience", "trait"] = "audience"
    entity_type: OneOf["USERS", "ACCOUNTS"] = "USERS"
    anonymous_too: bool = True  # of an audience: whether profiles without a known id count


def audience(key: str, query: str, *, known_only: bool = False) -> Defined:
    """Return an audience of users."""
    return Defined(key, query, anonymous_too=not known_only)


def accounts(key: str, query: str) -> Defined:
    """Return an audience of accounts."""
    return Defined(key, query, entity_type="ACCOUNTS")


def trait(key: str, query: str, entity_type: OneOf["USERS", "ACCOUNTS"] = "USERS") -> Defined:
    """Return a computed trait."""
    return Defined(key, query, "trait", entity_type)


def spec_of(number: int, one: Defined) -> Spec:
    """Return a definition as it is compiled."""
    return Spec(
        number,
        one.key,
        one.kind,
        ACCOUNT if one.entity_type == "ACCOUNTS" else USER,
        parse(one.query, entity_type=one.entity_type, kind=one.kind),
        Bounds(),
        None if one.anonymous_too or one.kind == "trait" or one.entity_type == "ACCOUNTS" else KNOWN_ID_TYPES,
    )


class Stage:
    """A partition, with names instead of numbers and seconds instead of milliseconds."""

    def __init__(self, *defined: Defined) -> None:
        self.log = MemoryLog()
        self.asleep: dict[int, bytes] = {}
        self.partition = Partition(load=self._load)
        self.numbers: dict[str, int] = {}
        self.into: dict[int, int] = {}
        self.ids: dict[int, set[str]] = {}
        self.keys: dict[int, str] = {}
        self.specs: dict[int, Spec] = {}
        self.seq = 0
        self.slices = 0
        self.now_s = 0.0
        self.partition.now_ms = 0
        self._commits: list[Commit] = []
        if defined:
            self.define(*defined)

    # -- what is defined -------------------------------------------------------------------------------------------

    def define(self, *defined: Defined) -> list[Any]:
        """Add definitions, live at once; their past is not looked for."""
        for one in defined:
            number = len(self.keys) + 1
            self.keys[number] = one.key
            self.specs[number] = spec_of(number, one)
        return self._set_definitions()

    def delete(self, key: str) -> list[Any]:
        """Delete a definition; its last values stay behind."""
        number = self.number_of(key)
        self.seq += 1
        self.partition.leave_behind(self.partition.program.nodes[number], key, self.seq)
        del self.specs[number]
        return self._set_definitions()

    def _set_definitions(self) -> list[Any]:
        self.seq += 1
        everyone = self.numbers.values
        self.partition.set_definitions(self.specs.values(), self.specs, everyone, self.seq)
        self.partition.settle()
        return self.told()

    def number_of(self, key: str) -> int:
        """Return a definition's number."""
        return next(number for number, name in self.keys.items() if name == key)

    # -- what happens ----------------------------------------------------------------------------------------------

    def track(self, user: str, name: str, *, ago_s: float = 0, **properties: Any) -> list[Any]:
        """Take a track call that happened so long ago."""
        return self._event(TRACK, name, user, "", ago_s, {"properties": properties})

    def identify(self, user: str, *, ago_s: float = 0, **traits: Any) -> list[Any]:
        """Take an identify call."""
        return self._event(IDENTIFY, "", user, "", ago_s, {"traits": traits})

    def group(self, user: str, account: str, *, ago_s: float = 0, **traits: Any) -> list[Any]:
        """Take a group call; `left=True` leaves."""
        if traits.pop("left", False):
            traits["$left"] = True
        return self._event(GROUP, "", user, account, ago_s, {"traits": traits})

    def merge(self, survivor: str, absorbed: str) -> list[Any]:
        """Make two profiles one."""
        self.seq += 1
        one, other = self.entity(survivor), self.entity(absorbed)
        self.into[other] = one
        self.ids[one] |= self.ids[other]
        self.numbers = {name: one if number == other else number for name, number in self.numbers.items()}
        self.partition.fold_fact(Merged(one, (other,), self.seq), self.seq)
        self._do_the_rest()
        return self.told()

    def erase(self, user: str) -> list[Any]:
        """Forget a profile."""
        self.seq += 1
        number = self.numbers[user]
        self.numbers = {name: one for name, one in self.numbers.items() if one != number}
        self._commits = [self._without(commit, number) for commit in self._commits]
        self.partition.erase([number], self.seq)
        self._do_the_rest()
        return self.told()

    def _without(self, commit: Commit, number: int) -> Commit:
        """Leave a profile out of the log; what its group calls said of accounts stays."""
        kept = []
        for event in commit.events:
            if self.canonical(event.profile) != number or not number:
                kept.append(event)
            elif event.kind == GROUP:
                kept.append(msgspec.structs.replace(event, profile=0))
        return msgspec.structs.replace(commit, events=tuple(kept))

    def wait(self, seconds: float) -> list[Any]:
        """Let time pass with no event."""
        self.now_s += seconds
        self.seq += 1
        self.partition.cause_seq = self.seq
        self.partition.advance(round(self.now_s * SECOND_MS))
        return self.told()

    def sleep(self, *users: str) -> None:
        """Put entities (all, when none are named) away and out of memory."""
        numbers = [self.entity(user) for user in users] or list(self.partition.entities)
        for number in numbers:
            entity = self.partition.entities.get(number)
            if entity is not None:
                self.asleep[number] = dump_entity(entity)
                self.partition.put_away(number)
                self.partition.changed.discard(number)

    def _event(self, kind: int, name: str, user: str, account: str, ago_s: float, said: dict[str, Any]) -> list[Any]:
        now_ms = round(self.now_s * SECOND_MS)
        facts: list[AnyFact] = []
        self.seq += 1
        body = msgspec.json.encode(said)
        event = Event(
            self.seq,
            now_ms - round(ago_s * SECOND_MS),
            now_ms,
            self.entity(user, facts) if user else 0,
            self.entity(account, facts) if account else 0,
            kind,
            name,
            "web",
            f"m{self.seq}",
            body,
        )
        self._commits.append(Commit(self.seq, now_ms, (event,)))
        self.partition.fold_event(event, decode_data(body), facts)
        self._do_the_rest()
        return self.told()

    def _do_the_rest(self) -> None:
        """Go through the slices that a partition leaves to whoever folds."""
        if self.partition.shrunk:
            self.slices += sum(1 for _ in self.partition.rest())

    def entity(self, name: str, facts: list[AnyFact] | None = None) -> int:
        """Return an entity's number, given out when it is first heard of. Accounts are named in capitals."""
        number = self.numbers.get(name)
        if number is None:
            number = len(self.ids) + 1
            self.numbers[name] = number
            id_type = "group_id" if name.isupper() else "anonymous_id" if name.startswith("anon") else "user_id"
            self.ids[number] = {id_type}
            added = IdAdded(
                number,
                "accounts" if name.isupper() else "users",
                id_type,
                name,
                round(self.now_s * SECOND_MS),
                self.seq,
            )
            if facts is None:
                self.partition.fold_fact(added, self.seq)
            else:
                facts.append(added)
        return number

    def _load(self, number: int) -> Entity | None:
        data = self.asleep.get(number)
        return None if data is None else load_entity(number, data, self.partition.program)

    # -- what it says ----------------------------------------------------------------------------------------------

    def told(self) -> list[Any]:
        """Return what was announced since last asked: (+key, who, when), (-key, who, when), (key=value, who, when)."""
        told: list[Any] = []
        for fact in self.partition.take_effects():
            assert isinstance(fact, Entered | Exited | TraitComputed)
            key = self.keys[fact.definition]
            if isinstance(fact, TraitComputed):
                text = f"{key}={msgspec.json.encode(fact.value).decode()}"
            elif isinstance(fact, Entered):
                text = f"+{key}"
            else:
                text = f"~{key}" if fact.merged_into else f"-{key}"
            told.append((text, self.name_of(fact.entity), fact.at_ms / SECOND_MS))
        return told

    def name_of(self, number: int) -> str:
        """Return an entity's name; of one that is no more, what it was merged into."""
        names = [name for name, one in self.numbers.items() if one == number]
        return min(names) if names else f"#{number}"

    def members(self, key: str) -> list[str]:
        """Return the members of an audience, or those with a value, by name."""
        members = self.partition.members.get(self.number_of(key), {})
        return sorted(self.name_of(number) for number in members)

    def value(self, key: str, who: str) -> Any:
        """Return the value of a computed trait."""
        entity = self.partition.find(self.entity(who))
        assert entity is not None
        return entity.values.get(self.number_of(key))

    # -- the same world, seen otherwise --------------------------------------------------------------------------------

    def canonical(self, number: int) -> int:
        """Return who an entity is by now."""
        while number in self.into:
            number = self.into[number]
        return number

    async def hindsight(self) -> Hindsight:
        """Return the world as all of the log tells it, now."""
        log = MemoryLog()
        first = 1
        for commit in self._commits:
            if commit.events:
                # Sequences in the log have no gaps; the order is what counts.
                event = msgspec.structs.replace(commit.events[0], seq=first)
                await log.append([Commit(first, commit.at_ms, (event,))])
                first += 1
        canonical = [self.canonical(number) for number in range(len(self.ids) + 1)]
        world = Hindsight(self.specs.values(), round(self.now_s * SECOND_MS))
        world.scan(log, log.last_seq, canonical)
        world.decide(lambda number, types: not self.ids[number].isdisjoint(types))
        return world

    async def check(self) -> None:
        """Hold the live partition against hindsight, and its counts against a recount."""
        world = await self.hindsight()
        for number, spec in self.specs.items():
            live = sorted(self.partition.members.get(number, ()))
            assert live == world.members(number), (self.keys[number], spec.tree)
            if spec.kind == "trait":
                for one in live:
                    entity, seen = self.partition.find(one), world.entity(one)
                    assert entity is not None
                    assert seen is not None
                    assert entity.values[number] == seen.values[number], self.keys[number]
        self.recount()

    def recount(self) -> None:
        """Hold what is kept twice against each other: counts of accounts, memberships, timers."""
        hidden = {number for number in self.partition.program.nodes if number < 0}
        entities = self._everyone()
        for entity in entities:
            assert {n for n in entity.inside if n > 0} == {
                number
                for number, members in self.partition.members.items()
                if entity.number in members and self.specs[number].kind == "audience"
            }
            if isinstance(entity, Account):
                users = [one for one in entities if isinstance(one, User) and entity.number in one.joined()]
                assert sorted(entity.users) == [one.number for one in users]
                for number in hidden:
                    count = sum(number in one.inside for one in users)
                    assert entity.counts.get(number, 0) == count, (entity.number, number)
            assert entity.due_ms > self.partition.now_ms
            assert entity.scheduled_ms <= entity.due_ms

    def _everyone(self) -> list[Entity]:
        found: Iterable[Entity | None] = (self.partition.find(number) for number in sorted(set(self.numbers.values())))
        return [entity for entity in found if entity is not None]
