"""A token bucket as a value: at most `rate` a second, and `burst` at once after a pause.

It is counted in whole numbers, so that no rounding ever lets one request too many through: the level is kept in
millionths of a token, and a rate of 50 a second brings 50,000 of them a millisecond. In any stretch of t seconds at
most rate * t + burst are taken. Now is always an argument; a clock that stands still or steps back brings nothing.
"""

import math
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

TOKEN: Final = 1_000_000  # levels are in millionths of a token
RATE_MIN_PER_S: Final = 0.001  # one millionth of a token a millisecond, the least that can be counted
RATE_MAX_PER_S: Final = 100_000.0  # above it a bucket is no limit any more
BURST_MAX: Final = 100_000


class Bucket(Struct, frozen=True):
    """How much may go now, and since when that is known."""

    rate_per_s: float
    burst: int
    level: int  # in millionths of a token, at most burst * TOKEN; below zero after a restart that had prepaid
    at_ms: int

    @property
    def per_ms(self) -> int:
        """Return the millionths of a token that a millisecond brings (rounded down: never above the rate)."""
        return int(self.rate_per_s * 1000 + 1e-9)


def full(rate_per_s: float, burst: int, now_ms: int) -> Bucket:
    """Return a bucket from which nothing has been taken yet."""
    return Bucket(rate_per_s=rate_per_s, burst=burst, level=burst * TOKEN, at_ms=now_ms)


def refill(bucket: Bucket, now_ms: int) -> Bucket:
    """Return the bucket with what came in by now."""
    if now_ms <= bucket.at_ms:
        return bucket
    level = min(bucket.burst * TOKEN, bucket.level + (now_ms - bucket.at_ms) * bucket.per_ms)
    return replace(bucket, level=level, at_ms=now_ms)


def available(bucket: Bucket, now_ms: int) -> int:
    """Return how many may go now."""
    return max(0, refill(bucket, now_ms).level // TOKEN)


def take(bucket: Bucket, now_ms: int, count: int = 1) -> Bucket | None:
    """Return the bucket after `count` went now, or None when they may not."""
    filled = refill(bucket, now_ms)
    if filled.level < count * TOKEN:
        return None
    return replace(filled, level=filled.level - count * TOKEN)


def give_back(bucket: Bucket, count: int) -> Bucket:
    """Return the bucket when `count` that were taken did not go after all."""
    return replace(bucket, level=min(bucket.burst * TOKEN, bucket.level + count * TOKEN))


def due_ms(bucket: Bucket, now_ms: int, count: int = 1) -> int:
    """Return when `count` may go: now, or the first millisecond at which enough has come in."""
    filled = refill(bucket, now_ms)
    missing = count * TOKEN - filled.level
    return now_ms if missing <= 0 else filled.at_ms + math.ceil(missing / bucket.per_ms)


def reconfigured(bucket: Bucket, rate_per_s: float, burst: int, now_ms: int) -> Bucket:
    """Return the bucket under another limit; what was taken before stays taken."""
    if (rate_per_s, burst) == (bucket.rate_per_s, bucket.burst):
        return bucket
    filled = refill(bucket, now_ms)
    return Bucket(
        rate_per_s=rate_per_s, burst=burst, level=min(burst * TOKEN, filled.level), at_ms=max(now_ms, filled.at_ms)
    )
