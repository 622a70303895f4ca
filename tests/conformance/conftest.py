"""The logs that the suite holds to the interface; a new log is one more name here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from eventlog.log import Log
from eventlog.memory import MemoryLog
from eventlog.sqlite import SqliteLog

Reopen = Callable[[], Awaitable[Log]]


@pytest.fixture(params=["memory", "sqlite"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Return what opens one and the same log again, after closing it."""
    opened: list[Log] = []
    memory = MemoryLog()

    async def open_again() -> Log:
        if opened:
            await opened[-1].close()
        log: Log = memory if request.param == "memory" else await SqliteLog.open(tmp_path / "space.log")
        opened.append(log)
        return log

    yield open_again
    if opened:
        await opened[-1].close()


@pytest.fixture
async def log(reopen: Reopen) -> Log:
    """Return an empty log."""
    return await reopen()
