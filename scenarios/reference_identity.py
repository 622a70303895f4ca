"""Which calls are taken, when they happened, and whose they are (contract, sections 1 and 2), from the first call on.

The plainest thing that could be right: every call is judged and matched in the order of the log, with lists and loops.
Shares nothing with the engine. Times are milliseconds since the epoch, UTC.
"""

import json
from collections.abc import Sequence
from typing import Any, Final
from typing import Literal as OneOf

import msgspec
from msgspec import Struct

from scenarios.reference_compare import instant_of, pattern_found, text_of

DAY_MS: Final = 24 * 60 * 60 * 1000
PERIODS_MS: Final = {"ever": None, "weekly": 7 * DAY_MS, "monthly": 30 * DAY_MS, "annually": 365 * DAY_MS}
EVENT_BYTES_MAX: Final = 32 * 1024  # contract, section 1
IDS_MAX: Final = 1_000  # contract, section 2: a profile takes at most so many
MERGES_MAX: Final = 100  # contract, section 2
ACCOUNT_MERGES_MAX: Final = 0  # an account's ids never join two accounts
DEVICE_FIELDS: Final = (("id", "id"), ("advertisingId", "idfa"), ("token", "push_token"))
SYSTEMS: Final = ("ios", "android")
OBJECTS: Final = ("properties", "context", "traits")
EPOCH_MS_LEAST: Final = 100_000_000_000  # a smaller number is no time in milliseconds
CALLS: Final = ("track", "page", "screen", "identify", "group", "alias")


class Received(Struct, frozen=True):
    """A tracking call as it came, with its place in the log."""

    seq: int
    received_ms: int
    source: str
    message: dict[str, Any]


class IdLimit(Struct, frozen=True):
    """How many values of an id type a profile may have, in which period."""

    values: int
    period: OneOf["ever", "weekly", "monthly", "annually"] = "ever"


class Blocked(Struct, frozen=True):
    """A value that never identifies: an exact one or a pattern, of one id type or of all."""

    value: str = ""
    pattern: str | None = None
    id_type: str | None = None


DEFAULT_BLOCKED: Final = (
    Blocked(""),
    Blocked("-1"),
    Blocked("null"),
    Blocked("anonymous"),
    Blocked(pattern="^[0-]*$"),
)


class Rules(Struct, frozen=True):
    """A space's identity settings."""

    blocked: tuple[Blocked, ...] = DEFAULT_BLOCKED
    limits: dict[str, IdLimit] = msgspec.field(default_factory=lambda: {"user_id": IdLimit(1)})
    limit_of_others: IdLimit = IdLimit(5)
    priority: tuple[str, ...] = ("user_id", "email")
    ids_max: int = IDS_MAX
    merges_max: int = MERGES_MAX
    dedupe_window_ms: int = DAY_MS


class Call(Struct, frozen=True):
    """A call that was taken: the message with its time and the ids it gives."""

    seq: int
    event_ms: int
    received_ms: int
    source: str
    type: str
    name: str
    message: dict[str, Any]
    user_ids: tuple[tuple[str, str], ...]
    account_ids: tuple[tuple[str, str], ...]

    @property
    def order(self) -> tuple[int, int]:
        """Return what events are ordered by."""
        return self.event_ms, self.seq


class Id(Struct):
    """An external id on an entity."""

    type: str
    value: str
    added_seq: int
    added_ms: int  # the time of the event that added it
    first_ms: int  # the time of the earliest event that carries it


class Entity:
    """A profile or an account: its ids in the order they were added, and its calls."""

    def __init__(self, kind: OneOf["user", "account"], number: int) -> None:
        self.kind = kind
        self.number = number  # the sequence of the first call: the oldest has the lowest
        self.ids: list[Id] = []
        self.calls: list[Call] = []
        self.merges = 0

    @property
    def name(self) -> str:
        """Return user_id (group_id for an account), else TYPE:VALUE of the first id."""
        for wanted in ("user_id",) if self.kind == "user" else ("group_id",):
            for known in self.ids:
                if known.type == wanted:
                    return known.value
        return f"{self.ids[0].type}:{self.ids[0].value}"

    def has(self, id_type: str, value: str) -> Id | None:
        """Return the id if the entity has it."""
        return next((known for known in self.ids if (known.type, known.value) == (id_type, value)), None)


class Refusal(Struct, frozen=True):
    """A call that was not taken, or an id that was not used, and why."""

    seq: int
    reason: str


class Identity(Struct, frozen=True):
    """Who is who after a number of calls."""

    users: list[Entity]
    accounts: list[Entity]
    rejected: list[Refusal]
    refused_ids: list[Refusal]


# -- one call ----------------------------------------------------------------------------------------------------------


def time_of(value: Any) -> int | None:
    """Return the time that a client wrote: ISO 8601 text, or milliseconds as a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if value >= EPOCH_MS_LEAST else None
    return instant_of(value)


def event_ms_of(message: dict[str, Any], received_ms: int) -> int:
    """Return when a call happened: corrected for clock skew, and never after its receipt."""
    original = time_of(message.get("originalTimestamp"))
    if original is None:
        original = time_of(message.get("timestamp"))
    if original is None:
        return received_ms
    sent = time_of(message.get("sentAt"))
    happened = original if sent is None else received_ms - (sent - original)
    return min(happened, received_ms)


def id_text(value: Any) -> str | None:
    """Return an id as text; None where there is none."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    return text_of(value)


