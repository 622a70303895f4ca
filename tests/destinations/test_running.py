"""The daemon's way: actors that run by themselves, over real sockets, on the machine's clock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
from msgspec import json
from structlog.testing import capture_logs

from actors.destinations_state import Destinations
from actors.door import accept
from actors.space import Space, open_space
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS
from adapters.destinations.sealing import new_seal
from adapters.net import HttpTransport
from eventlog.clock import WallClock
from eventlog.entries import Commit, Delivered, Rejected
from eventlog.log import Changes
from eventlog.memory import MemoryLog
from tests.destinations.stage import track
from tests.destinations.wire import SILENCE, receiver

PATIENCE_S = 10.0  # a test that takes longer has failed


class Running:
    """A space with its deliveries running."""

    def __init__(self, space: Space, deliveries: Deliveries) -> None:
        self.space = space
        self.deliveries = deliveries
        self.destinations = deliveries.destinations
        self._count = 0

    async def send(self, *messages: dict[str, Any]) -> None:
        """Take tracking calls in."""
        for message in messages:
            self._count += 1
            raw = json.encode({"messageId": f"m{self._count}", **message})
            now_ms = self.space.clock.now_ms()
            judged = accept(raw, kind=None, received_ms=now_ms, sent_at=None, index=0, source="src", new_id=lambda: "x")
            assert not isinstance(judged, Rejected)
            await self.space.ingest([judged], [], "src")

    async def webhook(self, audience: str, url: str, **settings: Any) -> str:
        """Connect a webhook of its own audience; return its id."""
        await self.space.create_definition(
            kind="audience", name=audience, entity_type="USERS", query="event('Bought').count() >= 1"
        )
        await self.space.backfilled()
        made = await self.destinations.create_destination(
            type="webhook", name=audience, source_id="src", settings={"url": url, "retryFirstSeconds": 0.05, **settings}
        )
        await self.destinations.connect(audience.lower(), made.id, settings={"sendIdentify": False})
        return made.id


@asynccontextmanager
async def running(log: MemoryLog | None = None) -> AsyncIterator[Running]:
    """Run a space and its deliveries while the block lasts; then stop them as a daemon does."""
    transport = HttpTransport(allow_private=True)
    store, seal = log if log is not None else MemoryLog(), new_seal()
    async with open_space("spa_1", store, WallClock(), suppression_key=b"k" * 32) as space:
        random = Random(1)  # noqa: S311 - a seed
        destinations = Destinations(space, DESTINATIONS, seal, random)
        destinations.load()
        deliveries = Deliveries(space, destinations, transport=transport, random=random)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliveries.run)
            try:
                yield Running(space, deliveries)
            finally:
                tasks.cancel_scope.cancel()
        await transport.close()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    with anyio.fail_after(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for is seen from outside alone
            await anyio.sleep(0.005)


async def test_a_change_goes_out_over_the_wire_and_is_tried_again_until_it_is_taken() -> None:
    async with receiver([503, 503, 200]) as server, running() as it:
        destination = await it.webhook("Buyers", server.url)
        await it.send(track("ann", "Bought"))
        await eventually(lambda: it.deliveries.status(destination).delivered == 1)
        assert len(server.requests) == 3
        assert len({request.headers["webhook-id"] for request in server.requests}) == 1
        assert json.decode(server.requests[0].body)["event"] == "Audience Entered"


async def test_a_destination_that_never_answers_does_not_delay_another() -> None:
    async with receiver([SILENCE] * 50) as dead, receiver() as well, running() as it:
        stuck = await it.webhook("Stuck", dead.url, timeoutSeconds=60, concurrency=2)
        good = await it.webhook("Good", well.url, rate=10_000)
        await it.send(*(track(f"u{n}", "Bought") for n in range(50)))
        await eventually(lambda: it.deliveries.status(good).delivered == 50)
        status = it.deliveries.status(stuck)
        assert (status.delivered, status.in_flight) == (0, 2)
        assert len(dead.requests) <= 2
        dead.hold.set()


async def test_requests_go_side_by_side_but_never_two_for_one_profile() -> None:
    async with receiver([SILENCE] * 8) as server, running() as it:
        await it.webhook("Buyers", server.url, timeoutSeconds=60, concurrency=5)
        connection = it.destinations.connections()[0]
        await it.destinations.update_connection(connection.id, settings={})  # identify and track
        await it.send(*(track(f"u{n}", "Bought") for n in range(8)))
        await eventually(lambda: len(server.requests) == 5)
        await anyio.sleep(0.05)
        users = [json.decode(request.body)["userId"] for request in server.requests]
        assert len(set(users)) == len(users) == 5
        server.hold.set()


async def test_a_stop_waits_for_requests_under_way_and_stores_what_became_of_them() -> None:
    log = MemoryLog()
    async with receiver() as server:
        async with running(log) as it:
            destination = await it.webhook("Buyers", server.url)
            await it.send(*(track(f"u{n}", "Bought") for n in range(20)))
            await eventually(lambda: len(server.requests) > 0)
        count = len(server.requests)
        async with running(log) as it:
            await eventually(lambda: it.deliveries.status(destination).delivered == 20)
        ids = [request.headers["webhook-id"] for request in server.requests]
        assert len(ids) == len(set(ids)) == 20
        assert count <= 20


class SlowDisk(MemoryLog):
    """A log whose disk takes its time over deliveries' outcomes, once asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slow = False
        self.waiting = anyio.Event()
        self.hold = anyio.Event()

    async def append(self, commits: Sequence[Commit], changes: Sequence[Changes] = ()) -> None:
        """Append, after a while where an outcome is among it."""
        if self.is_slow and any(isinstance(fact, Delivered) for commit in commits for fact in commit.facts):
            self.waiting.set()
            await self.hold.wait()
        await super().append(commits, changes)


