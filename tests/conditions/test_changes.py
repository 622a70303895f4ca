"""A program that was changed, whatever in, is the one that is made of its definitions from scratch.

What is compared is all that others look up: leaves, questions, ranks, who reads what, what an event is given to and
what is looked at after it. Events come between the changes, so that nothing compiled or planned before is used on.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.conditions import handlers
from actors.conditions.program import ACCOUNT, USER, Bounds, Change, Leaf, Node, Program, Scope, Spec
from actors.conditions.readers import SCOPES
from actors.language import parse
from eventlog.entries import PAGE, TRACK
from eventlog.messages import EventData

AUDIENCES = (
    "event('A').count() >= 1",
    "event('A').count() >= 2 AND event('A').count() >= 1",
    "event('A').within(3 days).count() >= 2 OR trait('k1') = true",
    "event().where(property('x') = 1).count() >= 1 AND NOT audience('k2')",
    "page('A').where(context('page.url') = '/').count() >= 1 OR page().count() > 3",
    "trait('k3') > 5 AND trait('k1') != true",
    "audience('k4') OR audience('k3')",
    "audience('k1')",
    "event('A').where(audience('k2')).count() >= 1",
    "event('A').where(event('B').where(property('x') = property(parent: 'x')).within(parent: 1 days).count() >= 1)"
    ".count() >= 1",
)
TRAITS = (
    "event('A').sum(property('x'))",
    "event('A').within(3 days).sum(property('x'))",
    "event().expires_after(2 hours).count()",
    "event('B').where(property('x') >= trait('k4')).last(property('x'))",
    "event('B').where(audience('k1')).count()",
)
OF_ACCOUNTS = (
    "ANY (event('A').count() >= 1)",
    "ANY (event('A').count() >= 1) OR ALL (event('A').count() >= 1)",
    "NONE (audience('k1')) AND event('A').count() >= 2",
    "ALL (trait('k2') = 1 AND event('A').within(3 days).count() >= 1)",
    "audience('k4') AND event('A').within(3 days).count() >= 2",
)
NUMBERS = range(1, 5)


def spec(number: int, query: str, is_trait: bool, scope: Scope, keyed: bool, options: int) -> Spec:
    """Return a definition; its key is its number's."""
    kind: Any = "trait" if is_trait else "audience"
    tree = parse(query, entity_type="ACCOUNTS" if scope == ACCOUNT else "USERS", kind=kind)
    id_types = frozenset({"user_id"}) if options % 2 and scope == USER and not is_trait else None
    bounds = Bounds(after_seq=7) if options == 2 else Bounds()
    return Spec(number, f"k{number}" if keyed else "", kind, scope, tree, bounds, id_types, options != 3)


queries = st.one_of(
    st.tuples(st.sampled_from(AUDIENCES), st.just(False), st.just(USER)),
    st.tuples(st.sampled_from(TRAITS), st.just(True), st.just(USER)),
    st.tuples(st.sampled_from(OF_ACCOUNTS), st.just(False), st.just(ACCOUNT)),
    st.tuples(st.sampled_from(TRAITS[:3]), st.just(True), st.just(ACCOUNT)),
)
changes = st.dictionaries(
    st.sampled_from(NUMBERS),
    st.none() | st.tuples(queries, st.sampled_from((True, True, True, False)), st.integers(0, 3)),
    min_size=1,
    max_size=3,
)
Changes = dict[int, tuple[tuple[str, bool, Scope], bool, int] | None]


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handlers, "PIECE_MAX", 2)
        yield


def is_ordered(specs: dict[int, Spec]) -> bool:
    """Tell whether no definition refers to itself, be it by others: as `Definitions` sees to it."""
    program = Program()
    program.set_definitions(specs.values())
    return all(node.rank <= len(specs) * 2 for node in program.nodes.values()) and not any(
        is_above(program, node, node, set()) for node in program.nodes.values()
    )


def is_above(program: Program, node: Node, wanted: Node, seen: set[int]) -> bool:
    """Tell whether a definition refers to another, be it by others."""
    for below in those_below(program, node):
        if below is wanted:
            return True
        if below.number not in seen:
            seen.add(below.number)
            if is_above(program, below, wanted, seen):
                return True
    return False


