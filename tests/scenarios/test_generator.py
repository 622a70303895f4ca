"""Random worlds: the same from the same seed, different from another, and full of what they are for."""

import random
from collections import Counter
from pathlib import Path

from actors.language.parser import parse
from scenarios.answers import with_answers
from scenarios.format import Scenario, listed, load
from scenarios.generator import random_scenario
from scenarios.generator_queries import EntityType, Queries
from scenarios.reference_run import run_on_reference
from scenarios.shrink import shrink, write_found
from scenarios.timeline import Send, timeline


def test_a_seed_gives_the_same_world_and_another_seed_another() -> None:
    assert random_scenario(5) == random_scenario(5)
    assert random_scenario(5) != random_scenario(6)


def test_random_definitions_parse() -> None:
    entity_types: tuple[EntityType, ...] = ("USERS", "ACCOUNTS")
    for seed in range(400):
        rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        queries = Queries(rng, ["k1"], ["t1"])
        entity_type = rng.choice(entity_types)
        parse(queries.audience(entity_type), entity_type=entity_type, kind="audience")
        parse(queries.trait(entity_type), entity_type=entity_type, kind="trait")


def test_what_the_reference_answers_is_what_it_expects() -> None:
    for seed in range(30):
        assert run_on_reference(with_answers(random_scenario(seed))) == []


def test_random_worlds_are_not_empty() -> None:
    """Of 60 worlds: members that come and go, traits with values, edits, refused events, questions of the past."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        world = with_answers(random_scenario(seed))
        seen["edits"] += sum(len(listed(step.edit)) for step in world.steps)
        seen["deletions"] += sum(len(listed(step.delete)) for step in world.steps)
        seen["definitions midway"] += sum(len(listed(step.define)) for step in world.steps)
        seen["steps without events"] += sum(step.send == () for step in world.steps)
        for step in world.steps:
            for expect in listed(step.expect):
                seen["memberships"] += sum(len(names) > 0 for names in expect.members.values())
                seen["no memberships"] += sum(not names for names in expect.members.values())
                seen["refused events"] += bool(expect.rejected)
                seen["questions of the past"] += expect.at is not None
                seen["accounts"] += any(name.startswith("group_id:") for name in expect.traits)
                traits = [value for traits in expect.traits.values() for value in traits.values()]
                seen["values"] += sum(value is not None for value in traits)
    assert min(seen.values()) >= 20, seen
    assert seen["memberships"] > seen["no memberships"] / 5


def messages_in(scenario: Scenario) -> int:
    return sum(isinstance(moment.action, Send) for moment in timeline(scenario))


def test_a_failing_world_is_made_small_and_kept(tmp_path: Path) -> None:
    """Say that a world fails if an audience ever loses a member: one definition and few messages are left of it."""

    def fails(scenario: Scenario) -> bool:
        ever: set[tuple[str, str]] = set()
        for step in with_answers(scenario).steps:
            for expect in listed(step.expect):
                now = {(key, name) for key, names in expect.members.items() for name in names}
                if any(
                    (key, name) in ever and (key, name) not in now
                    for key, names in expect.members.items()
                    for name in {n for k, n in ever if k == key}
                ):
                    return True
                ever |= now
        return False

    world = next(random_scenario(seed) for seed in range(100) if fails(random_scenario(seed)))
    small = shrink(world, fails)
    assert fails(small)
    assert messages_in(small) <= 3 < messages_in(world)
    path = write_found(small, "A member is lost", "Random world, shrunk.", folder=tmp_path)
    assert path.name == "a_member_is_lost.yaml"
    kept = load(path).scenario
    assert run_on_reference(kept) == []
    assert any(expect.members for step in kept.steps for expect in listed(step.expect))
