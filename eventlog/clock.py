"""Time as an argument: the wall clock, and one that moves only when told to."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, UTC."""


class WallClock:
    """The machine's clock, never going back within a process."""

    def __init__(self) -> None:
        self._last_ms = 0

    def now_ms(self) -> int:
        """Return the machine's time; if its clock was set back, the last time told."""
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
        return self._last_ms


class SimulatedClock:
    """A clock that moves only by `set_ms`."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the time it was last set to."""
        return self._now_ms

    def set_ms(self, now_ms: int) -> None:
        """Move to a time, never back."""
        if now_ms < self._now_ms:
            raise ValueError(f"a clock never goes back: {now_ms} is before {self._now_ms}")
        self._now_ms = now_ms
