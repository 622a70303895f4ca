"""One `Range` of a download (RFC 9110, section 14): which bytes are wanted, or that there are none such."""

import re
from typing import Final

from msgspec import Struct

_ONE_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,100})\s*-\s*(\d{0,100})\s*", re.ASCII | re.IGNORECASE)


class Span(Struct, frozen=True):
    """Bytes `start` up to and without `stop`."""

    start: int
    stop: int


class UnsatisfiableError(Exception):
    """The range lies past the end: 416."""


def wanted_span(header: str | None, size_bytes: int) -> Span | None:
    """Return the bytes that a `Range` header asks for; None: the whole file.

    What is not one well-formed byte range is ignored, as the RFC lets a server do; several ranges are too.
    Raises UnsatisfiableError.
    """
    match = _ONE_RANGE.fullmatch(header) if header is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many
        length = int(match[2])
        if length == 0 or size_bytes == 0:
            raise UnsatisfiableError
        return Span(max(0, size_bytes - length), size_bytes)
    start = int(match[1])
    stop = int(match[2]) + 1 if match[2] else size_bytes
    if match[2] and stop <= start:
        return None
    if start >= size_bytes:
        raise UnsatisfiableError
    return Span(start, min(stop, size_bytes))
