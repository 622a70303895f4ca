"""What a space's destinations look at in its log, read once for all of them.

Most of a log is customer events, and destinations care for none but group calls that link a user to an account. The
newest relevant entries are kept (a bounded number); a destination that is further behind reads the log itself, in
slices, in another thread, so that catching up holds nobody up.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Final

import anyio.to_thread
from msgspec import Struct

from eventlog.entries import (
    GROUP,
    Commit,
    DefinitionDeleted,
    Entered,
    Erased,
    Exited,
    IdAdded,
    Merged,
    RegulationSaved,
    TraitComputed,
)
from eventlog.log import Log

KEPT_MAX: Final = 20_000  # entries, about 4 MB
SLICE_ENTRIES: Final = 500  # relevant entries handed over at once
SLICE_COMMITS: Final = 200  # commits read at once by one that is behind
INLINE_ENTRIES_MAX: Final = 2_000  # so many entries are decoded in some ms; more are read in another thread


class Linked(Struct, frozen=True):
    """A group call said that a user belongs to an account (maybe not for the first time)."""

    profile: int
    account: int


Relevant = Entered | Exited | TraitComputed | IdAdded | Merged | Erased | RegulationSaved | DefinitionDeleted | Linked
RELEVANT_FACTS: Final = frozenset(
    (Entered, Exited, TraitComputed, IdAdded, Merged, Erased, RegulationSaved, DefinitionDeleted)
)


class Item(Struct, frozen=True):
    """A relevant entry with its sequence and when it was recorded."""

    seq: int
    recorded_ms: int
    what: Relevant


class Slice(Struct, frozen=True):
    """Relevant entries in order, and the sequence up to which there are no others."""

    items: tuple[Item, ...]
    until_seq: int


def relevant(commit: Commit) -> Iterator[Item]:
    """Yield what destinations look at in a commit."""
    for event in commit.events:
        if event.kind == GROUP and event.profile and event.account:
            yield Item(event.seq, commit.at_ms, Linked(event.profile, event.account))
    first = commit.first_seq + len(commit.events)
    for seq, fact in enumerate(commit.facts, first):
        if type(fact) in RELEVANT_FACTS:
            yield Item(seq, commit.at_ms, fact)  # type: ignore[arg-type]  # its type was just looked up


class EffectSource:
    """Reads a log for all destinations of a space."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kept: deque[Item] = deque()
        self._after_seq = log.last_seq  # what is kept begins after it
        self._until_seq = log.last_seq
        self.following = False  # whether someone offers every commit, so that none has to be read

    @property
    def until_seq(self) -> int:
        """Return up to where commits have been seen."""
        return self._until_seq

    @property
    def last_seq(self) -> int:
        """Return the sequence of the last entry of the log."""
        return self._log.last_seq

    def offer(self, commit: Commit) -> None:
        """Take a commit that follows those seen so far."""
        if commit.last_seq <= self._until_seq:
            return
        self._kept.extend(item for item in relevant(commit) if item.seq > self._until_seq)
        self._until_seq = commit.last_seq
        while len(self._kept) > KEPT_MAX:
            self._after_seq = self._kept.popleft().seq

    def catch_up(self) -> None:
        """Read what was appended since, if that is little; else begin anew at the end."""
        if self.following:
            return
        last_seq = self._log.last_seq
        if last_seq - self._until_seq > INLINE_ENTRIES_MAX:
            self._kept.clear()
            self._after_seq = self._until_seq = last_seq
            return
        if last_seq > self._until_seq:
            for commit in self._log.read(self._until_seq):
                self.offer(commit)

    async def read(self, after_seq: int) -> Slice:
        """Return the next relevant entries after a sequence: at most `SLICE_ENTRIES`, none at the end of the log."""
        self.catch_up()
        if after_seq >= self._after_seq:
            new = list(takewhile(lambda item: item.seq > after_seq, reversed(self._kept)))
            if len(new) > SLICE_ENTRIES:
                items = tuple(reversed(new[-SLICE_ENTRIES:]))
                return Slice(items, items[-1].seq)
            return Slice(tuple(reversed(new)), max(after_seq, self._until_seq))
        return await anyio.to_thread.run_sync(self._read_slice, after_seq)

    def _read_slice(self, after_seq: int) -> Slice:
        items: list[Item] = []
        until_seq = after_seq
        for commit in islice(self._log.read(after_seq), SLICE_COMMITS):
            items += [item for item in relevant(commit) if item.seq > after_seq]
            until_seq = commit.last_seq
            if len(items) >= SLICE_ENTRIES:
                break
        return Slice(tuple(items), until_seq)
