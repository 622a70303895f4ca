"""The Profile API: traits, external ids, events, metadata and links of a user or account, now and in the past."""

import base64
from typing import Any
from urllib.parse import quote

import pytest

from adapters.http import profiles
from tests.http.stand import ORDERED, Stand, ordered

NAMES = [
    "ann@example.com",
    "a/b",
    "a/traits",
    "a%2Fb",
    "100%",
    "?x=1&y=2",
    "#top",
    "a b+c",
    "colon:colon",
    "..",
    ".",
    "Łukasz",  # plane 0
    "שלום",
    "\U0001d518\U0001d52b",  # plane 1
    "𠀋",  # plane 2
    "\U000e0041",  # plane 14
    "\U0010fffd",  # plane 16
    "e\u0301",
    "\u202egnp",
    "a\u0000b",
    "a\nb",
    "🦸🏽‍♀️",
    "\"'<>{}|\\^`",
    "x" * 300,
]


def at(stand: Stand, profile: str, part: str, collection: str = "users") -> str:
    return f"/v1/spaces/{stand.space.id}/collections/{collection}/profiles/{quote(profile, safe='')}/{part}"


async def traits(stand: Stand, profile: str, query: str = "limit=200", collection: str = "users") -> dict[str, Any]:
    found = await stand.admin.data("GET", f"{at(stand, profile, 'traits', collection)}?{query}")
    held: dict[str, Any] = found["traits"]
    return held


# -- traits ----------------------------------------------------------------------------------------------------------


async def test_the_documented_example_is_answered_to_the_letter(stand: Stand) -> None:
    await stand.send({"type": "identify", "userId": "u1", "traits": {"email": "alex@example.com"}}, ordered("u1", 9000))
    await stand.audience("High value user", f"{ORDERED}")
    path = f"/v1/spaces/{stand.space.id}/collections/users/profiles/email:alex@example.com/traits"
    found = await stand.admin.get(f"{path}?limit=100&include=high_value_user")
    assert found.json() == {
        "traits": {"high_value_user": True},
        "cursor": {"url": "", "has_more": False, "next": "", "limit": 100},
    }
    assert found.headers["content-type"] == "application/json"
    token = await stand.admin.data("POST", "/tokens", json={"name": "p", "scopes": ["profiles:read"]})
    basic = base64.b64encode(f"{token['token']['token']}:".encode()).decode()
    client = await stand.client(None, headers={"authorization": f"Basic {basic}"})
    assert (await client.data("GET", path))["traits"]["high_value_user"] is True
    by_slug = path.replace(stand.space.id, "default")
    assert (await client.data("GET", by_slug))["traits"]["high_value_user"] is True


async def test_traits_of_all_kinds_stand_side_by_side_and_can_be_told_apart(stand: Stand) -> None:
    given = {"plan": "pro", "address": {"city": "Oslo"}, "tags": ["a", "b"], "age": 41, "ok": True}
    await stand.send({"type": "identify", "userId": "u1", "traits": given}, ordered("u1", 12.5))
    audience = await stand.audience("Buyers")
    await stand.audience("Nobody", "event('Never').count() >= 1")
    trait = await stand.trait("Spend")
    held = await traits(stand, "user_id:u1")
    assert held == {**given, "buyers": True, "nobody": False, "spend": 12.5}
    assert list(held) == sorted(held)
    assert await traits(stand, "user_id:u1", "class=audience") == {"buyers": True, "nobody": False}
    assert await traits(stand, "user_id:u1", "class=computed_trait") == {"spend": 12.5}
    assert await traits(stand, "user_id:u1", "class=custom&include=plan,spend") == {"plan": "pro"}
    assert await traits(stand, "user_id:u1", "include=plan,%20spend,missing") == {"plan": "pro", "spend": 12.5}
    verbose = await traits(stand, "user_id:u1", "verbose=true&include=buyers,spend,plan")
    assert verbose["buyers"]["value"] is True
    assert verbose["buyers"]["source_id"] == audience["id"]
    assert verbose["spend"]["source_id"] == trait["id"]
    assert verbose["plan"] == {
        "value": "pro",
        "source_id": verbose["plan"]["source_id"],
        "updated_at": "2026-03-01T12:00:00.000Z",
    }


async def test_pages_of_traits_hold_each_once(stand: Stand) -> None:
    given = {f"trait_{number:03d}": number for number in range(25)}
    await stand.send({"type": "identify", "userId": "u1", "traits": given})
    path = at(stand, "user_id:u1", "traits")
    first = await stand.admin.data("GET", path)
    assert len(first["traits"]) == profiles.TRAITS_DEFAULT
    assert first["cursor"]["has_more"]
    held, page, pages = dict(first["traits"]), first, 1
    while page["cursor"]["has_more"]:
        page = await stand.admin.data("GET", page["cursor"]["url"])
        held |= page["traits"]
        pages += 1
    assert (held, pages) == (given, 3)
    second = await stand.admin.data("GET", path, params={"next": first["cursor"]["next"]})
    assert min(second["traits"]) == "trait_010"


