"""`account`: how long until one user's change shows in its account's audience, by how many users the account has.

An account keeps counts of what its users say of themselves: the time must not grow with the account (O(1)). Who leaves
takes events along, so what the account knows of its users' events is gathered anew, in slices: that takes longer the
larger the account is, but must not hold up others. Measured by a task that wants a turn all the while.
"""

import time
from pathlib import Path

import anyio

from actors.space import Space, open_space
from eventlog.clock import SimulatedClock
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.report import Report, percentile
from scenarios.benchmarks.subjects import as_the_daemon, incoming, scratch

START_MS = 1_772_323_200_000
BATCH = 1_000
CHANGES = 200
TURN_S = 0.001
SIZES = (100, 10_000, 100_000)
LEAVINGS = 5
QUERY = "ANY trait('signed') = true"
OF_EVENTS = "event('Seat Used').within(30 days).count() >= 10"


_SEAT_USED = '"type":"track","event":"Seat Used","properties":{"minutes":5}'


async def _filled(space: Space, account: str, users: int) -> None:
    """Make an account with so many users."""
    for begin in range(0, users, BATCH):
        batch = (
            f'{{{call},"messageId":"{account}-{n}-{call[8]}","userId":"{account}-{n}"}}'.encode()
            for n in range(begin, min(users, begin + BATCH))
            for call in (f'"type":"group","groupId":"{account}"', _SEAT_USED)
        )
        await space.ingest(incoming(batch, space.clock.now_ms()), [], "src")


async def _change(space: Space, account: str, number: int, user: int) -> float:
    """Let one user sign (or take it back), and see its account enter (or leave); return how long that took."""
    is_signing = number % 2 == 0
    message = (
        f'{{"type":"identify","messageId":"{account}-s-{number}","userId":"{account}-{user}",'
        f'"traits":{{"signed":{str(is_signing).lower()}}}}}'
    )
    began = time.perf_counter()
    await space.ingest(incoming(iter([message.encode()]), space.clock.now_ms()), [], "src")
    members = [entity for entity, _ in await space.members("contracts")]
    took_s = time.perf_counter() - began
    assert (space.find("accounts", "group_id", account) in members) is is_signing
    return took_s


async def _turns(waits: list[float]) -> None:
    """Want a turn all the while, and take down how long each was waited for."""
    while True:
        began = time.perf_counter()
        await anyio.sleep(TURN_S)
        waits.append(time.perf_counter() - began - TURN_S)


async def _leave(space: Space, account: str, user: int) -> tuple[float, float]:
    """Let one user leave; return how long until that is folded, and the longest wait of somebody else for a turn."""
    message = (
        f'{{"type":"group","messageId":"{account}-l-{user}","userId":"{account}-{user}","groupId":"{account}",'
        '"traits":{"$left":true}}'
    )
    waits: list[float] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_turns, waits)
        await anyio.sleep(TURN_S)
        began = time.perf_counter()
        await space.ingest(incoming(iter([message.encode()]), space.clock.now_ms()), [], "src")
        await space.folded(space.log.last_seq)
        took_s = time.perf_counter() - began
        await anyio.sleep(TURN_S)
        tasks.cancel_scope.cancel()
    return took_s, max(waits)


async def _measure(largest: int) -> None:
    sizes = sorted({*(size for size in SIZES if size < largest), largest})
    report = Report("account", "How long until one user's change reaches the account's audience?")
    first_s = 0.0
    with scratch() as folder:
        log = await SqliteLog.open(Path(folder) / "space.log", durability="normal")
        try:
            clock = SimulatedClock(START_MS)
            async with open_space("spa_1", log, clock, suppression_key=b"k" * 32) as space:
                for name, query in (("Contracts", QUERY), ("Used", OF_EVENTS)):
                    await space.create_definition(kind="audience", name=name, entity_type="ACCOUNTS", query=query)
                await space.backfilled()
                for size in sizes:
                    account = f"account-{size}"
                    await _filled(space, account, size)
                    await space.settle()
                    took = [await _change(space, account, n, n // 2 * 37 % size) for n in range(CHANGES)]
                    middle_s = percentile(took, 0.5)
                    first_s = first_s or middle_s
                    report.row(
                        f"{size:,} users",
                        f"{middle_s * 1000:.2f} ms",
                        f"{middle_s / first_s:.2f} of the smallest",
                        f"99 %: {percentile(took, 0.99) * 1000:.2f} ms, of {CHANGES} changes, each seen in a question",
                    )
                    left = [await _leave(space, account, n) for n in range(LEAVINGS)]
                    report.row(
                        f"{size:,} users, one leaves",
                        f"{percentile([took_s for took_s, _ in left], 0.5) * 1000:.0f} ms",
                        "",
                        f"others waited for a turn at most {max(wait_s for _, wait_s in left) * 1000:.0f} ms",
                    )
        finally:
            await log.close()
    report.print()


def run(profiles: int = 100_000) -> None:
    """Measure and print."""
    as_the_daemon()
    anyio.run(_measure, profiles, backend_options={"use_uvloop": True})