def those_below(program: Program, node: Node) -> list[Node]:
    """Return what a definition refers to."""
    keys = [key for leaf in node.leaves for key in (*leaf.traits, *leaf.audiences)]
    for asked in (node.asked, node.present):
        query: Any = asked.query if asked is not None else None
        keys += [path[0] for path in getattr(query, "traits", ())] + list(getattr(query, "audiences", ()))
    return [program.owners[key] for key in keys if key in program.owners] + node.quantified


def plain_rank(program: Program, node: Node) -> int:
    """Return the rank of a definition: one above the highest that it refers to."""
    return max((1 + plain_rank(program, below) for below in those_below(program, node)), default=0)


def seen(program: Program) -> dict[str, Any]:
    """Return all that is looked up in a program, in words that do not depend on what came when."""
    assert program.by_question.keys() == {asked.index for asked in program.asked.values()}
    assert all(program.by_stable[one.stable] is one for one in program.asked.values())
    return {
        "nodes": {node.number: of_node(program, node) for node in program.nodes.values()},
        "leaves": {identity: of_leaf(leaf) for identity, leaf in program.leaves.items()},
        "owners": {key: node.number for key, node in program.owners.items()},
        "questions": {
            identity: (one.scope, one.stable, *readers_of(program, one.index))
            for identity, one in program.asked.items()
        },
        "stable": set(program.by_stable),
        "born": dict(program.born),
        "hidden": {identity: node.number for identity, node in program.hidden.items()},
        "scoped": {scope: names(program.scoped[scope]) for scope in SCOPES},
        "by ids": {node.number for node in program.by_ids},
        "by hidden": {number: names(leaves) for number, leaves in program.by_hidden.items()},
        "by trait": {scope: {k: names(v) for k, v in program.by_trait[scope].items()} for scope in SCOPES},
        "by audience": {scope: {k: names(v) for k, v in program.by_audience[scope].items()} for scope in SCOPES},
        "traits by trait": {
            scope: {k: {node.number for node in v} for k, v in program.traits_by_trait[scope].items()}
            for scope in SCOPES
        },
        "heard": dict(program.heard),
        "events": {scope: {k: of_event(program, scope, *k) for k in program.handlers[scope]} for scope in SCOPES},
        "order": [node.number for node in program.by_rank()],
    }


def names(leaves: Any) -> set[str]:
    """Return the names of leaves."""
    return {leaf.identity for leaf in leaves}


def readers_of(program: Program, question: int) -> tuple[set[str], set[int]]:
    """Return who asks a question."""
    leaves, nodes = program.by_question[question]
    return names(leaves), {node.number for node in nodes}


def of_node(program: Program, node: Node) -> tuple[Any, ...]:
    """Return what is known of a definition, its truth by the leaves that hold."""
    assert node.rank == plain_rank(program, node)
    assert all(program.nodes[hidden.number] is hidden for hidden in node.quantified)
    truths = []
    for some in range(1 << min(len(node.leaves), 4)):
        bits = sum(leaf.mask for place, leaf in enumerate(node.leaves) if some >> place & 1)
        truths.append(node.asked is None and node.truth(bits))
    return (
        node.key,
        node.scope,
        node.rank,
        [leaf.identity for leaf in node.leaves],
        [asked.identity for asked in node.questions()],
        [hidden.number for hidden in node.quantified],
        truths,
    )


def of_leaf(leaf: Leaf) -> tuple[Any, ...]:
    """Return what is known of a leaf."""
    asked = [one.identity for one in leaf.asked]
    hidden = None if leaf.hidden is None else leaf.hidden.number
    users = {node.number for node in leaf.nodes}
    return leaf.scope, leaf.rank, leaf.traits, leaf.audiences, asked, hidden, users, leaf.rising, leaf.timeless


