"""Who is who, asked: the questions in one interface, and their answers as of an earlier place in the log.

The past is read off the same records: each id says when it was given and to whom, each merge when it was. What has been
erased since is erased from the past too.
"""

from collections.abc import Iterable
from typing import Protocol

from actors.external_ids import Collection, normal_value
from actors.identity_rows import EntityRecord, GivenId
from actors.identity_store import IdentityStore


class WhoIsWho(Protocol):
    """The questions that identity answers, now (`Identity`) or as of a place in the log (`IdentityAsOf`)."""

    def canonical(self, entity: int) -> int:
        """Return who an entity is after all merges."""

    def absorbed_by(self, entity: int) -> tuple[int, ...]:
        """Return all that an entity absorbed, directly or not, in order."""

    def find(self, id_type: str, value: str, collection: Collection = "users") -> int | None:
        """Return the entity that an external id leads to (emails trimmed and lower-cased, types lower-cased)."""

    def ids(self, entity: int) -> tuple[GivenId, ...]:
        """Return an entity's external ids, those of what it absorbed too, in the order they were given."""

    def id_types(self, entity: int) -> frozenset[str]:
        """Return the types of an entity's external ids."""

    def has_any_id_type(self, entity: int, types: Iterable[str], at_ms: int | None = None) -> bool:
        """Tell whether an entity has, or at a time had, an external id of one of these types."""

    def collection(self, entity: int) -> Collection | None:
        """Return what an entity is; None when it is nobody (unknown or erased)."""

    def entities(self, collection: Collection, after: int = 0, limit: int | None = None) -> list[int]:
        """Return the entities that were neither absorbed nor erased, those after `after`, in order."""


class IdentityAsOf:
    """Who was who once the log was known up to a sequence."""

    def __init__(self, store: IdentityStore, known_seq: int) -> None:
        self._store = store
        self._seq = known_seq

    def canonical(self, entity: int) -> int:
        """Return who an entity was after the merges known then."""
        return self._store.canonical_at(entity, self._seq)

    def absorbed_by(self, entity: int) -> tuple[int, ...]:
        """Return all that an entity had absorbed, directly or not, in order."""
        then = self.canonical(entity)
        record = self._record(then)
        if record is None:
            return ()
        absorbed = (one.entity for one in record.absorbed if one.entity != then)
        return tuple(sorted(one for one in absorbed if self.canonical(one) == then))

    def find(self, id_type: str, value: str, collection: Collection = "users") -> int | None:
        """Return the entity that an external id led to."""
        entity = find_in(self._store, id_type, value, collection)
        record = None if entity is None else self._store.record(entity)
        if record is None:
            return None
        id_type = id_type.lower()
        wanted = (id_type, normal_value(id_type, value))
        owner = next(
            (one.owner for one in record.ids if (one.id_type, one.value) == wanted and one.seq <= self._seq), None
        )
        return None if owner is None else self.canonical(owner)

    def ids(self, entity: int) -> tuple[GivenId, ...]:
        """Return the external ids an entity had, in the order they were given."""
        then = self.canonical(entity)
        record = self._record(then)
        if record is None:
            return ()
        had = (one.as_of(self._seq) for one in record.ids if one.seq <= self._seq and self.canonical(one.owner) == then)
        return tuple(sorted(had, key=by_sequence))

    def id_types(self, entity: int) -> frozenset[str]:
        """Return the types of the external ids an entity had."""
        return frozenset(one.id_type for one in self.ids(entity))

    def has_any_id_type(self, entity: int, types: Iterable[str], at_ms: int | None = None) -> bool:
        """Tell whether an entity had an external id of one of these types (at a time)."""
        wanted = frozenset(types)
        return any(one.id_type in wanted and (at_ms is None or one.event_ms <= at_ms) for one in self.ids(entity))

    def collection(self, entity: int) -> Collection | None:
        """Return what an entity was; None when it was nobody yet, or is erased."""
        record = self._record(self.canonical(entity))
        return record.collection if record is not None and self.ids(entity) else None

    def entities(self, collection: Collection, after: int = 0, limit: int | None = None) -> list[int]:
        """Return the entities there were, those after `after`, in order."""
        found: list[int] = []
        for entity in range(after + 1, self._store.count + 1):
            if limit is not None and len(found) >= limit:
                break
            if self.canonical(entity) == entity and self.collection(entity) == collection:
                found.append(entity)
        return found

    def _record(self, entity: int) -> EntityRecord | None:
        """Return the record that holds an entity's past: that of who it is today."""
        return self._store.record(self._store.canonical(entity))


def find_in(store: IdentityStore, id_type: str, value: str, collection: Collection) -> int | None:
    """Return the entity that an external id leads to today."""
    return store.find(collection, id_type.lower(), normal_value(id_type.lower(), value))


def by_sequence(one: GivenId) -> int:
    """Return what ids are ordered by: when they were given, in the order of the log."""
    return one.seq
