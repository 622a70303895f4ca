"""`backfill`: the past of each of the eight audiences, gathered by a scan of the log, on one core.

Beside it DuckDB computes the same audiences from the same events, on one thread, from Parquet and from NDJSON, and
finds as many members. The log is filled by a process of its own, so that the memory told is that of the scans. Seconds
are told as they passed and as this process used the core, which is what counts beside other work. Not shown: several
backfills at once, or ingest meanwhile.

`--events 10000000` asks it of ten times as much history: about ten minutes, 6 GB of disk.
"""

import multiprocessing
import shutil
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import anyio
import duckdb
from msgspec import Struct

from actors.history import Canonical, Hindsight, gather
from actors.identity import Identity
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.replay import filled
from scenarios.benchmarks.report import Report, peak_mb, percentile, rate
from scenarios.benchmarks.subjects import EIGHT, as_the_daemon, scratch, specs

COLUMNS = (
    "{'messageId': 'VARCHAR', 'timestamp': 'TIMESTAMP', 'userId': 'VARCHAR', 'anonymousId': 'VARCHAR',"
    " 'type': 'VARCHAR', 'event': 'VARCHAR', 'name': 'VARCHAR', 'properties': 'STRUCT(total DOUBLE, price DOUBLE,"
    " category VARCHAR)', 'traits': 'STRUCT(country VARCHAR, plan VARCHAR)'}"
)

EVENTS_A_PROFILE = 10
EVENT_BYTES = 600  # of disk: its place in the log, in NDJSON and in Parquet
DUCKDB_MEMORY = "4GB"


class Took(Struct, frozen=True):
    """How long something took."""

    seconds: float
    core_s: float  # of this process


def _watch() -> Callable[[], Took]:
    """Start a watch; call it to stop it."""
    began, core = time.perf_counter(), time.process_time()
    return lambda: Took(time.perf_counter() - began, time.process_time() - core)


def _queries(now: str) -> tuple[str, ...]:
    """Return the eight audiences in SQL, over a table or file called `events`."""
    who = "coalesce(userId, anonymousId)"
    orders = "event = 'Order Completed'"
    last = f"(SELECT {who} AS who, arg_max(traits, timestamp) AS t FROM events WHERE type = 'identify' GROUP BY 1)"
    return (
        f"SELECT {who} FROM events WHERE {orders} GROUP BY 1 HAVING sum(properties.total) >= 1000",
        f"SELECT {who} FROM events WHERE {orders} AND timestamp > {now} - INTERVAL 14 DAY GROUP BY 1"
        " HAVING count(*) >= 2",
        f"SELECT {who} FROM events WHERE {orders} GROUP BY 1 HAVING"
        f" count(*) FILTER (timestamp > {now} - INTERVAL 35 DAY AND timestamp <= {now} - INTERVAL 14 DAY) >= 1"
        f" AND count(*) FILTER (timestamp > {now} - INTERVAL 14 DAY) = 0",
        f"SELECT v.who FROM (SELECT {who} AS who FROM events WHERE event = 'Product Viewed' AND properties.price > 10"
        f" GROUP BY 1) v JOIN {last} l ON l.who = v.who WHERE l.t.country <> 'United Kingdom'",
        f"SELECT {who} FROM events WHERE event = 'Product Viewed' AND properties.category = 'bags'"
        f" AND timestamp > {now} - INTERVAL 7 DAY GROUP BY 1 HAVING count(*) >= 3",
        f"SELECT {who} FROM events WHERE timestamp > {now} - INTERVAL 1 DAY GROUP BY 1"
        f" HAVING count(*) FILTER (event = 'Product Added') >= 1 AND count(*) FILTER ({orders}) = 0",
        f"SELECT {who} FROM events GROUP BY 1 HAVING count(*) FILTER (event = 'Checkout Started') >= 1"
        f" AND count(*) FILTER ({orders}) = 0",
        f"SELECT v.who FROM (SELECT {who} AS who FROM events WHERE type = 'page' AND name = 'Home'"
        f" AND timestamp > {now} - INTERVAL 30 DAY GROUP BY 1 HAVING count(*) >= 5) v JOIN {last} l ON l.who = v.who"
        " WHERE l.t.plan = 'pro'",
    )


def _duckdb(source: str, end_ms: int, folder: Path) -> tuple[Took, int]:
    """Return the time that the eight take from a source, and how many members they have together."""
    database = duckdb.connect()
    database.execute("SET threads TO 1")
    database.execute(f"SET memory_limit = '{DUCKDB_MEMORY}'")
    database.execute(f"SET temp_directory = '{folder / 'duckdb'}'")
    database.execute(f"CREATE VIEW events AS SELECT * FROM {source}")
    now = f"make_timestamp({end_ms * 1000})"
    stop = _watch()
    members = sum(len(database.execute(query).fetchall()) for query in _queries(now))
    return stop(), members


