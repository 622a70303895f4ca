"""The same file and seed give the same log, byte for byte, in any order of task scheduling; a year takes seconds."""

import asyncio
from random import Random
from time import perf_counter
from typing import Any

import pytest

from scenarios.chaos_faults import chaotic, pinned
from scenarios.format import Scenario, loads
from scenarios.runner import run_to_end
from scenarios.world import SimulatedWorld
from tests.scenarios.test_chaos import FAULTS, SHOP

YEAR_EVENTS = 10_000
YEAR_S_MAX = 60.0  # "seconds", on a machine that is busy with other things


class ShuffledLoop(asyncio.SelectorEventLoop):
    """An event loop that runs what is ready in a random order."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = Random(seed)  # noqa: S311 - reproducible

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined] # there is no public way to reorder it
        shuffled = list(ready)
        self._chance.shuffle(shuffled)
        ready.clear()
        ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc] # private as well


def logged(scenario: Scenario, order: int | None) -> tuple[list[tuple[bytes, bytes]], list[Any]]:
    """Return the encoded log of a run and what was sent, in some order of scheduling."""
    kept: list[tuple[bytes, bytes]] = []
    sent: list[Any] = []

    async def look(world: SimulatedWorld) -> None:
        kept.extend((bytes(one.head), bytes(one.body)) for one in world.log._packs)
        sent.extend(world.receiver.sent)

    loop = asyncio.SelectorEventLoop() if order is None else ShuffledLoop(order)
    try:
        assert loop.run_until_complete(run_to_end(scenario, look)) == []
    finally:
        loop.close()
    return kept, sent


@pytest.mark.parametrize("seed", range(4))
def test_a_run_with_crashes_and_destinations_gives_the_same_log_in_any_order_of_scheduling(seed: int) -> None:
    scenario = chaotic(pinned(loads(SHOP).scenario), seed)
    first = logged(scenario, None)
    assert first[0]
    assert first[1]
    for order in range(3):
        assert logged(scenario, order) == first


def test_deaths_in_the_middle_of_writes_fall_on_the_same_write_every_time() -> None:
    scenario = loads(FAULTS).scenario
    assert logged(scenario, None) == logged(scenario, None)


def test_a_year_with_ten_thousand_events_runs_in_seconds() -> None:
    chance = Random(1)  # noqa: S311 - reproducible
    gap_s = 365 * 86_400 // (YEAR_EVENTS // 10)
    steps = "".join(
        f"  - at: +{n * gap_s}s\n    send:\n"
        + "".join(
            f"      - {{type: track, userId: u{chance.randrange(300)}, event: Order Completed}}\n" for _ in range(10)
        )
        for n in range(YEAR_EVENTS // 10)
    )
    head = SHOP.partition("steps:")[0]
    scenario = loads(head + "steps:\n" + steps).scenario
    events: list[int] = []

    async def look(world: SimulatedWorld) -> None:
        events.append(sum(len(commit.events) for commit in world.log.read()))

    started = perf_counter()
    assert asyncio.run(run_to_end(scenario, look)) == []
    assert perf_counter() - started < YEAR_S_MAX
    assert events == [YEAR_EVENTS]
