"""Random worlds over the whole language, in small numbers so that edges meet; each from its seed alone.

A world is a scenario: few users, few names, times on a grid of six hours, so that windows close exactly when something
else happens, and steps a millisecond beside it. It has equal timestamps, late and future events, duplicates, merges by
shared ids and by alias, users of several accounts who join and leave, traits that change and vanish, definitions that
are added, edited, disabled and deleted on the way, crashes, and time that passes with no event. After its steps it asks
what was true at other times. What must be true the reference evaluator says (`answers.with_answers`), so a world that
the engine gets wrong is a scenario file as it stands.
"""

import random
from typing import Any, Final

from msgspec.structs import replace

from actors.identity_rules import settings_from_json
from eventlog.instants import instant_ms, iso
from scenarios.format import (
    AudienceSpec,
    Define,
    Delay,
    Delete,
    Edit,
    EditSpec,
    Expect,
    Fault,
    OptionsSpec,
    Refused,
    Scenario,
    Step,
    TraitSpec,
    offset_text,
)
from scenarios.generator_funnels import Funnels
from scenarios.generator_messages import UNIT_MS, Messages
from scenarios.generator_queries import EntityType, Queries
from scenarios.reference_run import ReferenceWorld, refusal_of, why_refused
from scenarios.timeline import Send, timeline

START: Final = "2026-03-01T00:00:00Z"
ENTITY_TYPES: Final[tuple[EntityType, ...]] = ("USERS", "USERS", "ACCOUNTS")
SETTINGS: Final[tuple[dict[str, Any], ...]] = (
    *({}, {}, {}, {}, {}),
    {"idLimits": {"anonymous_id": 1}},
    {"idLimits": {"email": {"count": 1, "period": "weekly"}, "user_id": 2}},
    {"idLimits": {"*": 1, "anonymous_id": {"count": 1, "period": "weekly"}}},
    {"idPriority": ["anonymous_id", "user_id"], "blockedIds": ["a2"]},
    {"blockedIds": [{"regex": "^e1"}, {"value": "u2", "type": "anonymous_id"}, "u3"], "idLimits": {"user_id": 3}},
    {"maxIds": 3, "idLimits": {"user_id": 2}},
    {"maxMerges": 1, "idLimits": {"user_id": 2}},
    {"maxMerges": 0},
    {"dedupeWindow": "12h"},
)
FAULTS: Final[tuple[Fault, ...]] = (
    *([Fault(crash=True)] * 6),
    Fault(duplicate=0.5),
    Fault(duplicate=0),
    Fault(delay=Delay(p=0.5, by="6h")),
    Fault(delay=Delay(p=0, by="6h")),
)
QUESTIONS_MAX: Final = 2


