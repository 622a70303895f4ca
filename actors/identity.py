"""Who is who: external ids lead to entities, and entities merge (contract, section 2).

Flat matching: ids that lead nowhere make a profile, to one profile add to it, to several merge them. Where that would
break a rule, the lowest-priority id of the event is left out and matching is tried again, so an event always ends
somewhere or is refused. Of merging profiles the oldest survives: the smallest number, whatever the order of the ids.
Accounts are found by the same matching, but never merge.

Deciding yields facts (`IdAdded`, `Merged`, `IdRefused`), and what is known changes by `apply` alone. So a replay does as
was decided then, whatever the rules are today. Times are milliseconds; `seq` is a place in the log.
"""

import hmac
from array import array
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final, Protocol

from msgspec import Struct, msgpack

from actors.external_ids import ID_LIMIT_EXCEEDED, VALUE_BLOCKED, Collection, ExternalId, normal_value
from actors.identity_rules import PERIODS_MS, IdentityRules, IdLimit, SpaceSettings, settings_from_json
from actors.identity_store import (
    REFUSALS_KEPT_MAX,
    Absorption,
    EntityRecord,
    GivenId,
    IdentityStore,
    IdKey,
    Refusal,
    Tables,
    key_of,
)
from eventlog.entries import (
    AnyFact,
    Commit,
    Erased,
    IdAdded,
    IdentityRulesChanged,
    IdRefused,
    Merged,
    Suppressed,
    Unsuppressed,
)
from eventlog.log import Changes

VALUE_LIMIT_EXCEEDED: Final = "value_limit_exceeded"
VALUE_TIME_LIMIT_EXCEEDED: Final = "value_time_limit_exceeded"
MERGE_LIMIT_EXCEEDED: Final = "merge_limit_exceeded"
NO_MATCHING_IDENTIFIERS: Final = "no_matching_identifiers"
REFUSAL_CODES: Final = (  # contract, section 2
    VALUE_BLOCKED,
    VALUE_LIMIT_EXCEEDED,
    VALUE_TIME_LIMIT_EXCEEDED,
    MERGE_LIMIT_EXCEEDED,
    ID_LIMIT_EXCEEDED,
    NO_MATCHING_IDENTIFIERS,
)
IDENTITY_FACTS: Final = (IdAdded, Merged, IdRefused, IdentityRulesChanged, Erased, Suppressed, Unsuppressed)

IdentityFact = IdAdded | Merged | IdRefused


class Resolution(Struct, frozen=True, gc=False):
    """Who an event is from, and what that changed; or, with a `refusal`, why it is from nobody and to be rejected."""

    profile: int  # 0: none, as for a group call with a groupId only
    account: int  # 0: none
    facts: tuple[IdentityFact, ...] = ()  # already applied; empty when refused
    refusal: str = ""  # a code of the contract
    message: str = ""


class WhoIsWho(Protocol):
    """The questions that identity answers, now (`Identity`) or as of a place in the log (`IdentityAsOf`)."""

    def canonical(self, entity: int) -> int:
        """Return who an entity is after all merges."""

    def absorbed_by(self, entity: int) -> tuple[int, ...]:
        """Return all that an entity absorbed, directly or not, in order."""

    def find(self, id_type: str, value: str, collection: Collection = "users") -> int | None:
        """Return the entity that an external id leads to (emails trimmed and lower-cased, types lower-cased)."""

    def ids(self, entity: int) -> tuple[GivenId, ...]:
        """Return an entity's external ids, those of what it absorbed too, by event time, then sequence."""

    def id_types(self, entity: int) -> frozenset[str]:
        """Return the types of an entity's external ids."""

    def has_any_id_type(self, entity: int, types: Iterable[str]) -> bool:
        """Tell whether an entity has an external id of one of these types."""

    def collection(self, entity: int) -> Collection | None:
        """Return what an entity is; None when it is nobody (unknown or erased)."""

    def entities(self, collection: Collection, after: int = 0, limit: int | None = None) -> list[int]:
        """Return the entities that were neither absorbed nor erased, those after `after`, in order."""


