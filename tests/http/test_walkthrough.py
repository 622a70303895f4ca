"""A workspace's whole life, asked for as the official client library of the Segment Public API asks.

Its paths, headers, bodies and its way of sending `pagination` are written down here; each answer is judged by the
fields that the library declares (`public_fields`), and by the daemon's own document as everywhere.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import pytest

from tests.destinations.wire import Server, receiver
from tests.http import public_fields as fields
from tests.http.described import Client
from tests.http.public_fields import wrong_in
from tests.http.stand import Stand, ordered, standing

STABLE: Final = "application/vnd.segment.v1+json"
ALPHA: Final = "application/vnd.segment.v1alpha+json"
# What the generated client puts into Accept: every type that an operation is declared with.
ACCEPTS: Final = {
    STABLE: (
        "application/vnd.segment.v1+json, application/json, application/vnd.segment.v1beta+json, "
        "application/vnd.segment.v1alpha+json"
    ),
    ALPHA: "application/vnd.segment.v1alpha+json, application/json",
}
PATIENCE_S: Final = 20.0


class Library:
    """Sends requests as the generated client does."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(
        self,
        method: str,
        path: str,
        shape: dict[str, Any],
        body: dict[str, Any] | None = None,
        *,
        version: str = STABLE,
        pagination: dict[str, Any] | None = None,
    ) -> Any:
        """Send one request, judge the answer, and return its `data`."""
        headers = {
            "accept": ACCEPTS[version],
            "user-agent": "Segment Public API client (python)",
            **({"content-type": version} if body is not None else {}),
        }
        # The generated client prints the model of a page: a Python dict as text.
        query = {} if pagination is None else {"pagination": str(pagination)}
        content = None if body is None else json.dumps(body)
        answer = await self._client.request(method, path, params=query, content=content, headers=headers)
        assert answer.status_code == (201 if (method, path) == ("POST", "/sources") else 200), answer.text
        assert answer.headers["content-type"].split(";")[0] == version
        data = answer.json()["data"]
        assert wrong_in(data, shape) == []
        return data

    async def list(self, path: str, name: str, shape: dict[str, Any], *, version: str = STABLE) -> list[Any]:
        """Go through all pages of a list, two at a time."""
        pages = {name: [shape], "pagination": fields.PAGINATION}
        found: list[Any] = []
        asked: dict[str, Any] = {"count": 2}
        while True:
            data = await self.call("GET", path, pages, version=version, pagination=asked)
            assert len(data[name]) <= 2
            found += data[name]
            if "next" not in data["pagination"]:
                assert data["pagination"].get("totalEntries", len(found)) == len(found)
                return found
            asked = {"cursor": data["pagination"]["next"], "count": 2}


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Stand]:
    """Return a daemon on real time that may call this machine."""
    async with standing(tmp_path, simulated_clock="", allow_private_destinations=True) as started:
        yield started


def told(server: Server) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in server.requests]


async def until_told(server: Server, count: int) -> list[dict[str, Any]]:
    """Return what a receiver was sent once it is so many calls."""
    with anyio.fail_after(PATIENCE_S):
        while len(server.requests) < count:  # noqa: ASYNC110 - a real server tells by being called
            await anyio.sleep(0.02)
    return told(server)


async def test_a_workspaces_whole_life_as_the_official_client_asks_for_it(real: Stand) -> None:
    async with receiver() as server:
        await life(real, Library(real.admin), server)


