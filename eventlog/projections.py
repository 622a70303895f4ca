"""What is kept beside the log to find things in it again: each entity's events, and the message ids seen lately.

`ProfileHistory` is an index: entity -> sequences. New rows stay in memory and are written behind, sorted, many at a
time (a row written with each event costs ten times as much); every question joins both. Its table may lag behind the
log by what is still in memory: after a restart the caller feeds it the log's tail again, from `log.cursor("history")`.

`SeenIds` lives in `eventlog.seen`.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

import numpy as np

from eventlog.codec import Ints
from eventlog.entries import Event
from eventlog.log import HISTORY, Changes, Key, Log, place_of
from eventlog.seen import SeenIds

__all__ = ["HISTORY_PROJECTION", "PENDING_ROWS_WANTED", "ProfileHistory", "SeenIds"]

HISTORY_PROJECTION: Final = "history"
PENDING_ROWS_WANTED: Final = 100_000  # sorted batches of this size take 300,000 rows a second and more
PAGE_ROWS: Final = 10_000


class _Rows(Sequence[tuple[Key, bytes]]):
    """Rows of the history in order of key; made when they are gone through, which is in the writer's thread."""

    def __init__(self, entities: Ints, seqs: Ints) -> None:
        self._entities = entities
        self._seqs = seqs

    def __len__(self) -> int:
        return len(self._seqs)

    def __iter__(self) -> Iterator[tuple[Key, bytes]]:
        order = np.lexsort((self._seqs, self._entities))
        seqs = self._seqs[order].tolist()
        keys: Iterator[Key] = zip(self._entities[order].tolist(), seqs, strict=True)
        return zip(keys, map(place_of, seqs), strict=True)

    @overload
    def __getitem__(self, index: int) -> tuple[Key, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Key, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Key, bytes] | list[tuple[Key, bytes]]:
        return list(self)[index]


class ProfileHistory:
    """Which events an entity has, on disk and in memory together."""

    def __init__(self, log: Log) -> None:
        """Begin where the table ends: the log's tail behind `cursor_seq` is still to be noted."""
        self._log = log
        # What is not yet stored, as two columns: 16 bytes a row, nothing for the garbage collector to go through, and
        # looking through all of it costs about what the look-up on disk beside it does.
        self._entities = array("q")
        self._seqs = array("q")
        self._handed_out: Changes | None = None
        self._last_seq = log.cursor(HISTORY_PROJECTION)

    @property
    def cursor_seq(self) -> int:
        """Return the sequence up to which the table knows every event."""
        return self._log.cursor(HISTORY_PROJECTION)

    @property
    def pending_rows(self) -> int:
        """Return how many rows are not yet stored; ask for pending_changes at some PENDING_ROWS_WANTED."""
        return len(self._seqs)

    def note(self, entity: int, seq: int) -> None:
        """Take down that an entity has this event. Twice is the same as once."""
        self._entities.append(entity)
        self._seqs.append(seq)
        if seq > self._last_seq:
            self._last_seq = seq

    def note_events(self, events: Sequence[Event]) -> None:
        """Take down events, in order, for the profiles and the accounts that they were resolved to."""
        if not events:
            return
        self._entities.extend([event.profile for event in events if event.profile])
        self._seqs.extend([event.seq for event in events if event.profile])
        for event in events:
            if event.account:
                self.note(event.account, event.seq)
        self._last_seq = max(self._last_seq, events[-1].seq)

    def pending_changes(self) -> Changes | None:
        """Return everything not yet stored, or None; `stored` has to follow once it is durable.

        Asked again before that, as after a failed write, it returns all of it again.
        """
        if not self._seqs:
            return None
        rows = _Rows(np.array(self._entities, np.int64), np.array(self._seqs, np.int64))
        self._handed_out = Changes(HISTORY_PROJECTION, self._last_seq, puts=((HISTORY, rows),))
        return self._handed_out

    def stored(self, changes: Changes) -> None:
        """Forget from memory what `pending_changes` returned last: it is durable."""
        assert changes is self._handed_out, "another pending_changes was asked for, or forget, meanwhile"
        self._handed_out = None
        count = len(changes.puts[0][1])
        del self._entities[:count]
        del self._seqs[:count]

    def seqs_of(self, entities: Iterable[int], *, after_seq: int = 0, until_seq: int | None = None) -> list[int]:
        """Return the sequences of the events of these entities, each once, in order."""
        wanted = list(entities)
        pending = np.array(self._entities, np.int64)
        rows_of = np.flatnonzero(pending == wanted[0] if len(wanted) == 1 else np.isin(pending, wanted))
        found = {self._seqs[row] for row in rows_of.tolist()}
        for entity in wanted:
            last: Key = (entity, after_seq)
            while rows := self._log.range(HISTORY, (entity,), last, PAGE_ROWS):
                found.update(int(key[1]) for key, _ in rows)
                last = rows[-1][0]
        return sorted(seq for seq in found if seq > after_seq and (until_seq is None or seq <= until_seq))

    def events_of(self, entities: Sequence[int], *, after_seq: int = 0, until_seq: int | None = None) -> list[Event]:
        """Return the events of these entities together (an entity and what it absorbed), in order of sequence."""
        seqs = self.seqs_of(entities, after_seq=after_seq, until_seq=until_seq)
        return self._log.events_at([place_of(seq) for seq in seqs])

    def forget(self, entities: Sequence[int]) -> Changes:
        """Return the changes that remove these entities' rows (erasure), and drop what is in memory.

        Not while `pending_changes` are being written: they would come back.
        """
        kept = ~np.isin(np.array(self._entities, np.int64), list(entities))
        self._entities = array("q", np.array(self._entities, np.int64)[kept].tobytes())
        self._seqs = array("q", np.array(self._seqs, np.int64)[kept].tobytes())
        self._handed_out = None
        keys: list[Key] = []
        for entity in entities:
            last: Key = (entity, 0)
            while rows := self._log.range(HISTORY, (entity,), last, PAGE_ROWS):
                keys += [key for key, _ in rows]
                last = rows[-1][0]
        return Changes(HISTORY_PROJECTION, self.cursor_seq, deletes=((HISTORY, keys),))
