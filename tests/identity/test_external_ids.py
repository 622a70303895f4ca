"""What ids a call gives: where each comes from, and what is no id."""

from typing import Any

import pytest

from actors.external_ids import (
    IDS_PER_CALL_MAX,
    TYPE_CHARS_MAX,
    VALUE_CHARS_MAX,
    ExternalId,
    group_of_message,
    ids_of_message,
)
from eventlog.entries import ALIAS, GROUP, IDENTIFY, KINDS, TRACK


class Call:
    """A decoded call with the fields that matter here."""

    def __init__(self, **fields: Any) -> None:
        self.user_id = fields.get("userId")
        self.anonymous_id = fields.get("anonymousId")
        self.previous_id = fields.get("previousId")
        self.group_id = fields.get("groupId")
        self.traits = fields.get("traits")
        self.context = fields.get("context")


def found(kind: int = TRACK, **fields: Any) -> list[tuple[str, str]]:
    """Return (type, value) of the usable ids of a call."""
    return [(one.id_type, one.value) for one in ids_of_message(Call(**fields), kind) if not one.refusal]


def refused(kind: int = TRACK, **fields: Any) -> list[tuple[str, str]]:
    """Return (type, refusal) of the unusable ones."""
    return [(one.id_type, one.refusal) for one in ids_of_message(Call(**fields), kind) if one.refusal]


def device(kind: str = "ios", **fields: Any) -> list[tuple[str, str]]:
    return found(context={"device": {"type": kind, **fields}})


def test_every_place_of_the_contract_gives_its_id_in_its_order() -> None:
    context = {
        "traits": {"email": "b@x.com"},
        "device": {"type": "ios", "id": "d", "advertisingId": "i", "adTrackingEnabled": True, "token": "t"},
        "externalIds": [{"id": "l1", "type": "loyalty", "collection": "users", "encoding": "none"}],
    }
    assert found(IDENTIFY, userId="u", anonymousId="a", traits={"email": "a@x.com"}, context=context) == [
        ("user_id", "u"),
        ("anonymous_id", "a"),
        ("email", "a@x.com"),
        ("email", "b@x.com"),
        ("ios.id", "d"),
        ("ios.idfa", "i"),
        ("ios.push_token", "t"),
        ("loyalty", "l1"),
    ]


@pytest.mark.parametrize(
    ("given", "text"), [(7, "7"), (5.0, "5"), (1.5, "1.5"), (-1, "-1"), (2**53, "9007199254740992"), ("07", "07")]
)
def test_a_number_as_an_id_is_its_text(given: object, text: str) -> None:
    assert found(userId=given) == [("user_id", text)]


@pytest.mark.parametrize("given", [True, ["u"], {"id": "u"}, float("nan")])
def test_what_cannot_be_an_id_is_refused_by_name(given: object) -> None:
    assert found(userId=given, anonymousId="a") == [("anonymous_id", "a")]
    assert refused(userId=given, anonymousId="a") == [("user_id", "value_blocked")]


def test_an_email_is_trimmed_and_lower_cased_and_given_once() -> None:
    call = {"traits": {"email": "  Jane@X.com "}, "context": {"traits": {"email": "jane@x.COM"}}}
    assert found(IDENTIFY, userId="u", **call) == [("user_id", "u"), ("email", "jane@x.com")]


def test_all_other_ids_are_exact() -> None:
    assert found(userId=" U ") == [("user_id", " U ")]
    assert found(userId="e\u0301") != found(userId="\u00e9")  # the same letter, written in two ways


def test_the_email_in_a_groups_traits_is_nobodys() -> None:
    assert found(GROUP, userId="u", traits={"email": "info@acme.com"}) == [("user_id", "u")]
    context = {"traits": {"email": "ann@acme.com"}}
    assert found(GROUP, userId="u", context=context) == [("user_id", "u"), ("email", "ann@acme.com")]


