"""`replay`: events a second folded from the log with the eight audiences, beside a plain scan of the same log.

What a restart without a checkpoint, and `turnout replay --check`, cost. Peers measured on this kind of machine with
three audiences (from NDJSON): Bytewax 113,000-141,000/s, Pathway 50,000-59,000/s, PyFlink 51,000/s.
"""

import time

import anyio

from actors.identity import Identity
from actors.partition import Partition
from eventlog.entries import AnyFact, Commit, Event
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.report import Report, peak_mb, rate
from scenarios.benchmarks.subjects import EIGHT, as_the_daemon, incoming, scratch, specs, traffic

AIM_PER_S = 200_000
COMMIT_EVENTS = 5_000


async def filled(log: SqliteLog, events: int, profiles: int) -> int:
    """Fill a log with traffic, as a daemon would; return when the last of it was received."""
    work = traffic(events, profiles)
    received_ms = work.start_ms + work.span_ms
    identity = Identity(log, suppression_key=b"benchmark")
    batch: list[bytes] = []

    async def append() -> None:
        first = log.last_seq + 1
        rows: list[Event] = []
        facts: list[AnyFact] = []
        for seq, one in enumerate(incoming(iter(batch), received_ms), first):
            who = identity.resolve(one.ids, group=one.group, event_ms=one.event_ms, cause_seq=seq, source="src")
            facts.extend(who.facts)
            rows.append(
                Event(
                    seq, one.event_ms, received_ms, who.profile, who.account, one.kind, one.name, "src",
                    one.message_id, one.body,
                )
            )  # fmt: skip
        await log.append([Commit(first, received_ms, tuple(rows), tuple(facts))])
        batch.clear()

    for message in work.messages():
        batch.append(message)
        if len(batch) == COMMIT_EVENTS:
            await append()
    if batch:
        await append()
    return received_ms


def fold(log: SqliteLog, queries: tuple[str, ...]) -> tuple[Partition, int, float]:
    """Fold the whole log with these audiences; return the partition, how many events, and the seconds it took."""
    partition = Partition()
    compiled = specs(queries)
    partition.set_definitions(compiled, [spec.number for spec in compiled], tuple)
    count = 0
    began = time.perf_counter()
    for commit in log.read():
        caused: dict[int, list[object]] = {}
        for fact in commit.facts:
            caused.setdefault(fact.cause_seq, []).append(fact)  # type: ignore[union-attr]
        for event in commit.events:
            partition.fold_stored(event, caused.get(event.seq, ()))  # type: ignore[arg-type]
        count += len(commit.events)
    return partition, count, time.perf_counter() - began


async def _measure(events: int, profiles: int) -> None:
    as_the_daemon()
    report = Report("replay", "How many events a second does a replay fold, with eight audiences?")
    with scratch() as folder:
        log = await SqliteLog.open(folder / "log.db")
        await filled(log, events, profiles)
        began = time.perf_counter()
        scanned = sum(len(commit.events) for commit in log.read())
        scan_s = time.perf_counter() - began
        partition, count, seconds = fold(log, EIGHT)
        await log.close()
    report.row("replay", rate(count, seconds), f"{count / seconds / AIM_PER_S:.2f} of the aim of 200,000/s")
    report.row("plain scan of the log", rate(scanned, scan_s), f"{seconds / scan_s:.1f} times faster")
    report.row(
        "effects", f"{len(partition.effects):,}", "", f"{len(partition.entities):,} profiles, {peak_mb():.0f} MB"
    )
    report.print()


def run(events: int = 1_000_000, profiles: int = 100_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