async def life(real: Stand, library: Library, server: Server) -> None:
    # A space, a source, and events into it.
    [space] = await library.list("/spaces", "spaces", fields.SPACE, version=ALPHA)
    root = f"/spaces/{space['id']}"
    await library.call("GET", root, {"space": fields.SPACE}, version=ALPHA)
    asked = {"slug": "shop", "enabled": True, "metadataId": "UBrsG9RVzw", "settings": {"spaceId": space["id"]}}
    source = (await library.call("POST", "/sources", {"source": fields.SOURCE}, asked))["source"]
    [write_key] = source["writeKeys"]
    said = await real.send(
        {"type": "identify", "userId": "ann", "traits": {"email": "Ann@Example.com"}},
        ordered("ann", 120),
        ordered("bob", 30),
        {"type": "track", "anonymousId": "nobody", "event": "Order Completed", "properties": {"total": 500}},
        write_key=write_key,
    )
    assert said == {"success": True}

    # A destination.
    kinds = await library.call(
        "GET",
        f"{root}/audienceType/USERS/supported-destinations",
        {"destinations": dict, "pagination?": fields.PAGINATION},
        version=ALPHA,
    )
    assert wrong_in(kinds["destinations"]["webhook"], fields.METADATA) == []
    asked = {"sourceId": source["id"], "metadataId": "webhook", "name": "CRM", "settings": {"url": server.url}}
    destination = (await library.call("POST", "/destinations", {"destination": fields.DESTINATION}, asked))[
        "destination"
    ]
    assert destination["enabled"]
    assert await library.list("/destinations", "destinations", fields.DESTINATION) == [destination]

    # A preview, polled until it is done.
    query = "event('Order Completed').sum(property('total')) >= 100"
    asked = {"definition": {"query": query}, "audienceType": "USERS", "options": {"filterByExternalIds": ["user_id"]}}
    preview = await library.call(
        "POST", f"{root}/audiences/previews", {"audiencePreview": fields.ID}, asked, version=ALPHA
    )
    found = await settled(library, f"{root}/audiences/previews/{preview['audiencePreview']['id']}")
    assert (found["status"], found["size"]) == ("COMPLETED", {"count": 1, "type": "USERS"})
    assert [one["name"] for one in found["results"]] == ["ann"]

    # An audience, polled until it is live.
    asked = {
        "name": "Big spenders",
        "enabled": True,
        "description": "More than a hundred",
        "definition": {"query": query},
        "audienceType": "USERS",
        "options": {"includeHistoricalData": True, "filterByExternalIds": ["user_id", "email"]},
    }
    made = await library.call("POST", f"{root}/audiences", {"audience": fields.AUDIENCE}, asked, version=ALPHA)
    audience = await live(library, f"{root}/audiences/{made['audience']['id']}", "audience")
    assert audience["key"] == "big_spenders"
    assert audience["size"] == {"count": 1, "type": "USERS"}
    assert audience["computeCadence"] == {"type": "REALTIME"}
    assert audience["options"]["filterByExternalIds"] == ["user_id", "email"]
    listed = await library.list(f"{root}/audiences", "audiences", fields.AUDIENCE_WITH_LOOKBACK, version=ALPHA)
    assert [one["id"] for one in listed] == [audience["id"]]

    # Connected: its members so far are sent, and then each change.
    at = f"{root}/audiences/{audience['id']}"
    asked = {
        "destination": {"id": destination["id"], "type": "webhook"},
        "idSyncConfiguration": [{"externalId": "user_id", "strategy": "all"}],
        "connectionSettings": {"sendIdentify": False},
    }
    connected = await library.call("POST", f"{at}/destination-connections", fields.CONNECTED, asked, version=ALPHA)
    assert connected["idSyncConfiguration"] == [{"externalId": "user_id", "strategy": "all"}]
    assert connected["connectionSettings"] == {"sendIdentify": False}
    [first] = await until_told(server, 1)
    assert (first["event"], first["userId"]) == ("Audience Entered", "ann")
    await real.send(ordered("bob", 90), write_key=write_key)
    assert [(one["event"], one["userId"]) for one in await until_told(server, 2)][1:] == [("Audience Entered", "bob")]
    [connection] = await library.list(f"{at}/destination-connections", "connections", fields.CONNECTION, version=ALPHA)
    assert (connection["id"], connection["destinationId"]) == (connected["connection"]["id"], destination["id"])

    # Edited: only the differences go out.
    asked = {"definition": {"query": query.replace("100", "110")}, "name": "Bigger spenders"}
    edited = await library.call("PATCH", at, {"audience": fields.AUDIENCE}, asked, version=ALPHA)
    assert edited["audience"]["name"] == "Bigger spenders"
    await live(library, at, "audience")
    asked = {"definition": {"query": query.replace("100", "121")}}
    await library.call("PATCH", at, {"audience": fields.AUDIENCE}, asked, version=ALPHA)
    assert (await live(library, at, "audience"))["size"]["count"] == 0
    sent = sorted((one["event"], one["userId"]) for one in (await until_told(server, 4))[2:])
    assert sent == [("Audience Exited", "ann"), ("Audience Exited", "bob")]

    # The connection is changed, activated, removed.
    asked = {"idSyncConfiguration": [{"externalId": "email", "strategy": "last", "mapTo": "user_id"}]}
    path = f"{at}/destination-connections/{destination['id']}"
    changed = await library.call("PATCH", path, fields.CONNECTION_EDITED, asked, version=ALPHA)
    assert changed["destination"]["id"] == destination["id"]
    assert changed["idSyncConfiguration"] == asked["idSyncConfiguration"]
    assert changed["connectionSettings"] == {"sendIdentify": False}
    asked = {
        "enabled": True,
        "performResync": False,
        "activationType": "Audience Membership Changed",
        "activationName": "CRM",
        "personalization": {"profile": {"properties": ["email"]}},
    }
    path = f"{at}/destination-connections/{connection['id']}/activations"
    await library.call("POST", path, {"activation": fields.ACTIVATION}, asked, version=ALPHA)
    assert len(await library.list(f"{at}/activations", "activations", fields.ACTIVATION, version=ALPHA)) == 1
    await library.call("DELETE", f"{at}/destination-connections/{destination['id']}", fields.DELETED, version=ALPHA)
    assert await library.list(f"{at}/destination-connections", "connections", fields.CONNECTION, version=ALPHA) == []

    # A run, and a computed trait beside it.
    await library.call("POST", f"{at}/runs", {"run": fields.ID}, version=ALPHA)
    await computed_trait(library, root, audience)

    # A person is deleted.
    asked = {"regulationType": "SUPPRESS_WITH_DELETE", "subjectType": "USER_ID", "subjectIds": ["ann"]}
    regulate_id = (await library.call("POST", "/regulations", {"regulateId": str}, asked))["regulateId"]
    with anyio.fail_after(PATIENCE_S):
        while True:
            shape = {"regulation": fields.REGULATION}
            found = (await library.call("GET", f"/regulations/{regulate_id}", shape))["regulation"]
            if found["overallStatus"] == "FINISHED":
                break
            await anyio.sleep(0.05)
    assert found["streamStatus"][0]["id"] == space["id"]
    [suppressed] = await library.list("/suppressions", "suppressed", fields.SUPPRESSED)
    assert len(suppressed["subjectIds"]) == 1
    answer = await real.admin.get(f"/v1/spaces/{space['id']}/collections/users/profiles/user_id:ann/traits")
    assert answer.status_code == 404

    # Everything is written down, and an audience can go.
    await library.call("DELETE", at, fields.DELETED, version=ALPHA)
    acts = await library.list("/audit-events", "events", fields.AUDIT_EVENT)
    assert [act["type"] for act in acts] == [
        "Audience Deleted",
        "Regulation SUPPRESS_WITH_DELETE",
        "Computed Trait Deleted",
        "Audience Deleted",
        "Audience Created",
        "Computed Trait Modified",
        "Computed Trait Created",
        "Destination Disconnected",
        "Activation Created",
        "Destination Connection Modified",
        "Audience Modified",
        "Audience Modified",
        "Destination Connected",
        "Audience Created",
        "Destination Created",
        "Source Created",
        "Space Created",
    ]
    await refusals(real.admin, root)


