"""When an event can lie at all, given its windows and those of the events it is nested in.

A reach is the intersection of all windows: relative to the moment asked about, `low < ts - now <= high`, and in
absolute time, `since <= ts < until`. It is wide rather than exact: an empty one is surely empty. Milliseconds.
"""

from math import inf

from msgspec import Struct

from actors.language.tree import Event


class Reach(Struct, frozen=True):
    """Bounds on an event's time: relative ones open below, absolute ones open above."""

    low_ms: float = -inf
    high_ms: float = 0  # nothing lies in the future
    since_ms: float = -inf
    until_ms: float = inf

    @property
    def is_empty(self) -> bool:
        """Tell whether no event can lie here."""
        return self.low_ms >= self.high_ms or self.since_ms >= self.until_ms


def reach_of(event: Event, parent: Reach | None = None) -> Reach:
    """Return the reach of an event, inside that of the event it is nested in."""
    own = [window for window in event.windows if window.parent]
    if own and max(window.open_low_ms for window in own) >= min(window.before_ms for window in own):
        return Reach(low_ms=0, high_ms=0)
    low_ms, high_ms, since_ms, until_ms = -inf, 0.0, -inf, inf
    for window in event.windows:
        if window.parent and parent is not None:
            low_ms = max(low_ms, parent.low_ms + window.after_ms)
            high_ms = min(high_ms, parent.high_ms + window.before_ms)
            since_ms = max(since_ms, parent.since_ms + window.after_ms)
            until_ms = min(until_ms, parent.until_ms + window.before_ms)
        elif not window.parent:
            low_ms = max(low_ms, -window.before_ms)
            high_ms = min(high_ms, -window.after_ms)
    if parent is not None:  # a nested event comes after its parent
        low_ms = max(low_ms, parent.low_ms)
        since_ms = max(since_ms, parent.since_ms)
    if event.since_ms is not None:
        since_ms = max(since_ms, event.since_ms)
    if event.until_ms is not None:
        until_ms = min(until_ms, event.until_ms)
    return Reach(low_ms, high_ms, since_ms, until_ms)
