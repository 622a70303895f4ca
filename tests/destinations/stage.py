"""A real space with real destination actors on a simulated clock; only the other end of the wire is scripted."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, islice
from random import Random
from typing import Any

from msgspec import Struct, json

from actors.delivery import Answer, Ask, Call, Destination, HttpAsk, IdSync, Transport
from actors.destinations_state import Destinations
from actors.door import Incoming, accept
from actors.space import Space, open_space
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS
from adapters.destinations.sealing import FernetSeal, new_seal
from eventlog.clock import SimulatedClock
from eventlog.entries import Options, Rejected
from eventlog.memory import MemoryLog

START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
BATCH = 500  # messages of a crowd taken in at once


KILLED = -1  # the status of a request during which the process died


class Killed(BaseException):
    """The process dies here, a request under way."""


class Seen(Struct, frozen=True):
    """A request that reached the receiver."""

    at_ms: int
    ask: HttpAsk
    calls: tuple[Call, ...]
    status: int

    @property
    def message(self) -> dict[str, Any]:
        """Return the body."""
        decoded: dict[str, Any] = json.decode(self.ask.body)
        return decoded


class Receiver:
    """The other end: answers as scripted, then 200; keeps what it was sent."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self.seen: list[Seen] = []
        self.answers: list[Answer] = []
        self.rule: Any = None  # (ask, calls) -> Answer | None, asked before the script

    def script(self, *statuses: int | Answer) -> None:
        """Answer the next requests so; 0 is a connection that is refused."""
        self.answers += [one if isinstance(one, Answer) else answer(one) for one in statuses]

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Take a request."""
        assert isinstance(ask, HttpAsk)
        try:
            given = self.rule(ask, calls) if self.rule is not None else None
        except Killed:
            self.seen.append(Seen(self._clock.now_ms(), ask, calls, KILLED))
            raise
        if given is None:
            given = self.answers.pop(0) if self.answers else answer(200)
        self.seen.append(Seen(self._clock.now_ms(), ask, calls, given.status))
        return given

    def taken(self, kind: str = "track") -> list[tuple[str | None, str]]:
        """Return (userId, event or key=value) of what was answered with 200, in order."""
        return [
            (call.user_id, call.event if kind == "track" else f"{call.key}={json.encode(call.value).decode()}")
            for one in self.seen
            if one.status == 200
            for call in one.calls
            if call.kind == kind
        ]


def answer(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
    """Return an answer; 0 is a connection that is refused."""
    if status == 0:
        return Answer(status=0, error="no connection")
    return Answer(status=status, headers=dict(headers or {}), body=body)


class Stage:
    """A space and its destinations."""

    def __init__(
        self, log: MemoryLog, clock: SimulatedClock, seal: FernetSeal, transport: Transport | None = None
    ) -> None:
        self.log = log
        self.clock = clock
        self.receiver = Receiver(clock)
        self._transport: Transport = transport if transport is not None else self.receiver
        self._seal = seal
        self._ids = count(1)
        self._opened = 0
        self._stack = AsyncExitStack()
        self.space: Space
        self.destinations: Destinations
        self.deliveries: Deliveries

    async def open(self) -> None:
        """Start, or start again from the log."""
        self._stack = AsyncExitStack()
        opened = open_space("spa_1", self.log, self.clock, suppression_key=b"k" * 32)
        self.space = await self._stack.enter_async_context(opened)
        self._opened += 1
        random = Random(self._opened)  # noqa: S311 - a seed, so that a failure can be repeated
        self.destinations = Destinations(self.space, DESTINATIONS, self._seal, random)
        self.destinations.load()
        self.deliveries = Deliveries(self.space, self.destinations, transport=self._transport, random=random)

    async def close(self) -> None:
        """Stop."""
        await self._stack.aclose()

    async def restart(self) -> None:
        """Die and start again: nothing survives but the log and its tables."""
        await self.close()
        await self.open()
        await self.step()

    async def step(self) -> int | None:
        """Let deliveries do what is due."""
        await self.space.settle()
        return await self.deliveries.step(self.clock.now_ms())

    async def until(self, at_ms: int) -> None:
        """Move time on to so many ms after the start, stopping wherever something is due."""
        target_ms = START_MS + at_ms
        while True:
            sent_due = await self.step()
            due = [one for one in (self.space.next_due_ms(), sent_due) if one is not None and one <= target_ms]
            if not due:
                break
            self.clock.set_ms(max(self.clock.now_ms(), min(due)))
            await self.space.advance()
        self.clock.set_ms(max(self.clock.now_ms(), target_ms))
        await self.step()

    async def send(self, *messages: dict[str, Any], step: bool = True) -> None:
        """Take tracking calls in."""
        for message in messages:
            refused = await self.space.ingest([self._judged(message)], [], "src")
            assert not refused, refused
        if step:
            await self.step()

    async def send_at_once(self, messages: Iterable[dict[str, Any]]) -> None:
        """Take many tracking calls in, a batch at a time."""
        for batch in _batched(messages):
            refused = await self.space.ingest([self._judged(message) for message in batch], [], "src")
            assert not refused, refused

    def _judged(self, message: dict[str, Any]) -> Incoming:
        raw = json.encode({"messageId": f"m{next(self._ids)}", **message})
        now_ms = self.clock.now_ms()
        judged = accept(raw, kind=None, received_ms=now_ms, sent_at=None, index=0, source="src", new_id=lambda: "x")
        assert not isinstance(judged, Rejected), judged
        return judged

    async def audience(self, name: str, query: str, **options: Any) -> str:
        """Define an audience and wait for its backfill; return its id."""
        entity_type = options.pop("entity_type", "USERS")
        definition = await self.space.create_definition(
            kind="audience", name=name, entity_type=entity_type, query=query, options=Options(**options)
        )
        await self.space.backfilled()
        await self.space.settle()
        return definition.id

    async def trait(self, name: str, query: str) -> str:
        """Define a computed trait and wait for its backfill; return its id."""
        definition = await self.space.create_definition(kind="trait", name=name, entity_type="USERS", query=query)
        await self.space.backfilled()
        await self.space.settle()
        return definition.id

    async def webhook(self, **settings: Any) -> str:
        """Create a webhook; return its id."""
        return await self.destination("webhook", {"url": "https://crm.example.com/hook", **settings})

    async def destination(self, kind: str, settings: Mapping[str, Any]) -> str:
        """Create a destination; return its id."""
        made = await self.destinations.create_destination(type=kind, name=kind, source_id="src", settings=settings)
        return made.id

    async def connect(
        self,
        definition: str,
        destination: str,
        *,
        id_sync: Iterable[IdSync] | None = None,
        step: bool = True,
        **settings: Any,
    ) -> str:
        """Connect; return the connection's id."""
        made = await self.destinations.connect(
            definition, destination, id_sync=None if id_sync is None else tuple(id_sync), settings=settings
        )
        if step:
            await self.step()
        return made.id


def _batched(messages: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(messages)
    while batch := list(islice(left, BATCH)):
        yield batch


@asynccontextmanager
async def stage(transport: Transport | None = None) -> AsyncIterator[Stage]:
    """Set up a space with nothing in it; requests go by the transport, else to the scripted receiver."""
    opened = Stage(MemoryLog(), SimulatedClock(START_MS), new_seal(), transport)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


def track(user: str, event: str, **more: Any) -> dict[str, Any]:
    """Return a track call."""
    return {"type": "track", "userId": user, "event": event, **more}


def phoned(user: str, phone: str, **traits: Any) -> dict[str, Any]:
    """Return a track call, "Bought", of somebody with a phone."""
    named = {"id": phone, "type": "phone", "collection": "users", "encoding": "none"}
    return track(user, "Bought", context={"externalIds": [named], "traits": traits})


def identify(user: str, **traits: Any) -> dict[str, Any]:
    """Return an identify call."""
    return {"type": "identify", "userId": user, "traits": traits}


def group(user: str, account: str, **more: Any) -> dict[str, Any]:
    """Return a group call."""
    return {"type": "group", "userId": user, "groupId": account, **more}
