"""The sample data: six weeks of a real shop, moved in time so that they end when they are asked to.

`data/online-retail.ndjson.gz` holds them as they were (1 Dec 2010 to 9 Jan 2011); data/README.md tells what they are
and where they come from. Every message keeps its distance in time to every other. Times are ms since the epoch, UTC.
"""

import gzip
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from eventlog.instants import instant_ms, iso

FILE: Final = Path(__file__).parent / "data" / "online-retail.ndjson.gz"
END_MS: Final = 1_294_587_120_000  # 2011-01-09T15:32:00Z, the last message

_TIME_IS: Final = b'"timestamp":"'
_TIME_CHARS: Final = len("2011-01-09T15:32:00.000Z")


def messages() -> list[bytes]:
    """Return the messages as JSON, in order of time."""
    return gzip.decompress(FILE.read_bytes()).splitlines()


def moved(lines: Iterable[bytes], by_ms: int) -> Iterator[bytes]:
    """Yield the messages with their timestamps moved."""
    known: dict[bytes, bytes] = {}  # all lines of an invoice share their minute
    for line in lines:
        start = line.index(_TIME_IS) + len(_TIME_IS)
        old = line[start : start + _TIME_CHARS]
        new = known.get(old)
        if new is None:
            was_ms = instant_ms(old.decode())
            assert was_ms is not None, old
            new = known[old] = iso(was_ms + by_ms).encode()
        yield line[:start] + new + line[start + _TIME_CHARS :]


def dated(lines: Iterable[bytes], at_ms: int) -> list[bytes]:
    """Return the messages as if all of them happened at one moment."""
    time = iso(at_ms).encode()
    starts = ((line, line.index(_TIME_IS) + len(_TIME_IS)) for line in lines)
    return [line[:start] + time + line[start + _TIME_CHARS :] for line, start in starts]


def invoices(lines: Iterable[bytes]) -> list[list[bytes]]:
    """Return the messages by invoice: what a customer did in one go. A message's id is its invoice's and a number."""
    return [list(group) for _, group in groupby(lines, key=_invoice_of)]


def _invoice_of(line: bytes) -> bytes:
    start = line.index(b'"messageId":"') + len(b'"messageId":"')
    return line[start : line.index(b'"', start)].rpartition(b"-")[0]
