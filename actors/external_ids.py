"""External ids: what a tracking call says about who it is from (contract, section 2).

Pure extraction, no rules: which ids may identify is decided in `identity.py`. Values are exact, with two exceptions. An
email is trimmed and lower-cased; a number becomes its text (`5.0` is `5`). No Unicode normalisation: `é` as one code
point and as two are different ids. Types of `context.externalIds` are trimmed and lower-cased.

An id that cannot be used as it stands (too long, of a wrong shape) is not dropped in silence: it is returned with a
`refusal`, never matches anything, and is recorded as refused on the profile that the call goes to.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol
from typing import Literal as OneOf

from msgspec import Struct

from actors.conditions.values import text_of
from eventlog.entries import ALIAS, GROUP

Collection = OneOf["users", "accounts"]

VALUE_CHARS_MAX: Final = 1000  # ours: the longest push token seen is under 300, an email is at most 254 (RFC 5321)
TYPE_CHARS_MAX: Final = 100  # ours: as messageId (features, Tracking API)
IDS_PER_CALL_MAX: Final = 50  # ours: bounds the matching of one call; a stock client sends at most 6
REFUSED_VALUE_CHARS: Final = 100  # ours: what is kept of a value that is too long or no text

VALUE_BLOCKED: Final = "value_blocked"
ID_LIMIT_EXCEEDED: Final = "id_limit_exceeded"

_TYPE = re.compile(r"[^\s:/]+\Z")  # `type:value` and paths must stay readable
_PLATFORMS: Final = ("ios", "android")


class ExternalId(Struct, frozen=True, gc=False):
    """One external id of a call."""

    collection: Collection
    id_type: str
    value: str
    encoding: str = "none"
    refusal: str = ""  # not empty: unusable as it stands, and the contract's name for why


class TrackingCall(Protocol):
    """What is read of a tracking call; ids may be text or numbers, traits and context objects or None."""

    @property
    def user_id(self) -> Any:
        """`userId`."""

    @property
    def anonymous_id(self) -> Any:
        """`anonymousId`."""

    @property
    def previous_id(self) -> Any:
        """`previousId` of an alias call."""

    @property
    def group_id(self) -> Any:
        """`groupId` of a group call."""

    @property
    def traits(self) -> Any:
        """`traits`."""

    @property
    def context(self) -> Any:
        """`context`."""


def normal_value(id_type: str, value: str) -> str:
    """Return the value as it is stored and looked up: an email trimmed and lower-cased, all else exact."""
    return value.strip().lower() if id_type == "email" else value


def ids_of_message(message: TrackingCall, kind: int = 0) -> list[ExternalId]:
    """Return the external ids of a call (of kind entries.TRACK, …), each once, in the order of the contract's list.

    The traits of a group call are the account's: their email is nobody's. The group's own id is `group_of_message`.
    """
    context = message.context if isinstance(message.context, dict) else {}
    found = [_id("user_id", message.user_id), _id("anonymous_id", message.anonymous_id)]
    if kind == ALIAS:
        found.append(_id("anonymous_id", message.previous_id))
    if kind != GROUP:
        found.append(_email(message.traits))
    if context:
        found.append(_email(context.get("traits")))
        found.extend(_of_device(context.get("device")))
        found.extend(_of_external_ids(context.get("externalIds")))
    return _once([one for one in found if one is not None])


def group_of_message(message: TrackingCall, kind: int) -> ExternalId | None:
    """Return the account's id of a group call; other calls say nothing about accounts."""
    return _id("group_id", message.group_id, collection="accounts") if kind == GROUP else None


def _id(id_type: str, value: Any, *, collection: Collection = "users", encoding: str = "none") -> ExternalId | None:
    """Return an id, None where nothing is given, a refused one where what is given cannot be an id."""
    if value is None:
        return None
    if type(value) is str and len(value) <= VALUE_CHARS_MAX and id_type != "email":  # nearly all of them
        return ExternalId(collection, id_type, value, encoding)
    text = None if type(value) is bool else text_of(value)
    if text is None:
        return ExternalId(collection, id_type, f"({type(value).__name__})", encoding, VALUE_BLOCKED)
    if id_type == "email":
        text = normal_value(id_type, text)
    if len(text) > VALUE_CHARS_MAX:
        return ExternalId(collection, id_type, text[:REFUSED_VALUE_CHARS], encoding, VALUE_BLOCKED)
    return ExternalId(collection, id_type, text, encoding)


def _email(traits: Any) -> ExternalId | None:
    return _id("email", traits.get("email")) if isinstance(traits, dict) else None


def _of_device(device: Any) -> Iterator[ExternalId | None]:
    if not isinstance(device, dict):
        return
    platform = device.get("type")
    platform = platform.lower() if isinstance(platform, str) else ""
    if platform not in _PLATFORMS:
        return
    yield _id(f"{platform}.id", device.get("id"))
    if device.get("adTrackingEnabled") is True:
        yield _id(f"{platform}.idfa", device.get("advertisingId", device.get("idfa")))
    yield _id(f"{platform}.push_token", device.get("token"))


def _of_external_ids(listed: Any) -> Iterator[ExternalId | None]:
    """Yield the ids of `context.externalIds`; `collection` may be left out (users), `encoding` too (none)."""
    if listed is None:
        return
    if not isinstance(listed, list):
        yield ExternalId("users", "externalIds", f"({type(listed).__name__})", "none", VALUE_BLOCKED)
        return
    for item in listed:
        yield _of_external_id(item)


def _of_external_id(item: Any) -> ExternalId | None:
    if not isinstance(item, dict):
        return ExternalId("users", "externalIds", f"({type(item).__name__})", "none", VALUE_BLOCKED)
    id_type, collection, encoding = item.get("type"), item.get("collection", "users"), item.get("encoding", "none")
    id_type = id_type.strip().lower() if isinstance(id_type, str) else ""
    if len(id_type) > TYPE_CHARS_MAX or _TYPE.match(id_type) is None:
        return ExternalId("users", "externalIds", f"type {id_type[:REFUSED_VALUE_CHARS]!r}", "none", VALUE_BLOCKED)
    if collection not in ("users", "accounts") or not isinstance(encoding, str) or len(encoding) > TYPE_CHARS_MAX:
        return ExternalId("users", id_type, "(collection or encoding)", "none", VALUE_BLOCKED)
    one = _id(id_type, item.get("id"), collection=collection, encoding=encoding)
    return one or ExternalId(collection, id_type, "(no id)", encoding, VALUE_BLOCKED)


def _once(found: list[ExternalId]) -> list[ExternalId]:
    """Keep the first of equal ids; those beyond the bound are refused."""
    if len(found) < 2:
        return found
    first: dict[tuple[str, str, str, str], ExternalId] = {}
    for one in found:
        first.setdefault((one.collection, one.id_type, one.value, one.refusal), one)
    kept = list(first.values())
    if len(kept) <= IDS_PER_CALL_MAX:
        return kept
    beyond = kept[IDS_PER_CALL_MAX:]
    return kept[:IDS_PER_CALL_MAX] + [
        ExternalId(one.collection, one.id_type, one.value, one.encoding, one.refusal or ID_LIMIT_EXCEEDED)
        for one in beyond
    ]