def normal(id_type: str, value: Any) -> tuple[str, str] | None:
    """Return an id as it is compared: an email trimmed and lower-cased, all else exact."""
    text = id_text(value)
    if not text:  # an empty one is none at all
        return None
    return (id_type, text.strip().lower()) if id_type == "email" else (id_type, text)


def field(value: Any, *path: str) -> Any:
    """Return what lies at a path of objects, or None."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def traits_in(message: dict[str, Any]) -> dict[str, Any]:
    """Return the traits that a call writes: `traits`, and on an identify call those of the context beneath them."""
    own = field(message, "traits")
    written = dict(own) if isinstance(own, dict) else {}
    beneath = field(message, "context", "traits")
    if message.get("type") == "identify" and isinstance(beneath, dict):
        return {**beneath, **written}
    return written


def user_ids_in(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the external ids that a call gives of a user, in the order of the contract."""
    device = field(message, "context", "device")
    given: list[tuple[str, str] | None] = [
        normal("user_id", message.get("userId")),
        normal("anonymous_id", message.get("anonymousId")),
    ]
    if message.get("type") == "alias":
        given.append(normal("anonymous_id", message.get("previousId")))
    if message.get("type") != "group":
        given.append(normal("email", field(message, "traits", "email")))
    given.append(normal("email", field(message, "context", "traits", "email")))
    system = str(field(device, "type")).lower()
    for name, suffix in DEVICE_FIELDS if system in SYSTEMS else ():
        if suffix != "idfa" or field(device, "adTrackingEnabled") is True:
            given.append(normal(f"{system}.{suffix}", field(device, name)))
    given += external_ids_in(message, "users")
    return list(dict.fromkeys(one for one in given if one is not None))


def external_ids_in(message: dict[str, Any], collection: str) -> list[tuple[str, str] | None]:
    """Return the ids of `context.externalIds` that belong to a collection."""
    listed = field(message, "context", "externalIds")
    return [
        normal(one["type"].strip().lower(), one.get("id"))
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get("type"), str) and one.get("collection", "users") == collection
    ]


