"""Random worlds over the whole language, in small numbers so that edges meet; each from its seed alone.

A world is a scenario: few users, few names, times on a grid of six hours, so that windows close exactly when something
else happens. It has equal timestamps, late and future events, duplicates, merges by shared ids and by alias, users of
several accounts who join and leave, traits that change and vanish, definitions that are added, edited and deleted on
the way, and time that passes with no event. What must be true after each step the reference evaluator says
(`with_answers`), so a world that the engine gets wrong is a scenario file as it stands.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from actors.identity_rules import settings_from_json
from eventlog.instants import instant_ms, iso
from scenarios.expectations import ids_of_name
from scenarios.format import (
    AudienceSpec,
    Define,
    Delete,
    Edit,
    EditSpec,
    Expect,
    OptionsSpec,
    Scenario,
    Step,
    TraitSpec,
    offset_text,
)
from scenarios.generator_queries import NAMES, PAGE_NAMES, SOURCES, UNIT_HOURS, EntityType, Queries
from scenarios.reference import Answers
from scenarios.reference_run import ReferenceWorld, entity_of, refusal_of
from scenarios.timeline import Check, Send, timeline

START: Final = "2026-03-01T00:00:00Z"
UNIT_MS: Final = UNIT_HOURS * 3_600_000
USERS: Final = ("u1", "u2", "u3")
VISITORS: Final = ("a1", "a2", "a3")
ACCOUNTS: Final = ("g1", "g2")
EMAILS: Final = ("e1@x.io", " E1@X.io", "e2@x.io")
TRAIT_KEYS: Final = ("t", "s", "o", "when")
VALUES: Final[tuple[Any, ...]] = (
    *(1, 2, 2, 3, 0, -1, 2.5, 1.0, 10),
    *("1", "2", "10", "2.5", "x", "y", "X", "", " 2 ", "true"),
    *(True, False, None, [], ["x", "y"], [1, "2"], [None], [["x"], "y"], {"k": "x"}, [{"k": 1}]),
)
DATES: Final = ("2026-03-01", "2026-03-02T06:00:00Z", "2026-03-03T01:00:00+01:00", "2026-03-04T12:00:00", "soon")
ENTITY_TYPES: Final[tuple[EntityType, ...]] = ("USERS", "USERS", "ACCOUNTS")
SETTINGS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {},
    {},
    {"idLimits": {"anonymous_id": 1}},
    {"idLimits": {"email": {"count": 1, "period": "weekly"}, "user_id": 2}},
    {"idPriority": ["anonymous_id", "user_id"], "blockedIds": ["a2"]},
    {"dedupeWindow": "12h"},
)


class _Maker:
    """Makes one world."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.made = 0
        self.message_ids: list[str] = []
        settings = self.rng.choice(SETTINGS)
        self.world = ReferenceWorld(settings_from_json(settings))
        self.start_ms = instant_ms(START) or 0
        self.world.now_ms = self.start_ms
        self.scenario = Scenario(scenario=f"Random world {seed}", seed=seed, start=START, settings=settings)

    def make(self) -> Scenario:
        """Return the world."""
        audiences: list[AudienceSpec] = []
        traits: list[TraitSpec] = []
        for _ in range(self.rng.choice((1, 2, 3))):
            action = self.definition()
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
        return replace(self.scenario, audiences=tuple(audiences), traits=tuple(traits), steps=tuple(steps))

    # -- definitions ---------------------------------------------------------------------------------------------------

    def definition(self, *, midway: bool = False) -> Define | None:
        """Return a new definition that is not refused, and take it into the world."""
        living = self.world.answers().living
        audiences = [key for key, defined in living.items() if defined.kind == "audience"]
        # What stands above the steps is defined audiences first: there, only audiences are referred to.
        traits = [key for key, defined in living.items() if defined.kind == "trait"] if midway else []
        entity_type: EntityType = self.rng.choice(ENTITY_TYPES)
        self.made += 1
        queries = Queries(self.rng, audiences, [*traits, *self.gone()])
        options = self.options() if self.rng.random() < 0.3 else None
        is_trait = self.rng.random() < 0.35
        name = f"{'T' if is_trait else 'K'}{self.made}"
        if is_trait:
            query = queries.trait(entity_type)
            action = Define(trait=TraitSpec(name=name, type=entity_type, query=query, options=options))
        else:
            query = queries.audience(entity_type)
            action = Define(audience=AudienceSpec(name=name, type=entity_type, query=query, options=options))
        return action if refusal_of(self.world, action) is None else None

    def gone(self) -> list[str]:
        """Return the keys of deleted definitions, which are custom traits now."""
        return [change.key for change in self.world.changes if change.defined is None]

    def options(self) -> OptionsSpec:
        """Return options of a definition."""
        ids = self.rng.choice((None, None, ("user_id",), ("user_id", "anonymous_id"), ("email",)))
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
        queries = Queries(self.rng, others, [*traits, *self.gone()])
        query = queries.trait(defined.entity_type) if defined.kind == "trait" else queries.audience(defined.entity_type)
        spec = EditSpec(key=key, query=query, options=self.options() if self.rng.random() < 0.2 else None)
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
        define = self.definition(midway=True) if self.rng.random() < 0.25 else None
        edit = self.edit() if self.rng.random() < 0.12 else None
        delete = self.delete() if self.rng.random() < 0.1 else None
        messages = [self.message(units) for _ in range(self.rng.choice((0, 1, 1, 2, 3, 5)))]
        return Step(
            at=offset_text(units * UNIT_MS),
            define=() if define is None else (define,),
            edit=() if edit is None else (edit,),
            delete=() if delete is None else (delete,),
            send=tuple(messages),
        )

    # -- messages ------------------------------------------------------------------------------------------------------

    def message(self, units: int) -> dict[str, Any]:
        """Return a tracking call."""
        kinds: tuple[Callable[[], dict[str, Any]], ...] = (
            *([self.track] * 9),
            *([self.page] * 2),
            *([self.identify] * 4),
            *([self.group] * 3),
            self.alias,
        )
        message = self.rng.choice(kinds)()
        self.date(message, units)
        if self.rng.random() < 0.15:
            message["writeKey"] = self.rng.choice(SOURCES)
        if self.rng.random() < 0.12:
            known = self.rng.choice((*self.message_ids, f"m{len(self.message_ids)}"))
            self.message_ids.append(known)
            message["messageId"] = known
        if self.rng.random() < 0.03:
            message.update(
                self.rng.choice(({"type": "tract"}, {"timestamp": "noon"}, {"userId": "null"}, {"type": None}))
            )
        return message

    def date(self, message: dict[str, Any], units: int) -> None:
        """Give a call a time: mostly none, else late, in the future or by a wrong clock, on the grid or just beside."""
        chance = self.rng.random()
        if chance < 0.6:
            return
        late = self.rng.choice((-1, 0, 1, 1, 2, 4, 9))
        beside = self.rng.choice((0, 0, 0, 0, 1, -1))
        at_ms = self.start_ms + (units - late) * UNIT_MS + beside
        message["timestamp"] = iso(at_ms) if self.rng.random() < 0.9 else iso(at_ms)[:-1]
        if chance > 0.95:
            message["sentAt"] = iso(at_ms + self.rng.choice((-1, 0, 1, 2)) * UNIT_MS)

    def who(self) -> dict[str, Any]:
        """Return the ids of a call, and what of its context gives ids."""
        user, visitor = self.rng.choice(USERS), self.rng.choice(VISITORS)
        ids: dict[str, Any] = self.rng.choice(
            (
                {"userId": user},
                {"userId": user},
                {"userId": user},
                {"anonymousId": visitor},
                {"userId": user, "anonymousId": visitor},
            )
        ).copy()
        context: dict[str, Any] = {}
        if self.rng.random() < 0.1:
            context["traits"] = {"email": self.rng.choice(EMAILS)}
        if self.rng.random() < 0.1:
            context["c"] = self.value()
            context["page"] = {"url": self.value()}
        if self.rng.random() < 0.04:
            context["externalIds"] = [{"id": self.rng.choice(("x1", "x2")), "type": "crm", "collection": "users"}]
        if context:
            ids["context"] = context
        return ids

    def value(self) -> Any:
        """Return a JSON value of any kind."""
        return self.rng.choice(VALUES)

    def properties(self) -> dict[str, Any]:
        """Return the properties of an event."""
        properties: dict[str, Any] = {}
        for name in ("p", "q", "n"):
            if self.rng.random() < 0.5:
                properties[name] = self.value() if name != "n" else self.rng.choice((1, 2, 3, 0.5, "2", "1.5", -1))
        if self.rng.random() < 0.15:
            properties["o"] = {"k": self.value()}
        if self.rng.random() < 0.15:
            properties["when"] = self.rng.choice(DATES)
        return properties

    def track(self) -> dict[str, Any]:
        """Return a track call."""
        message = {"type": "track", **self.who(), "event": self.rng.choice(NAMES)}
        properties = self.properties()
        return {**message, "properties": properties} if properties else message

    def page(self) -> dict[str, Any]:
        """Return a page or screen call."""
        message = {"type": self.rng.choice(("page", "screen")), **self.who()}
        if self.rng.random() < 0.7:
            message["name"] = self.rng.choice(PAGE_NAMES)
        return {**message, "properties": self.properties()} if self.rng.random() < 0.5 else message

    def traits(self) -> dict[str, Any]:
        """Return traits to write; now and then under the key of a definition."""
        traits: dict[str, Any] = {}
        for key in TRAIT_KEYS:
            if self.rng.random() < 0.35:
                traits[key] = {"o": {"k": self.value()}, "when": self.rng.choice(DATES)}.get(key, self.value())
        keys = [*self.world.answers().living, *self.gone()]
        if keys and self.rng.random() < 0.2:
            traits[self.rng.choice(keys)] = self.value()
        return traits

    def identify(self) -> dict[str, Any]:
        """Return an identify call."""
        message = {"type": "identify", **self.who()}
        traits = self.traits()
        if self.rng.random() < 0.2:
            traits["email"] = self.rng.choice(EMAILS)
        if self.rng.random() < 0.15:
            context = dict(message.get("context", {}))
            context["traits"] = {**context.get("traits", {}), **self.traits()}
            message["context"] = context
        return {**message, "traits": traits}

    def group(self) -> dict[str, Any]:
        """Return a group call: a user joins, leaves, or the account alone is described."""
        who = self.who() if self.rng.random() < 0.85 else {}
        message = {"type": "group", **who, "groupId": self.rng.choice(ACCOUNTS)}
        traits = self.traits() if self.rng.random() < 0.5 else {}
        if self.rng.random() < 0.2:
            traits["$left"] = self.rng.choice((True, True, False))
        return {**message, "traits": traits} if traits else message

    def alias(self) -> dict[str, Any]:
        """Return an alias call."""
        return {"type": "alias", "userId": self.rng.choice(USERS), "previousId": self.rng.choice(VISITORS)}


