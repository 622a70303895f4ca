"""Who is who: external ids lead to entities, and entities merge (contract, section 2).

Flat matching: ids that lead nowhere make a profile, to one profile add to it, to several merge them. Where that would
break a rule, the lowest-priority id of the event is left out and matching is tried again, so an event always ends
somewhere or is refused. Of merging profiles the oldest survives: the smallest number, whatever the order of the ids.
Accounts are found by the same matching, but never merge.

Deciding yields facts (`IdAdded`, `Merged`, …), and what is known changes by `apply` alone. So a replay does as was
decided then, whatever the rules are today. Times are milliseconds; `seq` is a place in the log.
"""

import hmac
from array import array
from collections.abc import Iterable, Sequence, Set
from hashlib import sha256
from typing import Final, Protocol

from msgspec import Struct, msgpack
from msgspec.structs import replace

from actors.external_ids import ID_LIMIT_EXCEEDED, VALUE_BLOCKED, Collection, ExternalId
from actors.identity_matching import (
    MERGE_LIMIT_EXCEEDED,
    NO_MATCHING_IDENTIFIERS,
    VALUE_LIMIT_EXCEEDED,
    VALUE_TIME_LIMIT_EXCEEDED,
    Matching,
)
from actors.identity_past import IdentityAsOf, by_sequence, find_in
from actors.identity_rows import (
    ENTITY_BITS,
    ENTITY_MASK,
    REFUSALS_KEPT_MAX,
    Absorption,
    EntityRecord,
    GivenId,
    Refusal,
    key_of,
    pack,
)
from actors.identity_rules import IdentityRules, SpaceSettings, settings_from_json
from actors.identity_store import IdentityStore, Tables
from eventlog.entries import (
    AnyFact,
    Commit,
    Erased,
    IdAdded,
    IdentityRulesChanged,
    IdRefused,
    IdSeenEarlier,
    Merged,
    Suppressed,
    Unsuppressed,
)
from eventlog.log import Changes

REFUSAL_CODES: Final = (  # contract, section 2
    VALUE_BLOCKED,
    VALUE_LIMIT_EXCEEDED,
    VALUE_TIME_LIMIT_EXCEEDED,
    MERGE_LIMIT_EXCEEDED,
    ID_LIMIT_EXCEEDED,
    NO_MATCHING_IDENTIFIERS,
)
_NAMED_MAX: Final = 5  # of an event's refused ids, in the message
_NAMED_CHARS: Final = 40

IdentityFact = IdAdded | IdSeenEarlier | Merged | IdRefused


class Resolution(Struct, frozen=True, gc=False):
    """Who an event is from, and what that changed; or, with a `refusal`, why it is from nobody and to be rejected."""

    profile: int  # 0: none, as for a group call with a groupId only
    account: int  # 0: none
    facts: tuple[IdentityFact, ...] = ()  # already applied; empty when refused
    refusal: str = ""  # a code of the contract
    message: str = ""


class Identified(Protocol):
    """What is read of a call that was let in."""

    @property
    def ids(self) -> tuple[ExternalId, ...]:
        """What it says about a user."""

    @property
    def group(self) -> ExternalId | None:
        """The account of a group call."""

    @property
    def event_ms(self) -> int:
        """When it happened."""

    @property
    def only(self) -> tuple[str, str]:
        """The type and value of its only id, if it has one alone, a user's and usable, and is of no account; or ""."""