def _prepare(folder: Path, events: int, profiles: int) -> None:
    """Fill a log, and lay beside it its events as NDJSON, who is who, and when the last was received."""

    async def work() -> None:
        log = await SqliteLog.open(folder / "log.db")
        at_ms = await filled(log, events, profiles)
        with (folder / "events.ndjson").open("wb") as out:
            for commit in log.read():
                out.writelines(event.body + b"\n" for event in commit.events)
        identity = Identity(log, suppression_key=b"benchmark")
        for commit in log.read():
            identity.apply_commit(commit)
        (folder / "canonical").write_bytes(array("q", [at_ms, *identity.canonical_map()]).tobytes())
        await log.close()

    as_the_daemon()
    anyio.run(work, backend_options={"use_uvloop": True})


def _prepared(folder: Path, events: int, profiles: int) -> tuple[int, Canonical]:
    """Have a process prepare a folder; return when the last event was received, and who is who."""
    free = shutil.disk_usage(folder).free
    if free < events * EVENT_BYTES:
        sys.exit(
            f"{folder}: {free / 1e9:.1f} GB are free, {events:,} events take up to {events * EVENT_BYTES / 1e9:.1f}"
        )
    process = multiprocessing.get_context("spawn").Process(target=_prepare, args=(folder, events, profiles))
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(f"the process that fills the log ended with {process.exitcode}")
    told = array("q", (folder / "canonical").read_bytes())
    return told[0], told[1:]


def _gathered(log: SqliteLog, query: str, at_ms: int, canonical: Canonical) -> Took:
    world = Hindsight(specs([query], of_anybody=True), at_ms)
    asked = [one for one in world.program.asked_by_index if one.stable in world.program.by_stable]
    stop = _watch()
    gather(log, asked, until_seq=log.last_seq, at_ms=at_ms, canonical=canonical)
    return stop()


def _previewed(log: SqliteLog, query: str, at_ms: int, canonical: Canonical) -> tuple[float, int]:
    """Return the seconds that a preview takes, and how many it finds."""
    began = time.perf_counter()
    world = Hindsight(specs([query], of_anybody=True), at_ms)
    world.scan(log, log.last_seq, canonical)
    world.decide(lambda _entity, _types: True)
    size = len(world.members(1))
    return time.perf_counter() - began, size


async def _measure(events: int, profiles: int) -> None:
    as_the_daemon()
    report = Report(
        "backfill", f"How long does the past of a new audience take? {events:,} events, {profiles:,} profiles"
    )
    with scratch() as folder:
        at_ms, canonical = _prepared(folder, events, profiles)
        log = await SqliteLog.open(folder / "log.db")
        gathered = [_gathered(log, query, at_ms, canonical) for query in EIGHT]
        peak = peak_mb()
        timed = [_previewed(log, query, at_ms, canonical) for query in EIGHT]
        previewed, members = [seconds for seconds, _ in timed], sum(size for _, size in timed)
        file, parquet = folder / "events.ndjson", folder / "events.parquet"
        source = f"read_json('{file}', format = 'newline_delimited', columns = {COLUMNS})"
        duckdb.execute(f"COPY (SELECT * FROM {source}) TO '{parquet}' (FORMAT parquet)")
        ndjson, theirs = _duckdb(source, at_ms, folder)
        from_parquet, _ = _duckdb(f"'{parquet}'", at_ms, folder)
        sizes = [(folder / name).stat().st_size / 1e6 for name in ("log.db", "events.ndjson", "events.parquet")]
        await log.close()
    assert members == theirs, (members, theirs)
    total = sum(one.seconds for one in gathered)
    core_s = sum(one.core_s for one in gathered)
    times = f"{total / ndjson.seconds:.2f} of DuckDB on NDJSON"
    report.row("eight backfills", f"{total:.2f} s", times, rate(events * 8, total))
    report.row(
        "of a core", f"{core_s:.2f} s", f"{core_s / ndjson.core_s:.2f} of DuckDB on NDJSON", "aim: within 3 times"
    )
    report.row("the slowest of them", f"{max(one.seconds for one in gathered):.2f} s", "", f"{events:,} events")
    for where, took in (("NDJSON", ndjson), ("Parquet", from_parquet)):
        times = f"ours takes {core_s / took.core_s:.1f} times the core"
        report.row(f"DuckDB, the eight, from {where}", f"{took.seconds:.2f} s", times, f"{took.core_s:.2f} s of a core")
    for number, (query, mine) in enumerate(zip(EIGHT, gathered, strict=True), 1):
        report.row(f"backfill {number}", f"{mine.seconds:.2f} s", "", query if len(query) <= 60 else f"{query[:59]}…")
    report.row("peak memory after the eight", f"{peak:.0f} MB", "", "of this process, which only scans")
    report.row("disk", f"{sizes[0]:,.0f} MB", "", f"the log; NDJSON {sizes[1]:,.0f}, Parquet {sizes[2]:,.0f} MB")
    report.row("members", f"{members:,}", "", "of the eight together; DuckDB finds as many")
    p50, p95 = (f"{percentile(previewed, part):.2f} s" for part in (0.5, 0.95))
    report.row("preview, p50", p50, "", f"of the eight; p95 {p95}; a daemon's process takes under a second to begin")
    report.print()


def run(events: int = 1_000_000, profiles: int | None = None) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles or max(1, events // EVENTS_A_PROFILE), backend_options={"use_uvloop": True})
