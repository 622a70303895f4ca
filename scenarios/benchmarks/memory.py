"""`memory`: a daemon that has seen 1,000,000 profiles, of which few are active, at rest after a restart."""

import anyio

from scenarios.benchmarks.report import Report, peak_of
from scenarios.benchmarks.restart import load_into
from scenarios.benchmarks.subjects import EIGHT, daemon, prepare, scratch

AIM_MB = 500.0


async def _measure(events: int, profiles: int) -> None:
    report = Report("memory", "How large is a daemon that knows a million profiles?")
    with scratch() as folder:
        data = folder / "data"
        secrets = await prepare(data, EIGHT)
        await load_into(data, events, profiles)
        async with daemon(data, secrets) as running:
            peak = peak_of(running.pid)
    report.row(
        "peak at start", f"{peak:.0f} MB", f"{peak / AIM_MB:.2f} of the aim of 500 MB", f"{profiles:,} drawn from"
    )
    report.print()


def run(events: int = 2_000_000, profiles: int = 1_500_000) -> None:
    """Measure and print."""
    anyio.run(_measure, events, profiles, backend_options={"use_uvloop": True})
