"""The message ids seen within a window of their first receipt, so that a message sent twice is taken once.

The log itself remembers every id, so nothing is stored twice: the newest ids are kept as they are (a dict), the others
as 9 bytes each in hash tables that tell where in the log the id lies. An id that no table knows is new, and that is
decided in memory; one that a table seems to know is looked up in the log and compared, so a mere likeness of hashes
never drops an event. After a restart `restore` reads the window's ids from the log.

A message is a duplicate while `now - first receipt < window`; from then on its id counts as new. Times are
milliseconds since the epoch, UTC, and never go back.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from eventlog.entries import Event
from eventlog.log import Log

WINDOW_MS: Final = 24 * 60 * 60 * 1000  # contract, section 1
RECENT_IDS: Final = 4096  # at least so many are kept as they are, at most twice as many; they fit the processor's cache
PACKS_KEPT: Final = 16  # of those last looked up, so that a file imported again is compared pack by pack
MARKS_MAX: Final = 4096  # of the clock: what has left the window is known to a 4096th of it

_SHARD_BITS: Final = 6
_SHARDS: Final = 1 << _SHARD_BITS
_PRINT_BITS: Final = 24  # of the hash are kept in a slot, besides those that choose the shard
_SEQ_BITS: Final = 64 - _PRINT_BITS  # a trillion entries
_SEQ_MASK: Final = (1 << _SEQ_BITS) - 1
_PRINT_MASK: Final = (1 << _PRINT_BITS) - 1
_SLOTS_MIN: Final = 64
_LOAD_MAX: Final = 0.55  # of a shard's slots; then a look-up that finds nothing goes through 3
_LOAD_NEW: Final = 0.36
_TAIL_SLOTS: Final = 64  # behind the last home, so that no probe has to wrap around

_Slots = npt.NDArray[np.uint64]


class _Shard:
    """A part of the ids as an open hash table: slots of (hash bits, sequence), 0 for none.

    `marks` has a byte a slot, 0 for none, that a look-up goes through first: an id that is new, as most are, is then
    known to be so from one or two lines of the processor's cache.
    """

    __slots__ = ("count", "homes", "limit", "marks", "slots")

    def __init__(self) -> None:
        self.build(np.zeros(0, np.uint64))

    def build(self, entries: _Slots) -> None:
        """Lay out these entries alone, each in its home slot or the next free one behind it."""
        self.count = len(entries)
        self.homes = max(_SLOTS_MIN, int(self.count / _LOAD_NEW))
        self.limit = int(self.homes * _LOAD_MAX)
        if not self.count:  # as all are in a new space
            self.slots = array("Q", bytes(8 * (self.homes + _TAIL_SLOTS)))
            self.marks = bytearray(self.homes + _TAIL_SLOTS)
            return
        entries = np.sort(entries)  # by hash bits, and so by home
        home = ((entries >> np.uint64(_SEQ_BITS)).astype(np.int64) * self.homes) >> _PRINT_BITS
        order = np.arange(self.count)
        place = np.maximum.accumulate(home - order) + order
        size = max(self.homes, int(place[-1]) + 1) + _TAIL_SLOTS
        laid = np.zeros(size, np.uint64)
        laid[place] = entries
        self.slots = array("Q", laid.tobytes())
        prints = (laid >> np.uint64(_SEQ_BITS)).astype(np.int64) % 255 + 1
        self.marks = bytearray(np.where(laid != 0, prints, 0).astype(np.uint8).tobytes())

    def insert(self, entries: list[int]) -> None:
        """Put entries into the next free slots behind their homes."""
        marks, slots, homes = self.marks, self.slots, self.homes
        for entry in entries:
            print_ = entry >> _SEQ_BITS
            place = (print_ * homes) >> _PRINT_BITS
            while marks[place]:
                place += 1
            marks[place] = print_ % 255 + 1
            slots[place] = entry
            self.count += 1
            if place >= len(marks) - 2:  # the last slot stays empty: it ends every probe
                self.build(self.entries())
                marks, slots, homes = self.marks, self.slots, self.homes

    def entries(self) -> _Slots:
        """Return what the slots hold."""
        slots: _Slots = np.frombuffer(self.slots, np.uint64)
        taken: _Slots = slots[slots != 0]
        return taken


def _entries(ids: list[str], seqs: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], _Slots]:
    """Return the shards of ids, and what goes into their slots."""
    hashed = np.fromiter(map(hash, ids), np.int64, len(ids))
    prints = (hashed >> _SHARD_BITS) & _PRINT_MASK
    return hashed & (_SHARDS - 1), ((prints << _SEQ_BITS) | seqs).view(np.uint64)


class _Ids(NamedTuple):
    """The ids of events that lie together in the log, and when they were received."""

    first_seq: int
    last_seq: int
    ids: list[str]
    received_ms: list[int]


class SeenIds:
    """The message ids seen within a window."""

    def __init__(self, log: Log, window_ms: int = WINDOW_MS) -> None:
        """Begin with none; `restore` brings back those in the log."""
        self._log = log
        self.window_ms = window_ms
        self._recent: dict[str, int] = {}  # id -> first receipt
        # Those of them that are in the log, in its order: their ids, sequences and receipts, in three columns.
        self._logged_ids: list[str] = []
        self._logged_seqs = array("q")
        self._logged_ms = array("q")
        self._shards = [_Shard() for _ in range(_SHARDS)]
        self._marks: deque[tuple[int, int]] = deque()  # receipt, sequence, every window / MARKS_MAX
        self._looked_up: deque[_Ids] = deque(maxlen=PACKS_KEPT)

    def __len__(self) -> int:
        """Return how many ids are held in memory, some that have just left the window among them."""
        return len(self._recent) + sum(shard.count for shard in self._shards)

    @property
    def table_bytes(self) -> int:
        """Return the size of the hash tables."""
        return sum(len(shard.slots) * 9 for shard in self._shards)

    def add(self, message_id: str, received_ms: int) -> bool:
        """Take down an id that came in; False if it was seen within the window."""
        first_ms = self._recent.get(message_id)
        if first_ms is not None and received_ms - first_ms < self.window_ms:
            return False
        hashed = hash(message_id)
        shard = self._shards[hashed & (_SHARDS - 1)]
        print_ = (hashed >> _SHARD_BITS) & _PRINT_MASK
        place = (print_ * shard.homes) >> _PRINT_BITS
        marks = shard.marks
        wanted = print_ % 255 + 1
        while mark := marks[place]:
            if mark == wanted:
                slot = shard.slots[place]
                if slot >> _SEQ_BITS == print_ and self._is_seen(message_id, slot & _SEQ_MASK, received_ms):
                    return False
            place += 1
        self._recent[message_id] = received_ms
        return True

    def discard(self, message_ids: Iterable[str]) -> None:
        """Forget ids that `add` took and whose events did not get into the log after all."""
        for message_id in message_ids:
            self._recent.pop(message_id, None)

    def note(self, events: Sequence[Event]) -> None:
        """Take down where in the log added ids lie, once their events were appended."""
        self._logged_ids.extend([event.message_id for event in events])
        self._logged_seqs.extend([event.seq for event in events])
        self._logged_ms.extend([event.received_ms for event in events])
        while len(self._logged_ids) > 2 * RECENT_IDS:
            self._settle()

    def restore(self, now_ms: int) -> None:
        """Read the ids of the window from the log, instead of those held so far."""
        self._recent.clear()
        self._logged_ids, self._logged_seqs, self._logged_ms = [], array("q"), array("q")
        self._marks.clear()
        self._looked_up.clear()
        entries: list[_Slots] = []
        shards: list[npt.NDArray[np.int64]] = []
        for columns in self._log.scan_columns(None, self._log.seq_at(now_ms - self.window_ms)):
            some_shards, some_entries = _entries(columns.message_ids(), columns.seq)
            shards.append(some_shards)
            entries.append(some_entries)
            self._mark(int(columns.received_ms[-1]), int(columns.seq[-1]))
        everything = np.concatenate(entries) if entries else np.zeros(0, np.uint64)
        shard_of = np.concatenate(shards) if shards else np.zeros(0, np.int64)
        for number, shard in enumerate(self._shards):
            shard.build(everything[shard_of == number])

    def _settle(self) -> None:
        """Move the oldest noted ids from the dict to their shards, in order of place: memory is then met in a row."""
        count = max(RECENT_IDS, 1)
        ids, seqs, received = self._logged_ids[:count], self._logged_seqs[:count], self._logged_ms[:count]
        del self._logged_ids[:count], self._logged_seqs[:count], self._logged_ms[:count]
        recent = self._recent
        for message_id, received_ms in zip(ids, received, strict=True):
            if recent.get(message_id) == received_ms:
                del recent[message_id]
        last_ms = received[-1]
        self._mark(last_ms, seqs[-1])
        shard_of, entries = _entries(ids, np.array(seqs))
        order = np.lexsort((entries, shard_of))
        shard_of, entries = shard_of[order], entries[order]
        ends = np.searchsorted(shard_of, np.arange(_SHARDS + 1)).tolist()
        for number, shard in enumerate(self._shards):
            shard.insert(entries[ends[number] : ends[number + 1]].tolist())
            if shard.count > shard.limit:
                entries_now = shard.entries()
                shard.build(entries_now[(entries_now & np.uint64(_SEQ_MASK)) > np.uint64(self._expired_seq(last_ms))])

    def _mark(self, received_ms: int, seq: int) -> None:
        """Keep in mind, now and then, when an entry was received."""
        marks = self._marks
        if marks and received_ms - marks[-1][0] < self.window_ms // MARKS_MAX:
            return
        marks.append((received_ms, seq))
        while len(marks) > 1 and marks[1][0] <= received_ms - self.window_ms:
            marks.popleft()

    def _expired_seq(self, now_ms: int) -> int:
        """Return a sequence up to which every id has left the window."""
        received_ms, seq = self._marks[0]
        return seq if received_ms <= now_ms - self.window_ms else 0

    def _is_seen(self, message_id: str, seq: int, received_ms: int) -> bool:
        """Look into the log: is this the id, and is it still in the window?"""
        for found in self._looked_up:
            if found.first_seq <= seq <= found.last_seq:
                break
        else:
            columns = self._log.columns_at(seq)
            if columns is None:
                return False
            ends = int(columns.seq[0]), int(columns.seq[-1])
            found = _Ids(*ends, columns.message_ids(), columns.received_ms.tolist())
            self._looked_up.appendleft(found)
        row = seq - found.first_seq  # an erased event's id is empty, which no message's is
        return found.ids[row] == message_id and received_ms - found.received_ms[row] < self.window_ms
