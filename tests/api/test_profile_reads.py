"""The Profile API: what is known of a user or an account, page by page, at once and in the past."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.api.room import BUYERS, Room, identify, track
from tests.api.walk import Walk

PARTS = ("traits", "external_ids", "events", "metadata", "links")


def profile_of(room: Room, profile: str, part: str, collection: str = "users") -> str:
    """Return the path of a part of a profile; the profile is encoded by the caller."""
    return f"/v1/spaces/{room.space_id}/collections/{collection}/profiles/{profile}/{part}"


async def read(room: Room, profile: str, part: str = "traits", collection: str = "users", **query: Any) -> Any:
    """Return what is answered."""
    answer = await room.client.get(profile_of(room, profile, part, collection), params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def walk_pages(room: Room, path: str, field: str, **query: Any) -> list[Any]:
    """Return the items of all pages, gone through by `next` and by `url` alike."""
    pages: list[Any] = []
    answer = (await room.client.get(path, params=query)).json()
    while True:
        pages.append(answer[field])
        cursor = answer["cursor"]
        assert len(answer[field]) <= cursor["limit"]
        if not cursor["has_more"]:
            assert (cursor["next"], cursor["url"]) == ("", "")
            return pages
        by_url = (await room.client.get(cursor["url"])).json()
        answer = (await room.client.get(path, params={**query, "next": cursor["next"]})).json()
        assert by_url == answer


async def test_all_parts_of_a_user_and_of_an_account(room: Room) -> None:
    await room.audience()
    await room.trait("Total", "event('Order Completed').sum(property('total'))")
    await room.send(
        identify("ann", email=" Ann@Example.com ", plan="pro"),
        track("ann", total=5, messageId="m-1", timestamp="2026-03-01T10:00:00Z"),
        {"type": "group", "userId": "ann", "groupId": "acme", "traits": {"seats": 3}},
    )
    assert await read(room, "user_id:ann") == {
        "traits": {"buyers": True, "email": " Ann@Example.com ", "plan": "pro", "total": 5},
        "cursor": {"url": "", "has_more": False, "next": "", "limit": 10},
    }
    assert (await read(room, "group_id:acme", collection="accounts"))["traits"] == {"seats": 3}
    ids = (await read(room, "user_id:ann", "external_ids"))["data"]
    assert [(one["type"], one["id"], one["collection"]) for one in ids] == [
        ("user_id", "ann", "users"),
        ("email", "ann@example.com", "users"),
    ]
    assert all(one["source_id"] == room.source_id and one["first_message_id"] for one in ids)
    events = (await read(room, "user_id:ann", "events"))["data"]
    assert [one["type"] for one in events][-1] == "track"
    assert (events[-1]["message_id"], events[-1]["properties"]) == ("m-1", {"total": 5})
    metadata = (await read(room, "user_id:ann", "metadata"))["metadata"]
    assert metadata["first_source_id"] == metadata["last_source_id"] == room.source_id
    assert metadata["last_message_id"] == events[0]["message_id"]
    [link] = (await read(room, "user_id:ann", "links"))["data"]
    assert (link["to_collection"], [one["id"] for one in link["external_ids"]]) == ("accounts", ["acme"])
    [link] = (await read(room, "group_id:acme", "links", "accounts"))["data"]
    assert (link["to_collection"], [one["id"] for one in link["external_ids"]]) == ("users", ["ann", "ann@example.com"])
    for part in PARTS:
        await read(room, "group_id:acme", part, "accounts")


async def test_traits_are_chosen_by_name_and_class_and_told_with_their_time(room: Room) -> None:
    await room.audience()
    await room.trait("Total", "event('Order Completed').sum(property('total'))")
    await room.send(identify("ann", plan="pro", total2=1), track("ann", total=5))

    async def keys(**query: Any) -> list[str]:
        return list((await read(room, "user_id:ann", **query))["traits"])

    assert await keys() == await keys(include="") == ["buyers", "plan", "total", "total2"]
    assert await keys(include="total, buyers,none") == ["buyers", "total"]
    assert await keys(**{"class": "audience"}) == ["buyers"]
    assert await keys(**{"class": "computed_trait"}) == ["total"]
    assert await keys(**{"class": "custom"}) == ["plan", "total2"]
    assert await keys(include="plan", **{"class": "audience"}) == []
    told = (await read(room, "user_id:ann", verbose="true"))["traits"]
    assert set(told) == {"buyers", "plan", "total", "total2"}
    assert all(set(one) == {"value", "source_id", "updated_at"} for one in told.values())
    now = said_now(await room.client.get("/clock"))
    assert (told["plan"]["value"], told["plan"]["updated_at"]) == ("pro", now)


async def test_pages_of_every_list_hold_everything_once(room: Room) -> None:
    calls = [identify("ann", **{f"t{n:03}": n for n in range(207)})]
    calls += [track("ann", f"e{n}", timestamp=f"2026-03-01T10:{n // 60:02}:{n % 60:02}Z") for n in range(75)]
    calls += [{"type": "track", "anonymousId": f"a{n}", "userId": "ann", "event": "x"} for n in range(5)]
    calls += [{"type": "group", "userId": "ann", "groupId": f"g{n:02}"} for n in range(23)]
    await room.send(*calls)
    pages = await walk_pages(room, profile_of(room, "user_id:ann", "traits"), "traits", limit=50)
    assert [len(page) for page in pages] == [50, 50, 50, 50, 7]
    assert {key: value for page in pages for key, value in page.items()} == {f"t{n:03}": n for n in range(207)}
    pages = await walk_pages(room, profile_of(room, "user_id:ann", "external_ids"), "data", limit=2)
    assert sorted(one["id"] for page in pages for one in page) == ["a0", "a1", "a2", "a3", "a4", "ann"]
    path = profile_of(room, "user_id:ann", "events")
    for sort in ("asc", "desc"):
        pages = await walk_pages(
            room, path, "data", limit=10, sort=sort, exclude="x", start="2026-03-01", end="2026-03-01T11:00Z"
        )
        names = [one["event"] for page in pages for one in page]
        assert names == [f"e{n}" for n in range(75)][:: 1 if sort == "asc" else -1]
    pages = await walk_pages(room, profile_of(room, "user_id:ann", "links"), "data")
    assert [len(page) for page in pages] == [20, 3]
    assert sorted(one["external_ids"][0]["id"] for page in pages for one in page) == [f"g{n:02}" for n in range(23)]


async def test_the_address_of_the_next_page_asks_what_was_asked_in_the_same_order(room: Room) -> None:
    await room.send(identify("ann", **{f"t{n}": n for n in range(5)}))
    given = "verbose=true&limit=2&class=custom&at=2031-01-01&include=t0%2Ct1%2Ct2%2Ct3&known=2031-01-02&extra=&x=1&x=2"
    path = profile_of(room, "user_id:ann", "traits")
    first = (await room.client.get(f"{path}?{given}")).json()
    assert first["cursor"]["url"].endswith(f"?{given}&next=t2")
    second = (await room.client.get(first["cursor"]["url"])).json()
    assert (list(second["traits"]), second["cursor"]["has_more"]) == (["t2", "t3"], False)


async def test_ids_that_did_not_identify_are_told_with_the_rule_that_was_broken(room: Room) -> None:
    now = said_now(await room.client.get("/clock"))
    settings = {"idLimits": {"loyalty": {"count": 1, "period": "weekly"}}, "blockedIds": [{"regex": "^test"}]}
    answer = await room.client.patch(f"/spaces/{room.space_id}/settings", json=settings)
    assert answer.status_code == 200, answer.text

    def loyalty(value: str) -> dict[str, Any]:
        return {"externalIds": [{"type": "loyalty", "id": value}]}

    await room.send(
        {**identify("ann", email="ann@x.io"), "timestamp": "2026-02-01T00:00:00Z", "context": loyalty("l1")},
        {**identify("ann"), "timestamp": "2026-02-02T00:00:00Z", "context": loyalty("l2"), "messageId": "m-late"},
        {**identify("ann"), "timestamp": "2026-02-03T00:00:00Z", "anonymousId": "test-7"},
        identify("eve", email="ann@x.io"),
        {**identify("ann"), "timestamp": "2026-02-04T00:00:00Z", "context": loyalty("x" * 10_000)},
    )
    told = await read(room, "user_id:ann", "external_ids", verbose="true")
    assert [(one["type"], one["id"][:4], one["code"], one["refused_at"][:10]) for one in told["refused"]] == [
        ("loyalty", "l2", "value_time_limit_exceeded", "2026-02-02"),
        ("anonymous_id", "test", "value_blocked", "2026-02-03"),
        ("loyalty", "xxxx", "value_blocked", "2026-02-04"),
    ]
    assert all(len(one["id"]) <= 1000 and one["reason"] for one in told["refused"])
    assert (told["refused"][0]["first_message_id"], told["refused"][0]["source_id"]) == ("m-late", room.source_id)
    assert {one["id"] for one in told["data"]} == {"ann", "ann@x.io", "l1"}
    [of_eve] = (await read(room, "user_id:eve", "external_ids", verbose="true"))["refused"]
    assert (of_eve["type"], of_eve["id"], of_eve["code"]) == ("email", "ann@x.io", "value_limit_exceeded")
    assert "refused" not in await read(room, "user_id:ann", "external_ids")

    async def codes(**query: Any) -> list[str]:
        answer = await read(room, "user_id:ann", "external_ids", verbose="true", **query)
        return [one["type"] for one in answer["refused"]]

    assert await codes(include="anonymous_id") == ["anonymous_id"]
    assert await codes(at="2026-02-03T00:00:00Z") == ["loyalty", "anonymous_id"]
    assert await codes(known=now) == ["loyalty", "anonymous_id", "loyalty"]


@pytest.mark.parametrize(
    "user_id", ["a:b", "a/b", "a/traits", "a+b", "a b", "100%", "%2B", "a?b#c", "ünï", "😀", "..", "a\\b", "&=;", " x"]
)
async def test_any_id_names_its_profile(walked: Walk, user_id: str) -> None:
    room = walked.room
    await room.send(identify(user_id, name=user_id))
    assert (await read(room, f"user_id:{quote(user_id, safe='')}"))["traits"]["name"] == user_id
    assert (await read(room, quote(f"user_id:{user_id}", safe="")))["traits"]["name"] == user_id
    ids = (await read(room, f"user_id:{quote(user_id, safe='')}", "external_ids"))["data"]
    assert user_id in [one["id"] for one in ids]


async def test_an_email_is_found_however_it_is_spelled_and_other_ids_are_exact(walked: Walk) -> None:
    for spelled in ("ann@example.com", "ANN%40Example.COM", "%20Ann@example.com%20"):
        assert (await read(walked.room, f"email:{spelled}"))["traits"]["plan"] == "pro"
    assert (await walked.room.client.get(profile_of(walked.room, "user_id:Ann", "traits"))).status_code == 404


@pytest.mark.parametrize(
    ("profile", "query", "status", "code"),
    [
        ("user_id:nobody", {}, 404, "not_found"),
        ("user_id", {}, 400, "invalid_request_error"),
        ("user_id:", {}, 400, "invalid_request_error"),
        (":ann", {}, 400, "invalid_request_error"),
        ("user_id:ann", {"limit": "x"}, 400, "validation_error"),
        ("user_id:ann", {"limit": "0"}, 400, "validation_error"),
        ("user_id:ann", {"limit": "-1"}, 400, "validation_error"),
        ("user_id:ann", {"limit": "201"}, 400, "validation_error"),
        ("user_id:ann", {"limit": "9" * 50}, 400, "validation_error"),
        ("user_id:ann", {"limit": ""}, 400, "validation_error"),
        ("user_id:ann", {"at": "soon"}, 400, "validation_error"),
        ("user_id:ann", {"known": "2026-13-01"}, 400, "validation_error"),
    ],
)
async def test_what_is_wrong_is_told_by_its_code(
    walked: Walk, profile: str, query: dict[str, str], status: int, code: str
) -> None:
    for part in PARTS:
        if part == "metadata" and "limit" in query:
            continue
        answer = await walked.room.client.get(profile_of(walked.room, profile, part), params=query)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (part, answer.text)
        assert answer.json()["error"]["message"]
        assert len(answer.headers["request-id"]) == 32


@pytest.mark.parametrize(
    ("part", "query"),
    [
        ("traits", {"class": "x"}),
        ("traits", {"verbose": "x"}),
        ("traits", {"include": ",".join(map(str, range(1001)))}),
        ("external_ids", {"next": "x"}),
        ("events", {"next": "W10"}),
        ("events", {"sort": "x"}),
        ("events", {"start": "x"}),
        ("events", {"end": "x"}),
        ("links", {"next": "é"}),
        ("links", {"limit": "21"}),
    ],
)
async def test_a_parameter_that_is_wrong_is_named(walked: Walk, part: str, query: dict[str, str]) -> None:
    answer = await walked.room.client.get(profile_of(walked.room, "user_id:ann", part), params=query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")
    assert answer.json()["error"]["message"].startswith(next(iter(query)))


async def test_limits_at_their_bounds_are_taken(walked: Walk) -> None:
    for part, most, usual in (("traits", 200, 10), ("external_ids", 200, 25), ("events", 200, 10), ("links", 20, 20)):
        for given, told in (({"limit": "1"}, 1), ({"limit": str(most)}, most), ({}, usual)):
            assert (await read(walked.room, "user_id:ann", part, **given))["cursor"]["limit"] == told


async def test_collections_and_spaces_that_are_not_there_are_not_found(
    walked: Walk, stranger: httpx.AsyncClient
) -> None:
    room = walked.room
    for path in (
        profile_of(room, "user_id:ann", "traits", "things"),
        profile_of(room, "group_id:acme", "traits", "users"),
        "/v1/spaces/none/collections/users/profiles/user_id:ann/traits",
        f"/v1/spaces/{room.space_id}/collections/users/profiles/user_id:ann/nothing",
    ):
        answer = await room.client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    secret = await room.token("profiles:read")
    assert (await stranger.get(profile_of(room, "user_id:ann", "traits"), auth=(secret, ""))).status_code == 200


async def test_a_read_sees_every_event_acknowledged_before_it(room: Room) -> None:
    await room.audience(query=f"{BUYERS} AND event('Order Completed').sum(property('n')) >= 3")
    for number in range(100):
        answer = await room.client.post("/v1/track", json=track(f"u{number % 50}", n=number), auth=(room.write_key, ""))
        assert answer.status_code == 200
        told = await read(room, f"user_id:u{number % 50}")
        total = sum(range(number % 50, number + 1, 50))
        assert told["traits"].get("buyers", False) is (total >= 3)
        events = (await read(room, f"user_id:u{number % 50}", "events"))["data"]
        assert number in [one["properties"]["n"] for one in events]


async def test_the_past_is_read_as_it_was_and_as_it_was_known(room: Room) -> None:
    now = said_now(await room.client.get("/clock"))
    await room.send(
        {**identify("ann", plan="free"), "timestamp": "2026-02-01T00:00:00Z"},
        {**identify("ann", plan="pro", email="ann@x.io"), "timestamp": "2026-02-20T00:00:00Z"},
        {"type": "group", "userId": "ann", "groupId": "acme", "timestamp": "2026-02-20T00:00:00Z"},
    )
    assert (await read(room, "user_id:ann", at="2026-02-10"))["traits"] == {"plan": "free"}
    assert (await read(room, "user_id:ann", at="2026-02-21"))["traits"]["plan"] == "pro"
    for at, events, ids, links in (("2026-02-10", 1, 1, 0), ("2026-02-21", 3, 2, 1)):
        assert len((await read(room, "user_id:ann", "events", at=at))["data"]) == events
        assert len((await read(room, "user_id:ann", "external_ids", at=at))["data"]) == ids
        assert len((await read(room, "user_id:ann", "links", at=at))["data"]) == links
    assert (await read(room, "user_id:ann", "metadata", at="2026-02-10"))["metadata"]["updated_at"].startswith(
        "2026-02-01"
    )
    for query in ({"at": "2026-01-31"}, {"known": "2026-02-28"}):
        for part in PARTS:
            answer = await room.client.get(profile_of(room, "user_id:ann", part), params=query)
            assert answer.status_code == 404, (query, part)
    assert (await read(room, "user_id:ann", known=now))["traits"]["plan"] == "pro"


def said_now(answer: httpx.Response) -> str:
    """Return what the simulated clock shows."""
    said = answer.json()
    return str(said["data"]["now"] if "data" in said else said["now"])


async def test_a_linked_profile_tells_no_ids_of_later(room: Room) -> None:
    await room.send(
        {"type": "group", "userId": "ann", "groupId": "acme", "timestamp": "2026-02-01T00:00:00Z"},
        {**identify("ann", email="ann@x.io"), "timestamp": "2026-02-20T00:00:00Z"},
    )
    [link] = (await read(room, "group_id:acme", "links", "accounts", at="2026-02-10"))["data"]
    assert [one["id"] for one in link["external_ids"]] == ["ann"]