def test_an_advertising_id_needs_consent() -> None:
    assert device(advertisingId="i") == []
    assert device(advertisingId="i", adTrackingEnabled=False) == []
    assert device(advertisingId="i", adTrackingEnabled="true") == []
    assert device(advertisingId="i", adTrackingEnabled=True) == [("ios.idfa", "i")]
    assert device("Android", idfa="i", adTrackingEnabled=True) == [("android.idfa", "i")]


@pytest.mark.parametrize("kind", ["", "windows", "iosx", None, 3])
def test_a_device_of_another_kind_gives_nothing(kind: Any) -> None:
    assert found(context={"device": {"type": kind, "id": "d", "token": "t"}}) == []


def test_alias_takes_the_previous_id_as_an_anonymous_one() -> None:
    assert found(ALIAS, userId="u", previousId="p") == [("user_id", "u"), ("anonymous_id", "p")]
    assert found(TRACK, userId="u", previousId="p") == [("user_id", "u")]


def test_only_a_group_call_names_an_account() -> None:
    assert group_of_message(Call(groupId="g"), GROUP) == ExternalId("accounts", "group_id", "g")
    assert group_of_message(Call(groupId=7), GROUP) == ExternalId("accounts", "group_id", "7")
    assert [group_of_message(Call(groupId="g"), kind) for kind in KINDS.values() if kind != GROUP] == [None] * 5


@pytest.mark.parametrize(
    "entry",
    [
        "loyalty",
        None,
        {},
        {"id": "x"},
        {"type": "loyalty"},
        {"type": "loyalty", "id": None},
        {"type": "loyalty", "id": {"a": 1}},
        {"type": "", "id": "x"},
        {"type": "with space", "id": "x"},
        {"type": "with:colon", "id": "x"},
        {"type": "t" * (TYPE_CHARS_MAX + 1), "id": "x"},
        {"type": "loyalty", "id": "x", "collection": "things"},
        {"type": "loyalty", "id": "x", "encoding": 7},
    ],
)
def test_an_external_id_of_a_wrong_shape_is_refused_and_its_neighbour_taken(entry: object) -> None:
    listed = [entry, {"type": "Loyalty ", "id": "y", "collection": "users", "encoding": "none"}]
    assert found(context={"externalIds": listed}) == [("loyalty", "y")]
    assert len(refused(context={"externalIds": listed})) == 1


def test_external_ids_that_are_no_list_are_refused() -> None:
    assert refused(context={"externalIds": {"type": "loyalty", "id": "x"}}) == [("externalIds", "value_blocked")]


def test_collection_and_encoding_may_be_left_out_and_are_kept_when_given() -> None:
    listed = [
        {"type": "loyalty", "id": "x"},
        {"type": "crm", "id": "y", "collection": "accounts", "encoding": "base64"},
    ]
    assert ids_of_message(Call(context={"externalIds": listed})) == [
        ExternalId("users", "loyalty", "x"),
        ExternalId("accounts", "crm", "y", "base64"),
    ]


def test_an_id_of_ten_thousand_characters_is_refused_and_only_its_head_kept() -> None:
    (one,) = ids_of_message(Call(userId="u" * 10_000))
    assert one.refusal == "value_blocked"
    assert len(one.value) <= 100
    assert found(userId="u" * VALUE_CHARS_MAX) == [("user_id", "u" * VALUE_CHARS_MAX)]
    assert found(userId="u" * (VALUE_CHARS_MAX + 1)) == []


def test_more_ids_than_one_call_may_have_are_refused_beyond_the_bound() -> None:
    listed = [{"type": "loyalty", "id": str(number)} for number in range(IDS_PER_CALL_MAX)]
    assert len(found(userId="u", context={"externalIds": listed})) == IDS_PER_CALL_MAX
    assert refused(userId="u", context={"externalIds": listed}) == [("loyalty", "id_limit_exceeded")]


@pytest.mark.parametrize("odd", [None, [], "text", 7])
def test_traits_context_and_device_of_a_wrong_shape_give_nothing(odd: object) -> None:
    assert found(IDENTIFY, userId="u", traits=odd, context=odd) == [("user_id", "u")]
    assert found(IDENTIFY, userId="u", context={"traits": odd, "device": odd}) == [("user_id", "u")]
