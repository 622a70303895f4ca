"""`turnout check`: what a definition means, what it listens to and keeps for each profile, what looks like a mistake.

Needs no data: the answer comes from the compiler that the daemon compiles with.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct
from rich.console import Group
from rich.text import Text

from actors.conditions.funnels import Funnel
from actors.conditions.program import ACCOUNT, USER, Asked, Program, Spec
from actors.conditions.queries import Count, Edge, Extreme, Query, Recent, Records, Sum, Tally
from actors.language import count_primaries, describe, lint, parse, print_query, references, to_json
from actors.language.vocabulary import PRIMARIES_MAX
from actors.space_api import EntityType
from adapters.cli.options import Entities, Flag, Output
from adapters.cli.options import Query as QueryText
from adapters.cli.terminal import answers, complain, write_json
from eventlog.entries import KIND_NAMES, TRACK
from eventlog.errors import QueryError

KEEPS: Final[dict[type[Query], str]] = {
    Count: "a count",
    Sum: "the exact sum, and of how many",
    Extreme: "one value",
    Edge: "one value with its time",
    Tally: "how often each value occurred",
    Recent: "the {cap} newest timestamps",
    Records: "the events that its window or session may still count: time and value",
    Funnel: "the events {steps}that may still count: time and what is compared",
}
"""What each kind of question keeps for a profile; nothing is kept for a profile without a matching event."""


class Checked(Struct, frozen=True):
    """What there is to say of a definition that stands."""

    valid: bool
    query: str  # its canonical text
    tree: dict[str, Any]
    outline: str
    warnings: list[str]
    listens_to: list[str]
    keeps: list[str]
    refers_to: list[str]
    primaries: int


def checked(query: str, entity_type: EntityType, *, trait: bool) -> Checked:
    """Return what there is to say of a definition. Raises QueryError."""
    tree = parse(query, entity_type=entity_type, kind="trait" if trait else "audience")
    scope = ACCOUNT if entity_type == "ACCOUNTS" else USER
    program = Program()
    program.set_definitions([Spec(1, "", "trait" if trait else "audience", scope, tree)])
    asked = list(program.asked.values())
    return Checked(
        valid=True,
        query=print_query(tree),
        tree=to_json(tree),
        outline=describe(tree),
        warnings=lint(tree),
        listens_to=list(dict.fromkeys(name for one in asked for name in _names(one))),
        keeps=[f"{_of(one)}: {_kept(one.query)}" for one in asked],
        refers_to=list(references(tree)),
        primaries=count_primaries(tree),
    )


def _names(asked: Asked) -> list[str]:
    return [_name(kind, one.name) for one in asked.subscriptions for kind in one.kinds]


def _name(kind: int, name: str | None) -> str:
    if name is None:
        return f"any {KIND_NAMES[kind]} call"
    return f"{'event' if kind == TRACK else KIND_NAMES[kind]} {name!r}"


def _of(asked: Asked) -> str:
    whose = "of all the account's users, " if asked.scope == ACCOUNT else ""
    between = " then " if isinstance(asked.query, Funnel) else " or "
    return whose + between.join(dict.fromkeys(_names(asked)))


def _kept(query: Query) -> str:
    if isinstance(query, Recent) and query.cap == 1:
        return "the newest timestamp"
    streams = len(query.streams) if isinstance(query, Funnel) else 0
    steps = f"of its {streams} steps " if streams > 1 else ""
    return KEEPS[type(query)].format(cap=getattr(query, "cap", 0), steps=steps)


def check(query: QueryText, /, *, type: Entities = "users", trait: Flag = False, format: Output = "text") -> int:
    """Check a definition: tell what it means, what it listens to and keeps, and what looks like a mistake.

    The exit status is 1 if the definition does not stand; warnings leave it at 0.

    Args:
        query: The definition.
        type: Whose definition it is.
        trait: It defines a computed trait.
        format: How to write the answer; json holds the syntax tree.
    """
    try:
        found = checked(query, "ACCOUNTS" if type == "accounts" else "USERS", trait=trait)
    except QueryError as error:
        if format == "json":
            write_json({"valid": False, "error": _error_as_json(error)})
        else:
            complain(error, query)
        return 1
    if format == "json":
        write_json(msgspec.to_builtins(found))
    else:
        answers().print(_shown(found))
    return 0


def _error_as_json(error: QueryError) -> dict[str, Any]:
    return {
        "message": str(error),
        "line": error.line,
        "column": error.column,
        "found": error.found,
        "expected": list(error.accepted),
        "hint": error.hint,
    }


def _shown(found: Checked) -> Group:
    warned = [Text(f"  {warning}", style="yellow") for warning in found.warnings]
    return Group(
        Text("means", style="bold"),
        *(Text(f"  {line}") for line in found.outline.splitlines()),
        *_section("listens to", found.listens_to or ["no event: traits and audiences alone decide"]),
        *_section("keeps for each profile", found.keeps or ["nothing of its own"]),
        *(_section("refers to", found.refers_to) if found.refers_to else ()),
        *([Text("looks like a mistake", style="bold yellow"), *warned] if warned else ()),
        Text(f"{found.primaries} of at most {PRIMARIES_MAX} primary expressions", style="dim"),
    )


def _section(title: str, lines: list[str]) -> list[Text]:
    return [Text(title, style="bold"), *(Text(f"  {line}") for line in lines)]
