"""What several definitions ask is asked once, and an event touches only what asks for its name."""

from typing import Any

from actors.conditions.handlers import Handler
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


def test_there_may_be_more_leaves_than_python_writes_digits() -> None:
    """The mask of the 14,285th has 4,301 of them, and no profile's bits may cost a space its definitions."""
    queries = [f"trait('x') = {n}" for n in range(14_300)]
    program = compiled(*queries)
    last = program.nodes[len(queries)]
    assert last.truth(last.leaves[0].mask)
    assert not last.truth(last.leaves[0].mask - 1)


def test_a_handler_is_made_anew_only_where_other_questions_listen() -> None:
    program = Program()
    audiences = [f"event('{name}').count() >= {n}" for n, name in enumerate("AAB", 1)]
    specs = [Spec(n, f"k{n}", "audience", USER, parse(query)) for n, query in enumerate(audiences, 1)]
    program.set_definitions(specs[:2])
    assert program.handler(USER, TRACK, "B") is None
    heard(program, "A")
    run = handler_of(program, "A").run
    program.set_definitions(specs)
    assert heard(program, "A") == heard(program, "B") == ["1"]
    assert handler_of(program, "A").run is run
    program.set_definitions([specs[0], Spec(4, "k4", "audience", USER, parse("event('A').sum(property('x')) > 1"))])
    assert handler_of(program, "A").run is not run
    assert heard(program, "A") == ["1", "[2, 0, 1]"]
    assert program.handler(USER, TRACK, "B") is None


def handler_of(program: Program, name: str) -> Handler:
    """Return what the track calls of a name are given to."""
    found = program.handler(USER, TRACK, name)
    assert found is not None
    return found


def heard(program: Program, name: str) -> list[str]:
    """Return the states that a track call leaves."""
    states: dict[int, Any] = {}
    handler_of(program, name).run(states, 1, 1, EventData(properties={"x": 2}), "s", 1)
    return sorted(map(str, states.values()))
