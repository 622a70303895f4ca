"""A daemon on a clock that stands still, with clients for its APIs: what the tests of the HTTP APIs have in common."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from actors.space import Space
from adapters.config import Settings
from adapters.daemon import Daemon, running
from tests.http.described import NO_TLS, Client

NOON: Final = "2026-03-01T12:00:00Z"
ORDERED: Final = "event('Order Completed').count() >= 1"
SPEND: Final = "event('Order Completed').sum(property('total'))"


class Stand:
    """A daemon, its first space, and who asks."""

    def __init__(self, daemon: Daemon, secrets: tuple[str, str], admin: Client, stack: AsyncExitStack) -> None:
        self.daemon = daemon
        self.write_key, self.admin_token = secrets
        self.admin = admin
        self._stack = stack
        self._plain = httpx.AsyncClient(base_url=daemon.url, timeout=20, verify=NO_TLS)
        stack.push_async_callback(self._plain.aclose)

    @property
    def space(self) -> Space:
        """Return the first space."""
        return self.daemon.data.spaces()[0]

    @property
    def path(self) -> str:
        """Return the path of the first space."""
        return f"/spaces/{self.space.id}"

    async def client(self, token: str | None, **more: Any) -> Client:
        """Return a client with a token."""
        made = await self._stack.enter_async_context(Client.of(self.daemon.url, token, **more))
        made.document = self.admin.document
        return made

    async def token(self, *scopes: str, space: str | None = None, **more: Any) -> Client:
        """Issue a token; return a client that has it."""
        asked = {"name": "tests", "scopes": list(scopes), **more}
        if space is not None:
            asked["spaceId"] = space
        found = await self.admin.data("POST", "/tokens", json=asked)
        return await self.client(found["token"]["token"])

    async def send(self, *calls: dict[str, Any], write_key: str | None = None) -> dict[str, Any]:
        """Send tracking calls, each with a `type`; return the answer."""
        auth = (write_key or self.write_key, "")
        answer = await self._plain.post("/v1/batch", json={"batch": list(calls)}, auth=auth)
        found: dict[str, Any] = answer.json()
        return found

    async def move(self, now: str) -> None:
        """Set the clock."""
        answer = await self._plain.put("/clock", json={"now": now}, auth=(self.admin_token, ""))
        assert answer.status_code == 200, answer.text

    async def audience(self, name: str, query: str = ORDERED, **more: Any) -> dict[str, Any]:
        """Create an audience and return it once it is live."""
        body = {"name": name, "audienceType": "USERS", "definition": {"query": query}, **more}
        made = await self.admin.data("POST", f"{self.path}/audiences", json=body)
        await self.space.backfilled()
        found: dict[str, Any] = await self.admin.data("GET", f"{self.path}/audiences/{made['audience']['id']}")
        audience: dict[str, Any] = found["audience"]
        return audience

    async def trait(self, name: str, query: str = SPEND, of: str = "USERS", **more: Any) -> dict[str, Any]:
        """Create a computed trait and return it once it is live."""
        body = {"name": name, "definition": {"query": query, "type": of}, **more}
        made = await self.admin.data("POST", f"{self.path}/computed-traits", json=body)
        await self.space.backfilled()
        found = await self.admin.data("GET", f"{self.path}/computed-traits/{made['computedTrait']['id']}")
        trait: dict[str, Any] = found["computedTrait"]
        return trait


def ordered(user: str, total: float = 10, **more: Any) -> dict[str, Any]:
    """Return the call of an order."""
    return {"type": "track", "userId": user, "event": "Order Completed", "properties": {"total": total}, **more}


@asynccontextmanager
async def standing(folder: Path, **settings: Any) -> AsyncIterator[Stand]:
    """Run a daemon while the block lasts; the folder keeps its data, and its secrets for the next one."""
    given = {"simulated_clock": NOON, "durability": "normal", **settings}
    async with running(Settings(data=str(folder / "data"), port=0, **given)) as daemon, AsyncExitStack() as stack:
        secrets = folder / "secrets"
        if daemon.first is not None:
            secrets.write_text(f"{daemon.first.write_key} {daemon.first.admin_token}")
        write_key, admin_token = secrets.read_text().split()
        admin = await stack.enter_async_context(Client.of(daemon.url, admin_token))
        await admin.learn()
        yield Stand(daemon, (write_key, admin_token), admin, stack)