async def settled(library: Library, path: str) -> Any:
    """Return a preview once it is no longer running."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            found = await library.call("GET", path, {"audiencePreview": fields.PREVIEW}, version=ALPHA)
            if found["audiencePreview"]["status"] != "RUNNING":
                return found["audiencePreview"]
            await anyio.sleep(0.02)


async def live(library: Library, path: str, name: str) -> Any:
    """Return an audience or computed trait once it is live."""
    shape = {name: fields.AUDIENCE_WITH_LOOKBACK if name == "audience" else fields.TRAIT}
    with anyio.fail_after(PATIENCE_S):
        while True:
            found = (await library.call("GET", path, shape, version=ALPHA))[name]
            if found["status"] == "Live":
                return found
            assert found["status"] in ("Preparing", "Backfilling")
            await anyio.sleep(0.02)


async def computed_trait(library: Library, root: str, audience: dict[str, Any]) -> None:
    query = "event('Order Completed').sum(property('total'))"
    asked: dict[str, Any] = {"name": "Total spend", "enabled": True, "definition": {"type": "USERS", "query": query}}
    shape = {"computedTrait": fields.TRAIT}
    made = (await library.call("POST", f"{root}/computed-traits", shape, asked))["computedTrait"]
    path = f"{root}/computed-traits/{made['id']}"
    found = await live(library, path, "computedTrait")
    assert (found["key"], found["size"]) == ("total_spend", 3)  # whoever orders without a name has a value too
    listed = await library.list(f"{root}/computed-traits", "computedTraits", fields.TRAIT)
    assert [one["id"] for one in listed] == [made["id"]]
    asked = {"description": "All of it", "definition": {"type": "USERS", "query": query.replace("sum", "max")}}
    await library.call("PATCH", path, shape, asked)
    assert (await live(library, path, "computedTrait"))["description"] == "All of it"
    asked = {"name": "Spenders", "audienceType": "USERS", "definition": {"query": "trait('total_spend') > 50"}}
    other = await library.call("POST", f"{root}/audiences", {"audience": fields.AUDIENCE}, asked, version=ALPHA)
    referring = await library.list(f"{path}/audience-references", "audiences", fields.AUDIENCE, version=ALPHA)
    assert [one["key"] for one in referring] == ["spenders"]
    await library.call("DELETE", f"{root}/audiences/{other['audience']['id']}", fields.DELETED, version=ALPHA)
    assert (
        await library.list(f"{root}/audiences/{audience['id']}/audience-references", "audiences", fields.AUDIENCE) == []
    )
    await library.call("DELETE", path, fields.DELETED)


async def refusals(client: httpx.AsyncClient, root: str) -> None:
    for method, path, body, status in (
        ("GET", f"{root}/audiences/aud_99", None, 404),
        ("POST", f"{root}/audiences", {"name": "x"}, 400),
        ("POST", f"{root}/audiences", {"name": "x", "audienceType": "USERS", "definition": {"query": "even('"}}, 400),
        ("GET", "/workspaces", None, 404),
    ):
        answer = await client.request(method, path, json=body, headers={"accept": ALPHA})
        assert answer.status_code == status
        assert wrong_in(answer.json(), fields.ERRORS) == []
