"""`turnout destinations`: what was given up is told with its reason, and sent again once the destination is well."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from anyio.from_thread import start_blocking_portal

from adapters.config import Settings
from adapters.daemon import Daemon, running
from adapters.opening import open_data
from eventlog.clock import WallClock
from eventlog.entries import Commit, DeadLettered, Delivered
from tests.cli.conftest import Turnout

CALL = b'{"type":"track","userId":"ann","event":"A","messageId":"m-1"}'


class Receiver:
    """A webhook's other end, which answers as it is told to."""

    def __init__(self) -> None:
        self.status = 400
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen while the block lasts."""

        async def take(_: web.Request) -> web.Response:
            return web.Response(status=self.status)

        application = web.Application()
        application.router.add_post("/", take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            yield
        finally:
            await runner.cleanup()


async def until(daemon: Daemon, kind: type[DeadLettered] | type[Delivered]) -> None:
    """Return once such a fact is in the log."""
    space = daemon.data.spaces()[0]
    with anyio.fail_after(60):
        async for commit in space.changes(0):
            if has(commit, kind):
                return


def has(commit: Commit, kind: type[DeadLettered] | type[Delivered]) -> bool:
    return any(isinstance(fact, kind) and (not isinstance(fact, Delivered) or fact.ids) for fact in commit.facts)


async def give_up(settings: Settings, receiver: Receiver) -> str:
    """Have a daemon's one delivery refused, and return its destination's id."""
    from actors.door import Incoming, accept

    async with receiver.listening(), running(settings) as daemon:
        space = daemon.data.spaces()[0]
        source = daemon.control.sources(space.id)[0].id
        destinations = daemon.deliveries(space.id).destinations
        await space.create_definition(
            kind="audience", name="Buyers", entity_type="USERS", query="event('A').count() >= 1"
        )
        await space.backfilled()
        webhook = await destinations.create_destination(
            type="webhook", name="Sink", source_id=source, settings={"url": receiver.url}
        )
        await destinations.connect("buyers", webhook.id, settings={"sendIdentify": False})
        now_ms = space.clock.now_ms()
        call = accept(CALL, kind=None, received_ms=now_ms, sent_at=None, index=0, source=source, new_id=lambda: "made")
        assert isinstance(call, Incoming)
        await space.ingest([call], [], source)
        await until(daemon, DeadLettered)
        return webhook.id


@pytest.fixture
def given_up(tmp_path: Path) -> tuple[Settings, Receiver, str]:
    settings = Settings(data=str(tmp_path / "data"), port=0, allow_private_destinations=True)
    receiver = Receiver()
    return settings, receiver, anyio.run(give_up, settings, receiver)


def test_what_was_given_up_is_listed_with_its_reason_and_goes_out_again_when_it_is_sent_again(
    turnout: Turnout, given_up: tuple[Settings, Receiver, str]
) -> None:
    settings, receiver, webhook = given_up
    (row,) = json.loads(turnout("destinations", "list", "--data", settings.data, "--format", "json").out)
    assert (row["id"], row["name"], row["type"], row["dead"], row["delivered"]) == (webhook, "Sink", "webhook", 1, 0)
    (letter,) = json.loads(
        turnout("destinations", "dead-letters", webhook, "--data", settings.data, "--format", "json").out
    )
    assert (letter["event"], letter["key"], letter["status"]) == ("Audience Entered", "buyers", 400)
    assert "Audience Entered" in turnout("destinations", "dead-letters", webhook, "--data", settings.data).out
    ran = turnout("destinations", "resend", webhook, "--data", settings.data)
    assert (ran.status, ran.err) == (0, "1 deliveries will be sent again\n")

    async def serve_again() -> None:
        receiver.status = 200
        async with receiver.listening(), running(settings) as daemon:
            destinations = daemon.deliveries(daemon.data.spaces()[0].id).destinations
            await destinations.update_destination(webhook, settings={"url": receiver.url})
            await until(daemon, Delivered)

    anyio.run(serve_again)
    (row,) = json.loads(turnout("destinations", "list", "--data", settings.data, "--format", "json").out)
    assert (row["dead"], row["delivered"]) == (0, 1)
    assert "Sink" in turnout("destinations", "list", "--data", settings.data).out


@contextmanager
def asked_of_a_daemon(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """Yield the options that have the daemon of a data directory asked; it stops with the block."""

    async def issue() -> str:
        async with open_data(Path(settings.data), WallClock(), holder="a test") as data:
            return (await data.control.issue_token("tests", ["admin"]))[1]

    monkeypatch.setenv("TURNOUT_TOKEN", anyio.run(issue))
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(running(settings)) as daemon,
    ):
        yield ("--url", daemon.url)


def test_a_data_directory_and_a_daemon_tell_the_same_of_a_destination_and_of_what_went_wrong(
    turnout: Turnout, given_up: tuple[Settings, Receiver, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, receiver, webhook = given_up
    at = ("--data", settings.data)
    shown = json.loads(turnout("destinations", "show", webhook, *at, "--format", "json").out)
    listed = json.loads(turnout("destinations", "list", *at, "--format", "json").out)
    assert (shown["dead"], shown["givenUp"], shown["delivered"]) == (1, 1, 0)
    [error] = shown["errors"]
    assert (error["status"], error["address"], error["method"]) == (400, receiver.url, "POST")
    assert '"userId":"ann"' in error["body"]
    text = turnout("destinations", "show", webhook, *at).out
    for part in ("dead", "answered 400", f"POST {receiver.url}", '"userId":"ann"'):
        assert part in text, part
    with asked_of_a_daemon(settings, monkeypatch) as there:
        of_daemon = json.loads(turnout("destinations", "show", webhook, *there, "--format", "json").out)
        rows = json.loads(turnout("destinations", "list", *there, "--format", "json").out)
    assert of_daemon["errors"] == [error]
    told = {
        "dead",
        "givenUp",
        "delivered",
        "retried",
        "pending",
        "retrying",
        "inFlight",
        "circuit",
        "lastError",
        "state",
    }
    assert {name: of_daemon[name] for name in told} == {name: shown[name] for name in told}
    assert rows[0].keys() == listed[0].keys()


def test_dead_letters_are_searched_and_dropped(
    turnout: Turnout, given_up: tuple[Settings, Receiver, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _, webhook = given_up
    at = ("--data", settings.data)

    def found(where: tuple[str, ...], text: str) -> int:
        ran = turnout("destinations", "dead-letters", webhook, "--search", text, *where, "--format", "json")
        return len(json.loads(ran.out))

    assert [found(at, text) for text in ("ANN", "audience entered", "400", "nobody")] == [1, 1, 1, 0]
    with asked_of_a_daemon(settings, monkeypatch) as there:
        assert [found(there, text) for text in ("ANN", "audience entered", "400", "nobody")] == [1, 1, 1, 0]
    ran = turnout("destinations", "drop", webhook, "--delivery", "no-such-letter", *at)
    assert (ran.status, "no-such-letter" in ran.err) == (1, True)
    ran = turnout("destinations", "drop", webhook, *at)
    assert (ran.status, ran.err) == (0, "1 dead letters were deleted\n")
    assert found(at, "") == 0
    (row,) = json.loads(turnout("destinations", "list", *at, "--format", "json").out)
    assert (row["dead"], row["delivered"]) == (0, 0)
    with asked_of_a_daemon(settings, monkeypatch) as there:
        assert turnout("destinations", "drop", webhook, *there).err == "0 dead letters were deleted\n"


def test_a_destination_is_tried_and_its_configuration_imported_into_a_new_one(
    turnout: Turnout, given_up: tuple[Settings, Receiver, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _, webhook = given_up
    monkeypatch.setenv("TURNOUT_ALLOW_PRIVATE_DESTINATIONS", "1")
    for where in (("--data", settings.data), None):
        with ExitStack() as stack:
            at = where or stack.enter_context(asked_of_a_daemon(settings, monkeypatch))
            ran = turnout("destinations", "test", webhook, *at)
            assert (ran.status, ran.out.startswith("it does not work: ")) == (1, True)  # nobody listens any more
            made = turnout("destinations", "copy", webhook, "--name", "Second", *at).out.strip()
            rows = json.loads(turnout("destinations", "list", *at, "--format", "json").out)
            [copy] = [row for row in rows if row["id"] == made]
            assert (copy["name"], copy["type"], copy["dead"], copy["pending"]) == ("Second", "webhook", 0, 0)


@pytest.mark.parametrize("act", ["dead-letters", "resend", "show", "drop", "test", "copy"])
def test_a_destination_that_is_not_there_is_named(
    turnout: Turnout, given_up: tuple[Settings, Receiver, str], act: str
) -> None:
    ran = turnout("destinations", act, "dst_nobody", "--data", given_up[0].data)
    assert (ran.status, ran.out) == (1, "")
    assert "dst_nobody" in ran.err
