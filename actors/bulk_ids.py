"""The external ids of very many entities as of a place in the log: records as they are stored, taken apart elsewhere.

`IdentityStore.packed` reads the records of a batch at once and looks into none of them; `known_ids` takes them apart in
whatever thread or process wants them. An answer is what `IdentityAsOf.ids` gives for one entity after another. What it
needs to know about merges stands in the survivor's record: all that it absorbed, when and into whom.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Final

from msgspec import Struct, msgpack

from actors.external_ids import Collection
from actors.identity_rows import Absorption

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_THREE: Final = [a + b + c for a in _DIGITS for b in _DIGITS for c in _DIGITS]
_NOTHING: Final = b"\xc0"  # msgpack's nil


class KnownId(Struct, frozen=True, array_like=True, gc=False):
    """An external id; the first fields of `GivenId`, those that are not needed here left out."""

    id_type: str
    value: str
    event_ms: int = 0
    added_ms: int = 0
    seq: int = 0
    owner: int = 0


class _Record(Struct, frozen=True, array_like=True, gc=False):
    """The first fields of `EntityRecord`."""

    collection: Collection
    ids: tuple[KnownId, ...] = ()
    absorbed: tuple[Absorption, ...] = ()


Ids = Sequence[KnownId]
_decode: Final = msgpack.Decoder(list[_Record | None]).decode
_ids_of: Final = attrgetter("ids")
_absorbed_of: Final = attrgetter("absorbed")
_collection_of: Final = attrgetter("collection")
_seq_of: Final = attrgetter("seq")
_BLANK: Final = _Record("users")


def packed(records: Iterable[bytes | None]) -> bytes:
    """Return encoded records as one message, whatever is missing as nil."""
    found = [record or _NOTHING for record in records]
    return b"\xdd" + len(found).to_bytes(4, "big") + b"".join(found)  # msgpack's array of up to 2^32


def known_ids(records: bytes, entities: Sequence[int], known_seq: int) -> tuple[list[str], list[Ids]]:
    """Return each entity's own id, and its external ids in the order they were given, as of a sequence."""
    found = [one or _BLANK for one in _decode(records)]
    assert len(found) == len(entities), (len(found), len(entities))
    keys = _own_ids(entities, found)
    ids: list[Ids] = list(map(_ids_of, found))
    # Mostly nobody of a batch was ever merged, nor given an id since: seen at one look over all of them.
    if any(map(_absorbed_of, found)) or max(map(_seq_of, chain.from_iterable(ids)), default=0) > known_seq:
        ids = [_as_of(one, entity, known_seq) for one, entity in zip(found, entities, strict=True)]
    return keys, ids


def own_id(entity: int, collection: Collection | None) -> str:
    """Return an entity's own id: use_… or acc_… and its number in base 36."""
    rest, tail = divmod(entity, len(_THREE))
    kind = "acc_" if collection == "accounts" else "use_"
    if rest < len(_THREE):
        return f"{kind}00{_THREE[rest]}{_THREE[tail]}"
    first, middle = divmod(rest, len(_THREE))
    return f"{kind}{_THREE[first][1:]}{_THREE[middle]}{_THREE[tail]}"


def _own_ids(entities: Sequence[int], records: Sequence[_Record]) -> list[str]:
    """Return the own ids of many; those that begin alike, as most of a batch do, share their beginning."""
    heads = {entity // len(_THREE) for entity in (min(entities, default=0), max(entities, default=0))}
    collections = set(map(_collection_of, records))
    if len(heads) > 1 or len(collections) > 1:
        return [own_id(entity, one.collection) for entity, one in zip(entities, records, strict=True)]
    first = heads.pop() * len(_THREE)
    begin = own_id(first, next(iter(collections), None))[: -len(_THREE[0])]
    return [begin + _THREE[entity - first] for entity in entities]


def _as_of(record: _Record, entity: int, known_seq: int) -> Ids:
    """Return the ids that were an entity's by then; its record is now that of whoever absorbed it."""
    into = {one.entity: one.into for one in record.absorbed if one.seq <= known_seq}

    def owner_then(owner: int) -> int:
        while owner in into:
            owner = into[owner]
        return owner

    had = [one for one in record.ids if one.seq <= known_seq and owner_then(one.owner) == entity]
    return sorted(had, key=_seq_of)
