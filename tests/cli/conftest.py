"""A shop's data directory with definitions, a daemon on a copy of it, and a way to run command lines here."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
import structlog
from anyio.from_thread import start_blocking_portal
from msgspec import Struct

from adapters.cli.app import run
from adapters.config import Settings
from adapters.daemon import Daemon, running
from adapters.opening import open_data
from eventlog.clock import WallClock
from scenarios.cli import program
from scenarios.retail import FILE

AT = "2011-01-09T16:00:00Z"  # the contract gives memberships as of this time
BIG = "event('Order Completed').sum(property('total')) >= 1000"
LAPSING = (
    "event('Order Completed').between(14 days, 35 days).count() >= 1 "
    "AND NOT event('Order Completed').within(14 days).count() >= 1"
)
MARKETS = "ANY event('Order Completed').sum(property('total')) >= 1000"
SPEND = "event('Order Completed').sum(property('total'))"


class Ran(Struct, frozen=True):
    """How a command line went."""

    status: int
    out: str
    err: str


Turnout = Callable[..., Ran]


@pytest.fixture
def turnout(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Turnout]:
    """Run a command line in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def runs(*arguments: object) -> Ran:
        capfd.readouterr()
        try:
            status = run(program(), [str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        told = capfd.readouterr()
        return Ran(status, told.out, told.err)

    yield runs
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shop_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the shop's data directory: the sample data with two audiences of users, one of accounts, and a trait."""
    path = tmp_path_factory.mktemp("shop") / "turnout-data"
    assert run(program(), ["import", str(FILE), "--data", str(path)]) == 0

    async def define() -> None:
        async with open_data(path, WallClock(), holder="a test") as data:
            space = data.spaces()[0]
            for name, query in (("Big spenders", BIG), ("Lapsing", LAPSING)):
                await space.create_definition(kind="audience", name=name, entity_type="USERS", query=query)
            await space.create_definition(kind="audience", name="Markets", entity_type="ACCOUNTS", query=MARKETS)
            await space.create_definition(kind="trait", name="Spend", entity_type="USERS", query=SPEND)
            await space.backfilled()

    anyio.run(define)
    return path


@pytest.fixture
def shop(shop_original: Path, tmp_path: Path) -> Path:
    """Return a copy of the shop's data directory."""
    return Path(shutil.copytree(shop_original, tmp_path / "turnout-data"))


class Served(Struct, frozen=True):
    """A daemon that serves."""

    daemon: Daemon
    data: Path
    token: str  # of an admin

    @property
    def url(self) -> str:
        """Return its address."""
        return self.daemon.url


@pytest.fixture(scope="session")
def served_shop(shop_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a copy of the shop's data by a daemon in a thread of its own."""
    path = Path(shutil.copytree(shop_original, tmp_path_factory.mktemp("served") / "turnout-data"))

    async def issue() -> str:
        async with open_data(path, WallClock(), holder="a test") as data:
            return (await data.control.issue_token("tests", ["admin"]))[1]

    token = anyio.run(issue)
    settings = Settings(data=str(path), port=0)
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(running(settings)) as daemon,
    ):
        yield Served(daemon, path, token)


@pytest.fixture
def served(served_shop: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Serve the shop's data, with an admin token in the environment."""
    monkeypatch.setenv("TURNOUT_TOKEN", served_shop.token)
    return served_shop
