"""The reference evaluator: the whole language, written for obviousness. Every question is recomputed from all events.

It shares nothing with the engine but the tree (`actors/language/tree.py`), so that the two can be held against each
other on any world. Read it beside sections 2 to 4 of the contract. A question is asked *at* a time (what was true then)
and with what was *known* at a sequence of the log (what had been received by then).

Choices where the contract is silent are listed in `docs/scenarios.md`.
"""

from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Final
from typing import Literal as OneOf

from msgspec import Struct

from actors.language import tree
from scenarios.reference_compare import compare
from scenarios.reference_identity import DAY_MS, Call, Entity, Identity, Received, Rules, field, identify, traits_in
from scenarios.reference_reducers import reduce_values

COUNTED_IDS: Final = ("user_id", "email", "android.idfa", "ios.idfa")
"""An audience counts a profile only if it has one of these (contract, section 3), unless its options say otherwise."""
SCREENED_CALLS: Final = ("track", "page", "screen")


class Defined(Struct, frozen=True):
    """An audience or computed trait, as it stands after a change."""

    key: str
    kind: OneOf["audience", "trait"]
    entity_type: OneOf["USERS", "ACCOUNTS"]
    meaning: tree.Definition
    include_historical_data: bool = True
    backfill_event_data_days: int | None = None
    filter_by_external_ids: tuple[str, ...] | None = None
    include_anonymous_users: bool = True
    enabled: bool = True
    created_ms: int = 0
    created_seq: int = 0


class Change(Struct, frozen=True):
    """A definition was created, edited, enabled or disabled (as it is from then on), or deleted (None)."""

    seq: int
    at_ms: int
    key: str
    defined: Defined | None


class World(Struct, frozen=True):
    """All that was ever received, and all that was ever defined, in the order of the log."""

    received: Sequence[Received]
    changes: Sequence[Change]
    rules: Rules = Rules()


class Subject(Struct, frozen=True):
    """Whose events and traits a condition looks at, and for which definition."""

    entity: Entity
    defined: Defined


