"""A space with very many audiences: one more costs what it costs among few, by the API, from creation to end.

Work is counted in function calls, which no other program on the machine changes.
"""

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any

import httpx
import pytest

from tests.api.room import Room, data_of, track

SHARE = 1.25  # of calls, at most, among all compared with among the first
NEIGHBOURS = 25  # acts of which the calls are compared: one may come with a checkpoint, or end a batch of backfills


def query_of(n: int) -> str:
    """Return the n-th of ever more definitions, half of them about one event name; some refer to others."""
    name = "Order Completed" if n % 2 else f"Event {n // 2 % 50}"
    return (
        f"event('{name}').where(property('product') = 'p{n}').count() >= 1",
        f"event('{name}').where(property('total') > {n}).within({n % 30 + 1} days).count() >= {n % 4 + 1}",
        f"trait('plan') = 'plan {n}'",
        f"audience('audience_{max(0, n - 3)}') OR event('{name}').sum(property('total')) >= {n}",
    )[n // 2 % 4]


async def calls_of(act: Callable[[], Awaitable[httpx.Response]]) -> int:
    """Return how many function calls of ours an act took, what runs beside it too."""
    calls = 0

    def count(frame: FrameType, _event: str, _arg: Any) -> None:
        nonlocal calls
        calls += frame.f_code.co_filename.find("/actors/") >= 0
        return None

    sys.setprofile(lambda frame, event, arg: count(frame, event, arg) if event == "call" else None)
    try:
        data_of(await act())
    finally:
        sys.setprofile(None)
    return calls


async def typical_calls(acts: list[Callable[[], Awaitable[httpx.Response]]]) -> int:
    """Return the calls that the middle one of some acts took."""
    return sorted([await calls_of(act) for act in acts])[len(acts) // 2]


@pytest.mark.parametrize("many", [600, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_one_more_of_very_many_audiences_costs_what_one_of_few_does(room: Room, many: int) -> None:
    await room.send(*(track(f"u{n}", "Order Completed", product=f"p{n}", total=n) for n in range(1, 40)))
    made: list[str] = []

    async def create(n: int) -> httpx.Response:
        body = {"name": f"Audience {n}", "audienceType": "USERS", "definition": {"query": query_of(n)}}
        answer = await room.client.post(f"{room.at}/audiences", json=body)
        made.append(answer.json()["data"]["audience"]["id"])
        return answer

    async def edit(place: int, **change: Any) -> httpx.Response:
        return await room.client.patch(f"{room.at}/audiences/{made[place]}", json=change)

    async def delete(place: int) -> httpx.Response:
        return await room.client.delete(f"{room.at}/audiences/{made[place]}")

    async def read(place: int) -> httpx.Response:
        return await room.client.get(f"{room.at}/audiences/{made[place]}")

    async def show() -> httpx.Response:
        return await room.client.get(f"{room.at}/audiences", params={"pagination[count]": 20})

    def acts(first: int) -> list[list[Callable[[], Awaitable[httpx.Response]]]]:
        """Return what is done: hundreds are created, some changed, disabled, deleted and read, and some are listed."""
        some = range(first + 70, first + 70 + 8 * NEIGHBOURS, 8)
        return [
            [partial(create, n) for n in range(first + 8, first + 300)],
            [partial(edit, n, description="more") for n in some],
            [partial(edit, n, enabled=False) for n in some],
            [partial(delete, n) for n in some],
            [partial(read, n + 1) for n in some],
            [show] * 5,
        ]

    async def measured(first: int) -> list[int]:
        found = []
        for some in acts(first):
            found.append(await typical_calls(some))
            await room.space.backfilled()
        return found

    for n in range(8):
        await create(n)
    few = await measured(0)
    for n in range(300, many - 292):
        await create(n)
        if n % 500 == 0:
            await room.space.backfilled()
    await room.space.backfilled()
    among_all = await measured(many - 300)
    assert [most / least < SHARE for most, least in zip(among_all, few, strict=True)] == [True] * 6, (few, among_all)
    await check(room, made)


async def check(room: Room, made: list[str]) -> None:
    """Hold the members of some audiences against what a scan of the log says."""
    await room.send(*(track(f"u{n}", "Event 1", product=f"p{n}", total=500) for n in range(1, 40)))
    await room.space.settle()
    ids = {view.definition.id for view in room.space.definitions()}
    living = [one for one in made if one in ids]
    members = 0
    for one in (*living[:12], *living[12 :: len(living) // 8]):
        live = await room.space.members(one)
        assert live == await room.space.members(one, at_ms=room.space.now()[0])
        members += len(live)
    assert members > 0
