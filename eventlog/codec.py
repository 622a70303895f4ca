"""Commits to bytes and back: a commit is one or more *packs*, each a head of columns and a body of what came.

The idea: a scan decides by columns which events it wants and decodes those alone, and one event can be fetched without
unpacking the whole commit it came in. So a pack holds at most `PACK_EVENTS_MAX` events, its columns lie in the head
(times, entities, kinds, indices into tables of names and sources), and message ids, bodies and facts in the body, which
is opened only when one of them is asked for. Both parts are compressed where that saves something, and both carry a
checksum, so a torn byte is an error and never an answer. The first byte is the format's version: old ones decode for
ever (tests/conformance/entries/).

    head: HEADER | event_ms received_ms profile account (i64) | body and id sizes (u32) | name source (u16) | kind (u8)
          | names and sources as msgpack
    body: message ids | bodies | facts as msgpack

Encoding has two halves: `pack` (joins, on the caller's thread) and `seal` (compression and checksums, which release the
interpreter lock and belong on the writer's thread). Times are milliseconds since the epoch, UTC; bytes little-endian.
"""

import struct
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, Generic, NamedTuple, TypeVar, overload

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard
from msgspec import Struct
from msgspec.structs import astuple

from eventlog.entries import AnyFact, Commit, Event
from eventlog.errors import LogCorruptError, LogError

FORMAT: Final = 1
PACK_EVENTS_MAX: Final = 512  # numpy's cost per pack is then about 30 ns an event, and one event costs 0.1 ms to fetch
PACK_BODY_BYTES_MAX: Final = 1024 * 1024  # a pack of large events is cut earlier; one event is at most 32 KB
PACK_FACTS_MAX: Final = 4096
COMPRESS_BYTES_MIN: Final = 512  # below it a frame's own overhead eats the gain
COMPRESSION_LEVEL: Final = 1  # 300 ns an event of 254 bytes to a sixth of its size; level 3 saves nothing more
UNPACKED_BYTES_MAX: Final = 1 << 30  # a torn size must not ask for all memory

_LAST: Final = 1  # flags: the commit's last pack
_HEAD_COMPRESSED: Final = 2
_BODY_COMPRESSED: Final = 4
_FACTS_JSON: Final = 8  # msgpack has no integers over 64 bits; such facts are JSON

_HEADER: Final = struct.Struct("<BBHIQQqIIIIIII")
_CHECKED_FROM: Final = 8  # the checksum covers everything behind itself
_EVENT_BYTES: Final = 4 * 8 + 2 * 4 + 2 * 2 + 1

Ints = npt.NDArray[np.int64]

_ENCODE_TABLES = msgspec.msgpack.Encoder().encode
_DECODE_TABLES = msgspec.msgpack.Decoder(tuple[list[str], list[str]]).decode
_ENCODE_FACTS = msgspec.msgpack.Encoder().encode
_DECODE_FACTS = msgspec.msgpack.Decoder(tuple[AnyFact, ...]).decode
_ENCODE_FACTS_JSON = msgspec.json.Encoder().encode
_DECODE_FACTS_JSON = msgspec.json.Decoder(tuple[AnyFact, ...]).decode


class Pack(NamedTuple):
    """A sealed pack: what a log stores."""

    first_seq: int
    last_seq: int
    commit_seq: int  # the first sequence of its commit
    at_ms: int
    head: bytes
    body: bytes


class RawPack(NamedTuple):
    """A pack that is joined but neither compressed nor checked."""

    first_seq: int
    commit_seq: int
    at_ms: int
    events_count: int
    facts_count: int
    flags: int
    head: bytes
    body: bytes


