"""A data directory, opened by this process: the control plane, and every space running.

The daemon and the command line open it alike. Each space is kept by a task of its own, which opens it, moves its time,
and closes it: a space may be created by any request and still be closed by the task that opened it.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from actors.control import Control, FirstStart
from actors.scanning import HERE, Scans
from actors.space import Space, open_space
from eventlog.clock import Clock, SimulatedClock
from eventlog.datadir import DataDir
from eventlog.entries import SpaceRecord
from eventlog.errors import LogCorruptError, LogError, NotFoundError
from eventlog.log import META, Changes, Key, Log
from eventlog.sqlite import SqliteLog
from eventlog.sqlite_file import Durability

TICK_S: Final = 0.1  # a window's end is noticed within this; the contract allows a second (section 3)
RETRY_S: Final = 1.0  # after a tick that could not be stored
KEY_BYTES: Final = 32
_SUPPRESSION_KEY: Final = ("suppression_key",)
_CURSOR_KEY: Final = ("cursor_key",)

Beside = Callable[[Space], AbstractAsyncContextManager[None]]

log = structlog.get_logger(__name__)


class OpenData:
    """What an open data directory holds."""

    def __init__(
        self,
        folder: DataDir,
        store: Log,
        control: Control,
        clock: Clock,
        entropy: Callable[[int], bytes],
        durability: Durability,
        tasks: TaskGroup,
        beside: Beside,
        scans: Scans,
        first: FirstStart | None,
        cursor_key: bytes,
    ) -> None:
        """Use `open_data`."""
        self.path = folder.path
        self.exports_path = folder.exports_path
        self.first = first  # the secrets made by a first start
        self.cursor_key = cursor_key
        self.control = control
        self.clock = clock
        self.lag_ms: dict[str, int] = {}  # by space: how late its last timer fired
        self._folder = folder
        self._store = store
        self._entropy = entropy
        self._durability = durability
        self._tasks = tasks
        self._beside = beside
        self._scans = scans
        self._spaces: dict[str, Space] = {}
        self._closing = anyio.Event()

    def space(self, space_id: str) -> Space:
        """Return an open space. Raises NotFoundError."""
        found = self._spaces.get(space_id)
        if found is None:
            raise NotFoundError("not_found", f"there is no open space {space_id!r}", field="spaceId")
        return found

    def spaces(self) -> list[Space]:
        """Return all open spaces, the first one first."""
        return [self._spaces[record.id] for record in self.control.spaces() if record.id in self._spaces]

    async def create_space(self, name: str, *, slug: str | None = None, actor: str = "") -> SpaceRecord:
        """Create a space and open it. Raises InvalidError, ConflictError."""
        record = await self.control.create_space(name, slug=slug, actor=actor)
        await self.open_space(record)
        return record

    async def open_space(self, record: SpaceRecord) -> None:
        """Open a space and keep it open until the end. Raises LogCorruptError where its log was there and is gone."""
        path, made = self._folder.space_path(record.id), (f"made:{record.id}",)
        is_marked = self._store.get(META, made) is not None
        if is_marked and not path.exists():
            raise LogCorruptError(str(path), "the file is gone, but the space has had one; put it back")
        await self._tasks.start(self._keep, record.id, name=f"space {record.id}")
        if not is_marked:
            await self._store.store([Changes("meta", 0, puts=((META, [(made, b"")]),))])

    async def _keep(self, space_id: str, *, task_status: TaskStatus[None]) -> None:
        store = await SqliteLog.open(self._folder.space_path(space_id), durability=self._durability)
        try:
            key = await suppression_key_of(store, self._entropy)
            async with open_space(space_id, store, self.clock, suppression_key=key, scans=self._scans) as space:
                async with self._beside(space):
                    self._spaces[space_id] = space
                    task_status.started()
                    if isinstance(self.clock, SimulatedClock):
                        await self._closing.wait()
                    else:
                        await self._move_time(space)
        finally:
            self._spaces.pop(space_id, None)
            with anyio.CancelScope(shield=True):
                await store.close()

    async def _move_time(self, space: Space) -> None:
        """Let a space's timers fire as they fall due, until the end."""
        pause_s = TICK_S
        while not self._closing.is_set():
            with anyio.move_on_after(pause_s):
                await self._closing.wait()
            pause_s = TICK_S
            due_ms, now_ms = space.next_due_ms(), self.clock.now_ms()
            if due_ms is None or due_ms > now_ms:
                continue
            try:
                await space.advance()
                self.lag_ms[space.id] = self.clock.now_ms() - due_ms
            except LogError as error:
                log.warning("tick_failed", space=space.id, error=str(error), retry_s=RETRY_S)
                pause_s = RETRY_S

    async def advance(self) -> None:
        """Fire every timer due by now, in every space, and return once what follows is durable."""
        for space in self.spaces():
            await space.advance()

    def close(self) -> None:
        """Let every space be closed by its task."""
        self._closing.set()


@asynccontextmanager
async def _nothing_beside(_: Space) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def open_data(
    path: Path,
    clock: Clock,
    *,
    holder: str,
    url: str = "",
    durability: Durability = "full",
    entropy: Callable[[int], bytes] = os.urandom,
    beside: Beside = _nothing_beside,
    scans: Scans = HERE,
) -> AsyncIterator[OpenData]:
    """Open a data directory, made if it is not there, with all its spaces.

    Args:
        path: the directory.
        clock: tells the time to its spaces; a simulated one moves their timers by `OpenData.advance` alone.
        holder: what this process is, for others to read ("turnout serve").
        url: where it can be asked, if it serves.
        durability: what an acknowledged event survives.
        entropy: returns so many random bytes; secrets come from it.
        beside: what goes on beside each space while it is open.
        scans: where their logs are scanned.

    Raises LogHeldError, naming the process, where another one has it open.
    """
    with alone(), DataDir.open(path, holder=holder, url=url) as folder:
        store = await SqliteLog.open(folder.control_path, durability=durability)
        control = await Control.open(store, clock, entropy)
        try:
            first = await control.start()
            cursor_key = await _kept_key(store, _CURSOR_KEY, entropy)
            async with anyio.create_task_group() as tasks:
                data = OpenData(
                    folder, store, control, clock, entropy, durability, tasks, beside, scans, first, cursor_key
                )
                try:
                    for record in control.spaces():
                        await data.open_space(record)
                    yield data
                finally:
                    data.close()
        finally:
            with anyio.CancelScope(shield=True):
                await control.close()


async def suppression_key_of(store: Log, entropy: Callable[[int], bytes]) -> bytes:
    """Return the key that a space hashes suppressed ids with, made once and kept beside its log."""
    return await _kept_key(store, _SUPPRESSION_KEY, entropy)


async def _kept_key(store: Log, name: Key, entropy: Callable[[int], bytes]) -> bytes:
    """Return a key that is made once and kept beside a log."""
    key = store.get(META, name)
    if key is None:
        key = entropy(KEY_BYTES)
        await store.store([Changes("meta", 0, puts=((META, [(name, key)]),))])
    return key


@contextmanager
def alone() -> Iterator[None]:
    """Raise an error that task groups wrapped as itself, where it is the only one."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from error.__cause__
