"""A data directory that a command opens itself, and the space in it that the command is about."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from actors.control import FirstStart
from actors.space import Space
from adapters.cli.options import DATA_DEFAULT, MisusedError, Target
from adapters.cli.terminal import note
from adapters.logs import configure_logs
from adapters.opening import OpenData, open_data
from eventlog.clock import SimulatedClock, WallClock
from eventlog.entries import SourceRecord
from eventlog.errors import NotFoundError, TurnoutError
from eventlog.log import Log


class NoDataError(TurnoutError):
    """There is no data directory where one was named."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: no data directory is there; `turnout serve` and `turnout import` make one, --data names another"
        )


class Opened(Struct, frozen=True):
    """An open data directory and the space that a command is about."""

    data: OpenData
    space: Space

    def source(self, source_id: str | None) -> SourceRecord:
        """Return a source of the space; without an id its first one. Raises NotFoundError."""
        sources = self.data.control.sources(self.space.id)
        if source_id is None:
            if not sources:
                raise NotFoundError("not_found", f"the space {self.space.id} has no source; create one first")
            return sources[0]
        for source in sources:
            if source.id == source_id:
                return source
        known = ", ".join(source.id for source in sources) or "none"
        raise NotFoundError("not_found", f"no source {source_id!r} in the space {self.space.id}; it has {known}")


def path_of(target: Target, *, make: bool = False) -> Path:
    """Return the data directory of a command line. Raises NoDataError unless it may be made."""
    if target.url is not None:
        raise MisusedError("this command works on a data directory: use --data, not --url")
    path = target.data or DATA_DEFAULT
    if not make and not (path / "format").is_file():
        raise NoDataError(path)
    return path


@asynccontextmanager
async def opened(target: Target, what: str, *, make: bool = False, moving: bool = False) -> AsyncIterator[Opened]:
    """Open the data directory and space of a command line.

    Args:
        target: which.
        what: the command, for others to read who find the directory held.
        make: whether to make the directory if it is not there.
        moving: whether time goes on meanwhile; else what was due by now has happened, and nothing more does.

    Raises NoDataError, NotFoundError for a space that is not there, LogHeldError where another process has it open.
    """
    configure_logs("auto", os.environ.get("TURNOUT_LOG_LEVEL", "warning"))
    path = path_of(target, make=make)
    still = SimulatedClock(WallClock().now_ms())
    async with open_data(path, WallClock() if moving else still, holder=what) as data:
        if not moving:
            # A staging daemon's log may end in the future: then that is now.
            still.set_ms(max(still.now_ms(), *(ended_ms(space.log) for space in data.spaces())))
            await data.advance()
        if data.first is not None:
            tell_secrets(data.first, path, note)
        record = data.control.spaces()[0] if target.space is None else data.control.space(target.space)
        yield Opened(data, data.space(record.id))


def ended_ms(log: Log) -> int:
    """Return when the last entry of a log was recorded, 0 for an empty one."""
    return max((commit.at_ms for commit in log.read(max(0, log.last_seq - 1))), default=0)


def tell_secrets(first: FirstStart, path: Path, say: Callable[[str], None]) -> None:
    """Tell the secrets of a first start, this once."""
    say(f"A new data directory, {path}. Keep these, nobody can tell them again:")
    say(f"  admin token  {first.admin_token}")
    say(f"  write key    {first.write_key}")