class Header(Struct, frozen=True):
    """What a pack's first bytes say."""

    flags: int
    first_seq: int
    commit_seq: int
    at_ms: int
    events_count: int
    facts_count: int
    head_bytes: int  # unpacked, as are all sizes that are not called stored
    head_stored_bytes: int
    body_bytes: int
    body_stored_bytes: int
    body_crc: int

    @property
    def last_seq(self) -> int:
        """Return the sequence of the pack's last entry."""
        return self.first_seq + self.events_count + self.facts_count - 1

    @property
    def ends_commit(self) -> bool:
        """Tell whether this is the last pack of its commit."""
        return bool(self.flags & _LAST)


class _Zstd(threading.local):
    """A thread's own compressor and decompressor: neither may be shared between threads."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_ZSTD = _Zstd()


# -- encoding --------------------------------------------------------------------------------------------------------


def pack(commit: Commit) -> list[RawPack]:
    """Join a commit's entries into packs."""
    plan: list[tuple[Sequence[Event], Sequence[AnyFact]]] = [(events, ()) for events in _runs(commit.events)]
    chunks = [commit.facts[i : i + PACK_FACTS_MAX] for i in range(0, len(commit.facts), PACK_FACTS_MAX)]
    if plan and chunks:  # so that the usual small commit, events and what they caused, is one pack
        plan[-1] = (plan[-1][0], chunks.pop(0))
    plan += [((), chunk) for chunk in chunks]
    if not plan:
        raise LogError(f"commit {commit.first_seq} holds no entries")
    raw = []
    seq = commit.first_seq
    for number, (events, some_facts) in enumerate(plan, 1):
        raw.append(_raw(commit, seq, events, some_facts, last=number == len(plan)))
        seq += len(events) + len(some_facts)
    return raw


def seal(raw: RawPack) -> Pack:
    """Compress a pack's parts where that saves something, and add the header with its checksums."""
    flags = raw.flags
    head = _compressed(raw.head)
    body = _compressed(raw.body)
    if head is not raw.head:
        flags |= _HEAD_COMPRESSED
    if body is not raw.body:
        flags |= _BODY_COMPRESSED
    header = bytearray(_HEADER.size)
    _HEADER.pack_into(
        header,
        0,
        FORMAT,
        flags,
        0,
        0,
        raw.first_seq,
        raw.commit_seq,
        raw.at_ms,
        raw.events_count,
        raw.facts_count,
        len(raw.head),
        len(head),
        len(raw.body),
        len(body),
        zlib.crc32(body),
    )
    crc = zlib.crc32(head, zlib.crc32(memoryview(header)[_CHECKED_FROM:], zlib.crc32(header[:4])))
    struct.pack_into("<I", header, 4, crc)
    last_seq = raw.first_seq + raw.events_count + raw.facts_count - 1
    return Pack(raw.first_seq, last_seq, raw.commit_seq, raw.at_ms, bytes(header) + head, body)


def encode_commit(commit: Commit) -> bytes:
    """Return a commit as bytes: its packs, head and body by turns."""
    return b"".join(part for raw in pack(commit) for sealed in (seal(raw),) for part in (sealed.head, sealed.body))


