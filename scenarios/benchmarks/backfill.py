"""`backfill`: the past of each of the eight audiences, gathered by a scan of the log, on one core.

Beside it DuckDB computes the same audiences from the same events, on one thread, from Parquet and from NDJSON. Not
shown: several backfills at once, or ingest meanwhile.
"""

import time
from pathlib import Path
from typing import Any

import anyio
import duckdb

from actors.history import Hindsight, gather
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


def _duckdb(source: str, end_ms: int) -> float:
    """Return the seconds that the eight take from a source."""
    database = duckdb.connect()
    database.execute("SET threads TO 1")
    database.execute(f"CREATE VIEW events AS SELECT * FROM {source}")
    now = f"make_timestamp({end_ms * 1000})"
    began = time.perf_counter()
    for query in _queries(now):
        database.execute(query).fetchall()
    return time.perf_counter() - began


def _bodies(log: SqliteLog, file: Path) -> None:
    with file.open("wb") as out:
        for commit in log.read():
            out.writelines(event.body + b"\n" for event in commit.events)


def _gathered(log: SqliteLog, query: str, at_ms: int, canonical: Any) -> float:
    world = Hindsight(specs([query], of_anybody=True), at_ms)
    asked = [one for one in world.program.asked_by_index if one.stable in world.program.by_stable]
    began = time.perf_counter()
    gather(log, asked, until_seq=log.last_seq, at_ms=at_ms, canonical=canonical)
    return time.perf_counter() - began


def _previewed(log: SqliteLog, query: str, at_ms: int, canonical: Any) -> float:
    began = time.perf_counter()
    world = Hindsight(specs([query], of_anybody=True), at_ms)
    world.scan(log, log.last_seq, canonical)
    world.decide(lambda _entity, _types: True)
    world.members(1)
    return time.perf_counter() - began


async def _measure(events: int, profiles: int) -> None:
    as_the_daemon()
    report = Report("backfill", "How long does the past of a new audience take?")
    with scratch() as folder:
        log = await SqliteLog.open(folder / "log.db")
        at_ms = await filled(log, events, profiles)
        identity = Identity.from_facts(log.read(), suppression_key=b"benchmark")
        canonical = identity.canonical_map()
        file, parquet = folder / "events.ndjson", folder / "events.parquet"
        _bodies(log, file)
        source = f"read_json('{file}', format = 'newline_delimited', columns = {COLUMNS})"
        duckdb.execute(f"COPY (SELECT * FROM {source}) TO '{parquet}' (FORMAT parquet)")
        gathered = [_gathered(log, query, at_ms, canonical) for query in EIGHT]
        peak = peak_mb()
        previewed = [_previewed(log, query, at_ms, canonical) for query in EIGHT]
        ndjson_s = _duckdb(source, at_ms)
        parquet_s = _duckdb(f"'{parquet}'", at_ms)
        await log.close()
    total = sum(gathered)
    report.row(
        "eight backfills", f"{total:.2f} s", f"{total / ndjson_s:.2f} of DuckDB on NDJSON", rate(events * 8, total)
    )
    report.row("the slowest of them", f"{max(gathered):.2f} s", "", f"{events:,} events")
    report.row("DuckDB, the eight, from NDJSON", f"{ndjson_s:.2f} s", "aim: within 3 times", rate(events * 8, ndjson_s))
    report.row(
        "DuckDB, the eight, from Parquet", f"{parquet_s:.2f} s", f"{total / parquet_s:.1f} times faster than ours"
    )
    for number, (query, mine_s) in enumerate(zip(EIGHT, gathered, strict=True), 1):
        report.row(f"backfill {number}", f"{mine_s:.2f} s", "", query if len(query) <= 60 else f"{query[:59]}…")
    report.row("peak memory after the eight", f"{peak:.0f} MB", "", "this process made the log as well")
    p50, p95 = (f"{percentile(previewed, part):.2f} s" for part in (0.5, 0.95))
    report.row("preview, p50", p50, "", f"of the eight; p95 {p95}; a daemon's process takes under a second to begin")
    report.print()


def run(events: int = 1_000_000, profiles: int = 100_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
