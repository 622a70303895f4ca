"""The edges of a simulated world: a disk whose process can die at any write, and a seal that is the same every time."""

import base64
import binascii
from collections.abc import Callable, Sequence

from eventlog.entries import Commit
from eventlog.errors import ConfigError, LogError, LogFullError
from eventlog.log import Changes
from eventlog.memory import MemoryLog


class PlainSeal:
    """Seals nothing: what a simulation keeps is no secret, and the same file gives the same log."""

    def seal(self, text: str) -> str:
        """Return the text sealed."""
        return base64.b64encode(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Return the text that was sealed."""
        try:
            return base64.b64decode(sealed, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError("this was not sealed in a simulation") from None


class MortalLog(MemoryLog):
    """A log whose process dies at a write: in the middle of it (nothing is stored) or right after it (all is).

    From then on this handle fails; `reborn` gives the next process's, with all that was stored. Or there is no room for
    a write: it fails alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_dead = False
        self.on_death: Callable[[], None] | None = None
        self.refused = 0  # writes that found no room
        self._writes_left: dict[str, int] = {}

    def die(self) -> None:
        """Die now."""
        self.is_dead = True
        if self.on_death is not None:
            self.on_death()

    def die_after(self, writes: int) -> None:
        """Die right after the nth write from here."""
        self._writes_left["after"] = writes

    def die_in(self, writes: int) -> None:
        """Die in the middle of the nth write from here."""
        self._writes_left["in"] = writes

    def fill_in(self, writes: int) -> None:
        """Have no room for the nth write from here."""
        self._writes_left["full"] = writes

    def reborn(self) -> "MortalLog":
        """Return what the next process opens."""
        log = MortalLog()
        kept = ("fail_with", "refused", "_packs", "_last_seq", "_tables", "_cursors", "_writes_left")
        for name in kept:
            setattr(log, name, getattr(self, name))
        return log

    async def append(self, commits: Sequence[Commit], changes: Sequence[Changes] = ()) -> None:
        """Store commits and projection changes, all or nothing."""
        self._write("in")
        await super().append(commits, changes)
        self._write("after")

    async def store(self, changes: Sequence[Changes]) -> None:
        """Store projection changes, all or nothing."""
        self._write("in")
        await super().store(changes)
        self._write("after")

    def _write(self, when: str) -> None:
        if self._writes_left:
            if self._is_reached(when):
                self.die()
            elif when == "in" and self._is_reached("full"):
                self.refused += 1
                raise LogFullError("the simulated disk has no room for this write")
        if self.is_dead:
            raise LogError("the process has died")

    def _is_reached(self, when: str) -> bool:
        """Count a write; tell whether it is the one."""
        left = self._writes_left.pop(when, 0)
        if left > 1:
            self._writes_left[when] = left - 1
        return left == 1 and not self.is_dead
