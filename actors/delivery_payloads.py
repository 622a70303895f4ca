"""Calls as tracking-API messages, byte for byte what the contract's section 5 shows, and their message ids.

A message id is made of what caused the call (connection, log entry) and of whom it is for: the same call has the same
id whenever it is sent again, also after a restart. Its stem, up to the entry, is shared by all calls of one change; a
call sent again because the profile gained an id has that change's stem too.
"""

from hashlib import blake2b
from typing import Any, Final

from actors.delivery import Call, CallKind, ConnectionSettings, Ids
from actors.delivery_ids import ids_key
from eventlog.instants import iso

ENTERED: Final = "Audience Entered"  # contract, section 5
EXITED: Final = "Audience Exited"
COMPUTED: Final = "Trait Computed"


def message_id(connection: str, refill: int, seq: int, kind: CallKind, entity: int, ids: Ids) -> str:
    """Return the message id of a call: at most 100 characters, as the tracking API asks."""
    whom = blake2b(f"{entity}|{ids_key(ids)}".encode(), digest_size=8).hexdigest()
    again = f"-r{refill}" if refill else ""
    return f"{connection}-{seq}{again}-{kind}-{whom}"


def event_name(settings: ConnectionSettings, computation_class: str, value: Any) -> str:
    """Return the name of the track call for a change."""
    if computation_class == "trait":
        return settings.computed_event_name or COMPUTED
    return (settings.entered_event_name or ENTERED) if value else (settings.exited_event_name or EXITED)


def payload(call: Call) -> dict[str, Any]:
    """Return a call as a tracking-API message."""
    personas = {
        "computation_class": call.computation_class,
        "computation_id": call.definition,
        "computation_key": call.key,
        "namespace": call.space,
        "space_id": call.space,
    }
    context: dict[str, Any] = {"personas": personas}
    known = {"email": call.email} if call.email is not None else {}
    known.update(call.others)
    if call.others:
        context["externalIds"] = [
            {"id": value, "type": name, "collection": "users", "encoding": "none"} for name, value in call.others
        ]
    message: dict[str, Any] = {"type": "identify" if call.kind == "member" else call.kind}
    if call.user_id is not None:
        message["userId"] = call.user_id
    if call.anonymous is not None and (call.user_id is None or call.id_in("anonymousId")):
        message["anonymousId"] = call.anonymous
    if call.kind == "group":
        message["groupId"] = call.group_id
    if call.kind == "track":
        message["event"] = call.event
        message["properties"] = {f"{call.computation_class}_key": call.key, call.key: call.value}
        if known:
            context["traits"] = known
    else:
        message["traits"] = {**known, call.key: call.value}
    return {**message, "context": context, "timestamp": iso(call.at_ms), "messageId": call.id}