# -- names -----------------------------------------------------------------------------------------------------------


async def test_an_id_of_any_characters_is_found_by_its_encoded_name(stand: Stand) -> None:
    calls = [{"type": "identify", "userId": name, "traits": {"seen": name}} for name in NAMES]
    assert await stand.send(*calls) == {"success": True}
    for name in NAMES:
        assert await traits(stand, f"user_id:{name}") == {"seen": name}
        found = await stand.admin.data("GET", at(stand, f"user_id:{name}", "external_ids"))
        assert [one["id"] for one in found["data"]] == [name]


async def test_ids_of_other_types_lead_to_the_same_profile(stand: Stand) -> None:
    known = {"id": "c-1", "type": "loyalty.card", "collection": "users", "encoding": "none"}
    context = {"device": {"id": "D1", "type": "ios"}, "externalIds": [known]}
    await stand.send(
        {"type": "identify", "userId": "u1", "anonymousId": "a1", "traits": {"email": " Ann@X.io "}, "context": context}
    )
    for profile in ("user_id:u1", "anonymous_id:a1", "email:ann@x.io", "email:ANN@X.IO", "loyalty.card:c-1"):
        assert await traits(stand, profile) == {"email": " Ann@X.io "}, profile
    found = await stand.admin.data("GET", at(stand, "user_id:u1", "external_ids"))
    types = {one["type"]: one for one in found["data"]}
    assert set(types) >= {"user_id", "anonymous_id", "email", "loyalty.card"}
    assert types["email"]["id"] == "ann@x.io"
    assert types["user_id"]["collection"] == "users"
    assert types["user_id"]["created_at"] == "2026-03-01T12:00:00.000Z"
    assert types["user_id"]["first_message_id"]
    some = await stand.admin.data("GET", at(stand, "user_id:u1", "external_ids") + "?include=email,user_id")
    assert {one["type"] for one in some["data"]} == {"email", "user_id"}


async def test_pages_of_external_ids_hold_each_once(stand: Stand) -> None:
    await stand.admin.data("PATCH", f"{stand.path}/settings", json={"idLimits": {"anonymous_id": {"count": 100}}})
    for number in range(60):
        await stand.send({"type": "identify", "userId": "u1", "anonymousId": f"a{number}"})
    held: list[str] = []
    url = at(stand, "user_id:u1", "external_ids")
    while url:
        page = await stand.admin.data("GET", url)
        assert len(page["data"]) <= profiles.IDS_DEFAULT + 1
        held += [one["id"] for one in page["data"]]
        url = page["cursor"]["url"]
    assert sorted(held) == sorted(["u1", *(f"a{number}" for number in range(60))])


# -- events ----------------------------------------------------------------------------------------------------------


async def test_events_come_newest_first_and_can_be_cut_named_and_turned(stand: Stand) -> None:
    await stand.send(
        ordered("u1", 1, timestamp="2026-02-01T00:00:00Z", messageId="m1"),
        {"type": "page", "userId": "u1", "name": "Home", "timestamp": "2026-02-02T00:00:00Z", "messageId": "m2"},
        {"type": "track", "userId": "u1", "event": "Left", "timestamp": "2026-02-03T00:00:00Z", "messageId": "m3"},
        {
            "type": "identify",
            "userId": "u1",
            "traits": {"a": 1},
            "timestamp": "2026-02-04T00:00:00Z",
            "messageId": "m4",
        },
    )
    path = at(stand, "user_id:u1", "events")

    async def ids(query: str = "") -> list[str]:
        found = await stand.admin.data("GET", f"{path}?{query}")
        return [one["message_id"] for one in found["data"]]

    assert await ids() == ["m4", "m3", "m2", "m1"]
    assert await ids("sort=asc") == ["m1", "m2", "m3", "m4"]
    assert await ids("start=2026-02-02T00:00:00Z&end=2026-02-03T00:00:00Z") == ["m3", "m2"]
    assert await ids("include=Order%20Completed,Home") == ["m2", "m1"]
    assert await ids("exclude=Left") == ["m4", "m2", "m1"]
    found = await stand.admin.data("GET", f"{path}?sort=asc")
    order, page, _, identify = found["data"]
    assert (order["type"], order["event"], order["properties"]) == ("track", "Order Completed", {"total": 1})
    assert order["timestamp"] == "2026-02-01T00:00:00.000Z"
    assert order["external_ids"] == [{"collection": "users", "type": "user_id", "id": "u1", "encoding": "none"}]
    assert (page["type"], page["name"]) == ("page", "Home")
    assert identify["traits"] == {"a": 1}


