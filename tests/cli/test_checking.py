"""`turnout check` says what a definition means, listens to and keeps, and points at what is wrong with it."""

import json

import pytest

from actors.conditions import funnels, queries
from actors.conditions.queries import Query
from adapters.cli.app import application, run
from adapters.cli.checking import KEEPS, checked
from adapters.cli.terminal import pointed_at

FUNNEL = "event('A').where(event('B').within(parent: 1 days).count() >= 1).within(7 days).count() >= 1"


def test_every_kind_of_question_says_what_it_keeps() -> None:
    kinds = {
        kind
        for module in (queries, funnels)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Query) and kind is not Query
    }
    assert set(KEEPS) == kinds


@pytest.mark.parametrize(
    ("query", "keeps"),
    [
        ("event('A').count() >= 3", "event 'A': a count"),
        ("event('A').within(7 days).count() >= 3", "event 'A': the 3 newest timestamps"),
        ("event('A').within(7 days).count() >= 1", "event 'A': the newest timestamp"),
        ("event('A').sum(property('x')) >= 3", "event 'A': the exact sum, and of how many"),
        ("page('Home').max(property('x')) >= 3", "page 'Home': one value"),
        ("event().count() >= 1", "any track call or any page call or any screen call: a count"),
        (FUNNEL, "event 'A' then event 'B': the events of its 2 steps that may still count: time and what is compared"),
        (
            "event('A').where(trait('x') > 10).count() >= 3",
            "event 'A': the events that may still count: time and what is compared",
        ),
    ],
)
def test_it_tells_what_is_kept_for_each_profile(query: str, keeps: str) -> None:
    assert checked(query, "USERS", trait=False).keeps == [keeps]


def test_equal_questions_are_kept_once() -> None:
    found = checked("event('A').count() >= 1 AND NOT event('A').count() > 4", "USERS", trait=False)
    assert found.keeps == ["event 'A': a count"]
    assert found.primaries == 2


def test_an_account_definition_keeps_apart_what_its_users_and_what_all_of_them_did() -> None:
    found = checked("ANY event('A').count() >= 1 AND event('A').count() >= 5", "ACCOUNTS", trait=False)
    assert sorted(found.keeps) == ["event 'A': a count", "of all the account's users, event 'A': a count"]


def test_a_definition_that_stands_is_told_as_an_outline_with_what_it_refers_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(application(), ["check", "audience('vip') AND trait('plan') = 'pro'"]) == 0
    told = capsys.readouterr().out
    assert "member of vip" in told
    assert "no event: traits and audiences alone decide" in told
    assert "refers to\n  vip\n  plan\n" in told


def test_a_likely_mistake_is_told_and_leaves_the_exit_status_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(application(), ["check", "event('A').count() >= 0"]) == 0
    assert "looks like a mistake" in capsys.readouterr().out


def test_a_definition_that_does_not_stand_is_pointed_at_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    query = "event('A').within(3 fortnights).count() >= 1"
    assert run(application(), ["check", query]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[1:] == [f"    {query}", "    " + " " * query.index("fortnights") + "^"]
    assert run(application(), ["check", query, "--format", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["error"]["line"], answer["error"]["column"]) == (False, 1, 21)


def test_the_caret_stands_under_its_column_on_any_line_behind_tabs_and_at_the_end() -> None:
    assert pointed_at("a\n\tbc", 2, 3) == "    \tbc\n    \t ^"
    assert pointed_at("ab", 1, 3) == "    ab\n      ^"
    assert pointed_at("", 1, 1) == "    \n    ^"
