"""Events as columns: what a scan works on, so that it decides by numbers and decodes only what it wants.

Packs that lie side by side are joined to groups of at least `GROUP_EVENTS_MIN` events, so that a log of many small
commits scans nearly as fast as one of large ones; names and sources get a table per group. Times are milliseconds
since the epoch, UTC.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eventlog.codec import Ints, PackView
from eventlog.entries import Event

GROUP_EVENTS_MIN: Final = 512
KINDS_MAX: Final = 16  # entries.KINDS has 6; row 0 is the erased

Names = Iterable[tuple[int, str | None]] | None


class Wanted:
    """Which events a scan wants: pairs of kind and name, None as name for any of that kind; or everything."""

    def __init__(self, names: Names) -> None:
        self._all = names is None
        self._any_name: list[int] = []
        self._kinds_of: dict[str, list[int]] = {}
        for kind, name in names or ():
            assert 0 < kind < KINDS_MAX, kind
            if name is None:
                self._any_name.append(kind)
            else:
                self._kinds_of.setdefault(name, []).append(kind)

    def some_of(self, names: Sequence[str]) -> bool:
        """Tell whether events with these names might be wanted."""
        return self._all or bool(self._any_name) or any(name in self._kinds_of for name in names)

    def table(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return what is wanted by kind and index into `names`. Erased events never are."""
        table = np.zeros((KINDS_MAX, max(len(names), 1)), np.bool_)
        if self._all:
            table[1:] = True
            return table
        for kind in self._any_name:
            table[kind] = True
        for index, name in enumerate(names):
            for kind in self._kinds_of.get(name, ()):
                table[kind, index] = True
        return table


class EventColumns:
    """Some events in order of sequence, a numpy array a field; bodies and message ids are decoded when asked for."""

    __slots__ = (
        "_pack",
        "_packs",
        "_row",
        "account",
        "event_ms",
        "kind",
        "name",
        "names",
        "profile",
        "received_ms",
        "seq",
        "source",
        "sources",
    )

    seq: Ints
    event_ms: Ints
    received_ms: Ints
    profile: Ints  # 0 for none
    account: Ints  # 0 for none
    kind: npt.NDArray[np.uint8]
    name: npt.NDArray[np.int64]  # indices into names
    names: list[str]
    source: npt.NDArray[np.int64]  # indices into sources
    sources: list[str]

    def __init__(self, packs: Sequence[PackView]) -> None:
        """Join packs that hold at least one event between them."""
        packs = [pack for pack in packs if pack.header.events_count]
        self._packs = packs
        if len(packs) == 1:
            self._take(packs[0])
        else:
            self._join(packs)

    def _take(self, pack: PackView) -> None:
        count = pack.header.events_count
        self.names, self.sources = pack.tables
        self.name = pack.indices(0).astype(np.int64)
        self.source = pack.indices(1).astype(np.int64)
        self._row = np.arange(count)
        self._pack = np.zeros(count, np.int64)
        self.seq = self._row + pack.header.first_seq
        self.event_ms, self.received_ms, self.profile, self.account = (pack.ints(number) for number in range(4))
        self.kind = pack.kinds

    def _join(self, packs: Sequence[PackView]) -> None:
        """Join many small packs: bytes are joined before numpy sees them, since its cost is by the call."""
        counts = np.array([pack.header.events_count for pack in packs])
        self._pack = np.repeat(np.arange(len(packs)), counts)
        self._row = np.arange(len(self._pack)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.seq = self._row + np.repeat([pack.header.first_seq for pack in packs], counts)
        self.event_ms, self.received_ms, self.profile, self.account = (
            np.frombuffer(b"".join([pack.ints_bytes(number) for pack in packs]), "<i8") for number in range(4)
        )
        self.kind = np.frombuffer(b"".join([pack.kinds_bytes() for pack in packs]), "u1")
        self.names, self.name = _retabled(packs, 0, counts)
        self.sources, self.source = _retabled(packs, 1, counts)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.seq)

    def select(self, rows: npt.NDArray[Any]) -> "EventColumns":
        """Return the events of a boolean mask, or of ascending row numbers."""
        chosen = EventColumns.__new__(EventColumns)
        chosen._packs, chosen.names, chosen.sources = self._packs, self.names, self.sources
        for field in (
            "_pack",
            "_row",
            "account",
            "event_ms",
            "kind",
            "name",
            "profile",
            "received_ms",
            "seq",
            "source",
        ):
            setattr(chosen, field, getattr(self, field)[rows])
        return chosen

    def bodies(self) -> list[bytes]:
        """Return the events' bodies."""
        packs = self._packs
        if len(packs) > 1:
            return [packs[p].body_at(row) for p, row in zip(self._pack.tolist(), self._row.tolist(), strict=True)]
        if len(self) == packs[0].header.events_count:
            return packs[0].bodies
        body, ends = packs[0].body, packs[0].body_ends
        return [body[ends[row] : ends[row + 1]] for row in self._row.tolist()]

    def message_ids(self) -> list[str]:
        """Return the events' message ids."""
        packs = self._packs
        if len(packs) > 1:
            if len(self) == sum(pack.header.events_count for pack in packs):  # all of them
                return [message_id for pack in packs for message_id in pack.ids]
            return [packs[p].id_at(row) for p, row in zip(self._pack.tolist(), self._row.tolist(), strict=True)]
        ids = packs[0].ids
        return ids if len(self) == len(ids) else [ids[row] for row in self._row.tolist()]

    def events(self) -> list[Event]:
        """Return the events themselves."""
        return list(
            map(
                Event,
                self.seq.tolist(),
                self.event_ms.tolist(),
                self.received_ms.tolist(),
                self.profile.tolist(),
                self.account.tolist(),
                self.kind.tolist(),
                map(self.names.__getitem__, self.name.tolist()),
                map(self.sources.__getitem__, self.source.tolist()),
                self.message_ids(),
                self.bodies(),
            )
        )


def _retabled(packs: Sequence[PackView], number: int, counts: Ints) -> tuple[list[str], Ints]:
    """Return one table for the packs' names (0) or sources (1), and the events' indices into it."""
    table: dict[str, int] = {}
    places: list[int] = []  # of every pack's own table, one behind the other
    begins: list[int] = []
    for pack in packs:
        begins.append(len(places))
        places += [table.setdefault(text, len(table)) for text in pack.tables[number]]
    own = np.frombuffer(b"".join([pack.indices_bytes(number) for pack in packs]), "<u2")
    return list(table), np.array(places)[own + np.repeat(begins, counts)]
