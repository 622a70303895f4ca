"""The engine and the reference evaluator in lockstep: what a scenario file cannot ask.

Over a random world are held against the reference: every change that a timer announces (true at its date, not yet a
millisecond before, in the log once), previews of definitions that nobody created, and explanations: each part's truth,
the values and events it rests on, and that nothing changes by itself before it is said to. Times are milliseconds.
"""

import random
from typing import Any, Final

import anyio

from actors.identity_rules import settings_from_json
from actors.language import print_query, tree
from eventlog.entries import Entered, Exited, Merged, TraitComputed
from eventlog.errors import RefusedError
from eventlog.instants import instant_ms, iso
from scenarios.expectations import ids_of_name, same
from scenarios.format import Define, Delete, Edit, Expect, Fault, OptionsSpec, Scenario
from scenarios.generator import ENTITY_TYPES, random_scenario
from scenarios.generator_queries import Queries
from scenarios.reference import Answers, Change, Defined, Subject, World
from scenarios.reference_identity import Call, Entity
from scenarios.reference_run import ReferenceWorld, entity_of, meaning_of, refusal_of, with_options
from scenarios.timeline import Attempt, Check, Moment, Send, timeline
from scenarios.world import SimulatedWorld, options_of, simulated

DRAFT: Final = "draft"


class Difference(Exception):  # noqa: N818 - internal: callers see its text
    """The engine says something else than the reference."""

    def __init__(self, what: str, expected: Any, actual: Any) -> None:
        super().__init__(f"{what}: expected {expected!r}, found {actual!r}")


def difference_in(seed: int) -> str | None:
    """Return where the engine and the reference first differ in the world of a seed, None if nowhere."""
    return difference_of(random_scenario(seed))


def difference_of(scenario: Scenario) -> str | None:
    """Return where the engine and the reference first differ in a world, None if nowhere."""
    return anyio.run(_run, scenario, backend_options={"use_uvloop": True})


async def _run(scenario: Scenario) -> str | None:
    found: list[str] = []
    async with simulated(scenario.start_ms, scenario.seed, scenario.settings) as world:
        both = _Both(scenario, world)
        try:
            for moment in timeline(scenario):
                await both.happen(moment)
            await both.recorded()
        except Difference as difference:
            found.append(f"at {iso(world.clock.now_ms())}, {difference}")
    return found[0] if found else None


