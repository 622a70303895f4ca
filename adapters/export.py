"""An audience or computed trait as a CSV file: taken as of one moment, written off the event loop, memory flat.

The event loop only reads: some hundred records at a time, not looked into, are handed on as a *frame*. Whoever writes
takes them apart, makes lines of them (`export_format`), and does so in a thread for a small file, in a process of its
own (`export_job`) for a large one, so that the daemon takes events meanwhile as fast as ever. A reader that is ahead
waits: a pipe holds little. The file appears whole or not at all.
"""

import subprocess
import sys
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
from anyio.abc import Process
from msgspec import Struct

from actors.space_api import DefinitionView, SpaceApi
from adapters.export_format import ExportSpec, Format, Hash
from adapters.export_job import FRAME, Frame, Order, Outcome, encode_frame, write_csv
from eventlog.errors import LogError, LogFullError

__all__ = ["ExportSpec", "Format", "Hash", "Snapshot", "take_snapshot", "write_export"]

SLICE_ROWS: Final = 1_000  # read at once: about 1 ms of the event loop
HERE_ROWS_MAX: Final = 20_000  # that a thread writes in less time than a process takes to start
LAST_BYTES: Final = 2_000  # of what a dying process said


class Snapshot(Struct, frozen=True):
    """Who is in an export: entities in order, with values for a computed trait, as of one moment."""

    at_ms: int
    known_seq: int
    entities: Sequence[int]
    values: Sequence[Any] | None = None


async def take_snapshot(
    space: SpaceApi, view: DefinitionView, *, at_ms: int | None = None, known_ms: int | None = None
) -> Snapshot:
    """Return who is in the audience (or has a value of the trait) now, or as it was at and known then."""
    await space.settle()
    now_ms, known_seq = space.now()
    if known_ms is not None:
        known_seq = space.known_seq(known_ms)
    when_ms = now_ms if at_ms is None else at_ms
    if view.definition.kind == "audience":
        members = await space.members(view.definition.id, at_ms=at_ms, known_ms=known_ms)
        return Snapshot(when_ms, known_seq, [entity for entity, _ in members])
    pairs = await space.values(view.definition.id, at_ms=at_ms, known_ms=known_ms)
    return Snapshot(when_ms, known_seq, [entity for entity, _ in pairs], [value for _, value in pairs])


async def write_export(
    space: SpaceApi,
    view: DefinitionView,
    spec: ExportSpec,
    path: Path,
    *,
    snapshot: Snapshot | None = None,
    progress: Callable[[float], None] = lambda share: None,
    here_rows_max: int = HERE_ROWS_MAX,
) -> int:
    """Export to `path`, which appears whole or not at all, and return its lines without the header.

    `progress` gets the share done, 0-1. A snapshot taken before may be given; otherwise it is taken now. More rows than
    `here_rows_max` are written by a process. Raises LogError; LogFullError where there is no room for the file.
    """
    taken = snapshot or await take_snapshot(space, view)
    partial = path.with_suffix(".partial")
    order = Order(str(partial), spec, taken.known_seq, with_value=view.definition.kind == "trait")
    frames = _frames(space, taken, progress)
    try:
        async with aclosing(frames):
            if len(taken.entities) > here_rows_max:
                lines = await _in_process(order, frames)
            else:
                gathered = [frame async for frame in frames]
                lines = await anyio.to_thread.run_sync(_write, order, gathered)
        partial.replace(path)
        return lines
    finally:
        partial.unlink(missing_ok=True)


def _write(order: Order, frames: Iterable[bytes]) -> int:
    with Path(order.path).open("w+b") as out:
        return write_csv(order, frames, out)


async def _frames(space: SpaceApi, snapshot: Snapshot, progress: Callable[[float], None]) -> AsyncGenerator[bytes]:
    """Yield everybody of a snapshot, in short slices between which the event loop runs."""
    total = len(snapshot.entities)
    for start in range(0, total, SLICE_ROWS):
        entities = array("q", snapshot.entities[start : start + SLICE_ROWS])
        values = None if snapshot.values is None else list(snapshot.values[start : start + SLICE_ROWS])
        yield encode_frame(Frame(entities.tobytes(), space.packed_ids(entities), values))
        progress(min(total, start + SLICE_ROWS) / total)
        await anyio.lowlevel.checkpoint()


async def _in_process(order: Order, frames: AsyncIterator[bytes]) -> int:
    process = await anyio.open_process(
        [sys.executable, "-m", "adapters.export_job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a signal to the daemon's terminal is not for it: it ends with its input
    )
    try:
        assert process.stdin is not None
        # One that is gone already has said why, and is asked below.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await process.stdin.send(_framed(msgspec.msgpack.encode(order)))
            async for frame in frames:
                await process.stdin.send(_framed(frame))
            await process.stdin.send(_framed(b""))
        said = await _all_said(process)
        status = await process.wait()
        return _lines_of(said, status)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.aclose()


def _framed(raw: bytes) -> bytes:
    return FRAME.pack(len(raw)) + raw


async def _all_said(process: Process) -> bytes:
    assert process.stdout is not None
    said = bytearray()
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError):
        while True:
            said += await process.stdout.receive()
            del said[:-LAST_BYTES]
    return bytes(said)


def _lines_of(said: bytes, status: int) -> int:
    """Return how many lines a process has written. Raises what it failed with."""
    try:
        outcome = msgspec.json.decode(said, type=Outcome)
    except msgspec.MsgspecError:
        last = said.decode(errors="replace").strip()
        raise LogError(f"the process that wrote the export ended with status {status}: {last}") from None
    if outcome.failure:
        raise LogFullError(outcome.failure) if outcome.is_full else LogError(outcome.failure)
    return outcome.lines
