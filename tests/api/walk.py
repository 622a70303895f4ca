"""Every route of the APIs asked once, in an order in which all that it needs is there: what other tests look at.

Reading comes first, then what creates and changes, then what deletes.
"""

from typing import Any, Final

import anyio
import httpx
from msgspec import Struct

from adapters.daemon import Daemon
from adapters.http.access import ROUTE_SCOPES
from tests.api.room import BUYERS, Room, data_of, identify, open_room, track
from tests.destinations.wire import receiver

BODIES: Final[dict[str, dict[str, Any]]] = {
    "POST /spaces": {"name": "Walked"},
    "PATCH /spaces/{space_id}/settings": {"dedupeWindow": "2 hours"},
    "POST /sources": {"slug": "walked", "enabled": True, "metadataId": "javascript", "settings": {}},
    "PATCH /sources/{source_id}": {"enabled": False},
    "POST /tokens": {"name": "walked", "scopes": ["audiences:read"]},
    "POST /regulations": {"regulationType": "SUPPRESS_ONLY", "subjectType": "USER_ID", "subjectIds": ["nobody"]},
    "POST /spaces/{space_id}/audiences": {
        "name": "Walked",
        "description": "who was there",
        "audienceType": "USERS",
        "definition": {"query": BUYERS},
        "options": {"includeHistoricalData": True, "filterByExternalIds": ["user_id"], "backfillEventDataDays": 90},
    },
    "PATCH /spaces/{space_id}/audiences/{audience_id}": {"description": "new"},
    "POST /spaces/{space_id}/audiences/previews": {"audienceType": "USERS", "definition": {"query": BUYERS}},
    "POST /spaces/{space_id}/audiences/{audience_id}/exports": {"format": "formatted"},
    "POST /spaces/{space_id}/computed-traits": {
        "name": "Walked trait",
        "definition": {"type": "USERS", "query": "event('Order Completed').count()"},
        "options": {"includeHistoricalData": True, "includeAnonymousUsers": True, "backfillDurationDays": 30},
    },
    "PATCH /spaces/{space_id}/computed-traits/{trait_id}": {"description": "new"},
    "POST /spaces/{space_id}/computed-traits/{trait_id}/exports": {},
    "POST /spaces/{space_id}/definitions/check": {"query": BUYERS, "type": "USERS"},
    "POST /destinations": {"sourceId": "{source_id}", "metadataId": "webhook", "settings": {"url": "{url}"}},
    "POST /destinations/{destination_id}/copies": {"name": "copied", "enabled": False},
    "PATCH /destinations/{destination_id}": {"name": "renamed"},
    "POST /spaces/{space_id}/audiences/{audience_id}/destination-connections/{connection_id}/activations": {
        "activationType": "audience_entered",
        "activationName": "Entered",
        "performResync": False,
        "enabled": True,
    },
    **{
        f"{method} /spaces/{{space_id}}/{of}/destination-connections{end}": body
        for of in ("audiences/{audience_id}", "computed-traits/{trait_id}")
        for method, end, body in (
            ("POST", "", {"destination": {"id": "{spare_id}", "type": "csv"}}),
            (
                "PATCH",
                "/{destination_id}",
                {"idSyncConfiguration": [{"externalId": "user_id", "strategy": "all", "mapTo": "user"}]},
            ),
        )
    },
}
"""What is sent; `{…}` stands for what lies in the room."""
QUERIES: Final = {"explain": {"profile": "user_id:ann"}, "overlap": {"with": "readers"}}
STREAMS: Final = ("GET /spaces/{space_id}/changes",)
_ORDER: Final = ("GET", "POST", "PATCH", "DELETE")


class Asked(Struct, frozen=True):
    """What a route is asked."""

    method: str
    path: str
    params: dict[str, str]
    body: dict[str, Any] | None


class Walk(Struct, frozen=True):
    """What was asked and answered, by route; and a room with all of it, in which nothing was changed."""

    room: Room
    other: Room
    places: dict[str, str]
    asked: dict[str, Asked]
    answers: dict[str, httpx.Response]


def ask_of(route: str, places: dict[str, str]) -> Asked:
    """Return the request of a route in a room whose things are named so."""
    method, _, path = route.partition(" ")
    if route == "DELETE /spaces/{space_id}/audiences/{audience_id}":
        places = {**places, "audience_id": places["readers_id"]}
    body = BODIES.get(route)
    return Asked(method, path.format(**places), QUERIES.get(path.rpartition("/")[2], {}), _filled(body, places))


def _filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(item, places) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, places) for item in value]
    return value.format(**places) if isinstance(value, str) else value


async def ask(client: httpx.AsyncClient, asked: Asked, **more: Any) -> httpx.Response:
    """Send a request; of a stream only the head of the answer is read."""
    request = client.build_request(asked.method, asked.path, params=asked.params, json=asked.body, **more)
    answer = await client.send(request, stream=True)
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        await answer.aread()
    await answer.aclose()
    return answer


