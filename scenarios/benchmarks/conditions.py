"""`conditions`: events a second folded with 1, 8, 100 and 1,000 definitions of mixed kinds over ten event names.

And what definitions cost that do *not* look at an event's name (they should cost nothing). Beside them DuckDB,
computing a few of the same definitions from a table of the same events: what one would otherwise run again and again;
and how often that would have to run to be as fresh.
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import duckdb
import msgspec

from actors.partition import Partition
from eventlog.entries import TRACK, Event
from eventlog.messages import EventData
from scenarios.benchmarks.report import Report, rate
from scenarios.benchmarks.subjects import as_the_daemon, specs

NAMES = tuple(f"Event {n}" for n in range(10))
AIMS = {1: 0, 8: 200_000, 100: 60_000, 1000: 10_000}
DAY_MS = 86_400_000
START_MS = 1_767_225_600_000


def definitions() -> Iterator[str]:
    """Yield ever more definitions of mixed kinds, no two alike, spread over the ten names."""
    n = 0
    while True:
        name = NAMES[n % 10]
        yield (
            f"event('{name}').count() >= {n % 50 + 1}",
            f"event('{name}').within({n % 30 + 1} days).count() >= {n % 4 + 1}",
            f"event('{name}').where(property('price') > {n}).sum(property('price')) >= {n * 10}",
            f"event('{name}').between({n % 7 + 1} days, {n % 7 + 20} days).count() >= 1",
            f"event('{name}').where(property('category') = 'c{n % 20}').count() >= 2",
            f"event('{name}').max(property('price')) > {n % 400}.5",
            f"event('{name}').unique(property('category')).count() >= {n % 19 + 1}",
            f"event('{name}').where(property('category') != 'c{n % 20}').within({n % 9 + 1} days).count() >= 3",
        )[n // 10 % 8]
        n += 1


def _events(count: int, profiles: int) -> list[tuple[Event, EventData]]:
    found = []
    step = 30 * DAY_MS // count
    for n in range(count):
        at = START_MS + n * step
        person = n * 7919 % profiles + 1
        data = EventData(properties={"price": n % 500 + 0.5, "category": f"c{n % 20}"})
        found.append((Event(n + 1, at, at, person, 0, TRACK, NAMES[n * 31 % 10], "src", f"m{n}", b"{}"), data))
    return found


def _fold(queries: list[str], events: list[tuple[Event, EventData]]) -> float:
    partition = Partition()
    compiled = specs(queries, of_anybody=True)
    partition.set_definitions(compiled, [spec.number for spec in compiled], tuple)
    began = time.perf_counter()
    for event, data in events:
        partition.fold_event(event, data)
    seconds = time.perf_counter() - began
    partition.take_effects()
    return seconds


def _duckdb(events: list[tuple[Event, EventData]]) -> float:
    """Return the seconds that one computation of eight of the definitions takes from a table."""
    database = duckdb.connect()
    database.execute("SET threads TO 1")
    database.execute("CREATE TABLE events (profile BIGINT, name TEXT, ts BIGINT, price DOUBLE, category TEXT)")
    rows = [
        (e.profile, e.name, e.event_ms, d.properties["price"], d.properties["category"])
        for e, d in events
        if d.properties
    ]
    body = msgspec.json.encode(
        [dict(zip(("profile", "name", "ts", "price", "category"), row, strict=True)) for row in rows]
    )

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.json"
        file.write_bytes(body)
        database.execute(f"INSERT INTO events SELECT profile, name, ts, price, category FROM '{file}'")
    now = events[-1][0].event_ms
    began = time.perf_counter()
    for n, name in enumerate(NAMES[:8]):
        wheres = (
            f"name = '{name}' GROUP BY profile HAVING count(*) >= {n + 1}",
            f"name = '{name}' AND ts > {now - (n + 1) * DAY_MS} GROUP BY profile HAVING count(*) >= 1",
            f"name = '{name}' AND price > {n} GROUP BY profile HAVING sum(price) >= {n * 10}",
            f"name = '{name}' GROUP BY profile HAVING count(DISTINCT category) >= {n + 1}",
        )
        database.execute(f"SELECT profile FROM events WHERE {wheres[n % 4]}").fetchall()
    return time.perf_counter() - began


def run(events: int = 200_000, profiles: int = 20_000) -> None:
    """Measure and print."""
    as_the_daemon()
    report = Report("conditions", "What do more definitions cost?")
    stream = _events(events, profiles)
    for count, aim in AIMS.items():
        used = stream if count < 1000 else stream[: max(1, len(stream) // 5)]
        seconds = _fold(list(islice(definitions(), count)), used)
        note = f"{len(used) / seconds / aim:.2f} of the aim of {aim:,}/s" if aim else ""
        report.row(f"{count:,} definitions", rate(len(used), seconds), note)
    base = _fold(list(islice(definitions(), 8)), stream)
    for others in (100, 1000):
        strange = [f"event('Nobody sends {n}').count() >= 1" for n in range(others)]
        seconds = _fold([*islice(definitions(), 8), *strange], stream)
        report.row(
            f"8, and {others:,} that look elsewhere", rate(len(stream), seconds), f"{base / seconds:.2f} of 8 alone"
        )
    table_s = _duckdb(stream)
    report.row("DuckDB, 8 definitions once, from a table", rate(len(stream), table_s), "", f"{table_s:.2f} s a run")
    live = len(stream) / base
    report.row(
        "as fresh as each event", "", "", f"DuckDB would run once an event: {live * table_s:,.0f} times the work"
    )
    report.print()
