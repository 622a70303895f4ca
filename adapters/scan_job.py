"""What a daemon and its scan processes say to each other, and the process itself: `python -m adapters.scan_job`.

In (standard input): `Order` as a line of msgpack framed by its length, then who is who as 32-bit integers; the pipe
stays open as long as somebody wants the answer, and at its end the process ends at once, whatever it is doing: none
outlives its daemon. Out (standard output): pages of rows, each framed by its length. Beside (standard error): a line of
JSON a tenth of a second, `{"seq": …}`, and at the end what failed. Written for one job; the process is nice to others.
"""

import os
import select
import struct
import sys
import threading
from array import array
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from actors.scanning import Job, Page, scan
from eventlog.errors import LogError, LogFullError
from eventlog.sqlite import SqliteLog
from eventlog.sqlite_errors import log_error, our_errors
from eventlog.sqlite_file import SCAN_CACHE_KIB, check_ours, connect

NICENESS: Final = 10  # a tenth of a core that others want as well
BEAT_S: Final = 0.1
FRAME: Final = struct.Struct("<Q")


class Order(Struct, frozen=True):
    """A job, and the log to do it on."""

    path: str
    job: Job
    canonical_bytes: int  # that follow


class Word(Struct, frozen=True, omit_defaults=True):
    """What a process tells meanwhile: how far it has come, or what failed."""

    seq: int = 0
    failure: str = ""
    is_full: bool = False  # it failed for want of room


_encode_page = msgspec.msgpack.Encoder().encode
_decode_page = msgspec.msgpack.Decoder(list[tuple[int, int, object]]).decode


def framed(order: Order, canonical: "array[int]") -> bytes:
    """Return an order as it is sent."""
    head = msgspec.msgpack.encode(order)
    return FRAME.pack(len(head)) + head + canonical.tobytes()


def pages_of(file: BinaryIO) -> Iterator[Page]:
    """Yield the pages that a process has written to a file."""
    while head := file.read(FRAME.size):
        yield _decode_page(file.read(FRAME.unpack(head)[0]))


class _Heartbeat:
    """A thread that tells how far the scan has come, and ends the process once nobody listens any more."""

    def __init__(self) -> None:
        self.seq = 0
        threading.Thread(target=self._run, daemon=True).start()

    def hear(self, seq: int, /) -> None:
        self.seq = seq

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([0], [], [], BEAT_S)
            if readable and not os.read(0, 1):
                os._exit(1)
            say(Word(self.seq))


def say(word: Word) -> None:
    """Tell the daemon something; nobody there is the end."""
    try:
        os.write(2, msgspec.json.encode(word) + b"\n")
    except OSError:
        os._exit(1)


def main() -> int:
    """Do one job."""
    os.nice(NICENESS)
    source = open(0, "rb", buffering=0, closefd=False)
    order = msgspec.msgpack.decode(_exactly(source, FRAME.unpack(_exactly(source, FRAME.size))[0]), type=Order)
    canonical = array("I")
    canonical.frombytes(_exactly(source, order.canonical_bytes))
    heart = _Heartbeat()
    path = Path(order.path)
    try:
        with our_errors(path):
            reader = connect(path, SCAN_CACHE_KIB)
            check_ours(reader, path)
            log = SqliteLog(path, None, reader)
        for page in scan(order.job, log, canonical, heart.hear):
            raw = _encode_page(page)
            sys.stdout.buffer.write(FRAME.pack(len(raw)) + raw)
        sys.stdout.buffer.flush()
    except (LogError, OSError) as error:
        ours = log_error(error, path) if isinstance(error, OSError) else error
        say(Word(failure=str(ours), is_full=isinstance(ours, LogFullError)))
        return 1
    return 0


def _exactly(source: FileIO, count: int) -> bytes:
    """Read so many bytes; fewer are the end of who wanted this."""
    parts = bytearray()
    while len(parts) < count:
        part = source.read(min(count - len(parts), 1 << 20))
        if not part:
            os._exit(1)
        parts += part
    return bytes(parts)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # nothing is left to tidy: no second spent on letting go of a million small things
