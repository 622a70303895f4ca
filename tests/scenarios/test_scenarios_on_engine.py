"""Every scenario file holds on the real engine: as it is, and in a world that stops and starts at every turn."""

from functools import partial
from pathlib import Path

import pytest

from scenarios.format import load
from scenarios.restless import Unrest, restless
from scenarios.runner import run_file, run_scenario

REPOSITORY = Path(__file__).parents[2]
FOLDERS = {
    "library": REPOSITORY / "scenarios" / "library",
    "found": Path(__file__).parent / "found",
    "shared": REPOSITORY.parent / "shared" / "scenarios",
}
FILES = {name: sorted(folder.glob("*.yaml")) for name, folder in FOLDERS.items()}
CHUNK = 20  # files a test: one takes a few ms
CHUNKS = [
    pytest.param(files[first : first + CHUNK], id=f"{name}-{first}")
    for name, files in FILES.items()
    for first in range(0, len(files), CHUNK)
]
UNRESTS = [
    pytest.param(Unrest(deaths=1.0), id="dies"),
    pytest.param(Unrest(checkpoints=1.0, deaths=1.0), id="dies_after_checkpoints"),
    pytest.param(Unrest(checkpoints=1.0, active_max=1), id="forgets"),
]


def test_there_are_scenarios() -> None:
    assert len(FILES["library"]) > 100
    assert FILES["found"]


@pytest.mark.parametrize("files", CHUNKS)
async def test_scenarios_hold(files: list[Path]) -> None:
    outcomes = [await run_file(file) for file in files]
    assert {one.file: one.failures for one in outcomes if not one.passed} == {}


@pytest.mark.slow
@pytest.mark.parametrize("unrest", UNRESTS)
@pytest.mark.parametrize("files", CHUNKS)
async def test_scenarios_hold_whenever_the_space_is_stopped(files: list[Path], unrest: Unrest) -> None:
    run = partial(run_scenario, opened=restless(unrest))
    differing = {file.name: await run(load(file).scenario) for file in files}
    assert {name: failures for name, failures in differing.items() if failures} == {}


@pytest.mark.parametrize("unrest", UNRESTS)
async def test_what_was_found_stays_mended(unrest: Unrest) -> None:
    run = partial(run_scenario, opened=restless(unrest))
    differing = {file.name: await run(load(file).scenario) for file in FILES["found"]}
    assert {name: failures for name, failures in differing.items() if failures} == {}
