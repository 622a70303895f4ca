"""The JSON form is held to the rules of text; what is wrong is named by its path."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.language import EntityType, Kind, from_json, parse, print_query, to_json
from actors.language.json_form import CODE
from actors.language.tree import Audience, Definition
from eventlog.errors import InvalidError
from tests.language.strategies import definitions

FUNNEL = (
    "event('A').where(event('B').within(parent: 1 day).count() >= 1).within(7 days).sum(property('x')) >= 1.5 "
    "AND NOT trait('a.b').within_last(7 days)"
)
FORM: dict[str, Any] = {
    "type": "and",
    "of": [
        {
            "type": "comparison",
            "left": {
                "type": "event",
                "call": "track",
                "name": "A",
                "where": {
                    "type": "comparison",
                    "left": {
                        "type": "event",
                        "call": "track",
                        "name": "B",
                        "windows": [{"type": "window", "after_ms": 0, "before_ms": 86_400_000, "parent": True}],
                        "reducer": {"type": "reducer", "name": "count"},
                    },
                    "op": "at_least",
                    "right": [{"type": "literal", "value": 1}],
                },
                "windows": [{"type": "window", "after_ms": 0, "before_ms": 604_800_000}],
                "reducer": {"type": "reducer", "name": "sum", "of": {"type": "property", "path": ["x"]}},
            },
            "op": "at_least",
            "right": [{"type": "literal", "value": 1.5}],
        },
        {
            "type": "not",
            "of": {
                "type": "comparison",
                "left": {"type": "trait", "path": ["a", "b"]},
                "op": "within_last",
                "right": [{"type": "duration", "ms": 604_800_000}],
            },
        },
    ],
}


def _error(form: Any, entity_type: EntityType = "USERS", kind: Kind = "audience") -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        from_json(form, entity_type, kind)
    assert caught.value.code == CODE
    assert caught.value.status == 400
    return caught.value


def test_the_form_of_a_funnel_stays_as_it_is() -> None:
    assert to_json(parse(FUNNEL)) == FORM
    assert print_query(from_json(FORM)) == FUNNEL


def test_a_number_a_boolean_and_a_text_stay_apart() -> None:
    for value in (1, True, "1", "true", 1.5):
        form = {"type": "comparison", "left": {"type": "trait", "path": ["x"]}, "op": "equals", "right": []}
        tree = from_json({**form, "right": [{"type": "literal", "value": value}]})
        again = to_json(tree)["right"][0]["value"]
        assert (type(again), again) == (type(value), value)


def test_a_whole_float_is_the_integer_that_its_text_spells() -> None:
    form = deepcopy(FORM)
    form["of"][0]["right"][0]["value"] = 5.0
    assert repr(to_json(from_json(form))["of"][0]["right"][0]) == repr({"type": "literal", "value": 5})


def test_a_junction_of_one_part_is_that_part() -> None:
    one = {"type": "and", "of": [{"type": "audience", "key": "k"}]}
    assert from_json(one) == Audience("k")
    two = {"type": "or", "of": [{"type": "audience", "key": "k"}, {"type": "audience", "key": "l"}]}
    assert print_query(from_json({"type": "not", "of": {"type": "and", "of": [two]}})) == (
        "NOT (audience('k') OR audience('l'))"
    )


def _put(path: list[str | int], value: Any) -> dict[str, Any]:
    form = deepcopy(FORM)
    place: Any = form
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return form


_EVENT: list[str | int] = ["of", 0, "left"]
_WINDOW = {"type": "window", "after_ms": 0, "before_ms": 1_000}


@pytest.mark.parametrize(
    ("path", "value", "field", "part"),
    [
        (["type"], "und", "type", "und"),
        (["of"], [], "", "no parts"),
        (["of", 0], None, "of[0]", "null"),
        (["of", 0, "op"], "at_leest", "of[0].op", "did you mean at_least?"),
        (["of", 0, "right"], [], "of[0].right", "no arguments"),
        (["of", 0, "right"], [{"type": "duration", "ms": 1_000}], "of[0].right[0]", "a duration"),
        (["of", 0, "right"], [{"type": "literal", "value": None}], "of[0].right[0].value", "null"),
        (["of", 0, "right"], [{"type": "literal", "value": 10**400}], "of[0].right[0].value", "not finite"),
        (["of", 0, "right"], [{"type": "literal", "value": "\ud83c"}], "of[0].right[0].value", "surrogate"),
        (["of", 0, "right"], [{"type": "property", "path": ["x"]}], "of[0].right[0]", "outside of an event"),
        ([*_EVENT, "name"], "", "of[0].left.name", "nothing"),
        ([*_EVENT, "name"], "x" * 10_000, "of[0].left.name", "10000 characters"),
        ([*_EVENT, "name"], None, "of[0].left", "without a name"),
        ([*_EVENT, "call"], "any", "of[0].left.name", "event() is any call"),
        ([*_EVENT, "call"], "group", "of[0].left.call", "group"),
        ([*_EVENT, "windws"], [], "of[0].left", "unknown field `windws`"),
        ([*_EVENT, "windows"], [{**_WINDOW, "parent": True}], "of[0].left.windows[0]", "where no event is nested"),
        ([*_EVENT, "windows"], [{**_WINDOW, "before_ms": -1_000}], "of[0].left.windows[0].before_ms", "below zero"),
        ([*_EVENT, "windows"], [{**_WINDOW, "before_ms": 1_500}], "of[0].left.windows[0].before_ms", "whole seconds"),
        ([*_EVENT, "windows"], [{**_WINDOW, "before_ms": 10**15}], "of[0].left.windows[0].before_ms", "hundred years"),
        ([*_EVENT, "windows"], [{**_WINDOW, "before_ms": 1.5}], "of[0].left.windows[0].before_ms", "float"),
        ([*_EVENT, "since_ms"], 10**18, "of[0].left.since_ms", "years 1 to 9999"),
        ([*_EVENT, "exclude_sources"], [""], "of[0].left.exclude_sources[0]", "nothing"),
        ([*_EVENT, "reducer", "of"], None, "of[0].left.reducer.of", "sum of nothing"),
        ([*_EVENT, "reducer", "name"], "count", "of[0].left.reducer.of", "none"),
        ([*_EVENT, "reducer", "cast"], "string", "of[0].left.reducer.cast", "no type"),
        ([*_EVENT, "reducer", "frequency"], 3, "of[0].left.reducer.frequency", "only mode has one"),
        ([*_EVENT, "reducer", "counted"], True, "of[0].left.reducer.counted", "unique counted"),
        ([*_EVENT, "reducer", "of", "path"], [], "of[0].left.reducer.of.path", "an empty name"),
        ([*_EVENT, "reducer", "of", "path"], ["a", ""], "of[0].left.reducer.of.path", "an empty name"),
        ([*_EVENT, "reducer", "of", "parent"], True, "of[0].left.reducer.of", "where no event is nested"),
        (
            [*_EVENT, "where", "left", "expires_after_ms"],
            1_500,
            "of[0].left.where.left.expires_after_ms",
            "whole secon",
        ),
        (["of", 1, "of", "right", 0, "ms"], 1_500, "of[1].of.right[0].ms", "whole seconds"),
        (["of", 1, "of", "op"], "matches", "of[1].of.right[0]", "durations stand in"),
        (["of", 1], {"type": "users", "quantifier": "ANY", "of": FORM["of"][1]}, "of[1]", "make it an ACCOUNTS"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path: list[str | int], value: Any, field: str, part: str) -> None:
    error = _error(_put(path, value))
    assert error.field == field
    assert part in error.message


@pytest.mark.parametrize("form", [None, 5, "audience('k')", [], {}, {"type": "literal", "value": 5}, {"type": 5}])
def test_what_is_no_definition_is_refused(form: Any) -> None:
    assert _error(form).message


def test_an_audience_and_a_computed_trait_are_told_apart() -> None:
    assert "an audience compares it" in _error(FORM["of"][0]["left"]).message
    assert "a computed trait ends in a reducer" in _error(FORM, kind="trait").message


def test_the_bounds_of_text_hold_for_json() -> None:
    many: dict[str, Any] = {"type": "and", "of": [{"type": "audience", "key": f"k{index}"} for index in range(51)]}
    assert "number 51" in _error(many).message
    assert from_json({**many, "of": many["of"][:50]})
    listed = [{"type": "literal", "value": "x" * 1000}] * 40
    long: dict[str, Any] = {
        "type": "comparison",
        "left": {"type": "trait", "path": ["x"]},
        "op": "one_of",
        "right": listed,
    }
    assert "as text" in _error(long).message


@pytest.mark.parametrize("depth", [60, 300, 200_000])
def test_deep_json_is_refused_before_anything_recurses(depth: int) -> None:
    form: dict[str, Any] = {"type": "audience", "key": "k"}
    for _ in range(depth):
        form = {"type": "not", "of": form}
    assert "inside one another" in (message := _error(form).message) or "deep" in message
    while isinstance(form.get("of"), dict):  # take it apart, since Python's own clean-up recurses
        form = form.pop("of")


def test_endless_json_is_refused() -> None:
    assert "values" in _error({"type": "and", "of": [{"type": "audience", "key": "k"}] * 100_000}).message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(definitions("ACCOUNTS", "audience"), st.data())
def test_a_spoilt_form_is_refused_or_means_something(tree: Definition, data: st.DataObject) -> None:
    form = to_json(tree)
    place: Any = form
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(_JSON)
            break
        place = place[key]
    try:
        again = from_json(form, "ACCOUNTS")
    except InvalidError:
        return
    assert from_json(to_json(again), "ACCOUNTS") == again


LONG_OPERATOR = {"type": "comparison", "left": {"type": "trait", "path": ["t"]}, "op": "x" * 10_000}


@pytest.mark.parametrize(
    "form", [{"type": "x" * 10_000}, {"type": "audience", "key": "k", "y" * 10_000: 1}, LONG_OPERATOR]
)
def test_a_long_name_does_not_make_a_long_message(form: Any) -> None:
    assert 50 < len(_error(form).message) < 500
