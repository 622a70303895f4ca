"""`turnout replay`: fold a log anew, to rebuild what lies beside it, to check it, or to see the past.

To check, or to see the past, the log is copied to a temporary one without any projection and a space is opened on the
copy: everything follows from the entries again, identities, states, memberships, and the effects (who entered and
left, when, caused by which entry). Those must be the very ones in the log, in order, and the members those of the live
state. With `--as-of` the copy ends at a time of the past. What rests on events that were erased or are no longer
kept cannot follow, and is left out of the comparison. To rebuild, the projections are emptied and the space opened:
if that is cut short, the next start does it.
"""

import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Final, cast

import msgspec
from cyclopts import Parameter
from msgspec import Struct
from rich.table import Table as Grid

from actors.checkpoint import PARTITION
from actors.footing import Footing
from actors.identity_store import PROJECTION as IDENTITY
from actors.space import Space, open_space
from adapters.cli.opened import Opened, ended_ms, opened, path_of
from adapters.cli.options import THIS, WHERE, Flag, Folder, Instant, MisusedError, Output, Target
from adapters.cli.running import waits
from adapters.cli.terminal import Bar, answers, bar, note, write_json
from adapters.opening import suppression_key_of
from eventlog.clock import SimulatedClock
from eventlog.datadir import SCRATCH_PREFIX, DataDir
from eventlog.entries import AnyFact, Commit, Entered, Exited, TraitComputed
from eventlog.history import HISTORY_PROJECTION
from eventlog.instants import iso
from eventlog.log import ENTITIES, HISTORY, IDS, MEMBERS, META, STATES, TIMERS, Changes, Log
from eventlog.sqlite import SqliteLog

EFFECTS: Final = (Entered, Exited, TraitComputed)
COPY_ENTRIES: Final = 20_000  # appended to the copy at once
DIFFERENCES_SHOWN: Final = 10
FOLLOWING_META: Final = ("partition", "definitions", "identity")  # how the rows of META begin that follow from the log
META_ROWS_MAX: Final = 1_000_000  # a suppressed user is a row

_encode = msgspec.msgpack.Encoder().encode


class Standing(Struct, frozen=True):
    """An audience or computed trait as it came out of a replay."""

    key: str
    kind: str
    size: int


class Replayed(Struct, frozen=True):
    """What a replay gave."""

    space: str
    entries: int
    at_ms: int  # when the last of them was recorded
    effects: int
    hash: str  # of all effects in order: equal logs have equal hashes, on every machine
    standing: list[Standing]
    differences: list[str]  # where the log says something else, at most DIFFERENCES_SHOWN


class Effects:
    """The effects that stand in some commits, one by one, with a hash over all of them."""

    def __init__(self) -> None:
        self._digest = blake2b(digest_size=16)
        self.count = 0

    def take(self, commits: Iterator[Commit]) -> Iterator[AnyFact]:
        """Yield the effects in order."""
        for commit in commits:
            for fact in commit.facts:
                if isinstance(fact, EFFECTS):
                    self._digest.update(_encode(fact))
                    self.count += 1
                    yield fact

    @property
    def hash(self) -> str:
        """Return the hash over those taken so far."""
        return self._digest.hexdigest()


async def copied(source: Log, target: Log, until_seq: int, hear: Callable[[int], None]) -> None:
    """Append the entries of one log to another, as they are."""
    batch: list[Commit] = []
    entries = 0
    for commit in source.read(0, until_seq):
        batch.append(commit)
        entries += len(commit.events) + len(commit.facts)
        if entries >= COPY_ENTRIES:
            await target.append(batch)
            batch, entries = [], 0
            hear(commit.last_seq)
    await target.append(batch)


class HeardLog(SqliteLog):
    """A log that tells how far it was read."""

    hear: Callable[[int], None] = staticmethod(lambda seq: None)

    def read(self, after_seq: int = 0, until_seq: int | None = None) -> Iterator[Commit]:
        """Yield commits as the log does."""
        for commit in super().read(after_seq, until_seq):
            self.hear(commit.last_seq)
            yield commit


