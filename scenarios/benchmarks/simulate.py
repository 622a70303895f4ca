"""`simulate`: scenarios a second for the library, simulated years a second for a small world, chaos runs a second."""

import logging
import time
from pathlib import Path
from random import Random

import anyio
import structlog

from scenarios.benchmarks.report import Report, rate
from scenarios.chaos import chaos
from scenarios.format import AudienceSpec, Scenario, Step, load
from scenarios.runner import run_paths, run_scenario

LIBRARY = Path(__file__).parents[1] / "library"
YEAR_S = 365 * 86_400
CHAOS_RUNS = 25
CHAOS_FILE = "then_not_at_once.yaml"


def year(events: int, profiles: int) -> Scenario:
    """Return a world of one year: a window of a week, traffic all the year."""
    chance = Random(1)
    audience = AudienceSpec(name="Buyers", query="event('Order Completed').within(7 days).count() >= 2")
    steps = tuple(
        Step(
            at=f"+{n * YEAR_S // events}s",
            send={"type": "track", "userId": f"u{chance.randrange(profiles)}", "event": "Order Completed"},
        )
        for n in range(events)
    )
    return Scenario(scenario="A year", audiences=(audience,), steps=steps)


def run(events: int = 2_000, profiles: int = 200) -> None:
    """Run it, and print the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    report = Report("simulate", "How fast do scenarios run?")
    started = time.perf_counter()
    outcome = run_paths([LIBRARY], jobs=1)
    seconds = time.perf_counter() - started
    assert outcome.passed
    report.row("scenarios of the library, one process", rate(len(outcome.scenarios), seconds))

    started = time.perf_counter()
    assert anyio.run(run_scenario, year(events, profiles), backend_options={"use_uvloop": True}) == []
    seconds = time.perf_counter() - started
    report.row("simulated years of a small world", f"{1 / seconds:,.2f}/s", note=f"{events:,} events a year")
    report.row("its events", rate(events, seconds))

    started = time.perf_counter()
    assert chaos(load(LIBRARY / CHAOS_FILE).scenario, CHAOS_RUNS) is None
    report.row("chaos runs", rate(CHAOS_RUNS, time.perf_counter() - started), note=CHAOS_FILE)
    report.print()
