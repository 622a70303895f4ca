"""Warnings: of what is surely a mistake, and of nothing else."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.language import lint, parse
from actors.language.reach import reach_of
from actors.language.tree import Event, Reducer, Window


@pytest.mark.parametrize(
    ("text", "part"),
    [
        # windows
        ("event('A').between(90 days, 30 days).count() >= 1", "write between(30 days, 90 days)"),
        ("event('A').between(7 days, 7 days).count() >= 1", "is empty"),
        ("event('A').within(0 days).count() >= 1", "is empty"),
        ("event('A').within(7 days).between(30 days, 90 days).count() >= 1", "all of its windows"),
        ("event('A').since(2026-02-01).until(2026-01-01).count() >= 1", "since is not before until"),
        ("event('A').since(2026-01-01).until(2026-01-01).count() >= 1", "since is not before until"),
        # a window inside a window
        (
            "event('A').where(event('B').between(60 days, 90 days).count() >= 1).within(7 days).count() >= 1",
            "event('B') inside event('A'): no event can lie",
        ),
        (
            "event('A').where(event('B').within(parent: 1 day).within(1 day).count() >= 1)"
            ".between(30 days, 60 days).count() >= 1",
            "event('B') inside event('A')",
        ),
        (
            "event('A').where(event('B').between(parent: 10 days, 20 days).count() >= 1).within(7 days).count() >= 1",
            "event('B') inside event('A')",
        ),
        (
            "event('A').where(event('B').until(2026-01-01).count() >= 1).since(2026-01-01).count() >= 1",
            "event('B') inside event('A')",
        ),
        (
            "event('A').where(event('B').between(parent: 3 days, 1 day).count() >= 1).count() >= 1",
            "write between(parent: 1 day, 3 days)",
        ),
        (
            "event('A').where(event('B').within(parent: 1 day).between(parent: 2 days, 3 days).count() >= 1)"
            ".count() >= 1",
            "event('B'): no event can lie in all of its windows",
        ),
        ("event('A').where(event('B').within(parent: 0 days).count() >= 1).count() >= 1", "the same millisecond"),
        ("event('A').where(event('B').between(parent: 0 days, 0 days).count() >= 1).count() >= 1", "is empty"),
        (
            "event('A').where(event('B').between(parent: 1 day, 0 days).count() >= 1).count() >= 1",
            "write between(parent: 0 days, 1 day)",
        ),
        # comparisons
        ("trait('x') < 5 AND trait('x') > 5", "cannot be in both"),
        ("event('A').count() < 0", "is never true: a count is at least 0"),
        ("event('A').count() <= -1", "is never true"),
        ("event('A').count() >= 0", "is always true"),
        ("event('A').count() > -1", "is always true"),
        ("event('A').count() = 1.5", "is never true: a count is a whole number"),
        ("event('A').unique(property('x')).count() != -3", "is always true"),
        ("event('A').count() = 'many'", "is never true: a count is a number"),
        ("event('A').sum(property('x')) = true", "is never true: a sum is a number"),
        ("event('A').sum(property('x')) != 'much'", "is always true"),
        ("event('A').count().absent()", "is never true: a count of nothing is 0"),
        ("event('A').sum(property('x')).exists()", "is always true"),
        ("literal(5) > 3", "the same for everyone"),
        ("trait('x') = trait('x')", "with itself"),
        ("trait('x') > true", "is never true"),
        ("trait('x') > '10'", "leave the quotes out"),
        ("trait('x').contains('')", "empty text"),
        ("event('A').count().contains('1')", "digits"),
        ("trait('x').one_of('a', 'b', 'a')", "twice"),
        ("trait('x').within_last(0 days)", "single millisecond"),
        # junctions
        ("audience('k') AND audience('l') AND audience('k')", "stands twice in one AND"),
        ("audience('k') AND NOT audience('k')", "AND its own negation is never true"),
        ("NOT audience('k') OR audience('k')", "OR its own negation is always true"),
        ("event('A').count() > 5 AND event('A').count() <= 5", "both of the ranges"),
        ("event('A').count() = 5 AND event('A').count() = 6", "both of the ranges"),
        ("trait('age') < 20 AND trait('age') > 50", "unless it is an array"),
        ("trait('x') != 'a' OR trait('x') != 'b'", ".none_of(…)"),
    ],
)
def test_a_sure_mistake_is_warned_of_once_wherever_it_stands(text: str, part: str) -> None:
    warnings = lint(parse(text))
    assert len(warnings) == 1
    assert part in warnings[0]
    assert lint(parse(f"event('Z').where(NOT ({text})).count() >= 1")) == warnings
    assert lint(parse(f"ANY ({text})", entity_type="ACCOUNTS")) == warnings


@pytest.mark.parametrize(
    "text",
    [
        "event('A').between(30 days, 90 days).count() >= 1",
        "event('A').between(0 days, 90 days).count() >= 1",
        "event('A').within(31 days).between(30 days, 90 days).count() >= 1",
        "event('A').since(2026-01-01).until(2026-02-01).count() >= 1",
        "event('A').where(NOT event('B').within(parent: 1 day).count() >= 1).between(1 day, 7 days).count() >= 1",
        "event('A').where(event('B').between(parent: 6 days, 20 days).count() >= 1).within(7 days).count() >= 1",
        "event('A').where(event('B').within(7 days).count() >= 1).between(30 days, 60 days).count() >= 1",
        "event('A').where(event('B').until(2026-01-02).count() >= 1).since(2026-01-01).count() >= 1",
        "event('A').count() = 0",
        "event('A').count() < 1",
        "event('A').count() <= 0",
        "event('A').count() != 0",
        "event('A').count() > 0",
        "event('A').count() = '5'",
        "event('A').sum(property('x')) < 0",
        "event('A').max(property('x')).exists()",
        "event('A').count() > 5 AND event('A').count() < 7",
        "event('A').count() >= 5 AND event('A').count() <= 5",
        "event('A').count() > 5 AND event('B').count() < 3",
        "event('A').count() > 5 OR event('A').count() < 3",
        "trait('tags') = 'a' AND trait('tags') = 'b'",
        "trait('x') = 1 OR trait('x') = true",
        "trait('x').one_of(1, true, '1')",
        "trait('x') != 'a' AND trait('x') != 'b'",
        "trait('x') != 'a' OR trait('y') != 'b'",
        "trait('x') > '2026-01-01'",
        "trait('x') > trait('y')",
        "event('A').count() > event('B').count()",
        "trait('x').before_last(0 days)",
    ],
)
def test_what_can_be_meant_is_not_warned_of(text: str) -> None:
    assert lint(parse(text)) == []


def test_a_computed_trait_is_looked_over_too() -> None:
    assert "ends at once" in lint(parse("event('A').expires_after(0 days).count()", kind="trait"))[0]
    assert lint(parse("event('A').between(2 days, 1 day).count()", kind="trait")) == [
        "`between(2 days, 1 day)` has its ends swapped and holds no event: write between(1 day, 2 days)"
    ]


_WINDOWS = st.builds(Window, st.integers(0, 4), st.integers(0, 5))
_NESTED = st.builds(Window, st.integers(0, 4), st.integers(0, 5), st.booleans())
_BOUND = st.none() | st.integers(0, 6)


def _event(windows: list[Window], since_ms: int | None, until_ms: int | None) -> Event:
    return Event("track", Reducer("count"), "A", windows=tuple(windows), since_ms=since_ms, until_ms=until_ms)


def _holds(event: Event, now_ms: int, event_ms: int, parent_ms: int) -> bool:
    """Say it as the contract does."""
    if event_ms > now_ms:
        return False
    for window in event.windows:
        low_ms, high_ms = now_ms - window.before_ms, now_ms - window.after_ms
        if window.parent:
            low_ms, high_ms = parent_ms + window.after_ms, parent_ms + window.before_ms
            if window.after_ms == 0:  # within(parent: d) takes the parent's own time too: order is by sequence then
                low_ms -= 1
        if not low_ms < event_ms <= high_ms:
            return False
    return (event.since_ms is None or event_ms >= event.since_ms) and (
        event.until_ms is None or event_ms < event.until_ms
    )


@settings(max_examples=200, deadline=None)
@given(
    st.builds(_event, st.lists(_WINDOWS, max_size=2), _BOUND, _BOUND),
    st.builds(_event, st.lists(_NESTED, max_size=2), _BOUND, _BOUND),
)
def test_no_event_ever_lies_in_an_empty_reach(parent: Event, child: Event) -> None:
    outer = reach_of(parent)
    inner = reach_of(child, outer)
    parents = [(now_ms, ms) for now_ms, ms in product(range(8), range(-6, 8)) if _holds(parent, now_ms, ms, 0)]
    children = [
        (now_ms, ms)
        for now_ms, parent_ms in parents
        for ms in range(parent_ms, 8)
        if _holds(child, now_ms, ms, parent_ms)
    ]
    assert not (outer.is_empty and parents)
    assert not (inner.is_empty and children)
