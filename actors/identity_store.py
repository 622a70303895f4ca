"""The working set of identity: which id leads where and what each entity is, over the log's tables.

Memory is bounded, disk is not: what was used lately is cached, what changed is kept until it is stored, the rest is
read when asked for. Small arrays, 20 bytes an entity, hold what is asked all the time about any entity: who absorbed
it, when, and which types of ids it has. Rows are values: a changed record is put anew, never altered in place.

In memory, where an id leads is one int: the time of the earliest event that carried it, above the entity (`pack`).

| table | key | value |
|---|---|---|
| IDS | id type (`accounts:` before an account's), value | the entity it leads to after all merges, the earliest time |
| ENTITIES | entity | its `EntityRecord`; no row for absorbed and erased ones |
| ENTITIES | minus an absorbed entity | `(into, seq)`: start-up reads these alone |
| META | `identity` | `Header` |
| META | `identity.suppressed:HASH` | the regulation |

For the thread of the space only.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import msgpack

from actors.bulk_ids import packed
from actors.external_ids import Collection, ExternalId
from actors.identity_rows import (
    ENTITY_BITS,
    ENTITY_MASK,
    STATE_VERSION,
    Absorption,
    EntityRecord,
    Generations,
    Header,
    IdKey,
    key_of,
    pack,
)
from eventlog.log import ENTITIES, IDS, META, Changes, Key, Table

PROJECTION: Final = "identity"
IDS_CACHED_MAX: Final = 250_000  # a generation, of two; about 250 bytes each
RECORDS_CACHED_MAX: Final = 100_000  # a generation, of two; about 300 bytes each
FETCHED_MAX: Final = 10_000  # ours: ids lately read from the tables, those that lead nowhere too
STORED_MARKS: Final = 1 << 22  # ours: a byte each; with a million ids stored one new id in five is looked for in vain
COMBINATIONS_MAX: Final = 65_536  # ours: of id types; beyond it they are learnt anew
DENSE: Final = 4  # ours: rows read for one that is wanted, before each is looked up by itself
_PAGE: Final = 1000
_HEADER_KEY: Final = PROJECTION
_SUPPRESSED: Final = f"{PROJECTION}.suppressed:"


class Tables(Protocol):
    """What is read of a log: its tables."""

    def cursor(self, projection: str) -> int:
        """See `eventlog.log.Log`."""

    def get(self, table: Table, key: Key) -> bytes | None:
        """See `eventlog.log.Log`."""

    def get_many(self, table: Table, keys: Sequence[Key]) -> dict[Key, bytes]:
        """See `eventlog.log.Log`."""

    def range(
        self, table: Table, prefix: Key = (), after: Key | None = None, limit: int = 1000
    ) -> list[tuple[Key, bytes]]:
        """See `eventlog.log.Log`."""


class _Unsaved:
    """Changed rows that are not stored yet; an empty value stands for a deleted row."""

    __slots__ = ("ids", "meta", "records")

    def __init__(self) -> None:
        self.ids: dict[IdKey, int] = {}
        self.records: dict[int, bytes] = {}
        self.meta: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self.ids) + len(self.records) + len(self.meta)


_encode = msgpack.Encoder().encode
_decode_record = msgpack.Decoder(EntityRecord).decode
_decode_header = msgpack.Decoder(Header).decode
_decode_led = msgpack.Decoder(tuple[int, int]).decode
_decode_absorption = msgpack.Decoder(tuple[int, int]).decode


def _packed(row: bytes | None) -> int:
    return 0 if row is None else pack(*_decode_led(row))


class IdentityStore:
    """Reads and changes rows, and hands the changes out to be stored."""

    def __init__(
        self,
        tables: Tables | None = None,
        *,
        ids_cached_max: int = IDS_CACHED_MAX,
        records_cached_max: int = RECORDS_CACHED_MAX,
    ) -> None:
        """Open the tables as they were last stored. With no tables all of it stays in memory."""
        self.known: Generations[IdKey, int] = Generations(ids_cached_max)  # only ids that may identify
        self.count = 0  # the last entity number given out
        self.settings: dict[str, Any] = {}
        self.suppressed: dict[str, str] = {}
        self.cursor_seq = 0  # up to which the tables are stored
        self._count_on_disk = 0  # no table has a row of an entity above it
        self._records: Generations[int, bytes] = Generations(records_cached_max)
        self._unsaved = _Unsaved()
        self._storing: _Unsaved | None = None
        self._fetched: dict[IdKey, int] = {}  # what was read of IDS lately; 0: nothing
        # By hash, whether an id may be in the tables: new ones are not looked for there. Known only of a space that
        # began in this process, as with a first import; None: not known.
        self._stored_marks: bytearray | None = None
        self._survivor = array("I", [0])  # entity -> who it is now, 0: itself
        self._into = array("I", [0])  # entity -> who absorbed it, 0: nobody
        self._since = array("Q", [0])  # entity -> the sequence it was absorbed at
        self._combination = array("I", [0])  # entity -> which of _combinations, 0: not known yet
        self._combinations: list[frozenset[str]] = [frozenset()]
        self._number_of: dict[frozenset[str], int] = {}
        self._disk = self._tables = tables
        self._cleared = False  # the tables are of another version: not read, and emptied with the next store
        if tables is not None:
            self._open(tables)

    # -- numbers -----------------------------------------------------------------------------------------------------

    def grow(self, entity: int) -> None:
        """Take note that this number was given out, and all below it."""
        if entity > self.count:
            missing = entity - self.count
            for column in (self._survivor, self._into, self._since, self._combination):
                column.extend([0] * missing)
            self.count = entity

    def canonical(self, entity: int) -> int:
        """Return who an entity is now."""
        try:
            return self._survivor[entity] or entity
        except IndexError:
            return entity

    def canonical_at(self, entity: int, seq: int) -> int:
        """Return who an entity was once the log was known up to `seq`."""
        into, since = self._into, self._since
        while 0 < entity <= self.count and into[entity] and since[entity] <= seq:
            entity = into[entity]
        return entity

    def canonical_map(self, seq: int | None = None) -> "array[int]":
        """Return who every entity is now or was at `seq`, by number: a copy, safe in another thread."""
        mapped = array("I", range(self.count + 1))
        for entity, into in enumerate(self._into):
            if into:
                mapped[entity] = self._survivor[entity] if seq is None else self.canonical_at(entity, seq)
        return mapped

    # -- ids ---------------------------------------------------------------------------------------------------------

    def led_to(self, key: IdKey) -> int:
        """Return where an id leads, packed; 0 for nowhere. Leaves the cache as it is."""
        packed = self.known.get(key)
        if packed is None:
            packed = self._unsaved.ids.get(key)
        if packed is None and self._storing is not None:
            packed = self._storing.ids.get(key)
        if packed is None:
            packed = self._fetched.get(key)
        return self._fetch(key) if packed is None else packed

    def _fetch(self, key: IdKey) -> int:
        if self._tables is None or not self._may_be_stored(key):
            return 0
        packed = _packed(self._tables.get(IDS, key))
        if len(self._fetched) >= FETCHED_MAX:
            self._fetched = {}
        self._fetched[key] = packed
        return packed

    def _may_be_stored(self, key: IdKey) -> bool:
        marks = self._stored_marks
        return marks is None or marks[hash(key) % STORED_MARKS] == 1

    def find(self, collection: Collection, id_type: str, value: str) -> int | None:
        """Return the entity that an id leads to."""
        return self.led_to(key_of(collection, id_type, value)) & ENTITY_MASK or None

    def put_id(self, key: IdKey, packed: int) -> None:
        """Let an id lead to an entity from a time on (0: nowhere)."""
        self._unsaved.ids[key] = packed
        self._fetched.pop(key, None)
        if packed:
            self.known.update(key, packed)
        else:
            self.known.discard(key)

    def begin(self, entity: int, key: IdKey, packed: int, record: EntityRecord) -> None:
        """Put a new entity with its only id, as `grow`, `put_id` and `put_record` do."""
        for column in (self._survivor, self._into, self._since, self._combination):
            column.append(0)
        self.count = entity
        self._unsaved.ids[key] = packed
        self._fetched.pop(key, None)
        self.known.put(key, packed)
        data = self._unsaved.records[entity] = _encode(record)
        self._records.put(entity, data)

    def prefetch(self, ids: Iterable[ExternalId]) -> None:
        """Read at once which of these ids are known, so that those of a batch need one read and not one each."""
        if self._tables is None:
            return
        wanted: dict[IdKey, None] = {}
        young = self.known.young
        for one in ids:
            if (one.id_type, one.value) in young and one.collection == "users":
                continue
            key = key_of(one.collection, one.id_type, one.value)
            if self.known.get(key) is None and key not in self._fetched and not self._is_unsaved(key):
                if self._may_be_stored(key):
                    wanted[key] = None
        if wanted:
            rows = self._tables.get_many(IDS, list(wanted))
            if len(self._fetched) >= FETCHED_MAX:
                self._fetched = {}
            self._fetched.update((key, _packed(rows.get(key))) for key in wanted)

    def _is_unsaved(self, key: IdKey) -> bool:
        return key in self._unsaved.ids or (self._storing is not None and key in self._storing.ids)

    # -- records -----------------------------------------------------------------------------------------------------

    def record(self, entity: int) -> EntityRecord | None:
        """Return the record of an entity that was neither absorbed nor erased."""
        data = self._records.get(entity)
        if data is None:
            data = self._unsaved_record(entity)
            if data is None and entity <= self._count_on_disk and self._tables is not None:
                data = self._tables.get(ENTITIES, (entity,))
            if data:
                self._records.put(entity, data)
        return _decode_record(data) if data else None

    def _unsaved_record(self, entity: int) -> bytes | None:
        data = self._unsaved.records.get(entity)
        if data is None and self._storing is not None:
            data = self._storing.records.get(entity)
        return data

    def put_record(self, entity: int, record: EntityRecord) -> None:
        """Put an entity's record."""
        data = _encode(record)
        self._unsaved.records[entity] = data
        self._records.put(entity, data)
        self._combination[entity] = 0

    def remove_record(self, entity: int) -> None:
        """Remove an entity's record."""
        self._unsaved.records[entity] = b""
        self._records.discard(entity)
        self._combination[entity] = 0

    def absorb(self, absorption: Absorption, survivor: int) -> None:
        """Note that an entity was merged, and into whom; it and its own absorbed are `survivor` now."""
        entity = absorption.entity
        self.remove_record(entity)
        self._into[entity], self._since[entity], self._survivor[entity] = absorption.into, absorption.seq, survivor
        self._unsaved.records[-entity] = _encode((absorption.into, absorption.seq))

    def redirect(self, entity: int, survivor: int) -> None:
        """Note who an entity absorbed earlier is now."""
        self._survivor[entity] = survivor

    def packed(self, entities: Sequence[int]) -> bytes:
        """Return the records of these entities, whoever they are now, for `bulk_ids.known_ids`, by one read."""
        survivors = [self._survivor[entity] or entity if entity <= self.count else entity for entity in entities]
        stored = {} if self._tables is None else self._stored(self._tables, survivors)
        if self._unsaved.records or self._storing is not None:
            for entity in survivors:
                data = self._unsaved_record(entity)
                if data is not None:
                    stored[entity] = data
        return packed(map(stored.get, survivors))

    @staticmethod
    def _stored(tables: Tables, entities: Sequence[int]) -> dict[int, bytes]:
        """Return the stored records of these entities: those that lie close together by one walk along them."""
        first, last = min(entities, default=0), max(entities, default=-1)
        if last - first >= DENSE * len(entities):
            rows = tables.get_many(ENTITIES, [(entity,) for entity in entities])
        else:
            rows = dict(tables.range(ENTITIES, (), (first - 1,), last - first + 1))
        return {number: data for (number,), data in rows.items() if isinstance(number, int)}

    def records(self, after: int = 0) -> Iterator[tuple[int, EntityRecord]]:
        """Yield the entities that have a record, those after `after`, in order; changes meanwhile may be missed."""
        while after < self.count:
            rows = {} if self._tables is None else self._page(after)
            last = max(rows) if len(rows) == _PAGE else self.count
            for entity in range(after + 1, last + 1):
                data = self._unsaved_record(entity)
                if data is None:
                    data = rows.get(entity)
                if data:
                    yield entity, _decode_record(data)
            after = last

    def _page(self, after: int) -> dict[int, bytes]:
        assert self._tables is not None
        rows = self._tables.range(ENTITIES, (), (after,), _PAGE)
        return {entity: data for (entity,), data in rows if isinstance(entity, int)}

    def id_types(self, entity: int) -> frozenset[str]:
        """Return the types of an entity's ids. Cheap: each combination of types is kept once."""
        try:
            number = self._combination[entity]
        except IndexError:
            return self._combinations[0]
        return self._combinations[number] if number else self._learn_types(entity)

    def _learn_types(self, entity: int) -> frozenset[str]:
        record = self.record(entity)
        if record is None:
            return self._combinations[0]
        types = frozenset(one.id_type for one in record.ids)
        number = self._number_of.get(types)
        if number is None:
            if len(self._combinations) > COMBINATIONS_MAX:
                self._combinations, self._number_of = [frozenset()], {}
                self._combination = array("I", bytes(4 * (self.count + 1)))
            number = self._number_of[types] = len(self._combinations)
            self._combinations.append(types)
        self._combination[entity] = number
        return self._combinations[number]

    # -- small things ------------------------------------------------------------------------------------------------

    def suppress(self, id_hash: str, regulation: str) -> None:
        """Keep the hash of a suppressed user id."""
        self.suppressed[id_hash] = regulation
        self._unsaved.meta[_SUPPRESSED + id_hash] = _encode(regulation)

    def unsuppress(self, id_hash: str) -> None:
        """Forget the hash of a suppressed user id."""
        self.suppressed.pop(id_hash, None)
        self._unsaved.meta[_SUPPRESSED + id_hash] = b""

    # -- storing -----------------------------------------------------------------------------------------------------

    @property
    def unsaved_rows(self) -> int:
        """How many changed rows wait for being handed out."""
        return len(self._unsaved)

    def pending(self, cursor_seq: int) -> Changes | None:
        """Return what to store; None when that is nothing, or while the last one has not been `stored`."""
        if self._storing is not None or (cursor_seq == self.cursor_seq and not self._unsaved):
            return None
        self._count_on_disk = self.count
        header = Header(STATE_VERSION, self.count, self.settings)
        rows, self._storing, self._unsaved = self._unsaved, self._unsaved, _Unsaved()
        ids, records = sorted(rows.ids.items()), sorted(rows.records.items())
        if self._stored_marks is not None:
            for key in rows.ids:
                self._stored_marks[hash(key) % STORED_MARKS] = 1
        meta = [((key,), data) for key, data in sorted(rows.meta.items()) if data]
        meta.append(((_HEADER_KEY,), _encode(header)))
        return Changes(
            projection=PROJECTION,
            cursor_seq=cursor_seq,
            puts=(
                (IDS, [(key, _encode((packed & ENTITY_MASK, packed >> ENTITY_BITS))) for key, packed in ids if packed]),
                (ENTITIES, [((entity,), data) for entity, data in records if data]),
                (META, meta),
            ),
            deletes=(
                (IDS, [key for key, packed in ids if not packed]),
                (ENTITIES, [(entity,) for entity, data in records if not data]),
                (META, [(key,) for key, data in sorted(rows.meta.items()) if not data]),
            ),
            cleared=(IDS, ENTITIES) if self._cleared else (),
        )

    def stored(self, changes: Changes) -> None:
        """Take note that these changes are in the tables."""
        self.cursor_seq = changes.cursor_seq
        self._storing = None
        if self._cleared:
            self._cleared, self._tables = False, self._disk

    def _open(self, tables: Tables) -> None:
        data = tables.get(META, (_HEADER_KEY,))
        suppressed = dict(self._stored_suppressed(tables))
        header = None if data is None else _header_of(data)
        if data is not None and header is None:
            self._cleared, self._tables = True, None
            self._unsaved.meta = dict.fromkeys((_SUPPRESSED + id_hash for id_hash in suppressed), b"")
        if header is None:
            if not self._cleared:
                self._stored_marks = bytearray(STORED_MARKS)
            return
        self.cursor_seq, self.settings, self.suppressed = tables.cursor(PROJECTION), header.settings, suppressed
        self.grow(header.count)
        self._count_on_disk = header.count
        for entity, row in self._stored_absorptions(tables):
            self._into[entity], self._since[entity] = _decode_absorption(row)
        into = self._into
        for entity in range(1, self.count + 1):
            survivor = into[entity]
            if survivor:
                while into[survivor]:
                    survivor = into[survivor]
                self._survivor[entity] = survivor

    @staticmethod
    def _stored_absorptions(tables: Tables) -> Iterator[tuple[int, bytes]]:
        after: Key | None = None
        while rows := tables.range(ENTITIES, (), after, _PAGE):
            for (number,), row in rows:
                assert isinstance(number, int)
                if number > 0:  # from here on they are records
                    return
                yield -number, row
            after = rows[-1][0]

    @staticmethod
    def _stored_suppressed(tables: Tables) -> Iterator[tuple[str, str]]:
        after: Key = (_SUPPRESSED,)
        while rows := tables.range(META, (), after, _PAGE):
            for (key,), data in rows:
                if not isinstance(key, str) or not key.startswith(_SUPPRESSED):
                    return
                yield key.removeprefix(_SUPPRESSED), msgpack.decode(data, type=str)
            after = rows[-1][0]


def _header_of(data: bytes) -> Header | None:
    """Return the header if it is of this version."""
    try:
        header = _decode_header(data)
    except msgspec.MsgspecError:
        return None
    return header if header.version == STATE_VERSION else None
