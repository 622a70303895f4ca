"""`pytest` collects scenario files, and nothing else."""

import sys
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SCENARIO = """
scenario: Ann enters and leaves
start: 2026-03-01T00:00:00Z
audiences:
  - {{name: Buyers, query: "event('Order Completed').within(7 days).count() >= 1"}}
steps:
  - {{at: +0s, send: [{{type: track, userId: ann, event: Order Completed}}]}}
  - {{at: +{day}d, expect: {{members: {{buyers: [ann]}}}}}}
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """Make a repository of a user's own, with scenarios and other files."""
    for name, text in {
        "scenarios/holds.yaml": SCENARIO.format(day=6),
        "scenarios/deep/differs.yaml": SCENARIO.format(day=7),
        "scenarios/compose.yaml": "services: {scenario: 1}\n",
        "elsewhere/holds.yaml": SCENARIO.format(day=6),
    }.items():
        path = pytester.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return pytester


def ran(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_scenarios_are_tests_and_what_differs_is_told(suite: pytest.Pytester) -> None:
    result = ran(suite, "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "scenarios/deep/differs.yaml::differs FAILED*",
            "scenarios/holds.yaml::holds PASSED*",
            "*Ann enters and leaves*",
            "at 2026-03-08T00:00:00.000Z, steps?1?.expect.members.buyers",
            "  expected ?'ann'?",
            "  found    ??",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_option_says_where_scenarios_lie(suite: pytest.Pytester) -> None:
    ran(suite, "-o", "turnout_scenarios=elsewhere scenarios/deep").assert_outcomes(passed=1, failed=1)
    ran(suite, "-o", "turnout_scenarios=").assert_outcomes()


def test_a_file_named_on_the_command_line_is_run_wherever_it_lies(suite: pytest.Pytester) -> None:
    ran(suite, "elsewhere/holds.yaml").assert_outcomes(passed=1)


def test_a_scenario_that_cannot_be_read_fails_and_says_where(suite: pytest.Pytester) -> None:
    (suite.path / "scenarios" / "bad.yaml").write_text("scenario: Bad\nstept: []\n")
    result = ran(suite, "scenarios/bad.yaml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*bad.yaml*stept*"])


def test_the_package_brings_the_plugin_along() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"turnout": "scenarios.pytest_plugin"}


def test_loading_the_plugin_imports_no_engine(pytester: pytest.Pytester) -> None:
    check = (
        "import sys, scenarios.pytest_plugin\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('actors', 'adapters', 'eventlog')])"
    )
    assert pytester.run(sys.executable, "-c", check).outlines == ["[]"]