class _Both:
    """One world, lived twice."""

    def __init__(self, scenario: Scenario, world: SimulatedWorld) -> None:
        self.scenario = scenario
        self.engine = world
        self.reference = ReferenceWorld(settings_from_json(scenario.settings))
        self.reference.now_ms = scenario.start_ms
        self.rng = random.Random(scenario.seed)  # noqa: S311 - reproducible, not secret

    async def happen(self, moment: Moment) -> None:
        """Let one thing happen to both, and look at what came of it."""
        engine, action = self.engine, moment.action
        if moment.at_ms != engine.clock.now_ms():
            await self.move_to(moment.at_ms)
        match action:
            case Send(message=message, source=source):
                self.reference.send(message, source)
                await engine.send(message, source)
            case Attempt():
                pass
            case Fault():
                await engine.fault(action)
            case Define() | Edit() | Delete():
                await self.change(action)
            case Check(expect=expect):
                await engine.settle()
                await self.explained(expect)
                await self.previewed(expect)

    async def change(self, action: Define | Edit | Delete) -> None:
        """Change a definition in both."""
        refused = refusal_of(self.reference, action)
        try:
            if isinstance(action, Define):
                await self.engine.define(action)
            elif isinstance(action, Edit):
                await self.engine.edit(action)
            else:
                await self.engine.delete(action)
        except RefusedError as error:
            if refused is None:
                raise Difference("a change", "taken", str(error)) from None
        await self.engine.settle()

    # -- what timers announce ------------------------------------------------------------------------------------------

    async def move_to(self, to_ms: int) -> None:
        """Let time pass; what changes by itself must be dated when it became true."""
        await self.engine.settle()
        last_seq = self.engine.log.last_seq
        await self.engine.move_to(to_ms)
        self.reference.now_ms = to_ms
        for _, facts in self.engine.log.read_facts(last_seq, self.engine.log.last_seq):
            for _, fact in facts:
                if isinstance(fact, Entered | Exited | TraitComputed):
                    self.dated(fact)

    def dated(self, fact: Entered | Exited | TraitComputed) -> None:
        """Check that a change was true from its date on, and not before."""
        space = self.engine.space
        key = space.definitions_held.held[fact.definition].latest.key
        name = space.name_of(fact.entity)
        says = fact.value if isinstance(fact, TraitComputed) else isinstance(fact, Entered)
        for ms, wanted in ((0, True), (-1, False)):
            answers = self.reference.answers(at_ms=fact.at_ms + ms)
            entity = _named(answers, name, answers.living[key].entity_type)
            there = None if entity is None else answers.own_value(entity, key)
            if isinstance(fact, Entered | Exited):
                there = bool(there)
            if same(there, says) is not wanted:
                raise Difference(f"{key} of {name} changes at {iso(fact.at_ms)} to {says!r}; at {ms} ms", there, says)

    async def recorded(self) -> None:
        """Check that every change stands in the log once, and that all of them together are what is true now."""
        space = self.engine.space
        await self.engine.settle()
        said: dict[tuple[int, int], Any] = {}
        absorbed: set[int] = set()  # of their computed traits nothing more is said: the survivor's count
        for _, facts in space.log.read_facts(0, space.log.last_seq):
            for seq, fact in facts:
                if isinstance(fact, Merged):
                    absorbed.update(fact.absorbed)
                elif isinstance(fact, Entered | Exited | TraitComputed):
                    place = fact.definition, fact.entity
                    value = fact.value if isinstance(fact, TraitComputed) else isinstance(fact, Entered) or None
                    if same(value, said.get(place)):
                        raise Difference(f"entry {seq} about {place}", "a change", value)
                    said[place] = value
        for held in space.definitions_held.held.values():
            number = held.latest.number
            told = sorted(
                entity
                for (definition, entity), value in said.items()
                if definition == number
                and value is not None
                and (held.latest.kind == "audience" or entity not in absorbed)
            )
            there = sorted(space.partition.members.get(number, ()))
            if told != there:
                raise Difference(f"what the log says of {held.latest.key}", there, told)

    # -- previews ------------------------------------------------------------------------------------------------------

    def answers(self, expect: Expect) -> Answers:
        """Return the reference's answers about the time of a question."""
        scenario = self.scenario
        known_seq = None if expect.known is None else self.reference.known_seq(scenario.at_ms(expect.known))
        at_ms = None if expect.at is None else scenario.at_ms(expect.at)
        return self.reference.answers(at_ms=at_ms, known_seq=known_seq)

    async def previewed(self, expect: Expect) -> None:
        """Preview a random definition on both."""
        rng, scenario, space = self.rng, self.scenario, self.engine.space
        answers = self.answers(expect)
        audiences = [key for key, defined in answers.living.items() if defined.kind == "audience"]
        traits = [key for key, defined in answers.living.items() if defined.kind == "trait"]
        entity_type = rng.choice(ENTITY_TYPES)
        queries = Queries(rng, audiences, traits)
        is_trait = rng.random() < 0.4
        query = queries.trait(entity_type) if is_trait else queries.audience(entity_type)
        options = OptionsSpec(
            filter_by_external_ids=rng.choice((None, ("user_id", "anonymous_id"))),
            backfill_event_data_days=rng.choice((None, None, 1, 2)),
            include_anonymous_users=rng.random() < 0.7,
        )
        found = await space.preview(
            query,
            entity_type,
            options=options_of(options),
            trait=is_trait,
            at_ms=None if expect.at is None else scenario.at_ms(expect.at),
            known_ms=None if expect.known is None else scenario.at_ms(expect.known),
            sample=None,
        )
        kind: Any = "trait" if is_trait else "audience"
        draft = Defined(
            key=DRAFT,
            kind=kind,
            entity_type=entity_type,
            meaning=meaning_of(query, entity_type, kind),
            created_ms=self.reference.now_ms,
            created_seq=self.reference.seq,
        )
        answers = _beside(answers, with_options(draft, options))
        entities = answers.users if entity_type == "USERS" else answers.accounts
        says = [(one, answers.own_value(one, DRAFT)) for one in entities]
        names = sorted(one.name for one, value in says if (value is not None if is_trait else value))
        if len(names) != found.size or (expect.known is None and names != sorted(name for _, name in found.sample)):
            raise Difference(f"preview of {query!r} {options} {expect.at} {expect.known}", names, found.sample)

    # -- explanations --------------------------------------------------------------------------------------------------

    async def explained(self, expect: Expect) -> None:
        """Have a definition explained for an entity."""
        answers, scenario, space = self.answers(expect), self.scenario, self.engine.space
        enabled = [defined for defined in answers.living.values() if defined.enabled]
        if not enabled:
            return
        defined = self.rng.choice(enabled)
        entities = answers.users if defined.entity_type == "USERS" else answers.accounts
        if not entities:
            return
        entity = self.rng.choice(entities)
        known_ms = None if expect.known is None else scenario.at_ms(expect.known)
        known_seq = None if known_ms is None else space.known_seq(known_ms)
        number = self.number_of(entity, known_seq)
        if number is None:
            return
        at_ms = None if expect.at is None else scenario.at_ms(expect.at)
        said = await space.explain(defined.key, number, at_ms=at_ms, known_ms=known_ms)
        about = f"explanation of {defined.key} for {entity.name} at {expect.at} known {expect.known}"
        told = _Told(answers, Subject(entity, defined), about)
        if isinstance(defined.meaning, tree.Event):
            told.value(said["value"], answers.own_value(entity, defined.key))
            told.events(defined.meaning, said["tree"])
            return
        told.value(said["member"], answers.own_value(entity, defined.key))
        told.part(defined.meaning, said["tree"])
        if expect.at is None and expect.known is None:
            self.lasts(answers, entity, defined, said["changes_at"], about)

    def number_of(self, entity: Entity, known_seq: int | None) -> int | None:
        """Return the engine's number of an entity."""
        collection: Any = "users" if entity.kind == "user" else "accounts"
        first = entity.ids[0]
        return self.engine.space.find(collection, first.type, first.value, known_seq=known_seq)

    def lasts(self, answers: Answers, entity: Entity, defined: Defined, changes_at: str | None, about: str) -> None:
        """Check that membership stays as it is until it is said to change by itself."""
        until_ms = answers.at_ms + 400 * 86_400_000 if changes_at is None else (instant_ms(changes_at) or 0)
        for at_ms in {until_ms - 1, self.rng.randint(answers.at_ms, max(answers.at_ms, until_ms - 1))}:
            later = self.reference.answers(at_ms=max(at_ms, answers.at_ms))
            there = later.find("user" if entity.kind == "user" else "account", entity.ids[0].type, entity.ids[0].value)
            assert there is not None
            now = answers.own_value(entity, defined.key)
            if not _refers(defined.meaning) and later.own_value(there, defined.key) is not now:
                raise Difference(f"{about}: unchanged until {changes_at}", "as now", f"other at {iso(at_ms)}")


