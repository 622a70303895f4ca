"""What several definitions ask is asked once, and an event touches only what asks for its name."""

from typing import Any

from actors.conditions.program import USER, Program, Spec
from actors.language import parse
from eventlog.entries import TRACK
from eventlog.messages import EventData

OFTEN = "event('A').within(7 days).count() >= 2"


def compiled(*queries: str) -> Program:
    """Return a program of audiences."""
    program = Program()
    program.set_definitions(
        Spec(number, f"k{number}", "audience", USER, parse(query)) for number, query in enumerate(queries, 1)
    )
    return program


def test_equal_parts_of_definitions_are_one_leaf_with_one_state() -> None:
    program = compiled(OFTEN, f"NOT {OFTEN} AND trait('x') = 1", f"{OFTEN} OR trait('x') = 1")
    assert len(program.by_index) == 2
    assert len(program.asked_by_index) == 1
    assert program.nodes[1].leaves[0] is program.nodes[2].leaves[0] is program.nodes[3].leaves[0]


def test_one_and_true_are_not_one_leaf() -> None:
    assert len(compiled("trait('x') = 1", "trait('x') = true", "trait('x') = '1'").by_index) == 3


def test_an_event_is_given_to_those_alone_that_ask_for_its_name() -> None:
    program = compiled(OFTEN, *(f"event('Other {n}').count() >= 1" for n in range(100)))
    assert program.handler(USER, TRACK, "Unknown") is None
    assert program.names() == {(TRACK, "A"), *((TRACK, f"Other {n}") for n in range(100))}
    of_a, of_other = program.handler(USER, TRACK, "A"), program.handler(USER, TRACK, "Other 7")
    assert of_a is not None
    assert of_other is not None
    assert of_a is not of_other
    states: dict[int, Any] = {}
    of_a.run(states, 5, 1, EventData(), "web", 5)
    assert list(states) == [program.nodes[1].leaves[0].asked[0].index]