async def test_a_stop_while_the_disk_is_still_at_an_outcome_waits_for_it_and_stores_it_once() -> None:
    log = SlowDisk()
    with capture_logs() as said:
        async with receiver() as server, running(log) as it:
            await it.webhook("Buyers", server.url)
            log.is_slow = True
            await it.send(track("ann", "Bought"))
            with anyio.fail_after(PATIENCE_S):
                await log.waiting.wait()
            asyncio.get_running_loop().call_later(0.05, log.hold.set)  # while the stop is under way
    assert [line for line in said if line["log_level"] == "error"] == []
    outcomes = [fact for commit in log.read() for fact in commit.facts if isinstance(fact, Delivered) and fact.ids]
    assert [len(fact.ids) for fact in outcomes] == [1]


async def test_an_actor_that_fails_is_started_again_and_the_others_never_notice() -> None:
    async with receiver() as well, running() as it:
        good = await it.webhook("Good", well.url)
        broken = await it.webhook("Broken", well.url)
        await eventually(lambda: {good, broken} <= it.deliveries._actors.keys())

        actor = it.deliveries._actors[broken]
        actor._planner.work = None  # type: ignore[method-assign,assignment]
        await it.send(track("ann", "Bought"))
        await eventually(lambda: it.deliveries.status(good).delivered == 1)
        await eventually(lambda: it.deliveries.status(broken).delivered == 1)


async def test_a_destination_that_is_deleted_stops_and_a_new_one_starts() -> None:
    async with receiver() as server, running() as it:
        first = await it.webhook("One", server.url)
        await it.send(track("ann", "Bought"))
        await eventually(lambda: it.deliveries.status(first).delivered == 1)
        await it.destinations.delete_destination(first)
        await eventually(lambda: first not in it.deliveries._actors and it.destinations.gone() == [])
        second = await it.webhook("Two", server.url)
        await eventually(lambda: it.deliveries.status(second).delivered == 1)
        assert (await it.deliveries.ping(second)).how == "delivered"
