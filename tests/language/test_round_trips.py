"""Text, tree and JSON say the same, whichever way they are turned into each other."""

from hypothesis import HealthCheck, given, settings
from msgspec import json

from actors.language import count_primaries, describe, from_json, lint, parse, print_query, references, to_json
from actors.language.tree import Definition
from actors.language.vocabulary import PRIMARIES_MAX
from tests.language.strategies import definitions

BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _exactly(tree: Definition) -> bytes:
    """Return what tells 1 from true, which Python takes for equal."""
    return json.encode(tree)


@BOUNDED
@given(definitions("USERS", "audience", wild=True))
def test_an_audience_of_users_keeps_its_tree_through_text(tree: Definition) -> None:
    assert count_primaries(tree) <= PRIMARIES_MAX
    assert _exactly(parse(print_query(tree))) == _exactly(tree)


def test_between_from_the_parents_instant_on_stays_apart_from_within() -> None:
    for window in ("between(parent: 0 days, 1 day)", "within(parent: 1 day)"):
        text = f"event('A').where(event('B').{window}.count() >= 1).count() >= 1"
        assert print_query(parse(text)) == text
        assert print_query(from_json(to_json(parse(text)))) == text


@BOUNDED
@given(definitions("ACCOUNTS", "audience", wild=True))
def test_an_audience_of_accounts_keeps_its_tree_through_text(tree: Definition) -> None:
    assert _exactly(parse(print_query(tree), entity_type="ACCOUNTS")) == _exactly(tree)


@BOUNDED
@given(definitions("USERS", "trait", wild=True))
def test_a_computed_trait_keeps_its_tree_through_text(tree: Definition) -> None:
    assert _exactly(parse(print_query(tree), kind="trait")) == _exactly(tree)


@BOUNDED
@given(definitions("ACCOUNTS", "audience", wild=True))
def test_text_to_tree_to_json_to_tree_to_text_keeps_everything(tree: Definition) -> None:
    text = print_query(tree)
    form = json.decode(json.encode(to_json(parse(text, entity_type="ACCOUNTS"))))  # as it comes over the wire
    again = from_json(form, "ACCOUNTS")
    assert _exactly(again) == _exactly(tree)
    assert print_query(again) == text


@BOUNDED
@given(definitions("USERS", "trait"))
def test_a_computed_trait_keeps_its_tree_through_json(tree: Definition) -> None:
    assert _exactly(from_json(to_json(tree), kind="trait")) == _exactly(tree)


@BOUNDED
@given(definitions("ACCOUNTS", "audience", wild=True))
def test_every_definition_can_be_looked_over(tree: Definition) -> None:
    assert describe(tree)
    assert all(isinstance(warning, str) for warning in lint(tree))
    assert len(set(references(tree))) == len(references(tree))


@BOUNDED
@given(definitions("USERS", "audience", wild=True))
def test_white_space_and_comments_change_nothing(tree: Definition) -> None:
    text = print_query(tree)
    assert parse(f"-- a comment, with 'quotes\n\n  {text}\t--and another") == tree
