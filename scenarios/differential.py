"""The engine against the reference evaluator on random worlds over the whole language.

    python -m scenarios.differential --count 1000 --seed 1

Each seed is a world: messages late, doubled, tied and merging, definitions added, edited and deleted midway, windows
that close with no event. Its answers come from the reference, and the engine must give the same after every step, and
about the past; with `--unrest` also if it is stopped and started again at any moment. A world that differs is shrunk
and written to `scenarios/found/`, where `turnout simulate` shows it again.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from typing import Final

import anyio

from scenarios.answers import with_answers
from scenarios.expectations import Failure
from scenarios.format import Scenario
from scenarios.generator import random_scenario
from scenarios.reference_run import run_on_reference
from scenarios.restless import Unrest, restless
from scenarios.runner import run_scenario
from scenarios.shrink import shrink, write_found

CHUNK: Final = 20
UNRESTS: Final = {
    "none": None,
    "dies": Unrest(deaths=0.4),
    "dies_after_checkpoints": Unrest(checkpoints=0.5, deaths=0.3),
    "closes": Unrest(checkpoints=0.2, closings=0.3),
    "forgets": Unrest(checkpoints=0.8, active_max=1),
    "in_file": Unrest(checkpoints=0.6, deaths=0.1, closings=0.05, active_max=1, in_file=True),
}


def failures_of(scenario: Scenario, unrest: Unrest | None = None) -> list[Failure]:
    """Return where the engine does not answer as the scenario expects."""
    run = run_scenario if unrest is None else partial(run_scenario, opened=restless(unrest))
    return anyio.run(run, scenario, backend_options={"use_uvloop": True})


def world_of(seed: int) -> Scenario:
    """Return the world of a seed with the reference's answers."""
    return with_answers(random_scenario(seed))


def differing(seeds: range, unrest: Unrest | None = None) -> dict[int, Failure]:
    """Return the first difference between engine and reference of each world that has one, by its seed."""
    found = {seed: failures_of(world_of(seed), unrest) for seed in seeds}
    return {seed: failures[0] for seed, failures in found.items() if failures}


def _fails(unrest: Unrest | None, scenario: Scenario) -> bool:
    """Tell whether the engine differs where the reference agrees with itself: a shrunk world may make no sense."""
    answered = with_answers(scenario)
    return not run_on_reference(answered) and bool(failures_of(answered, unrest))


def main() -> int:
    """Draw worlds, compare, and write down those that differ."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.differential")
    parser.add_argument("--count", type=int, default=1000, help="how many worlds")
    parser.add_argument("--seed", type=int, help="the first seed; without it one is drawn and printed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--unrest", choices=UNRESTS, default="none", help="what goes on beside")
    parser.add_argument("--found-max", type=int, default=5, help="stop after so many that differ")
    asked = parser.parse_args()
    first = int(time.time()) * 1000 if asked.seed is None else asked.seed
    sys.stdout.write(f"seeds {first} to {first + asked.count - 1}\n")
    chunks = [range(n, min(n + CHUNK, first + asked.count)) for n in range(first, first + asked.count, CHUNK)]
    unrest = UNRESTS[asked.unrest]
    found: dict[int, Failure] = {}
    began = time.perf_counter()
    with ProcessPoolExecutor(asked.jobs) as pool:
        for seeds in pool.map(differing, chunks, repeat(unrest)):
            found |= seeds
            if len(found) >= asked.found_max:
                pool.shutdown(cancel_futures=True)
                break
    sys.stdout.write(f"{asked.count} worlds in {time.perf_counter() - began:.1f} s, {len(found)} differ\n")
    for seed in found:
        smallest = with_answers(shrink(random_scenario(seed), partial(_fails, unrest)))
        first_failure = failures_of(smallest, unrest)[0]
        path = write_found(smallest, f"seed-{seed}", f"Found by seed {seed}: {first_failure.path}")
        sys.stdout.write(f"{path}: expected {first_failure.expected}, found {first_failure.actual}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
