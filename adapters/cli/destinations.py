"""`turnout destinations`: how deliveries are doing, what was given up, and sending it again.

Asked of a data directory, nothing is sent: what is re-sent goes out when a daemon next serves it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.table import Table

from actors.destinations_state import Destinations
from actors.supervisor import Deliveries
from adapters.cli.opened import opened
from adapters.cli.options import HERE, Output, Target
from adapters.cli.remote import choose_space, reach
from adapters.cli.running import waits
from adapters.cli.terminal import answers, note, write_json
from adapters.destinations import DESTINATIONS, transports
from adapters.destinations.sealing import load_seal
from eventlog.instants import iso

Name = Annotated[str, Parameter(metavar="ID")]

STATE = ("state", "pending", "retrying", "delivered", "dead", "behind", "last_error")


@waits
async def list_(*, format: Output = "text", target: Target = HERE) -> int:
    """List the destinations with how their deliveries are doing.

    Args:
        format: How to write the answer.
        target: Where the data is.
    """
    if target.url is None:
        async with _at_rest(target) as deliveries:
            rows = [
                {"id": one.id, "name": one.name, "type": one.type, **_state(deliveries.status(one.id))}
                for one in deliveries.destinations.destinations()
            ]
    else:
        rows = await _rows_of_daemon(target)
    if format == "json":
        write_json(rows)
        return 0
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "name", "type", *STATE):
        grid.add_column(column.replace("_", " "), justify="right" if column in STATE[1:-1] else "left")
    for row in rows:
        grid.add_row(*(f"{row[column]}" for column in ("id", "name", "type", *STATE)))
    answers().print(grid)
    return 0


@waits
async def dead_letters(destination: Name, /, *, format: Output = "text", target: Target = HERE) -> int:
    """List the deliveries of a destination that were given up, with the reason.

    Args:
        destination: The destination's id.
        format: How to write the answer.
        target: Where the data is.
    """
    rows: list[dict[str, Any]]
    if target.url is None:
        async with _at_rest(target) as deliveries:
            rows = []
            while letters := deliveries.dead_letters(destination, after=rows[-1]["id"] if rows else ""):
                rows += [
                    {
                        "id": one.call.id,
                        "event": one.call.event,
                        "profile": one.call.profile,
                        "key": one.call.key,
                        "attempts": one.attempts,
                        "status": one.status,
                        "reason": one.reason,
                        "deadAt": iso(one.at_ms),
                    }
                    for one in letters
                ]
    else:
        async with reach(target) as daemon:
            await choose_space(daemon, target.space)
            path = daemon.path("destinations", destination, "dead-letters")
            rows = [row async for row in daemon.pages(path, "deadLetters")]
    if format == "json":
        write_json(rows)
        return 0
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "event", "profile", "key", "attempts", "status", "reason"):
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(str(row[name]) for name in ("id", "event", "profile", "key", "attempts", "status", "reason")))
    answers().print(grid)
    return 0


@waits
async def resend(
    destination: Name,
    /,
    *,
    delivery: Annotated[str | None, Parameter(metavar="ID")] = None,
    target: Target = HERE,
) -> int:
    """Send what was given up again; from a data directory it goes out when a daemon next serves it.

    Args:
        destination: The destination's id.
        delivery: The one dead letter to send. [default: all]
        target: Where the data is.
    """
    if target.url is None:
        async with _at_rest(target) as deliveries:
            count = await deliveries.resend(destination, delivery)
    else:
        async with reach(target) as daemon:
            await choose_space(daemon, target.space)
            which = ("resend",) if delivery is None else (delivery, "resend")
            count = (await daemon.ask("POST", daemon.path("destinations", destination, "dead-letters", *which)))[
                "count"
            ]
    note(f"{count:,} deliveries will be sent again")
    return 0


@asynccontextmanager
async def _at_rest(target: Target) -> AsyncIterator[Deliveries]:
    """Open the deliveries of a data directory without sending anything."""
    async with opened(target, "turnout destinations") as found:
        folder = found.data.path
        random = Random()  # noqa: S311 - spreads retries; nothing secret comes from it
        destinations = Destinations(found.space, DESTINATIONS, load_seal(folder), random)
        destinations.load()
        transport = transports(folder, allow_private=False)
        try:
            yield Deliveries(found.space, destinations, transport=transport, random=random)
        finally:
            await transport.close()


async def _rows_of_daemon(target: Target) -> list[dict[str, Any]]:
    async with reach(target) as daemon:
        await choose_space(daemon, target.space)
        rows = []
        async for one in daemon.pages("/destinations", "destinations"):
            if one["spaceId"] != daemon.space:
                continue
            path = daemon.path("destinations", one["id"], "deliveries")
            state = (await daemon.ask("GET", path))["state"]
            row = {"id": one["id"], "name": one["name"], "type": one["metadata"]["slug"]}
            rows.append({**row, **{name: state["lastError" if name == "last_error" else name] for name in STATE}})
        return rows


def _state(status: Any) -> dict[str, Any]:
    shown = msgspec.structs.asdict(status)
    return {name: shown[name] for name in STATE}
