"""A size over time as a step line, in the units of an SVG picture: a pure function of days and sizes."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

WIDTH: Final = 720
HEIGHT: Final = 200
LEFT: Final = 8
TOP: Final = 20  # room for the largest size in words
BOTTOM: Final = 24  # and for the dates
POINTS_MAX: Final = 730  # days drawn, the newest: more would be less than a pixel each


class Picture(Struct, frozen=True):
    """What the template draws."""

    line: str
    area: str
    size_max: int
    first_ms: int
    last_ms: int
    end_x: float
    end_y: float


def draw(days: Sequence[tuple[int, int]], until_ms: int) -> Picture | None:
    """Return the picture of (day, size at its end), up to a moment; None for no days."""
    shown = days[-POINTS_MAX:]
    if not shown:
        return None
    first_ms = shown[0][0]
    last_ms = max(until_ms, shown[-1][0] + 1)  # never no time at all
    size_max = max(1, *(size for _, size in shown))

    def x(at_ms: int) -> float:
        return round(LEFT + (WIDTH - 2 * LEFT) * (at_ms - first_ms) / (last_ms - first_ms), 1)

    def y(size: int) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - size / size_max), 1)

    size_before = days[-len(shown) - 1][1] if len(days) > len(shown) else 0
    steps = [f"M{x(first_ms)} {y(size_before)}"]
    for day_ms, size in shown:
        steps.append(f"H{x(day_ms)}V{y(size)}")
    steps.append(f"H{x(last_ms)}")
    line = "".join(steps)
    area = f"{line}V{y(0)}H{x(first_ms)}Z"
    return Picture(line, area, size_max, first_ms, last_ms, x(last_ms), y(shown[-1][1]))