class Identity:
    """The identity graph of one space: resolves ids, applies facts, answers who is who."""

    def __init__(
        self, tables: Tables | None = None, *, suppression_key: bytes, store: IdentityStore | None = None
    ) -> None:
        """Start from the tables as they were last stored; then `apply` the log after `cursor_seq`.

        With no tables all of it stays in memory. The key hashes suppressed user ids: the same for the space's lifetime.
        """
        self._store = IdentityStore(tables) if store is None else store
        self._known = self._store.known
        self._key = suppression_key
        self._decided_seq = 0
        self._settings = settings_from_json(self._store.settings)
        self._blocks = self._settings.rules.blocks()

    @classmethod
    def from_facts(cls, commits: Iterable[Commit], *, suppression_key: bytes) -> "Identity":
        """Fold the facts of a prefix of the log, in memory: what `replay --check` compares with."""
        identity = cls(suppression_key=suppression_key)
        for commit in commits:
            identity.apply_commit(commit)
        return identity

    # -- deciding ----------------------------------------------------------------------------------------------------

    def resolve(
        self,
        ids: Iterable[ExternalId],
        *,
        group: ExternalId | None = None,
        event_ms: int,
        cause_seq: int,
        source: str = "",
    ) -> Resolution:
        """Return who an event with these ids is from. What that changes is in force at once."""
        known = self._known.young
        profile = 0
        for one in ids:
            entity = known.get((one.id_type, one.value))
            if entity is None or one.refusal or one.collection != "users" or (profile and entity != profile):
                return self._resolve(tuple(ids), group, event_ms, cause_seq, source)
            profile = entity
        if group is None:
            if profile:
                return Resolution(profile, 0)
        elif not group.refusal:
            account = known.get((f"accounts:{group.id_type}", group.value))
            if account is not None:
                return Resolution(profile, account)
        return self._resolve(tuple(ids), group, event_ms, cause_seq, source)

    def prefetch(self, ids: Iterable[ExternalId]) -> None:
        """Look up the ids of a batch in one read. Only faster, changes nothing."""
        self._store.prefetch(ids)

    def _resolve(
        self, ids: tuple[ExternalId, ...], group: ExternalId | None, event_ms: int, cause_seq: int, source: str
    ) -> Resolution:
        of_user = _Matching(self, "users", [one for one in ids if one.collection == "users"], event_ms)
        of_account = [one for one in ids if one.collection == "accounts"]
        account_ids = [] if group is None else [group, *of_account]
        of_account_call = _Matching(self, "accounts", account_ids, event_ms)
        if group is None:  # an account's id on a call that is about no account
            of_user.refused.extend((one, NO_MATCHING_IDENTIFIERS) for one in of_account)
        if not of_user.active and not of_account_call.active:
            return _refused(of_user.refused + of_account_call.refused)
        facts: list[IdentityFact] = []
        profile = self._settle(of_user, event_ms, cause_seq, source, facts)
        account = self._settle(of_account_call, event_ms, cause_seq, source, facts)
        self._refuse(of_user, profile, cause_seq, facts)
        self._refuse(of_account_call, profile or account, cause_seq, facts)
        self._decided_seq = max(self._decided_seq, cause_seq)
        return Resolution(profile, account, tuple(facts))

    def _settle(
        self, matching: "_Matching", event_ms: int, cause_seq: int, source: str, facts: list[IdentityFact]
    ) -> int:
        """Turn a matching into an entity and the facts that make it so; apply them."""
        if not matching.active:
            return 0
        made: list[IdentityFact] = []
        matched = matching.matched
        entity = matched[0] if matched else self._store.count + 1
        if len(matched) > 1:
            made.append(Merged(entity, matched[1:], cause_seq))
        made.extend(
            IdAdded(entity, one.collection, one.id_type, one.value, event_ms, cause_seq, source, one.encoding)
            for one in matching.new
        )
        for fact in made:
            self.apply(fact)
        facts.extend(made)
        for one in matching.active:
            self._known.put(key_of(one.collection, one.id_type, one.value), entity)
        return entity

    def _refuse(self, matching: "_Matching", entity: int, cause_seq: int, facts: list[IdentityFact]) -> None:
        """Record what was refused, each id and reason once for as long as the entity's record keeps it."""
        if not matching.refused:
            return
        record = self._store.record(entity)
        kept = {(one.id_type, one.value, one.code) for one in record.refusals} if record is not None else set()
        for one, code in matching.refused:
            if (one.id_type, one.value, code) not in kept:
                kept.add((one.id_type, one.value, code))
                fact = IdRefused(entity, one.id_type, one.value, code, cause_seq)
                self.apply(fact)
                facts.append(fact)

    # -- facts -------------------------------------------------------------------------------------------------------

    def apply(self, fact: AnyFact) -> None:
        """Take a fact into account; facts about other things change nothing."""
        match fact:
            case IdAdded():
                self._apply_added(fact)
            case Merged():
                self._apply_merged(fact)
            case IdRefused():
                self._apply_refused(fact)
            case IdentityRulesChanged():
                self._store.settings = fact.rules
                self._settings = settings_from_json(fact.rules)
                self._blocks = self._settings.rules.blocks()
                self._known.clear()  # it holds only what the rules in force let identify
            case Erased():
                self.erase(fact.entity)
            case Suppressed():
                self._store.suppress(fact.id_hash, fact.regulation)
            case Unsuppressed():
                self._store.unsuppress(fact.id_hash)
            case _:
                pass

    def apply_commit(self, commit: Commit) -> None:
        """Take the facts of a commit into account."""
        for fact in commit.facts:
            self.apply(fact)
        self._decided_seq = max(self._decided_seq, commit.last_seq)

    def _apply_added(self, fact: IdAdded) -> None:
        store = self._store
        store.grow(fact.entity)
        if not fact.value:  # erased from the log; the number stays given out
            return
        entity = store.canonical(fact.entity)
        key = key_of(fact.collection, fact.id_type, fact.value)
        leads_to = store.entity_of(key)
        assert leads_to in (0, entity), f"{fact.id_type} of entity {entity} leads to {leads_to}"
        if leads_to == entity:
            return
        record = store.record(entity) or EntityRecord(fact.collection)
        given = GivenId(
            fact.id_type, fact.value, fact.event_ms, fact.cause_seq, fact.entity, fact.source, fact.encoding
        )
        store.put_record(
            entity, EntityRecord(record.collection, (*record.ids, given), record.absorbed, record.refusals)
        )
        store.put_id(key, entity)

    def _apply_merged(self, fact: Merged) -> None:
        store = self._store
        for entity in (fact.survivor, *fact.absorbed):
            store.grow(entity)
        survivor = store.canonical(fact.survivor)
        record = store.record(survivor) or EntityRecord("users")
        ids, absorbed, refusals = list(record.ids), list(record.absorbed), list(record.refusals)
        for entity in map(store.canonical, fact.absorbed):
            if entity == survivor:
                continue
            part = store.record(entity) or EntityRecord("users")
            for one in part.ids:
                store.put_id(key_of(part.collection, one.id_type, one.value), survivor)
            for earlier in part.absorbed:
                store.redirect(earlier.entity, survivor)
            absorption = Absorption(entity, survivor, fact.cause_seq)
            store.absorb(absorption, survivor)
            ids.extend(part.ids)
            absorbed.extend((absorption, *part.absorbed))
            refusals.extend(part.refusals)
        refusals.sort(key=lambda one: one.seq)
        store.put_record(
            survivor,
            EntityRecord(record.collection, tuple(ids), tuple(absorbed), tuple(refusals[-REFUSALS_KEPT_MAX:])),
        )

    def _apply_refused(self, fact: IdRefused) -> None:
        entity = self._store.canonical(fact.entity)
        record = self._store.record(entity)
        if record is not None:
            refusals = (*record.refusals, Refusal(fact.id_type, fact.value, fact.code, fact.cause_seq))
            self._store.put_record(
                entity, EntityRecord(record.collection, record.ids, record.absorbed, refusals[-REFUSALS_KEPT_MAX:])
            )

    def erase(self, entity: int) -> None:
        """Forget all ids and refusals of an entity. Its number, and those it absorbed, are never given out again."""
        self._store.grow(entity)
        entity = self._store.canonical(entity)
        record = self._store.record(entity)
        if record is None:
            return
        for one in record.ids:
            self._store.put_id(key_of(record.collection, one.id_type, one.value), 0)
        self._store.remove_record(entity)

    # -- questions ---------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> SpaceSettings:
        """The settings in force."""
        return self._settings

    @property
    def rules(self) -> IdentityRules:
        """The identity rules in force."""
        return self._settings.rules

    @property
    def entity_count(self) -> int:
        """The last entity number given out: entities are numbered from 1 up to it."""
        return self._store.count

    def canonical(self, entity: int) -> int:
        """Return who an entity is after all merges."""
        return self._store.canonical(entity)

    def canonical_map(self, known_seq: int | None = None) -> "array[int]":
        """Return who every entity is now, or was as of `known_seq`, by number: a copy, safe in another thread."""
        return self._store.canonical_map(known_seq)

    def absorbed_by(self, entity: int) -> tuple[int, ...]:
        """Return all that an entity absorbed, directly or not, in order."""
        record = self._record(entity)
        return () if record is None else tuple(sorted(one.entity for one in record.absorbed))

    def find(self, id_type: str, value: str, collection: Collection = "users") -> int | None:
        """Return the entity that an external id leads to (emails trimmed and lower-cased, types lower-cased)."""
        id_type = id_type.lower()
        return self._store.entity_of(key_of(collection, id_type, normal_value(id_type, value))) or None

    def ids(self, entity: int) -> tuple[GivenId, ...]:
        """Return an entity's external ids, those of what it absorbed too, by event time, then sequence."""
        record = self._record(entity)
        return () if record is None else tuple(sorted(record.ids, key=_by_time))

    def id_types(self, entity: int) -> frozenset[str]:
        """Return the types of an entity's external ids."""
        return self._store.id_types(self._store.canonical(entity))

    def has_any_id_type(self, entity: int, types: Iterable[str]) -> bool:
        """Tell whether an entity has an external id of one of these types."""
        return not self._store.id_types(self._store.canonical(entity)).isdisjoint(types)

    def collection(self, entity: int) -> Collection | None:
        """Return what an entity is; None when it is nobody (unknown or erased)."""
        record = self._record(entity)
        return None if record is None else record.collection

    def refusals(self, entity: int) -> tuple[Refusal, ...]:
        """Return the newest refusals of an entity, at most REFUSALS_KEPT_MAX, the oldest of them first."""
        record = self._record(entity)
        return () if record is None else record.refusals

    def merges(self, entity: int) -> tuple[Absorption, ...]:
        """Return the merges that made an entity, in the order of the log."""
        record = self._record(entity)
        return () if record is None else tuple(sorted(record.absorbed, key=lambda one: (one.seq, one.entity)))

    def entities(self, collection: Collection, after: int = 0, limit: int | None = None) -> list[int]:
        """Return the entities that were neither absorbed nor erased, those after `after`, in order."""
        found: list[int] = []
        for entity, record in self._store.records(after):
            if limit is not None and len(found) >= limit:
                break
            if record.collection == collection and record.ids:
                found.append(entity)
        return found

    def as_of(self, known_seq: int) -> "IdentityAsOf":
        """Return who was who once the log was known up to `known_seq`; what was erased since stays erased."""
        return IdentityAsOf(self, known_seq)

    def _record(self, entity: int) -> EntityRecord | None:
        return self._store.record(self._store.canonical(entity))

    # -- suppression -------------------------------------------------------------------------------------------------

    def suppression_hash(self, user_id: str) -> str:
        """Return what is kept of a suppressed user id: a keyed hash."""
        return hmac.digest(self._key, user_id.encode("utf-8", "surrogatepass"), "sha256").hex()

    def is_suppressed(self, user_id: str) -> bool:
        """Tell whether events with this user id are to be refused."""
        return bool(self._store.suppressed) and self.suppression_hash(user_id) in self._store.suppressed

    def suppressed_id(self, ids: Iterable[ExternalId]) -> str | None:
        """Return the user id among an event's ids for which it is to be refused."""
        if not self._store.suppressed:
            return None
        return next((one.value for one in ids if one.id_type == "user_id" and self.is_suppressed(one.value)), None)

    def suppressed(self) -> dict[str, str]:
        """Return the hashes of the suppressed user ids, each with its regulation."""
        return dict(self._store.suppressed)

    # -- storing -----------------------------------------------------------------------------------------------------

    @property
    def cursor_seq(self) -> int:
        """Up to which sequence the tables are stored: apply the log after it."""
        return self._store.cursor_seq

    @property
    def unsaved_rows(self) -> int:
        """How many changed rows wait for being stored."""
        return self._store.unsaved_rows

    def pending_changes(self, cursor_seq: int) -> Changes | None:
        """Return what to store, all that was decided so far; None if nothing, or while the last one is not `stored`.

        `cursor_seq` is the end of the log with all that was decided, so hand it to `append` with the last commit or
        store it afterwards. When storing fails, drop this object and start anew from the log.
        """
        assert cursor_seq >= self._decided_seq, (cursor_seq, self._decided_seq)
        return self._store.pending(cursor_seq)

    def stored(self, changes: Changes) -> None:
        """Take note that these changes are durable."""
        self._store.stored(changes)

    def digest(self) -> str:
        """Return a hash of everything known, for comparing with a fold of the log."""
        encode = msgpack.Encoder().encode
        hashed = sha256(encode((self._store.count, self._store.settings, sorted(self._store.suppressed.items()))))
        hashed.update(self._store.canonical_map().tobytes())
        for entity, record in self._store.records():
            hashed.update(encode((entity, record)))
        return hashed.hexdigest()


