"""Make a failing random world small, and keep it as a scenario file.

Parts are left out for as long as what is left still fails: steps, messages, definitions, parts of their queries, fields
of messages. `fails` is asked with a scenario without expectations and decides by itself what must be true in it.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from actors.language import tree
from actors.language.printer import print_query
from eventlog.errors import QueryError
from scenarios.answers import with_answers
from scenarios.format import AudienceSpec, EditSpec, Scenario, Step, TraitSpec, dumps, listed
from scenarios.reference_run import RefusedChange, meaning_of

ATTEMPTS_MAX: Final = 3_000  # ours: smaller is nicer, but somebody waits
FOUND: Final = Path(__file__).parent / "found"
KEEP: Final = ("type", "userId", "anonymousId", "groupId", "previousId", "event")  # without one of these it is refused
STEP_PARTS: Final = ("send", "define", "edit", "delete", "fault", "expect")

_EVENT_WITHOUT: Final[dict[str, Any]] = {
    **dict.fromkeys(("where", "since_ms", "until_ms", "expires_after_ms")),
    **dict.fromkeys(("windows", "exclude_sources"), ()),
}

Spec = TypeVar("Spec", AudienceSpec, TraitSpec, EditSpec)


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return a smaller scenario that still fails; it must fail to begin with."""
    attempts = 0
    shrinking = True
    while shrinking:
        shrinking = False
        for smaller in _smaller(scenario):
            attempts += 1
            if attempts > ATTEMPTS_MAX:
                return scenario
            if fails(smaller):
                scenario = smaller
                shrinking = True
                break
    return scenario


def write_found(scenario: Scenario, what: str, comment: str, folder: Path = FOUND) -> Path:
    """Write a failing world, with what the reference says must be true in it, as `<what>.yaml`; return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub('[^a-z0-9]+', '_', what.lower()).strip('_')}.yaml"
    path.write_text(dumps(with_answers(scenario), comment=comment), encoding="utf-8")
    return path


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Yield the scenarios that lack one part, large parts first."""
    steps = scenario.steps
    half = len(steps) // 2
    if half:
        yield replace(scenario, steps=steps[:half])
        yield replace(scenario, steps=steps[half:])
    for index in reversed(range(len(steps))):
        yield replace(scenario, steps=steps[:index] + steps[index + 1 :])
    for index in range(len(scenario.audiences)):
        yield replace(scenario, audiences=_without(scenario.audiences, index))
    for index in range(len(scenario.traits)):
        yield replace(scenario, traits=_without(scenario.traits, index))
    if scenario.settings:
        yield replace(scenario, settings={})
    for index, step in enumerate(steps):
        for smaller in _smaller_step(step):
            yield replace(scenario, steps=(*steps[:index], smaller, *steps[index + 1 :]))
    for index, audience in enumerate(scenario.audiences):
        for spec in _smaller_spec(audience, audience.type, "audience"):
            yield replace(scenario, audiences=_with(scenario.audiences, index, spec))
    for index, trait in enumerate(scenario.traits):
        for spec in _smaller_spec(trait, trait.type, "trait"):
            yield replace(scenario, traits=_with(scenario.traits, index, spec))


def _smaller_step(step: Step) -> Iterator[Step]:
    for part in STEP_PARTS:
        items = listed(getattr(step, part))
        for index in range(len(items)):
            yield replace(step, **{part: _without(items, index)})
    for index, message in enumerate(listed(step.send)):
        for smaller in _smaller_message(message):
            yield replace(step, send=_with(listed(step.send), index, smaller))
    for part in ("define", "edit"):
        items = listed(getattr(step, part))
        for index, action in enumerate(items):
            for kind in ("audience", "trait"):
                spec = getattr(action, kind)
                for smaller in [] if spec is None else _smaller_spec(spec, getattr(spec, "type", None), kind):
                    yield replace(step, **{part: _with(items, index, replace(action, **{kind: smaller}))})


def _smaller_message(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in message.items():
        if key not in KEEP:
            yield {name: there for name, there in message.items() if name != key}
        if isinstance(value, dict):
            for inner in value:
                yield {**message, key: {name: there for name, there in value.items() if name != inner}}
    if "userId" in message and "anonymousId" in message:
        yield {name: there for name, there in message.items() if name != "anonymousId"}
        yield {name: there for name, there in message.items() if name != "userId"}


def _smaller_spec(spec: Spec, entity_type: Any, kind: Any) -> Iterator[Spec]:
    if spec.options is not None:
        yield replace(spec, options=None)
    if spec.query is None:
        return
    for guess in ("USERS", "ACCOUNTS") if entity_type is None else (entity_type,):
        try:
            meaning = meaning_of(spec.query, guess, kind)
        except (RefusedChange, QueryError):
            continue
        for smaller in _smaller_tree(meaning):
            query = print_query(smaller)
            if len(query) < len(spec.query):
                yield replace(spec, query=query)
        return


def _smaller_tree(node: Any) -> Iterator[Any]:
    """Yield trees in which one part is replaced by a part of its own, or left out."""
    if isinstance(node, tree.And | tree.Or):
        yield from node.of
    if isinstance(node, tree.Not | tree.Users):
        yield node.of
    if isinstance(node, tree.Event):
        yield from _smaller_event(node)
    if isinstance(node, Struct):
        for name in node.__struct_fields__:
            for smaller in _smaller_tree(getattr(node, name)):
                yield replace(node, **{name: smaller})
    if isinstance(node, tuple):
        for index, part in enumerate(node):
            for smaller in _smaller_tree(part):
                yield _with(node, index, smaller)


def _smaller_event(event: tree.Event) -> Iterator[tree.Event]:
    for name, without in _EVENT_WITHOUT.items():
        if getattr(event, name) != without:
            yield replace(event, **{name: without})
    for index in range(len(event.windows) if len(event.windows) > 1 else 0):
        yield replace(event, windows=_without(event.windows, index))


def _without(items: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    return items[:index] + items[index + 1 :]


def _with(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    return (*items[:index], item, *items[index + 1 :])
