"""Funnels answer from the records they keep, and from what they remember of them, as all of history would."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.language.tree import (
    And,
    Comparison,
    Condition,
    Duration,
    Event,
    Literal,
    Not,
    Or,
    Property,
    Reducer,
    Trait,
    Window,
)
from eventlog.instants import iso
from tests.conditions.kept import Kept
from tests.conditions.plain import Happened, Plain

X, Y, WHEN = Property(("x",)), Property(("y",)), Property(("when",))
PARENT_X, PARENT_Y = Property(("x",), parent=True), Property(("y",), parent=True)
COUNT = Reducer("count")
NAMES = ("A", "B", "C")
VALUES: tuple[Any, ...] = (None, 1, 2, "1", 1.0, "x", True, ["1", "x"], [], {"k": 1})
FROM_NOW = (Window(0, 3), Window(2, 5))
FROM_PARENT = (
    Window(0, 2, parent=True),
    Window(1, 3, parent=True),
    Window(0, 4, parent=True),
    Window(0, 3, parent=True, later=True),
)

counted = st.builds(
    lambda op, bound: (op, (Literal(bound),)),
    st.sampled_from(("at_least", "equals", "less_than", "at_most")),
    st.integers(0, 2),
)


@st.composite
def events(draw: st.DrawFn, depth: int) -> Event:
    """Draw an event chain; nested ones may look at their parent."""
    nested = depth > 0
    windows = draw(st.sampled_from(((), (FROM_NOW[0],), (FROM_NOW[1],))))
    if nested:
        windows += draw(st.sampled_from(((), *((window,) for window in FROM_PARENT))))
    looked_at = (X, Y, PARENT_X) if nested else (X, Y)
    reducer = draw(
        st.just(COUNT)
        | st.builds(Reducer, st.sampled_from(("sum", "max", "first", "last", "mode")), st.sampled_from(looked_at))
    )
    where = draw(st.none() | conditions(depth)) if nested else draw(conditions(depth))
    session = draw(st.sampled_from((None, None, None, 2)))
    name = draw(st.sampled_from(NAMES if nested else NAMES[:1]))
    return Event("track", reducer, name, where=where, windows=windows, expires_after_ms=session)


def conditions(depth: int) -> st.SearchStrategy[Condition]:
    """Draw what may stand in a `where`."""
    leaf = comparisons(depth)
    some = st.lists(leaf, min_size=2, max_size=2).map(tuple)
    return leaf | st.builds(Not, leaf) | st.builds(And, some) | st.builds(Or, some)


def comparisons(depth: int) -> st.SearchStrategy[Comparison]:
    """Draw a comparison within the `where` of an event."""
    equality = st.sampled_from(("equals", "differs", "at_least", "contains"))
    rights: list[Any] = [Literal(1), Literal("x"), Trait(("t",))]
    forms = [
        st.builds(lambda op, right: Comparison(X, op, (right,)), equality, st.sampled_from(rights)),
        st.just(Comparison(Trait(("t",)), "exists")),
        st.builds(
            lambda op, left, ms: Comparison(left, op, (Duration(ms),)),
            st.sampled_from(("within_last", "within_next", "before_last", "after_next")),
            st.sampled_from((WHEN, Property(("when",), parent=True)) if depth else (WHEN,)),
            st.integers(1, 3),
        ),
    ]
    if depth:
        sides = st.sampled_from(((X, PARENT_X), (PARENT_X, X), (X, PARENT_Y), (Y, PARENT_Y)))
        forms.append(st.builds(lambda op, pair: Comparison(pair[0], op, (pair[1],)), equality, sides))
        forms.append(st.builds(lambda pair: Comparison(pair[0], "equals", (pair[1],)), sides))
    if depth < 2:
        inner = st.deferred(lambda: events(depth + 1))
        numbers = inner.filter(lambda event: event.reducer.name in {"count", "sum", "max"})
        nested = st.builds(lambda event, right: Comparison(event, right[0], right[1]), numbers, counted)
        forms += [nested, nested, st.builds(lambda event: Comparison(X, "equals", (event,)), inner)]
    return st.one_of(forms)


funnels = events(0)
calls = st.tuples(
    st.just("call"),
    st.integers(0, 6),
    st.sampled_from(NAMES),
    st.sampled_from(VALUES),
    st.sampled_from(VALUES),
    st.none() | st.integers(0, 9),
)
steps = st.lists(
    calls
    | calls
    | calls
    | st.tuples(st.just("trait"), st.sampled_from(VALUES))
    | st.tuples(st.just("idle"), st.integers(1, 3)),
    max_size=10,
)
often = settings(max_examples=5 * settings().max_examples)


class World:
    """A profile that things happen to, as the engine keeps it and as it all was."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.kept = Kept(event)
        self.happened: list[Happened] = []
        self.now_ms = 0

    def step(self, step: tuple[Any, ...]) -> None:
        """Let one thing happen."""
        if step[0] == "trait":
            self.kept.write_trait("t", step[1])
        elif step[0] == "idle":
            self.now_ms += step[1]
        else:
            self.call(step)

    def call(self, step: tuple[Any, ...]) -> None:
        """Take an event."""
        _, ms, name, x, y, when = step
        given_properties = {"x": x, "y": y, "when": None if when is None else iso(when)}
        properties = {key: value for key, value in given_properties.items() if value is not None}
        one = Happened(ms, len(self.happened) + 1, name, properties)
        self.now_ms = max(self.now_ms, ms)
        self.happened.append(one)
        self.kept.hear(one, self.now_ms)

    def expected(self, at_ms: int) -> Any:
        """Return the answer that all of history gives."""
        written = {key: value[2] for key, value in self.kept.user.traits.items()}
        return Plain(self.happened, at_ms, written).answer(self.event)

    def check(self) -> None:
        """Hold the one against the other."""
        assert self.kept.value(self.now_ms) == self.expected(self.now_ms)