@pytest.mark.parametrize("sort", ["asc", "desc"])
async def test_pages_of_events_hold_each_once_also_when_many_share_a_time(stand: Stand, sort: str) -> None:
    times = [f"2026-02-0{1 + number // 10}T00:00:00Z" for number in range(25)]
    await stand.send(*(ordered("u1", n, timestamp=time, messageId=f"m{n}") for n, time in enumerate(times)))
    url, held = at(stand, "user_id:u1", "events") + f"?limit=4&sort={sort}", []
    while url:
        page = await stand.admin.data("GET", url)
        held += [one["properties"]["total"] for one in page["data"]]
        url = page["cursor"]["url"]
    assert held == (list(range(25)) if sort == "asc" else list(range(24, -1, -1)))


async def test_events_whose_fields_are_of_odd_types_are_told_as_they_are(stand: Stand) -> None:
    await stand.send({"type": "track", "userId": "u1", "event": "Odd", "name": None, "extra": {"a": [1]}})
    [event] = (await stand.admin.data("GET", at(stand, "user_id:u1", "events")))["data"]
    assert event["event"] == "Odd"


# -- metadata and links ----------------------------------------------------------------------------------------------


async def test_metadata_tells_the_first_and_the_last_message(stand: Stand) -> None:
    await stand.send(ordered("u1", messageId="first"))
    await stand.move("2026-03-02T12:00:00Z")
    await stand.send(ordered("u1", messageId="last"))
    found = (await stand.admin.data("GET", at(stand, "user_id:u1", "metadata")))["metadata"]
    source = stand.daemon.control.sources()[0].id
    assert found == {
        "created_at": "2026-03-01T12:00:00.000Z",
        "updated_at": "2026-03-02T12:00:00.000Z",
        "expires_at": None,
        "first_message_id": "first",
        "first_source_id": source,
        "last_message_id": "last",
        "last_source_id": source,
    }


async def test_links_lead_from_users_to_accounts_and_back(stand: Stand) -> None:
    await stand.send(
        *(
            {"type": "group", "userId": f"u{number}", "groupId": "acme", "traits": {"plan": "pro"}}
            for number in range(25)
        ),
        {"type": "group", "userId": "u0", "groupId": "umbrella"},
    )
    found = await stand.admin.data("GET", at(stand, "user_id:u0", "links"))
    assert [one["to_collection"] for one in found["data"]] == ["accounts", "accounts"]
    assert [one["external_ids"][0]["id"] for one in found["data"]] == ["acme", "umbrella"]
    assert found["cursor"]["limit"] == profiles.LINKS_MAX
    url, held = at(stand, "group_id:acme", "links", "accounts"), []
    while url:
        page = await stand.admin.data("GET", url)
        assert len(page["data"]) <= profiles.LINKS_MAX
        held += [one["external_ids"][0]["id"] for one in page["data"]]
        url = page["cursor"]["url"]
    assert held == [f"u{number}" for number in range(25)]
    assert await traits(stand, "group_id:acme", collection="accounts") == {"plan": "pro"}


# -- the past --------------------------------------------------------------------------------------------------------


async def test_the_past_is_answered_as_it_was_and_as_it_was_known(stand: Stand) -> None:
    await stand.audience("Buyers")
    await stand.trait("Spend")
    await stand.send({"type": "identify", "userId": "u1", "traits": {"plan": "free"}})
    await stand.move("2026-03-02T12:00:00Z")
    late = "2026-03-01T18:00:00Z"
    await stand.send(
        {"type": "identify", "userId": "u1", "anonymousId": "a1", "traits": {"plan": "pro"}},
        ordered("u1", 7, timestamp=late),
        {"type": "group", "userId": "u1", "groupId": "acme"},
    )
    await stand.move("2026-03-03T12:00:00Z")
    assert await traits(stand, "user_id:u1") == {"buyers": True, "plan": "pro", "spend": 7}
    then = "at=2026-03-01T20:00:00Z"
    assert await traits(stand, "user_id:u1", then) == {"buyers": True, "plan": "free", "spend": 7}
    as_said = f"{then}&known=2026-03-01T20:00:00Z"
    assert await traits(stand, "user_id:u1", as_said) == {"buyers": False, "plan": "free"}

    async def count(part: str, query: str) -> int:
        found = await stand.admin.data("GET", f"{at(stand, 'user_id:u1', part)}?{query}")
        return len(found["data"])

    assert [await count(part, "") for part in ("external_ids", "events", "links")] == [2, 4, 1]
    assert [await count(part, then) for part in ("external_ids", "events", "links")] == [1, 2, 0]
    assert [await count(part, as_said) for part in ("external_ids", "events", "links")] == [1, 1, 0]
    metadata = (await stand.admin.data("GET", f"{at(stand, 'user_id:u1', 'metadata')}?{as_said}"))["metadata"]
    assert metadata["updated_at"] == "2026-03-01T12:00:00.000Z"
    for query in ("at=2026-02-28T00:00:00Z", "known=2026-02-28T00:00:00Z"):
        for part in profiles.PARTS:
            error = await stand.admin.refusal("GET", f"{at(stand, 'user_id:u1', part)}?{query}", 404)
            assert error["code"] == "not_found"