async def furnish(room: Room, url: str) -> dict[str, str]:
    """Put one of each thing into a room and return what they are named."""
    client, at = room.client, room.at
    await room.send(
        identify("ann", email="ann@example.com", plan="pro"),
        track("ann", total=10),
        track("bob", total=20),
        {"type": "group", "userId": "ann", "groupId": "acme", "traits": {"plan": "pro"}},
    )
    await client.post("/v1/track", json={"userId": "eve"}, auth=(room.write_key, ""))  # refused, and kept as such
    audience = await room.audience()
    readers = await room.audience("Readers", "event('Article Read').count() >= 1 OR audience('buyers')")
    trait = await room.trait("Total", "event('Order Completed').sum(property('total'))")
    body = {"sourceId": room.source_id, "metadataId": "webhook", "name": "crm", "settings": {"url": url}}
    destination = data_of(await client.post("/destinations", json=body))["destination"]
    spare = data_of(await client.post("/destinations", json={**body, "metadataId": "csv", "settings": {}}))[
        "destination"
    ]
    connected = {"destination": {"id": destination["id"], "type": "webhook"}}
    made = await client.post(f"{at}/audiences/{audience['id']}/destination-connections", json=connected)
    await client.post(f"{at}/computed-traits/{trait['id']}/destination-connections", json=connected)
    activation = BODIES[
        "POST /spaces/{space_id}/audiences/{audience_id}/destination-connections/{connection_id}/activations"
    ]
    connection_id = data_of(made)["connection"]["id"]
    of_connection = f"{at}/audiences/{audience['id']}/destination-connections/{connection_id}"
    data_of(await client.post(f"{of_connection}/activations", json=activation))
    letters: dict[str, Any] = {"deadLetters": []}
    with anyio.fail_after(10):
        while not letters["deadLetters"]:
            await anyio.sleep(0.005)
            letters = data_of(await client.get(f"{at}/destinations/{destination['id']}/dead-letters"))
    preview = await room.preview(definition={"query": BUYERS})
    token = data_of(await client.post("/tokens", json={"name": "t", "scopes": ["admin"], "spaceId": room.space_id}))
    data_of(await client.post(f"/sources/{room.source_id}/write-keys"))
    source = data_of(await client.post(f"/sources/{room.source_id}/writekey"))["source"]
    regulation = {
        "regulationType": "SUPPRESS_ONLY",
        "subjectType": "USER_ID",
        "subjectIds": ["mallory"],
        "spaceId": room.space_id,
    }
    regulated = data_of(await client.post("/regulations", json=regulation))
    return {
        "space_id": room.space_id,
        "audience_id": audience["id"],
        "readers_id": readers["id"],  # what nothing refers to can be deleted
        "trait_id": trait["id"],
        "destination_id": destination["id"],
        "spare_id": spare["id"],
        "connection_id": connection_id,
        "delivery_id": letters["deadLetters"][0]["id"],
        "preview_id": preview["id"],
        "source_id": room.source_id,
        "hint": source["writeKeys"][0],
        "write_key": source["writeKeys"][-1],
        "token_id": token["token"]["id"],
        "regulate_id": regulated["regulateId"],
        "audience_type": "USERS",
        "collection": "users",
        "profile": "user_id:ann",
        "url": url,
    }


async def walk_all(daemon: Daemon, client: httpx.AsyncClient) -> Walk:
    """Ask every route once with a token that has just its scope, in the first of two rooms that are furnished alike."""
    async with receiver([400] * 1000) as crm:
        room, still, other = [await open_room(daemon, client) for _ in range(3)]
        places, still_places = await furnish(room, crm.url), await furnish(still, crm.url)
        tokens = {scope: await room.token(scope or "profiles:read") for scope in {*ROUTE_SCOPES.values()}}
        answers: dict[str, httpx.Response] = {}
        for route in sorted(ROUTE_SCOPES, key=walk_order):
            export = await _export_for(route, room, places)
            asked = ask_of(route, {**places, "export_id": export})
            scope = ROUTE_SCOPES[route]
            answers[route] = await ask(client, asked, headers={"authorization": f"Bearer {tokens[scope]}"})
        asked_still = {
            route: ask_of(route, {**still_places, "export_id": await _export_for(route, still, still_places)})
            for route in ROUTE_SCOPES
        }
    return Walk(still, other, still_places, asked_still, answers)


async def _export_for(route: str, room: Room, places: dict[str, str]) -> str:
    """Return an export of the audience or trait of a route that names one."""
    if "{export_id}" not in route:
        return ""
    kind = "audience" if "{audience_id}" in route else "trait"
    of = f"{'audiences' if kind == 'audience' else 'computed-traits'}/{places[kind + '_id']}"
    return str((await room.export(of))["id"])


def walk_order(route: str) -> tuple[int, int, int, str]:
    """Order routes so that each finds what it names: what is deeper is deleted first."""
    method, _, path = route.partition(" ")
    named = "{delivery_id}" not in route  # one dead letter is resent or dropped before all are
    return (_ORDER.index(method), named, -path.count("/") if method == "DELETE" else 0, path)