@often
@given(funnels, steps, st.integers(0, 7))
def test_a_funnel_answers_as_all_of_history_would_however_late_events_come(
    event: Event, given_steps: list[tuple[Any, ...]], idle_ms: int
) -> None:
    world = World(event)
    for step in given_steps:
        world.step(step)
        world.check()
    for _ in range(idle_ms):
        world.step(("idle", 1))
        world.check()


@often
@given(funnels, steps)
def test_a_funnel_that_is_only_asked_at_the_end_answers_the_same(
    event: Event, given_steps: list[tuple[Any, ...]]
) -> None:
    world = World(event)
    for step in given_steps:
        world.step(step)
    world.check()


@often
@given(funnels, steps, steps, steps)
def test_funnels_joined_go_on_as_one(
    event: Event, mine: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    one, two = World(event), World(event)
    for step in mine:
        one.step(step)
        one.check()
    two.happened = [Happened(0, seq, "nothing", {}) for seq in range(len(one.happened))]
    for step in theirs:
        if step[0] != "trait":
            two.step(step)
    two.check()
    one.now_ms = two.now_ms = max(one.now_ms, two.now_ms)
    before = two.kept.value(two.now_ms)
    one.kept.join(two.kept, one.now_ms)
    one.happened += [known for known in two.happened if known.name != "nothing"]
    for step in after:
        one.check()
        one.step(step)
    one.check()
    assert two.kept.value(two.now_ms) == before


@often
@given(funnels, steps, steps)
def test_a_funnel_that_was_bytes_for_a_while_goes_on_as_if_nothing_had_been(
    event: Event, before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    world = World(event)
    for step in before:
        world.step(step)
        world.check()
    world.kept.thaw()
    for step in after:
        world.check()
        world.step(step)
    world.check()


@often
@given(funnels, steps)
def test_no_funnel_changes_by_itself_before_it_is_due(event: Event, given_steps: list[tuple[Any, ...]]) -> None:
    world = World(event)
    for step in given_steps:
        world.step(step)
    kept = world.kept
    for _ in range(12):
        value = kept.value(world.now_ms)
        due_ms = kept.due_ms(world.now_ms)
        assert due_ms is None or due_ms > world.now_ms
        for later_ms in range(world.now_ms, 24 if due_ms is None else due_ms):
            assert world.expected(later_ms) == value
        world.step(("idle", 1))


# -- edges -------------------------------------------------------------------------------------------------------------


def followed(*windows: Window, join: bool = False) -> Event:
    """Return how many A were followed by a B within these windows."""
    where = Comparison(X, "equals", (PARENT_X,)) if join else None
    child = Comparison(Event("track", COUNT, "B", where=where, windows=windows), "at_least", (Literal(1),))
    return Event("track", COUNT, "A", where=child)


def call(ms: int, name: str, x: Any = None) -> tuple[Any, ...]:
    return ("call", ms, name, x, None, None)


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize(("child_ms", "counts"), [(0, 1), (3, 1), (4, 0)])
def test_a_nested_event_counts_up_to_and_with_the_end_of_its_window(join: bool, child_ms: int, counts: int) -> None:
    #  A(----------]      window 3: in at 0 (it came after), in at 3, out at 4
    world = World(followed(Window(0, 3, parent=True), join=join))
    world.step(call(0, "A", 1))
    world.check()
    world.step(call(child_ms, "B", 1))
    assert world.kept.value(world.now_ms) == world.expected(world.now_ms) == counts


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize(("child_ms", "counts"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 0)])
def test_between_after_a_parent_is_open_at_its_beginning(join: bool, child_ms: int, counts: int) -> None:
    #  A   (------]       between 1 and 3: out at 1, in at 2, in at 3, out at 4
    world = World(followed(Window(1, 3, parent=True), join=join))
    world.step(call(0, "A", 1))
    world.check()
    world.step(call(child_ms, "B", 1))
    assert world.kept.value(world.now_ms) == world.expected(world.now_ms) == counts


def test_an_event_of_the_same_time_that_came_before_does_not_follow() -> None:
    world = World(followed())
    world.step(call(2, "B"))
    world.step(call(2, "A"))
    world.check()
    assert world.kept.value(2) == 0
    world.step(call(2, "B"))
    assert world.kept.value(2) == 1


def test_a_late_parent_finds_the_nested_event_that_came_long_before_it() -> None:
    world = World(followed(Window(0, 3, parent=True), join=True))
    world.step(call(5, "B", 1))
    world.check()
    world.step(call(3, "A", "1"))  # a numeric text equals the number, and so is joined with it
    assert world.kept.value(5) == world.expected(5) == 1


def test_abandonment_says_yes_only_once_the_nested_window_has_closed_where_the_outer_one_waits_for_it() -> None:
    #  A  (B?---] [--A is looked at--)        nested within 2, outer between 2 and 6
    order = Event("track", COUNT, "B", windows=(Window(0, 2, parent=True),))
    event = Event("track", COUNT, "A", where=Not(Comparison(order, "at_least", (Literal(1),))), windows=(Window(2, 6),))
    world = World(event)
    world.step(call(0, "A"))
    answers = [world.kept.value(at_ms) for at_ms in range(7)]
    assert answers == [0, 0, 1, 1, 1, 1, 0]
    world.step(call(2, "B"))
    assert world.kept.value(2) == 0


def test_records_of_a_funnel_that_can_no_longer_count_are_dropped() -> None:
    child = Comparison(Event("track", COUNT, "B", windows=(Window(0, 3, parent=True),)), "at_least", (Literal(1),))
    world = World(Event("track", COUNT, "A", where=child, windows=(Window(0, 10),)))
    for ms in range(500):
        world.step(call(ms, "A" if ms % 2 else "B"))
        assert world.kept.value(ms) == min((ms + 1) // 2, 5) - (ms % 2)
    assert sum(map(len, world.kept.state.streams)) <= 16


def test_a_nested_session_is_the_latest_run_that_follows_its_parent() -> None:
    #  A  B-B--) B-B-B--)      gap 3 after A at 0: the run of 1 and 2, over at 5; that of 7, 8 and 9, over at 12
    session = Event("track", COUNT, "B", expires_after_ms=3)
    world = World(Event("track", COUNT, "A", where=Comparison(session, "at_least", (Literal(2),))))
    for ms, name in ((0, "A"), (1, "B"), (2, "B")):
        world.step(call(ms, name))
    assert [world.kept.value(at_ms) for at_ms in (2, 4, 5)] == [1, 1, 0]
    assert world.kept.due_ms(4) == 5
    world.step(call(7, "B"))
    assert world.kept.value(7) == 0
    world.step(call(8, "B"))
    assert [world.kept.value(at_ms) for at_ms in (8, 10, 11)] == [1, 1, 0]


# -- busy profiles -----------------------------------------------------------------------------------------------------

MANY = 400


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("order", ["one instant", "in turn", "backwards"])
def test_a_nested_event_asks_only_the_outer_ones_that_it_may_tip(join: bool, order: str) -> None:
    world = World(followed(Window(0, MANY, parent=True), join=join))
    given_steps = {
        "one instant": [call(0, "A", "p")] * MANY + [call(0, "B", "p")] * MANY,
        "in turn": [call(ms, "AB"[ms % 2], "p") for ms in range(2 * MANY)],
        "backwards": [call(ms, "A", "p") for ms in range(MANY)] + [call(MANY - ms, "B", "p") for ms in range(MANY)],
    }[order]
    asked = 0
    for step in given_steps:
        world.step(step)
        asked += sum(map(len, world.kept.state.pending)) if world.kept.state is not None else 0
        world.kept.value(world.now_ms)
    world.check()
    assert asked <= 3 * MANY  # each when it came, and when it was followed; not once for every B


def often_enough(name: str, op: str, bound: int, where: Condition | None = None, *windows: Window) -> Comparison:
    """Return a comparison of how often a nested event came."""
    return Comparison(Event("track", COUNT, name, where=where, windows=windows), op, (Literal(bound),))


FEW = 60  # all of history takes each with each
CHEAP = {
    "three in a row": often_enough("B", "at_least", 1, often_enough("C", "at_least", 1)),
    "three in a row, the last twice": often_enough("B", "at_least", 1, often_enough("C", "at_least", 2)),
    "dearer": often_enough("B", "at_least", 1, Comparison(X, "greater_than", (PARENT_X,))),
    "another": often_enough("B", "at_least", 1, Comparison(X, "differs", (PARENT_X,))),
    "two others": often_enough("B", "at_least", 2, Comparison(X, "differs", (PARENT_X,))),
    "lately": often_enough("B", "at_least", 1, None, Window(0, 3 * FEW)),
}


@pytest.mark.parametrize("where", [pytest.param(where, id=name) for name, where in CHEAP.items()])
@pytest.mark.parametrize("order", ["in turn", "nested first"])
def test_further_nested_events_do_not_ask_those_again_that_pass_already(where: Condition, order: str) -> None:
    world = World(Event("track", COUNT, "A", where=where))
    names = "ABC" * FEW if order == "in turn" else "C" * FEW + "B" * FEW + "A" * FEW
    asked = 0
    for ms, name in enumerate(names):
        world.step(call(ms if order == "in turn" else 3 * FEW - ms, name, ms % 5))
        asked += sum(map(len, world.kept.state.pending)) if world.kept.state is not None else 0
        assert world.kept.state is None or not world.kept.state.dirty
        world.kept.value(world.now_ms)
    assert world.kept.value(world.now_ms) == world.expected(world.now_ms) > FEW / 2
    assert asked <= 12 * FEW


@pytest.mark.parametrize("op", ["at_least", "greater_than", "less_than", "at_most", "equals", "differs"])
@pytest.mark.parametrize("bound", [0, 1, 3])
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from("AB"), st.sampled_from((1, "1", "1.0", ["x", 1]))), max_size=25
    )
)
def test_tipping_agrees_with_all_of_history_where_many_are_joined(
    op: str, bound: int, given_calls: list[tuple[int, str, Any]]
) -> None:
    for sides in ((X, PARENT_X), (PARENT_X, X)):
        for windows in ((), (FROM_PARENT[1],), (FROM_PARENT[2],)):
            nested = Event("track", COUNT, "B", where=Comparison(sides[0], "equals", (sides[1],)), windows=windows)
            world = World(Event("track", COUNT, "A", where=Comparison(nested, op, (Literal(bound),))))
            for ms, name, x in given_calls:
                world.step(call(ms, name, x))
                world.check()


@given(st.permutations([(ms, name) for ms in range(6) for name in "AB"]), st.integers(0, 12))
def test_a_funnel_that_keeps_only_the_newest_answers_the_same_in_any_order(
    order: list[tuple[int, str]], apart: int
) -> None:
    nested = Event("track", COUNT, "B", where=Comparison(X, "at_least", (PARENT_X,)))
    event = Event("track", COUNT, "A", where=Comparison(nested, "at_least", (Literal(2),)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.conditions.funnels.PAIRS_MAX", 4)
        one, two = World(event), World(event)
        one.now_ms = two.now_ms = 6
        two.happened = [Happened(0, seq, "nothing", {}) for seq in range(apart)]
        for place, (ms, name) in enumerate(order):
            (one if place < apart else two).step(call(ms, name, ms % 3))
            (one if place < apart else two).kept.value(6)
        for part in (one, two):
            for stream in part.kept.state.streams if part.kept.state is not None else ():
                assert len(stream) <= 4
        one.kept.join(two.kept, 6)
        newest = World(event)
        newest.now_ms = 6
        for ms, name in order:
            if ms >= 2:
                newest.step(call(ms, name, ms % 3))
        assert one.kept.value(6) == newest.expected(6)
