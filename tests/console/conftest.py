"""A daemon with a space to look at, shared by a file's tests, and browsers that are signed in to it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from adapters.config import Settings
from adapters.daemon import Daemon, running
from tests.api.room import NOON, Room, open_room
from tests.console.browser import Browser, signed_in


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run all tests here on one event loop: the daemon lives on it."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """A daemon on a simulated clock."""
    settings = Settings(
        data=str(tmp_path_factory.mktemp("console") / "data"),
        port=0,
        simulated_clock=NOON,
        durability="normal",
        allow_private_destinations=True,
    )
    async with running(settings) as started:
        yield started


@pytest.fixture(scope="module")
async def client(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API with the admin token of the first start."""
    assert daemon.first is not None
    headers = {"authorization": f"Bearer {daemon.first.admin_token}"}
    async with httpx.AsyncClient(base_url=daemon.url, headers=headers, timeout=20) as made:
        yield made


@pytest.fixture
async def stranger(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is not signed in."""
    async with httpx.AsyncClient(base_url=daemon.url, timeout=20) as made:
        yield made


@pytest.fixture
async def room(daemon: Daemon, client: httpx.AsyncClient) -> Room:
    """A fresh space."""
    return await open_room(daemon, client)


@pytest.fixture
async def admin(daemon: Daemon) -> AsyncIterator[Browser]:
    """A browser that is signed in with the admin token."""
    assert daemon.first is not None
    async with signed_in(daemon, daemon.first.admin_token) as browser:
        yield browser
