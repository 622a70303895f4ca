"""`turnout destinations`: how deliveries are doing, what went wrong, what was given up, and sending it again.

Asked of a data directory, nothing is sent: what is re-sent goes out when a daemon next serves it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from cyclopts import Parameter
from rich.table import Table

from actors.delivery_ledger import DeadLetter
from actors.destinations_state import Destinations
from actors.supervisor import LISTED_MAX, Deliveries
from adapters.cli.opened import opened
from adapters.cli.options import HERE, Output, Target
from adapters.cli.remote import choose_space, reach
from adapters.cli.running import waits
from adapters.cli.terminal import answers, note, write_json
from adapters.destinations import DESTINATIONS, transports
from adapters.destinations.sealing import load_seal
from adapters.net import private_allowed
from eventlog.instants import iso

Name = Annotated[str, Parameter(metavar="ID")]

STATE = (
    "state",
    "circuit",
    "pending",
    "in_flight",
    "retrying",
    "delivered",
    "dead",
    "behind",
    "lag_s",
    "achieved_per_s",
    "allowed_per_s",
    "last_error",
)
TEXTS = frozenset({"id", "name", "type", "state", "circuit", "last_error"})  # columns that are no numbers
SHOWN_AS = {"lag_s": "lagSeconds", "achieved_per_s": "achievedPerSecond", "allowed_per_s": "allowedPerSecond"}
LETTER = ("id", "event", "profile", "key", "attempts", "status", "reason")


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
        justify: Literal["left", "right"] = "left" if column in TEXTS else "right"
        grid.add_column(column.replace("_per_s", "/s").replace("_", " "), justify=justify, overflow="fold")
    for row in rows:
        grid.add_row(*(written(row[column]) for column in ("id", "name", "type", *STATE)))
    answers().print(grid)
    return 0


def written(value: object) -> str:
    """Return a value of a table."""
    return f"{value:,.1f}".removesuffix(".0") if isinstance(value, float) else f"{value}"


@waits
async def show(destination: Name, /, *, format: Output = "text", target: Target = HERE) -> int:
    """Tell how one destination is doing, and what went wrong lately: what was asked and what was answered.

    Args:
        destination: The destination's id.
        format: How to write the answer.
        target: Where the data is.
    """
    if target.url is None:
        async with _at_rest(target) as deliveries:
            state = camel(msgspec.to_builtins(deliveries.status(destination)))
            state["errors"] = [camel(msgspec.to_builtins(one)) for one in deliveries.failures(destination)]
            for error in state["errors"]:
                error["at"] = iso(error.pop("atMs"))
                error.pop("entities")  # numbers that mean nothing outside
    else:
        async with reach(target) as daemon:
            await choose_space(daemon, target.space)
            state = (await daemon.ask("GET", daemon.path("destinations", destination, "deliveries")))["state"]
    if format == "json":
        write_json(state)
        return 0
    grid = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, value in state.items():
        if name != "errors":
            grid.add_row(name, written(value))
    answers().print(grid)
    for error in state["errors"]:
        answers().print(f"\n{error['at']}  {error['reason']}", markup=False, highlight=False)
        answers().print(f"  {error['method']} {error['address']}", markup=False, highlight=False)
        for part in (error.get("body"), f"{error['status']} {error.get('answerBody', '')}"):
            answers().print(f"  {part}", markup=False, highlight=False)
    return 0


def camel(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its names as the API has them."""
    return {_shown(name): value for name, value in row.items()}


@waits
async def dead_letters(
    destination: Name,
    /,
    *,
    search: Annotated[str, Parameter(metavar="TEXT")] = "",
    format: Output = "text",
    target: Target = HERE,
) -> int:
    """List the deliveries of a destination that were given up, with the reason.

    Args:
        destination: The destination's id.
        search: Only those that hold this text in an id, key, event or reason.
        format: How to write the answer.
        target: Where the data is.
    """
    rows: list[dict[str, Any]]
    if target.url is None:
        async with _at_rest(target) as deliveries:
            found = deliveries.search_dead_letters(destination, search, limit=LISTED_MAX)
            rows = [_letter(one) for one in found.letters]
            while found.after is not None:
                found = deliveries.search_dead_letters(destination, search, after=found.after, limit=LISTED_MAX)
                rows += [_letter(one) for one in found.letters]
    else:
        async with reach(target) as daemon:
            await choose_space(daemon, target.space)
            path = daemon.path("destinations", destination, "dead-letters")
            rows = [row async for row in daemon.pages(path, "deadLetters", {"search": search or None})]
    if format == "json":
        write_json(rows)
        return 0
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for column in LETTER:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(str(row[name]) for name in LETTER))
    answers().print(grid)
    return 0


