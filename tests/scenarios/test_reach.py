"""The random worlds reach the whole language and all that can happen to a definition: what they hold is counted."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from msgspec import Struct

from actors.language import tree
from scenarios.format import AudienceSpec, Expect, Scenario, listed
from scenarios.generator import random_scenario
from scenarios.reference_run import RefusedChange, meaning_of

WORLDS = 400
LEAST = 2  # of each, in so many worlds

KINDS_OF_EVENT = ("track", "page", "screen", "any")
PLAIN_REDUCERS = ("count", "sum", "avg", "min", "max", "mode", "first", "last", "unique")
WINDOWS = ("within", "between")
FILTERS = ("since", "until", "sources", "session")
REACHED = (
    *(f"{call} call" for call in KINDS_OF_EVENT),
    *(f"nested {depth} deep" for depth in (0, 1, 2, 3)),
    *(f"{name} of {where} events" for name in PLAIN_REDUCERS for where in ("outer", "nested")),
    *("min as string", "max as string", "mode as array", "unique counted", "a reducer of the parent's property"),
    *(
        f"{kind} {whose} {depth} deep"
        for kind in ("within", "between")
        for whose in ("now", "parent")
        for depth in (1, 2)
    ),
    *(
        f"{name} on {where} events"
        for name in ("since", "until", "sources", "session")
        for where in ("outer", "nested")
    ),
    *(f"{op} compared" for op in tree.OPERATORS),
    *(f"{kind} on the left" for kind in ("Literal", "Property", "Context", "Trait", "Event")),
    *(f"{kind} on the right" for kind in ("Literal", "Property", "Context", "Trait", "Event", "Duration")),
    *("the parent on the left", "the parent on the right"),
    *(f"dates of a {kind} by the clock" for kind in ("Property", "Context", "Trait", "Event")),
    *("And", "Or", "Not", "ANY", "ALL", "NONE", "a quantifier in And", "a quantifier in Or", "a quantifier in Not"),
    *("an audience in where", "an audience outside", "no nested event", "another nested count than >= 1"),
    *("history off", "history bounded", "visitors left out", "other ids count"),
    *("born disabled", "disabled", "enabled again", "edited", "deleted", "a trait of accounts"),
    *("a change refused", "asked at", "asked known", "asked at and known"),
    *("crash", "duplicate", "delay"),
    *(f"{call} sent" for call in ("track", "page", "screen", "identify", "group", "alias")),
    *("left an account", "dated by the client", "a wrong clock", "a device", "an id of another type"),
)


def parts_of(node: Any, depth: int = 0) -> Iterator[tuple[Any, int]]:
    """Yield all nodes of a tree with the number of events around them."""
    if isinstance(node, tuple):
        for part in node:
            yield from parts_of(part, depth)
    elif isinstance(node, Struct):
        yield node, depth
        for name in node.__struct_fields__:
            yield from parts_of(getattr(node, name), depth + (isinstance(node, tree.Event) and name == "where"))


def kinds_of_event(event: tree.Event, depth: int) -> Iterator[str]:
    where = "nested" if depth else "outer"
    reducer = event.reducer
    yield f"{event.call} call"
    yield f"nested {depth} deep"
    yield f"{reducer.name} of {where} events"
    if reducer.cast is not None:
        yield f"{reducer.name} as {reducer.cast}"
    if reducer.counted:
        yield "unique counted"
    if reducer.of is not None and reducer.of.parent:
        yield "a reducer of the parent's property"
    for window in event.windows:
        yield f"{'between' if window.after_ms else 'within'} {'parent' if window.parent else 'now'} {depth} deep"
    given = {
        "since": event.since_ms,
        "until": event.until_ms,
        "sources": event.exclude_sources or None,
        "session": event.expires_after_ms,
    }
    yield from (f"{name} on {where} events" for name, value in given.items() if value is not None)


def kinds_of_comparison(comparison: tree.Comparison, depth: int) -> Iterator[str]:
    left, right = comparison.left, comparison.right
    yield f"{comparison.op} compared"
    yield f"{type(left).__name__} on the left"
    yield from (f"{type(value).__name__} on the right" for value in right)
    if getattr(left, "parent", False):
        yield "the parent on the left"
    if any(getattr(value, "parent", False) for value in right):
        yield "the parent on the right"
    if any(isinstance(value, tree.Duration) for value in right):
        yield f"dates of a {type(left).__name__} by the clock"
    if depth and isinstance(left, tree.Event) and (comparison.op, *right) != ("at_least", tree.Literal(1)):
        yield "another nested count than >= 1"


def kinds_of_part(node: Any, depth: int) -> Iterator[str]:
    if isinstance(node, tree.Event):
        yield from kinds_of_event(node, depth)
    elif isinstance(node, tree.Comparison):
        yield from kinds_of_comparison(node, depth)
    elif isinstance(node, tree.Audience):
        yield "an audience in where" if depth else "an audience outside"
    elif isinstance(node, tree.And | tree.Or | tree.Not):
        yield type(node).__name__
        inside = node.of if isinstance(node.of, tuple) else (node.of,)
        if any(isinstance(part, tree.Users) for part in inside):
            yield f"a quantifier in {type(node).__name__}"
        if depth and isinstance(node.of, tree.Comparison) and isinstance(node.of.left, tree.Event):
            yield "no nested event"
    elif isinstance(node, tree.Users):
        yield node.quantifier


def kinds_of_definition(spec: AudienceSpec, kind: Any) -> Iterator[str]:
    if kind == "trait" and spec.type == "ACCOUNTS":
        yield "a trait of accounts"
    if not spec.enabled:
        yield "born disabled"
    if spec.options is not None:
        if not spec.options.include_historical_data:
            yield "history off"
        if spec.options.backfill_event_data_days is not None:
            yield "history bounded"
        if not spec.options.include_anonymous_users:
            yield "visitors left out"
        if spec.options.filter_by_external_ids is not None:
            yield "other ids count"
    try:
        meaning = meaning_of(spec.query, spec.type, kind)
    except RefusedChange:
        return
    for node, depth in parts_of(meaning):
        yield from kinds_of_part(node, depth)


def kinds_of_message(message: dict[str, Any]) -> Iterator[str]:
    yield f"{message['type']} sent"
    if (message.get("traits") or {}).get("$left") is True:
        yield "left an account"
    if "timestamp" in message:
        yield "dated by the client"
    if "sentAt" in message:
        yield "a wrong clock"
    context = message.get("context") or {}
    if "device" in context:
        yield "a device"
    if "externalIds" in context:
        yield "an id of another type"


def kinds_of_question(expect: Expect) -> Iterator[str]:
    if listed(expect.refused):
        yield "a change refused"
    times = [name for name in ("at", "known") if getattr(expect, name) is not None]
    if times:
        yield f"asked {' and '.join(times)}"


def kinds_in(scenario: Scenario) -> Iterator[str]:
    for spec in (*scenario.audiences, *scenario.traits):
        yield from kinds_of_definition(spec, "audience" if spec in scenario.audiences else "trait")
    for step in scenario.steps:
        for define in listed(step.define):
            if define.audience is not None:
                yield from kinds_of_definition(define.audience, "audience")
            if define.trait is not None:
                yield from kinds_of_definition(define.trait, "trait")
        for edit in listed(step.edit):
            edited = edit.audience or edit.trait
            assert edited is not None
            yield {None: "edited", True: "enabled again", False: "disabled"}[edited.enabled]
        yield from ("deleted" for _ in listed(step.delete))
        for fault in listed(step.fault):
            yield "crash" if fault.crash else "delay" if fault.delay is not None else "duplicate"
        for message in listed(step.send):
            yield from kinds_of_message(message)
        for expect in listed(step.expect):
            yield from kinds_of_question(expect)


@cache
def reached() -> Counter[str]:
    return Counter(kind for seed in range(WORLDS) for kind in kinds_in(random_scenario(seed)))


def test_random_worlds_hold_everything_that_can_be_said_and_done() -> None:
    missing = {kind: reached()[kind] for kind in REACHED if reached()[kind] < LEAST}
    assert missing == {}
