"""Every scenario of the library is documentation that is true, by the reference evaluator alone."""

from pathlib import Path

import pytest

from scenarios.format import load
from scenarios.reference_run import run_on_reference

REPOSITORY = Path(__file__).parents[2]
LIBRARY = sorted((REPOSITORY / "scenarios" / "library").glob("*.yaml"))
FOUND = sorted((REPOSITORY / "scenarios" / "found").glob("*.yaml"))
SHARED = sorted((REPOSITORY.parent / "shared" / "scenarios").glob("*.yaml"))


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", [*LIBRARY, *FOUND, *SHARED], ids=name_of)
def test_the_reference_agrees_with_every_expectation(path: Path) -> None:
    assert run_on_reference(load(path).scenario) == []


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_scenario_says_in_its_first_lines_what_it_is_about(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line for line in lines if line.startswith("# ")]
    assert lines[0] in comment, "begins with a comment that says the rule"
    assert any(line.startswith("scenario: ") for line in lines[: len(comment) + 4])
    assert max(map(len, lines)) <= 200


def test_no_two_scenarios_have_one_title() -> None:
    titles = [load(path).scenario.scenario for path in LIBRARY]
    assert sorted(titles) == sorted(set(titles))


def test_the_library_expects_something_in_every_scenario() -> None:
    without = [path.stem for path in LIBRARY if not any(step.expect != () for step in load(path).scenario.steps)]
    assert without == []
