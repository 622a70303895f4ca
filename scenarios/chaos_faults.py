"""What chaos draws: faults that may change nothing in the end, put into a scenario, and taken out of it again.

- The process dies between two steps, right after or in the middle of any write (a definition's, a merge's, a
  checkpoint's too), is down while nobody sends, stops in order, or stores what stands and lets it leave memory.
- The disk has no room for one write, or for minutes in which nobody changes a definition.
- Destinations fail, are slow or hang for a while; their requests or answers are lost.
- Messages come twice (one `messageId`); clients' clocks are wrong; messages come late and in another order, where that
  is provably nothing to the end (`movable`).
- A definition is edited to say the same in other words: its past is gathered anew and switched in.

What was drawn stands in the scenario itself, as steps, fields and marks in `context`; `calm` finds it there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from actors.door import Incoming, accept
from actors.identity_rules import SpaceSettings
from actors.language import tree
from actors.language.parser import parse
from actors.language.printer import print_query
from eventlog.entries import Rejected
from eventlog.errors import QueryError
from eventlog.instants import instant_ms, iso
from scenarios.format import (
    Connect,
    Define,
    DeleteSpec,
    DestinationSpec,
    Edit,
    EditSpec,
    Fault,
    Scenario,
    Step,
    TraitSpec,
    key_of,
    listed,
)

FAULTS_MAX: Final = 6  # added to a run
WRITES_MAX: Final = 12  # of a few steps: a crash within so many writes from here
FAILS_MIN: Final = (1, 30)  # how many minutes a destination fails
SLOW_S: Final = (1, 120)  # how long an answer takes; nobody waits longer than the time-out
FULL_S: Final = (10, 300)  # how many seconds the disk is full
SKEW_S_MAX: Final = 86_400  # how wrong a client's clock is
AGAIN_MS_MAX: Final = 3_600_000  # a message comes again within the hour, well within the window of message ids
STATUSES: Final = (500, 503, 408, 429)
FOREVER_MS: Final = 1 << 60
LONG_AGO_MS: Final = -2_208_988_800_000  # 1900: `since` then says nothing of events that are later
SKEW: Final = "chaosSkewSeconds"  # in a message's context: how wrong its client's clock is
MOVED: Final = "chaosSentAt"  # in a message's context: when it would have arrived

_CHANGES: Final = ("define", "edit", "delete", "connect", "disconnect")
_TIMES: Final = ("sentAt", "originalTimestamp", "receivedAt")


# -- before and after --------------------------------------------------------------------------------------------------


def pinned(scenario: Scenario) -> Scenario:
    """Return the scenario without expectations, made of steps alone, its messages with their ids and times.

    Definitions and connections become a first step, so that faults may fall into their making.
    """
    steps = []
    for index, step in enumerate(scenario.steps):
        at_ms = scenario.at_ms(step.at)
        messages = []
        for place, message in enumerate(listed(step.send)):
            full = dict(message)
            if full.get("messageId") is None:
                full["messageId"] = f"step-{index}-{place}"
            if full.get("timestamp") is None and full.get("originalTimestamp") is None:
                full["timestamp"] = iso(at_ms)
            messages.append(full)
        steps.append(replace(step, at=iso(at_ms), send=tuple(messages), expect=()))
    define = [Define(audience=spec) for spec in scenario.audiences] + [Define(trait=spec) for spec in scenario.traits]
    connect = tuple(one for destination in scenario.destinations for one in _connects(destination))
    if define:
        steps.insert(0, Step(at=iso(scenario.start_ms), define=tuple(define), connect=connect))
    bare = tuple(replace(one, audiences=(), traits=()) for one in scenario.destinations)
    return replace(scenario, audiences=(), traits=(), destinations=bare, steps=tuple(steps))


def _connects(destination: DestinationSpec) -> Iterator[Connect]:
    for part in ("audience", "trait"):
        for key in getattr(destination, f"{part}s"):
            yield Connect(
                destination=destination.name,
                **{part: key},
                send_identify=destination.send_identify,
                send_track=destination.send_track,
                send_group=destination.send_group,
                id_sync_configuration=destination.id_sync_configuration,
            )


def calm(scenario: Scenario) -> Scenario:
    """Return the scenario without harmless faults, second copies of messages, and edits that change nothing."""
    steps: list[Step] = []
    seen: dict[Any, tuple[int, dict[str, Any]]] = {}
    counted_once = "dedupeWindow" not in scenario.settings
    said = _Said()
    for step in scenario.steps:
        at_ms = scenario.at_ms(step.at)
        messages = []
        for message in listed(step.send):
            name = message.get("messageId")
            before_ms, before = seen.get(name, (-FOREVER_MS, message))
            if name is not None and counted_once and message == before and at_ms - before_ms <= AGAIN_MS_MAX:
                continue
            seen[name] = at_ms, message
            sent_at = _mark(message, MOVED)
            if sent_at is None:
                messages.append(_unskewed(message))
            else:
                _put_back(scenario, steps, Step(at=sent_at, send=(_unmarked(message, MOVED),)))
        faults = tuple(fault for fault in listed(step.fault) if not is_harmless(fault))
        edits = tuple(edit for edit in listed(step.edit) if not said.nothing_new(edit))
        said.hear(step)
        steps.append(replace(step, fault=faults, edit=edits, send=tuple(messages)))
    return replace(scenario, steps=tuple(steps))


def _put_back(scenario: Scenario, steps: list[Step], step: Step) -> None:
    """Put a step where it belongs in time, behind all that was before it."""
    at_ms = scenario.at_ms(step.at)
    place = len(steps)
    while place and scenario.at_ms(steps[place - 1].at) > at_ms:
        place -= 1
    steps.insert(place, step)


def is_harmless(fault: Fault) -> bool:
    """Tell whether a fault may change nothing in the end."""
    ends = fault.destination is None or fault.for_ is not None
    return ends and fault.duplicate is None and fault.delay is None


def is_late(scenario: Scenario) -> bool:
    """Tell whether something is known later than without faults: then nothing is said of since when."""
    return any(
        any(fault.disk_full is not None for fault in listed(step.fault))
        or any(_mark(message, MOVED) is not None for message in listed(step.send))
        for step in scenario.steps
    )


def _mark(message: dict[str, Any], name: str) -> Any:
    context = message.get("context")
    return context.get(name) if isinstance(context, dict) else None


def _marked(message: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {**message, "context": {**message.get("context", {}), name: value}}


def _unmarked(message: dict[str, Any], name: str) -> dict[str, Any]:
    context = {key: value for key, value in message["context"].items() if key != name}
    return {**message, "context": context} if context else {k: v for k, v in message.items() if k != "context"}


def _unskewed(message: dict[str, Any]) -> dict[str, Any]:
    skew = _mark(message, SKEW)
    original_ms = instant_ms(str(message.get("originalTimestamp", "")))
    if skew is None or original_ms is None:  # shrinking may have taken the instant away: nothing is left to be skewed
        return message
    plain = {key: value for key, value in message.items() if key not in ("sentAt", "originalTimestamp")}
    return _unmarked({**plain, "timestamp": iso(original_ms - skew * 1000)}, SKEW)


# -- drawing -----------------------------------------------------------------------------------------------------------


def chaotic(scenario: Scenario, seed: int) -> Scenario:
    """Return a pinned scenario with random harmless faults."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    faults = [fault for step in scenario.steps for fault in listed(step.fault)]
    late = any(fault.delay is not None or fault.disk_full is not None for fault in faults)
    with_disk = not late and random.random() < 0.25
    steps = list(scenario.steps)
    if not late and not with_disk:
        if random.random() < 0.4:
            steps = _moved(scenario, steps, random)
        if random.random() < 0.5:
            steps = [_skewed(scenario, step, random) for step in steps]
    if not late and random.random() < 0.4:
        steps = _restated(scenario, steps, random)
    if "dedupeWindow" not in scenario.settings and not late:
        steps = list(_doubled(scenario, steps, random))
    failing = {fault.destination for fault in faults}
    names = [one.name for one in scenario.destinations if one.name not in failing]
    for _ in range(random.randint(1, FAULTS_MAX)):
        place = random.randrange(len(steps) + 1) if steps else 0
        at = _time_before(scenario, steps, place, random)
        gap_s = (scenario.at_ms(steps[place].at) - scenario.at_ms(at)) // 1000 if place < len(steps) else 0
        steps.insert(place, Step(at=at, fault=_fault(random, names, 0 if late or with_disk else gap_s)))
    steps = _dying_in_a_backfill(steps, Random(f"backfill {seed}"))  # noqa: S311 - drawn apart: reproducible
    if with_disk:
        steps = _with_full_disk(scenario, steps, random)
    return replace(scenario, steps=tuple(steps))


