"""What lies beside a log against what lies beside the same log folded anew: who is who, states, timers, definitions.

Both spaces have stored all that they hold, so their tables are gone through row by row, in order, in little memory.
Rows hold what would be loaded from them and now and then more (states that no definition asks for any longer, timers
of conditions that are gone), so entities are compared as they would be loaded, and a timer may come too early but not
too late.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from actors.checkpoint import pages
from actors.conditions.queries import FOREVER
from actors.entities import decode
from actors.footing import Footing
from actors.snapshots import dump_entity, load_entity
from actors.space import Space
from eventlog.instants import iso
from eventlog.log import ENTITIES, IDS, STATES, TIMERS, Key, Log, Table

_PARTS: Final = (
    "the version of its state",
    "whether it is an account",
    "when it was first heard of",
    "its types of ids",
    "its custom traits",
    "what is counted of it",
    "what holds of it",
    "its computed traits",
    "its accounts or users",
)
_STATES_PART: Final = _PARTS.index("what is counted of it")
_LAST: Final = len(_PARTS) - 1

_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError)  # from torn rows

Row = tuple[Key, bytes | None, bytes | None]


def states_that_differ(live: Space, anew: Space, footing: Footing) -> list[str]:
    """Return a line for each kind of state that is not what the replay gives, which names the first."""
    if live.definitions_held.dump() != anew.definitions_held.dump():
        keys = [one.definition.key for one in live.definitions()]
        others = [one.definition.key for one in anew.definitions()]
        return [f"definitions: live and replay differ; live has {keys}, the replay {others}"]
    looks: list[tuple[str, Table, Callable[[Row], str | None]]] = [
        ("ids", IDS, _id_of),
        ("identities", ENTITIES, lambda row: _named(live, abs(int(row[0][0])))),
    ]
    keeps = footing.keeps_state  # else it may rest on events that are there no more
    looks += [
        ("states", STATES, lambda row: _state_of(live, row) if keeps(int(row[0][0])) else None),
        ("timers", TIMERS, lambda row: _timer_of(live, row) if keeps(int(row[0][0])) else None),
    ]
    told = _core(live, anew)
    for what, table, look in looks:
        found = (look(row) for row in differing(live.log, anew.log, table))
        wrong = [one for one in found if one is not None]
        if wrong:
            told.append(f"{what}: live and replay differ for {len(wrong):,}, {wrong[0]} first")
    return told


def differing(live: Log, anew: Log, table: Table) -> Iterator[Row]:
    """Yield each key whose rows are not the same in both, in order, with both."""
    ours, theirs = pages(live, table), pages(anew, table)
    mine, other = next(ours, None), next(theirs, None)
    while mine is not None or other is not None:
        if other is None or (mine is not None and mine[0] < other[0]):
            assert mine is not None
            yield mine[0], mine[1], None
            mine = next(ours, None)
        elif mine is None or other[0] < mine[0]:
            yield other[0], None, other[1]
            other = next(theirs, None)
        else:
            if mine[1] != other[1]:
                yield mine[0], mine[1], other[1]
            mine, other = next(ours, None), next(theirs, None)


def _core(live: Space, anew: Space) -> list[str]:
    """Compare what a checkpoint holds beside its rows."""
    ours, theirs = live.partition, anew.partition
    pairs = [
        ("the time", iso(ours.now_ms), iso(theirs.now_ms)),
        ("the last entity", ours.last_entity, theirs.last_entity),
        ("since when questions are kept", ours.program.born, theirs.program.born),
        ("what deleted audiences left", ours.program.left, theirs.program.left),
        ("settings", live.settings, anew.settings),
    ]
    return [f"{what}: live has {mine}, the replay {other}" for what, mine, other in pairs if mine != other]


def _named(live: Space, entity: int) -> str:
    return f"{live.name_of(entity)} (entity {entity})"


def _id_of(row: Row) -> str:
    return f"{row[0][0]} {row[0][1]!r}"


def _state_of(live: Space, row: Row) -> str | None:
    """Return whose state differs and in what; None where it would be the same once loaded."""
    (number, _), mine, other = row
    name = _named(live, int(number))
    if mine is None or other is None:
        return f"{name}, whom {'live does' if mine is None else 'the replay does'} not know,"
    try:
        ours = _loaded(live, int(number), mine)
    except _UNREADABLE:
        return f"{name}: what is stored cannot be read"
    theirs = _loaded(live, int(number), other)
    for place, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        if one == two:
            continue
        if place == _STATES_PART or not (isinstance(one, dict) and isinstance(two, dict)):
            return f"{name}: {_PARTS[place]}"
        keys = sorted(key for key in {**one, **two} if one.get(key) != two.get(key))
        what = keys[0] if isinstance(keys[0], str) else _key_of(live, keys[0])
        return f"{name}: {_PARTS[place]}, {what} ({one.get(keys[0])!r}, the replay {two.get(keys[0])!r})"
    return None


def _key_of(live: Space, number: int) -> str:
    held = live.definitions_held.held.get(number)
    return str(number) if held is None else held.latest.key


def _loaded(live: Space, number: int, data: bytes) -> list[Any]:
    """Return a snapshot as it would be once loaded, in an order of its own."""
    entity = load_entity(number, data, live.partition.program)
    parts: list[Any] = decode(data if entity is None else dump_entity(entity))
    if entity is not None and entity.is_account:
        parts[_LAST] = [sorted(parts[_LAST][0]), parts[_LAST][1]]
    return parts


def _timer_of(live: Space, row: Row) -> str | None:
    """Return whose timer is missing or too late; None where the one that is there does."""
    (number,), mine, other = row
    if other is None:
        return None
    entity = live.partition.find(int(number))
    if entity is None:
        return None  # its state is missing, and told of
    live.partition.refresh_bits(entity)
    stored_ms = None if mine is None else int.from_bytes(mine, "big", signed=True)
    if entity.due_ms == FOREVER or (stored_ms is not None and stored_ms <= entity.due_ms):
        return None
    stands = "none" if stored_ms is None else iso(stored_ms)
    return f"{_named(live, int(number))}: {stands}, but due {iso(entity.due_ms)}"