class _Maker:
    """Makes one world."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.made = 0
        self.funnels = self.rng.choice((0.1, 0.1, 0.8))  # of the definitions
        settings = self.rng.choice(SETTINGS)
        self.world = ReferenceWorld(settings_from_json(settings))
        self.start_ms = instant_ms(START) or 0
        self.world.now_ms = self.start_ms
        self.messages = Messages(self.rng, self.start_ms, self.keys)
        self.scenario = Scenario(scenario=f"Random world {seed}", seed=seed, start=START, settings=settings)

    def make(self) -> Scenario:
        """Return the world."""
        audiences: list[AudienceSpec] = []
        traits: list[TraitSpec] = []
        for _ in range(self.rng.choice((1, 1, 2))):
            action = self.definition(above=True)
            if action is not None and action.audience is not None:
                audiences.append(action.audience)
            elif action is not None and action.trait is not None:
                traits.append(action.trait)
        # Audiences are made before traits, so references among them must not look ahead.
        steps = []
        units = 0
        for _ in range(self.rng.randint(4, 12)):
            units += self.rng.choice((0, 0, 1, 1, 1, 2, 4, 8))
            steps.append(self.step(units))
            if self.rng.random() < 0.3:
                units += self.rng.choice((1, 2, 4))
                steps += self.beside(units)
                units += 1
        return replace(self.scenario, audiences=tuple(audiences), traits=tuple(traits), steps=tuple(steps))

    def keys(self) -> list[str]:
        """Return the keys of all definitions, living and gone."""
        return [*self.world.answers().living, *self.gone()]

    # -- definitions ---------------------------------------------------------------------------------------------------

    def definition(self, *, above: bool = False) -> Define | None:
        """Return a new definition that is not refused, and take it into the world."""
        living = self.world.answers().living
        audiences = [key for key, defined in living.items() if defined.kind == "audience"]
        # What stands above the steps is defined audiences first: there, only audiences are referred to.
        traits = [key for key, defined in living.items() if defined.kind == "trait" and not above]
        entity_type: EntityType = self.rng.choice(ENTITY_TYPES)
        self.made += 1
        queries = self.queries(audiences, traits)
        options = self.options() if self.rng.random() < 0.3 else None
        enabled = self.rng.random() > 0.04
        is_trait = self.rng.random() < 0.35
        name = f"{'T' if is_trait else 'K'}{self.made}"
        if is_trait:
            query = self.query(queries, "trait", entity_type)
            action = Define(trait=TraitSpec(name=name, type=entity_type, query=query, options=options, enabled=enabled))
        else:
            query = self.query(queries, "audience", entity_type)
            action = Define(
                audience=AudienceSpec(name=name, type=entity_type, query=query, options=options, enabled=enabled)
            )
        return action if refusal_of(self.world, action) is None else None

    def queries(self, audiences: list[str], traits: list[str]) -> Queries:
        """Return what writes definitions that refer to these, to what is gone, at times to what is yet to be."""
        coming = [f"{kind}{self.made + self.rng.randint(1, 3)}" for kind in "kt"] if self.rng.random() < 0.15 else []
        return Queries(self.rng, [*audiences, *coming], [*traits, *self.gone(), *coming])

    def query(self, queries: Queries, kind: str, entity_type: EntityType) -> str:
        """Return a definition's text, in some worlds mostly a funnel."""
        funnels = Funnels(queries) if self.rng.random() < self.funnels else queries
        return funnels.trait(entity_type) if kind == "trait" else funnels.audience(entity_type)

    def gone(self) -> list[str]:
        """Return the keys of deleted definitions, which are custom traits now."""
        return [change.key for change in self.world.changes if change.defined is None]

    def options(self) -> OptionsSpec:
        """Return options of a definition."""
        ids = self.rng.choice((None, None, ("user_id",), ("user_id", "anonymous_id"), ("email",), ("ios.idfa", "crm")))
        return OptionsSpec(
            include_historical_data=self.rng.random() < 0.6,
            filter_by_external_ids=ids,
            backfill_event_data_days=self.rng.choice((None, None, 1, 2)),
            include_anonymous_users=self.rng.random() < 0.6,
        )

    def edit(self) -> Edit | None:
        """Return a change of a living definition that is not refused, and take it into the world."""
        living = self.world.answers().living
        if not living:
            return None
        key = self.rng.choice(list(living))
        defined = living[key]
        others = [k for k, other in living.items() if other.kind == "audience" and k != key]
        traits = [k for k, other in living.items() if other.kind == "trait" and k != key]
        query = self.query(self.queries(others, traits), defined.kind, defined.entity_type)
        chance = self.rng.random()
        spec = EditSpec(
            key=key,
            query=query if chance < 0.6 else None,
            options=self.options() if self.rng.random() < 0.2 else None,
            enabled=not defined.enabled if chance > 0.5 else None,
        )
        action = Edit(trait=spec) if defined.kind == "trait" else Edit(audience=spec)
        return action if refusal_of(self.world, action) is None else None

    def delete(self) -> Delete | None:
        """Return a deletion that is not refused, and take it into the world."""
        living = self.world.answers().living
        if not living:
            return None
        key = self.rng.choice(list(living))
        action = Delete(trait=key) if living[key].kind == "trait" else Delete(audience=key)
        return action if refusal_of(self.world, action) is None else None

    # -- steps ---------------------------------------------------------------------------------------------------------

    def step(self, units: int) -> Step:
        """Return what happens at one time."""
        self.world.now_ms = self.start_ms + units * UNIT_MS
        fault = self.rng.choice(FAULTS) if self.rng.random() < 0.15 else None
        define = self.definition() if self.rng.random() < 0.35 else None
        edit = self.edit() if self.rng.random() < 0.14 else None
        delete = self.delete() if self.rng.random() < 0.1 else None
        messages = [self.messages.message(units) for _ in range(self.rng.choice(self.messages.numbers))]
        step = Step(
            at=offset_text(units * UNIT_MS),
            fault=() if fault is None else (fault,),
            define=() if define is None else (define,),
            edit=() if edit is None else (edit,),
            delete=() if delete is None else (delete,),
            send=tuple(messages),
            expect=(Expect(refused=self.refused()), *(self.question(units) for _ in range(self.questions()))),
        )
        for moment in timeline(replace(self.scenario, steps=(step,))):
            if isinstance(moment.action, Send):
                self.world.send(moment.action.message, moment.action.source)
        return step

    def refused(self) -> tuple[Refused, ...]:
        """Return, at times, a change that must be refused: a key used before, what is referred to, a cycle."""
        living = self.world.answers().living
        if self.rng.random() > 0.15 or not living:
            return ()
        key = self.rng.choice(list(living))
        other = self.rng.choice(list(living))
        reference = f"trait('{other}').exists()"
        query = reference if living[key].kind == "audience" else f"event('A').where({reference}).count()"
        tried = (
            Refused(audience=AudienceSpec(name=self.rng.choice(self.keys()).upper(), query="event('A').count() >= 1")),
            Refused(trait=TraitSpec(name=self.rng.choice(self.keys()), query="event('A').count()")),
            Refused(delete=Delete(audience=key) if living[key].kind == "audience" else Delete(trait=key)),
            Refused(edit=Edit(audience=EditSpec(key=key, query=query))),
            Refused(edit=Edit(audience=EditSpec(key="never", query=query))),
        )
        chosen = self.rng.choice(tried)
        return (chosen,) if why_refused(self.world, chosen) is not None else ()

    def beside(self, units: int) -> list[Step]:
        """Return steps in which nothing is sent, just before, on and just after a point of the grid."""
        at_ms = self.start_ms + units * UNIT_MS
        beside = sorted(self.rng.sample((-1, 0, 1), self.rng.choice((1, 2))))
        return [Step(at=iso(at_ms + ms), expect=(Expect(),)) for ms in beside]

    def questions(self) -> int:
        """Return how many questions about another time a step asks."""
        return self.rng.choice((1, QUESTIONS_MAX)) if self.rng.random() < 0.25 else 0

    def question(self, units: int) -> Expect:
        """Return a question about another time: mostly in the past, half of the times as it was known."""
        chance = self.rng.random()
        at_ms = self.start_ms + self.rng.randint(-1, units) * UNIT_MS + self.rng.choice((0, 0, 0, 1, -1))
        known = iso(self.start_ms + self.rng.randint(0, units) * UNIT_MS) if chance < 0.5 else None
        return Expect(at=iso(at_ms) if chance > 0.1 else None, known=known)


def random_scenario(seed: int) -> Scenario:
    """Return a random world as a scenario that asks without saying what must be true."""
    return _Maker(seed).make()