class _Told:
    """What an explanation says, part by part."""

    def __init__(self, answers: Answers, subject: Subject, about: str) -> None:
        self.answers = answers
        self.subject = subject
        self.about = about

    def value(self, said: Any, wanted: Any) -> None:
        """Compare a value."""
        if not same(said, wanted):
            raise Difference(self.about, wanted, said)

    def part(self, condition: tree.Condition, said: dict[str, Any]) -> None:
        """Compare a part of a condition with its parts."""
        holds = self.answers.holds(condition, self.subject, None, None)
        if said["truth"] is not holds:
            raise Difference(f"{self.about}: {print_query(condition)}", holds, said)
        if isinstance(condition, tree.And | tree.Or):
            for inner, told in zip(condition.of, said["parts"], strict=True):
                self.part(inner, told)
        elif isinstance(condition, tree.Not):
            self.part(condition.of, said["parts"][0])
        elif isinstance(condition, tree.Comparison) and isinstance(condition.left, tree.Event):
            self.value(said["value"], self.answers.reduced(condition.left, self.subject, None))
            self.events(condition.left, said)
        elif isinstance(condition, tree.Users):
            users = self.answers.users_of(self.subject.entity)
            inside = [Subject(user, self.subject.defined) for user in users]
            self.value(said["users"], len(users))
            self.value(said["holds_for"], sum(self.answers.holds(condition.of, one, None, None) for one in inside))

    def events(self, question: tree.Event, said: dict[str, Any]) -> None:
        """Compare the events that a value rests on."""
        passing = self.answers.passing(question, self.subject, None)
        self.value(said["events_count"], len(passing))
        shown = [one["messageId"] for one in said["events"]]
        self.value(shown, [call.message["messageId"] for call in passing[-len(shown) :]] if shown else [])
        cited = {one["messageId"] for event in said["events"] for one in (event, *event.get("followed_by", ()))}
        all_there = len(shown) == said["events_count"] and all(
            len(event.get("followed_by", ())) == event.get("followed_by_count", 0) for event in said["events"]
        )
        if all_there and not _refers(question):
            alone = _Cited(self.answers, cited).reduced(question, self.subject, None)
            self.value(alone, said["value"])


class _Cited(Answers):
    """Answers from a few events alone: do those that an explanation cites give the value that it tells?"""

    def __init__(self, answers: Answers, message_ids: set[str]) -> None:
        super().__init__(answers.world, at_ms=answers.at_ms, known_seq=answers.known_seq)
        self._message_ids = message_ids

    def events(self, subject: Subject) -> list[Call]:
        """Return those of the calls that are cited."""
        return [call for call in super().events(subject) if call.message["messageId"] in self._message_ids]


def _refers(node: Any) -> bool:
    """Tell whether a tree looks at something that may change by a rule of its own."""
    if isinstance(node, tree.Audience | tree.Trait | tree.Users):
        return True
    if isinstance(node, tuple):
        return any(map(_refers, node))
    return hasattr(node, "__struct_fields__") and any(_refers(getattr(node, name)) for name in node.__struct_fields__)


def _beside(answers: Answers, defined: Defined) -> Answers:
    """Return answers in which one more definition lives."""
    change = Change(answers.known_seq, answers.at_ms, defined.key, defined)
    world = World(answers.world.received, (*answers.world.changes, change), answers.world.rules)
    return Answers(world, at_ms=answers.at_ms, known_seq=answers.known_seq)


def _named(answers: Answers, name: str, entity_type: str) -> Entity | None:
    """Return the entity that the engine calls by this name."""
    if entity_type == "ACCOUNTS":
        return answers.find("account", "group_id", name)
    return entity_of(answers, name) if ids_of_name(name) else None
