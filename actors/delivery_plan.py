"""What a destination is owed: from what is true of a profile and what was told, the calls that close the gap.

For each connection, profile and set of ids, a row remembers what the destination was last told (`Told`). A change is
then a difference: an entry goes to each selected set of ids that was not told it, an exit to every one that was told
the entry, whatever the id-sync setting says by now, a trait's value to each selected set with another value. So a
restart, a full resync, a merge and a new id are one computation, and repeating it owes nothing more.

A call that was given up leaves its row *unsure*: what it would have said is sent again with the next change. It counts
as having been told an entry if that may have arrived (a time-out), so that the exit goes there too. So does a target
of which only a part of the calls arrived before its connection was paused: the row is *partial*.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from typing import Literal as OneOf

from msgspec import Struct, msgpack

from actors.delivery import Ids, Verdict


class Told(Struct, frozen=True, omit_defaults=True, array_like=True):
    """What a destination was last told about a profile under a set of ids."""

    value: Any
    seq: int  # the entry that it came from
    sure: bool = True
    partial: bool = False  # some of the calls that say it arrived, others are still to come


class State(Struct, frozen=True, omit_defaults=True, array_like=True):
    """What is true of a profile, as far as the destination has followed the log."""

    value: Any
    seq: int  # the entry that made it so
    at_ms: int
    basis_seq: int = 0  # changes up to this entry are in it
    erased: bool = False  # the profile was deleted: once this is told, all its rows go


class Target(Struct, frozen=True):
    """A set of ids to be told a value; `covers` are the sets whose rows it settles."""

    ids: Ids
    value: Any
    covers: tuple[Ids, ...]


_TOLD = msgpack.Decoder(Told)
_STATE = msgpack.Decoder(State)
encode = msgpack.Encoder().encode


def told_of(row: bytes) -> Told:
    """Return what a row says was told."""
    return _TOLD.decode(row)


def state_of(row: bytes) -> State:
    """Return what a row says is true."""
    return _STATE.decode(row)


def owed(
    *,
    value: Any,
    kind: OneOf["audience", "trait"],
    seq: int,
    told: Mapping[Ids, Told],
    selected: Sequence[Ids],
    again: bool,
) -> tuple[Target, ...]:
    """Return who has to be told `value`, true since entry `seq`; `again`: also those given up at that entry."""
    if kind == "audience" and not value:
        return _exits(told, seq, again)
    if kind == "trait" and value is None:
        known = [ids for ids in told if told[ids].value is not None]
        return tuple(Target(ids, None, (ids,)) for ids in known if _open(told[ids], None, seq, again))
    covered = {pair for ids, row in told.items() if row.sure and row.value == value for pair in ids}
    targets: list[Target] = []
    for ids in selected:
        if not covered.issuperset(ids) and (ids not in told or _open(told[ids], value, seq, again)):
            targets.append(Target(ids, value, (ids,)))
            covered.update(ids)
    return tuple(targets)


def _open(row: Told, value: Any, seq: int, again: bool) -> bool:
    if row.partial:
        return row.seq <= seq
    if not row.sure:
        return again or row.seq < seq
    return row.seq < seq and row.value != value


def _exits(told: Mapping[Ids, Told], seq: int, again: bool) -> tuple[Target, ...]:
    """The largest sets first: one call for a userId with its email settles the row of that userId alone too."""
    left = {
        ids: row
        for ids, row in told.items()
        if row.value is True and (row.seq < seq or row.partial or (again and not row.sure))
    }
    targets: list[Target] = []
    while left:
        widest = max(left, key=lambda ids: (len(ids), left[ids].seq, ids))
        covers = tuple(sorted(ids for ids in left if set(ids) <= set(widest)))
        targets.append(Target(widest, False, covers))
        for ids in covers:
            del left[ids]
    return tuple(sorted(targets, key=lambda target: (told[target.ids].seq, target.ids)))


def begun(target: Target, *, seq: int, told: Mapping[Ids, Told]) -> dict[Ids, Told]:
    """Return the rows once a first call of a target arrived: from here on an exit is owed."""
    rows: dict[Ids, Told] = {}
    for ids in target.covers:
        value = target.value
        if value is False or value is None:
            value = told[ids].value if ids in told else value
        rows[ids] = Told(value, seq, sure=False, partial=True)
    return rows


def settled(
    target: Target,
    verdicts: Sequence[Verdict],
    *,
    kind: OneOf["audience", "trait"],
    seq: int,
    told: Mapping[Ids, Told],
) -> dict[Ids, Told]:
    """Return the rows after all calls of a target were delivered or given up."""
    if any(verdict.how == "delivered" for verdict in verdicts) or not verdicts:
        return {ids: Told(target.value, seq) for ids in target.covers}
    rows: dict[Ids, Told] = {}
    for ids in target.covers:
        before = told[ids].value if ids in told else (False if kind == "audience" else None)
        arrived = target.value is True and any(verdict.unsure for verdict in verdicts)
        rows[ids] = Told(True if arrived else before, seq, sure=False)
    return rows
