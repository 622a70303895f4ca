"""A space of its own in the daemon that the tests of a process share, and what tests do in it again and again."""

from itertools import count
from typing import Any

import anyio
import httpx

from actors.space_api import SpaceApi
from adapters.daemon import Daemon

NOON = "2026-03-01T12:00:00Z"
BUYERS = "event('Order Completed').count() >= 1"
_numbers = count(1)


class Room:
    """A space, a write key of its source, and a client with an admin token of the whole installation."""

    def __init__(
        self, daemon: Daemon, client: httpx.AsyncClient, space_id: str, source_id: str, write_key: str
    ) -> None:
        self.daemon = daemon
        self.client = client
        self.space_id = space_id
        self.source_id = source_id
        self.write_key = write_key
        self.at = f"/spaces/{space_id}"

    @property
    def space(self) -> SpaceApi:
        """Return the space itself, to wait for."""
        return self.daemon.space(self.space_id)

    async def send(self, *calls: dict[str, Any]) -> None:
        """Send events in one batch; each is taken."""
        answer = await self.client.post("/v1/batch", json={"batch": calls}, auth=(self.write_key, ""))
        assert answer.json() == {"success": True}

    async def audience(self, name: str = "Buyers", query: str = BUYERS, **more: Any) -> dict[str, Any]:
        """Create an audience and return it once it is live."""
        body = {"name": name, "audienceType": "USERS", "definition": {"query": query}, **more}
        made = data_of(await self.client.post(f"{self.at}/audiences", json=body))["audience"]
        await self.space.backfilled(made["id"])
        found: dict[str, Any] = data_of(await self.client.get(f"{self.at}/audiences/{made['id']}"))["audience"]
        return found

    async def trait(self, name: str, query: str, entity_type: str = "USERS", **more: Any) -> dict[str, Any]:
        """Create a computed trait and return it once it is live."""
        body = {"name": name, "definition": {"query": query, "type": entity_type}, **more}
        made = data_of(await self.client.post(f"{self.at}/computed-traits", json=body))["computedTrait"]
        await self.space.backfilled(made["id"])
        found: dict[str, Any] = data_of(await self.client.get(f"{self.at}/computed-traits/{made['id']}"))[
            "computedTrait"
        ]
        return found

    async def token(self, *scopes: str, space_id: str | None = None) -> str:
        """Issue a token and return its secret."""
        body = {"name": "test", "scopes": scopes, "spaceId": space_id}
        return str(data_of(await self.client.post("/tokens", json=body))["token"]["token"])

    async def preview(self, **body: Any) -> dict[str, Any]:
        """Start a preview and return it once it is answered."""
        asked = {"audienceType": "USERS", **body}
        started = data_of(await self.client.post(f"{self.at}/audiences/previews", json=asked))["audiencePreview"]
        return await self.until(f"{self.at}/audiences/previews/{started['id']}", "audiencePreview", "RUNNING")

    async def until(self, path: str, field: str, *unfinished: str) -> dict[str, Any]:
        """Return what lies at a path once its status is another than these."""
        with anyio.fail_after(10):
            while True:
                found: dict[str, Any] = data_of(await self.client.get(path))[field]
                if found["status"] not in unfinished:
                    return found
                await anyio.sleep(0.005)

    async def export(self, of: str, **body: Any) -> dict[str, Any]:
        """Ask for an export of `audiences/ID` or `computed-traits/ID` and return it once it is written."""
        made = data_of(await self.client.post(f"{self.at}/{of}/exports", json=body))["export"]
        return await self.until(f"{self.at}/{of}/exports/{made['id']}", "export", "PENDING", "RUNNING")

    async def csv(self, of: str, **body: Any) -> str:
        """Return the text of an export."""
        made = await self.export(of, **body)
        assert made["status"] == "READY"
        answer = await self.client.get(f"{self.at}/{of}/exports/{made['id']}/download")
        assert answer.status_code == 200
        return answer.text


async def open_room(daemon: Daemon, client: httpx.AsyncClient) -> Room:
    """Create a space with a source."""
    space = data_of(await client.post("/spaces", json={"name": f"Room {next(_numbers)}"}))["space"]
    body = {"slug": f"{space['slug']}_web", "enabled": True, "metadataId": "x", "settings": {"spaceId": space["id"]}}
    source = data_of(await client.post("/sources", json=body))["source"]
    return Room(daemon, client, space["id"], source["id"], source["writeKeys"][0])


def data_of(answer: httpx.Response) -> dict[str, Any]:
    """Return what a request that went well is answered."""
    assert answer.status_code in (200, 201), answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def refusal_of(answer: httpx.Response) -> dict[str, Any]:
    """Return what the management API says was wrong: one error, worded, with the status of the answer."""
    assert answer.status_code >= 400, answer.text
    [error] = answer.json()["errors"]
    assert error["status"] == answer.status_code
    assert error["message"]
    found: dict[str, Any] = error
    return found


def track(user_id: str, event: str = "Order Completed", **more: Any) -> dict[str, Any]:
    """Return a track call; what is no field of calls is a property."""
    fields: dict[str, Any] = {name: more.pop(name) for name in ("timestamp", "messageId", "context") if name in more}
    return {"type": "track", "userId": user_id, "event": event, "properties": more, **fields}


def identify(user_id: str, **traits: Any) -> dict[str, Any]:
    """Return an identify call."""
    return {"type": "identify", "userId": user_id, "traits": traits}
