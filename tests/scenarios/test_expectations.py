"""What a scenario expects can fail: each kind of expectation, right and wrong in one thing, on engine and reference."""

import json
from typing import Any

import pytest

from scenarios.format import Scenario, loads
from scenarios.reference_run import run_on_reference
from scenarios.runner import run_scenario

BASE = """
scenario: One thing is wrong
start: 2026-03-01T00:00:00Z
audiences:
  - {{name: Buyers, query: "event('Buy').count() >= 1"}}
  - {{name: Fans, query: "audience('buyers')"}}
traits:
  - {{name: Spent, query: "event('Buy').sum(property('v'))"}}
destinations:
  - {{name: crm, audiences: [buyers]}}
steps:
  - at: +0s
    send:
      - {{type: track, userId: ann, event: Buy, properties: {{v: 5}}}}
      - {{type: identify, userId: ben, traits: {{vip: true, n: 1, tags: [1, true]}}}}
      - {{type: track, event: Buy}}
    expect: {expect}
"""
RIGHT: dict[str, dict[str, Any]] = {
    "members": {"members": {"buyers": ["ann"], "fans": ["ann"]}},
    "traits": {"traits": {"ann": {"spent": 5}, "ben": {"vip": True, "n": 1, "tags": [1, True], "spent": None}}},
    "rejected": {"rejected": 1},
    "refused": {"refused": {"delete": {"audience": "buyers"}, "because": "fans"}},
    "delivered": {
        "delivered": {"crm": [{"event": "Audience Entered", "userId": "ann", "properties": {"buyers": True}}]}
    },
}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"members": {"buyers": []}}, "members.buyers"),
    ({"members": {"buyers": ["ben"]}}, "members.buyers"),
    ({"members": {"buyers": ["ann", "ben"]}}, "members.buyers"),
    ({"members": {"nobody": []}}, "members.nobody"),
    ({"traits": {"ann": {"spent": 6}}}, "traits.ann.spent"),
    ({"traits": {"ann": {"spent": "5"}}}, "traits.ann.spent"),
    ({"traits": {"ann": {"spent": None}}}, "traits.ann.spent"),
    ({"traits": {"ben": {"vip": 1}}}, "traits.ben.vip"),
    ({"traits": {"ben": {"n": True}}}, "traits.ben.n"),
    ({"traits": {"ben": {"tags": [True, 1]}}}, "traits.ben.tags"),
    ({"traits": {"ben": {"tags": [1]}}}, "traits.ben.tags"),
    ({"traits": {"ben": {"spent": 0}}}, "traits.ben.spent"),
    ({"rejected": 0}, "rejected"),
    ({"rejected": 2}, "rejected"),
    ({"refused": {"delete": {"audience": "fans"}}}, "refused"),
]
DELIVERED: list[list[dict[str, Any]]] = [
    [],
    [{"event": "Audience Exited"}],
    [{"event": "Audience Entered", "userId": "ben"}],
    [{"event": "Audience Entered", "properties": {"buyers": False}}],
    [{"event": "Audience Entered", "properties": {"fans": True}}],
    [{"event": "Audience Entered"}, {"event": "Audience Entered"}],
    [{"type": "identify"}],
]


def scenario_of(expect: dict[str, Any]) -> Scenario:
    return loads(BASE.format(expect=json.dumps(expect))).scenario


@pytest.mark.parametrize("kind", RIGHT)
async def test_what_is_so_passes(kind: str) -> None:
    scenario = scenario_of(RIGHT[kind])
    assert await run_scenario(scenario) == []
    assert run_on_reference(scenario) == []


@pytest.mark.parametrize(("expect", "path"), WRONG)
async def test_what_is_not_so_fails_where_it_stands(expect: dict[str, Any], path: str) -> None:
    scenario = scenario_of(expect)
    for failures in (await run_scenario(scenario), run_on_reference(scenario)):
        assert [(one.step, one.path) for one in failures] == [(0, f"steps[0].expect.{path}")]


@pytest.mark.parametrize("calls", DELIVERED)
async def test_a_delivery_that_was_not_made_fails(calls: list[dict[str, Any]]) -> None:
    failures = await run_scenario(scenario_of({"delivered": {"crm": calls}}))
    assert [one.path for one in failures] == ["steps[0].expect.delivered.crm"]


async def test_another_reason_than_the_wanted_one_fails() -> None:  # the reference has no words of its own for it
    failures = await run_scenario(scenario_of({"refused": {"delete": {"audience": "buyers"}, "because": "a cycle"}}))
    assert [one.path for one in failures] == ["steps[0].expect.refused"]
