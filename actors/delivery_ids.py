"""Which id values a profile is addressed by: id sync, from a profile's ids to one set of ids per call.

One call goes out per selected value of an id type other than email. The selected email travels with it, in
`traits.email` or `context.traits.email`: it says who the same person is, and is not a second entry. When there are more
emails than other values, the last other value is repeated with each further email; with no other value there is one
call per email. A profile that the setting selects nothing of is addressed by its newest anonymous id, else by its
newest id: a member is never untold in silence.

Where a value goes is its *slot*: userId, anonymousId, email or groupId for those types, the type's own name for all
others, and the name in `mapTo` where that is given.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from typing import Literal as OneOf

from msgspec import json

from actors.delivery import Ids, IdSync, Slot

IdValue = tuple[str, str]  # id type, value
DEFAULT_USERS: Final = (IdSync(external_id="email"), IdSync(external_id="user_id"))  # contract, section 5
DEFAULT_ACCOUNTS: Final = (IdSync(external_id="group_id"),)
SLOTS: Final = {
    "user_id": "userId",
    "userId": "userId",
    "anonymous_id": "anonymousId",
    "anonymousId": "anonymousId",
    "email": "email",
    "group_id": "groupId",
    "groupId": "groupId",
}


def slot_of(sync: IdSync) -> Slot:
    """Return where values of this setting go in a payload."""
    name = sync.map_to or sync.external_id
    return SLOTS.get(name, name)


def chosen(values: Sequence[str], strategy: OneOf["first", "last", "all"]) -> Sequence[str]:
    """Return the values (oldest first) that a strategy picks."""
    match strategy:
        case "first":
            return values[:1]
        case "last":
            return values[-1:]
        case "all":
            return values


def select(
    ids: Sequence[IdValue], id_sync: Sequence[IdSync] | None, collection: OneOf["users", "accounts"]
) -> tuple[Ids, ...]:
    """Return the ids of each call that a profile with these ids (oldest first) is owed."""
    defaults = DEFAULT_USERS if collection == "users" else DEFAULT_ACCOUNTS
    settings = defaults if id_sync is None else id_sync
    if collection == "accounts":
        settings = tuple(sync for sync in settings if sync.external_id == "group_id") or DEFAULT_ACCOUNTS
    carriers: list[tuple[Slot, str]] = []
    emails: list[tuple[Slot, str]] = []
    for sync in settings:
        slot = slot_of(sync)
        for value in chosen([value for id_type, value in ids if id_type == sync.external_id], sync.strategy):
            pairs = emails if slot == "email" else carriers
            if (slot, value) not in pairs:
                pairs.append((slot, value))
    if not carriers and not emails:
        return _fallback(ids)
    return tuple(_pair(carriers, emails))


def _pair(carriers: Sequence[tuple[Slot, str]], emails: Sequence[tuple[Slot, str]]) -> Iterable[Ids]:
    for index in range(max(len(carriers), len(emails))):
        pair = [some[min(index, len(some) - 1)] for some in (carriers, emails) if some]
        yield tuple(sorted(pair))


def _fallback(ids: Sequence[IdValue]) -> tuple[Ids, ...]:
    anonymous = [value for id_type, value in ids if id_type == "anonymous_id"]
    if anonymous:
        return ((("anonymousId", anonymous[-1]),),)
    if ids:
        id_type, value = ids[-1]
        return (((SLOTS.get(id_type, id_type), value),),)
    return ()


def newest_anonymous(ids: Sequence[IdValue]) -> str | None:
    """Return the newest anonymous id of a profile."""
    return next((value for id_type, value in reversed(ids) if id_type == "anonymous_id"), None)


def ids_key(ids: Ids) -> str:
    """Return a set of ids as text that can be a key."""
    return json.encode(ids).decode()


def ids_of_key(key: str) -> Ids:
    """Return the set of ids of such a key."""
    return json.decode(key, type=Ids)
