"""The rows that identity keeps: what an entity is, how its ids are keyed, and a bounded cache for them."""

from collections.abc import Hashable
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from actors.external_ids import Collection

STATE_VERSION: Final = 1  # raise it when a row changes shape: older ones are then folded anew
REFUSALS_KEPT_MAX: Final = 50  # ours: the newest different ones of an entity; the log has them all
CORRECTIONS_KEPT_MAX: Final = 32  # ours: of an id's earliest time; beyond it the oldest are forgotten
ENTITY_BITS: Final = 32
ENTITY_MASK: Final = (1 << ENTITY_BITS) - 1

IdKey = tuple[str, str]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class GivenId(Struct, frozen=True, array_like=True, gc=False):
    """An external id of an entity, as it was given to it."""

    id_type: str
    value: str
    event_ms: int  # of the earliest event that carried it
    added_ms: int  # of the event that gave it
    seq: int  # of that event
    owner: int  # the entity it was given to; since then perhaps absorbed
    source: str = ""
    encoding: str = "none"
    corrections: tuple[tuple[int, int], ...] = ()  # (sequence, earliest time from then on), the newest last

    def seen_earlier(self, event_ms: int, seq: int) -> "GivenId":
        """Return it as known once a late event carried it."""
        kept = (*self.corrections, (seq, event_ms))[-CORRECTIONS_KEPT_MAX:]
        return replace(self, event_ms=event_ms, corrections=kept)

    def as_of(self, known_seq: int) -> "GivenId":
        """Return it as it was known once the log was known up to `known_seq`."""
        if not self.corrections or self.corrections[-1][0] <= known_seq:
            return self
        earliest_ms = self.added_ms
        for seq, event_ms in self.corrections:
            if seq <= known_seq:
                earliest_ms = event_ms
        return replace(self, event_ms=earliest_ms)


class Absorption(Struct, frozen=True, array_like=True, gc=False):
    """That an entity was merged into another."""

    entity: int
    into: int
    seq: int  # of the event that joined them


class Refusal(Struct, frozen=True, array_like=True, gc=False):
    """An external id that was not used to identify."""

    id_type: str
    value: str
    code: str
    seq: int  # of its event


class EntityRecord(Struct, frozen=True, array_like=True):
    """All that is known about who an entity is."""

    collection: Collection
    ids: tuple[GivenId, ...] = ()  # in the order they were given; after a merge the survivor's first
    absorbed: tuple[Absorption, ...] = ()
    refusals: tuple[Refusal, ...] = ()  # the newest last


class Header(Struct, frozen=True, array_like=True):
    """The row that says what the tables are: their version, the last number given out, the settings."""

    version: int
    count: int
    settings: dict[str, Any]


def key_of(collection: str, id_type: str, value: str) -> IdKey:
    """Return the key of an id in IDS; an id type holds no colon, so accounts and users never meet."""
    return (id_type, value) if collection == "users" else (f"accounts:{id_type}", value)


def pack(entity: int, earliest_ms: int) -> int:
    """Return an entity and a time as one int; `& ENTITY_MASK` and `>> ENTITY_BITS` take it apart."""
    return earliest_ms << ENTITY_BITS | entity


class Generations(Generic[K, V]):
    """A bounded cache of two generations: a full young one becomes the old one, and the old one is let go."""

    __slots__ = ("old", "size_max", "young")

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self.young: dict[K, V] = {}
        self.old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return what is cached."""
        value = self.young.get(key)
        return self.old.get(key) if value is None else value

    def put(self, key: K, value: V) -> None:
        """Cache a value as just used."""
        if len(self.young) >= self.size_max:
            self.old, self.young = self.young, {}
        self.young[key] = value

    def update(self, key: K, value: V) -> None:
        """Change the value where it is cached."""
        if key in self.young:
            self.young[key] = value
        self.old.pop(key, None)

    def discard(self, key: K) -> None:
        """Forget a key."""
        self.young.pop(key, None)
        self.old.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self.young.clear()
        self.old.clear()
