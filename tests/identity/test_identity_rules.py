"""The settings of a space: their JSON form, their bounds, and what they mean."""

from typing import Any

import pytest

from actors.identity_rules import (
    BLOCKED_MAX,
    BOUND_MAX,
    DAY_MS,
    HOUR_MS,
    PERIODS_MS,
    IdLimit,
    SpaceSettings,
    duration_ms,
    settings_from_json,
)
from eventlog.errors import InvalidError


def test_the_defaults_are_the_contracts() -> None:
    settings = SpaceSettings()
    rules = settings.rules
    assert (rules.limit("user_id"), rules.limit("email"), rules.limit("loyalty")) == (
        IdLimit(1),
        IdLimit(5),
        IdLimit(5),
    )
    types = ["ios.id", "anonymous_id", "email", "user_id"]
    assert sorted(types, key=rules.rank) == ["user_id", "email", "anonymous_id", "ios.id"]
    assert (rules.ids_max, rules.merges_max) == (1000, 100)
    assert settings.dedupe_window_ms == 24 * HOUR_MS
    assert settings.event_retention_days is None


@pytest.mark.parametrize("value", ["", "-1", "null", "anonymous", "0", "000", "-", "0000-0000"])
def test_these_values_are_blocked_by_default(value: str) -> None:
    assert SpaceSettings().rules.blocks()("user_id", value)


@pytest.mark.parametrize("value", ["1", "-2", "Null", "Anonymous", "anonymous1", "0a", "u1", "0\n"])
def test_these_values_are_not(value: str) -> None:
    assert not SpaceSettings().rules.blocks()("user_id", value)


def test_blocked_values_may_be_of_one_type_and_patterns_search() -> None:
    blocks = settings_from_json(
        {"blockedIds": ["x", {"value": "y", "type": "email"}, {"regex": "te?st"}, {"regex": "^q", "type": "email"}]}
    ).rules.blocks()
    assert [blocks("email", value) for value in ("x", "y", "a tst", "q1", "-1")] == [True, True, True, True, False]
    assert [blocks("user_id", value) for value in ("x", "y", "a test", "q1")] == [True, False, True, False]


def test_blocked_values_by_type_are_the_same_as_a_list() -> None:
    by_type = settings_from_json({"blockedIds": {"email": ["y", {"regex": "^q"}]}})
    assert by_type == settings_from_json(
        {"blockedIds": [{"value": "y", "type": "email"}, {"regex": "^q", "type": "email"}]}
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"idLimits": {"user_id": 2, "email": {"count": 3, "period": "Weekly"}, "*": 9}},
        {"idPriority": ["email", "user_id"]},
        {"blockedIds": []},
        {"blockedIds": ["a", -1, None, {"regex": "^x", "type": "email"}]},
        {"maxIds": 10, "maxMerges": 0, "eventRetentionDays": 30},
        {"dedupeWindow": "1h"},
    ],
)
def test_settings_come_back_from_their_json(given: dict[str, Any]) -> None:
    settings = settings_from_json(given)
    assert settings_from_json(settings.to_json()) == settings
    assert settings_from_json(settings.to_json(), settings_from_json({"blockedIds": ["z"], "maxIds": 5})) == settings


def test_only_what_is_given_changes() -> None:
    base = settings_from_json({"idLimits": {"email": 2}, "dedupeWindow": 7, "maxIds": 9})
    changed = settings_from_json({"idLimits": {"loyalty": {"count": 1, "period": "monthly"}}}, base)
    assert changed.rules.limit("email") == IdLimit(2)
    assert changed.rules.limit("user_id") == IdLimit(1)
    assert changed.rules.limit("loyalty") == IdLimit(1, "monthly")
    assert (changed.dedupe_window_ms, changed.rules.ids_max) == (7, 9)


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("1h", HOUR_MS),
        ("24 hours", 24 * HOUR_MS),
        ("1d12h", 36 * HOUR_MS),
        ("90 m", 90 * 60_000),
        ("10 milliseconds", 10),
        ("3 minutes", 180_000),
        ("2 Weeks", 14 * DAY_MS),
        ("0s", 0),
        ("", None),
        ("h", None),
        ("5", None),
        ("1 fortnight", None),
        ("-1h", None),
        ("1mo", None),
        ("9" * 16 + "d", None),
    ],
)
def test_a_duration_is_pieces_of_number_and_unit(text: str, expected_ms: int | None) -> None:
    assert duration_ms(text) == expected_ms


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (["not an object"], "settings"),
        ({"idLimit": {}}, "idLimit"),
        ({"idLimits": 5}, "idLimits"),
        ({"idLimits": {"email": -1}}, "idLimits.email"),
        ({"idLimits": {"email": True}}, "idLimits.email"),
        ({"idLimits": {"email": 1.5}}, "idLimits.email"),
        ({"idLimits": {"email": {"period": "weekly"}}}, "idLimits.email.count"),
        ({"idLimits": {"email": {"count": 1, "period": "daily"}}}, "idLimits.email.period"),
        ({"idLimits": {"email": {"count": 1, "per": "week"}}}, "idLimits.email"),
        ({"idLimits": {"Email": 1}}, "idLimits.Email"),
        ({"idLimits": {str(number): 1 for number in range(300)}}, "idLimits"),
        ({"idPriority": "email"}, "idPriority"),
        ({"idPriority": ["email", "email"]}, "idPriority"),
        ({"idPriority": ["email", 7]}, "idPriority[1]"),
        ({"blockedIds": "x"}, "blockedIds"),
        ({"blockedIds": {"email": "x"}}, "blockedIds.email"),
        ({"blockedIds": [{"regex": "("}]}, "blockedIds[0].regex"),
        ({"blockedIds": ["ok", {"value": "x", "regex": "y"}]}, "blockedIds[1]"),
        ({"blockedIds": [{"pattern": "x"}]}, "blockedIds[0]"),
        ({"blockedIds": [True]}, "blockedIds[0]"),
        ({"blockedIds": ["x" * 1001]}, "blockedIds[0]"),
        ({"blockedIds": [str(number) for number in range(BLOCKED_MAX + 1)]}, "blockedIds"),
        ({"blockedIds": [{"regex": f"a{number}"} for number in range(101)]}, "blockedIds"),
        ({"maxIds": 0}, "maxIds"),
        ({"maxIds": BOUND_MAX + 1}, "maxIds"),
        ({"maxMerges": "3"}, "maxMerges"),
        ({"dedupeWindow": "soon"}, "dedupeWindow"),
        ({"dedupeWindow": "31d"}, "dedupeWindow"),
        ({"dedupeWindow": -1}, "dedupeWindow"),
        ({"dedupeWindow": None}, "dedupeWindow"),
        ({"eventRetentionDays": 0}, "eventRetentionDays"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(given: Any, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        settings_from_json(given)
    assert caught.value.field == field


def test_what_is_wrong_with_a_pattern_is_told_in_words() -> None:
    with pytest.raises(InvalidError, match=r"\(RE2; missing \): \(\), found '\('"):
        settings_from_json({"blockedIds": [{"regex": "("}]})


def test_the_periods_are_a_week_30_days_and_a_year() -> None:
    day_ms = 24 * 60 * 60 * 1000
    assert dict(PERIODS_MS) == {"ever": None, "weekly": 7 * day_ms, "monthly": 30 * day_ms, "annually": 365 * day_ms}
