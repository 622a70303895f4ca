"""A space in a room of its own: simulated time, a log that outlives it, and deaths on demand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
from msgspec import json

from actors.door import Incoming, accept
from actors.space import Space
from eventlog.clock import SimulatedClock
from eventlog.entries import Entered, Exited, Options, Rejected, TraitComputed
from eventlog.instants import iso
from eventlog.log import Log

START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
SECOND_MS = 1000
KEY = b"a key of this test's space......"

Reopen = Callable[[], Awaitable[Log]]


class Room:
    """A space that runs, and that may die at any moment: then nothing survives but the log and its tables."""

    def __init__(self, reopen: Reopen, active_max: int = 1000) -> None:
        self._reopen = reopen
        self._active_max = active_max
        self.clock = SimulatedClock(START_MS)
        self.ids = count(1)
        self.log: Log
        self.space: Space
        self._scope: anyio.CancelScope | None = None
        self._ended = anyio.Event()

    async def start(self, tasks: anyio.abc.TaskGroup, *, backfills: bool = True) -> None:
        """Open the log, and the space on it."""
        self.log = await self._reopen()
        self.space = Space("spa_1", self.log, self.clock, suppression_key=KEY, active_max=self._active_max)
        self._ended = anyio.Event()
        self._tasks = tasks
        tasks.start_soon(self._run, self.space, self._ended, backfills)
        await anyio.lowlevel.checkpoint()

    async def _run(self, space: Space, ended: anyio.Event, backfills: bool) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(space.run)
                    if backfills:
                        tasks.start_soon(space.backfills.run)
        finally:
            ended.set()

    async def die(self, *, backfills: bool = True) -> None:
        """Die where it stands, and start again."""
        await self.stop()
        await self.start(self._tasks, backfills=backfills)

    async def stop(self) -> None:
        """Die where it stands."""
        assert self._scope is not None
        self._scope.cancel()
        await self._ended.wait()

    # -- in --------------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Return the time since the start."""
        return (self.clock.now_ms() - START_MS) / SECOND_MS

    def judged(self, message: dict[str, Any]) -> Incoming:
        """Return a message as the door lets it in; `ago_s` says how long ago it happened."""
        ago_s = message.pop("ago_s", None)
        now_ms = self.clock.now_ms()
        if ago_s is not None:
            message["timestamp"] = iso(now_ms - round(ago_s * SECOND_MS))
        one = accept(
            json.encode({"messageId": f"m{next(self.ids)}", **message}),
            kind=None,
            received_ms=now_ms,
            sent_at=None,
            index=0,
            source="web",
            new_id=lambda: "x",
        )
        assert not isinstance(one, Rejected), one
        return one

    async def send(self, *messages: dict[str, Any]) -> list[Rejected]:
        """Take messages in, as one batch."""
        return await self.space.ingest([self.judged(dict(message)) for message in messages], [], "web")

    async def track(self, user: str, name: str, *, ago_s: float | None = None, **properties: Any) -> None:
        """Take a track call."""
        await self.send(call(user, "track", event=name, properties=properties, ago_s=ago_s))

    async def identify(self, user: str, **traits: Any) -> None:
        """Take an identify call."""
        await self.send(call(user, "identify", traits=traits))

    async def wait(self, seconds: float) -> None:
        """Let time pass with no event, stopping wherever something is due."""
        target_ms = self.clock.now_ms() + round(seconds * SECOND_MS)
        await self.space.settle()
        while (due_ms := self.space.next_due_ms()) is not None and due_ms <= target_ms:
            self.clock.set_ms(max(self.clock.now_ms(), due_ms))
            await self.space.advance()
        self.clock.set_ms(target_ms)

    async def define(self, name: str, query: str, *, wait: bool = True, **how: Any) -> str:
        """Create a definition (an audience of users, if nothing else is said); return its key."""
        kind = how.pop("kind", "audience")
        entity_type = how.pop("entity_type", "USERS")
        enabled = how.pop("enabled", True)
        definition = await self.space.create_definition(
            kind=kind, name=name, entity_type=entity_type, query=query, options=Options(**how), enabled=enabled
        )
        if wait:
            await self.space.backfilled()
        return definition.key

    # -- out -------------------------------------------------------------------------------------------------------

    async def members(self, key: str, **when: Any) -> list[str]:
        """Return an audience's members by name."""
        return sorted(self.space.name_of(entity) for entity, _ in await self.space.members(key, **when))

    async def values(self, key: str) -> dict[str, Any]:
        """Return a computed trait's values by name."""
        return {self.space.name_of(entity): value for entity, value in await self.space.values(key)}

    async def told(self) -> list[tuple[str, str, float]]:
        """Return all effects in the log: (+key, who, when in seconds)."""
        await self.space.settle()
        keys = {one.number: one.key for one in self._ever_defined()}
        told = []
        for commit in self.log.read():
            for fact in commit.facts:
                match fact:
                    case Entered():
                        text = f"+{keys[fact.definition]}"
                    case Exited():
                        text = f"{'~' if fact.merged_into else '-'}{keys[fact.definition]}"
                    case TraitComputed():
                        text = f"{keys[fact.definition]}={json.encode(fact.value).decode()}"
                    case _:
                        continue
                told.append((text, self.space.name_of(fact.entity), (fact.at_ms - START_MS) / SECOND_MS))
        return told

    def _ever_defined(self) -> Any:
        for commit in self.log.read():
            for fact in commit.facts:
                if hasattr(fact, "definition") and not isinstance(fact.definition, int):
                    yield fact.definition

    def entity(self, user: str) -> int:
        """Return a user's number."""
        found = self.space.find("users", "user_id", user)
        assert found is not None, user
        return found

    async def check(self) -> None:
        """Hold the live state against hindsight, and the effects in the log against the membership."""
        await self.space.settle()
        inside: dict[int, dict[int, Any]] = {}
        for commit in self.log.read():
            for fact in commit.facts:
                if isinstance(fact, Entered):
                    assert fact.entity not in inside.setdefault(fact.definition, {}), ("entered twice", fact)
                    inside[fact.definition][fact.entity] = True
                elif isinstance(fact, Exited):
                    assert inside[fact.definition].pop(fact.entity, None), ("left without having entered", fact)
                elif isinstance(fact, TraitComputed):
                    inside.setdefault(fact.definition, {})[fact.entity] = fact.value
        for view in self.space.definitions():
            definition = view.definition
            if view.status != "Live":
                continue
            live: Any
            then: Any
            told = inside.get(definition.number, {})
            if definition.kind == "audience":
                live = [entity for entity, _ in await self.space.members(definition.key)]
                then = [e for e, _ in await self.space.members(definition.key, at_ms=self.clock.now_ms())]
                assert sorted(told) == live, definition.key
            else:
                live = await self.space.values(definition.key)
                then = await self.space.values(definition.key, at_ms=self.clock.now_ms())
                canonical = self.space.identity.canonical
                assert {e: v for e, v in told.items() if v is not None and canonical(e) == e} == dict(live)
            assert live == then, definition.key


def call(user: str, kind: str, *, ago_s: float | None = None, **fields: Any) -> dict[str, Any]:
    """Return a tracking call; a user named `anon…` is anonymous."""
    message: dict[str, Any] = {"type": kind, "anonymousId" if user.startswith("anon") else "userId": user, **fields}
    if ago_s is not None:
        message["ago_s"] = ago_s
    return message


@asynccontextmanager
async def room(reopen: Reopen, *, active_max: int = 1000) -> AsyncIterator[Room]:
    """Open a room with an empty space in it."""
    opened = Room(reopen, active_max)
    async with anyio.create_task_group() as tasks:
        await opened.start(tasks)
        try:
            yield opened
        finally:
            tasks.cancel_scope.cancel()
