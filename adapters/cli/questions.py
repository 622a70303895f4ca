"""The commands that ask: preview, members, explain, check."""

from actors.space_api import EntityType
from adapters.cli.answers import asked
from adapters.cli.options import HERE, NOW, Entities, Flag, Moment, Output, Query, Target
from adapters.cli.running import waits
from adapters.cli.terminal import answers, write_json, write_lines
from eventlog.instants import iso


def entity_type(entities: Entities) -> EntityType:
    """Return what the command line's word stands for."""
    return "ACCOUNTS" if entities == "accounts" else "USERS"


@waits
async def preview(
    query: Query,
    /,
    *,
    type: Entities = "users",
    trait: Flag = False,
    ids: Flag = False,
    format: Output = "text",
    moment: Moment = NOW,
    target: Target = HERE,
) -> int:
    """Tell who a definition would give on history, without creating it: its size and a sample.

    Args:
        query: The definition.
        type: Whose definition it is.
        trait: It defines a computed trait: count those that have a value.
        ids: Every member, one a line, instead of size and sample.
        format: How to write the answer.
        moment: As of when.
        target: Where the data is.
    """
    async with asked(target, "turnout preview") as data:
        found = await data.preview(
            query, entity_type(type), trait=trait, at_ms=moment.at, known_ms=moment.known, everyone=ids
        )
    if format == "json":
        at = {"at": iso(found.at_ms)}
        write_json({"size": found.size, ("ids" if ids else "sample"): found.names, **at})
    elif ids:
        write_lines(found.names)
    else:
        noun = type[:-1] if found.size == 1 else type
        answers().print(f"[bold]{found.size:,}[/] {noun} at {iso(found.at_ms)}")
        write_lines(f"  {name}" for name in found.names)
        if found.size > len(found.names):
            write_lines([f"  … and {found.size - len(found.names):,} more (--ids lists all)"])
    return 0


@waits
async def members(
    key: str,
    /,
    *,
    format: Output = "text",
    moment: Moment = NOW,
    target: Target = HERE,
) -> int:
    """List the members of an audience, one a line.

    Args:
        key: The audience's key (or id).
        format: How to write the answer; json says since when each is a member.
        moment: As of when.
        target: Where the data is.
    """
    async with asked(target, "turnout members") as data:
        found = await data.members(key, at_ms=moment.at, known_ms=moment.known)
    if format == "json":
        rows = [{"name": member.name, "since": iso(member.since_ms)} for member in found]
        write_json({"size": len(found), "members": rows})
    else:
        write_lines(member.name for member in found)
    return 0
