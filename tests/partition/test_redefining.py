"""Definitions come and go among people in memory: each holds what it would hold if it had been loaded after all that.

An entity hears of a change only what came and went; here it is held against one whose leaves are all asked anew.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import deciding
from actors.conditions.program import ACCOUNT, USER
from tests.partition.stage import Stage, accounts, audience, spec_of, trait
from tests.partition.test_agrees import ALWAYS, POOL, perform, steps

BY_KEY = {one.key: one for one in POOL}
MORE = (
    accounts("b2", "ANY (trait('t') = 'a')"),
    audience("twice", "event('A').count() >= 2 AND event('A').count() >= 1"),
    audience("no_a", "NOT event('A').within(3 seconds).count() >= 1 AND trait('twice') = false"),
    audience("dated", "NOT trait('t').within_last(2 seconds) OR event('B').count() < 2"),
    trait("first_x", "event('A').first(property('x'))"),
    trait("lately_b", "event('B').within(2 seconds).count()"),
)
DEFINED = (*POOL, *MORE)
turns = st.lists(
    st.tuples(st.just("define"), st.sampled_from(range(len(DEFINED))))
    | st.tuples(st.just("delete"), st.integers(0, 7))
    | steps.map(lambda some: ("steps", some[:3])),
    min_size=4,
    max_size=16,
)


def check_entities(stage: Stage) -> None:
    """Hold everybody in memory against what they would be asked anew."""
    partition = stage.partition
    program = partition.program
    leaves = {leaf.index for leaf in program.leaves.values()}
    questions = {asked.index for asked in program.asked.values()}
    for entity in partition.entities.values():
        mine = program.scoped[ACCOUNT if entity.is_account else USER]
        held = {leaf.identity for leaf in mine if entity.bits & leaf.mask}
        assert held == {leaf.identity for leaf in mine if leaf.holds(entity, partition.now_ms)}
        assert {*entity.s, *entity.a} <= questions
        assert {key for key in entity.dues if key >= 0} <= leaves
        assert {-key for key in entity.dues if key < 0} <= program.nodes.keys()
        assert entity.inside <= {*program.nodes, *partition.members}


def check_hidden(stage: Stage) -> None:
    """Hold what accounts count of their users against what holds of these."""
    for entity in stage.partition.entities.values():
        for node in stage.partition.program.nodes.values():
            if node.hidden and not entity.is_account:
                assert node.truth(entity.bits) is (node.number in entity.inside)


def check_blank(stage: Stage) -> None:
    """Hold what is known of those of whom nothing is known against the same, made anew."""
    partition = stage.partition
    for is_account, blank in partition._blanks.items():
        anew = partition._new_blank(is_account)
        if blank.version == partition.program.version:
            assert blank.bits == anew.bits
            assert blank.asks.keys() == anew.asks.keys()


@pytest.fixture(autouse=True, scope="module")
def _many_leaves() -> Iterator[None]:
    """Let few leaves count as many: then a loaded entity is asked those alone that it knows something of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deciding, "LEAVES_FEW", 0)
        yield


def check_loaded(stage: Stage) -> None:
    """Hold what somebody loaded is asked against all that could be asked."""
    partition = stage.partition
    program = partition.program
    for entity in partition.entities.values():
        before = (entity.bits, dict(entity.dues), entity.due_ms)
        partition.refresh_bits(entity)
        mine = program.scoped[ACCOUNT if entity.is_account else USER]
        dues: dict[int, int | None] = {}
        for leaf in mine:
            assert leaf.holds(entity, partition.now_ms) is bool(entity.bits & leaf.mask)
            if leaf.due is not None:
                dues[leaf.index] = leaf.due(entity, partition.now_ms)
        for node in program.nodes.values():
            if node.asked is not None and (node.scope == ACCOUNT) == entity.is_account:
                dues[-node.number] = partition._trait_due_ms(entity, node)
        assert entity.dues == {key: due for key, due in dues.items() if due is not None}
        entity.bits, entity.dues, entity.due_ms = before


@settings(max_examples=3 * settings().max_examples)
@given(turns)
async def test_whoever_is_in_memory_knows_the_definitions_of_now(given_turns: list[Any]) -> None:
    stage = Stage()
    defined: list[str] = []
    for turn in given_turns:
        match turn:
            case ("define", place) if DEFINED[place].key not in stage.keys.values():
                stage.define(DEFINED[place])
                defined.append(DEFINED[place].key)
                check_entities(stage)
                check_blank(stage)
                node = stage.partition.program.nodes[stage.number_of(DEFINED[place].key)]
                for entity in list(stage.partition.entities.values()):
                    stage.partition.ask(entity, node)
                stage.partition.settle()
            case ("delete", place) if place < len(defined):
                stage.delete(defined.pop(place))
            case ("steps", some):
                for step in some:
                    perform(stage, step)
        check_entities(stage)
        check_blank(stage)
        check_hidden(stage)
        check_loaded(stage)
        stage.recount()


