"""Checkpoints: the partition's state beside the log, so a start folds only the tail, and cold actors leave memory.

A checkpoint is a consistent cut: all that changed since the last one, stored in one transaction with the sequence it
was folded up to. It is taken between two commits, when every effect so far is in the log.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.conditions.program import Left
from actors.conditions.queries import FOREVER
from actors.definitions import Definitions
from actors.entities import STATE_VERSION, Entity
from actors.partition import Partition
from actors.snapshots import dump_entity, load_entity
from eventlog.log import MEMBERS, META, STATES, TIMERS, Changes, Key, Log, Table

PARTITION: Final = "partition"  # the projection's name
SLICE: Final = 500  # entities dumped before others get a turn
PAGE: Final = 10_000

_CORE: Final[Key] = ("partition",)
_DEFINITIONS: Final[Key] = ("definitions",)


class Partly(Struct, frozen=True, array_like=True):
    """That the past of a question has been added for those up to an entity, and what found it: again the same rows."""

    entity: int  # the last whose past is in
    known_seq: int  # who was who by then
    at_ms: int


class Core(Struct, frozen=True):
    """What is kept of a partition beside its entities."""

    state_version: int
    now_ms: int
    last_entity: int
    born: dict[str, int]
    left: dict[str, Left]
    incomplete: dict[int, int]  # questions whose past is yet to be added, by stable number -> since which sequence
    partly: dict[int, Partly] = {}  # those of them that have some of it, by stable number


def load_definitions(log: Log) -> Definitions:
    """Return the definitions as of the last checkpoint."""
    return Definitions(log.get(META, _DEFINITIONS))


def load_core(log: Log) -> Core | None:
    """Return the partition's core as of the last checkpoint; None if there is none that can be read."""
    data = log.get(META, _CORE)
    if data is None:
        return None
    core = msgspec.msgpack.decode(data, type=Core)
    return core if core.state_version == STATE_VERSION else None


def loader(
    log: Log, partition: Callable[[], Partition], last_stored: Callable[[], int]
) -> Callable[[int], Entity | None]:
    """Return what brings an entity back from its snapshot; None for one that was never stored."""

    def load(number: int) -> Entity | None:
        if number > last_stored():
            return None
        data = log.get(STATES, (number, 0))
        return None if data is None else load_entity(number, data, partition().program)

    return load


def restore(log: Log, partition: Partition, core: Core) -> None:
    """Bring back the timers and the memberships; the definitions are in place already."""
    partition.now_ms = core.now_ms
    partition.last_entity = core.last_entity
    partition.program.left = dict(core.left)
    for key, due in pages(log, TIMERS):
        partition.expect(int(key[0]), int.from_bytes(due, "big", signed=True))
    for key, since in pages(log, MEMBERS):
        members = partition.members.setdefault(int(key[0]), {})
        members[int(key[1])] = int.from_bytes(since, "big", signed=True)


def pages(log: Log, table: Table) -> Iterator[tuple[Key, bytes]]:
    """Yield all rows of a table."""
    after: Key | None = None
    while rows := log.range(table, (), after, PAGE):
        yield from rows
        after = rows[-1][0]


def put_away(partition: Partition, active_max: int) -> None:
    """Let entities leave memory that are stored as they are, down to so many."""
    entities = partition.entities
    excess = len(entities) - active_max
    if excess > 0:
        for number in [n for n in entities if n not in partition.changed][:excess]:
            partition.put_away(number)


class Cut:
    """One checkpoint in the making: entities are added slice by slice, with no fold between."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._numbers = sorted(partition.changed)
        self._states: list[tuple[Key, bytes]] = []
        self._timers: list[tuple[Key, bytes]] = []
        self._gone: list[Key] = []
        self._untimed: list[Key] = []
        self._at = 0

    def dump_slice(self) -> bool:
        """Dump some more entities; tell whether there are others left."""
        for number in self._numbers[self._at : self._at + SLICE]:
            entity = self._partition.entities.get(number)
            if entity is None:
                self._gone.append((number, 0))
                self._untimed.append((number,))
                continue
            self._states.append(((number, 0), dump_entity(entity)))
            if entity.due_ms != FOREVER:
                self._timers.append(((number,), _int(entity.due_ms)))
            else:
                self._untimed.append((number,))
        self._at += SLICE
        return self._at < len(self._numbers)

    def changes(
        self, definitions: Definitions, incomplete: dict[int, int], partly: dict[int, Partly], cursor_seq: int
    ) -> Changes:
        """Return what to store."""
        partition = self._partition
        core = Core(
            STATE_VERSION,
            partition.now_ms,
            partition.last_entity,
            partition.program.born,
            partition.program.left,
            incomplete,
            partly,
        )
        members: list[tuple[Key, bytes]] = []
        left: list[Key] = []
        for key, since in sorted(partition.member_changes.items()):
            if since is None:
                left.append(key)
            else:
                members.append((key, _int(since)))
        meta: list[tuple[Key, bytes]] = [
            (_CORE, msgspec.msgpack.encode(core)),
            (_DEFINITIONS, definitions.dump()),
        ]
        deletes: list[tuple[Table, Any]] = [(STATES, self._gone), (TIMERS, self._untimed), (MEMBERS, left)]
        return Changes(
            PARTITION,
            cursor_seq,
            puts=((STATES, self._states), (TIMERS, self._timers), (MEMBERS, members), (META, meta)),
            deletes=tuple(deletes),
        )

    def stored(self) -> None:
        """Take note that it is durable."""
        self._partition.changed.difference_update(self._numbers)
        self._partition.member_changes.clear()
        self._partition.gone.difference_update(self._numbers)


def _int(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)
