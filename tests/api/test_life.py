"""Audiences from their creation to their end, as a client of the management API sees it."""

import json
from array import array
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from actors.history import Progress, unheard
from actors.scanning import Job, Page, Scans
from actors.space import Space
from adapters.config import Settings
from adapters.daemon import Daemon, running
from eventlog.log import Log
from tests.api.room import BUYERS, NOON, Room, data_of, identify, open_room, refusal_of, track
from tests.api.walk import STREAMS, Walk
from tests.destinations.wire import receiver

SPEND = "event('Order Completed').sum(property('total')) >= {}"


def body_of(name: str, query: str = BUYERS, **more: Any) -> dict[str, Any]:
    """Return the body of a creation."""
    return {"name": name, "audienceType": "USERS", "definition": {"query": query}, **more}


# -- lists and pages -------------------------------------------------------------------------------------------------


async def test_three_hundred_audiences_are_listed_by_pages_forth_and_back(room: Room) -> None:
    names = [f"Audience {number:03}" for number in range(305)]
    for name in names:
        data_of(await room.client.post(f"{room.at}/audiences", json=body_of(name, enabled=False)))
    found, pages, params = [], [], {"pagination[count]": "100"}
    while True:
        page = data_of(await room.client.get(f"{room.at}/audiences", params=params))
        pages.append(page["audiences"])
        found += [one["name"] for one in page["audiences"]]
        assert page["pagination"]["totalEntries"] == 305
        if "next" not in page["pagination"]:
            break
        params["pagination[cursor]"] = page["pagination"]["next"]
    assert found == names
    assert [len(one) for one in pages] == [100, 100, 100, 5]
    params["pagination[cursor]"] = page["pagination"]["previous"]
    assert data_of(await room.client.get(f"{room.at}/audiences", params=params))["audiences"] == pages[2]
    cursor = params["pagination[cursor]"]
    for spelled in (json.dumps({"count": 7, "cursor": cursor}), str({"count": 7, "cursor": cursor})):
        page = data_of(await room.client.get(f"{room.at}/audiences", params={"pagination": spelled}))
        assert page["audiences"] == pages[2][:7]


@pytest.mark.parametrize(
    "params",
    [
        {"pagination[count]": "0"},
        {"pagination[count]": "1001"},
        {"pagination[count]": "many"},
        {"pagination[cursor]": "forged"},
        {"pagination[cursor]": "WyJub3doZXJlIiwxXQ"},  # a cursor of a list that is none
        {"pagination": "{'count': 'many'}"},
        {"pagination": "junk"},
    ],
)
async def test_a_page_that_is_none_is_refused_by_every_list(walked: Walk, params: dict[str, str]) -> None:
    lists = [route for route, answer in walked.answers.items() if is_list(route, answer)]
    assert len(lists) > 15
    for route in lists:
        asked = walked.asked[route]
        answer = await walked.room.client.get(asked.path, params={**asked.params, **params})
        assert refusal_of(answer)["type"] == "invalid_pagination", route
        assert answer.status_code == 400


def is_list(route: str, answer: httpx.Response) -> bool:
    """Tell whether a route answers in pages."""
    return (
        route not in STREAMS
        and "/schema" not in route
        and '"pagination":{' in answer.text
        and answer.status_code == 200
    )


async def test_members_are_paged_now_and_in_the_past(room: Room) -> None:
    made = await room.audience()
    early = "2026-02-01T00:00:00Z"
    await room.send(*[track(f"u{number:02}", timestamp=early) for number in range(25)])
    await room.send(*[track(f"v{number:02}", timestamp="2026-02-20T00:00:00Z") for number in range(5)])
    path = f"{room.at}/audiences/{made['id']}/members"

    async def names(**query: str) -> list[str]:
        found: list[str] = []
        params = {"pagination[count]": "10", **query}
        while True:
            page = data_of(await room.client.get(path, params=params))
            assert len(page["members"]) <= 10
            found += [one["name"] for one in page["members"]]
            if "next" not in page["pagination"]:
                return sorted(found)
            params["pagination[cursor]"] = page["pagination"]["next"]

    first = [f"u{number:02}" for number in range(25)]
    assert await names() == first + [f"v{number:02}" for number in range(5)]
    assert await names(at="2026-02-10") == first
    assert await names(at="2026-01-01") == []
    answer = await room.client.get(path, params={"known": "2026-02-28"})
    assert answer.status_code == 404  # nobody had defined it by then


# -- names, keys, definitions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [("Big Spénders!", "big_spenders"), ("  Ünï  ", "uni"), ("A😀B", "a_b"), ("--x--", "x"), ("É" * 3, "eee")],
)
async def test_a_key_is_made_from_the_name(room: Room, name: str, key: str) -> None:
    assert (await room.audience(name))["key"] == key


@pytest.mark.parametrize("name", ["😀", "日本語", "𐍈𐍈", "\U000e0041", "\U0010fffd", "\ue000", "‮abc", "a\u0301\u0000"])
async def test_names_of_every_plane_are_kept_as_they_are(room: Room, name: str) -> None:
    made = await room.audience(name, key="mine", description=name)
    assert (made["name"], made["description"], made["key"]) == (name, name, "mine")
    listed = data_of(await room.client.get(f"{room.at}/audiences"))["audiences"]
    assert [one["name"] for one in listed] == [name]


async def test_a_name_of_which_no_key_is_left_needs_one(room: Room) -> None:
    answer = await room.client.post(f"{room.at}/audiences", json=body_of("日本語"))
    assert answer.status_code == 400
    assert "key" in refusal_of(answer)["message"]


async def test_a_key_is_never_used_again(room: Room) -> None:
    made = await room.audience("Buyers")
    at = f"{room.at}/audiences"
    assert (await room.client.post(at, json=body_of("BUYERS"))).status_code == 409
    trait = {"name": "buyers", "definition": {"type": "USERS", "query": "event('x').count()"}}
    assert (await room.client.post(f"{room.at}/computed-traits", json=trait)).status_code == 409
    assert data_of(await room.client.delete(f"{at}/{made['id']}")) == {"status": "SUCCESS"}
    assert (await room.client.get(f"{at}/{made['id']}")).status_code == 404
    assert refusal_of(await room.client.post(at, json=body_of("Buyers")))["status"] == 409
    assert (await room.client.post(f"{room.at}/computed-traits", json=trait)).status_code == 409


async def test_a_source_is_no_place_to_keep_megabytes(room: Room) -> None:
    body = {"slug": "big", "enabled": True, "metadataId": "x"}
    for more, field in (({"metadataId": "x" * 201}, "metadataId"), ({"settings": {"a": "x" * 40_000}}, "settings")):
        refused = refusal_of(await room.client.post("/sources", json={**body, **more}))
        assert (refused["status"], refused["field"]) == (400, field)


async def test_linked_audiences_are_not_served(room: Room) -> None:
    for path in ("audiences", "audiences/previews"):
        answer = await room.client.post(f"{room.at}/{path}", json={**body_of("x"), "audienceType": "LINKED"})
        assert answer.status_code == 404
        assert "linked" in refusal_of(answer)["message"]
    answer = await room.client.get(f"{room.at}/audienceType/LINKED/supported-destinations")
    assert refusal_of(answer)["status"] == 404


async def test_a_bad_query_is_refused_with_its_place(room: Room) -> None:
    made = await room.audience()
    bad = "event('x')\n  .within(7 fortnights).count() >= 1"
    answers = [
        await room.client.post(f"{room.at}/audiences", json=body_of("x", bad)),
        await room.client.post(f"{room.at}/audiences/previews", json=body_of("x", bad)),
        await room.client.patch(f"{room.at}/audiences/{made['id']}", json={"definition": {"query": bad}}),
        await room.client.post(f"{room.at}/definitions/check", json={"query": bad, "type": "USERS"}),
    ]
    for answer in answers:
        error = refusal_of(answer)
        assert (answer.status_code, error["type"]) == (400, "invalid_query")
        assert (error["data"]["line"], error["data"]["column"], error["data"]["found"]) == (2, 13, "'fortnights'")
        assert "days" in error["data"]["accepted"]


async def test_fields_that_are_not_known_are_ignored(room: Room) -> None:
    made = await room.audience("A", new={"x": [1]}, options={"later": True})
    answer = await room.client.patch(f"{room.at}/audiences/{made['id']}", json={"name": "B", "id": "x", "key": "y"})
    changed = data_of(answer)["audience"]
    assert (changed["id"], changed["key"], changed["name"]) == (made["id"], "a", "B")


async def test_a_definition_that_others_refer_to_stays(room: Room) -> None:
    made = await room.audience("Inner")
    outer = await room.audience("Outer", "audience('inner')")
    answer = await room.client.delete(f"{room.at}/audiences/{made['id']}")
    assert answer.status_code == 409
    assert "outer" in refusal_of(answer)["message"]
    found = data_of(await room.client.get(f"{room.at}/audiences/{made['id']}/audience-references"))
    assert [one["key"] for one in found["audiences"]] == ["outer"]
    data_of(await room.client.delete(f"{room.at}/audiences/{outer['id']}"))
    data_of(await room.client.delete(f"{room.at}/audiences/{made['id']}"))


async def test_a_deletion_tells_destinations_that_all_left_only_if_asked_to(room: Room) -> None:
    client = room.client
    async with receiver() as crm:
        body = {"sourceId": room.source_id, "metadataId": "webhook", "name": "crm", "settings": {"url": crm.url}}
        destination = data_of(await client.post("/destinations", json=body))["destination"]
        connected = {
            "destination": {"id": destination["id"], "type": "webhook"},
            "connectionSettings": {"sendIdentify": False},
        }
        paths = []
        for name in ("Silent", "Loud"):
            made = await room.audience(name)
            paths.append(f"{room.at}/audiences/{made['id']}")
            data_of(await client.post(f"{paths[-1]}/destination-connections", json=connected))
        await room.send(track("ann"))

        async def told(count: int) -> list[tuple[str, str]]:
            with anyio.fail_after(20):
                while len(crm.requests) < count:  # noqa: ASYNC110 - a real server tells by being called
                    await anyio.sleep(0.005)
            calls = [json.loads(request.body) for request in crm.requests]
            return [(call["event"], call["properties"]["audience_key"]) for call in calls]

        assert sorted(await told(2)) == [("Audience Entered", "loud"), ("Audience Entered", "silent")]
        data_of(await client.delete(paths[0]))
        data_of(await client.delete(paths[1], params={"sendExits": "true"}))
        assert (await told(3))[2:] == [("Audience Exited", "loud")]
        await client.delete(f"/destinations/{destination['id']}")


class _Held:
    """Scans that begin once they are let go."""

    def __init__(self, scans: Scans) -> None:
        self._scans = scans
        self.let_go = anyio.Event()

    @asynccontextmanager
    async def run(
        self, log: Log, job: Job, canonical: "array[int]", hear: Progress = unheard
    ) -> AsyncIterator[Iterable[Page]]:
        """Scan."""
        await self.let_go.wait()
        async with self._scans.run(log, job, canonical, hear) as pages:
            yield pages


async def test_an_edit_under_way_locks_the_audience(room: Room) -> None:
    await room.send(*[track(f"u{number}", total=number) for number in range(500)])
    made = await room.audience(query=SPEND.format(100))
    path = f"{room.at}/audiences/{made['id']}"
    assert isinstance(room.space, Space)
    held = room.space.scans = _Held(room.space.scans)
    answers: dict[int, httpx.Response] = {}

    async def edit(total: int) -> None:
        query = (
            f"event('Order Completed').where(property('total') >= {total}).count() >= 1"  # asks what nobody asked yet
        )
        answers[total] = await room.client.patch(path, json={"definition": {"query": query}})

    async with anyio.create_task_group() as tasks:
        for total in range(200, 208):
            tasks.start_soon(edit, total)
    refused = [answer for answer in answers.values() if answer.status_code != 200]
    (taken,) = (total for total, answer in answers.items() if answer.status_code == 200)
    for answer in refused:
        error = refusal_of(answer)
        assert answer.status_code == 409
        assert error["data"]["locked"] is True
        assert 0 <= error["data"]["progress"] <= 1
        assert int(answer.headers["retry-after"]) >= 1
    during = data_of(await room.client.get(path))["audience"]
    assert (during["locked"], during["size"]["count"]) == (True, 400)  # who was in it stays readable
    held.let_go.set()
    await room.space.backfilled(made["id"])
    after = data_of(await room.client.get(path))["audience"]
    assert (after["locked"], after["status"]) == (False, "Live")
    assert after["size"]["count"] == 500 - taken


# -- questions -------------------------------------------------------------------------------------------------------


async def test_a_preview_of_an_edit_tells_who_stays_enters_and_leaves(room: Room) -> None:
    await room.send(*[track(name, total=total) for name, total in (("a", 5), ("b", 15), ("c", 25))])
    made = await room.audience(query=f"{SPEND.format(10)} AND event('Order Completed').sum(property('total')) < 20")
    told = await room.preview(definition={"query": SPEND.format(12)}, editOf=made["key"])
    sides = {side: [one["name"] for one in told["difference"][side]["sample"]] for side in ("stay", "enter", "leave")}
    assert sides == {"stay": ["b"], "enter": ["c"], "leave": []}
    told = await room.preview(definition={"query": SPEND.format(20)}, editOf=made["id"])
    assert {side: one["count"] for side, one in told["difference"].items()} == {"stay": 0, "enter": 1, "leave": 1}
    assert (told["size"], told["status"]) == ({"count": 1, "type": "USERS"}, "COMPLETED")
    assert data_of(await room.client.get(f"{room.at}/audiences"))["pagination"]["totalEntries"] == 1


async def test_each_side_of_an_edit_has_a_sample_of_its_own_in_order_and_no_larger_than_asked_for(room: Room) -> None:
    await room.send(*[track(f"u{number}", total=number) for number in range(9)])
    made = await room.audience(query=f"{SPEND.format(0)} AND event('Order Completed').sum(property('total')) < 6")
    for size in (0, 2, 100):
        told = await room.preview(definition={"query": SPEND.format(3)}, editOf=made["id"], sampleSize=size)
        sides = told["difference"]
        assert {side: sides[side]["count"] for side in sides} == {"stay": 3, "enter": 3, "leave": 3}
        for side, first in (("leave", 0), ("stay", 3), ("enter", 6)):
            assert [one["name"] for one in sides[side]["sample"]] == [f"u{first + n}" for n in range(min(size, 3))]


async def test_an_edit_of_another_type_is_no_edit(room: Room) -> None:
    made = await room.audience()
    for body in ({"audienceType": "ACCOUNTS", "definition": {"query": "trait('plan').exists()"}}, {"trait": True}):
        asked = {"audienceType": "USERS", "definition": {"query": BUYERS}, "editOf": made["id"], **body}
        if "trait" in body:
            asked["definition"] = {"query": "event('Order Completed').count()"}
        refused = refusal_of(await room.client.post(f"{room.at}/audiences/previews", json=asked))
        assert (refused["status"], refused["field"]) == (400, "editOf")
        assert "is an audience of USERS" in refused["message"]


async def test_a_preview_tells_the_size_at_moments_of_the_past(room: Room) -> None:
    days = ("2026-02-10", "2026-02-20", "2026-02-27")
    await room.send(*[track(f"u{n}", timestamp=f"{day}T12:00:00Z") for n, day in enumerate(days)])
    told = await room.preview(definition={"query": BUYERS}, sizeOverTime={"points": 4, "days": 30}, at=NOON)
    assert told["sizeOverTime"] == [
        {"at": f"2026-{day}T12:00:00.000Z", "size": size}
        for day, size in (("01-30", 0), ("02-09", 0), ("02-19", 1), ("03-01", 3))
    ]
    left = "event('Order Completed').within(14 days).count() >= 1"
    told = await room.preview(definition={"query": left}, sizeOverTime={"points": 2, "days": 3}, at=NOON)
    assert [one["size"] for one in told["sizeOverTime"]] == [1, 2]
    assert "sizeOverTime" not in await room.preview(definition={"query": BUYERS})


async def test_a_preview_heeds_its_options_and_one_of_an_edit_those_of_the_audience(room: Room) -> None:
    visitor = {"type": "track", "anonymousId": "v1", "event": "Order Completed"}
    await room.send(track("now"), track("old", timestamp="2026-01-01T00:00:00Z"), visitor)
    anonymous = {"filterByExternalIds": ["anonymous_id"]}

    async def names(**more: Any) -> list[str]:
        found = await room.preview(definition={"query": BUYERS}, **more)
        return sorted(one["name"] for one in found["results"])

    assert await names() == ["now", "old"]
    assert await names(options=anonymous) == ["anonymous_id:v1"]
    assert await names(options={"backfillEventDataDays": 10}) == ["now"]
    visitors = await room.audience("Visitors", options=anonymous)
    assert await names(editOf=visitors["id"]) == ["anonymous_id:v1"]
    assert await names(editOf=visitors["id"], options={"filterByExternalIds": ["user_id"]}) == ["now", "old"]


async def test_a_preview_of_an_edit_that_would_go_in_a_circle_says_so(room: Room) -> None:
    one = await room.audience("One")
    await room.audience("Two", "audience('one')")
    told = await room.preview(definition={"query": "audience('two')"}, editOf=one["id"])
    assert told["status"] == "FAILED"
    assert "one -> two -> one" in told["failureReason"]


async def test_a_definition_may_refer_to_what_is_not_there_yet(room: Room) -> None:
    await room.send(track("a", total=5), track("b", total=50))
    rich = await room.audience("Rich", "trait('spend') >= 10")
    none = await room.audience("None", "trait('spend').absent() AND event('Order Completed').count() >= 1")
    assert (rich["size"]["count"], none["size"]["count"]) == (0, 2)
    await room.trait("Spend", "event('Order Completed').sum(property('total'))")
    found = [data_of(await room.client.get(f"{room.at}/audiences/{one['id']}"))["audience"] for one in (rich, none)]
    assert [one["size"]["count"] for one in found] == [1, 0]


async def test_what_lies_in_another_space_is_not_found_under_this_one(
    room: Room, daemon: Daemon, client: httpx.AsyncClient
) -> None:
    other = await open_room(daemon, client)
    made, theirs = await room.audience(), await other.audience()
    assert made["id"] == theirs["id"]  # ids of definitions are unique in their space alone
    preview = await other.preview(definition={"query": BUYERS})
    export = await other.export(f"audiences/{theirs['id']}")
    for path in (f"previews/{preview['id']}", f"{made['id']}/exports/{export['id']}"):
        data_of(await client.get(f"{other.at}/audiences/{path}"))
        assert (await client.get(f"{room.at}/audiences/{path}")).status_code == 404, path
    download = f"audiences/{made['id']}/exports/{export['id']}/download"
    assert [(await client.get(f"{at}/{download}")).status_code for at in (other.at, room.at)] == [200, 404]
    assert (await client.delete(f"{room.at}/audiences/previews/{preview['id']}")).status_code == 404
    assert data_of(await client.get(f"{room.at}/audiences/{made['id']}/exports"))["exports"] == []


async def test_users_and_accounts_do_not_overlap_and_a_computed_trait_has_no_members(room: Room) -> None:
    made = await room.audience()
    accounts = await room.audience("Firms", "trait('plan').exists()", audienceType="ACCOUNTS")
    trait = await room.trait("Total", "event('Order Completed').sum(property('total'))")
    path = f"{room.at}/audiences/{made['id']}/overlap"
    refused = refusal_of(await room.client.get(path, params={"with": accounts["key"]}))
    assert (refused["status"], refused["field"]) == (400, "with")
    assert refusal_of(await room.client.get(path, params={"with": trait["key"]}))["status"] == 404


async def test_explain_history_and_overlap(room: Room) -> None:
    one, other = await room.audience("One", SPEND.format(10)), await room.audience("Other", SPEND.format(20))
    await room.send(track("a", total=12), track("b", total=25), track("c", total=1))
    path = f"{room.at}/audiences/{one['id']}"
    told = data_of(await room.client.get(f"{path}/overlap", params={"with": other["key"]}))
    assert (told["count"], told["audience"]["only"], told["other"]["only"]) == (1, 1, 0)
    assert (told["audience"]["size"], told["other"]["size"]) == (2, 1)
    days = data_of(await room.client.get(f"{path}/history"))["history"]
    assert [(day["entered"], day["exited"], day["size"]) for day in days] == [(2, 0, 2)]
    told = data_of(await room.client.get(f"{path}/explain", params={"profile": "user_id:a"}))
    assert told["profile"]["name"] == "a"
    for profile, status in (("user_id:none", 404), ("a", 400), (":", 400)):
        answer = await room.client.get(f"{path}/explain", params={"profile": profile})
        assert refusal_of(answer)["status"] == status
    assert "profile" in refusal_of(await room.client.get(f"{path}/explain"))["message"]
    assert refusal_of(await room.client.get(f"{path}/overlap", params={"with": "none"}))["status"] == 404


