"""Flat matching of one event's ids against what is known: who it is from, under the rules in force.

Ids are tried together. Where adding or merging would break a rule, the lowest-priority id of the event is demoted, that
is left out, and the rest is tried again; the last of equal ones goes first. A rule is broken by what grows: types of
which the result has no more values than one of its parts are not looked at, so rules made stricter later do not lock
profiles that are over them already. Pure: reads the store and changes nothing.
"""

from collections.abc import Callable, Iterable
from typing import Final

from actors.external_ids import ID_LIMIT_EXCEEDED, VALUE_BLOCKED, Collection, ExternalId
from actors.identity_rows import ENTITY_MASK, EntityRecord, IdKey, key_of
from actors.identity_rules import PERIODS_MS, IdentityRules, IdLimit
from actors.identity_store import IdentityStore

VALUE_LIMIT_EXCEEDED: Final = "value_limit_exceeded"
VALUE_TIME_LIMIT_EXCEEDED: Final = "value_time_limit_exceeded"
MERGE_LIMIT_EXCEEDED: Final = "merge_limit_exceeded"
NO_MATCHING_IDENTIFIERS: Final = "no_matching_identifiers"
ACCOUNT_MERGES_MAX: Final = 0  # ours: accounts never merge, an id of another account is refused


class Matching:
    """The ids of an event that agree on who it is from, and those that were refused."""

    def __init__(
        self,
        store: IdentityStore,
        rules: IdentityRules,
        blocks: Callable[[str, str], bool],
        collection: Collection,
        ids: Iterable[ExternalId],
        event_ms: int,
    ) -> None:
        self.refused: list[tuple[ExternalId, str]] = []
        self.active: list[ExternalId] = []  # those that identify, by priority
        self.matched: tuple[int, ...] = ()  # the entities they lead to, the oldest first
        self.new: list[ExternalId] = []  # of `active`, those that lead nowhere yet
        self.in_order: list[ExternalId] = []  # `active` in the order of the event
        self.led: dict[ExternalId, int] = {}  # where each leads, packed
        self._store = store
        self._rules = rules
        self._collection = collection
        self._event_ms = event_ms
        self._parts: dict[int, EntityRecord] = {}
        self._sift(ids, blocks)
        if self.active:
            self._match()

    def _sift(self, ids: Iterable[ExternalId], blocks: Callable[[str, str], bool]) -> None:
        """Set apart what may identify."""
        seen: set[IdKey] = set()
        for one in ids:
            code = one.refusal
            if not code and (not one.value or blocks(one.id_type, one.value)):
                code = VALUE_BLOCKED
            if not code and self._rules.limit(one.id_type).count == 0:
                code = VALUE_LIMIT_EXCEEDED
            if code:
                self.refused.append((one, code))
                continue
            key = key_of(self._collection, one.id_type, one.value)
            if key not in seen:
                seen.add(key)
                self.led[one] = self._store.led_to(key)
                self.active.append(one)
        self.active.sort(key=self._rank)

    def _rank(self, one: ExternalId) -> tuple[bool, tuple[int, str]]:
        """Return what sorts ids by priority; what a group call is about goes first, whatever the rules."""
        return (one.collection == "users" or one.id_type != "group_id", self._rules.rank(one.id_type))

    def _match(self) -> None:
        leads = {one: packed & ENTITY_MASK for one, packed in self.led.items()}
        while self.active:
            self.matched = tuple(sorted({leads[one] for one in self.active if leads[one]}))
            self.new = [one for one in self.active if not leads[one]]
            broken = self._broken_rule() if self.new or len(self.matched) > 1 else ""
            if not broken:
                self.in_order = [one for one in self.led if one in self.active]
                return
            self.refused.append((self.active.pop(), broken))
        self.matched, self.new = (), []

    def _broken_rule(self) -> str:
        """Return the rule that the merge or the adding would break, or nothing."""
        parts = [self._part(entity) for entity in self.matched]
        for id_type in sorted(self._growing_types(parts)):
            times = [one.added_ms for part in parts for one in part.ids if one.id_type == id_type]
            times.extend(self._event_ms for one in self.new if one.id_type == id_type)
            broken = _broken_limit(times, self._rules.limit(id_type), self._event_ms)
            if broken:
                return broken
        if len(parts) > 1:
            merges_max = self._rules.merges_max if self._collection == "users" else ACCOUNT_MERGES_MAX
            if sum(len(part.absorbed) for part in parts) + len(parts) - 1 > merges_max:
                return MERGE_LIMIT_EXCEEDED
        return ID_LIMIT_EXCEEDED if sum(len(part.ids) for part in parts) + len(self.new) > self._rules.ids_max else ""

    def _part(self, entity: int) -> EntityRecord:
        part = self._parts.get(entity)
        if part is None:
            part = self._parts[entity] = self._store.record(entity) or EntityRecord(self._collection)
        return part

    def _growing_types(self, parts: list[EntityRecord]) -> set[str]:
        """Return the types of which the result has more values than any of its parts."""
        growing = {one.id_type for one in self.new}
        seen: set[str] = set()
        for part in parts if len(parts) > 1 else ():
            types = {one.id_type for one in part.ids}
            growing |= seen & types
            seen |= types
        return growing


def _broken_limit(times_ms: list[int], limit: IdLimit, event_ms: int) -> str:
    """Tell whether so many values, given at these times, are too many; a period looks back from the event."""
    period_ms = PERIODS_MS[limit.period]
    if period_ms is None:
        return VALUE_LIMIT_EXCEEDED if len(times_ms) > limit.count else ""
    counted = sum(given_ms > event_ms - period_ms for given_ms in times_ms)
    return VALUE_TIME_LIMIT_EXCEEDED if counted > limit.count else ""
