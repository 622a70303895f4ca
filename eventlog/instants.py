"""ISO 8601 text to milliseconds since the epoch (UTC) and back: the one place that reads and writes dates.

A date alone is its midnight, a time without a zone is UTC (contract, sections 1 and 3). Anything finer than a
millisecond is cut off. Week dates, ordinal dates and the basic format are not taken.
"""

import re
from datetime import UTC, datetime

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:[.,](\d{1,9}))?\s?(?:([Zz])|([+-]\d\d)(?::?(\d\d))?)?)?\Z",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant_ms(text: str) -> int | None:
    """Return the instant that an ISO 8601 date or time names, or None if it is not one."""
    found = _ISO.match(text.strip())
    if found is None:
        return None
    date, minutes, seconds, fraction, _, hours_off, minutes_off = found.groups()
    if fraction is not None and seconds is None:
        return None
    zone = f"{hours_off}:{minutes_off or '00'}" if hours_off else "+00:00"
    try:
        moment = datetime.fromisoformat(f"{date}T{minutes or '00:00'}{seconds or ':00'}{zone}")
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86_400 + since.seconds) * 1000 + int((fraction or "0").ljust(3, "0")[:3])


def iso(instant: int) -> str:
    """Return `YYYY-MM-DDTHH:MM:SS.mmmZ` for milliseconds since the epoch."""
    moment = datetime.fromtimestamp(instant // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant % 1000:03d}Z"
