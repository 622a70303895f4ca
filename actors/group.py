"""The open group: what came in since the last commit, decided but not yet durable.

Many requests share one commit. Events get their sequences when they join, facts when the group is closed behind them.
Everyone who added something waits for the same commit, and hears the same error where it failed.
"""

from collections.abc import Sequence
from itertools import repeat

import anyio

from actors.door import Incoming
from eventlog.entries import AnyFact, Commit, Event, Rejected
from eventlog.errors import LogError
from eventlog.log import Changes
from eventlog.messages import EventData

EVENTS_MAX = 20_000  # of a group; more wait for the next, so that a slow disk bounds memory


class Group:
    """Events and facts that are to become one commit."""

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.events: list[Event] = []
        self.datas: list[EventData] = []
        self.facts: list[AnyFact] = []
        self.changes: list[Changes] = []
        self.holds_refusals = False
        self.commit: Commit | None = None
        self.error: LogError | None = None
        self._ended = anyio.Event()

    def __bool__(self) -> bool:
        """Tell whether there is something to write."""
        return bool(self.events or self.facts or self.changes)

    @property
    def next_seq(self) -> int:
        """Return the sequence of the next event to join."""
        return self.first_seq + len(self.events)

    @property
    def is_full(self) -> bool:
        """Tell whether the next event should wait."""
        return len(self.events) >= EVENTS_MAX

    def join(
        self, calls: Sequence[Incoming], profiles: Sequence[int], accounts: Sequence[int], source: str, now_ms: int
    ) -> None:
        """Take in calls as events: those of these profiles, in these accounts."""
        self.events.extend(
            map(  # by columns, which costs half of a loop
                Event,
                range(self.next_seq, self.next_seq + len(calls)),
                [one.event_ms for one in calls],
                repeat(now_ms),
                profiles,
                accounts,
                [one.kind for one in calls],
                [one.name for one in calls],
                repeat(source),
                [one.message_id for one in calls],
                [one.body for one in calls],
            )
        )
        self.datas.extend([one.data for one in calls])

    def refuse(self, refusals: Sequence[Rejected]) -> None:
        """Take in refused events."""
        self.facts.extend(refusals)
        self.holds_refusals = self.holds_refusals or bool(refusals)

    def close(self, at_ms: int) -> Commit:
        """Return the commit; nothing joins any more."""
        self.commit = Commit(self.first_seq, at_ms, tuple(self.events), tuple(self.facts))
        return self.commit

    def end(self, error: LogError | None = None) -> None:
        """Tell everyone how it went."""
        self.error = error
        self._ended.set()

    async def ended(self) -> None:
        """Return once it is durable or has failed."""
        await self._ended.wait()

    async def durable(self) -> Commit:
        """Return the commit once it is durable. Raises LogError if it failed."""
        await self._ended.wait()
        if self.error is not None:
            raise self.error
        assert self.commit is not None
        return self.commit
