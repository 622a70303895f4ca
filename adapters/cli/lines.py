"""Lines of an NDJSON file, plain or packed, in blocks that tell how much of the file is read.

What a file is packed with is told by its first bytes, not its name, so that standard input works as a file does. Only
one block is ever in memory, and a line has a bound: of a longer one the beginning is kept, to say which it was.
"""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, cast

import zstandard
from msgspec import Struct

from eventlog.errors import TurnoutError

BLOCK_BYTES: Final = 1 << 20  # read at once: some thousand messages, the size of a good commit
LINE_BYTES_MAX: Final = 1 << 20  # far above the largest event (32 KB); bounds memory on a file that has no lines
GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
MAGIC_BYTES: Final = 4
ZSTD_PIECE_BYTES: Final = 4096  # unpacked at once; a block of 4 bytes can stand for 128 KB, so this bounds it to 128 MB


class UnreadableFileError(TurnoutError):
    """A file to import cannot be read. Says which, how far it was read, and why."""

    def __init__(self, name: str, read_bytes: int, why: str) -> None:
        super().__init__(f"{name}: cannot be read after {read_bytes:,} bytes: {why}")


class Block(Struct, frozen=True):
    """Some lines of a file, without their line ends."""

    first_line: int  # the number of its first line, from 1
    lines: list[bytes]
    read_bytes: int  # of the file as it lies on disk, up to here


def size_bytes(name: str) -> int | None:
    """Return the size of a file on disk, None for standard input or a pipe."""
    if name == "-":
        return None
    path = Path(name)
    return path.stat().st_size if path.is_file() else None


def blocks(name: str) -> Iterator[Block]:
    """Yield the lines of a file, or of standard input for "-".

    Raises:
        UnreadableFileError: It is not there, or what it is packed with is torn.
    """
    read_bytes = 0
    try:
        with ExitStack() as opened:
            raw = _Counted(sys.stdin.buffer if name == "-" else opened.enter_context(Path(name).open("rb")))
            first_line = 1
            for lines in _split(_unpacked(io.BufferedReader(raw, BLOCK_BYTES))):
                read_bytes = raw.read_bytes
                yield Block(first_line, lines, read_bytes)
                first_line += len(lines)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableFileError("standard input" if name == "-" else name, read_bytes, why) from error


class _Counted(io.RawIOBase):
    """A binary file that counts what was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stubs' Buffer has no length
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.read_bytes += len(data)
        return len(data)


class _ZstdFrames(io.RawIOBase):
    """Zstandard frames, one behind the other; unlike the library's reader it notices a torn last one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stubs' Buffer has no length
        while not self._plain:
            self._packed = self._packed or self._file.read(ZSTD_PIECE_BYTES)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._plain = memoryview(self._frame.decompress(self._packed))
            self._packed = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        taken = min(len(buffer), len(self._plain))
        buffer[:taken] = self._plain[:taken]
        self._plain = self._plain[taken:]
        return taken


def _unpacked(file: io.BufferedReader) -> BinaryIO:
    """Return the file's content, whatever it is packed with."""
    magic = file.peek(MAGIC_BYTES)[:MAGIC_BYTES]
    if magic.startswith(GZIP_MAGIC):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if magic == ZSTD_MAGIC:
        return cast(BinaryIO, io.BufferedReader(_ZstdFrames(file), BLOCK_BYTES))
    return file


def _split(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield lists of whole lines, empty ones too (they count), cutting those above the bound."""
    pending = b""  # a line whose end was not read yet
    while chunk := file.read(BLOCK_BYTES):
        lines = (pending + chunk).split(b"\n")
        pending = lines.pop()[: LINE_BYTES_MAX + 1]
        if lines:
            yield [_bounded(line) for line in lines]
    if pending:
        yield [_bounded(pending)]


def _bounded(line: bytes) -> bytes:
    return line[: LINE_BYTES_MAX + 1].rstrip(b"\r")