def random_scenario(seed: int) -> Scenario:
    """Return a random world as a scenario without expectations."""
    return _Maker(seed).make()


# -- what must be true in it -------------------------------------------------------------------------------------------


def with_answers(scenario: Scenario, *, past: int = 2) -> Scenario:
    """Return the scenario with what the reference says must be true after each step.

    After the last step it is also asked `past` times about its past: at a time, and half of the times as it was known.
    """
    plain = replace(scenario, steps=tuple(replace(step, expect=()) for step in scenario.steps))
    rng = random.Random(scenario.seed)  # noqa: S311 - reproducible, not secret
    asked = [replace(step, expect=(Expect(),)) for step in plain.steps]
    if asked:
        asked[-1] = replace(asked[-1], expect=(Expect(), *(_question(plain, rng) for _ in range(past))))
    world = ReferenceWorld(settings_from_json(scenario.settings))
    answered: dict[int, list[Expect]] = {}
    for moment in timeline(replace(plain, steps=tuple(asked))):
        world.now_ms = moment.at_ms
        if isinstance(moment.action, Send):
            world.send(moment.action.message, moment.action.source)
        elif isinstance(moment.action, Check):
            answered.setdefault(moment.step, []).append(_answer(scenario, world, moment.action.expect))
        else:
            refusal_of(world, moment.action)
    steps = [replace(step, expect=tuple(answered[index])) for index, step in enumerate(plain.steps)]
    return replace(plain, steps=tuple(steps))


