"""A process that deletes or merges people and is killed in the middle: before its n-th write to the log.

    python -m tests.privacy.crashing FILE deletion|merge N

Says on standard output what it got acknowledged. Ends with 0 when it came to its end before the n-th write.
"""

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

import eventlog.sqlite
from eventlog.sqlite import SqliteLog
from tests.destinations.stage import HOUR_MS, identify, track
from tests.privacy.room import Room

REWRITE_PAGE_BYTES = 500  # so that a rewrite takes several transactions


class DoomedLog(SqliteLog):
    """A log whose process is killed before its n-th write."""

    writes_left: int | None = None

    async def _write(self, write: Callable[[sqlite3.Connection], Any], *, in_transaction: bool = True) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        await super()._write(write, in_transaction=in_transaction)


class DoomedRoom(Room):
    """A room on such a log."""

    log_type = DoomedLog


def acknowledged(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def delete(here: Room) -> None:
    """Delete a person while others go on."""
    await here.space.regulate("reg_1", "SUPPRESS_WITH_DELETE", ["ann-7f3a"])
    acknowledged("regulated")
    await here.send(track("cay", "Order Completed"), step=False)
    acknowledged("cay")
    await here.over()


async def merge(here: Room) -> None:
    """Join two profiles with a past, and go on."""
    for number in range(4):
        message = {"messageId": f"join-{number}", "anonymousId": f"visitor-{number}"}
        await here.send(identify("bob") | message, step=False)
        acknowledged(f"join-{number}")
        await here.send(track("bob", "Order Completed") | {"messageId": f"order-{number}"}, step=False)
        acknowledged(f"order-{number}")
        await here.space.settle()
        await here.space.checkpoint()
    here.clock.set_ms(here.clock.now_ms() + HOUR_MS)
    await here.space.advance()


async def main(file: str, what: str, kill_at: int) -> None:
    here = DoomedRoom(Path(file))
    await here.open()
    here.clock.set_ms(here.clock.now_ms() + 24 * HOUR_MS)
    assert isinstance(here.log, DoomedLog)
    here.log.writes_left = kill_at
    await {"deletion": delete, "merge": merge}[what](here)
    here.log.writes_left = None
    await here.close()


if __name__ == "__main__":
    eventlog.sqlite.REWRITE_PAGE_BYTES = REWRITE_PAGE_BYTES  # type: ignore[misc]
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), backend_options={"use_uvloop": True})
