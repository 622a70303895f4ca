"""The trail of one user: what came in, what the log says of it, what was asked and answered.

python -m tests.destinations.trail        (the page docs/destinations.md shows what it prints)
"""

import asyncio
import contextlib
import io
import sys

from msgspec import json, to_builtins

from actors.delivery_source import relevant
from eventlog.entries import Delivered
from eventlog.instants import iso
from tests.destinations.stage import HOUR_MS, Stage, stage, track


async def trail() -> str:
    """Return the trail: ann buys, the receiver is down at first, an hour later her window closes."""
    lines: list[str] = []
    async with stage() as it:
        crm = await it.webhook(secret="whsec_c2VjcmV0", retryFirstSeconds=1)
        recent = await it.audience("Recent buyers", "event('Bought').within(1 hour).count() >= 1")
        await it.connect(recent, crm, sendIdentify=False)
        it.receiver.script(503)
        await it.send(track("ann", "Bought", messageId="m-1"))
        await it.until(2 * HOUR_MS)
        for at_ms, _, line in sorted([*_entries(it), *_requests(it)], key=lambda one: one[:2]):
            lines.append(f"{iso(at_ms)}  {line}")
    return "\n".join(lines)


def _entries(it: Stage) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for commit in it.log.read():
        found += [(commit.at_ms, 0, f"entry {one.seq}: event {one.message_id} was taken") for one in commit.events]
        for item in relevant(commit):
            fact = to_builtins(item.what)
            if "at_ms" in fact:
                told = (
                    f"{type(item.what).__name__}, true since {iso(fact['at_ms'])}, caused by entry {fact['cause_seq']}"
                )
                found.append((commit.at_ms, 0, f"entry {item.seq}: {told}"))
        for fact in commit.facts:
            if isinstance(fact, Delivered) and fact.ids:
                found.append((commit.at_ms, 2, f"delivered: {', '.join(fact.ids)}"))
    return found


def _requests(it: Stage) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for one in it.receiver.seen:
        headers = "".join(f"\n    {name}: {value}" for name, value in one.ask.headers)
        body = json.encode(one.message).decode()
        found.append((one.at_ms, 1, f"{one.ask.method} {one.ask.url} -> {one.status}{headers}\n    {body}"))
    return found


def printed() -> str:
    """Return the trail; what is logged beside it is left out."""
    with contextlib.redirect_stdout(io.StringIO()):
        return asyncio.run(trail())


if __name__ == "__main__":
    sys.stdout.write(printed() + "\n")
