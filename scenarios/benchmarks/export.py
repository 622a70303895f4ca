"""`export`: everybody of an audience as a CSV file, in each of the three formats; and the memory that takes.

Every profile has a user id and an email. The space is at rest, with most of its people not in memory. Not shown: ingest
meanwhile, or hashing by other means than this processor's.
"""

import time

import anyio

from actors.door import Incoming, accept
from adapters.export import ExportSpec, Format, write_export
from adapters.opening import open_data
from eventlog.clock import WallClock
from scenarios.benchmarks.report import Report, peak_mb, rate
from scenarios.benchmarks.subjects import as_the_daemon, scratch

FORMATS: tuple[Format, ...] = ("unformatted", "formatted", "single_column")
AIM_S = 3.0
BATCH = 2_000


def _people(first: int, count: int, now_ms: int) -> list[Incoming]:
    found = []
    for n in range(first, first + count):
        message = b'{"messageId":"m%d","userId":"user-%d","type":"identify","traits":{"email":"u%d@example.com"}}'
        one = accept(
            message % (n, n, n), kind=None, received_ms=now_ms, sent_at=None, index=0, source="src", new_id=lambda: ""
        )
        assert isinstance(one, Incoming), one
        found.append(one)
    return found


async def _measure(profiles: int) -> None:
    as_the_daemon()
    report = Report("export", "How long does an audience as a file take?")
    clock = WallClock()
    with scratch() as folder:
        async with open_data(folder / "data", clock, holder="benchmark", durability="off") as opened:
            space = opened.spaces()[0]
            made = await space.create_definition(
                kind="audience", name="All", entity_type="USERS", query="trait('email').exists()"
            )
            await space.backfilled()
            for first in range(0, profiles, BATCH):
                await space.ingest(_people(first, min(BATCH, profiles - first), clock.now_ms()), [], "src")
            await space.settle()
            await space.checkpoint()
            view = space.definition(made.id)
            before_mb = peak_mb()
            for form in FORMATS:
                file = folder / f"{form}.csv"
                began = time.perf_counter()
                rows = await write_export(space, view, ExportSpec(form), file)
                seconds = time.perf_counter() - began
                assert rows == profiles, (rows, profiles)
                aim = f"{seconds / AIM_S:.2f} of the aim of {AIM_S:.0f} s" if form == "formatted" else ""
                report.row(form, f"{seconds:.2f} s", aim, f"{rate(rows, seconds)}, {file.stat().st_size:,} bytes")
            report.row("memory", f"{peak_mb():.0f} MB", "", f"{before_mb:.0f} MB before the first")
    report.print()


def run(profiles: int = 1_000_000) -> None:
    """Measure and print."""
    anyio.run(_measure, profiles, backend_options={"use_uvloop": True})
