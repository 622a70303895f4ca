"""A request's body, read within bounds: so many bytes, unpacked or not (in how many seconds, `server.py` sees to).

Nothing grows with what a client sends: a body that is announced too large is not read, one that turns out so is left at
the first piece beyond the bound, a gzip bomb is unpacked up to the bound and no further.
"""

import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from eventlog.errors import InvalidError, RefusedError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

DRAINED_BYTES_MAX: Final = 8 * 1024 * 1024  # what the server reads and drops so that a client gets to see its refusal
_GZIP_WINDOW: Final = 31  # zlib's number for "gzip, largest window"


class ClientGoneError(Exception):
    """The client went away before its request was whole; nobody is left to answer."""


class CallError(RefusedError):
    """A call that is refused with a status and headers of its own."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(code, message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, *, bytes_max: int) -> bytes:
    """Return a request's body, unpacked. Raises RefusedError, ClientGoneError."""
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > bytes_max:
        raise _too_large(bytes_max, closing=int(announced) > DRAINED_BYTES_MAX)
    body = await _whole_body(receive, bytes_max)
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"gzip", b"x-gzip"):
        return inflate(body, bytes_max)
    if encoding not in (b"", b"identity"):
        found = encoding[:100].decode("latin-1")
        raise CallError(415, "unsupported_encoding", f"found Content-Encoding {found!r}, expected gzip")
    return body


def inflate(packed: bytes, bytes_max: int) -> bytes:
    """Unpack gzip, of one member or several. Raises RefusedError for what is no gzip, cut off, or too large."""
    pieces: list[bytes] = []
    size = 0
    while packed:
        member = zlib.decompressobj(_GZIP_WINDOW)
        try:
            pieces.append(member.decompress(packed, bytes_max + 1 - size))
        except zlib.error as error:
            raise CallError(400, "invalid_encoding", f"the body is not gzip as its header says: {error}") from None
        size += len(pieces[-1])
        if size > bytes_max:
            raise _too_large(bytes_max)
        if not member.eof:
            raise CallError(400, "invalid_encoding", "the gzip body is cut off")
        packed = member.unused_data.lstrip(b"\0")  # padding after the last member is allowed
    return b"".join(pieces)


async def _whole_body(receive: Receive, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > bytes_max:
            raise _too_large(bytes_max)
        if not message.get("more_body", False):
            return b"".join((*pieces, piece)) if pieces else piece
        pieces.append(piece)


def _too_large(bytes_max: int, *, closing: bool = False) -> RefusedError:
    message = f"the body has more than {bytes_max} bytes (unpacked). Nothing was taken: send several batches"
    if closing:
        return CallError(400, "batch_too_large", message, connection="close")
    return InvalidError("batch_too_large", message)
