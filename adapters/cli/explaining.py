"""`turnout explain`: why a profile is, or is not, a member, as a tree that is read at a glance."""

from typing import Any, Final

from rich.text import Text
from rich.tree import Tree

from adapters.cli.answers import asked
from adapters.cli.options import HERE, NOW, Moment, Output, Target
from adapters.cli.running import waits
from adapters.cli.terminal import answers, write_json

EVENTS_SHOWN: Final = 5  # behind one part, newest last; json has more
JUNCTIONS: Final = {"and": "all of", "or": "any of", "not": "not"}


@waits
async def explain(
    key: str,
    profile: str,
    /,
    *,
    format: Output = "text",
    moment: Moment = NOW,
    target: Target = HERE,
) -> int:
    """Tell why a profile is, or is not, a member, at any time: each part's truth, and the events it rests on.

    Args:
        key: The audience's or computed trait's key (or id).
        profile: TYPE:VALUE of any of its ids; without a type a user_id (for accounts a group_id).
        format: How to write the answer.
        moment: As of when.
        target: Where the data is.
    """
    async with asked(target, "turnout explain") as data:
        found = await data.explain(key, profile, at_ms=moment.at, known_ms=moment.known)
    if format == "json":
        write_json(found)
    else:
        answers().print(explained(found))
    return 0


def explained(found: dict[str, Any]) -> Tree:
    """Return an explanation as a tree for the terminal."""
    head = Text.assemble((found["profile"], "bold"), " ")
    if "member" in found:
        head.append("is" if found["member"] else "is not", "bold green" if found["member"] else "bold red")
        head.append(f" in {found['definition']} at {found['at']}")
    else:
        head.append(f"has {found['definition']} = {_worded(found.get('value'))} at {found['at']}")
    change = f"may change by itself at {found['changes_at']}" if found.get("changes_at") else None
    for clue in (found.get("missing"), change):
        if clue:
            head.append(f"; {clue}", "yellow")
    tree = Tree(head, guide_style="dim")
    part = found["tree"]
    if "truth" in part:
        _add(tree, part)
    else:
        _add_events(tree.add(Text(part["text"])), part)
    return tree


def _add(tree: Tree, part: dict[str, Any]) -> None:
    """Add a part of the definition and what lies under it."""
    branch = tree.add(_line(part))
    for inner in part.get("parts", ()):
        _add(branch, inner)
    for user in part.get("sample", ()):
        branch.add(Text.assemble(_mark(user["truth"]), user["profile"]))
    _add_events(branch, part)


def _line(part: dict[str, Any]) -> Text:
    line = Text.assemble(_mark(part["truth"]), JUNCTIONS.get(part["kind"], part["text"]))
    if "value" in part:
        line.append(f"  is {_worded(part['value'])}", "cyan")
    if "right" in part:
        line.append(f", compared with {_worded(part['right'])}", "cyan")
    if "holds_for" in part:
        line.append(f"  holds for {part['holds_for']:,} of {part['users']:,} users", "cyan")
    if part.get("missing"):
        line.append(f", {part['missing']} needed", "yellow")
    if part.get("changes_at"):
        line.append(f", changes by itself at {part['changes_at']}", "yellow")
    return line


def _add_events(branch: Tree, part: dict[str, Any]) -> None:
    events = part.get("events", [])
    more = part.get("events_count", 0) - len(events[-EVENTS_SHOWN:])
    if more > 0:
        branch.add(Text(f"… {more:,} earlier", "dim"))
    for event in events[-EVENTS_SHOWN:]:
        line = branch.add(_event(event))
        followed = event.get("followed_by", [])
        for nested in followed:
            line.add(_event(nested, "then "))
        if event.get("followed_by_count", 0) > len(followed):
            line.add(Text(f"… {event['followed_by_count'] - len(followed):,} later", "dim"))


def _event(event: dict[str, Any], before: str = "") -> Text:
    value = f"  {_worded(event['value'])}" if "value" in event else ""
    name = event["event"] or event["type"]
    return Text(f"{before}{event['timestamp']}  {name}{value}  {event['messageId']}", "dim")


def _mark(truth: bool) -> tuple[str, str]:
    return ("✓ ", "green") if truth else ("✗ ", "red")


def _worded(value: Any) -> str:
    return "absent" if value is None else f"{value:,}" if isinstance(value, int | float) else repr(value)
