"""How fast a destination is really asked: less than allowed after it was too much for it, and what was achieved.

A destination that asks everyone to wait is asked at half the rate from then on; every ten seconds without another
complaint give a sixteenth of the rate back. So a limit that is set too high, or shared with others, is found again and
again from below instead of being run into with every burst.
"""

from typing import Final

from msgspec import Struct

SHARE_MIN: Final = 1 / 64  # of the rate that is left whatever a destination says
SHARE_STEP: Final = 1 / 16  # of the rate that comes back at once
STEP_MS: Final = 10_000  # without a complaint, for that
ONCE_MS: Final = 1_000  # complaints within so long are one: those about requests that were under way together
METER_S: Final = 60  # what was achieved is told over the last minute


class Pace(Struct, frozen=True, omit_defaults=True):
    """The part of its rate that a destination is asked at."""

    share: float = 1.0
    at_ms: int = 0  # when it last moved


def slowed(pace: Pace, now_ms: int) -> Pace:
    """Return the pace after a destination asked to wait."""
    if pace.share < 1.0 and now_ms - pace.at_ms < ONCE_MS:
        return pace
    return Pace(max(SHARE_MIN, pace.share / 2), now_ms)


def recovered(pace: Pace, now_ms: int) -> Pace:
    """Return the pace now that a destination has not complained for a while."""
    steps = (now_ms - pace.at_ms) // STEP_MS
    if pace.share >= 1.0 or steps < 1:
        return pace
    share = min(1.0, pace.share + steps * SHARE_STEP)
    return Pace(share, pace.at_ms + steps * STEP_MS)


class Meter:
    """Counts requests by the second, as far back as a minute."""

    def __init__(self) -> None:
        self._counts = [0] * METER_S
        self._second = 0
        self._began_ms: int | None = None

    def add(self, now_ms: int, count: int) -> None:
        """Count requests that go now; below zero: some that did not go after all."""
        if self._began_ms is None:
            self._began_ms = now_ms
            self._second = now_ms // 1000
        self._move(now_ms)
        self._counts[now_ms // 1000 % METER_S] += count

    def per_s(self, now_ms: int) -> float:
        """Return the requests a second over the last minute, or since the first if that is shorter."""
        if self._began_ms is None:
            return 0.0
        self._move(now_ms)
        return max(0, sum(self._counts)) / min(METER_S, max(1.0, (now_ms - self._began_ms) / 1000))

    def _move(self, now_ms: int) -> None:
        second = now_ms // 1000
        for passed in range(max(self._second + 1, second - METER_S + 1), second + 1):
            self._counts[passed % METER_S] = 0
        self._second = max(self._second, second)
