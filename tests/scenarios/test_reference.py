"""The reference evaluator at the edges that the library's scenarios do not show."""

from typing import Any

import pytest

from actors.identity_rules import SpaceSettings
from actors.language import tree
from scenarios.format import AudienceSpec, OptionsSpec, TraitSpec
from scenarios.reference import Answers, Change, Defined, World
from scenarios.reference_compare import compare, instant_of, number_of, text_of
from scenarios.reference_identity import (
    DAY_MS,
    Blocked,
    IdLimit,
    Received,
    Rules,
    event_ms_of,
    identify,
)
from scenarios.reference_reducers import reduce_values
from scenarios.reference_run import ReferenceWorld, member_names, trait_of

START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
HOUR_MS = 3_600_000
OTHERS: list[Any] = [True, False, None, [], [1], {}]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        (5.5, 5.5),
        ("12.5", 12.5),
        ("-3", -3),
        ("1e3", 1000.0),
        (" 7\n", 7),
        ("-0", 0),
        *(
            (text, None)
            for text in ("", "0x10", "1_000", "nan", "inf", "1e999", "+1", ".5", "5.", "01", "\u0661", "- 1")
        ),
        *((other, None) for other in OTHERS),
        pytest.param("9" * 400, None, id="beyond every double"),
    ],
)
def test_a_number_is_a_number_or_text_that_json_would_take(value: Any, number: float | None) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (-0.0, "0"),
        (1e14, "100000000000000"),
        (1e16, "1e+16"),
        (2.5, "2.5"),
        (True, "true"),
        (10**20, "1" + "0" * 20),
    ],
)
def test_the_text_of_a_scalar_is_its_json_spelling(value: Any, text: str) -> None:
    assert text_of(value) == text


NO_DATES = (
    *("", "2026", "2026-3-1", "20260301", "2026-02-30", "2026-W10-1", "1772323200", "2026-03-01Z"),
    *("2026-03-01T24:00", "2026-03-01T00:00:00+25:00", "0001-01-01T00:00:00+01:00"),
)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-03-01", START_MS),
        ("2026-03-01T00:00", START_MS),
        ("2026-03-01 01:00:00+01", START_MS),
        ("2026-02-28T23:30:00-0030", START_MS),
        ("2026-03-01T00:00:00.0019Z", START_MS + 1),
        ("1969-12-31T23:59:59.999Z", -1),
        *((text, None) for text in NO_DATES),
        (START_MS, None),
    ],
)
def test_a_date_is_iso_8601_and_exists(text: Any, instant: int | None) -> None:
    assert instant_of(text) == instant


COMPARISONS: list[tuple[str, Any, list[Any], bool]] = [
    ("equals", 1, [True], False),
    ("equals", "true", [True], True),
    ("equals", True, [True], True),
    ("equals", "", [""], True),
    ("differs", "", [""], False),
    ("differs", {}, [1], True),
    ("differs", [], [1], False),
    ("differs", [None], [1], False),
    ("differs", [{}], [1], True),
    ("differs", [[1]], [1], True),
    ("differs", 1, [None], False),
    ("differs", 1, [[1]], False),
    ("differs", None, [1], False),
    ("none_of", [1, 2], [3, "x"], True),
    ("none_of", [1, "x"], [3, "x"], False),
    ("greater_than", True, [0], False),
    ("greater_than", "b", ["a"], True),
    ("at_least", True, [True], False),
    ("at_most", "10", ["9"], True),
    ("less_than", "10", [9], False),
    ("omits", None, ["x"], True),
    ("omits", None, [None], False),
    ("omits", [], ["x"], True),
    ("omits", {}, ["x"], True),
    ("omits", ["ax"], ["x"], False),
    ("contains", 150, [5], True),
    ("contains", {"x": 1}, ["x"], False),
    ("exists", [], [], True),
    ("exists", None, [], False),
    ("absent", False, [], False),
    ("matches", 12, ["^1"], True),
    ("matches", "x", ["("], False),
    ("before_date", "2026-03-01", ["2026-03-01T00:00:00.001Z"], True),
    ("before_date", "2026-03-01", ["soon"], False),
    ("after_date", ["2026-03-02", "x"], ["2026-03-01"], True),
]


@pytest.mark.parametrize(("op", "value", "others", "holds"), COMPARISONS)
def test_a_comparison_at_its_edges(op: str, value: Any, others: list[Any], holds: bool) -> None:
    assert compare(op, value, others, START_MS) is holds


