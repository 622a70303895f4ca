"""What timers announce, previews and explanations are as the reference evaluator says, on random worlds.

The seeds are fixed, so that a failure is the change's.
"""

import pytest

from actors.deciding import Deciding
from actors.entities import Entity
from scenarios.format import loads
from scenarios.lockstep import difference_in, difference_of

CHUNK = 10

LATE_EXIT = """
scenario: A window closes while nothing happens
start: 2026-03-01T00:00:00Z
audiences:
  - {name: Buyers, query: "event('Buy').within(1 day).count() >= 1"}
steps:
  - {at: +0s, send: [{type: track, userId: ann, event: Buy}]}
  - {at: +3d, expect: {}}
"""


@pytest.mark.parametrize("first", range(0, 60, CHUNK))
def test_dates_previews_and_explanations_are_as_the_reference_says(first: int) -> None:
    found = {seed: difference_in(seed) for seed in range(first, first + CHUNK)}
    assert {seed: text for seed, text in found.items() if text is not None} == {}


def test_an_exit_that_is_dated_a_millisecond_late_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = loads(LATE_EXIT).scenario
    assert difference_of(scenario) is None
    due = Deciding._due

    def late(deciding: Deciding, entity: Entity, key: int, due_ms: int | None) -> None:
        due(deciding, entity, key, None if due_ms is None else due_ms + 1)

    monkeypatch.setattr(Deciding, "_due", late)
    assert "buyers of ann changes at 2026-03-02T00:00:00.001Z" in str(difference_of(scenario))
