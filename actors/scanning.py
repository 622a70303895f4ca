"""Scans of a log as jobs: what to look for as plain data, what was found as plain rows, and where that runs.

`scan` is the one function that folds a log anew for many entities at once. It rests on the log and the job alone, so
that it may run anywhere: at once for a log in memory, in a thread, or in a process that competes with nobody for the
interpreter (`adapters/scan_process.py`). Rows are what msgpack can carry: the states of a backfill are dumped as in a
snapshot. `Scans` is the interface of where; who waits for rows and is cancelled ends the scan.
"""

from array import array
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from typing import Any, Final, Protocol

import anyio.to_thread
from msgspec import Struct

from actors.conditions.program import Program
from actors.definitions import spec_of
from actors.history import Canonical, Hindsight, Progress, gather, unheard
from actors.leavings import left_behind
from eventlog.entries import Definition, Erased, IdAdded, IdSeenEarlier
from eventlog.errors import TurnoutError
from eventlog.log import Log
from eventlog.memory import MemoryLog

PAGE_ROWS: Final = 500  # handed over at once: some tens of KB, a few ms of whoever takes them

Row = tuple[int, int, Any]
Page = list[Row]


class Backfill(Struct, frozen=True, tag="backfill"):
    """The past of some questions of definitions. Rows: entity, place of the question in `questions`, dumped state."""

    definitions: tuple[Definition, ...]
    questions: tuple[tuple[str, int], ...]  # by its identity in a program; up to which sequence its past is missing
    at_ms: int

    @property
    def until_seq(self) -> int:
        """Return up to where the log is looked at."""
        return max((seq for _, seq in self.questions), default=0)


class Question(Struct, frozen=True, tag="question"):
    """Who is in some audiences, or has values, at a time. Rows: entity, number of the definition, true or the value."""

    definitions: tuple[Definition, ...]  # with all that they refer to
    wanted: tuple[int, ...]  # numbers of those to answer
    at_ms: int
    until_seq: int
    left_keys: tuple[str, ...] = ()  # of deleted definitions that are looked at
    frozen: dict[int, dict[int, Any]] = {}  # what disabled ones say, by number and entity
    is_forgetful: bool = False  # old events are gone: some people have none left
    in_full: bool = False  # everyone with all traits, not only what the definitions look at


Job = Backfill | Question


class AbandonedError(TurnoutError):
    """Who waited for a scan went away; raised in its thread alone, to end it."""


class Scans(Protocol):
    """Where scans run."""

    def run(
        self, log: Log, job: Job, canonical: "array[int]", hear: Progress = unheard
    ) -> AbstractAsyncContextManager[Iterable[Page]]:
        """Scan, then lend the rows while the block lasts. `hear` may raise, which ends the scan.

        Raises LogError where the log cannot be read, or whatever scans it dies each time; LogFullError where there is
        no room for what it finds.
        """


class ScansHere:
    """Scans in this process: at once for a log in memory, else in a thread."""

    @asynccontextmanager
    async def run(
        self, log: Log, job: Job, canonical: "array[int]", hear: Progress = unheard
    ) -> AsyncIterator[Iterable[Page]]:
        """See `Scans`."""
        if isinstance(log, MemoryLog):
            yield scan(job, log, canonical, hear)
            return

        is_wanted = True

        def hear_or_end(seq: int, /) -> None:
            if not is_wanted:
                raise AbandonedError("nobody waits for the scan any more")
            hear(seq)

        def work() -> list[Page]:
            return list(scan(job, log, canonical, hear_or_end))

        try:
            pages = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        finally:
            is_wanted = False
        yield pages


def scan(job: Job, log: Log, canonical: Canonical, hear: Progress = unheard) -> Iterator[Page]:
    """Yield what a job asks for, a page at a time, once all of it is known."""
    if isinstance(job, Question):
        rows = _answers(job, world_of(job, log, canonical, hear))
    else:
        rows = iter(_past(job, log, canonical, hear))
    while page := list(islice(rows, PAGE_ROWS)):
        yield page


# -- backfills -------------------------------------------------------------------------------------------------------