class IdentityAsOf:
    """Who was who at an earlier place in the log, read off the same records."""

    def __init__(self, identity: Identity, known_seq: int) -> None:
        self._identity = identity
        self._seq = known_seq

    def canonical(self, entity: int) -> int:
        """Return who an entity was after the merges known then."""
        return self._identity._store.canonical_at(entity, self._seq)  # noqa: SLF001 - one module, one subject

    def absorbed_by(self, entity: int) -> tuple[int, ...]:
        """Return all that an entity had absorbed, directly or not, in order."""
        then = self.canonical(entity)
        return tuple(one for one in self._identity.absorbed_by(then) if one != then and self.canonical(one) == then)

    def find(self, id_type: str, value: str, collection: Collection = "users") -> int | None:
        """Return the entity that an external id led to."""
        entity = self._identity.find(id_type, value, collection)
        if entity is None:
            return None
        id_type = id_type.lower()
        wanted = (id_type, normal_value(id_type, value))
        for one in self._identity.ids(entity):
            if (one.id_type, one.value) == wanted:
                return self.canonical(one.owner) if one.seq <= self._seq else None
        return None

    def ids(self, entity: int) -> tuple[GivenId, ...]:
        """Return the external ids an entity had, by event time, then sequence."""
        then = self.canonical(entity)
        return tuple(
            one for one in self._identity.ids(then) if one.seq <= self._seq and self.canonical(one.owner) == then
        )

    def id_types(self, entity: int) -> frozenset[str]:
        """Return the types of the external ids an entity had."""
        return frozenset(one.id_type for one in self.ids(entity))

    def has_any_id_type(self, entity: int, types: Iterable[str]) -> bool:
        """Tell whether an entity had an external id of one of these types."""
        return not self.id_types(entity).isdisjoint(types)

    def collection(self, entity: int) -> Collection | None:
        """Return what an entity was; None when it was nobody yet, or is erased."""
        return self._identity.collection(entity) if self.ids(entity) else None

    def entities(self, collection: Collection, after: int = 0, limit: int | None = None) -> list[int]:
        """Return the entities there were, those after `after`, in order."""
        found: list[int] = []
        for entity in range(after + 1, self._identity.entity_count + 1):
            if limit is not None and len(found) >= limit:
                break
            if self.canonical(entity) == entity and self.collection(entity) == collection:
                found.append(entity)
        return found


