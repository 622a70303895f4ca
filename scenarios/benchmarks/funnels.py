"""`funnels`: events a second with 20 funnels that join on product ids (5,000 of them), users of up to 2,000 events."""

import time

from actors.partition import Partition
from eventlog.entries import TRACK, Event
from eventlog.messages import EventData
from scenarios.benchmarks.report import Report, percentile, rate
from scenarios.benchmarks.subjects import as_the_daemon, specs

PRODUCTS = 5_000
STEPS = ("Viewed", "Added", "Checkout", "Ordered", "Returned")
START_MS = 1_767_225_600_000
MINUTE_MS = 60_000


def definitions() -> list[str]:
    """Return 20 funnels: each step and a later one, then it or not it, by product."""
    found = []
    for hours in (1, 24):
        for place, first in enumerate(STEPS):
            for then in STEPS[place + 1 :]:
                child = f"event('{then}').where(property('product') = property(parent: 'product'))"
                joined = f"{child}.within(parent: {hours} hours).count() >= 1"
                part = joined if hours == 1 else f"NOT {joined}"
                found.append(f"event('{first}').where({part}).within(7 days).count() >= {place + 1}")
    return found


def run(events: int = 100_000, profiles: int = 100) -> None:
    """Measure and print."""
    as_the_daemon()
    partition = Partition()
    compiled = specs(definitions(), of_anybody=True)
    partition.set_definitions(compiled, [spec.number for spec in compiled], tuple)
    times = []
    began = time.perf_counter()
    for n in range(events):
        at = START_MS + n * MINUTE_MS // 10
        person = n * 7919 % profiles + 1
        data = EventData(properties={"product": f"p{n * 104_729 % PRODUCTS % 200}"})
        one = time.perf_counter()
        partition.fold_event(
            Event(n + 1, at, at, person, 0, TRACK, STEPS[n * 31 // 7 % 5], "src", f"m{n}", b"{}"), data
        )
        times.append(time.perf_counter() - one)
    seconds = time.perf_counter() - began
    report = Report("funnels", f"{len(compiled)} funnels over product ids, {events // profiles:,} events a user")
    report.row("folded", rate(events, seconds), "", f"p99 {percentile(times, 0.99) * 1e6:,.0f} µs an event")
    tail = times[-len(times) // 10 :]
    head = times[: len(times) // 10]
    report.row("the last tenth against the first", "", f"{sum(tail) / sum(head):.1f} times", "does history slow it?")
    report.row("changes", f"{len(partition.effects):,}")
    report.print()