def _past(job: Backfill, log: Log, canonical: Canonical, hear: Progress) -> Iterable[Row]:
    """Return rows in order of entity, so that all that is known of one is taken at once."""
    program = Program()
    program.set_definitions([spec_of(one, one.number) for one in job.definitions])
    places = {program.asked[identity].index: place for place, (identity, _) in enumerate(job.questions)}
    untils = {index: job.questions[place][1] for index, place in places.items()}
    asked = {index: program.asked_by_index[index] for index in places}
    states = gather(
        log,
        asked.values(),
        until_seq=job.until_seq,
        at_ms=job.at_ms,
        canonical=canonical,
        progress=hear,
        untils=untils,
    )
    rows: list[Row] = []
    while states:  # let go of one form as the other is made: both at once would be twice the size
        entity, mine = states.popitem()
        rows += [
            (entity, places[index], asked[index].query.dump(state))
            for index, state in mine.items()
            if state is not None
        ]
    rows.sort(key=_place)
    return rows


def _place(row: Row) -> tuple[int, int]:
    return row[0], row[1]


# -- questions -------------------------------------------------------------------------------------------------------


def world_of(job: Question, log: Log, canonical: Canonical, hear: Progress = unheard) -> Hindsight:
    """Return the world as it was at a time."""
    behind = left_behind(log, set(job.left_keys), job.until_seq, canonical)
    world = Hindsight([spec_of(d, d.number) for d in job.definitions], job.at_ms, behind, job.frozen)
    if job.in_full:
        world.needs_everyone = world.needs_traits = world.needs_groups = True
    known = KnownIds(log, world.id_types(), job.until_seq, canonical, everyone=job.is_forgetful)
    world.scan(log, job.until_seq, canonical, hear)
    if world.needs_everyone and job.is_forgetful:
        for entity, since_ms in known.users_ms.items():
            if since_ms <= job.at_ms:
                world.user(entity)
    world.decide(lambda entity, types: known.has(entity, types, job.at_ms))
    return world


def _answers(job: Question, world: Hindsight) -> Iterator[Row]:
    for number in job.wanted:
        for entity in world.members(number):
            yield entity, number, world.value(entity, number)


class KnownIds:
    """Since when people had ids of certain types, read off the log: what identity keeps, without its thread."""

    def __init__(
        self, log: Log, sets: Iterable[frozenset[str]], until_seq: int, canonical: Canonical, *, everyone: bool = False
    ) -> None:
        """Read what was known once the log was known up to a sequence; with `everyone` all users, too."""
        self.users_ms: dict[int, int] = {}  # since when somebody was known by any id; only with `everyone`
        self._since_ms: dict[frozenset[str], dict[int, int]] = {types: {} for types in sets}
        if not (everyone or self._since_ms):
            return
        # An id may stand behind others of its commit, and counts from its event on. What is erased is erased from the
        # past too: so all of the log is looked at.
        for _, facts in log.read_facts():
            for _, fact in facts:
                if isinstance(fact, IdAdded | IdSeenEarlier):
                    if fact.cause_seq <= until_seq:
                        self._note(canonical[fact.entity], fact, everyone)
                elif isinstance(fact, Erased):
                    self._forget(fact.entity, canonical)

    def _note(self, entity: int, fact: IdAdded | IdSeenEarlier, everyone: bool) -> None:
        for types, since_ms in self._since_ms.items():
            if fact.id_type in types:
                since_ms[entity] = min(fact.event_ms, since_ms.get(entity, fact.event_ms))
        if everyone and fact.collection == "users":
            self.users_ms[entity] = min(fact.event_ms, self.users_ms.get(entity, fact.event_ms))

    def _forget(self, entity: int, canonical: Canonical) -> None:
        if entity < len(canonical):
            for since_ms in (*self._since_ms.values(), self.users_ms):
                since_ms.pop(canonical[entity], None)

    def has(self, entity: int, types: frozenset[str], at_ms: int) -> bool:
        """Tell whether somebody had an id of one of these types at a time."""
        since_ms = self._since_ms[types].get(entity)
        return since_ms is not None and since_ms <= at_ms


HERE: Final = ScansHere()
