"""`turnout replay`: fold a log anew, to rebuild what lies beside it, to check it, or to see the past.

To check, or to see the past, a snapshot is taken (`replay_snapshot`), also of a directory that a daemon is at work on.
Its entries alone are copied to another log and a space is opened on that: everything follows from them again,
identities, states, memberships, and the effects (who entered and left, when, caused by which entry). Those must be the
very ones in the log, in order, and all else what stands in the snapshot (`replay_check`). With `--as-of` the entries
end at a time of the past. What rests on events that were erased or are no longer kept cannot follow, and is left out
of the comparison. To rebuild, the projections are emptied and the space opened: if that is cut short, the next start
does it.
"""

import os
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Final, cast

import anyio
import anyio.to_thread
import msgspec
from cyclopts import Parameter
from msgspec import Struct
from rich.table import Table as Grid

from actors.checkpoint import PARTITION
from actors.footing import Footing
from actors.history import Progress, unheard
from actors.identity_store import PROJECTION as IDENTITY
from actors.scanning import HERE, Job, Page, Scans
from actors.space import Space, open_space
from adapters.cli.opened import ended_ms, opened, path_of
from adapters.cli.options import THIS, WHERE, Flag, Folder, Instant, MisusedError, Output, Target
from adapters.cli.replay_check import states_that_differ
from adapters.cli.replay_snapshot import scratch, spaces_in
from adapters.cli.running import waits
from adapters.cli.terminal import Bar, answers, bar, note, write_json
from adapters.opening import suppression_key_of
from eventlog.clock import SimulatedClock, WallClock
from eventlog.datadir import DataDir
from eventlog.entries import AnyFact, Commit, Entered, Exited, TraitComputed
from eventlog.history import HISTORY_PROJECTION
from eventlog.instants import iso
from eventlog.log import ENTITIES, HISTORY, IDS, MEMBERS, META, STATES, TIMERS, Changes, Log
from eventlog.sqlite import SqliteLog
from eventlog.sqlite_file import copy_entries

EFFECTS: Final = (Entered, Exited, TraitComputed)
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
    """The effects among a log's facts, one by one, with a hash over all of them."""

    def __init__(self) -> None:
        self._digest = blake2b(digest_size=16)
        self.count = 0

    def take(self, facts: Iterator[tuple[int, list[tuple[int, AnyFact]]]]) -> Iterator[AnyFact]:
        """Yield the effects in order, of what `Log.read_facts` gives."""
        for _, some in facts:
            for _, fact in some:
                if isinstance(fact, EFFECTS):
                    self._digest.update(_encode(fact))
                    self.count += 1
                    yield fact

    @property
    def hash(self) -> str:
        """Return the hash over those taken so far."""
        return self._digest.hexdigest()


class HeardLog(SqliteLog):
    """A log that tells how far it was read."""

    hear: Callable[[int], None] = staticmethod(lambda seq: None)

    def read(self, after_seq: int = 0, until_seq: int | None = None) -> Iterator[Commit]:
        """Yield commits as the log does."""
        for commit in super().read(after_seq, until_seq):
            self.hear(commit.last_seq)
            yield commit


class NoScans:
    """Lets backfills wait: what was not switched in by then had not decided then."""

    @asynccontextmanager
    async def run(
        self, store: Log, job: Job, canonical: "array[int]", hear: Progress = unheard
    ) -> AsyncIterator[Iterable[Page]]:
        """Wait for ever."""
        await anyio.sleep_forever()
        yield ()


@asynccontextmanager
async def folded_anew(
    space_id: str, source: SqliteLog, until_seq: int, show: Bar, scans: Scans = HERE
) -> AsyncIterator[Space]:
    """Yield a space made of a log's entries alone, up to the last one of a commit; what follows comes after it."""
    path = source.path.with_name("anew.log")
    path.unlink(missing_ok=True)
    await anyio.to_thread.run_sync(copy_entries, source.path, path, until_seq)
    log = cast(HeardLog, await HeardLog.open(path, durability="off"))
    try:
        assert log.last_seq == until_seq, (log.last_seq, until_seq)
        show.of(until_seq)
        log.hear = show.to
        key = await suppression_key_of(source, os.urandom)
        async with open_space(space_id, log, SimulatedClock(ended_ms(log)), suppression_key=key, scans=scans) as space:
            await space.settle()
            log.hear = HeardLog.hear
            yield space
    finally:
        await log.close()
        path.unlink(missing_ok=True)


async def replayed(live: Space, show: Bar) -> Replayed:
    """Fold a space's log anew, and compare what follows with what stands. Nothing may come in meanwhile.

    The log lies in a file, in whose folder there is room for a copy of its entries.
    """
    last_seq = live.log.last_seq
    assert isinstance(live.log, SqliteLog)
    async with folded_anew(live.id, live.log, last_seq, show) as space:
        stood, follow = Effects(), Effects()
        differences: list[str] = []
        footing = Footing(space.log.read_facts(0, last_seq))
        in_log = filter(footing.follows, stood.take(space.log.read_facts(0, last_seq)))
        made = (
            fact
            for fact in follow.take(space.log.read_facts(last_seq))
            if _caused_by(fact) <= last_seq and footing.follows(fact)
        )
        for place, (old, new) in enumerate(_pairs(in_log, made), 1):
            if old != new and len(differences) < DIFFERENCES_SHOWN:
                differences.append(f"effect {place}: the log has {_told(old)}, the replay {_told(new)}")
        differences += await members_that_differ(live, space, footing)
        await live.close()
        await space.close()
        differences += await anyio.to_thread.run_sync(states_that_differ, live, space, footing)
        return _result(space, last_seq, follow, differences)


async def seen_from(space_id: str, source: SqliteLog, as_of: int, show: Bar) -> Replayed:
    """Fold a log anew up to a time of the past, and let what was due by then happen."""
    last_seq = source.seq_at(as_of)
    async with folded_anew(space_id, source, last_seq, show, NoScans()) as space:
        clock = cast(SimulatedClock, space.clock)
        clock.set_ms(max(clock.now_ms(), min(as_of, WallClock().now_ms())))
        await space.advance()
        follow = Effects()
        for _ in follow.take(space.log.read_facts(last_seq)):
            pass
        return _result(space, last_seq, follow, [])


def _result(space: Space, last_seq: int, follow: Effects, differences: list[str]) -> Replayed:
    return Replayed(space.id, last_seq, space.now()[0], follow.count, follow.hash, standing(space), differences)


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
            for _ in effects.take(space.log.read_facts()):
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
    Nothing goes to destinations. To only look, a snapshot is taken: a daemon may be at work meanwhile.

    Args:
        as_of: Change nothing; tell how large each audience was at this time (ISO 8601), as it was known then.
        check: Change nothing; compare what follows from the log with all that stands; any difference is told and fails.
        space: Look at this one alone, by id or slug. [default: every space]
        format: How to write the answer.
        folder: The data directory.
    """
    started = time.perf_counter()
    target = folder.target(space)
    if check or as_of is not None:
        results = await _look(path_of(target), space, as_of)
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


async def _look(path: Path, wanted: str | None, as_of: int | None) -> list[Replayed]:
    results = []
    with scratch(path) as room, bar("replaying") as show:
        for record in await spaces_in(path, wanted):
            if as_of is None:
                async with room.space(record.id) as live:
                    results.append(await replayed(live, show))
            else:
                async with room.log(record.id) as log:
                    results.append(await seen_from(record.id, log, as_of, show))
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
