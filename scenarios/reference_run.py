"""Run a scenario against the reference evaluator alone: what its expectations are checked with before any engine is.

Deliveries are not checked here: destinations are the engine's. Refusals are decided by the parser and the plain rules
of section 4 of the contract.
"""

from functools import lru_cache
from typing import Any
from typing import Literal as OneOf

from msgspec import Struct
from msgspec.structs import replace

from actors.identity_rules import OTHERS, SpaceSettings, settings_from_json
from actors.language import tree
from actors.language.parser import parse
from eventlog.errors import QueryError
from eventlog.instants import iso
from scenarios.expectations import Checked, Failure, ids_of_name
from scenarios.format import (
    AudienceSpec,
    Connect,
    Define,
    Delete,
    DeleteSpec,
    Edit,
    EditSpec,
    Expect,
    OptionsSpec,
    Refused,
    Scenario,
    TraitSpec,
    key_of,
    listed,
)
from scenarios.reference import Answers, Change, Defined, World
from scenarios.reference_identity import Blocked, Entity, IdLimit, Received, Rules
from scenarios.timeline import Check, Moment, Send, timeline

Kind = OneOf["audience", "trait"]


class RefusedChange(Exception):  # noqa: N818 - internal
    """A change that must not be made, and why."""


class ReferenceWorld:
    """A world that grows as a scenario goes on, and its answers."""

    def __init__(self, settings: SpaceSettings) -> None:
        self.received: list[Received] = []
        self.changes: list[Change] = []
        self.rules = rules_of(settings)
        self.now_ms = 0
        self.seq = 0

    def answers(self, *, at_ms: int | None = None, known_seq: int | None = None) -> Answers:
        """Return the answers now, or of another time."""
        return Answers(
            World(self.received, self.changes, self.rules),
            at_ms=self.now_ms if at_ms is None else at_ms,
            known_seq=self.seq if known_seq is None else known_seq,
        )

    def known_seq(self, known_ms: int) -> int:
        """Return the last sequence recorded by a time."""
        recorded = [(one.received_ms, one.seq) for one in self.received]
        recorded += [(change.at_ms, change.seq) for change in self.changes]
        return max((seq for at_ms, seq in recorded if at_ms <= known_ms), default=0)

    def send(self, message: dict[str, Any], source: str) -> None:
        """Receive a message now."""
        self.seq += 1
        self.received.append(Received(self.seq, self.now_ms, source, message))

    # -- definitions ---------------------------------------------------------------------------------------------------

    def define(self, spec: AudienceSpec) -> None:
        """Create a definition, or raise RefusedChange."""
        kind: Kind = "trait" if isinstance(spec, TraitSpec) else "audience"
        key = key_of(spec)
        if not key:
            raise RefusedChange(f"{spec.name!r} gives no key")
        if any(change.key == key for change in self.changes):
            raise RefusedChange(f"the key {key!r} was used before")
        defined = with_options(
            Defined(
                key=key,
                kind=kind,
                entity_type=spec.type,
                meaning=meaning_of(spec.query, spec.type, kind),
                enabled=spec.enabled,
                created_ms=self.now_ms,
                created_seq=self.seq + 1,
            ),
            spec.options or OptionsSpec(),
        )
        self.change(key, defined)

    def edit(self, spec: EditSpec) -> None:
        """Change a definition, or raise RefusedChange."""
        defined = self.existing(spec.key)
        if spec.query is not None:
            defined = replace(defined, meaning=meaning_of(spec.query, defined.entity_type, defined.kind))
        if spec.options is not None:
            defined = with_options(defined, spec.options)
        if spec.enabled is not None:
            defined = replace(defined, enabled=spec.enabled)
        self.change(spec.key, defined)

    def delete(self, key: str) -> None:
        """Delete a definition, or raise RefusedChange."""
        self.existing(key)
        users = [other for other, defined in self.answers().living.items() if key in keys_in(defined.meaning)]
        if users:
            raise RefusedChange(f"{key!r} is referred to by {', '.join(users)}")
        self.seq += 1
        self.changes.append(Change(self.seq, self.now_ms, key, None))

    def existing(self, key: str) -> Defined:
        """Return a living definition, or raise RefusedChange."""
        living = self.answers().living
        if key not in living:
            raise RefusedChange(f"there is no {key!r}")
        return living[key]

    def change(self, key: str, defined: Defined) -> None:
        """Let a definition be this from now on, unless it would refer to itself."""
        living = {**self.answers().living, key: defined}
        reached = [found for found in keys_in(defined.meaning) if found in living]
        for found in reached:
            reached += [more for more in keys_in(living[found].meaning) if more in living and more not in reached]
        if key in reached:
            raise RefusedChange(f"{key!r} would refer to itself: a cycle")
        self.seq += 1
        self.changes.append(Change(self.seq, self.now_ms, key, defined))


def rules_of(settings: SpaceSettings) -> Rules:
    """Return a space's settings as the reference knows them."""
    rules = settings.rules
    limits = {name: IdLimit(limit.count, limit.period) for name, limit in rules.limits}
    return Rules(
        blocked=tuple(
            Blocked(pattern=entry.value, id_type=entry.id_type)
            if entry.regex
            else Blocked(entry.value, id_type=entry.id_type)
            for entry in rules.blocked
        ),
        limits={name: limit for name, limit in limits.items() if name != OTHERS},
        limit_of_others=limits[OTHERS],
        priority=rules.priority,
        ids_max=rules.ids_max,
        merges_max=rules.merges_max,
        dedupe_window_ms=settings.dedupe_window_ms,
    )


