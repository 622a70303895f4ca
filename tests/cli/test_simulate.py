"""`turnout simulate`: what differs is told, and the exit status says so."""

import json
from pathlib import Path

from scenarios.format import json_schema
from tests.cli.conftest import Turnout

SCENARIO = """
scenario: Ann enters and leaves
start: 2026-03-01T00:00:00Z
audiences:
  - {{name: Buyers, query: "event('Order Completed').within(7 days).count() >= 1"}}
steps:
  - {{at: +0s, send: [{{type: track, userId: ann, event: Order Completed}}]}}
  - {{at: +{day}d, expect: {{members: {{buyers: [ann]}}}}}}
"""


def test_a_scenario_that_holds_passes_and_one_that_does_not_is_told_step_by_step(
    turnout: Turnout, tmp_path: Path
) -> None:
    holds, differs = tmp_path / "holds.yaml", tmp_path / "differs.yaml"
    holds.write_text(SCENARIO.format(day=6))
    differs.write_text(SCENARIO.format(day=7))
    ran = turnout("simulate", holds)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("1 passed, 0 failed in ")
    ran = turnout("simulate", tmp_path, "--jobs", 1)
    assert ran.status == 1
    assert "differs Ann enters and leaves" in ran.out
    assert 'expected ["ann"]\n    found    []' in ran.out
    assert "1 passed, 1 failed in " in ran.out


def test_the_report_has_the_shape_of_the_contract(turnout: Turnout, tmp_path: Path) -> None:
    file = tmp_path / "differs.yaml"
    file.write_text(SCENARIO.format(day=7))
    ran = turnout("simulate", file, "--report", "json")
    assert ran.status == 1
    assert json.loads(ran.out) == {
        "scenarios": [
            {
                "file": str(file),
                "scenario": "Ann enters and leaves",
                "passed": False,
                "failures": [
                    {
                        "step": 1,
                        "at": "2026-03-08T00:00:00.000Z",
                        "expected": ["ann"],
                        "actual": [],
                        "path": "steps[1].expect.members.buyers",
                    }
                ],
            }
        ]
    }


def test_nothing_to_run_fails_and_a_path_that_is_not_there_is_misuse(turnout: Turnout, tmp_path: Path) -> None:
    assert turnout("simulate", tmp_path).status == 1
    assert turnout("simulate", tmp_path / "nowhere").status == 2
    (tmp_path / "bad.yaml").write_text("scenario: [")
    ran = turnout("simulate", tmp_path)
    assert ran.status == 1
    assert "bad.yaml" in ran.out


def test_the_schema_for_editors_is_written_where_the_package_is_installed(turnout: Turnout) -> None:
    ran = turnout("simulate", "--schema")
    assert (ran.status, ran.out.encode()) == (0, json_schema())
    assert turnout("simulate").status == 2