class _Matching:
    """One flat matching of an event's ids of one collection, demoting until no rule is broken."""

    def __init__(self, identity: Identity, collection: Collection, ids: list[ExternalId], event_ms: int) -> None:
        self.refused: list[tuple[ExternalId, str]] = []
        self.active: list[ExternalId] = []  # by priority
        self.matched: tuple[int, ...] = ()  # in order
        self.new: list[ExternalId] = []  # of `active`, those that lead nowhere yet
        if ids:
            self._rules = identity.rules
            self._store = identity._store  # noqa: SLF001 - one module, one subject
            self._collection = collection
            self._event_ms = event_ms
            self._parts: dict[int, EntityRecord] = {}
            self._match(ids, identity._blocks)  # noqa: SLF001 - one module, one subject

    def _match(self, ids: list[ExternalId], blocks: "_Blocks") -> None:
        rules = self._rules
        for one in ids:
            code = one.refusal
            if not code and (not one.value or blocks(one.id_type, one.value)):
                code = VALUE_BLOCKED
            if not code and rules.limit(one.id_type).count == 0:
                code = VALUE_LIMIT_EXCEEDED
            if code:
                self.refused.append((one, code))
            else:
                self.active.append(one)
        self.active.sort(key=lambda one: rules.rank(one.id_type))
        leads = {one: self._store.entity_of(_key(one)) for one in self.active}
        while self.active:
            self.matched = tuple(sorted({leads[one] for one in self.active if leads[one]}))
            self.new = [one for one in self.active if not leads[one]]
            broken = self._broken_rule() if self.new or len(self.matched) > 1 else ""
            if not broken:
                return
            self.refused.append((self.active.pop(), broken))

    def _broken_rule(self) -> str:
        """Return the rule that the merge or the adding would break, or nothing."""
        parts = [self._part(entity) for entity in self.matched]
        if len(parts) > 1:
            merges_max = self._rules.merges_max if self._collection == "users" else 0
            if sum(len(part.absorbed) for part in parts) + len(parts) - 1 > merges_max:
                return MERGE_LIMIT_EXCEEDED
        for id_type in self._growing_types(parts):
            times = [one.event_ms for part in parts for one in part.ids if one.id_type == id_type]
            times.extend(self._event_ms for one in self.new if one.id_type == id_type)
            broken = _broken_limit(times, self._rules.limit(id_type))
            if broken:
                return broken
        return ID_LIMIT_EXCEEDED if sum(len(part.ids) for part in parts) + len(self.new) > self._rules.ids_max else ""

    def _part(self, entity: int) -> EntityRecord:
        part = self._parts.get(entity)
        if part is None:
            part = self._parts[entity] = self._store.record(entity) or EntityRecord(self._collection)
        return part

    def _growing_types(self, parts: list[EntityRecord]) -> Iterator[str]:
        """Yield the types of which the result has more values than any of its parts, the highest priority first."""
        growing = {one.id_type for one in self.new}
        seen: set[str] = set()
        for part in parts if len(parts) > 1 else ():
            types = {one.id_type for one in part.ids}
            growing |= seen & types
            seen |= types
        yield from sorted(growing, key=self._rules.rank)