def account_ids_in(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the external ids that a group call gives of an account."""
    if message.get("type") != "group":
        return []
    given = [normal("group_id", message.get("groupId")), *external_ids_in(message, "accounts")]
    return list(dict.fromkeys(one for one in given if one is not None))


def is_blocked(known: tuple[str, str], rules: Rules) -> bool:
    """Tell whether an id never identifies anybody."""
    id_type, value = known
    return any(
        pattern_found(entry.pattern, value) if entry.pattern is not None else entry.value == value
        for entry in rules.blocked
        if entry.id_type in (None, id_type)
    )


def wrong_with(message: dict[str, Any]) -> str | None:
    """Return why a call is refused, whoever it is of; None if it is not."""
    call = message.get("type")
    if call not in CALLS:
        return f"no such type: {call!r}"
    if len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()) > EVENT_BYTES_MAX:
        return "too large"
    if call == "track" and not (isinstance(message.get("event"), str) and message["event"]):
        return "a track call needs an event"
    missing = [name for name in ("userId", "anonymousId", "groupId", "previousId") if not id_text(message.get(name))]
    if (call == "group" and "groupId" in missing) or (call == "alias" and "previousId" in missing):
        return f"{call} needs its id"
    if call != "group" and "userId" in missing and "anonymousId" in missing:
        return "needs userId or anonymousId"
    return wrong_field(message)


def wrong_field(message: dict[str, Any]) -> str | None:
    """Return which field of a call cannot be what it is, None if all can."""
    for name in OBJECTS:
        if not isinstance(message.get(name), dict | None):
            return f"{name} is no object"
    original = "timestamp" if message.get("originalTimestamp") is None else "originalTimestamp"
    if message.get(original) is None:  # the time of receipt counts, whatever else is written
        return None
    for name in (original, "sentAt"):
        if message.get(name) is not None and time_of(message[name]) is None:
            return f"unreadable {name}"
    return None


# -- all calls ---------------------------------------------------------------------------------------------------------


def identify(received: Sequence[Received], rules: Rules) -> Identity:
    """Return who is who after these calls, judged and matched one after the other."""
    result = Identity([], [], [], [])
    first_receipt_ms: dict[str, int] = {}
    for one in received:
        wrong = wrong_with(one.message)
        if wrong is not None:
            result.rejected.append(Refusal(one.seq, wrong))
            continue
        message_id = one.message.get("messageId")
        if isinstance(message_id, str) and message_id in first_receipt_ms:
            if one.received_ms - first_receipt_ms[message_id] < rules.dedupe_window_ms:
                continue
        reason = take(one, rules, result)
        if reason is not None:
            result.rejected.append(Refusal(one.seq, reason))
        elif isinstance(message_id, str):
            first_receipt_ms[message_id] = one.received_ms
    return result


def take(one: Received, rules: Rules, result: Identity) -> str | None:
    """Take a call into the identity, or return why it is refused."""
    message = one.message
    users, accounts = user_ids_in(message), account_ids_in(message)
    good_users = [known for known in users if not is_blocked(known, rules)]
    good_accounts = [known for known in accounts if not is_blocked(known, rules)]
    result.refused_ids.extend(
        Refusal(one.seq, "value_blocked") for known in users + accounts if is_blocked(known, rules)
    )
    if not good_users and not good_accounts:
        return "ids that are all blocked"
    name = message.get("event") if message["type"] == "track" else message.get("name")
    call = Call(
        seq=one.seq,
        event_ms=event_ms_of(message, one.received_ms),
        received_ms=one.received_ms,
        source=one.source,
        type=message["type"],
        name=name if isinstance(name, str) and message["type"] in ("track", "page", "screen") else "",
        message=message,
        user_ids=tuple(good_users),
        account_ids=tuple(good_accounts),
    )
    place(call, call.user_ids, result.users, "user", rules, result)
    place(call, call.account_ids, result.accounts, "account", rules, result)
    return None


def place(
    call: Call,
    ids: Sequence[tuple[str, str]],
    entities: list[Entity],
    kind: OneOf["user", "account"],
    rules: Rules,
    result: Identity,
) -> None:
    """Match a call by its ids, demoting the lowest one until no limit is broken, and put it on its entity."""
    about = "group_id" if kind == "account" else None  # what a group call is about goes first, whatever the rules
    trying = sorted(ids, key=lambda known: (known[0] != about, rank(known[0], rules), ids.index(known)))
    while trying:
        matched = [entity for entity in entities if any(entity.has(*known) for known in trying)]
        merges_max = rules.merges_max if kind == "user" else ACCOUNT_MERGES_MAX
        broken = broken_limit(call, trying, matched, rules, merges_max)
        if broken is None:
            entity = joined(matched, entities, kind, call)
            add(call, [known for known in ids if known in trying], entity)
            return
        result.refused_ids.append(Refusal(call.seq, broken))
        trying.pop()
    if ids:
        result.refused_ids.append(Refusal(call.seq, "no_matching_identifiers"))


def rank(id_type: str, rules: Rules) -> tuple[int, str]:
    """Return the priority of an id type: the listed ones in their order, then the rest alphabetically."""
    return (rules.priority.index(id_type), "") if id_type in rules.priority else (len(rules.priority), id_type)


def broken_limit(
    call: Call, trying: Sequence[tuple[str, str]], matched: Sequence[Entity], rules: Rules, merges_max: int
) -> str | None:
    """Return the name of the limit that a merge or an add would break, None if there is nothing or nothing breaks."""
    there = {(known.type, known.value): known.added_ms for entity in matched for known in entity.ids}
    if len(matched) == 1 and all(known in there for known in trying):
        return None
    together = {**dict.fromkeys(trying, call.event_ms), **there}
    for id_type in sorted({known[0] for known in together}):
        most = max((sum(known.type == id_type for known in entity.ids) for entity in matched), default=0)
        if sum(known[0] == id_type for known in together) <= most:
            continue  # nothing is added to it: a late event does not ask again about what is there
        limit = rules.limits.get(id_type, rules.limit_of_others)
        period_ms = PERIODS_MS[limit.period]
        counted = [
            known
            for known, added_ms in together.items()
            if known[0] == id_type and (period_ms is None or added_ms > call.event_ms - period_ms)
        ]
        if len(counted) > limit.values:
            return "value_limit_exceeded" if period_ms is None else "value_time_limit_exceeded"
    if len(matched) > 1 and sum(entity.merges for entity in matched) + len(matched) - 1 > merges_max:
        return "merge_limit_exceeded"
    return "id_limit_exceeded" if len(together) > rules.ids_max else None


def joined(matched: Sequence[Entity], entities: list[Entity], kind: OneOf["user", "account"], call: Call) -> Entity:
    """Return the one entity that a call belongs to: a new one, the one matched, or several made one."""
    if not matched:
        entity = Entity(kind, call.seq)
        entities.append(entity)
        return entity
    survivor, *absorbed = sorted(matched, key=lambda entity: entity.number)
    for other in absorbed:
        survivor.ids.extend(other.ids)
        survivor.calls.extend(other.calls)
        survivor.merges += other.merges + 1
        entities.remove(other)
    survivor.ids.sort(key=lambda known: known.added_seq)
    return survivor


def add(call: Call, ids: Sequence[tuple[str, str]], entity: Entity) -> None:
    """Put a call and its ids on an entity."""
    entity.calls.append(call)
    entity.calls.sort(key=lambda known: known.order)
    for id_type, value in ids:
        there = entity.has(id_type, value)
        if there is None:
            entity.ids.append(Id(id_type, value, call.seq, call.event_ms, call.event_ms))
        else:
            there.first_ms = min(there.first_ms, call.event_ms)
