"""What must be true in a scenario by the reference evaluator: its expectations, answered.

Every expectation keeps the time that it asks about and is given everything there is to say of it: all memberships, and
the traits of all profiles and accounts.
"""

from typing import Any

from msgspec.structs import replace

from actors.identity_rules import settings_from_json
from scenarios.expectations import ids_of_name
from scenarios.format import Expect, Scenario, listed
from scenarios.reference import Answers
from scenarios.reference_run import ReferenceWorld, answers_for, entity_of, refusal_of, why_refused
from scenarios.timeline import Check, Send, timeline


def with_answers(scenario: Scenario) -> Scenario:
    """Return the scenario with what the reference says must be true; a step that asks nothing asks about now."""
    asked = tuple(
        replace(step, expect=tuple(_asked(one) for one in listed(step.expect)) or (Expect(),))
        for step in scenario.steps
    )
    scenario = replace(scenario, steps=asked)
    world = ReferenceWorld(settings_from_json(scenario.settings))
    answered: dict[int, list[Expect]] = {}
    for moment in timeline(scenario):
        world.now_ms = moment.at_ms
        if isinstance(moment.action, Send):
            world.send(moment.action.message, moment.action.source)
        elif isinstance(moment.action, Check):
            answered.setdefault(moment.step, []).append(_answer(scenario, world, moment.action.expect))
        else:
            refusal_of(world, moment.action)
    steps = [replace(step, expect=tuple(answered[index])) for index, step in enumerate(asked)]
    return replace(scenario, steps=tuple(steps))


def _asked(expect: Expect) -> Expect:
    return Expect(at=expect.at, known=expect.known, refused=expect.refused)


def _answer(scenario: Scenario, world: ReferenceWorld, question: Expect) -> Expect:
    answers = answers_for(scenario, world, question)
    members = {
        key: tuple(sorted(entity.name for entity in answers.members(key)))
        for key, defined in answers.living.items()
        if defined.kind == "audience"
    }
    traits = {name: _traits(answers, name, world) for name in _names(answers)}
    rejected = len(answers.identity.rejected) if question.at is None and question.known is None else None
    refused = tuple(one for one in listed(question.refused) if why_refused(world, one) is not None)
    return Expect(
        members=members, traits=traits, rejected=rejected, refused=refused, at=question.at, known=question.known
    )


def _names(answers: Answers) -> list[str]:
    """Return how a scenario names the entities there are, those by which they are found again."""
    names = [user.name for user in answers.users] + [f"group_id:{account.name}" for account in answers.accounts]
    return [name for name in names if entity_of(answers, name) is not None and ids_of_name(name)]


def _traits(answers: Answers, name: str, world: ReferenceWorld) -> dict[str, Any]:
    """Return the traits of an entity: all that were ever written, and those of its own kind's definitions."""
    entity = entity_of(answers, name)
    assert entity is not None
    entity_type = "USERS" if entity.kind == "user" else "ACCOUNTS"
    own = [key for key, defined in answers.living.items() if defined.entity_type == entity_type]
    written = [key for call in entity.calls for key in (call.message.get("traits") or {}) if key != "$left"]
    gone = [change.key for change in world.changes if change.defined is None and change.key not in answers.living]
    keys = [key for key in dict.fromkeys((*own, *gone, *written)) if key in own or key not in answers.living]
    return {key: answers.trait(entity, key) for key in keys}
