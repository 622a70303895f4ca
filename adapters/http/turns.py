"""Turns of the loop: so much work comes in with each, and the rest of the process has its own in between.

What sixteen clients sent at once would otherwise be judged at once, some 20 ms of work, in every turn of the loop while
more comes than a core can do. A webhook's request needs several turns to leave, so deliveries would fall behind without
end, and the fold, which yields far sooner, too. Nothing is taken more slowly for it: a turn that has time ends early.
"""

import asyncio
from collections import deque


class Turns:
    """Lets work in, in its order, up to a size each turn of the loop; a piece that is larger has a turn of its own."""

    def __init__(self, size_max: int) -> None:
        """Begin with a free turn.

        Args:
            size_max: after so much no more is let in until the next turn.
        """
        self._size_max = size_max
        self._left = size_max
        self._is_armed = False  # the next turn is announced; it is while something waits
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def enter(self, size: int) -> None:
        """Return when it is this work's turn."""
        if self._left > 0:
            self._left -= size
            self._arm()
        else:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((future, size))
            await future

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_armed = False
        self._left = self._size_max
        while self._waiting and self._left > 0:
            future, size = self._waiting.popleft()
            if not future.cancelled():
                self._left -= size
                future.set_result(None)
        if self._left < self._size_max:
            self._arm()
