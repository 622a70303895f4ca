"""A simulated world that is put away and opened again at random: no answer may depend on when that happens.

Before anything that happens the space may store a checkpoint, die with nothing closed, or close in order and start
again; with few entities at hand they are put away and loaded all the time. The log lies in memory or in an SQLite file.
The random numbers come from the scenario's seed.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct

from actors.space_core import ACTIVE_MAX
from eventlog.entries import Commit
from eventlog.errors import LogError
from eventlog.log import Changes
from eventlog.sqlite import SqliteLog
from scenarios.edges import MortalLog
from scenarios.format import Define, Delete, Edit
from scenarios.world import SimulatedWorld


class Unrest(Struct, frozen=True):
    """What goes on beside a scenario, as probabilities before each thing that happens in it."""

    checkpoints: float = 0.0
    deaths: float = 0.0  # with nothing closed
    closings: float = 0.0  # in order
    active_max: int = ACTIVE_MAX  # entities at hand after a checkpoint
    in_file: bool = False  # the log lies in an SQLite file


class FileLog(SqliteLog):
    """A log in a file for a simulated world. It dies with its process, not in the middle of a write."""

    is_dead = False
    refused = 0
    on_death: Callable[[], None] | None = None
    fail_with: LogError | None = None  # while set, nothing can be written

    async def append(self, commits: Sequence[Commit], changes: Sequence[Changes] = ()) -> None:
        """Store commits and projection changes, all or nothing."""
        if self.fail_with is not None:
            raise self.fail_with
        await super().append(commits, changes)

    async def store(self, changes: Sequence[Changes]) -> None:
        """Store projection changes, all or nothing."""
        if self.fail_with is not None:
            raise self.fail_with
        await super().store(changes)


class RestlessWorld(SimulatedWorld):
    """A simulated world with unrest. Get one from `restless`."""

    def __init__(self, tasks: TaskGroup, start_ms: int, seed: int, unrest: Unrest) -> None:
        super().__init__(tasks, start_ms, seed)
        self.active_max = unrest.active_max
        self._unrest = unrest
        self._random = Random(seed)  # noqa: S311 - reproducible, not secret

    async def open_file(self, path: Path) -> None:
        """Let the log lie in a file."""
        log = await FileLog.open(path, durability="off")
        self.log = cast(MortalLog, log)  # all of it that is used here

    async def close_file(self) -> None:
        """Let go of the log's file, if there is one."""
        await self.log.close()

    async def crash(self) -> None:
        """Die at once, with nothing closed, and start again from the log."""
        if not self._unrest.in_file:
            await super().crash()
            return
        self._scope.cancel()
        await self._ended.wait()
        path, on_death = cast(SqliteLog, self.log).path, self.log.on_death
        await self.close_file()
        await self.open_file(path)
        self.log.on_death = on_death
        self.open()
        await self.settle()

    async def _stir(self) -> None:
        unrest = self._unrest
        if self._disk_full_until_ms is not None:
            return
        if self._random.random() < unrest.checkpoints:
            await self.space.checkpoint()
        if self._random.random() < unrest.closings:
            await self.space.close()
            await self.crash()
        if self._random.random() < unrest.deaths:
            await self.crash()

    # -- what happens ------------------------------------------------------------------------------------------------

    async def move_to(self, to_ms: int) -> None:
        """Move the clock on, stopping wherever something is due."""
        await self._stir()
        await super().move_to(to_ms)
        await self._stir()

    async def send(self, message: dict[str, Any], source: str) -> None:
        """Receive a tracking call now."""
        await self._stir()
        await super().send(message, source)

    async def define(self, action: Define) -> None:
        """Create a definition. Raises QueryError, RefusedError."""
        await self._stir()
        await super().define(action)

    async def edit(self, action: Edit) -> None:
        """Change a definition. Raises QueryError, RefusedError."""
        await self._stir()
        await super().edit(action)

    async def delete(self, action: Delete) -> None:
        """Delete a definition. Raises RefusedError."""
        await self._stir()
        await super().delete(action)


@asynccontextmanager
async def _restless(
    unrest: Unrest, start_ms: int, seed: int, settings: dict[str, Any]
) -> AsyncIterator[SimulatedWorld]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="turnout-restless-")) if unrest.in_file else ""
        tasks = await stack.enter_async_context(anyio.create_task_group())
        world = RestlessWorld(tasks, start_ms, seed, unrest)
        if unrest.in_file:
            await world.open_file(Path(folder) / "log.sqlite")
        try:
            world.open()
            await world.settings(settings)
            yield world
        finally:
            tasks.cancel_scope.cancel()
            if unrest.in_file:
                await world.close_file()


def restless(unrest: Unrest) -> Callable[[int, int, dict[str, Any]], AbstractAsyncContextManager[SimulatedWorld]]:
    """Return what opens simulated worlds with this unrest, for `runner.run_scenario`."""
    return partial(_restless, unrest)
