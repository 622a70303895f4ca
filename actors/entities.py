"""The entity actors: a user, and an account. Small objects with their ids, traits, states and what holds of them.

An entity decides nothing on its own: `partition` feeds it and runs what follows. What one tells another is a value in a
message: a user holds what its accounts said of themselves, an account counts what its users said. Times are
milliseconds since the epoch, UTC.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.conditions.queries import FOREVER
from actors.conditions.values import at_path

if TYPE_CHECKING:
    from actors.conditions.program import Program

COMBINATIONS_KEPT: Final = 4096  # of id types; a handful are in use
_NOTHING: Final[frozenset[int]] = frozenset()
STATE_VERSION: Final = 1  # of a snapshot; raise it when a state changes shape, older ones are then folded anew


class Entity:
    """What users and accounts have in common."""

    __slots__ = (
        "a",
        "bits",
        "due_ms",
        "dues",
        "first_ms",
        "ids",
        "inside",
        "number",
        "program",
        "s",
        "scheduled_ms",
        "traits",
        "values",
    )
    is_account = False

    def __init__(self, number: int, program: "Program") -> None:
        self.number = number
        self.program = program
        self.s: dict[int, Any] = {}  # states of user questions, by index
        self.a: dict[int, Any] = {}  # states of account questions: of this user's events, or all of the account's
        self.bits = 0  # which leaves hold
        # Numbers of the audiences and hidden conditions that hold. Most hold none, and have no set of their own.
        self.inside: set[int] | frozenset[int] = _NOTHING
        self.values: dict[int, Any] = {}  # computed traits that are present, by number
        self.traits: dict[str, list[Any]] = {}  # key -> [event_ms, seq, value]; None: removed
        self.dues: dict[int, int] = {}  # leaf index, or -number of a computed trait -> when it next changes by itself
        self.due_ms = FOREVER  # not after any of the dues
        self.scheduled_ms = FOREVER  # what the timers know
        self.first_ms = FOREVER  # its first event
        self.ids: frozenset[str] = frozenset()  # types of its external ids

    def trait(self, path: tuple[str, ...]) -> Any:
        """Return a trait's value: of the definition that owns the key, else the custom trait."""
        owner = self.program.owners.get(path[0])
        if owner is None:
            value = self.custom_trait(path[0])
            return value if len(path) == 1 else at_path(value, path[1:])
        if len(path) > 1:
            return None
        if owner.asked is None:
            return self.in_audience(path[0])
        return self.values.get(owner.number) if (owner.scope == "account") == self.is_account else None

    def enter(self, number: int) -> None:
        """Note that an audience or a hidden condition holds."""
        if isinstance(self.inside, set):
            self.inside.add(number)
        else:
            self.inside = {*self.inside, number}

    def leave(self, number: int) -> None:
        """Note that an audience or a hidden condition holds no more."""
        if isinstance(self.inside, set):
            self.inside.discard(number)

    def in_audience(self, key: str) -> bool:
        """Tell whether the entity is in an audience."""
        owner = self.program.owners.get(key)
        return owner is not None and owner.number in self.inside

    def custom_trait(self, key: str) -> Any:
        """Return the last written value of a custom trait, or what a deleted audience left behind."""
        written = self.traits.get(key)
        left = self.program.left.get(key)
        if left is not None and left.is_account == self.is_account and self.number <= left.last_entity:
            # Whoever was not a member when the audience was deleted is left with false.
            if written is None or (written[0], written[1]) < (left.at_ms, left.seq):
                return False
        return None if written is None else written[2]

    def write_trait(self, key: str, event_ms: int, seq: int, value: Any) -> bool:
        """Write a trait if this is its last write by (timestamp, sequence); tell whether it was.

        Of equal ones, as two profiles that merge may both have been left them, the one that is there stays.
        """
        written = self.traits.get(key)
        if written is not None and (written[0], written[1]) >= (event_ms, seq):
            return False
        self.traits[key] = [event_ms, seq, value]
        return True


class User(Entity):
    """A user: a profile."""

    __slots__ = ("accounts",)

    def __init__(self, number: int, program: "Program") -> None:
        super().__init__(number, program)
        # account -> [event_ms, seq, joined, the account audiences it said it is in]
        self.accounts: dict[int, list[Any]] = {}

    def in_audience(self, key: str) -> bool:
        """Tell whether the user, or one of its accounts, is in an audience."""
        owner = self.program.owners.get(key)
        if owner is None or owner.asked is not None:
            return False
        if owner.scope == "user":
            return owner.number in self.inside
        return any(owner.number in said[3] for said in self.accounts.values())

    def joined(self) -> list[int]:
        """Return the accounts the user belongs to."""
        return [account for account, said in self.accounts.items() if said[2]]


class Account(Entity):
    """An account with its users."""

    __slots__ = ("counts", "users")
    is_account = True

    def __init__(self, number: int, program: "Program") -> None:
        super().__init__(number, program)
        self.users: dict[int, None] = {}
        self.counts: dict[int, int] = {}  # hidden condition -> for how many users it holds

    def count(self, hidden: int, by: int) -> None:
        """Note that a hidden condition began or ceased to hold for a user."""
        count = self.counts.get(hidden, 0) + by
        assert 0 <= count <= len(self.users) + 1, (self.number, hidden, count)
        self.counts[hidden] = count


@lru_cache(maxsize=COMBINATIONS_KEPT)
def shared(types: frozenset[str]) -> frozenset[str]:
    """Return one object for all equal sets of id types: entities are many, combinations few."""
    return types


def copied(data: Any) -> Any:
    """Return plain data that shares nothing with the original."""
    if type(data) is list:
        return [copied(item) for item in data]
    if type(data) is dict:
        return {key: copied(item) for key, item in data.items()}
    return data


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode
