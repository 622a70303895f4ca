"""Made-up cursors, at every route that takes one: refused by name, never an empty page."""

import base64
import json
from typing import Any, Final

import httpx
import pytest

from adapters.http.cursors import SEAL_BYTES, Cursors
from tests.api.room import Room, data_of, refusal_of, track
from tests.api.walk import Walk

PROFILE_LISTS: Final = {"external_ids": "ids", "events": "events", "links": "links"}
HUGE: Final = 10**15


def base64_of(raw: bytes) -> str:
    """Return bytes as cursors are spelt."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def forged(kind: str, size: int) -> dict[str, str]:
    """Return cursors of a list that nobody was given, each with its name; a true one holds `size` values."""
    spelt = {name: json.dumps([kind, *[value] * size]).encode() for name, value in (("huge", HUGE), ("text", "~"))}
    seal = b"\x00" * SEAL_BYTES
    return {
        **{f"a {name} key": base64_of(raw) for name, raw in spelt.items()},
        **{f"a {name} key, sealed": base64_of(seal + raw) for name, raw in spelt.items()},
        "made with another key": Cursors(b"another").encode(kind, *[HUGE] * size),
        "empty": base64_of(seal + json.dumps([kind]).encode()),
        "not base64": "§§§",
        "a number": str(HUGE),
        "too long": "A" * 5_000,
    }


def paged(document: dict[str, Any], parameter: str) -> list[str]:
    """Return the routes of the document that take a parameter."""
    return [
        f"GET {path}"
        for path, item in document["paths"].items()
        for one in item.get("get", {}).get("parameters", ())
        if one["name"] == parameter
    ]


async def document_of(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the OpenAPI document."""
    found: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    return found


async def test_every_list_of_the_management_api_refuses_cursors_that_it_did_not_give(walked: Walk) -> None:
    client = walked.room.client
    routes = paged(await document_of(client), "pagination[cursor]")
    assert len(routes) >= 18, routes

    async def get(route: str, cursor: str | None) -> httpx.Response:
        asked = walked.asked[route]
        more = {} if cursor is None else {"pagination[cursor]": cursor}
        return await client.get(asked.path, params={**asked.params, **more})

    given: dict[str, str] = {}
    for route in routes:
        pagination = data_of(await get(route, None))["pagination"]
        given[route] = current = pagination["current"]
        assert (await get(route, current)).status_code == 200, route
        raw = base64.urlsafe_b64decode(current + "=" * (-len(current) % 4))
        kind, *values = json.loads(raw[SEAL_BYTES:])
        cut = {"cut short": current[:-3], "with a letter more": current + "AAAA"}
        for name, cursor in {**forged(kind, len(values)), **cut}.items():
            refused = refusal_of(await get(route, cursor))
            assert (refused["status"], refused["field"]) == (400, "pagination[cursor]"), (route, name)
            assert "leave it out for the first page" in refused["message"], (route, name)
    for route in routes:
        strange = next(cursor for other, cursor in given.items() if cursor != given[route])
        assert (await get(route, strange)).status_code == 400, route


async def test_every_list_of_the_profile_api_refuses_cursors_that_it_did_not_give(walked: Walk) -> None:
    client = walked.room.client
    routes = paged(await document_of(client), "next")
    by_place = {route.rpartition("/")[2]: route for route in routes}
    assert by_place.keys() == {"traits", *PROFILE_LISTS}  # of traits `next` is a key: any text is a place among them
    for place, kind in PROFILE_LISTS.items():
        path = walked.asked[by_place[place]].path
        for name, cursor in forged(kind, 2 if kind == "events" else 1).items():
            answer = await client.get(path, params={"next": cursor})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "validation_error"), (place, name)
            assert "leave it out for the first page" in error["message"], (place, name)
        first = (await client.get(path, params={"limit": "1"})).json()["cursor"]
        if first["has_more"]:
            assert (await client.get(path, params={"next": first["next"]})).status_code == 200


@pytest.mark.parametrize("how", ["from", "last-event-id"])
async def test_the_stream_of_changes_refuses_a_sequence_that_was_never_given(room: Room, how: str) -> None:
    await room.audience()
    await room.send(track("a"))
    await room.space.settle()
    last = room.space.log.last_seq
    ahead = 1 if how == "from" else 0  # `from` names what comes next, too

    async def status(value: str) -> int:
        said = {"params": {"from": value}} if how == "from" else {"headers": {how: value}}
        async with room.client.stream("GET", f"{room.at}/changes", **said) as answer:  # type: ignore[arg-type]
            if answer.status_code != 200:
                await answer.aread()
                assert refusal_of(answer)["message"].endswith(f"expected a sequence from 0 to {last + ahead}")
            return answer.status_code

    assert [await status(value) for value in ("0", "1", str(last), str(last + ahead))] == [200] * 4
    for value in (str(last + ahead + 1), str(2**63), "9" * 5_000, "-1", "1.5", "x", "0x1", "1e3", "+1"):
        assert await status(value) == 400, value