def _letter(letter: DeadLetter) -> dict[str, Any]:
    call = letter.call
    return {
        "id": call.id,
        "event": call.event,
        "profile": call.profile,
        "key": call.key,
        "attempts": letter.attempts,
        "status": letter.status,
        "reason": letter.reason,
        "deadAt": iso(letter.at_ms),
    }


async def _counted(target: Target, method: str, destination: str, *which: str) -> int:
    """Ask a daemon to do something with dead letters; return with how many it was done."""
    async with reach(target) as daemon:
        await choose_space(daemon, target.space)
        path = daemon.path("destinations", destination, "dead-letters", *which)
        return int((await daemon.ask(method, path))["count"])


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
        which = ("resend",) if delivery is None else (delivery, "resend")
        count = await _counted(target, "POST", destination, *which)
    note(f"{count:,} deliveries will be sent again")
    return 0


@waits
async def drop(
    destination: Name,
    /,
    *,
    delivery: Annotated[str | None, Parameter(metavar="ID")] = None,
    target: Target = HERE,
) -> int:
    """Delete dead letters: what they were to tell is told with the next change, if it is still true.

    Args:
        destination: The destination's id.
        delivery: The one dead letter to delete. [default: all]
        target: Where the data is.
    """
    if target.url is None:
        async with _at_rest(target) as deliveries:
            count = await deliveries.drop(destination, delivery)
    else:
        which = () if delivery is None else (delivery,)
        count = await _counted(target, "DELETE", destination, *which)
    note(f"{count:,} dead letters were deleted")
    return 0


@waits
async def try_(destination: Name, /, *, target: Target = HERE) -> int:
    """Ask a destination a harmless question that fails where its settings are wrong.

    Args:
        destination: The destination's id.
        target: Where the data is.
    """
    if target.url is None:
        async with _at_rest(target) as deliveries:
            verdict = await deliveries.ping(destination)
            works, reason = verdict.how == "delivered", verdict.reason
    else:
        async with reach(target) as daemon:
            await choose_space(daemon, target.space)
            said = await daemon.ask("POST", daemon.path("destinations", destination, "ping"))
            works, reason = said["ok"], said["reason"]
    answers().print("it works" if works else f"it does not work: {reason}", markup=False, highlight=False)
    return 0 if works else 1


@waits
async def copy(
    destination: Name,
    /,
    *,
    name: Annotated[str | None, Parameter(metavar="NAME")] = None,
    target: Target = HERE,
) -> int:
    """Import a destination's configuration, its secrets too, into a new one that nothing is connected to.

    Args:
        destination: The destination's id.
        name: The new one's name. [default: the same]
        target: Where the data is.
    """
    if target.url is None:
        async with _at_rest(target) as deliveries:
            made = (await deliveries.destinations.copy_destination(destination, name=name)).id
    else:
        async with reach(target) as daemon:
            asked = {} if name is None else {"name": name}
            said = await daemon.ask("POST", f"/destinations/{quote(destination, safe='')}/copies", body=asked)
            made = said["destination"]["id"]
    answers().print(made, markup=False, highlight=False)
    return 0


@asynccontextmanager
async def _at_rest(target: Target) -> AsyncIterator[Deliveries]:
    """Open the deliveries of a data directory without sending anything."""
    async with opened(target, "turnout destinations") as found:
        folder = found.data.path
        random = Random()  # noqa: S311 - spreads retries; nothing secret comes from it
        destinations = Destinations(found.space, DESTINATIONS, load_seal(folder), random)
        destinations.load()
        transport = transports(folder, allow_private=private_allowed())
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
            rows.append({**row, **{name: state[_shown(name)] for name in STATE}})
        return rows


def _shown(name: str) -> str:
    """Return a name of the state as the API has it."""
    first, *rest = name.split("_")
    return SHOWN_AS.get(name) or first + "".join(part.title() for part in rest)


def _state(status: Any) -> dict[str, Any]:
    shown = msgspec.structs.asdict(status)
    return {name: shown[name] for name in STATE}
