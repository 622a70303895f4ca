"""The door: a raw tracking call becomes an accepted message or a refusal with its reason.

Pure: the time of receipt, the source and new ids are arguments. Nothing behind the door checks shapes again.
Times are milliseconds since the epoch, UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from actors.external_ids import ExternalId
    from eventlog.messages import EventData


class Incoming(Struct, frozen=True, gc=False):
    """A tracking call that was found good, with all that later steps need decoded once."""

    kind: int  # entries.TRACK, …
    name: str  # track: the event; page and screen: the call's name or ""; else ""
    message_id: str
    event_ms: int  # corrected for skew, never after the time of receipt
    received_ms: int
    ids: tuple[ExternalId, ...]  # what it says about a user, in order
    group: ExternalId | None  # the account of a group call
    data: EventData  # its properties, context and traits
    body: bytes  # the call as JSON, as it came, with what its batch shared put in
    index: int = 0  # its place in the batch
