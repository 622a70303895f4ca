"""A picture of sizes over time: what would have been (blue, solid) beside what was (vermilion, dashed), as SVG.

The two colours are told apart by colour-blind eyes (Okabe and Ito), the two lines also in black and white.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from eventlog.instants import iso
from scenarios.what_if import DAY_MS, Day

WIDTH: Final = 900
PANEL: Final = 260  # height of one definition's part
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 40
WOULD, DID = "#0072B2", "#D55E00"
TICKS: Final = 6  # of the axis of time, at most


def picture(days: Iterable[Day]) -> str:
    """Return the picture: a panel for each definition."""
    by_key: dict[str, list[Day]] = {}
    for day in days:
        by_key.setdefault(day.key, []).append(day)
    height = max(1, len(by_key)) * PANEL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for place, (key, own) in enumerate(by_key.items()):
        parts.append(f'<g transform="translate(0 {place * PANEL})">{_panel(key, own)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(key: str, days: Sequence[Day]) -> str:
    most = max(max(day.size, day.actual_size or 0) for day in days)
    step = _step(most)
    top = max(step, -(-most // step) * step)
    right, bottom = WIDTH - RIGHT, PANEL - BOTTOM
    first, span = days[0].day_ms, max(DAY_MS, days[-1].day_ms - days[0].day_ms)

    def across(at_ms: int) -> float:
        return LEFT + (right - LEFT) * (at_ms - first) / span

    def up(size: int) -> float:
        return bottom - (bottom - TOP) * size / top

    parts = [
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">{escape(key)}: size at the end of each day</text>'
    ]
    for size in range(0, top + 1, step):
        parts.append(f'<path d="M{LEFT} {up(size):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{up(size) + 4:.1f}" text-anchor="end">{size:,}</text>')
    for day in days[:: -(-len(days) // TICKS)]:
        x = across(day.day_ms)
        parts.append(f'<path d="M{x:.1f} {bottom}v5" stroke="#222"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{iso(day.day_ms)[:10]}</text>')
    lines = [("what if", WOULD, "", [(day.day_ms, day.size) for day in days])]
    was = [(day.day_ms, day.actual_size) for day in days if day.actual_size is not None]
    if was:
        lines.append(("what happened", DID, ' stroke-dasharray="6 4"', was))
    for place, (name, colour, dash, points) in enumerate(lines):
        drawn = " ".join(f"{across(at_ms):.1f},{up(size):.1f}" for at_ms, size in points)
        look = f'fill="none" stroke="{colour}" stroke-width="2"{dash}'
        parts.append(f'<polyline points="{drawn}" {look}/>')
        x = LEFT + place * 110
        parts.append(f'<path d="M{x} 36h24" {look}/><text x="{x + 30}" y="40">{name}</text>')
    return "".join(parts)


def _step(most: int) -> int:
    """Return a round distance of ticks that takes at most five of them."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * 5 >= most:
                return step * factor
        step *= 10
