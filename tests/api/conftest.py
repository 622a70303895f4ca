"""One daemon a file, shared by its tests; each test that changes anything has a space of its own."""

from collections.abc import AsyncIterator

import httpx
import pytest

from adapters.config import Settings
from adapters.daemon import Daemon, running
from tests.api.room import NOON, Room, open_room
from tests.api.walk import Walk, walk_all


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run all tests here on one event loop: the daemon lives on it."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """A daemon on a simulated clock; nobody's requests are rationed."""
    settings = Settings(
        data=str(tmp_path_factory.mktemp("api") / "data"),
        port=0,
        simulated_clock=NOON,
        durability="normal",
        allow_private_destinations=True,
        token_rate_per_s=100_000.0,
        token_burst=100_000,
    )
    async with running(settings) as started:
        yield started


@pytest.fixture(scope="module")
async def client(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the admin token of the first start."""
    assert daemon.first is not None
    headers = {"authorization": f"Bearer {daemon.first.admin_token}"}
    async with httpx.AsyncClient(base_url=daemon.url, headers=headers, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
async def stranger(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    async with httpx.AsyncClient(base_url=daemon.url, timeout=20) as made:
        yield made


@pytest.fixture
async def room(daemon: Daemon, client: httpx.AsyncClient) -> Room:
    """A fresh space."""
    return await open_room(daemon, client)


@pytest.fixture(scope="module")
async def walked(daemon: Daemon, client: httpx.AsyncClient) -> Walk:
    """Every route, asked once as it should be."""
    return await walk_all(daemon, client)
