"""A real space whose destination talks to a vendor's server by real sockets, on a simulated clock."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar

import anyio
import pytest

from adapters.net import HttpTransport
from tests.destinations.stage import Stage, stage, track
from tests.destinations.vendors.service import Said, Service, listening

BOUGHT: Final = "event('Bought').count() >= 1"
RECENT: Final = "event('Bought').within(1 hours).count() >= 1"

S = TypeVar("S", bound=Service)


class Wired(Generic[S]):
    """A stage, a vendor, and a destination of the vendor's type."""

    def __init__(self, it: Stage, vendor: S, destination: str) -> None:
        self.stage, self.vendor, self.destination = it, vendor, destination

    async def audience(self, name: str, query: str = BOUGHT, **settings: Any) -> str:
        """Define an audience and connect it; return the connection's id."""
        return await self.stage.connect(await self.stage.audience(name, query), self.destination, **settings)

    async def buy(self, users: Iterable[str], *, step: bool = True, event: str = "Bought") -> None:
        """Let users with an email buy."""
        await self.stage.send_at_once(
            track(user, event, context={"traits": {"email": f"{user}@x.org"}}) for user in users
        )
        if step:
            await self.stage.step()

    async def side_by_side(self, hold: Callable[[], Awaitable[None]]) -> None:
        """Begin all that is due now, requests at once; `hold` is awaited while they are under way."""
        await self.stage.space.settle()
        async with anyio.create_task_group() as tasks:

            async def begin(converse: Callable[[], Awaitable[None]]) -> None:
                tasks.start_soon(_await, converse)

            await self.stage.deliveries.step(self.stage.clock.now_ms(), begin)
            await hold()

    def dead(self) -> list[tuple[str | None, str]]:
        """Return (userId, reason) of the dead letters."""
        return [(one.call.user_id, one.reason) for one in self.stage.deliveries.dead_letters(self.destination)]

    @property
    def status(self) -> Any:
        """Return how the destination is doing."""
        return self.stage.deliveries.status(self.destination)


@asynccontextmanager
async def wired(
    vendor: Callable[[Any], S], kind: str, settings: Callable[[S], Mapping[str, Any]]
) -> AsyncIterator[Wired[S]]:
    """Set up a space, a vendor, and a destination of its type that nothing is connected to."""
    transport = HttpTransport(allow_private=True)
    try:
        async with stage(transport) as it:
            service = vendor(it.clock)
            async with listening(service):
                yield Wired(it, service, await it.destination(kind, settings(service)))
                await transport.close()
    finally:
        await transport.close()


async def waits_for(holds: Callable[[], bool]) -> None:
    """Wait, by the machine's clock, until something holds."""
    with anyio.fail_after(10):
        while not holds():  # noqa: ASYNC110 - what is waited for is seen from outside alone
            await anyio.sleep(0.002)


async def _await(converse: Callable[[], Awaitable[None]]) -> None:
    await converse()


def obeyed(vendor: Service, pause_ms: int, *, is_throttled: Callable[[Said], bool] | None = None) -> int:
    """Assert that nothing was begun for so long after a request was refused as one too many; return how many were."""
    is_throttled = is_throttled or (lambda said: said.status == 429)
    refused = {asked.at_ms for asked, said in vendor.seen if is_throttled(said)}
    for at_ms in refused:
        after = [asked.at_ms - at_ms for asked, _ in vendor.seen if at_ms < asked.at_ms < at_ms + pause_ms]
        assert after == [], f"asked {after} ms after it was told to wait"
    return len(refused)


def at_most(times_ms: Iterable[int], count: int, window_ms: int) -> None:
    """Assert that no stretch of so many ms holds more than `count` of these times."""
    ordered = sorted(times_ms)
    for first, last in zip(ordered, ordered[count:], strict=False):
        if last - first < window_ms:
            pytest.fail(f"more than {count} within {window_ms} ms, from {first} on")