def _question(scenario: Scenario, rng: random.Random) -> Expect:
    last = (scenario.at_ms(scenario.steps[-1].at) - scenario.start_ms) // UNIT_MS
    at = offset_text(rng.randint(0, last) * UNIT_MS)
    known = offset_text(rng.randint(0, last) * UNIT_MS) if rng.random() < 0.5 else None
    return Expect(at=at, known=known)


def _answer(scenario: Scenario, world: ReferenceWorld, question: Expect) -> Expect:
    known_seq = None if question.known is None else world.known_seq(scenario.at_ms(question.known))
    at_ms = None if question.at is None else scenario.at_ms(question.at)
    answers = world.answers(at_ms=at_ms, known_seq=known_seq)
    members = {
        key: tuple(sorted(entity.name for entity in answers.members(key)))
        for key, defined in answers.living.items()
        if defined.kind == "audience"
    }
    traits = {name: _traits(answers, name, world) for name in _names(answers)}
    rejected = len(answers.identity.rejected) if question.at is None and question.known is None else None
    return Expect(members=members, traits=traits, rejected=rejected, at=question.at, known=question.known)


def _names(answers: Answers) -> list[str]:
    """Return how a scenario names the entities there are, those by which they are found again."""
    names = [user.name for user in answers.users] + [f"group_id:{account.name}" for account in answers.accounts]
    return [name for name in names if entity_of(answers, name) is not None and ids_of_name(name)]


def _traits(answers: Answers, name: str, world: ReferenceWorld) -> dict[str, Any]:
    """Return the traits of an entity: all custom ones, and those of definitions of its own kind."""
    entity = entity_of(answers, name)
    assert entity is not None
    entity_type = "USERS" if entity.kind == "user" else "ACCOUNTS"
    own = [key for key, defined in answers.living.items() if defined.entity_type == entity_type]
    gone = [change.key for change in world.changes if change.defined is None and change.key not in answers.living]
    return {key: answers.trait(entity, key) for key in dict.fromkeys((*TRAIT_KEYS, *own, *gone))}