@asynccontextmanager
async def folded_anew(found: Opened, until_seq: int, show: Bar) -> AsyncIterator[tuple[Space, int]]:
    """Yield a space made of the log's entries alone, and the last of their sequences; what follows comes after it."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=found.data.path) as folder:
        log = cast(HeardLog, await HeardLog.open(Path(folder) / "replay.log", durability="normal"))
        try:
            show.of(2 * until_seq)
            await copied(found.space.log, log, until_seq, show.to)
            last_seq = log.last_seq
            clock = SimulatedClock(ended_ms(log))
            log.hear = lambda seq: show.to(last_seq + seq)
            key = await suppression_key_of(found.space.log, os.urandom)
            async with open_space(found.space.id, log, clock, suppression_key=key) as space:
                await space.settle()
                yield space, last_seq
        finally:
            await log.close()


async def replayed(found: Opened, until_seq: int, show: Bar) -> Replayed:
    """Fold the log up to a sequence anew, and compare what follows with what stands."""
    async with folded_anew(found, until_seq, show) as (space, last_seq):
        stood, follow = Effects(), Effects()
        differences: list[str] = []
        footing = Footing(space.log.read(0, last_seq))
        in_log = filter(footing.follows, stood.take(space.log.read(0, last_seq)))
        made = (
            fact
            for fact in follow.take(space.log.read(last_seq))
            if _caused_by(fact) <= last_seq and footing.follows(fact)
        )
        for place, (old, new) in enumerate(_pairs(in_log, made), 1):
            if old != new and len(differences) < DIFFERENCES_SHOWN:
                differences.append(f"effect {place}: the log has {_told(old)}, the replay {_told(new)}")
        if last_seq == found.space.log.last_seq:
            differences += await members_that_differ(found.space, space, footing)
        return Replayed(
            found.space.id, last_seq, space.now()[0], follow.count, follow.hash, standing(space), differences
        )


async def members_that_differ(live: Space, anew: Space, footing: Footing) -> list[str]:
    """Return, for each audience whose members are not those of the replay, which they are."""
    differences = []
    for view in live.definitions("audience"):
        key, number = view.definition.key, view.definition.number
        if not footing.is_computable(number):
            continue  # it needs events that are no longer kept
        stand, follow = dict(await live.members(key)), dict(await anew.members(key))
        wrong = [one for one in {**stand, **follow} if stand.get(one) != follow.get(one)]
        wrong = [
            one for one in wrong if one not in stand or one not in follow or footing.is_dated(number, stand[one], one)
        ]
        if wrong:
            differences.append(
                f"{key}: live and replay differ for {len(wrong):,} members, {live.name_of(wrong[0])} first"
            )
    return differences


def standing(space: Space) -> list[Standing]:
    """Return the audiences and computed traits of a space with their sizes."""
    return [Standing(view.definition.key, view.definition.kind, view.size) for view in space.definitions()]


async def forget_projections(log: Log) -> None:
    """Empty everything beside a log that follows from its entries."""
    meta = [key for key, _ in log.range(META, limit=META_ROWS_MAX) if str(key[0]).startswith(FOLLOWING_META)]
    await log.store(
        [
            Changes(IDENTITY, 0, cleared=(IDS, ENTITIES)),
            Changes(HISTORY_PROJECTION, 0, cleared=(HISTORY,)),
            Changes(PARTITION, 0, cleared=(STATES, TIMERS, MEMBERS), deletes=((META, meta),)),
        ]
    )


async def rebuild(target: Target) -> list[Replayed]:
    """Build anew what lies beside the logs of a data directory, in place."""
    path = path_of(target)
    with DataDir.open(path, holder="turnout replay") as folder:
        for space_id in folder.space_ids():
            log = await SqliteLog.open(folder.space_path(space_id))
            try:
                await forget_projections(log)
            finally:
                await log.close()
    results = []
    async with opened(target, "turnout replay") as found:
        for space in found.data.spaces():
            await space.settle()
            effects = Effects()
            for _ in effects.take(space.log.read()):
                pass
            now_ms, seq = space.now()
            results.append(Replayed(space.id, seq, now_ms, effects.count, effects.hash, standing(space), []))
    return results


def _pairs(left: Iterator[AnyFact], right: Iterator[AnyFact]) -> Iterator[tuple[AnyFact | None, AnyFact | None]]:
    while True:
        pair = (next(left, None), next(right, None))
        if pair == (None, None):
            return
        yield pair


def _caused_by(fact: Any) -> int:
    seq: int = fact.cause_seq
    return seq


def _told(fact: AnyFact | None) -> str:
    return "nothing" if fact is None else repr(fact)


@waits
async def replay(
    *,
    as_of: Instant | None = None,
    check: Flag = False,
    space: Annotated[str | None, Parameter(group=WHERE, metavar="SPACE")] = None,
    format: Output = "text",
    folder: Folder = THIS,
) -> int:
    """Fold the whole log anew: build everything beside it again, or, with an option, only look.

    Without an option what lies beside the log (identities, memberships, states) is built anew, in place, in all spaces.
    Nothing goes to destinations.

    Args:
        as_of: Change nothing; tell how large each audience was at this time (ISO 8601), as it was known then.
        check: Change nothing; compare what follows from the log with what stands; any difference is told and fails.
        space: Look at this one alone, by id or slug. [default: every space]
        format: How to write the answer.
        folder: The data directory.
    """
    started = time.perf_counter()
    target = folder.target(space)
    if check or as_of is not None:
        results = await _look(target, as_of)
    elif space is not None:
        raise MisusedError(
            "--space goes with --check and --as-of: what lies beside the log is built anew in all spaces"
        )
    else:
        with bar("building anew"):
            results = await rebuild(target)
    if format == "json":
        write_json([{**msgspec.to_builtins(one), "at": iso(one.at_ms)} for one in results])
    else:
        for one in results:
            _show(one)
        note(f"{sum(one.entries for one in results):,} entries folded anew in {time.perf_counter() - started:,.1f} s")
    if not check:
        return 0
    for one in results:
        for difference in one.differences:
            note(f"differs, space {one.space}: {difference}")
    differ = any(one.differences for one in results)
    note("log and live state differ" if differ else "everything that stands follows from the log")
    return 1 if differ else 0


async def _look(target: Target, as_of: int | None) -> list[Replayed]:
    results = []
    async with opened(target, "turnout replay") as found:
        spaces = found.data.spaces() if target.space is None else [found.space]
        with bar("replaying") as show:
            for space in spaces:
                await space.backfilled()  # else what a switch brings about may follow the last entry looked at
                until_seq = space.log.last_seq if as_of is None else space.known_seq(as_of)
                results.append(await replayed(Opened(found.data, space), until_seq, show))
    return results


def _show(result: Replayed) -> None:
    note(
        f"space {result.space}: {result.entries:,} entries up to {iso(result.at_ms)}, "
        f"{result.effects:,} effects, hash {result.hash}"
    )
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    grid.add_column("key")
    grid.add_column("kind")
    grid.add_column("size", justify="right")
    for row in result.standing:
        grid.add_row(row.key, row.kind, f"{row.size:,}")
    if result.standing:
        answers().print(grid)
