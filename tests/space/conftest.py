"""Rooms over either log; a log that is opened again holds what was in it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventlog.log import Log
from eventlog.memory import MemoryLog
from eventlog.sqlite import SqliteLog
from tests.space.room import Reopen, Room, room


@pytest.fixture(params=["memory", "sqlite"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Return what opens one and the same log again."""
    opened: list[Log] = []
    memory = MemoryLog()

    async def open_again() -> Log:
        if request.param == "memory":
            return memory
        if opened:
            await opened[-1].close()
        opened.append(await SqliteLog.open(tmp_path / "space.log"))
        return opened[-1]

    yield open_again
    if opened:
        await opened[-1].close()


@pytest.fixture
async def here(reopen: Reopen) -> AsyncIterator[Room]:
    """Return a room."""
    async with room(reopen) as opened:
        yield opened


@pytest.fixture
async def crowded(reopen: Reopen) -> AsyncIterator[Room]:
    """Return a room where next to nobody stays in memory after a checkpoint."""
    async with room(reopen, active_max=1) as opened:
        yield opened