def of_event(program: Program, scope: Scope, kind: int, name: str | None) -> tuple[Any, ...]:
    """Return what an event is given to, and what is looked at after it."""
    handler, asked = program.handlers[scope][kind, name], program.asked_by_index
    found: list[Any] = [handler.looks_inside]
    for x in (None, 1, 3):
        states: dict[int, Any] = {}
        properties = None if x is None else {"x": x}
        matched = handler.run(states, 5, 9, EventData(properties=properties, context={"page": {"url": "/"}}), "web", 5)
        plan = handler.plan(matched)
        found += [
            {asked[index].identity: asked[index].query.dump(state) for index, state in states.items()},
            names(plan.leaves),
            {item.identity if isinstance(item, Leaf) else str(item.number) for item in plan.later},
        ]
    return tuple(found)


def differences(before: dict[str, Any], change: Change, after: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield what a change says of itself, and what it is found to have been."""
    yield "leaves", names(change.leaves), after["leaves"].keys() - before["leaves"].keys()
    yield "leaves gone", names(change.gone_leaves), before["leaves"].keys() - after["leaves"].keys()
    questions = {one.identity for one in change.questions}
    yield "questions", questions, after["questions"].keys() - before["questions"].keys()
    questions = {one.identity for one in change.gone_questions}
    yield "questions gone", questions, before["questions"].keys() - after["questions"].keys()
    gone, came = {node.number for node in change.gone}, {node.number for node in change.came}
    yield "nodes gone", gone - came, before["nodes"].keys() - after["nodes"].keys()
    yield "nodes", came - gone, after["nodes"].keys() - before["nodes"].keys()
    yield "keys", change.moved, before["owners"].keys() ^ after["owners"].keys()
    yield "heard", change.newly_heard, set(after["heard"].values()) - set(before["heard"].values())


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(changes, min_size=3, max_size=10))
def test_a_changed_program_is_the_one_made_from_scratch(given_changes: list[Changes]) -> None:
    check_changes(
        [
            {number: None if one is None else spec(number, *one[0], *one[1:]) for number, one in change.items()}
            for change in given_changes
        ]
    )


def check_changes(given_changes: list[dict[int, Spec | None]]) -> None:
    """Change a program again and again, and hold it each time against one made from scratch."""
    program = Program()
    specs: dict[int, Spec] = {}
    before = seen(program)
    for seq, change in enumerate(given_changes, 1):
        then = {number: one for number, one in {**specs, **change}.items() if one is not None}
        if not is_ordered(then):
            continue
        specs = then
        happened = program.change(change, seq)
        anew = Program()
        anew.born = dict(program.born)
        anew.set_definitions(specs.values(), seq)
        after = seen(program)
        assert after == seen(anew)
        for what, said, found in differences(before, happened, after):
            assert said == found, what
        before = after


def user(number: int, query: str) -> Spec:
    """Return an audience of users."""
    return spec(number, query, False, USER, True, 0)


def account(number: int, query: str) -> Spec:
    """Return an audience of accounts."""
    return spec(number, query, False, ACCOUNT, True, 0)


ONCE, TWICE = "event('A').count() >= 1", "event('A').count() >= 2"
CHANGES: dict[str, list[dict[int, Spec | None]]] = {
    "another leaf asks a question": [{1: user(1, ONCE)}, {2: user(2, TWICE)}, {1: None}, {2: None}],
    "another trait asks a question": [
        {1: spec(1, TRAITS[0], True, USER, True, 0)},
        {2: spec(2, TRAITS[0], True, USER, True, 0)},
        {1: None},
        {3: user(3, "event('A').sum(property('x')) > 2")},
        {2: None},
    ],
    "what one looks at comes to look at others": [
        {1: user(1, ONCE)},
        {2: user(2, "audience('k1')")},
        {3: user(3, "trait('k2') = true AND event('A').count() >= 2")},
        {4: user(4, TWICE)},
        {1: user(1, "audience('k4')")},
        {1: user(1, ONCE)},
        {1: None},
    ],
    "what a condition of users looks at comes to look at others": [
        {1: user(1, ONCE), 2: account(2, "ANY (audience('k1'))"), 3: account(3, "audience('k2')")},
        {4: user(4, TWICE)},
        {1: user(1, "audience('k4')")},
        {1: user(1, ONCE)},
        {1: None},
    ],
    "what a computed trait looks at comes to look at others": [
        {1: user(1, ONCE), 2: spec(2, "event('B').where(audience('k1')).count()", True, USER, True, 0)},
        {3: user(3, "trait('k2') > 1"), 4: user(4, TWICE)},
        {1: user(1, "audience('k4')")},
        {1: user(1, ONCE)},
        {1: None},
    ],
    "a leaf with a question comes to be asked later": [
        {2: user(2, "event('A').where(audience('k1')).count() >= 1")},
        {1: user(1, ONCE)},
        {1: None},
    ],
    "users look at an account's audience": [
        {1: account(1, "ANY (trait('x') = 1)")},
        {2: user(2, "audience('k1')")},
        {3: user(3, "event('A').where(audience('k1')).count() >= 1"), 2: None},
        {4: spec(4, "event('A').where(audience('k1')).count()", True, USER, True, 0), 3: None},
        {4: None},
        {4: user(4, "trait('k1') = true"), 1: None},
        {1: account(1, "ANY (trait('x') = 2)")},
    ],
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_follows_from_a_change_follows(name: str) -> None:
    check_changes(CHANGES[name])


def test_definitions_set_whole_are_changed_one_by_one() -> None:
    specs = [spec(n, AUDIENCES[n], False, USER, True, 0) for n in range(1, 6)]
    program = Program()
    program.set_definitions(specs[:3])
    kept = dict(program.nodes)
    change = program.set_definitions(specs[1:])
    assert [node.number for node in change.gone] == [1]
    assert [node.number for node in change.came] == [4, 5]
    assert all(program.nodes[number] is kept[number] for number in (2, 3))


def test_thousands_listen_to_one_name_in_pieces() -> None:
    """What is compiled for one that comes, or goes, is a piece or two, however many there are."""
    program = Program()
    compiled = 0
    ours = handlers.compiled

    def counted(subscriptions: Any) -> Any:
        nonlocal compiled
        compiled += len(subscriptions)
        return ours(subscriptions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handlers, "PIECE_MAX", 64)
        patch.setattr(handlers, "compiled", counted)
        query = "event('A').where(property('x') = {}).count() >= 1"
        every = {n: spec(n, query.format(n), False, USER, True, 0) for n in range(1, 2001)}
        program.change({**every}, 1)
        assert compiled == 0
        assert given_to(program, 77) == [77]
        assert compiled == 2000
        for number in (500, 2000, 1):
            program.change({number: None}, 2)
            assert given_to(program, number) == []
            program.change({number: every[number]}, 3)
            assert given_to(program, number) == [number]
            assert given_to(program, 1999) == [1999]
        assert compiled <= 2000 + 3 * 2 * 2 * 64


def given_to(program: Program, x: int) -> list[int]:
    """Return the definitions that look at a track call A of this x."""
    handler = program.handler(USER, TRACK, "A")
    assert handler is not None
    states: dict[int, Any] = {}
    plan = handler.plan(handler.run(states, 5, 9, EventData(properties={"x": x}), "web", 5))
    assert len(states) == len(plan.leaves)
    return [node.number for leaf in plan.leaves for node in leaf.nodes]


def test_who_listens_to_any_name_hears_names_that_come_later() -> None:
    program = Program()
    any_page = "page().where(context('page.url') = '/').count() >= 1"
    program.change({1: spec(1, any_page, False, USER, True, 0)}, 1)
    program.change({2: spec(2, "page('A').count() >= 1", False, USER, True, 0)}, 2)
    handler = program.handler(USER, PAGE, "A")
    assert handler is not None
    assert handler.looks_inside
    states: dict[int, Any] = {}
    handler.run(states, 5, 9, EventData(context={"page": {"url": "/"}}), "web", 5)
    assert len(states) == 2
    program.change({1: None}, 3)
    assert not handler.looks_inside
    assert program.handler(USER, PAGE, "B") is None
    states.clear()
    handler.run(states, 5, 9, EventData(context={"page": {"url": "/"}}), "web", 5)
    assert len(states) == 1
