"""An account's states made anew from those of its users, once somebody left it.

Many summaries cannot forget an event (the largest value does not tell the next), so those of the users who are left
are joined again: in pairs of like size, since joining one after the other would go through all of an account's events
again for each of its users.
"""

from collections.abc import Callable
from typing import Any


class Gathered:
    """States by question, joined as a binary counter counts: rung n holds what 2**n users know, or nothing."""

    def __init__(self, merge: Callable[[int, Any, Any], Any]) -> None:
        """Join with `merge(index, state, other)`, which may change and return the first."""
        self._merge = merge
        self._rungs: dict[int, list[Any]] = {}

    def add(self, index: int, state: Any) -> None:
        """Add what one user knows; it is this object's from then on."""
        rungs = self._rungs.setdefault(index, [])
        for rung, held in enumerate(rungs):
            if held is None:
                rungs[rung] = state
                return
            state = self._merge(index, held, state)
            rungs[rung] = None
        rungs.append(state)

    def states(self) -> dict[int, Any]:
        """Return all of it joined; this object is used up."""
        joined = {}
        for index, rungs in self._rungs.items():
            held = [state for state in rungs if state is not None]
            state = held[0]
            for other in held[1:]:
                state = self._merge(index, other, state)
            joined[index] = state
        return joined
