"""`identity`: a shared device id on 50,000 users, sent to a real space: does one bad id slow everybody down?

The flood: every user's event carries the same device id. Beside it, in the same run, as many users with a device each.
Limits stop the merging; what is measured is what the refusals cost, and what the device id leads to in the end.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import anyio

from actors.space import Space, open_space
from eventlog.clock import SimulatedClock
from eventlog.sqlite import SqliteLog
from scenarios.benchmarks.report import Report, percentile, rate
from scenarios.benchmarks.subjects import as_the_daemon, incoming, scratch

START_MS = 1_772_323_200_000
BATCH = 500
SHARED = "device-of-a-shop-counter"


def calls(users: int, rounds: int, *, is_shared: bool) -> Iterator[bytes]:
    """Yield the calls of users who each have a device, or all the same one."""
    kind = "s" if is_shared else "o"
    for turn in range(rounds):
        for user in range(users):
            device = SHARED if is_shared else f"device-{kind}-{user}"
            yield (
                f'{{"type":"track","event":"Viewed","messageId":"{kind}-{turn}-{user}","userId":"{kind}-{user}",'
                f'"context":{{"device":{{"id":"{device}","type":"ios"}}}}}}'
            ).encode()


async def taken(space: Space, messages: Iterator[bytes]) -> tuple[int, float, list[float]]:
    """Send messages in batches; return how many, how long it took, and how long each batch took."""
    batch: list[bytes] = []
    durations: list[float] = []
    count = 0
    began = time.perf_counter()

    async def send() -> None:
        before = time.perf_counter()
        await space.ingest(incoming(iter(batch), space.clock.now_ms()), [], "src")
        durations.append(time.perf_counter() - before)
        batch.clear()

    for message in messages:
        batch.append(message)
        count += 1
        if len(batch) == BATCH:
            await send()
    if batch:
        await send()
    await space.settle()
    return count, time.perf_counter() - began, durations


async def _measure(users: int, rounds: int) -> None:
    report = Report("identity", f"What does one device id shared by {users:,} users cost?")
    with scratch() as folder:
        log = await SqliteLog.open(Path(folder) / "space.log")
        try:
            async with open_space("spa_1", log, SimulatedClock(START_MS), suppression_key=b"k" * 32) as space:
                own, own_s, own_batches = await taken(space, calls(users, rounds, is_shared=False))
                shared, shared_s, shared_batches = await taken(space, calls(users, rounds, is_shared=True))
                device = space.find("users", "ios.id", SHARED)
                assert device is not None
                ids = len(space.ids_of(device))
        finally:
            await log.close()
    report.row("a device each", rate(own, own_s), "1", f"slowest batch of {BATCH}: {percentile(own_batches, 1):.3f} s")
    report.row(
        "one device for all",
        rate(shared, shared_s),
        f"{own_s / shared_s * shared / own:.2f}",
        f"slowest batch of {BATCH}: {percentile(shared_batches, 1):.3f} s",
    )
    report.row("ids of the profile that has it", f"{ids:,}", "", "limits keep it from swallowing the others")
    report.print()


def run(profiles: int = 50_000) -> None:
    """Measure and print."""
    as_the_daemon()
    anyio.run(_measure, profiles, 2, backend_options={"use_uvloop": True})