def _dying_in_a_backfill(steps: list[Step], random: Random) -> list[Step]:
    """Return the steps; before one that changes a definition the process may be told to die while its past is read."""
    places = [place for place, step in enumerate(steps) if step.define or step.edit]
    if not places or random.random() < 0.5:
        return steps
    place = random.choice(places)
    return [
        *steps[:place],
        Step(at=steps[place].at, fault=Fault(crash_in_backfill=random.randint(1, 2))),
        *steps[place:],
    ]


def _time_before(scenario: Scenario, steps: list[Step], place: int, random: Random) -> str:
    """Return a time at or before a step, not before the one above it."""
    least_ms = scenario.at_ms(steps[place - 1].at) if place else scenario.start_ms
    if place == len(steps) or random.random() < 0.5:
        return steps[place].at if place < len(steps) else iso(least_ms)
    most_ms = scenario.at_ms(steps[place].at)
    return iso(least_ms + random.randrange((most_ms - least_ms) // 1000 + 1) * 1000)


def _fault(random: Random, names: list[str], gap_s: int) -> Fault:
    """Return a fault; `gap_s`: so long nobody sends anything."""
    kinds = ["crash", "crash_after", "crash_in", "restart", "checkpoint", "full_in", *["down"] * (gap_s > 0)]
    if names:
        kinds += ["status", "lost", "slow"]
    kind = random.choice(kinds)
    match kind:
        case "down":
            return Fault(down=f"{random.randint(1, gap_s)}s")
        case "crash" | "restart" | "checkpoint":
            return msgspec.convert({kind: True}, Fault)
        case "crash_after" | "crash_in" | "full_in":
            return msgspec.convert({kind: random.randint(1, WRITES_MAX)}, Fault)
    values: dict[str, Any] = {
        "status": random.choice(STATUSES),
        "lost": random.choice(("requests", "answers")),
        "slow": f"{random.randint(*SLOW_S)}s",
    }
    for_ = f"{random.randint(*FAILS_MIN)}m"
    return msgspec.convert({"destination": random.choice(names), "for": for_, kind: values[kind]}, Fault)


def _skewed(scenario: Scenario, step: Step, random: Random) -> Step:
    """Return the step with some clients' clocks wrong; the server corrects them by `sentAt`."""
    at_ms = scenario.at_ms(step.at)
    messages = []
    for message in listed(step.send):
        when = message.get("timestamp")
        when_ms = instant_ms(when) if isinstance(when, str) else None
        plain = not message.keys() & set(_TIMES) and isinstance(message.get("context", {}), dict)
        if when_ms is not None and plain and _mark(message, MOVED) is None and random.random() < 0.3:
            skew_s = random.randint(-SKEW_S_MAX, SKEW_S_MAX)
            rest = {key: value for key, value in message.items() if key != "timestamp"}
            sent = {"sentAt": iso(at_ms + skew_s * 1000), "originalTimestamp": iso(when_ms + skew_s * 1000)}
            message = _marked({**rest, **sent}, SKEW, skew_s)
        messages.append(message)
    return replace(step, send=tuple(messages))


def _doubled(scenario: Scenario, steps: list[Step], random: Random) -> Iterator[Step]:
    """Yield the steps; some messages come again, in their step or soon after."""
    again: list[tuple[int, dict[str, Any]]] = []
    for step in steps:
        at_ms = scenario.at_ms(step.at)
        again = [(until_ms, message) for until_ms, message in again if until_ms >= at_ms]
        messages = list(listed(step.send))
        for message in listed(step.send):
            if random.random() < 0.1 and "sentAt" not in message:
                messages.append(message)
            elif random.random() < 0.1 and "sentAt" not in message:
                again.append((at_ms + AGAIN_MS_MAX, message))
        if again and random.random() < 0.5:
            messages.append(again.pop(random.randrange(len(again)))[1])
        yield replace(step, send=tuple(messages))


def _with_full_disk(scenario: Scenario, steps: list[Step], random: Random) -> list[Step]:
    """Return the steps with minutes of a full disk in which no definition is changed, if there are such."""
    changing = [scenario.at_ms(step.at) for step in steps if any(getattr(step, part) for part in (*_CHANGES, "fault"))]
    place = random.randrange(len(steps)) if steps else 0
    at_ms = scenario.at_ms(steps[place].at) if steps else scenario.start_ms
    seconds = random.randint(*FULL_S)
    if any(at_ms <= one <= at_ms + 1000 * seconds for one in changing):
        return steps
    return [*steps[:place], Step(at=iso(at_ms), fault=Fault(disk_full=f"{seconds}s")), *steps[place:]]


# -- late and in another order -----------------------------------------------------------------------------------------


def movable(scenario: Scenario) -> set[str]:
    """Return the ids of messages of a pinned scenario that may come later without a difference in the end.

    Events count by (timestamp, sequence), so a message whose timestamp no other has may come in any order, from its own
    time on. Who is who does not depend on it either where nothing is ever demoted or refused: where all ids that any
    messages tie together stay within every limit, whatever came first. A destination is told by the ids that were known
    when it was told: there nobody may have two of a type, or come by way of an account. What stopped deciding
    (disabled, deleted) keeps what was known then.
    """
    if scenario.settings or any(_freezes(step) for step in scenario.steps):
        return set()
    found: list[tuple[dict[str, Any], Incoming, int]] = []
    for step in scenario.steps:
        at_ms = scenario.at_ms(step.at)
        for message in listed(step.send):
            one = _accepted(message, at_ms)
            if one is not None:
                found.append((message, one, at_ms))
    with_destinations = bool(scenario.destinations)
    if with_destinations and any(one.group is not None for _, one, _ in found):
        return set()
    if not _never_demoted([one for _, one, _ in found], alone=with_destinations):
        return set()
    times = Counter(one.event_ms for _, one, _ in found)
    names = Counter(one.message_id for _, one, _ in found)
    return {
        one.message_id
        for message, one, at_ms in found
        if times[one.event_ms] == 1
        and names[one.message_id] == 1
        and not message.keys() & set(_TIMES)
        and (instant_ms(str(message["timestamp"])) or FOREVER_MS) <= at_ms
        and isinstance(message.get("context", {}), dict)
    }


def _freezes(step: Step) -> bool:
    if step.delete or any(not is_harmless(fault) or fault.disk_full for fault in listed(step.fault)):
        return True
    made = [action.audience or action.trait for action in listed(step.define)]
    changed = [action.audience or action.trait for action in listed(step.edit)]
    return any(spec is not None and spec.enabled is False for spec in (*made, *changed))


def _accepted(message: dict[str, Any], at_ms: int) -> Incoming | None:
    given = {key: value for key, value in message.items() if key != "writeKey"}
    body = msgspec.json.encode(given)
    one = accept(body, kind=None, received_ms=at_ms, sent_at=None, index=0, source="", new_id=str)
    return None if isinstance(one, Rejected) else one


def _never_demoted(messages: list[Incoming], *, alone: bool) -> bool:
    """Tell whether no limit of ids is reached, whatever comes first; `alone`: nobody has two ids of a type."""
    rules = SpaceSettings().rules
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def root(one: tuple[str, str]) -> tuple[str, str]:
        while above.setdefault(one, one) != one:
            one = above[one]
        return one

    for message in messages:
        ids = [root((one.id_type, one.value)) for one in message.ids]
        for one in ids[1:]:
            above[root(one)] = root(ids[0])
    groups: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in above:
        groups[root(one)][one[0]] += 1
    return all(
        counts.total() <= min(rules.ids_max, rules.merges_max)
        and all(count <= (1 if alone else rules.limit(kind).count) for kind, count in counts.items())
        for counts in groups.values()
    )


def _moved(scenario: Scenario, steps: list[Step], random: Random) -> list[Step]:
    """Return the steps with some messages later, within a stretch in which nothing is changed."""
    names = movable(scenario)
    found: list[Step] = []
    late: list[Step] = []
    for index, step in enumerate(steps):
        at_ms = scenario.at_ms(step.at)
        if any(getattr(step, part) for part in (*_CHANGES, "fault")):
            for one in sorted(late, key=lambda one: scenario.at_ms(one.at)):
                _put_back(scenario, found, one)
            late = []
        end_ms = _end_of_stretch(scenario, steps, index)
        messages = []
        for message in listed(step.send):
            if message["messageId"] in names and end_ms > at_ms and random.random() < 0.3:
                arrival = iso(at_ms + random.randrange((end_ms - at_ms) // 1000 + 1) * 1000)
                late.append(Step(at=arrival, send=(_marked(message, MOVED, step.at),)))
            else:
                messages.append(message)
        found.append(replace(step, send=tuple(messages)))
    for one in sorted(late, key=lambda one: scenario.at_ms(one.at)):
        _put_back(scenario, found, one)
    return found


def _end_of_stretch(scenario: Scenario, steps: list[Step], index: int) -> int:
    for step in steps[index + 1 :]:
        if any(getattr(step, part) for part in (*_CHANGES, "fault")):
            return scenario.at_ms(step.at)
    return scenario.at_ms(steps[-1].at)


# -- the same in other words -------------------------------------------------------------------------------------------


class _Said:
    """The definitions that there are as a scenario goes on: kind, entity type, query."""

    def __init__(self) -> None:
        self.queries: dict[str, tuple[str, str, str]] = {}

    def hear(self, step: Step) -> None:
        """Take in what a step changes."""
        for define in listed(step.define):
            spec = define.audience or define.trait
            assert spec is not None
            if spec.enabled:
                kind = "trait" if isinstance(spec, TraitSpec) else "audience"
                self.queries.setdefault(key_of(spec), (kind, spec.type, spec.query))
        for edit in listed(step.edit):
            changed = edit.audience or edit.trait
            assert changed is not None
            if changed.key in self.queries and changed.query is not None:
                self.queries[changed.key] = (*self.queries[changed.key][:2], changed.query)
            if changed.enabled is not None:
                self.queries.pop(changed.key, None)  # what is disabled stays as it is
        for delete in listed(step.delete):
            given = delete.audience or delete.trait
            self.queries.pop(given.key if isinstance(given, DeleteSpec) else str(given), None)

    def nothing_new(self, edit: Edit) -> bool:
        """Tell whether an edit says what is said already."""
        spec = edit.audience or edit.trait
        if spec is None or spec.query is None or spec != EditSpec(key=spec.key, query=spec.query):
            return False
        was = self.queries.get(spec.key)
        if was is None:
            return False
        meanings = [_meaning((*was[:2], query)) for query in (was[2], spec.query)]
        return meanings[0] is not None and _with_since(meanings[0], None) == _with_since(meanings[1], None)


def _meaning(said: tuple[str, str, str]) -> Any:
    kind, entity_type, query = said
    try:
        return parse(query, entity_type=entity_type, kind=kind)  # type: ignore[arg-type]
    except QueryError:
        return None


def _with_since(node: Any, since_ms: int | None) -> Any:
    """Return a tree with this bound of all its events that have none, or none but that of long ago."""
    if isinstance(node, tuple):
        return tuple(_with_since(part, since_ms) for part in node)
    if not isinstance(node, Struct):
        return node
    fields = {name: _with_since(getattr(node, name), since_ms) for name in node.__struct_fields__}
    if isinstance(node, tree.Event) and node.since_ms in (None, LONG_AGO_MS):
        fields["since_ms"] = since_ms
    return type(node)(**fields)


def _restated(scenario: Scenario, steps: list[Step], random: Random) -> list[Step]:
    """Return the steps with definitions edited to say the same in other words."""
    said = _Said()
    found: list[Step] = []
    for place in range(len(steps) + 1):
        if place and said.queries and random.random() < 0.4:
            key = random.choice(list(said.queries))
            kind, entity_type, query = said.queries[key]
            meaning = _meaning((kind, entity_type, query))
            since_ms = None if random.random() < 0.3 else LONG_AGO_MS
            if meaning is not None:
                spec = EditSpec(key=key, query=print_query(_with_since(meaning, since_ms)))
                edit = Edit(audience=spec) if kind == "audience" else Edit(trait=spec)
                at = _time_before(scenario, [*found, *steps[place:]], len(found), random)
                again = Step(at=at, edit=edit)
                found.append(again)
                said.hear(again)
        for step in steps[place : place + 1]:
            found.append(step)
            said.hear(step)
    return found
