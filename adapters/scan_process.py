"""Scans in processes of their own, so that the daemon takes events meanwhile as fast as ever.

What a process finds goes to a file without a name in the data directory, and is handed on only once all of it is there:
a process that dies half-way leaves nothing behind and is started again, so nothing is counted twice; and the file goes
by itself, however the daemon ends. Few run at a time, the others wait in order. Who is cancelled kills its process; a
process whose daemon is gone notices that its input has ended. A small log is scanned at once, in a thread.
"""

import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final

import anyio
import msgspec
import structlog
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from actors.history import Progress, unheard
from actors.scanning import HERE, Backfill, Job, Page
from adapters.scan_job import Order, Word, framed, pages_of
from eventlog.errors import LogError, LogFullError
from eventlog.log import Log
from eventlog.sqlite import SqliteLog
from eventlog.sqlite_errors import our_errors

BACKFILLS_MAX: Final = 1  # that run at a time, of all spaces
QUESTIONS_MAX: Final = 2
HERE_ENTRIES_MAX: Final = 10_000  # of a log that a thread goes through in less time than a process takes to start
TRIES: Final = 3  # of a job whose process died
SILENT_S_MAX: Final = 60.0  # without a heartbeat, which comes ten times a second: then it hangs
LINE_BYTES_MAX: Final = 64 * 1024
LAST_LINES: Final = 5  # of what a dying process said, for the log

log = structlog.get_logger("turnout.scans")


class ScanProcesses:
    """Scans of logs that lie in files, each in a process of its own (see `actors.scanning.Scans`)."""

    def __init__(self, here_entries_max: int = HERE_ENTRIES_MAX) -> None:
        """Scan up to so many entries of a log in a thread."""
        self._here_entries_max = here_entries_max
        self._backfills = anyio.CapacityLimiter(BACKFILLS_MAX)
        self._questions = anyio.CapacityLimiter(QUESTIONS_MAX)
        self.pids: set[int] = set()  # of those that run

    @asynccontextmanager
    async def run(
        self, store: Log, job: Job, canonical: "array[int]", hear: Progress = unheard
    ) -> AsyncIterator[Iterable[Page]]:
        """Scan, then lend the rows while the block lasts."""
        if not isinstance(store, SqliteLog) or job.until_seq <= self._here_entries_max:
            async with HERE.run(store, job, canonical, hear) as pages:
                yield pages
            return
        with our_errors(store.path):
            found = tempfile.TemporaryFile(dir=store.path.parent, prefix=".scan-")
        with found:
            async with self._backfills if isinstance(job, Backfill) else self._questions:
                await self._scanned(store.path, job, canonical, hear, found)
            found.seek(0)
            yield pages_of(found)

    async def _scanned(self, path: Path, job: Job, canonical: "array[int]", hear: Progress, found: IO[bytes]) -> None:
        order = framed(Order(str(path), job, len(canonical) * canonical.itemsize), canonical)
        kind = "backfill" if isinstance(job, Backfill) else "question"
        for attempt in range(1, TRIES + 1):
            found.seek(0)
            found.truncate()
            began_s = time.perf_counter()
            ended, last = await self._attempt(order, hear, found, kind)
            if ended == 0:
                seconds = round(time.perf_counter() - began_s, 3)
                log.info("scan_ended", kind=kind, until_seq=job.until_seq, seconds=seconds, result_bytes=_size(found))
                return
            log.warning("scan_died", kind=kind, status=ended, attempt=attempt, attempts=TRIES, said=last)
        raise LogError(f"{path}: the process that scanned it ended with status {ended}, {TRIES} times: {last}")

    async def _attempt(self, order: bytes, hear: Progress, found: IO[bytes], kind: str) -> tuple[int, str]:
        """Return how a process ended, and the last it said; what it says of the log is raised."""
        said: deque[str] = deque(maxlen=LAST_LINES)
        process = await anyio.open_process(
            [sys.executable, "-m", "adapters.scan_job"],
            stdin=subprocess.PIPE,
            stdout=found,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a signal to the daemon's terminal is not for it: it ends with its input
        )
        self.pids.add(process.pid)
        log.info("scan_started", kind=kind, pid=process.pid)
        try:
            assert process.stdin is not None
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                await process.stdin.send(order)
            await _listen(process, hear, said)
            return await process.wait(), " | ".join(said)
        finally:
            self.pids.discard(process.pid)
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                await process.aclose()


async def _listen(process: Process, hear: Progress, said: "deque[str]") -> None:
    """Hear what a process says until it has nothing more to say, or says nothing for too long."""
    assert process.stderr is not None
    lines = BufferedByteReceiveStream(process.stderr)
    while True:
        try:
            with anyio.fail_after(SILENT_S_MAX):
                line = await lines.receive_until(b"\n", LINE_BYTES_MAX)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError):
            return
        except (TimeoutError, anyio.DelimiterNotFound):
            said.append(f"no word for {SILENT_S_MAX:.0f} s")
            process.kill()
            return
        try:
            word = msgspec.json.decode(line, type=Word)
        except msgspec.MsgspecError:
            said.append(line.decode(errors="replace")[:500])  # the interpreter's own last words
            continue
        if word.failure:
            raise LogFullError(word.failure) if word.is_full else LogError(word.failure)
        hear(word.seq)


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size