async def test_a_read_sees_every_event_acknowledged_before_it(stand: Stand) -> None:
    await stand.trait("Orders", "event('Order Completed').count()")
    for number in range(1, 20):
        await stand.send(ordered("u1"))
        assert await traits(stand, "user_id:u1", "include=orders") == {"orders": number}


async def test_a_merged_profile_is_found_by_all_its_ids(stand: Stand) -> None:
    await stand.send(ordered("u1", 5), {"type": "track", "anonymousId": "a1", "event": "Order Completed"})
    await stand.trait("Orders", "event('Order Completed').count()")
    assert await traits(stand, "anonymous_id:a1") == {"orders": 1}
    await stand.send({"type": "identify", "userId": "u1", "anonymousId": "a1"})
    for profile in ("user_id:u1", "anonymous_id:a1"):
        assert await traits(stand, profile) == {"orders": 2}


# -- refusals --------------------------------------------------------------------------------------------------------


WRONG = [
    ("user_id:nobody", "traits", "", 404, "not_found"),
    ("unknown_type:u1", "traits", "", 404, "not_found"),
    ("u1", "traits", "", 400, "invalid_request_error"),
    (":u1", "traits", "", 400, "invalid_request_error"),
    ("user_id:", "traits", "", 400, "invalid_request_error"),
    ("user_id:u1", "traits", "limit=0", 400, "validation_error"),
    ("user_id:u1", "traits", "limit=201", 400, "validation_error"),
    ("user_id:u1", "traits", "limit=many", 400, "validation_error"),
    ("user_id:u1", "traits", "limit=٣", 400, "validation_error"),
    ("user_id:u1", "traits", "class=other", 400, "validation_error"),
    ("user_id:u1", "traits", "verbose=maybe", 400, "validation_error"),
    ("user_id:u1", "traits", "at=yesterday", 400, "validation_error"),
    ("user_id:u1", "traits", "known=1", 400, "validation_error"),
    ("user_id:u1", "traits", f"include={','.join(map(str, range(1001)))}", 400, "validation_error"),
    ("user_id:u1", "events", "sort=up", 400, "validation_error"),
    ("user_id:u1", "events", "start=x", 400, "validation_error"),
    ("user_id:u1", "events", "next=x", 400, "validation_error"),
    ("user_id:u1", "external_ids", "next=WyJpZHMiXQ", 400, "validation_error"),
    ("user_id:u1", "links", "next=WyJpZHMiLDFd", 400, "validation_error"),
    ("user_id:u1", "links", "limit=21", 400, "validation_error"),
    ("user_id:u1", "nothing", "", 404, "not_found"),
]


async def test_a_wrong_question_is_refused_in_the_profile_apis_words(stand: Stand) -> None:
    await stand.send(ordered("u1"))
    for profile, part, query, status, code in WRONG:
        error = await stand.admin.refusal("GET", f"{at(stand, profile, part)}?{query}", status)
        assert error["code"] == code, (profile, part, query)
        assert error["message"]


async def test_other_collections_spaces_and_methods_are_not_there(stand: Stand) -> None:
    await stand.send(ordered("u1"))
    path = at(stand, "user_id:u1", "traits")
    assert (await stand.admin.refusal("GET", path.replace("/users/", "/things/"), 404))["code"] == "not_found"
    assert (await stand.admin.refusal("GET", path.replace(stand.space.id, "spa_none"), 404))["code"] == "not_found"
    await stand.admin.refusal("POST", path, 405)
    assert (await stand.admin.refusal("GET", path.replace("/users/", "/accounts/"), 404))["code"] == "not_found"


async def test_without_a_token_or_its_scope_the_codes_are_the_documented_ones(stand: Stand) -> None:
    path = at(stand, "user_id:u1", "traits")
    nobody, writer = await stand.client(None), await stand.token("events:write")
    assert (await nobody.refusal("GET", path, 401))["code"] == "authentication_error"
    assert (await writer.refusal("GET", path, 403))["code"] == "authorization_error"