class Identity:
    """The identity graph of one space: resolves ids, applies facts, answers who is who (`identity_past.WhoIsWho`)."""

    def __init__(
        self, tables: Tables | None = None, *, suppression_key: bytes, store: IdentityStore | None = None
    ) -> None:
        """Start from the tables as they were last stored; then `apply` the log after `cursor_seq`.

        With no tables all of it stays in memory. The key hashes suppressed user ids: one for the space's lifetime.
        """
        self._store = IdentityStore(tables) if store is None else store
        self._known = self._store.known
        self._key = suppression_key
        self._decided_seq = 0
        self._settings = settings_from_json(self._store.settings)
        self._blocks = self._settings.rules.blocks()

    @classmethod
    def from_facts(cls, commits: Iterable[Commit], *, suppression_key: bytes) -> "Identity":
        """Fold the facts of a log, or of a prefix of it, in memory: what a check compares with."""
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
        ids = tuple(ids)
        profile = self._known_profile(ids, event_ms)
        if profile is None:
            return self._resolve(ids, group, event_ms, cause_seq, source)
        if group is None:
            if profile:
                return Resolution(profile, 0)
        elif not group.refusal:
            packed = self._known.young.get(key_of("accounts", group.id_type, group.value))
            if packed is not None and packed >> ENTITY_BITS <= event_ms:
                return Resolution(profile, packed & ENTITY_MASK)
        return self._resolve(ids, group, event_ms, cause_seq, source)

    def known_profiles(self, calls: Sequence[Identified]) -> list[int]:
        """Return the profile of each call if there is nothing to decide; 0 where `resolve` has to look at it.

        Holds until something is merged. What the others need of the tables is read at once.
        """
        packed_all = map(self._known.young.get, [call.only for call in calls])
        found = [
            packed & ENTITY_MASK if packed is not None and packed >> ENTITY_BITS <= call.event_ms else 0
            for packed, call in zip(packed_all, calls, strict=True)
        ]
        if all(found):
            return found
        for place, call in enumerate(calls):
            if not call.only[0] and call.group is None:
                found[place] = self._known_profile(call.ids, call.event_ms) or 0
        if len(calls) > 1:
            self.prefetch(one for call, profile in zip(calls, found, strict=True) if not profile for one in call.ids)
        return found

    def _known_profile(self, ids: Iterable[ExternalId], event_ms: int) -> int | None:
        """Return the profile that all of these ids lead to, 0 for no ids; None where there is something to decide."""
        known = self._known.young
        later = (event_ms + 1) << ENTITY_BITS  # what is packed with a later time is not below it
        profile = 0
        for one in ids:
            packed = known.get((one.id_type, one.value))
            if packed is None or packed >= later or one.refusal or one.collection != "users":
                return None
            entity = packed & ENTITY_MASK
            if profile and entity != profile:
                return None
            profile = entity
        return profile

    def prefetch(self, ids: Iterable[ExternalId]) -> None:
        """Look up the ids of a batch in one read. Only faster, changes nothing."""
        self._store.prefetch(ids)

    def _resolve(
        self, ids: tuple[ExternalId, ...], group: ExternalId | None, event_ms: int, cause_seq: int, source: str
    ) -> Resolution:
        if group is None and len(ids) == 1:
            resolution = self._newcomer(ids[0], event_ms, cause_seq, source)
            if resolution is not None:
                return resolution
        of_users = [one for one in ids if one.collection == "users"]
        of_accounts = [one for one in ids if one.collection == "accounts"]
        user = self._matching("users", of_users, event_ms)
        account = None if group is None else self._matching("accounts", [group, *of_accounts], event_ms)
        if account is None:  # an account's id on a call that is about no account
            user.refused.extend((one, NO_MATCHING_IDENTIFIERS) for one in of_accounts)
        if not user.active and (account is None or not account.active):
            return _refused(user.refused if account is None else user.refused + account.refused)
        facts: list[IdentityFact] = []
        profile = self._settle(user, event_ms, cause_seq, source, facts)
        group_entity = 0 if account is None else self._settle(account, event_ms, cause_seq, source, facts)
        self._refuse(user, profile, cause_seq, facts)
        if account is not None:
            self._refuse(account, profile or group_entity, cause_seq, facts)
        self._decided_seq = max(self._decided_seq, cause_seq)
        return Resolution(profile, group_entity, tuple(facts))

    def _newcomer(self, one: ExternalId, event_ms: int, cause_seq: int, source: str) -> Resolution | None:
        """Make a profile of a single id that nobody has, as matching would; None where there is more to decide."""
        if one.refusal or one.collection != "users" or not one.value or self._blocks(one.id_type, one.value):
            return None
        rules = self._settings.rules
        key = key_of("users", one.id_type, one.value)
        if rules.limit(one.id_type).count == 0 or rules.ids_max < 1 or self._store.led_to(key):
            return None
        entity = self._store.count + 1
        fact = IdAdded(entity, "users", one.id_type, one.value, event_ms, cause_seq, source, one.encoding)
        self._store.begin(entity, key, pack(entity, event_ms), EntityRecord("users", (_given(fact),)))
        self._decided_seq = max(self._decided_seq, cause_seq)
        return Resolution(entity, 0, (fact,))

    def _matching(self, collection: Collection, ids: list[ExternalId], event_ms: int) -> Matching:
        return Matching(self._store, self._settings.rules, self._blocks, collection, ids, event_ms)

    def _settle(self, matching: Matching, event_ms: int, cause_seq: int, source: str, facts: list[IdentityFact]) -> int:
        """Turn a matching into an entity, and into the facts that make it so; apply them."""
        if not matching.active:
            return 0
        matched = matching.matched
        entity = matched[0] if matched else self._store.count + 1
        merged = (Merged(entity, matched[1:], cause_seq),) if len(matched) > 1 else ()
        added: list[IdAdded] = []
        earlier: list[IdSeenEarlier] = []
        for one in matching.in_order:
            packed = matching.led[one]
            if not packed:
                added.append(
                    IdAdded(entity, one.collection, one.id_type, one.value, event_ms, cause_seq, source, one.encoding)
                )
            elif event_ms < packed >> ENTITY_BITS:
                earlier.append(IdSeenEarlier(entity, one.collection, one.id_type, one.value, event_ms, cause_seq))
        for fact in merged:
            self._apply_merged(fact)
        if added:
            self._apply_added(added)
        for late in earlier:
            self._apply_seen_earlier(late)
        facts += (*merged, *added, *earlier)
        for one in matching.in_order:
            packed = matching.led[one]
            earliest_ms = min(event_ms, packed >> ENTITY_BITS) if packed else event_ms
            self._known.put(key_of(one.collection, one.id_type, one.value), pack(entity, earliest_ms))
        return entity

    def _refuse(self, matching: Matching, entity: int, cause_seq: int, facts: list[IdentityFact]) -> None:
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
                self._apply_added((fact,))
            case IdSeenEarlier():
                self._apply_seen_earlier(fact)
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

    def _apply_added(self, facts: Sequence[IdAdded]) -> None:
        """Give ids to one entity. One erased from the log has no value; the entity's number stays given out."""
        store = self._store
        store.grow(facts[0].entity)
        entity = store.canonical(facts[0].entity)
        record = store.record(entity) or EntityRecord(facts[0].collection)
        ids = list(record.ids)
        for fact in facts:
            key = key_of(fact.collection, fact.id_type, fact.value)
            leads_to = store.led_to(key) & ENTITY_MASK
            assert leads_to in (0, entity), f"{fact.id_type} of entity {entity} leads to {leads_to}"
            if fact.value and not leads_to:
                ids.append(_given(fact))
                store.put_id(key, pack(entity, fact.event_ms))
        if len(ids) > len(record.ids):
            store.put_record(entity, EntityRecord(record.collection, tuple(ids), record.absorbed, record.refusals))

    def _apply_seen_earlier(self, fact: IdSeenEarlier) -> None:
        entity = self._store.canonical(fact.entity)
        record = self._store.record(entity)
        if record is None or not fact.value:
            return
        wanted = (fact.id_type, fact.value)
        ids = tuple(
            one.seen_earlier(fact.event_ms, fact.cause_seq) if (one.id_type, one.value) == wanted else one
            for one in record.ids
        )
        self._store.put_record(entity, replace(record, ids=ids))
        self._store.put_id(key_of(fact.collection, fact.id_type, fact.value), pack(entity, fact.event_ms))

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
                store.put_id(key_of(part.collection, one.id_type, one.value), pack(survivor, one.event_ms))
            for earlier in part.absorbed:
                store.redirect(earlier.entity, survivor)
            absorption = Absorption(entity, survivor, fact.cause_seq)
            store.absorb(absorption, survivor)
            ids.extend(part.ids)
            absorbed.extend((absorption, *part.absorbed))
            refusals.extend(part.refusals)
        refusals.sort(key=lambda one: one.seq)
        merged = EntityRecord(record.collection, tuple(ids), tuple(absorbed), tuple(refusals[-REFUSALS_KEPT_MAX:]))
        store.put_record(survivor, merged)

    def _apply_refused(self, fact: IdRefused) -> None:
        entity = self._store.canonical(fact.entity)
        record = self._store.record(entity)
        if record is not None and fact.value:
            refusals = (*record.refusals, Refusal(fact.id_type, fact.value, fact.code, fact.cause_seq))
            self._store.put_record(entity, replace(record, refusals=refusals[-REFUSALS_KEPT_MAX:]))

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
        return find_in(self._store, id_type, value, collection)

    def ids(self, entity: int) -> tuple[GivenId, ...]:
        """Return an entity's external ids, those of what it absorbed too, in the order they were given."""
        record = self._record(entity)
        return () if record is None else tuple(sorted(record.ids, key=by_sequence))

    def id_types(self, entity: int) -> frozenset[str]:
        """Return the types of an entity's external ids. Cheap."""
        return self._store.id_types(self._store.canonical(entity))

    def has_any_id_type(self, entity: int, types: Iterable[str], at_ms: int | None = None) -> bool:
        """Tell whether an entity has, or at a time had, an external id of one of these types. Cheap without a time."""
        if at_ms is None:
            return not self._store.id_types(self._store.canonical(entity)).isdisjoint(types)
        wanted = frozenset(types)
        return any(one.id_type in wanted and one.event_ms <= at_ms for one in self.ids(entity))

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

    def packed_ids(self, entities: Sequence[int]) -> bytes:
        """Return the records of many, for `bulk_ids.known_ids`."""
        return self._store.packed(entities)

    def as_of(self, known_seq: int) -> IdentityAsOf:
        """Return who was who once the log was known up to `known_seq`; what was erased since stays erased."""
        return IdentityAsOf(self._store, known_seq)

    def _record(self, entity: int) -> EntityRecord | None:
        return self._store.record(self._store.canonical(entity))

    # -- erasing and suppressing -------------------------------------------------------------------------------------

    def erase(self, entity: int) -> None:
        """Forget all ids and refusals of an entity (what `Erased` does). Its number is never given out again."""
        self._store.grow(entity)
        entity = self._store.canonical(entity)
        record = self._store.record(entity)
        if record is None:
            return
        for one in record.ids:
            self._store.put_id(key_of(record.collection, one.id_type, one.value), 0)
        self._store.remove_record(entity)

    def forget_refusals(self, entities: Iterable[int], ids: Set[tuple[str, str]]) -> None:
        """Forget that these ids (type, value) were refused on other entities: whose they are was erased."""
        for entity in map(self._store.canonical, entities):
            record = self._store.record(entity)
            if record is not None:
                kept = tuple(one for one in record.refusals if (one.id_type, one.value) not in ids)
                if len(kept) < len(record.refusals):
                    self._store.put_record(entity, replace(record, refusals=kept))

    def suppression_hash(self, user_id: str) -> str:
        """Return what is kept of a suppressed user id: a keyed hash."""
        return hmac.digest(self._key, user_id.encode("utf-8", "surrogatepass"), "sha256").hex()

    def is_suppressed(self, user_id: str) -> bool:
        """Tell whether events with this user id are to be refused."""
        return bool(self._store.suppressed) and self.suppression_hash(user_id) in self._store.suppressed

    @property
    def suppresses(self) -> bool:
        """Tell whether any user id is suppressed."""
        return bool(self._store.suppressed)

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


def _given(fact: IdAdded) -> GivenId:
    return GivenId(
        id_type=fact.id_type,
        value=fact.value,
        event_ms=fact.event_ms,
        added_ms=fact.event_ms,
        seq=fact.cause_seq,
        owner=fact.entity,
        source=fact.source,
        encoding=fact.encoding,
    )


def _refused(refused: list[tuple[ExternalId, str]]) -> Resolution:
    if not refused:
        return Resolution(0, 0, refusal=NO_MATCHING_IDENTIFIERS, message="the event has no id to go by")
    code = VALUE_BLOCKED if all(code == VALUE_BLOCKED for _, code in refused) else NO_MATCHING_IDENTIFIERS
    named = ", ".join(f"{one.id_type} {one.value[:_NAMED_CHARS]!r} ({code})" for one, code in refused[:_NAMED_MAX])
    return Resolution(0, 0, refusal=code, message=f"none of the event's ids may identify: {named}")
