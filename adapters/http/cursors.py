"""Cursors: where a page of a list begins, opaque to clients, and refused unless this data directory made them.

A cursor is its list's name and the key of an item, with a keyed hash of both before them. What a client made up, cut
short or took from another list is an error with a name, never an empty page. The key is kept in the data directory, so
that paging goes on over a restart.
"""

import base64
import binascii
from hashlib import blake2b
from hmac import compare_digest
from secrets import token_bytes
from typing import Any, Final, TypeVar

import msgspec

from eventlog.errors import InvalidError

KEY_BYTES: Final = 32
SEAL_BYTES: Final = 12  # 96 bits: out of reach of trying
CURSOR_CHARS_MAX: Final = 2_000  # ours are under 300; more is not a cursor

T = TypeVar("T")
Key = int | str


class Cursors:
    """What makes cursors and reads them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, kind: str, *values: Key | None) -> str:
        """Return an opaque cursor of the list `kind`."""
        raw = msgspec.json.encode((kind, *values))
        return base64.urlsafe_b64encode(self._seal(raw) + raw).decode().rstrip("=")

    def decode(self, cursor: str, kind: str, shape: type[T]) -> T:
        """Return what a cursor of the list `kind` holds, as the tuple type `shape`. Raises InvalidError."""
        try:
            if len(cursor) > CURSOR_CHARS_MAX:
                raise ValueError(len(cursor))
            text = cursor.rstrip("=")
            found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            raw = found[SEAL_BYTES:]
            if not compare_digest(found[:SEAL_BYTES], self._seal(raw)):
                raise ValueError("not ours")
            named, *values = msgspec.json.decode(raw, type=list[Any])
            if named != kind:
                raise ValueError(named)
            return msgspec.convert(tuple(values), shape)
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            raise InvalidError(
                "invalid_pagination",
                "pagination[cursor] is not a cursor of this list; leave it out for the first page, then send `next`",
                field="pagination[cursor]",
            ) from None

    def _seal(self, raw: bytes) -> bytes:
        return blake2b(raw, key=self._key, digest_size=SEAL_BYTES).digest()


OF_THIS_PROCESS: Final = Cursors(token_bytes(KEY_BYTES))
"""Cursors that die with the process, for pages that nobody hands on."""
