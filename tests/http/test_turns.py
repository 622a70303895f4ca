"""Turns of the loop: what is let in with each, in which order, and that others run in between."""

import asyncio

import anyio
import pytest

from adapters.http.turns import Turns


async def run(turns: Turns, *sizes: int) -> list[list[int]]:
    """Enter with works of these sizes at once; return which of them, by place, got in with each turn of the loop."""
    loop, entered = asyncio.get_running_loop(), list[list[int]]()
    left = len(sizes)

    async def work(place: int, size: int) -> None:
        nonlocal left
        await turns.enter(size)
        entered[-1].append(place)
        left -= 1

    def turn() -> None:
        entered.append([])
        if left:
            loop.call_soon(turn)

    turn()
    async with anyio.create_task_group() as tasks:
        for place, size in enumerate(sizes):
            tasks.start_soon(work, place, size)
    return [one for one in entered if one]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((10, 20, 30), [[0, 1, 2]]),
        ((50, 50, 50, 50, 50), [[0, 1], [2, 3], [4]]),
        ((60, 60, 60), [[0, 1], [2]]),  # what a turn still has room for is let in whole
        ((1_000, 1, 1_000, 1, 1), [[0], [1, 2], [3, 4]]),
    ],
)
async def test_so_much_gets_in_with_each_turn_and_in_its_order(
    sizes: tuple[int, ...], expected: list[list[int]]
) -> None:
    assert await run(Turns(100), *sizes) == expected


async def test_a_turn_that_has_passed_owes_nothing_to_the_next() -> None:
    turns = Turns(100)
    for _ in range(3):
        assert await run(turns, 1_000, 1) == [[0], [1]]
        for _ in range(3):
            await anyio.lowlevel.checkpoint()


async def test_who_gave_up_keeps_nobody_waiting() -> None:
    turns = Turns(100)
    await turns.enter(100)
    gone = [asyncio.ensure_future(turns.enter(100)) for _ in range(3)]
    after = asyncio.ensure_future(turns.enter(1))
    await asyncio.sleep(0)
    for one in gone:
        one.cancel()
    with anyio.fail_after(5):
        await after
