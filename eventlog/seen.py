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
from itertools import islice
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
_MARKED_FROM: Final = _SHARD_BITS + _PRINT_BITS  # the bits of the hash above go into a mark
_MARKED_MASK: Final = (1 << (64 - _MARKED_FROM)) - 1
_PRINT_MASK: Final = (1 << _PRINT_BITS) - 1
_SLOTS_MIN: Final = 64
_LOAD_MAX: Final = 0.55  # of a shard's slots; then a look-up that finds nothing goes through 3
_LOAD_NEW: Final = 0.36
_TAIL_SLOTS: Final = 64  # behind the last home, so that no probe has to wrap around

_Slots = npt.NDArray[np.uint64]
_Marks = npt.NDArray[np.uint8]


class _Shard:
    """A part of the ids as an open hash table: slots of (hash bits, sequence), 0 for none.

    `marks` has a byte a slot, 0 for none, that a look-up goes through first: an id that is new, as most are, is then
    known to be so from one or two lines of the processor's cache. They come of hash bits that the slots do not have:
    with a hundred million ids in the window one new id in 3,000 has to be looked up in the log, instead of one in ten.
    """

    __slots__ = ("count", "homes", "limit", "marks", "slots")

    def __init__(self) -> None:
        self.build(np.zeros(0, np.uint64), np.zeros(0, np.uint8))

    def build(self, entries: _Slots, marks: _Marks) -> None:
        """Lay out these entries alone, each in its home slot or the next free one behind it."""
        self.count = len(entries)
        self.homes = max(_SLOTS_MIN, int(self.count / _LOAD_NEW))
        self.limit = int(self.homes * _LOAD_MAX)
        if not self.count:  # as all are in a new space
            self.slots = array("Q", bytes(8 * (self.homes + _TAIL_SLOTS)))
            self.marks = bytearray(self.homes + _TAIL_SLOTS)
            return
        in_order = np.argsort(entries)  # by hash bits, and so by home
        entries = entries[in_order]
        home = ((entries >> np.uint64(_SEQ_BITS)).astype(np.int64) * self.homes) >> _PRINT_BITS
        order = np.arange(self.count)
        place = np.maximum.accumulate(home - order) + order
        size = max(self.homes, int(place[-1]) + 1) + _TAIL_SLOTS
        laid = np.zeros(size, np.uint64)
        laid[place] = entries
        self.slots = array("Q", laid.tobytes())
        laid_marks = np.zeros(size, np.uint8)
        laid_marks[place] = marks[in_order]
        self.marks = bytearray(laid_marks.tobytes())

    def insert(self, entries: list[int], marks_of: list[int]) -> None:
        """Put entries into the next free slots behind their homes."""
        marks, slots, homes = self.marks, self.slots, self.homes
        self.count += len(entries)
        last = 0
        for entry, mark in zip(entries, marks_of, strict=True):
            place = ((entry >> _SEQ_BITS) * homes) >> _PRINT_BITS
            while marks[place]:
                place += 1
            marks[place] = mark
            slots[place] = entry
            if place > last:
                last = place
                if place >= len(marks) - 2:  # the last slot stays empty: it ends every probe
                    self.build(*self.entries())
                    marks, slots, homes, last = self.marks, self.slots, self.homes, 0

    def entries(self) -> tuple[_Slots, _Marks]:
        """Return what the slots hold, and their marks."""
        slots: _Slots = np.frombuffer(self.slots, np.uint64)
        marks: _Marks = np.frombuffer(self.marks, np.uint8)
        is_taken = slots != 0
        return slots[is_taken], marks[is_taken]


class _Entries(NamedTuple):
    """What goes into tables of some ids: their shards, slots and marks."""

    shards: npt.NDArray[np.int64]
    slots: _Slots
    marks: _Marks


