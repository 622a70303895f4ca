"""The index beside the log that finds an entity's events again: entity -> sequences.

New rows stay in memory and are written behind, sorted, as a *run*: chunks of about a thousand rows, packed. A run is
never changed but by erasure. Several runs of one size are merged into one of the next, so that a question looks into
few of them: each row is written a few times in its life, in large pieces, whereas a table kept in order of entity would
have a page of 8 KB written anew for nearly every event once there are more profiles than a batch has rows. Every
question joins what is in the runs and in memory. The runs may lag behind the log by what is still in memory: after a
restart the caller feeds the log's tail again, from `cursor_seq`.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, overload

import msgspec
import numpy as np
from msgspec import Struct

from eventlog.codec import Ints
from eventlog.entries import Event
from eventlog.log import HISTORY, Changes, Key, Log, Table, place_of

HISTORY_PROJECTION: Final = "history_runs"
CHUNK_ROWS: Final = 1000  # 8 KB, a page of the file: a question reads one or two of each run
RUNS_MERGED: Final = 8  # of one size; a row of a billion is then written 4 times
RUN_ROWS_MAX: Final = 1_500_000  # no merge makes a larger one: it would hold up the writer for too long
PAGE_CHUNKS: Final = 256

_DIRECTORY: Final[Key] = (0, 0, 0)  # the row that lists the runs
_LAST: Final = (1 << 63) - 1
_HEAD: Final = 17  # bytes: the width of a number, the least entity and the least sequence


class Run(Struct, frozen=True, array_like=True):
    """Rows written at once, or merged: where they stand and of whom they tell."""

    number: int
    rows: int
    first_entity: int
    last_entity: int


_NO_ROWS: Final[tuple[Ints, Ints]] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
_encode_runs: Final = msgspec.msgpack.Encoder().encode
_decode_runs: Final = msgspec.msgpack.Decoder(list[Run]).decode


def _packed(entities: Ints, seqs: Ints) -> bytes:
    """Return rows in order as bytes: both columns as differences to their least, 4 bytes each where that suffices."""
    least_entity, least_seq = int(entities[0]), int(seqs.min())
    wide = max(int(entities[-1]) - least_entity, int(seqs.max()) - least_seq) >= 1 << 32
    number = np.dtype("<u8") if wide else np.dtype("<u4")
    head = bytes([number.itemsize]) + least_entity.to_bytes(8, "little") + least_seq.to_bytes(8, "little")
    return head + (entities - least_entity).astype(number).tobytes() + (seqs - least_seq).astype(number).tobytes()


def _unpacked(chunk: bytes) -> tuple[Ints, Ints]:
    """Return the entities and sequences of a chunk."""
    number = np.dtype("<u8") if chunk[0] == 8 else np.dtype("<u4")
    columns = np.frombuffer(chunk, number, offset=_HEAD).astype(np.int64)
    rows = len(columns) // 2
    least_entity, least_seq = int.from_bytes(chunk[1:9], "little"), int.from_bytes(chunk[9:17], "little")
    return columns[:rows] + least_entity, columns[rows:] + least_seq


class _Chunks(Sequence[tuple[Key, bytes]]):
    """Rows of the table for a run; sorted and packed when they are gone through, which is in the writer's thread."""

    def __init__(self, run: int, columns: Callable[[], tuple[Ints, Ints]], rows: int) -> None:
        self._run = run
        self._columns = columns
        self._rows = rows

    def __len__(self) -> int:
        return -(-self._rows // CHUNK_ROWS)

    def __iter__(self) -> Iterator[tuple[Key, bytes]]:
        entities, seqs = self._columns()
        order = np.lexsort((seqs, entities))
        entities, seqs = entities[order], seqs[order]
        once = np.append(True, (np.diff(entities) != 0) | (np.diff(seqs) != 0))
        entities, seqs = entities[once[: len(seqs)]], seqs[once[: len(seqs)]]
        for start in range(0, len(seqs), CHUNK_ROWS):
            some, theirs = entities[start : start + CHUNK_ROWS], seqs[start : start + CHUNK_ROWS]
            yield (self._run, int(some[-1]), int(theirs[-1])), _packed(some, theirs)

    @overload
    def __getitem__(self, index: int) -> tuple[Key, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Key, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Key, bytes] | list[tuple[Key, bytes]]:
        return list(self)[index]


class _Handed(Struct, frozen=True):
    """Changes that were asked for, and what is true once they are stored."""

    changes: Changes
    runs: list[Run]
    rows: int  # of those in memory, that are then in a run


class ProfileHistory:
    """Which events an entity has, on disk and in memory together."""

    def __init__(self, log: Log) -> None:
        """Begin where the runs end: the log's tail behind `cursor_seq` is still to be noted."""
        self._log = log
        # What is not yet stored, as two columns: 16 bytes a row, nothing for the garbage collector to go through, and
        # looking through all of it costs about what the look-up on disk beside it does.
        self._entities = array("q")
        self._seqs = array("q")
        self._handed_out: _Handed | None = None
        self._last_seq = log.cursor(HISTORY_PROJECTION)
        stored = log.get(HISTORY, _DIRECTORY)
        self._runs = _decode_runs(stored) if stored is not None else []

    @property
    def cursor_seq(self) -> int:
        """Return the sequence up to which the runs know every event."""
        return self._log.cursor(HISTORY_PROJECTION)

    @property
    def pending_rows(self) -> int:
        """Return how many rows are not yet stored."""
        return len(self._seqs)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Return the runs, the newest last."""
        return tuple(self._runs)

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

    # -- writing -----------------------------------------------------------------------------------------------------

    def pending_changes(self) -> Changes | None:
        """Return everything not yet stored as a run, or None; `stored` has to follow once it is durable.

        Asked again before that, as after a failed write, it returns all of it again.
        """
        if not self._seqs:
            return None
        entities, seqs = np.array(self._entities, np.int64), np.array(self._seqs, np.int64)
        run = Run(self._next_number(), len(seqs), int(entities.min()), int(entities.max()))
        chunks = _Chunks(run.number, lambda: (entities, seqs), run.rows)
        return self._hand_out([*self._runs, run], self._last_seq, chunks, rows=run.rows)

    def merging_changes(self) -> Changes | None:
        """Return what makes one run of several, where there are enough of one size; `stored` has to follow."""
        sizes: dict[int, list[Run]] = defaultdict(list)
        for run in self._runs:
            if run.rows <= RUN_ROWS_MAX // RUNS_MERGED:
                sizes[run.rows.bit_length() // (RUNS_MERGED.bit_length() - 1)].append(run)
        for some in sizes.values():
            if len(some) >= RUNS_MERGED:
                return self._merging(some[:RUNS_MERGED])
        return None

    def stored(self, changes: Changes) -> None:
        """Take what was handed out last as durable: what was in memory is in a run, or several runs are one."""
        handed = self._handed_out
        assert handed is not None, "nothing was asked for"
        assert changes is handed.changes, "other changes were asked for, or forget, meanwhile"
        self._handed_out = None
        self._runs = handed.runs
        del self._entities[: handed.rows]
        del self._seqs[: handed.rows]

    def _merging(self, some: list[Run]) -> Changes:
        stored = [row for run in some for row in self._chunks_of(run, (run.number, 0, 0))]
        first, last = min(run.first_entity for run in some), max(run.last_entity for run in some)
        run = Run(self._next_number(), sum(run.rows for run in some), first, last)

        def columns() -> tuple[Ints, Ints]:
            parts = [_unpacked(chunk) for _, chunk in stored] or [_NO_ROWS]  # all of them may have been erased
            return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])

        runs = [*(one for one in self._runs if one not in some), run]
        chunks = _Chunks(run.number, columns, run.rows)
        return self._hand_out(runs, self.cursor_seq, chunks, deletes=[key for key, _ in stored])

    def _next_number(self) -> int:
        return max((run.number for run in self._runs), default=0) + 1

    def _hand_out(
        self,
        runs: list[Run],
        cursor_seq: int,
        chunks: Sequence[tuple[Key, bytes]],
        *,
        rows: int = 0,
        deletes: Sequence[Key] = (),
    ) -> Changes:
        puts: tuple[tuple[Table, Sequence[tuple[Key, bytes]]], ...] = (
            (HISTORY, chunks),
            (HISTORY, [(_DIRECTORY, _encode_runs(runs))]),
        )
        changes = Changes(HISTORY_PROJECTION, cursor_seq, puts=puts, deletes=((HISTORY, deletes),))
        self._handed_out = _Handed(changes, runs, rows)
        return changes

    # -- asking ------------------------------------------------------------------------------------------------------

    def seqs_of(self, entities: Iterable[int], *, after_seq: int = 0, until_seq: int | None = None) -> list[int]:
        """Return the sequences of the events of these entities, each once, in order."""
        wanted = list(entities)
        pending = np.array(self._entities, np.int64)
        rows_of = np.flatnonzero(pending == wanted[0] if len(wanted) == 1 else np.isin(pending, wanted))
        found = {self._seqs[row] for row in rows_of.tolist()}
        for entity in wanted:
            for run in self._runs_with(entity):
                for _, chunk in self._chunks_of(run, (run.number, entity, 0), entity):
                    known, seqs = _unpacked(chunk)
                    found.update(seqs[known == entity].tolist())
        return sorted(seq for seq in found if seq > after_seq and (until_seq is None or seq <= until_seq))

    def events_of(self, entities: Sequence[int], *, after_seq: int = 0, until_seq: int | None = None) -> list[Event]:
        """Return the events of these entities together (an entity and what it absorbed), in order of sequence."""
        seqs = self.seqs_of(entities, after_seq=after_seq, until_seq=until_seq)
        return self._log.events_at([place_of(seq) for seq in seqs])

    def _runs_with(self, entity: int) -> Iterator[Run]:
        return (run for run in self._runs if run.first_entity <= entity <= run.last_entity)

    def _chunks_of(self, run: Run, behind: Key, entity: int = _LAST) -> Iterator[tuple[Key, bytes]]:
        """Yield a run's chunks behind a key (a chunk's last row), up to the last that may tell of an entity."""
        limit = 1 if entity != _LAST else PAGE_CHUNKS
        while rows := self._log.range(HISTORY, (run.number,), behind, limit):
            yield from rows
            behind = rows[-1][0]
            if int(behind[1]) > entity:
                return

    # -- erasing -----------------------------------------------------------------------------------------------------

    def forget(self, entities: Sequence[int]) -> Changes:
        """Return the changes that remove these entities' rows (erasure), and drop what is in memory.

        Not while changes that were handed out are being written: the rows would come back.
        """
        gone = list(entities)
        kept = ~np.isin(np.array(self._entities, np.int64), gone)
        self._entities = array("q", np.array(self._entities, np.int64)[kept].tobytes())
        self._seqs = array("q", np.array(self._seqs, np.int64)[kept].tobytes())
        self._handed_out = None
        touched: dict[Key, bytes] = {}
        for entity in gone:
            for run in self._runs_with(entity):
                touched.update(self._chunks_of(run, (run.number, entity, 0), entity))
        puts: list[tuple[Key, bytes]] = []
        for key, chunk in touched.items():
            known, seqs = _unpacked(chunk)
            stays = ~np.isin(known, gone)
            if stays.any():
                known, seqs = known[stays], seqs[stays]
                puts.append(((key[0], int(known[-1]), int(seqs[-1])), _packed(known, seqs)))
        return Changes(
            HISTORY_PROJECTION, self.cursor_seq, deletes=((HISTORY, list(touched)),), puts=((HISTORY, puts),)
        )