@lru_cache(maxsize=4096)
def meaning_of(query: str, entity_type: OneOf["USERS", "ACCOUNTS"], kind: Kind) -> tree.Definition:
    """Return a definition's tree, or raise RefusedChange."""
    try:
        return parse(query, entity_type=entity_type, kind=kind)
    except QueryError as error:
        raise RefusedChange(str(error)) from None


def with_options(defined: Defined, options: OptionsSpec) -> Defined:
    """Return a definition with other options."""
    return replace(
        defined,
        include_historical_data=options.include_historical_data,
        backfill_event_data_days=options.backfill_days,
        filter_by_external_ids=options.filter_by_external_ids,
        include_anonymous_users=options.include_anonymous_users,
    )


def keys_in(node: Any) -> list[str]:
    """Return the keys of audiences and traits that a tree refers to."""
    if isinstance(node, tree.Audience):
        return [node.key]
    if isinstance(node, tree.Trait):
        return [node.path[0]]
    if isinstance(node, tuple):
        return [key for part in node for key in keys_in(part)]
    if isinstance(node, Struct):
        return [key for name in node.__struct_fields__ for key in keys_in(getattr(node, name))]
    return []


# -- the run -----------------------------------------------------------------------------------------------------------


def run_on_reference(scenario: Scenario) -> list[Failure]:
    """Return what of a scenario the reference evaluator does not agree with."""
    world = ReferenceWorld(settings_from_json(scenario.settings))
    checked = Checked()
    for moment in timeline(scenario):
        world.now_ms = moment.at_ms
        action = moment.action
        if isinstance(action, Send):
            world.send(action.message, action.source)
        elif isinstance(action, Check):
            _check(scenario, world, action, moment, checked)
        else:
            reason = refusal_of(world, action)
            if reason is not None:
                checked.fail(
                    step=moment.step, at_ms=moment.at_ms, path=f"steps[{moment.step}]", expected="taken", actual=reason
                )
    return checked.failures


def refusal_of(world: ReferenceWorld, action: Any) -> str | None:
    """Make a change of definitions; return why it is refused, None if it is made."""
    try:
        match action:
            case Define(audience=audience, trait=trait):
                world.define(audience or trait)  # type: ignore[arg-type] # one of them is given
            case Edit(audience=audience, trait=trait):
                world.edit(audience or trait)  # type: ignore[arg-type] # one of them is given
            case Delete(audience=audience, trait=trait):
                given = audience or trait
                world.delete(given.key if isinstance(given, DeleteSpec) else str(given))
            case Connect(audience=audience, trait=trait):
                world.existing(str(audience or trait))
    except RefusedChange as refused:
        return str(refused)
    return None


def _check(scenario: Scenario, world: ReferenceWorld, check: Check, moment: Moment, checked: Checked) -> None:
    expect = check.expect
    answers = answers_for(scenario, world, expect)
    where: dict[str, Any] = {"step": moment.step, "at_ms": moment.at_ms, "path": check.path}
    checked.members(expect, lambda key: member_names(answers, key), **where)
    checked.traits(expect, lambda name, key: trait_of(answers, name, key), **where)
    checked.rejected(expect, len(answers.identity.rejected), **where)
    for refused in listed(expect.refused):
        _check_refused(world, refused, checked, where)


def answers_for(scenario: Scenario, world: ReferenceWorld, expect: Expect) -> Answers:
    """Return the answers that an expectation is about: now, or as of its `at` and `known`."""
    known_seq = None if expect.known is None else world.known_seq(scenario.at_ms(expect.known))
    return world.answers(at_ms=None if expect.at is None else scenario.at_ms(expect.at), known_seq=known_seq)


def member_names(answers: Answers, key: str) -> list[str] | None:
    """Return the names of an audience's members; None if there is no such audience."""
    defined = answers.living.get(key)
    if defined is None or defined.kind != "audience":
        return None
    return [entity.name for entity in answers.members(key)]


def trait_of(answers: Answers, name: str, key: str) -> Any:
    """Return a trait of the profile or account with this name, None for absent."""
    entity = entity_of(answers, name)
    return None if entity is None else answers.trait(entity, key)


def entity_of(answers: Answers, name: str) -> Entity | None:
    """Return the profile or account that a name stands for."""
    for id_type, value in ids_of_name(name):
        entity = answers.find("account" if id_type == "group_id" else "user", id_type, value)
        if entity is not None:
            return entity
    return None


def why_refused(world: ReferenceWorld, refused: Refused) -> str | None:
    """Return why something would be refused, None if it would be made; the world stays as it is."""
    if refused.audience is not None or refused.trait is not None:
        action: Any = Define(audience=refused.audience, trait=refused.trait)
    else:
        action = refused.edit or refused.delete or refused.connect
    changes, seq = list(world.changes), world.seq
    reason = refusal_of(world, action)
    world.changes, world.seq = changes, seq
    return reason


def _check_refused(world: ReferenceWorld, refused: Refused, checked: Checked, where: dict[str, Any]) -> None:
    reason = why_refused(world, refused)
    expected = refused.because or "refused"
    if reason is None:
        checked.fail(
            step=where["step"],
            at_ms=where["at_ms"],
            path=f"{where['path']}.refused",
            expected=expected,
            actual=f"taken at {iso(world.now_ms)}",
        )
