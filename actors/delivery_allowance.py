"""How many requests may go: a bucket with a lease, so that the limit is obeyed across restarts.

The bucket is stored before it is used. A lease of some tokens is taken off the stored level in advance, and requests
are sent only against the lease; when it is used up, the next one is stored first. So a crash can lose a few tokens,
and never win one. After a destination asked to wait the bucket is filled more slowly for a while (`delivery_pace`).
"""

import math
from typing import Final

from msgspec.structs import replace

from actors import bucket as buckets
from actors.bucket import RATE_MIN_PER_S, TOKEN, Bucket
from actors.delivery import Limits
from actors.delivery_pace import Meter, Pace, recovered, slowed

LEASE_S: Final = 0.2  # tokens of so much time are prepaid at once, what a crash may lose
LEASE_MAX: Final = 1_000


class Allowance:
    """A destination's bucket."""

    def __init__(self) -> None:
        self._bucket: Bucket | None = None
        self._limits: Limits | None = None
        self._least = 1
        self._lease = 0
        self._meter = Meter()
        self.pace = Pace()
        self.must_store = False  # before anything that was taken is used

    def configure(self, limits: Limits, stored: Bucket | None, pace: Pace, now_ms: int, *, least: int = 1) -> None:
        """Take other limits into use; what was spent stays spent. `least`: what a conversation takes at most."""
        self._limits, self._least, self.pace = limits, least, pace
        known = self._bucket or stored
        if known is None:
            self._bucket = buckets.full(self.rate_per_s, self._burst, now_ms)
        else:
            self._bucket = known
            self._refit(now_ms)

    def _refit(self, now_ms: int) -> None:
        assert self._bucket is not None
        self._bucket = buckets.reconfigured(self._bucket, self.rate_per_s, self._burst, now_ms)

    @property
    def rate_per_s(self) -> float:
        """Return the rate that is used now."""
        limits = self._limits
        if limits is None:
            return 0.0
        rate_per_s = limits.rate_per_s
        if limits.window_s:  # what may go at once is part of what a window may hold
            rate_per_s = max(rate_per_s / 2, rate_per_s - limits.burst / limits.window_s)
        return max(RATE_MIN_PER_S, rate_per_s * self.pace.share)

    @property
    def _burst(self) -> int:
        assert self._limits is not None
        return max(self._least, round(self._limits.burst * self.pace.share))

    def slow(self, now_ms: int) -> None:
        """Go slower: the destination asked everyone to wait."""
        self.pace = slowed(self.pace, now_ms)
        self._refit(now_ms)

    def recover(self, now_ms: int) -> None:
        """Go faster again, if it is time to."""
        pace = recovered(self.pace, now_ms)
        if pace is not self.pace:
            self.pace = pace
            self._refit(now_ms)

    def affords(self, now_ms: int, count: int) -> bool:
        """Tell whether so many may go now."""
        return self._bucket is not None and buckets.take(self._bucket, now_ms, count) is not None

    def spend(self, now_ms: int, count: int) -> None:
        """Let so many go now; `affords` has said that they may."""
        assert self._bucket is not None
        paid = buckets.take(self._bucket, now_ms, count)
        assert paid is not None
        self._bucket = paid
        self._meter.add(now_ms, count)
        self._lease -= count
        if self._lease < 0:
            self._lease = min(LEASE_MAX, paid.burst, math.ceil(paid.rate_per_s * LEASE_S))
            self.must_store = True

    def give_back(self, count: int, now_ms: int) -> None:
        """Take back what did not go; below zero: what went beyond it, and others wait for."""
        assert self._bucket is not None
        self._bucket = buckets.give_back(self._bucket, count)
        self._meter.add(now_ms, -count)
        self._lease = max(0, self._lease + count)

    def end_lease(self) -> None:
        """Give back what was prepaid: nothing goes any more."""
        self._lease = 0
        self.must_store = True

    def to_store(self) -> Bucket | None:
        """Return the bucket as it must be found after a crash."""
        self.must_store = False
        return None if self._bucket is None else replace(self._bucket, level=self._bucket.level - self._lease * TOKEN)

    def due_ms(self, now_ms: int, count: int) -> int:
        """Return when so many may go."""
        return now_ms if self._bucket is None else buckets.due_ms(self._bucket, now_ms, count)

    def level(self, now_ms: int) -> float:
        """Return how many may go at once now."""
        return 0.0 if self._bucket is None else max(0.0, buckets.refill(self._bucket, now_ms).level / TOKEN)

    def achieved_per_s(self, now_ms: int) -> float:
        """Return how many went a second, over the last minute."""
        return self._meter.per_s(now_ms)