def _entries(ids: list[str], seqs: npt.NDArray[np.int64]) -> _Entries:
    hashed = np.fromiter(map(hash, ids), np.int64, len(ids))
    prints = (hashed >> _SHARD_BITS) & _PRINT_MASK
    marks = ((hashed >> _MARKED_FROM) & _MARKED_MASK) % 255 + 1
    return _Entries(
        hashed & (_SHARDS - 1), ((prints << _SEQ_BITS) | seqs).view(np.uint64), marks.astype(np.uint8, copy=False)
    )


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
        if self._is_in_tables((message_id,), received_ms):
            return False
        self._recent[message_id] = received_ms
        return True

    def add_all(self, message_ids: Sequence[str], received_ms: int) -> bool:
        """Take down ids that came in together if all are new and none is there twice; False: ask for each of them."""
        recent = self._recent
        if len(set(message_ids)) < len(message_ids) or not recent.keys().isdisjoint(message_ids):
            return False
        if self._is_in_tables(message_ids, received_ms):
            return False
        recent.update(dict.fromkeys(message_ids, received_ms))
        return True

    def _is_in_tables(self, message_ids: Sequence[str], received_ms: int) -> bool:
        """Tell whether the tables have one of these ids, received within the window."""
        shards = self._shards
        for message_id in message_ids:
            hashed = hash(message_id)
            shard = shards[hashed & (_SHARDS - 1)]
            print_ = (hashed >> _SHARD_BITS) & _PRINT_MASK
            place = (print_ * shard.homes) >> _PRINT_BITS
            marks = shard.marks
            while mark := marks[place]:
                if mark == ((hashed >> _MARKED_FROM) & _MARKED_MASK) % 255 + 1:
                    slot = shard.slots[place]
                    if slot >> _SEQ_BITS == print_ and self._is_seen(message_id, slot & _SEQ_MASK, received_ms):
                        return True
                place += 1
        return False

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
        found = [_entries([], np.zeros(0, np.int64))]
        for columns in self._log.scan_columns(None, self._log.seq_at(now_ms - self.window_ms)):
            found.append(_entries(columns.message_ids(), columns.seq))
            self._mark(int(columns.received_ms[-1]), int(columns.seq[-1]))
        shard_of, slots, marks = (np.concatenate(parts) for parts in zip(*found, strict=True))
        narrow = shard_of.astype(np.uint8)  # so that sorting is counting
        order = np.argsort(narrow, kind="stable")
        slots, marks = slots[order], marks[order]
        ends = np.cumsum(np.bincount(narrow, minlength=_SHARDS)).tolist()
        for shard, begin, end in zip(self._shards, [0, *ends[:-1]], ends, strict=True):
            shard.build(slots[begin:end], marks[begin:end])

    def _settle(self) -> None:
        """Move the oldest noted ids from the dict to their shards, in order of place: memory is then met in a row."""
        count = max(RECENT_IDS, 1)
        ids, seqs, received = self._logged_ids[:count], self._logged_seqs[:count], self._logged_ms[:count]
        del self._logged_ids[:count], self._logged_seqs[:count], self._logged_ms[:count]
        self._let_go(ids, received)
        last_ms = received[-1]
        self._mark(last_ms, seqs[-1])
        shard_of, slots, marks = _entries(ids, np.array(seqs))
        order = np.lexsort((slots, shard_of))
        ends = np.searchsorted(shard_of[order], np.arange(_SHARDS + 1)).tolist()
        listed, listed_marks = slots[order].tolist(), marks[order].tolist()
        for shard, start, end in zip(self._shards, ends, ends[1:], strict=False):
            shard.insert(listed[start:end], listed_marks[start:end])
            if shard.count > shard.limit:
                now, marks_now = shard.entries()
                is_live = (now & np.uint64(_SEQ_MASK)) > np.uint64(self._expired_seq(last_ms))
                shard.build(now[is_live], marks_now[is_live])

    def _let_go(self, ids: list[str], received: "array[int]") -> None:
        """Take ids that go to the tables out of the dict, unless they came again since."""
        recent = self._recent
        count = len(ids)
        if list(islice(recent, count)) == ids and list(islice(recent.values(), count)) == received.tolist():
            self._recent = dict(islice(recent.items(), count, None))  # all at once: as a rule they are the oldest
            return
        for message_id, received_ms in zip(ids, received, strict=True):
            if recent.get(message_id) == received_ms:
                del recent[message_id]

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
