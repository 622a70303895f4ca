"""`definitions`: 10,000 audiences created one by one over HTTP, beside those there are already.

What one creation takes near the 100th, the 1,000th and the 10,000th; how long until the past of all is there; then what
is done with one of them (read, edit, delete), a page of the list, an event, and a restart. Half of the definitions are
about one event name, the rest about a hundred others.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import anyio
import httpx

from adapters.opening import open_data
from eventlog.clock import WallClock
from scenarios.benchmarks.report import Report, peak_of
from scenarios.benchmarks.subjects import EIGHT, Running, daemon, incoming, prepare, scratch, traffic

SAMPLE: Final = 100  # creations, of which the median is told
NAMES: Final = 100
REPEATS: Final = 20
WAIT_S_MAX: Final = 3_600.0
EVENTS: Final = 20_000  # of history, before the first of them


def query_of(n: int) -> str:
    """Return the n-th of ever more definitions, no two alike."""
    name = "Order Completed" if n % 2 else f"Event {n // 2 % NAMES}"
    return (
        f"event('{name}').where(property('product_id') = 'p{n}').count() >= 1",
        f"event('{name}').where(property('total') > {n}).within({n % 30 + 1} days).count() >= {n % 4 + 1}",
        f"event('{name}').where(property('category') = 'c{n % 500}').sum(property('total')) >= {n}",
        f"event('{name}').where(property('product_id') = 'p{n}').count() >= 1 AND trait('plan') = 'plan {n % 50}'",
    )[n // 2 % 4]


async def _timed(act: Callable[[], Awaitable[httpx.Response]]) -> float:
    began = time.perf_counter()
    answer = await act()
    seconds = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    return seconds * 1000


async def _median_ms(act: Callable[[int], Awaitable[httpx.Response]], count: int = REPEATS) -> str:
    return f"{median([await _timed(lambda n=n: act(n)) for n in range(count)]):.1f} ms"  # type: ignore[misc]


async def _create_all(client: httpx.AsyncClient, path: str, count: int, report: Report) -> None:
    """Create so many one by one, and tell what one took."""
    times: list[float] = []
    began = time.perf_counter()
    for n in range(count):
        body = {"name": f"Audience No {n}", "audienceType": "USERS", "definition": {"query": query_of(n)}}
        times.append(await _timed(lambda body=body: client.post(path, json=body)))  # type: ignore[misc]
    seconds = time.perf_counter() - began
    for at in (SAMPLE, 1_000, 10_000):
        if at <= count:
            some = sorted(times[at - SAMPLE : at])
            note = f"slowest of {SAMPLE} {some[-1]:.0f} ms"
            report.row(
                f"the {at:,}th creation",
                f"{median(some):.1f} ms",
                f"{median(some) / median(times[:SAMPLE]):.2f} of the first",
                note,
            )
    report.row(f"{count:,} creations", f"{seconds:.0f} s", "", f"{count / seconds:,.0f}/s, one at a time")


async def _backfilled(client: httpx.AsyncClient, last: str) -> None:
    """Return once the last definition, and so all before it, has its past."""
    with anyio.fail_after(WAIT_S_MAX):
        while (await client.get(last)).json()["data"]["audience"]["status"] != "Live":  # noqa: ASYNC110 - another program
            await anyio.sleep(0.2)


async def _use(client: httpx.AsyncClient, path: str, running: Running, count: int, report: Report) -> None:
    """Tell what is done with one of so many costs."""
    ids = [f"aud_{n + len(EIGHT) + 1}" for n in range(count)]

    async def event(n: int) -> httpx.Response:
        body = {"userId": f"somebody {n}", "event": "Event 1", "properties": {"product_id": "p3", "total": 5_000}}
        return await client.post("/v1/track", json=body, headers={"Authorization": running.authorization})

    def edited(n: int, change: dict[str, Any]) -> Awaitable[httpx.Response]:
        return client.patch(f"{path}/{ids[n * 7 % count]}", json=change)

    report.row(
        "a page of the list, the first",
        await _median_ms(lambda n: client.get(path, params={"pagination[count]": 100})),
        "",
        "100 of them",
    )
    report.row("one event of a newcomer", await _median_ms(event), "", "durable; of a name that 50 are about")
    report.row("one read", await _median_ms(lambda n: client.get(f"{path}/{ids[n * 31 % count]}")))
    report.row("one renamed", await _median_ms(lambda n: edited(n, {"description": f"more {n}"})))
    report.row("one disabled", await _median_ms(lambda n: edited(n, {"enabled": False})))
    report.row("one enabled", await _median_ms(lambda n: edited(n, {"enabled": True})))
    report.row("one edited", await _median_ms(lambda n: edited(n + 50, {"definition": {"query": query_of(count + n)}})))
    report.row("one deleted", await _median_ms(lambda n: client.delete(f"{path}/{ids[-1 - n]}")))


async def _history(data: Path, events: int) -> None:
    async with open_data(data, WallClock(), holder="benchmark") as opened:
        space = opened.spaces()[0]
        messages = list(traffic(events, max(1, events // 10)).messages())
        for start in range(0, events, 2_000):
            await space.ingest(incoming(iter(messages[start : start + 2_000]), space.clock.now_ms()), [], "src")


async def _measure(definitions: int, events: int) -> None:
    report = Report("definitions", "What do ten thousand audiences cost whoever manages them?")
    with scratch() as folder:
        data = folder / "data"
        secrets = await prepare(data, EIGHT)
        await _history(data, events)
        async with daemon(data, secrets) as running:
            headers = {"Authorization": f"Bearer {running.admin_token}"}
            async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=300) as client:
                spaces = (await client.get("/spaces")).json()["data"]["spaces"]
                path = f"/spaces/{spaces[0]['id']}/audiences"
                await _create_all(client, path, definitions, report)
                began = time.perf_counter()
                await _backfilled(client, f"{path}/aud_{definitions + len(EIGHT)}")
                report.row(
                    "until all are live",
                    f"{time.perf_counter() - began:.0f} s more",
                    "",
                    f"{events:,} events of history",
                )
                await _use(client, path, running, definitions, report)
            report.row("memory", f"{peak_of(running.pid):.0f} MB", "", "its peak")
        began = time.perf_counter()
        async with daemon(data, secrets):
            report.row("a restart, until ready", f"{time.perf_counter() - began:.1f} s")
    report.print()


def run(definitions: int = 10_000, events: int = EVENTS) -> None:
    """Measure and print."""
    anyio.run(_measure, definitions, events, backend_options={"use_uvloop": True})