# -- who is who --------------------------------------------------------------------------------------------------------


def received(*messages: dict[str, Any], received_ms: int = START_MS) -> list[Received]:
    return [
        Received(seq, received_ms, "web", {"type": "track", "event": "x", **message})
        for seq, message in enumerate(messages, start=1)
    ]


def test_a_demoted_id_stays_with_whom_it_was() -> None:
    email = {"context": {"traits": {"email": "jane@x.io"}}}
    who = identify(received({"userId": "abc123", **email}, {"userId": "abc456", **email}), Rules())
    assert [[known.value for known in user.ids] for user in who.users] == [["abc123", "jane@x.io"], ["abc456"]]
    assert [refusal.reason for refusal in who.refused_ids] == ["value_limit_exceeded"]


def test_the_oldest_profile_survives_a_merge_and_ids_keep_their_order() -> None:
    who = identify(received({"anonymousId": "a"}, {"userId": "u"}, {"userId": "u", "anonymousId": "a"}), Rules())
    assert [(known.type, known.value) for known in who.users[0].ids] == [("anonymous_id", "a"), ("user_id", "u")]
    assert (who.users[0].number, who.users[0].merges, who.users[0].name) == (1, 1, "u")


def test_at_most_so_many_merges() -> None:
    messages = [{"anonymousId": f"a{n}"} for n in range(4)]
    joins = [{"userId": "u", "anonymousId": f"a{n}"} for n in range(4)]
    who = identify(received(*messages, *joins), Rules(merges_max=2))
    assert [user.name for user in who.users] == ["u", "anonymous_id:a3"]
    assert [refusal.reason for refusal in who.refused_ids] == ["merge_limit_exceeded"]


def test_at_most_so_many_ids() -> None:
    rules = Rules(limit_of_others=IdLimit(100), ids_max=3)
    who = identify(received(*({"userId": "u", "anonymousId": f"a{n}"} for n in range(4))), rules)
    assert [known.value for known in who.users[0].ids] == ["u", "a0", "a1"]
    assert [refusal.reason for refusal in who.refused_ids] == ["id_limit_exceeded"] * 2


def test_a_value_may_be_blocked_for_one_type_only() -> None:
    rules = Rules(blocked=(Blocked("desk", id_type="anonymous_id"),))
    who = identify(received({"userId": "desk"}, {"anonymousId": "desk"}), rules)
    assert [user.name for user in who.users] == ["desk"]
    assert [refusal.reason for refusal in who.rejected] == ["ids that are all blocked"]


def test_a_group_with_a_blocked_user_describes_the_account_alone() -> None:
    who = identify(received({"type": "group", "userId": "null", "groupId": "g"}), Rules())
    assert (who.users, [account.name for account in who.accounts], who.rejected) == ([], ["g"], [])


@pytest.mark.parametrize(
    ("times", "event_ms"),
    [
        ({}, START_MS),
        ({"timestamp": "2026-02-28"}, START_MS - DAY_MS),
        ({"timestamp": "2026-03-02"}, START_MS),
        ({"timestamp": START_MS - 5}, START_MS - 5),
        ({"timestamp": "2026-02-27", "sentAt": "2026-02-27T06:00:00Z"}, START_MS - 6 * HOUR_MS),
        ({"timestamp": "2026-03-05", "sentAt": "2026-03-05T06:00:00Z"}, START_MS - 6 * HOUR_MS),
        ({"timestamp": "2026-03-05", "sentAt": "2026-03-04"}, START_MS),
        ({"originalTimestamp": "2026-02-28", "timestamp": "2026-02-20"}, START_MS - DAY_MS),
        ({"sentAt": "2026-02-27"}, START_MS),
    ],
)
def test_when_a_call_happened(times: dict[str, Any], event_ms: int) -> None:
    assert event_ms_of(times, START_MS) == event_ms


# -- both times --------------------------------------------------------------------------------------------------------


class Told(ReferenceWorld):
    """A world that is told what happens, an hour apart."""

    def __init__(self) -> None:
        super().__init__(SpaceSettings())
        self.now_ms = START_MS

    def then(self, **message: Any) -> int:
        """Receive a message an hour later; return its sequence."""
        self.now_ms += HOUR_MS
        self.send(message, "web")
        return self.seq


