"""What folds read of a stored call: its event or name, properties, context and traits, and nothing else.

A body is decoded where it is looked at, often millions in a scan, so the decoder is typed and fields that nobody reads
are skipped unparsed. It is lenient: the door judged the call when it came, and a rule that is stricter today must not
make yesterday's log unreadable. A field of another type than expected counts as absent.
"""

from typing import Any

import msgspec
from msgspec import Struct

from eventlog.errors import LogError


class EventData(Struct, rename="camel", gc=False):
    """The parts of a call that definitions can look at; a field is None when the call has none."""

    event: str | None = None
    name: str | None = None
    properties: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None


_DECODE = msgspec.json.Decoder(EventData).decode
_DECODE_ANY = msgspec.json.Decoder().decode
_TYPES: dict[str, type] = {"event": str, "name": str, "properties": dict, "context": dict, "traits": dict}


def decode_data(body: bytes) -> EventData:
    """Return what can be looked at in a stored call; an erased event's empty body has nothing to look at."""
    try:
        return _DECODE(body)
    except msgspec.ValidationError:
        return _leniently(body)
    except msgspec.DecodeError as error:
        if not body:
            return EventData()
        raise LogError(f"the body of a stored event is not JSON: {error}") from error


def _leniently(body: bytes) -> EventData:
    """Keep the fields that have the type they should have."""
    call = _DECODE_ANY(body)
    if not isinstance(call, dict):
        return EventData()
    return EventData(**{name: call[name] for name, kind in _TYPES.items() if isinstance(call.get(name), kind)})