def _runs(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Cut events into runs that fit a pack each."""
    for start in range(0, len(events), PACK_EVENTS_MAX):
        run = events[start : start + PACK_EVENTS_MAX]
        if sum([len(event.body) for event in run]) <= PACK_BODY_BYTES_MAX:
            yield run
            continue
        size, begin = 0, 0
        for index, event in enumerate(run):
            if index > begin and size + len(event.body) > PACK_BODY_BYTES_MAX:
                yield run[begin:index]
                size, begin = 0, index
            size += len(event.body)
        yield run[begin:]


def _raw(commit: Commit, seq: int, events: Sequence[Event], facts: Sequence[AnyFact], *, last: bool) -> RawPack:
    flags = _LAST if last else 0
    head, body = _joined(events, seq) if events else (b"", b"")
    if facts:
        try:
            body += _ENCODE_FACTS(facts)
        except OverflowError:
            body += _ENCODE_FACTS_JSON(facts)
            flags |= _FACTS_JSON
    return RawPack(seq, commit.first_seq, commit.at_ms, len(events), len(facts), flags, head, body)


def _joined(events: Sequence[Event], first_seq: int) -> tuple[bytes, bytes]:
    """Return the head and body of events: columns by C-speed joins, no Python loop but over names."""
    seqs, event_ms, received_ms, profiles, accounts, kinds, names, sources, ids, bodies = zip(
        *map(astuple, events), strict=True
    )
    assert seqs[0] == first_seq, (seqs[0], first_seq)
    assert seqs[-1] == first_seq + len(seqs) - 1, (seqs[-1], first_seq, len(seqs))
    all_ids = "".join(ids)
    id_bytes = all_ids.encode()
    id_sizes = map(len, ids) if len(id_bytes) == len(all_ids) else (len(one.encode()) for one in ids)
    name_table = {name: index for index, name in enumerate(dict.fromkeys(names))}
    source_table = {source: index for index, source in enumerate(dict.fromkeys(sources))}
    head = b"".join(
        (
            _column("q", event_ms),
            _column("q", received_ms),
            _column("q", profiles),
            _column("q", accounts),
            _column("I", map(len, bodies)),
            _column("I", id_sizes),
            _column("H", map(name_table.__getitem__, names)),
            _column("H", map(source_table.__getitem__, sources)),
            bytes(kinds),
            _ENCODE_TABLES((list(name_table), list(source_table))),
        )
    )
    return head, id_bytes + b"".join(bodies)


def _column(code: str, values: Iterator[int] | Sequence[int]) -> bytes:
    column = array(code, values)
    if _BIG_ENDIAN:
        column.byteswap()
    return column.tobytes()


_BIG_ENDIAN: Final = struct.pack("=H", 1) != struct.pack("<H", 1)
assert array("I").itemsize == 4, "the columns' widths are part of the format"


def _compressed(data: bytes) -> bytes:
    """Return `data` compressed, or itself where that saves nothing."""
    if len(data) < COMPRESS_BYTES_MIN:
        return data
    smaller = _ZSTD.compress(data)
    return smaller if len(smaller) < len(data) else data


# -- decoding --------------------------------------------------------------------------------------------------------


def read_header(head: bytes, path: str) -> Header:
    """Return a pack's header, its checksum held against the head."""
    if len(head) < _HEADER.size:
        raise LogCorruptError(path, f"a pack's head has {len(head)} bytes, at least {_HEADER.size} expected")
    version, flags, _, crc, *fields = _HEADER.unpack_from(head)
    if version > FORMAT or version == 0:
        raise LogCorruptError(path, f"a pack has format {version}, this version of Turnout reads 1 to {FORMAT}")
    seen = zlib.crc32(memoryview(head)[_CHECKED_FROM:], zlib.crc32(head[:4]))
    if seen != crc:
        raise LogCorruptError(path, f"the pack that says it starts at entry {fields[0]} has a wrong checksum (columns)")
    header = Header(flags, *fields)
    if header.head_stored_bytes != len(head) - _HEADER.size:
        raise LogCorruptError(path, f"the pack at entry {header.first_seq} has a head of the wrong size")
    return header


T = TypeVar("T")


class _once(Generic[T]):  # noqa: N801 - a decorator
    """A property computed once. Unlike functools' until 3.12 it has no lock that other threads would wait for."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> "_once[T]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> "T | _once[T]":
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class PackView:
    """A stored pack, unpacked as far as it is asked for."""

    def __init__(self, head: bytes, body: bytes, path: str, first_seq: int | None = None) -> None:
        """Check the head; `first_seq` is where the log has it, when it knows."""
        self.path = path
        self.header = read_header(head, path)
        if first_seq is not None and first_seq != self.header.first_seq:
            raise LogCorruptError(path, f"the pack at entry {first_seq} says it starts at {self.header.first_seq}")
        self._head = head
        self._body = body

    # -- columns

    @_once
    def columns(self) -> bytes:
        """The columns' bytes, `offset(n)` of them each."""
        header = self.header
        stored = memoryview(self._head)[_HEADER.size :]
        columns = self._unpacked(stored, header.flags & _HEAD_COMPRESSED, header.head_bytes, "columns")
        if header.events_count and len(columns) < header.events_count * _EVENT_BYTES:
            raise self._torn("columns")
        return columns

    @_once
    def tables(self) -> tuple[list[str], list[str]]:
        """The names and the sources that the events' indices point into."""
        if not self.header.events_count:
            return [], []
        try:
            return _DECODE_TABLES(memoryview(self.columns)[self.header.events_count * _EVENT_BYTES :])
        except msgspec.MsgspecError as error:
            raise self._torn("tables") from error

    def ints_bytes(self, number: int) -> bytes:
        """Return a column of times or entities as bytes: 0 event_ms, 1 received_ms, 2 profile, 3 account."""
        size = 8 * self.header.events_count
        return self.columns[number * size : (number + 1) * size]

    def ints(self, number: int) -> Ints:
        """Return a column of times or entities, numbered as in `ints_bytes`."""
        count = self.header.events_count
        return np.frombuffer(self.columns, "<i8", count, number * 8 * count)

    def sizes(self, number: int) -> npt.NDArray[np.uint32]:
        """Return the sizes of 0 the bodies, 1 the message ids, in bytes."""
        count = self.header.events_count
        return np.frombuffer(self.columns, "<u4", count, (32 + 4 * number) * count)

    def indices_bytes(self, number: int) -> bytes:
        """Return the indices into 0 the names, 1 the sources, as bytes."""
        count = self.header.events_count
        return self.columns[(40 + 2 * number) * count : (42 + 2 * number) * count]

    def indices(self, number: int) -> npt.NDArray[np.uint16]:
        """Return the indices into 0 the names, 1 the sources."""
        count = self.header.events_count
        return np.frombuffer(self.columns, "<u2", count, (40 + 2 * number) * count)

    def kinds_bytes(self) -> bytes:
        """Return the events' kinds as bytes."""
        count = self.header.events_count
        return self.columns[44 * count : 45 * count]

    @property
    def kinds(self) -> npt.NDArray[np.uint8]:
        """Return the events' kinds."""
        count = self.header.events_count
        return np.frombuffer(self.columns, "u1", count, 44 * count)

    # -- the body

    @_once
    def body(self) -> bytes:
        """Message ids, bodies and facts, one behind the other."""
        header = self.header
        if len(self._body) != header.body_stored_bytes or zlib.crc32(self._body) != header.body_crc:
            raise LogCorruptError(self.path, f"the pack at entry {header.first_seq} has a wrong checksum (bodies)")
        return self._unpacked(self._body, header.flags & _BODY_COMPRESSED, header.body_bytes, "bodies")

    @_once
    def id_ends(self) -> list[int]:
        """Where in the body each message id ends."""
        return list(accumulate(self.sizes(1).tolist()))

    @_once
    def body_ends(self) -> list[int]:
        """Where in the body each event's body ends, the first element being where the first begins."""
        return list(accumulate(self.sizes(0).tolist(), initial=self.id_ends[-1] if self.id_ends else 0))

    @_once
    def ids(self) -> list[str]:
        """All message ids."""
        ends = self.id_ends
        if not ends:
            return []
        joined = self.body[: ends[-1]]
        starts = [0, *ends[:-1]]
        if joined.isascii():
            text = joined.decode("ascii")
            return [text[start:end] for start, end in zip(starts, ends, strict=True)]
        return [joined[start:end].decode() for start, end in zip(starts, ends, strict=True)]

    @_once
    def bodies(self) -> list[bytes]:
        """All events' bodies."""
        body, ends = self.body, self.body_ends
        return [body[start:end] for start, end in pairwise(ends)]

    def body_at(self, row: int) -> bytes:
        """Return one event's body."""
        return self.body[self.body_ends[row] : self.body_ends[row + 1]]

    def id_at(self, row: int) -> str:
        """Return one event's message id."""
        return self.body[self.id_ends[row - 1] if row else 0 : self.id_ends[row]].decode()

    # -- entries

    def events(self) -> list[Event]:
        """Return all events of the pack."""
        header = self.header
        if not header.events_count:
            return []
        names, sources = self.tables
        return list(
            map(
                Event,
                range(header.first_seq, header.first_seq + header.events_count),
                self.ints(0).tolist(),
                self.ints(1).tolist(),
                self.ints(2).tolist(),
                self.ints(3).tolist(),
                self.kinds.tolist(),
                map(names.__getitem__, self.indices(0).tolist()),
                map(sources.__getitem__, self.indices(1).tolist()),
                self.ids,
                self.bodies,
            )
        )

    def event_at(self, row: int) -> Event:
        """Return one event of the pack."""
        names, sources = self.tables
        return Event(
            self.header.first_seq + row,
            int(self.ints(0)[row]),
            int(self.ints(1)[row]),
            int(self.ints(2)[row]),
            int(self.ints(3)[row]),
            int(self.kinds[row]),
            names[int(self.indices(0)[row])],
            sources[int(self.indices(1)[row])],
            self.id_at(row),
            self.body_at(row),
        )

    def facts(self) -> tuple[AnyFact, ...]:
        """Return all facts of the pack."""
        header = self.header
        if not header.facts_count:
            return ()
        decode: Callable[[memoryview], tuple[AnyFact, ...]]
        decode = _DECODE_FACTS_JSON if header.flags & _FACTS_JSON else _DECODE_FACTS
        try:
            facts = decode(memoryview(self.body)[self.body_ends[-1] :])
        except msgspec.MsgspecError as error:
            raise LogCorruptError(self.path, f"the facts of the pack at entry {header.first_seq}: {error}") from error
        if len(facts) != header.facts_count:
            raise self._torn("facts")
        return facts

    def _unpacked(self, stored: bytes | memoryview, compressed: int, size: int, what: str) -> bytes:
        if size > UNPACKED_BYTES_MAX:
            raise self._torn(what)
        try:
            data = _ZSTD.decompress(stored, max_output_size=size) if compressed else bytes(stored)
        except zstandard.ZstdError as error:
            raise self._torn(what) from error
        if len(data) != size:
            raise self._torn(what)
        return data

    def _torn(self, what: str) -> LogCorruptError:
        return LogCorruptError(self.path, f"the {what} of the pack at entry {self.header.first_seq} do not decode")


def decode_packs(views: Sequence[PackView]) -> Commit:
    """Return the commit that these packs, all of one commit and in order, make up."""
    first = views[0].header
    if len(views) == 1:
        return Commit(first.first_seq, first.at_ms, tuple(views[0].events()), views[0].facts())
    events: list[Event] = []
    facts: list[AnyFact] = []
    for view in views:
        events += view.events()
        facts += view.facts()
    return Commit(first.first_seq, first.at_ms, tuple(events), tuple(facts))


def decode_commit(data: bytes, path: str = "a commit") -> Commit:
    """Return the commit that `encode_commit` made these bytes of; `path` names them in errors."""
    views: list[PackView] = []
    at = 0
    while not views or not views[-1].header.ends_commit:
        if len(data) < at + _HEADER.size:
            raise LogCorruptError(path, f"a commit's bytes end at {len(data)}, in the middle of it")
        *_, head_size, _, body_size, _ = _HEADER.unpack_from(data, at)
        split = at + _HEADER.size + head_size
        view = PackView(data[at:split], data[split : split + body_size], path)
        expected = views[-1].header.last_seq + 1 if views else view.header.commit_seq
        if view.header.first_seq != expected:
            raise LogCorruptError(path, f"a pack starts at entry {view.header.first_seq}, {expected} expected")
        views.append(view)
        at = split + body_size
    if at != len(data):
        raise LogCorruptError(path, f"{len(data) - at} bytes behind the end of a commit")
    return decode_packs(views)
