"""Every route asks for its token and its scope, and lets nobody into another space."""

from typing import Any

import pytest

from actors.control import SCOPES, grants
from adapters.http.access import ANY, ROUTE_SCOPES, SPACELESS_ROUTES
from tests.http.stand import Stand

STREAMED = {"GET /spaces/{space_id}/changes"}


def filled(route: str, space_id: str) -> tuple[str, str]:
    """Return the method and a path of a route, nothing but its space being there."""
    method, path = route.split(" ")
    parts = {"{space_id}": space_id, "{collection}": "users", "{profile}": "user_id:nobody", "{audience_type}": "USERS"}
    for part, value in parts.items():
        path = path.replace(part, value)
    return method, "/".join("nothing_here" if part.startswith("{") else part for part in path.split("/"))


def body_of(method: str) -> dict[str, Any]:
    return {"json": {}} if method in ("POST", "PATCH") else {}


async def test_without_a_valid_token_every_route_is_401_and_says_how_to_send_one(stand: Stand) -> None:
    nobody, stranger = await stand.client(None), await stand.client("tt_made_up")
    for client in (nobody, stranger):
        for route in ROUTE_SCOPES:
            method, path = filled(route, stand.space.id)
            answer = await client.request(method, path, **body_of(method))
            assert answer.status_code == 401, route
            assert answer.headers["www-authenticate"].startswith("Basic"), route
        for path in ("/", "/nowhere", "/spaces/x/y/z", "/v1/spaces", "/schema/nothing", "/%2e%2e/spaces"):
            assert (await client.get(path)).status_code == 401, path


@pytest.mark.parametrize("scope", [*SCOPES, ANY])
async def test_a_token_is_let_into_the_routes_of_its_scope_and_no_others(stand: Stand, scope: str) -> None:
    client = await stand.token(scope) if scope else await stand.token("events:write")
    held = (scope or "events:write",)
    for route, needed in ROUTE_SCOPES.items():
        if route in STREAMED:
            continue
        method, path = filled(route, stand.space.id)
        answer = await client.request(method, path, **body_of(method))
        allowed = needed == ANY or grants(held, needed)
        assert (answer.status_code != 403) == allowed, (route, answer.text)
        assert answer.status_code != 401, route


async def test_a_token_of_another_space_is_let_into_none_of_this_one(stand: Stand) -> None:
    other = (await stand.admin.data("POST", "/spaces", json={"name": "Other"}))["space"]
    inside = await stand.token(*SCOPES, space=other["id"])
    for route in ROUTE_SCOPES:
        for named in (stand.space.id, "default", "no_such_space"):
            method, path = filled(route, named)
            if "{space_id}" in route:
                assert (await inside.request(method, path, **body_of(method))).status_code == 403, (route, named)
    for route in SPACELESS_ROUTES:
        method, path = filled(route, "")
        assert (await inside.request(method, path, json={"name": "Third"})).status_code == 403, route
    assert [one["id"] for one in (await inside.data("GET", "/spaces"))["spaces"]] == [other["id"]]
    by_slug = await inside.data("GET", "/spaces/other")
    assert by_slug["space"]["id"] == other["id"]


async def test_what_lies_above_spaces_shows_a_token_only_its_own(stand: Stand) -> None:
    other = (await stand.admin.data("POST", "/spaces", json={"name": "Other"}))["space"]
    inside = await stand.token("admin", space=other["id"])
    assert (await inside.data("GET", "/sources"))["sources"] == []
    assert len((await inside.data("GET", "/tokens"))["tokens"]) == 1
    [source] = (await stand.admin.data("GET", "/sources"))["sources"]
    tokens = (await stand.admin.data("GET", "/tokens"))["tokens"]
    first = next(one for one in tokens if one.get("spaceId") != other["id"])
    for method, path in (
        ("GET", f"/sources/{source['id']}"),
        ("PATCH", f"/sources/{source['id']}"),
        ("POST", f"/sources/{source['id']}/write-keys"),
        ("POST", f"/sources/{source['id']}/writekey"),
        ("DELETE", f"/sources/{source['id']}/writekey/{source['writeKeys'][0]}"),
        ("DELETE", f"/sources/{source['id']}/write-keys/{source['writeKeys'][0]}"),
        ("POST", f"/tokens/{first['id']}/rotate"),
        ("DELETE", f"/tokens/{first['id']}"),
    ):
        await inside.refusal(method, path, 403, **({"json": {"enabled": False}} if method == "PATCH" else {}))
    hook = {"sourceId": source["id"], "metadataId": "webhook", "settings": {"url": "https://example.com/"}}
    await inside.refusal("POST", "/destinations", 403, json=hook)
    made = await stand.admin.data("POST", "/destinations", json=hook)
    assert (await inside.data("GET", "/destinations"))["destinations"] == []
    for method in ("GET", "PATCH", "DELETE"):
        path = f"/destinations/{made['destination']['id']}"
        await inside.refusal(method, path, 404, **body_of(method))
    asked = {"slug": "web", "enabled": True, "metadataId": "http", "settings": {"spaceId": stand.space.id}}
    await inside.refusal("POST", "/sources", 403, json=asked)
    own = await inside.data("POST", "/sources", json={**asked, "settings": None})
    assert own["source"]["spaceId"] == other["id"]
    await inside.refusal("POST", "/tokens", 403, json={"name": "x", "scopes": ["admin"], "spaceId": stand.space.id})
    acts = (await inside.data("GET", "/audit-events"))["events"]
    assert {act["type"] for act in acts} == {"Space Created", "Source Created", "Access Token Created"}


async def test_a_revoked_a_rotated_and_an_expired_token_open_nothing(stand: Stand) -> None:
    made = await stand.admin.data("POST", "/tokens", json={"name": "a", "scopes": ["audiences:read"]})
    client = await stand.client(made["token"]["token"])
    await client.data("GET", "/spaces")
    rotated = await stand.admin.data("POST", f"/tokens/{made['token']['id']}/rotate")
    await client.refusal("GET", "/spaces", 401)
    client = await stand.client(rotated["token"]["token"])
    await client.data("GET", "/spaces")
    await stand.admin.data("DELETE", f"/tokens/{made['token']['id']}")
    await client.refusal("GET", "/spaces", 401)
    short = await stand.token("audiences:read", expiresAt="2026-03-01T13:00:00Z")
    await short.data("GET", "/spaces")
    await stand.move("2026-03-01T13:00:00Z")
    await short.refusal("GET", "/spaces", 401)


async def test_a_secret_is_told_once(stand: Stand) -> None:
    made = await stand.admin.data("POST", "/tokens", json={"name": "a", "scopes": ["audiences:read"]})
    secret = made["token"]["token"]
    source = (await stand.admin.data("POST", "/sources", json={"slug": "s", "enabled": True, "metadataId": "http"}))[
        "source"
    ]
    for path in ("/tokens", "/sources", "/audit-events", f"/sources/{source['id']}"):
        text = (await stand.admin.get(path)).text
        assert secret not in text
        assert source["writeKeys"][0] not in text