def test_a_new_leaf_of_an_old_question_is_asked_of_whoever_has_states_of_it() -> None:
    stage = Stage(audience("once", "event('A').count() >= 1"))
    stage.track("ann", "A")
    stage.track("ann", "A")
    stage.track("bob", "A")
    stage.define(audience("twice", "event('A').count() >= 2"))
    check_entities(stage)
    assert stage.track("bob", "A") == [("+twice", "bob", 0)]


def test_a_new_leaf_about_an_audience_is_asked_of_its_members() -> None:
    stage = Stage(audience("once", "event('A').count() >= 1"))
    stage.track("ann", "A")
    stage.track("bob", "B")
    stage.define(audience("both", "audience('once') AND event('B').count() >= 1"))
    check_entities(stage)
    assert stage.track("ann", "B") == [("+both", "ann", 0)]


def test_whoever_looks_at_a_key_is_asked_when_it_changes_hands() -> None:
    stage = Stage(audience("looks", "trait('once') = 'yes'"))
    assert stage.identify("ann", once="yes") == [("+looks", "ann", 0)]
    assert stage.define(audience("once", "event('A').count() >= 1")) == [("-looks", "ann", 0)]
    check_entities(stage)


def test_users_hear_of_what_their_account_is_in_once_they_look_at_it() -> None:
    stage = Stage(accounts("busy", "ANY (event('A').count() >= 1)"))
    stage.group("ann", "ACME")
    stage.track("ann", "A")
    stage.define(audience("at_busy", "audience('busy') AND event('B').count() >= 1"))
    check_entities(stage)
    assert stage.track("ann", "B") == [("+at_busy", "ann", 0)]


def test_a_newcomer_is_in_what_holds_of_those_of_whom_nothing_is_known_whenever_it_was_defined() -> None:
    stage = Stage(audience("no_a", "event('A').count() = 0"))
    assert stage.track("ann", "B") == [("+no_a", "ann", 0)]
    stage.define(audience("no_c", "event('C').count() = 0", known_only=True))
    assert sorted(stage.track("bob", "B")) == [("+no_a", "bob", 0), ("+no_c", "bob", 0)]
    stage.delete("no_a")
    assert stage.track("anon1", "B") == []
    check_blank(stage)


def test_a_leaf_that_is_gone_wakes_nobody_though_its_question_is_still_asked() -> None:
    often, seldom = (f"event('A').within(3 seconds).count() {than} 2" for than in (">=", "<"))
    stage = Stage(audience("often", often), audience("seldom", seldom))
    stage.track("ann", "A")
    stage.track("ann", "A")
    stage.delete("seldom")
    check_entities(stage)


def test_states_of_a_computed_trait_that_asks_something_else_now_are_forgotten() -> None:
    stage = Stage(trait("x", "event('A').sum(property('x'))"))
    stage.track("ann", "A", x=3)
    stage.specs[1] = spec_of(1, trait("x", "event('A').max(property('x'))"))
    stage._set_definitions()
    check_entities(stage)


def test_what_the_clock_changes_of_itself_is_asked_of_newcomers_as_long_as_it_is_defined() -> None:
    stage = Stage(audience("early", "literal('1970-01-01T00:00:02Z').within_last(5 seconds)"))
    stage.wait(3)
    assert stage.track("ann", "B") == [("+early", "ann", 3)]
    stage.define(audience("late", "literal('1970-01-01T00:00:02Z').within_last(9 seconds)"))
    check_blank(stage)
    assert sorted(stage.track("bob", "B")) == [("+early", "bob", 3), ("+late", "bob", 3)]
    stage.delete("early")
    check_blank(stage)
    assert stage.track("cyd", "B") == [("+late", "cyd", 3)]


@settings(max_examples=2 * settings().max_examples)
@given(st.sets(st.sampled_from(sorted({one.key for one in POOL} - ALWAYS)), min_size=1, max_size=6), steps)
async def test_among_many_leaves_live_membership_is_what_hindsight_says(keys: set[str], given_steps: list[Any]) -> None:
    stage = Stage(*(one for one in POOL if one.key in keys | ALWAYS))
    for step in given_steps:
        perform(stage, step)
        await stage.check()
        check_entities(stage)
        check_loaded(stage)
