"""The engine and the reference evaluator, written apart, give the same answers on random worlds, restarted or not.

The seeds are fixed, so that a failure is the change's; `python -m scenarios.differential` draws others.
"""

import pytest

from scenarios.differential import UNRESTS, differing

CHUNK = 20
CHUNK_RESTLESS = 8


@pytest.mark.parametrize("first", range(1, 201, CHUNK))
def test_the_engine_answers_as_the_reference_does(first: int) -> None:
    assert differing(range(first, first + CHUNK)) == {}


@pytest.mark.parametrize("how", [how for how in UNRESTS if how != "none"])
def test_no_answer_depends_on_when_a_space_is_stopped_and_on_what_is_in_memory(how: str) -> None:
    assert differing(range(1001, 1001 + CHUNK_RESTLESS), UNRESTS[how]) == {}