def test_what_was_known_cuts_by_the_log_and_what_was_true_by_time() -> None:
    told = Told()
    told.define(AudienceSpec(name="Two", query="event('x').count() >= 2"))
    first = told.then(type="track", userId="u", event="x")
    told.then(type="track", userId="u", event="x", timestamp="2026-02-01")
    assert member_names(told.answers(), "two") == ["u"]
    assert member_names(told.answers(known_seq=first), "two") == []
    assert member_names(told.answers(at_ms=START_MS), "two") == []
    assert told.known_seq(START_MS + HOUR_MS) == first


def test_a_profile_is_not_there_before_its_first_event() -> None:
    told = Told()
    told.define(AudienceSpec(name="Nobody", query="event('x').count() = 0"))
    told.then(type="track", userId="u", event="y")
    assert member_names(told.answers(at_ms=told.now_ms - 1), "nobody") == []
    assert member_names(told.answers(at_ms=told.now_ms), "nobody") == ["u"]


def test_an_id_counts_from_the_first_event_that_carried_it() -> None:
    told = Told()
    told.define(AudienceSpec(name="All", query="event('x').count() >= 1"))
    told.then(type="track", anonymousId="a", event="x", timestamp="2026-02-01")
    told.then(type="track", anonymousId="a", userId="u", event="x")
    assert member_names(told.answers(at_ms=START_MS), "all") == []
    assert member_names(told.answers(), "all") == ["u"]
    told.then(type="track", userId="u", event="x", timestamp="2026-02-02")
    assert member_names(told.answers(at_ms=START_MS), "all") == ["u"]


def test_what_a_deleted_definition_left_behind_is_dated_at_its_deletion() -> None:
    told = Told()
    told.define(TraitSpec(name="N", query="event('x').count()"))
    told.then(type="track", userId="u", event="x")
    told.delete("n")
    deleted_ms = told.now_ms
    told.then(type="identify", userId="u", traits={"n": "late"}, timestamp=deleted_ms - 1)
    assert trait_of(told.answers(), "u", "n") == 1
    assert trait_of(told.answers(at_ms=deleted_ms - 1), "u", "n") == "late"
    told.then(type="identify", userId="u", traits={"n": "new"})
    assert trait_of(told.answers(), "u", "n") == "new"


def test_after_a_merge_the_older_profile_decides_what_was_left_behind() -> None:
    told = Told()
    told.define(TraitSpec(name="N", query="event('x').count()"))
    told.then(type="track", anonymousId="a", event="x")
    told.then(type="track", userId="u", event="x")
    told.then(type="track", userId="u", event="x")
    told.delete("n")
    told.then(type="alias", userId="u", previousId="a")
    assert trait_of(told.answers(), "u", "n") == 1


def test_days_of_history_end_as_a_window_does() -> None:
    told = Told()
    told.then(type="track", userId="in", event="x", timestamp=START_MS + HOUR_MS - DAY_MS + 1)
    told.then(type="track", userId="out", event="x", timestamp=START_MS + HOUR_MS - DAY_MS)
    told.now_ms = START_MS + HOUR_MS
    told.define(
        AudienceSpec(name="Day", query="event('x').count() >= 1", options=OptionsSpec(backfill_event_data_days=1))
    )
    assert member_names(told.answers(), "day") == ["in"]


def test_an_account_neither_counts_ids_nor_sees_user_definitions() -> None:
    told = Told()
    told.define(AudienceSpec(name="Users", query="event('x').count() >= 0"))
    told.define(AudienceSpec(name="Own", type="ACCOUNTS", query="trait('users') = false"))
    told.then(type="group", userId="u", groupId="g")
    assert member_names(told.answers(), "own") == ["g"]
    assert trait_of(told.answers(), "group_id:g", "users") is False


def test_a_definition_that_refers_to_itself_is_an_error_of_the_caller() -> None:
    itself = Defined(key="a", kind="audience", entity_type="USERS", meaning=tree.Audience("a"))
    world = World(received({"userId": "u"}), [Change(2, START_MS, "a", itself)])
    with pytest.raises(AssertionError, match="refers to itself"):
        Answers(world, at_ms=START_MS, known_seq=2).members("a")


def test_a_sum_that_no_double_holds_is_none_and_its_average_is_there() -> None:
    huge = [1e308, 1e308]
    assert reduce_values(tree.Reducer("sum", tree.Property(("x",))), huge) is None
    assert reduce_values(tree.Reducer("avg", tree.Property(("x",))), huge) == 1e308