class Answers:
    """What a world says at one time, with what was known at one place of its log."""

    def __init__(self, world: World, *, at_ms: int, known_seq: int) -> None:
        self.world = world
        self.at_ms = at_ms
        self.known_seq = known_seq
        self._members: dict[tuple[str, int], bool | None] = {}
        self._past: dict[tuple[int, int], Answers] = {}
        # A nested event is asked about again for every event around it: without these three levels take minutes.
        self._events: dict[tuple[Entity, int], tuple[Defined, list[Call]]] = {}
        self._reduced: dict[tuple[Entity, int, int, int], tuple[Defined, tree.Event, Any]] = {}

    # -- what is there -------------------------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> Identity:
        """Return who is who, by all calls known."""
        known = [one for one in self.world.received if one.seq <= self.known_seq]
        return identify(known, self.world.rules)

    @cached_property
    def living(self) -> dict[str, Defined]:
        """Return the definitions that live, by key."""
        living: dict[str, Defined] = {}
        for change in self.known_changes:
            if change.defined is None:
                living.pop(change.key, None)
            else:
                living[change.key] = change.defined
        return living

    @property
    def known_changes(self) -> list[Change]:
        """Return the changes of definitions that are known."""
        return [change for change in self.world.changes if change.seq <= self.known_seq]

    @property
    def users(self) -> list[Entity]:
        """Return the profiles that exist by now."""
        return [user for user in self.identity.users if self.exists(user)]

    @property
    def accounts(self) -> list[Entity]:
        """Return the accounts that exist by now."""
        return [account for account in self.identity.accounts if self.exists(account)]

    def exists(self, entity: Entity) -> bool:
        """Tell whether an entity has had a call by now."""
        return any(call.event_ms <= self.at_ms for call in entity.calls)

    def find(self, kind: OneOf["user", "account"], id_type: str, value: str) -> Entity | None:
        """Return the entity that an external id leads to."""
        entities = self.users if kind == "user" else self.accounts
        return next((entity for entity in entities if entity.has(id_type, value)), None)

    def accounts_of(self, user: Entity) -> list[Entity]:
        """Return the accounts a user belongs to."""
        return [account for account in self.accounts if self.belongs(user, account)]

    def users_of(self, account: Entity) -> list[Entity]:
        """Return the users of an account."""
        return [user for user in self.users if self.belongs(user, account)]

    def belongs(self, user: Entity, account: Entity) -> bool:
        """Tell whether the last group call of a user about an account, by now, was not one of leaving."""
        about = {call.seq for call in account.calls}
        calls = [call for call in user.calls if call.seq in about and call.event_ms <= self.at_ms]
        return bool(calls) and field(calls[-1].message, "traits", "$left") is not True

    # -- traits --------------------------------------------------------------------------------------------------------

    def custom_traits(self, entity: Entity) -> dict[str, Any]:
        """Return the traits that calls wrote, and deleted definitions left behind: the last write of each key wins."""
        writes: list[tuple[tuple[int, int], str, Any]] = []
        for call in entity.calls:
            if call.type == ("identify" if entity.kind == "user" else "group"):
                writes += [(call.order, key, value) for key, value in traits_in(call.message).items()]
        writes += self.left_behind(entity)
        writes = sorted((write for write in writes if write[0][0] <= self.at_ms), key=lambda write: write[0])
        traits = {key: value for _, key, value in writes}  # a later write replaces an earlier one
        hidden = {*self.living, "$left"} if entity.kind == "account" else {*self.living}
        return {key: value for key, value in traits.items() if value is not None and key not in hidden}

    def left_behind(self, entity: Entity) -> list[tuple[tuple[int, int], str, Any]]:
        """Return the last values that deleted definitions left on an entity, as writes dated at their deletion."""
        writes: list[tuple[tuple[int, int], str, Any]] = []
        for change in self.known_changes:
            if change.defined is None and self.was_ever_enabled(change.key):
                value = self.past_value(entity, change.key, change.at_ms, change.seq - 1)
                if value is not None:
                    writes.append(((change.at_ms, change.seq), change.key, value))
        return writes

    def was_ever_enabled(self, key: str) -> bool:
        """Tell whether a definition ever said something."""
        return any(c.defined is not None and c.defined.enabled for c in self.known_changes if c.key == key)

    def past_value(self, entity: Entity, key: str, at_ms: int, known_seq: int) -> Any:
        """Return the value that a definition had for an entity, as was known then.

        After a merge: true if either half was a member; else the older half's value, or the one there is.
        """
        past = self._past.setdefault((at_ms, known_seq), Answers(self.world, at_ms=at_ms, known_seq=known_seq))
        calls = {call.seq for call in entity.calls}
        entities = past.users if entity.kind == "user" else past.accounts
        parts = [then for then in entities if calls & {call.seq for call in then.calls}]
        values = [value for value in (past.own_value(then, key) for then in parts) if value is not None]
        return True if any(value is True for value in values) else values[0] if values else None

    def own_value(self, entity: Entity, key: str) -> Any:
        """Return what a living definition of the entity's own kind says of it."""
        defined = self.living[key]
        if defined.entity_type != entity_type_of(entity):
            return None
        return self.is_member(entity, defined) if defined.kind == "audience" else self.computed(entity, defined)

    def trait(self, entity: Entity, key: str) -> Any:
        """Return a trait of an entity: custom, computed, or an audience as a boolean; None for absent."""
        defined = self.living.get(key)
        if defined is None:
            return self.custom_traits(entity).get(key)
        if defined.kind == "audience":
            return self.in_audience(entity, key)
        return self.own_value(entity, key)

    def computed(self, entity: Entity, defined: Defined) -> Any:
        """Return the value of a computed trait, None while it is absent or null."""
        if not defined.enabled:
            return self.frozen(entity, defined)
        assert isinstance(defined.meaning, tree.Event)
        anonymous = entity.kind == "user" and not self.has_id_of(entity, COUNTED_IDS)
        if anonymous and not defined.include_anonymous_users:
            return None
        subject = Subject(entity, defined)
        if not self.passing(defined.meaning, subject, None, windows_aside=True):
            return None
        return self.reduced(defined.meaning, subject, None)

    # -- audiences -----------------------------------------------------------------------------------------------------

    def members(self, key: str) -> list[Entity]:
        """Return the members of a living audience."""
        defined = self.living[key]
        entities = self.users if defined.entity_type == "USERS" else self.accounts
        return [entity for entity in entities if self.is_member(entity, defined)]

    def in_audience(self, entity: Entity, key: str) -> bool:
        """Tell whether an entity is in an audience; a user also if one of its accounts is."""
        defined = self.living.get(key)
        if defined is None or defined.kind != "audience":
            return False
        if defined.entity_type == entity_type_of(entity):
            return self.is_member(entity, defined)
        if defined.entity_type == "ACCOUNTS":
            return any(self.is_member(account, defined) for account in self.accounts_of(entity))
        return False

    def is_member(self, entity: Entity, defined: Defined) -> bool:
        """Tell whether an entity of the audience's own kind is a member."""
        asked = (defined.key, entity.number)
        if asked not in self._members:
            self._members[asked] = None
            self._members[asked] = self.decide(entity, defined)
        answer = self._members[asked]
        assert answer is not None, f"audience {defined.key} refers to itself"
        return answer

    def decide(self, entity: Entity, defined: Defined) -> bool:
        """Work out whether an entity is a member."""
        if not defined.enabled:
            return bool(self.frozen(entity, defined))
        wanted = COUNTED_IDS if defined.filter_by_external_ids is None else defined.filter_by_external_ids
        if entity.kind == "user" and not self.has_id_of(entity, wanted):
            return False
        assert not isinstance(defined.meaning, tree.Event)
        return self.holds(defined.meaning, Subject(entity, defined), None, None)

    def frozen(self, entity: Entity, defined: Defined) -> Any:
        """Return what a disabled definition said when it was disabled."""
        changes = [change for change in self.known_changes if change.key == defined.key]
        enabled = [
            index for index, change in enumerate(changes) if change.defined is not None and change.defined.enabled
        ]
        if not enabled:
            return None
        disabled = changes[enabled[-1] + 1]
        return self.past_value(entity, defined.key, min(self.at_ms, disabled.at_ms), disabled.seq - 1)

    def has_id_of(self, entity: Entity, types: Sequence[str]) -> bool:
        """Tell whether an entity has an id of one of these types by now."""
        return any(known.type in types and known.first_ms <= self.at_ms for known in entity.ids)

    # -- conditions ----------------------------------------------------------------------------------------------------

    def holds(self, condition: tree.Condition, subject: Subject, event: Call | None, parent: Call | None) -> bool:
        """Tell whether a condition holds; inside a `where`, of `event`, which may itself be nested in `parent`."""
        match condition:
            case tree.And(of):
                return all(self.holds(part, subject, event, parent) for part in of)
            case tree.Or(of):
                return any(self.holds(part, subject, event, parent) for part in of)
            case tree.Not(of):
                return not self.holds(of, subject, event, parent)
            case tree.Audience(key):
                return self.in_audience(subject.entity, key)
            case tree.Users(quantifier, of):
                users = self.users_of(subject.entity)
                truths = [self.holds(of, Subject(user, subject.defined), None, None) for user in users]
                return {"ANY": any(truths), "ALL": bool(truths) and all(truths), "NONE": not any(truths)}[quantifier]
            case tree.Comparison(left, op, right):
                value = self.value(left, subject, event, parent)
                others = [self.value(other, subject, event, parent) for other in right]
                return compare(op, value, others, self.at_ms)

    def value(self, of: tree.Value | tree.Duration, subject: Subject, event: Call | None, parent: Call | None) -> Any:
        """Return the value of either side of a comparison, None where there is none."""
        match of:
            case tree.Literal(value):
                return value
            case tree.Duration(ms):
                return timedelta(milliseconds=ms)
            case tree.Property() | tree.Context():
                return value_in(of, parent if of.parent else event)
            case tree.Trait(path):
                root = self.trait(subject.entity, path[0])
                return field(root, *path[1:])
            case tree.Event():
                return self.reduced(of, subject, event)

    # -- events --------------------------------------------------------------------------------------------------------

    def events(self, subject: Subject) -> list[Call]:
        """Return the calls that count for a definition by now, in order; an account's are those of all its users."""
        entity, defined = subject.entity, subject.defined
        known = self._events.get((entity, id(defined)))
        if known is not None:
            return known[1]
        calls = entity.calls if entity.kind == "user" else [c for user in self.users_of(entity) for c in user.calls]
        if not defined.include_historical_data:
            calls = [call for call in calls if call.seq > defined.created_seq]
        if defined.backfill_event_data_days is not None:
            first_ms = defined.created_ms - defined.backfill_event_data_days * DAY_MS
            calls = [call for call in calls if call.event_ms > first_ms]
        calls = sorted((call for call in calls if call.event_ms <= self.at_ms), key=lambda call: call.order)
        self._events[entity, id(defined)] = defined, calls
        return calls

    def passing(
        self, question: tree.Event, subject: Subject, parent: Call | None, *, windows_aside: bool = False
    ) -> list[Call]:
        """Return the events that pass a question's filters, in order."""
        calls = [call for call in self.events(subject) if is_asked_for(question, call)]
        if not windows_aside:
            calls = [call for call in calls if all(self.in_window(call, window, None) for window in question.windows)]
        if question.where is not None:
            calls = [call for call in calls if self.holds(question.where, subject, call, parent)]
        if parent is not None:
            calls = [call for call in calls if call.order > parent.order]
            calls = [call for call in calls if all(self.in_window(call, window, parent) for window in question.windows)]
        if question.expires_after_ms is not None and not windows_aside:
            calls = self.session(calls, question.expires_after_ms)
        return calls

    def in_window(self, call: Call, window: tree.Window, parent: Call | None) -> bool:
        """Tell whether a call lies in a window of the kind that is asked about: before now, or after a parent."""
        if window.parent != (parent is not None):
            return True
        if parent is None:
            return self.at_ms - window.before_ms < call.event_ms <= self.at_ms - window.after_ms
        is_within = window.after_ms == 0 and not window.later  # within(parent: d): after the parent at all
        begun = is_within or call.event_ms > parent.event_ms + window.after_ms
        return begun and call.event_ms <= parent.event_ms + window.before_ms

    def session(self, calls: list[Call], gap_ms: int) -> list[Call]:
        """Return the latest run of events with gaps under `gap_ms`, none once that has passed since the last."""
        if not calls or self.at_ms - calls[-1].event_ms >= gap_ms:
            return []
        run = [calls[-1]]
        for call in reversed(calls[:-1]):
            if run[0].event_ms - call.event_ms >= gap_ms:
                break
            run.insert(0, call)
        return run

    def reduced(self, question: tree.Event, subject: Subject, parent: Call | None) -> Any:
        """Return the one value that the events that pass are reduced to."""
        asked = (subject.entity, id(subject.defined), id(question), 0 if parent is None else parent.seq)
        if asked not in self._reduced:
            self._reduced[asked] = subject.defined, question, self.reduced_anew(question, subject, parent)
        return self._reduced[asked][2]

    def reduced_anew(self, question: tree.Event, subject: Subject, parent: Call | None) -> Any:
        """Work out the one value that the events that pass are reduced to."""
        calls = self.passing(question, subject, parent)
        reducer = question.reducer
        if reducer.name == "count":
            return len(calls)
        assert reducer.of is not None
        values = [value_in(reducer.of, parent if reducer.of.parent else call) for call in calls]
        return reduce_values(reducer, [value for value in values if value is not None])


def entity_type_of(entity: Entity) -> str:
    """Return the type of definitions that are about an entity."""
    return "USERS" if entity.kind == "user" else "ACCOUNTS"


def is_asked_for(question: tree.Event, call: Call) -> bool:
    """Tell whether a call is of the kind, name, source and absolute time that a question is about."""
    kinds = SCREENED_CALLS if question.call == "any" else (question.call,)
    return (
        call.type in kinds
        and (question.name is None or call.name == question.name)
        and call.source not in question.exclude_sources
        and (question.since_ms is None or call.event_ms >= question.since_ms)
        and (question.until_ms is None or call.event_ms < question.until_ms)
    )


def value_in(of: tree.Property | tree.Context, call: Call | None) -> Any:
    """Return a property or context field of a call."""
    if call is None:
        return None
    return field(call.message, "properties" if isinstance(of, tree.Property) else "context", *of.path)
