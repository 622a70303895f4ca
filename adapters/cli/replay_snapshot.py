"""A data directory's spaces as they are at one moment, also while a daemon has it open.

The log's file is copied within one transaction that reads, tables and all, to a directory beside, and the space opened
on the copy: its last checkpoint with the tail of the log, as after a restart. The daemon is not asked and goes on
writing; backfills that were under way are brought to their end in the copy. Time stands at the last entry.

Copying takes about 3 s a GB. To read from the file itself for as long as a fold takes, some 20 times that, would keep
its WAL from being emptied, and deletions from being done with the bytes of whom they delete.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from msgspec import Struct

from actors.control import Control
from actors.space import Space, open_space
from adapters.cli.opened import ended_ms
from adapters.cli.terminal import note
from adapters.opening import suppression_key_of
from eventlog.clock import SimulatedClock, WallClock
from eventlog.datadir import SCRATCH_PREFIX, DataDir
from eventlog.entries import SpaceRecord
from eventlog.errors import LogFullError
from eventlog.sqlite import SqliteLog
from eventlog.sqlite_file import snapshot

COPIES: Final = 2  # of a log at once: as it is, and its entries alone
ROOM_LEFT_BYTES: Final = 256 * 1024 * 1024  # for whoever writes to the disk meanwhile, a daemon above all


class Scratch(Struct, frozen=True):
    """Room beside a data directory for copies of its logs."""

    data: Path
    folder: DataDir

    @property
    def path(self) -> Path:
        """Return where the copies lie."""
        return self.folder.path

    @asynccontextmanager
    async def log(self, space_id: str) -> AsyncIterator[SqliteLog]:
        """Yield a copy of a space's log as it is now. Raises LogFullError where there is no room for it."""
        source, copy = self.data / "spaces" / f"{space_id}.log", self.folder.space_path(space_id)
        _check_room(source, self.path)
        await anyio.to_thread.run_sync(snapshot, source, copy)
        log = await SqliteLog.open(copy, durability="off")
        try:
            yield log
        finally:
            await log.close()
            copy.unlink(missing_ok=True)

    @asynccontextmanager
    async def space(self, space_id: str) -> AsyncIterator[Space]:
        """Yield a space as it is now, on a copy of its log."""
        async with self.log(space_id) as log:
            key = await suppression_key_of(log, os.urandom)
            async with open_space(space_id, log, SimulatedClock(ended_ms(log)), suppression_key=key) as space:
                waiting = [held.latest.key for held in space.definitions_held.waiting()]
                if waiting:
                    note(f"space {space_id}: {', '.join(waiting)} backfilling; done in the copy, too")
                await space.backfilled()  # else what a switch brings about may follow the last entry looked at
                yield space


@contextmanager
def scratch(data: Path) -> Iterator[Scratch]:
    """Lend room for copies while the block lasts; a daemon that starts meanwhile leaves it alone."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=data) as path:
        with DataDir.open(path, holder="turnout replay") as folder:
            yield Scratch(data, folder)


async def spaces_in(data: Path, wanted: str | None = None) -> list[SpaceRecord]:
    """Return the spaces of a data directory, or the one with this id or slug. Raises NotFoundError."""
    log = await SqliteLog.open(data / "control.log", read_only=True)
    control = await Control.open(log, WallClock(), os.urandom)
    try:
        return control.spaces() if wanted is None else [control.space(wanted)]
    finally:
        await control.close()


def _check_room(log: Path, folder: Path) -> None:
    needed = COPIES * sum(file.stat().st_size for file in log.parent.glob(f"{log.name}*")) + ROOM_LEFT_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LogFullError(
            f"{log}: copies of it need {needed / 1e6:,.0f} MB beside it, {ROOM_LEFT_BYTES / 1e6:,.0f} MB of them left "
            f"free; there are {free / 1e6:,.0f} MB. Restore a backup on another disk and look there"
        )
