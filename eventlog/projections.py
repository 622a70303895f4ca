"""What is kept beside the log to find things in it again: each entity's events, and the message ids seen lately.

`ProfileHistory` is an index: entity -> sequences. New rows stay in memory and are written behind, sorted, many at a
time (a row written with each event costs ten times as much); every question joins both. Its table may lag behind the
log by what is still in memory: after a restart the caller feeds it the log's tail again, from `log.cursor("history")`.

`SeenIds` lives in `eventlog.seen`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from eventlog.entries import Event
from eventlog.log import HISTORY, Changes, Key, Log, place_of
from eventlog.seen import SeenIds

__all__ = ["HISTORY_PROJECTION", "PENDING_ROWS_WANTED", "ProfileHistory", "SeenIds"]

HISTORY_PROJECTION: Final = "history"
PENDING_ROWS_WANTED: Final = 100_000  # sorted batches of this size take 300,000 rows a second and more
PAGE_ROWS: Final = 10_000


class ProfileHistory:
    """Which events an entity has, on disk and in memory together."""

    def __init__(self, log: Log) -> None:
        """Begin where the table ends: the log's tail behind `cursor_seq` is still to be noted."""
        self._log = log
        self._noted: dict[int, list[int]] = {}  # entity -> sequences
        self._writing: dict[int, list[int]] = {}  # the same, handed out by pending_changes and not yet stored
        self._handed_out: Changes | None = None
        self._last_seq = log.cursor(HISTORY_PROJECTION)
        self.pending_rows = 0  # not yet stored; ask for pending_changes at some PENDING_ROWS_WANTED

    @property
    def cursor_seq(self) -> int:
        """Return the sequence up to which the table knows every event."""
        return self._log.cursor(HISTORY_PROJECTION)

    def note(self, entity: int, seq: int) -> None:
        """Take down that an entity has this event. Twice is the same as once."""
        self._noted.setdefault(entity, []).append(seq)
        self.pending_rows += 1
        if seq > self._last_seq:
            self._last_seq = seq

    def note_event(self, event: Event) -> None:
        """Take down an event for the profile and the account that it was resolved to."""
        if event.profile:
            self.note(event.profile, event.seq)
        if event.account:
            self.note(event.account, event.seq)

    def pending_changes(self) -> Changes | None:
        """Return everything not yet stored, or None; `stored` has to follow once it is durable.

        Asked again before that, as after a failed write, it returns all of it again.
        """
        for entity, seqs in self._noted.items():
            self._writing.setdefault(entity, []).extend(seqs)
        self._noted = {}
        if not self._writing:
            return None
        rows: list[tuple[Key, bytes]] = [
            ((entity, seq), place_of(seq)) for entity in sorted(self._writing) for seq in sorted(self._writing[entity])
        ]
        self._handed_out = Changes(HISTORY_PROJECTION, self._last_seq, puts=((HISTORY, rows),))
        return self._handed_out

    def stored(self, changes: Changes) -> None:
        """Forget from memory what `pending_changes` returned last: it is durable."""
        assert changes is self._handed_out, "another pending_changes was asked for meanwhile"
        self._writing = {}
        self.pending_rows -= sum(len(rows) for _, rows in changes.puts)

    def seqs_of(self, entities: Iterable[int], *, after_seq: int = 0, until_seq: int | None = None) -> list[int]:
        """Return the sequences of the events of these entities, each once, in order."""
        found: set[int] = set()
        for entity in entities:
            found.update(self._noted.get(entity, ()))
            found.update(self._writing.get(entity, ()))
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
        keys: list[Key] = []
        for entity in entities:
            for pending in (self._noted, self._writing):
                self.pending_rows -= len(pending.pop(entity, ()))
            last: Key = (entity, 0)
            while rows := self._log.range(HISTORY, (entity,), last, PAGE_ROWS):
                keys += [key for key, _ in rows]
                last = rows[-1][0]
        return Changes(HISTORY_PROJECTION, self.cursor_seq, deletes=((HISTORY, keys),))