class _Blocks(Protocol):
    def __call__(self, id_type: str, value: str, /) -> bool: ...


def _broken_limit(times_ms: list[int], limit: IdLimit) -> str:
    period_ms = PERIODS_MS[limit.period]
    if period_ms is None:
        return VALUE_LIMIT_EXCEEDED if len(times_ms) > limit.count else ""
    times_ms.sort()
    for first_ms, beyond_ms in zip(times_ms, times_ms[limit.count :], strict=False):
        if beyond_ms - first_ms < period_ms:
            return VALUE_TIME_LIMIT_EXCEEDED
    return ""


def _refused(refused: list[tuple[ExternalId, str]]) -> Resolution:
    if not refused:
        return Resolution(0, 0, refusal=NO_MATCHING_IDENTIFIERS, message="the event has no id to go by")
    code = VALUE_BLOCKED if all(code == VALUE_BLOCKED for _, code in refused) else NO_MATCHING_IDENTIFIERS
    named = ", ".join(f"{one.id_type} {one.value[:40]!r} ({code})" for one, code in refused[:5])
    return Resolution(0, 0, refusal=code, message=f"none of the event's ids may identify: {named}")


def _key(one: ExternalId) -> IdKey:
    return key_of(one.collection, one.id_type, one.value)


def _by_time(one: GivenId) -> tuple[int, int]:
    return (one.event_ms, one.seq)