async def test_changes_are_followed_and_taken_up_behind_the_last_one_seen(room: Room) -> None:
    await room.audience()
    await room.send(track("a"), track("b"), track("c"))
    await room.space.settle()

    async def follow(count: int, **how: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with anyio.fail_after(10):
            async with room.client.stream("GET", f"{room.at}/changes", **how) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        found.append(json.loads(line.removeprefix("data: ")))
                        if len(found) == count:
                            break
        return found

    seen = await follow(3, params={"from": "0"})
    assert [(one["type"], one["profile"], one["key"]) for one in seen] == [
        ("entered", name, "buyers") for name in ("a", "b", "c")
    ]
    assert await follow(2, headers={"last-event-id": str(seen[0]["seq"])}) == seen[1:]
    assert await follow(1, params={"from": str(seen[2]["seq"])}) == seen[2:]
    again = {"params": {"from": "0"}, "headers": {"last-event-id": str(seen[1]["seq"])}}  # a browser that reconnects
    assert await follow(1, **again) == seen[2:]
    for how in ({"params": {"from": "x"}}, {"headers": {"last-event-id": "-1"}}):
        answer = await room.client.get(f"{room.at}/changes", **how)  # type: ignore[arg-type]
        assert refusal_of(answer)["status"] == 400


async def test_more_requests_than_the_settings_allow_are_told_when_to_come_again(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path / "data"), port=0, simulated_clock=NOON, token_rate_per_s=0.5, token_burst=3)
    async with running(settings) as daemon, httpx.AsyncClient(base_url=daemon.url) as client:
        assert daemon.first is not None
        client.headers["authorization"] = f"Bearer {daemon.first.admin_token}"
        answers = [await client.get("/spaces") for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        assert refusal_of(answers[3])["type"] == "rate_limited"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 2
        answer = await client.get("/v1/spaces/default/collections/users/profiles/user_id:a/traits")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_error")
        assert int(answer.headers["retry-after"]) >= 1


# -- the audit trail -------------------------------------------------------------------------------------------------


async def test_every_administrative_act_is_in_the_audit_trail(walked: Walk) -> None:
    changing = [
        route
        for route, answer in walked.answers.items()
        if not route.startswith("GET ") and answer.status_code in (200, 201)
    ]
    reading = ("/previews", "/runs", "/definitions/check", "/ping")
    acts = data_of(await walked.room.client.get("/audit-events", params={"pagination[count]": "1000"}))["events"]
    told = {act["type"] for act in acts if act["actor"] not in ("", None)}
    expected = {
        "Space Created", "Space Settings Modified", "Source Created", "Source Disabled", "Write Key Added",
        "Write Key Removed", "Access Token Created", "Access Token Rotated", "Access Token Deleted",
        "Regulation SUPPRESS_ONLY",
        "Audience Created", "Audience Modified", "Audience Deleted", "Computed Trait Created",
        "Computed Trait Modified", "Computed Trait Deleted", "Export Created", "Destination Created",
        "Destination Modified", "Destination Deleted", "Destination Connected", "Destination Connection Modified",
        "Destination Disconnected", "Activation Created", "Dead Letters Resent", "Dead Letters Deleted",
    }  # fmt: skip
    assert expected - told == set(), sorted(told)
    assert len({route for route in changing if not route.endswith(reading)}) >= len(expected)


async def test_the_audit_trail_is_found_by_resource_and_paged(room: Room) -> None:
    made = await room.audience()
    await room.client.patch(f"{room.at}/audiences/{made['id']}", json={"enabled": False})
    await room.client.patch(f"{room.at}/audiences/{made['id']}", json={"enabled": True})
    await room.send(identify("ann", plan="pro"))
    params = {"resourceId": made["id"], "spaceId": room.space_id, "pagination[count]": "2"}
    page = data_of(await room.client.get("/audit-events", params=params))
    params["pagination[cursor]"] = page["pagination"]["next"]
    rest = data_of(await room.client.get("/audit-events", params=params))
    acts = page["events"] + rest["events"]
    assert [act["type"] for act in acts] == ["Audience Enabled", "Audience Disabled", "Audience Created"]
    assert {(act["resourceId"], act["resourceType"], act["spaceId"]) for act in acts} == {
        (made["id"], "audience", room.space_id)
    }
    assert "next" not in rest["pagination"]
    assert (await room.client.get("/audit-events", params={"spaceId": "none"})).status_code == 404
