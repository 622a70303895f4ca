"""`turnout tokens`: issue, list and revoke access tokens, and write keys of sources."""

from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.table import Table

from actors.control import SCOPES
from adapters.cli.opened import opened
from adapters.cli.options import HERE, Instant, MisusedError, Output, Target
from adapters.cli.remote import reach
from adapters.cli.running import waits
from adapters.cli.terminal import answers, note, write_json, write_lines
from eventlog.entries import TokenRecord
from eventlog.instants import iso

ACTOR: Final = "command line"


@waits
async def create(
    name: str,
    /,
    *,
    scope: Annotated[list[str], Parameter(metavar="SCOPE")],
    expires: Instant | None = None,
    format: Output = "text",
    target: Target = HERE,
) -> int:
    """Issue a token and print it; nobody can tell it again.

    Args:
        name: What it is for.
        scope: What it may do; give the option several times for several scopes.
        expires: When it ends (ISO 8601). [default: never]
        format: How to write the answer.
        target: Where the data is; with --space the token is let into that space alone.
    """
    unknown = [one for one in scope if one not in SCOPES]
    if unknown:
        raise MisusedError(f"--scope: found {unknown[0]!r}, expected {', '.join(SCOPES)}")
    if target.url is not None:
        ends = None if expires is None else iso(expires)
        body = {"name": name, "scopes": scope, "spaceId": target.space, "expiresAt": ends}
        async with reach(target) as daemon:
            row: dict[str, Any] = (await daemon.ask("POST", "/tokens", body=body))["token"]
    else:
        async with opened(target, "turnout tokens", make=True) as found:
            space_id = "" if target.space is None else found.space.id
            record, secret = await found.data.control.issue_token(
                name, scope, space_id=space_id, expires_ms=expires, actor=ACTOR
            )
        row = {**_row(record), "token": secret}
    if format == "json":
        write_json(row)
    else:
        note(f"token {row['id']} ({', '.join(row['scopes'])}); keep it, nobody can tell it again:")
        write_lines([row["token"]])
    return 0


@waits
async def list_(*, format: Output = "text", target: Target = HERE) -> int:
    """List the tokens, revoked ones too, without their secrets.

    Args:
        format: How to write the answer.
        target: Where the data is.
    """
    if target.url is not None:
        async with reach(target) as daemon:
            rows = [row async for row in daemon.pages("/tokens", "tokens")]
    else:
        async with opened(target, "turnout tokens") as found:
            rows = [_row(record) for record in found.data.control.tokens()]
    if format == "json":
        write_json(rows)
        return 0
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "name", "scopes", "ends with", "created", "state"):
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(row["id"], row["name"], ", ".join(row["scopes"]), row["hint"], row["createdAt"], _state(row))
    answers().print(grid)
    return 0


@waits
async def revoke(token: Annotated[str, Parameter(metavar="ID")], /, *, target: Target = HERE) -> int:
    """Revoke a token; it is refused from now on.

    Args:
        token: The token's id, as in the list.
        target: Where the data is.
    """
    if target.url is not None:
        async with reach(target) as daemon:
            await daemon.ask("DELETE", f"/tokens/{token}")
    else:
        async with opened(target, "turnout tokens") as found:
            await found.data.control.revoke_token(token, actor=ACTOR)
    note(f"token {token} is revoked")
    return 0


def _row(record: TokenRecord) -> dict[str, Any]:
    """Return a token as the API shows it."""
    return {
        "id": record.id,
        "name": record.name,
        "scopes": list(record.scopes),
        "hint": record.hint,
        "createdAt": iso(record.created_ms),
        "spaceId": record.space_id or None,
        "expiresAt": None if record.expires_ms is None else iso(record.expires_ms),
        "revokedAt": None if record.revoked_ms is None else iso(record.revoked_ms),
    }


def _state(row: dict[str, Any]) -> str:
    if row.get("revokedAt"):
        return f"revoked {row['revokedAt']}"
    return f"until {row['expiresAt']}" if row.get("expiresAt") else "good"
