"""`account`: how long until one user's change shows in its account's audience, by how many users the account has.

An account keeps counts of what its users say of themselves: the time must not grow with the account (O(1)).
"""

import time
from pathlib import Path

import anyio

from actors.space import Space, open_space
from eventlog.clock import SimulatedClock
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.report import Report, percentile
from scenarios.benchmarks.subjects import incoming, scratch

START_MS = 1_772_323_200_000
BATCH = 1_000
CHANGES = 200
SIZES = (100, 10_000, 100_000)
QUERY = "ANY trait('signed') = true"


async def _filled(space: Space, account: str, users: int) -> None:
    """Make an account with so many users."""
    for begin in range(0, users, BATCH):
        batch = (
            f'{{"type":"group","messageId":"{account}-{n}","userId":"{account}-{n}","groupId":"{account}"}}'.encode()
            for n in range(begin, min(users, begin + BATCH))
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


async def _measure(largest: int) -> None:
    sizes = sorted({*(size for size in SIZES if size < largest), largest})
    report = Report("account", "How long until one user's change reaches the account's audience?")
    first_s = 0.0
    with scratch() as folder:
        log = await SqliteLog.open(Path(folder) / "space.log", durability="normal")
        try:
            clock = SimulatedClock(START_MS)
            async with open_space("spa_1", log, clock, suppression_key=b"k" * 32) as space:
                await space.create_definition(kind="audience", name="Contracts", entity_type="ACCOUNTS", query=QUERY)
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
        finally:
            await log.close()
    report.print()


def run(profiles: int = 100_000) -> None:
    """Measure and print."""
    anyio.run(_measure, profiles, backend_options={"use_uvloop": True})
