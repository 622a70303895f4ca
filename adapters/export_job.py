"""The writing of an export's file, and the process that does it for a large one: `python -m adapters.export_job`.

In (standard input): `Order`, then frames, each with its length before it, and an empty one at the end; an input that
ends without it is a daemon that is gone, or a caller that has lost interest, and the end. Out: `Outcome` as JSON.

The columns of `formatted` are known only once everybody was seen. So lines are written with the columns known so far,
and what they were made of is laid aside. Mostly the first thousand people have every type of id there is, and that was
all; else the header and the lines that were written before the last column was known are made anew in the end. What is
laid aside lies in files that have no name: nothing is left of them however this ends.
"""

import gc
import os
import shutil
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import Struct

from actors.bulk_ids import known_ids
from adapters.export_format import Batch, ExportSpec, Widths, header, lines, widen
from eventlog.errors import LogFullError
from eventlog.sqlite_errors import log_error

NICENESS: Final = 10  # a tenth of a core that others want as well
COPIED_BYTES: Final = 1 << 20  # at once
FRAME: Final = struct.Struct("<Q")


class Order(Struct, frozen=True):
    """A file that is to be written."""

    path: str
    spec: ExportSpec
    known_seq: int  # who had which ids is told as of this sequence
    with_value: bool = False


class Frame(Struct, frozen=True, array_like=True):
    """Some people of an export: entities as 64-bit integers of this machine, `SpaceApi.packed_ids`, values."""

    entities: bytes
    records: bytes
    values: list[Any] | None = None


class Outcome(Struct, frozen=True, omit_defaults=True):
    """What a process tells in the end: how many lines follow the header, or what failed."""

    lines: int = 0
    failure: str = ""
    is_full: bool = False  # it failed for want of room


class _Part(Struct, frozen=True):
    """The lines of a frame that was laid aside."""

    columns: int  # that were known when they were made
    lines_bytes: int
    frame_at: int  # where the frame lies
    frame_bytes: int


encode_frame: Final = msgspec.msgpack.Encoder().encode
_decode_frame: Final = msgspec.msgpack.Decoder(Frame).decode


def write_csv(order: Order, frames: Iterable[bytes], out: BinaryIO) -> int:
    """Write the file and return how many lines follow the header. `out` is empty, and can be read as well."""
    if order.spec.format == "formatted":
        return _write_formatted(order, frames, out)
    out.write(header(order.spec, {}, with_value=order.with_value))
    total = 0
    for frame in frames:
        text, count = lines(order.spec, _batch(order, frame), {})
        out.write(text)
        total += count
    return total


def _write_formatted(order: Order, frames: Iterable[bytes], out: BinaryIO) -> int:
    widths: Widths = {}
    parts: list[_Part] = []
    total = kept_bytes = header_bytes = 0
    with TemporaryFile(dir=Path(order.path).parent) as kept:
        for frame in frames:
            batch = _batch(order, frame)
            shapes = batch.shapes()
            widen(widths, shapes)
            if not parts:
                header_bytes = out.write(header(order.spec, widths, with_value=order.with_value))
            text, count = lines(order.spec, batch, widths, shapes)
            out.write(text)
            kept.write(frame)
            parts.append(_Part(sum(widths.values()), len(text), kept_bytes, len(frame)))
            kept_bytes += len(frame)
            total += count
        # Columns are never forgotten: from the first part that had all of them on, every part has.
        narrow = [part for part in parts if part.columns < sum(widths.values())]
        if narrow:
            _widen_file(order, out, header_bytes, widths, narrow, kept)
        elif not parts:
            out.write(header(order.spec, widths, with_value=order.with_value))
    return total


def _widen_file(
    order: Order, out: BinaryIO, header_bytes: int, widths: Widths, narrow: list[_Part], kept: BinaryIO
) -> None:
    """Write the header and the lines of the `narrow` parts, the first of the file, with all columns."""
    with TemporaryFile(dir=Path(order.path).parent) as wide:
        out.seek(header_bytes + sum(part.lines_bytes for part in narrow))
        shutil.copyfileobj(out, wide, COPIED_BYTES)
        out.seek(0)
        out.truncate()
        out.write(header(order.spec, widths, with_value=order.with_value))
        for part in narrow:
            kept.seek(part.frame_at)
            out.write(lines(order.spec, _batch(order, kept.read(part.frame_bytes)), widths)[0])
        wide.seek(0)
        shutil.copyfileobj(wide, out, COPIED_BYTES)


def _batch(order: Order, frame: bytes) -> Batch:
    found = _decode_frame(frame)
    entities = array("q", found.entities)
    keys, ids = known_ids(found.records, entities, order.known_seq)
    return Batch(keys, ids, found.values)


# -- the process -----------------------------------------------------------------------------------------------------


def _frames(source: BinaryIO) -> Iterator[bytes]:
    while frame := _next(source):
        yield frame


def _next(source: BinaryIO) -> bytes:
    """Return the next frame; an input that ends within one, or before the empty one, ends the process."""
    head = source.read(FRAME.size)
    size = FRAME.unpack(head)[0] if len(head) == FRAME.size else None
    frame = b"" if size is None else source.read(size)
    if size is None or len(frame) < size:
        os._exit(1)
    return frame


def main() -> int:
    """Write one file."""
    os.nice(NICENESS)
    gc.disable()  # nothing here has cycles, and a batch makes thousands of small things
    source = sys.stdin.buffer
    order = msgspec.msgpack.decode(_next(source), type=Order)
    path = Path(order.path)
    try:
        with path.open("w+b") as out:
            outcome = Outcome(write_csv(order, _frames(source), out))
    except OSError as error:
        ours = log_error(error, path)
        outcome = Outcome(failure=str(ours), is_full=isinstance(ours, LogFullError))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    sys.stdout.buffer.flush()
    return 1 if outcome.failure else 0


if __name__ == "__main__":
    os._exit(main())  # nothing is left to tidy
