"""Chaos: a scenario with random faults must end as it does without them.

Only faults that change nothing in the end are added: the process dies between two steps, right after or in the middle
of any write; messages come twice (one `messageId`); destinations fail for a while, or their requests or answers are
lost; the disk is full for minutes in which nobody changes a definition; clients' clocks are wrong. Delays and another
order of messages are left to the scenario: they may rightly change who merges with whom and what was known when.

Compared are all memberships with since when (but after a full disk), all traits, and what each destination believes
once every delivery has come to rest. A failure is a scenario again, with its faults as steps: `calm` takes them out.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

import anyio
from msgspec import Struct
from msgspec.structs import replace

from eventlog.errors import TurnoutError
from eventlog.instants import instant_ms, iso
from scenarios.expectations import Failure
from scenarios.format import Expect, Fault, Scenario, Step, dumps, listed, load, offset_text
from scenarios.runner import Outcome, Report, files_of, run_to_end
from scenarios.shrink import shrink
from scenarios.world import SimulatedWorld

REST_MS: Final = 2 * 86_400_000  # after the end: longer than a delivery is tried
FAULTS_MAX: Final = 6  # added to a run
WRITES_MAX: Final = 12  # of a few steps: a crash within so many writes from here
FAILS_MIN: Final = (1, 30)  # how many minutes a destination fails
FULL_S: Final = (10, 300)  # how many seconds the disk is full
SKEW_S_MAX: Final = 86_400  # how wrong a client's clock is
AGAIN_MS_MAX: Final = 3_600_000  # a message comes again within the hour, well within the window of message ids
STATUSES: Final = (500, 503, 408, 429)
SHRINK_S: Final = 30.0  # somebody waits
FOREVER_MS: Final = 1 << 60

_NO_EFFECT: Final = (False, None)


class Difference(Struct, frozen=True):
    """Where a run with faults ends differently."""

    where: str
    calm: Any
    chaos: Any


class Shown(Struct, frozen=True):
    """A run that differs: its seed, the smallest scenario found that shows it, and what differs there."""

    seed: int
    scenario: Scenario
    differences: tuple[Difference, ...]


# -- faults ------------------------------------------------------------------------------------------------------------


def pinned(scenario: Scenario) -> Scenario:
    """Return the scenario without expectations, its messages with their ids and times, so that steps can be put in."""
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
    return replace(scenario, steps=tuple(steps))


def calm(scenario: Scenario) -> Scenario:
    """Return the scenario without its harmless faults and without the second copies of messages."""
    steps = []
    seen_ms: dict[Any, int] = {}
    for step in scenario.steps:
        at_ms = scenario.at_ms(step.at)
        messages = []
        for message in listed(step.send):
            name = message.get("messageId")
            if name is None or at_ms - seen_ms.get(name, -FOREVER_MS) > AGAIN_MS_MAX:
                messages.append(_unskewed(message))
                seen_ms[name] = at_ms
        faults = tuple(fault for fault in listed(step.fault) if not _is_harmless(fault))
        steps.append(replace(step, fault=faults, send=tuple(messages)))
    return replace(scenario, steps=tuple(steps))


def _is_harmless(fault: Fault) -> bool:
    ends = fault.destination is None or fault.for_ is not None
    return ends and fault.duplicate is None and fault.delay is None


def _unskewed(message: dict[str, Any]) -> dict[str, Any]:
    skew = message.get("context", {}).get("chaosSkewSeconds") if isinstance(message.get("context"), dict) else None
    original_ms = instant_ms(str(message.get("originalTimestamp", "")))
    if skew is None or original_ms is None:  # shrinking may have taken the instant away: nothing is left to be skewed
        return message
    plain = {key: value for key, value in message.items() if key not in ("sentAt", "originalTimestamp")}
    plain["timestamp"] = iso(original_ms - skew * 1000)
    context = {key: value for key, value in message["context"].items() if key != "chaosSkewSeconds"}
    return {**plain, "context": context} if context else {key: plain[key] for key in plain if key != "context"}


def chaotic(scenario: Scenario, seed: int) -> Scenario:
    """Return a pinned scenario with random harmless faults."""
    random = Random(seed)  # noqa: S311 - reproducible, not secret
    faults = [fault for step in scenario.steps for fault in listed(step.fault)]
    late = any(fault.delay is not None or fault.disk_full is not None for fault in faults)
    with_disk = not late and random.random() < 0.25
    steps = list(scenario.steps)
    if not late and not with_disk and random.random() < 0.5:
        steps = [_skewed(scenario, step, random) for step in steps]
    if "dedupeWindow" not in scenario.settings and not late:
        steps = list(_doubled(scenario, steps, random))
    failing = {fault.destination for fault in faults}
    names = [one.name for one in scenario.destinations if one.name not in failing]
    for _ in range(random.randint(1, FAULTS_MAX)):
        place = random.randrange(len(steps) + 1) if steps else 0
        at = steps[place].at if place < len(steps) else steps[-1].at if steps else scenario.start
        steps.insert(place, Step(at=at, fault=_fault(random, names)))
    if with_disk:
        steps = _with_full_disk(scenario, steps, random)
    return replace(scenario, steps=tuple(steps))


def _fault(random: Random, names: list[str]) -> Fault:
    kinds = ["crash", "crash_after", "crash_in", *(["status", "lost"] if names else [])]
    match random.choice(kinds):
        case "crash":
            return Fault(crash=True)
        case "crash_after":
            return Fault(crash_after=random.randint(1, WRITES_MAX))
        case "crash_in":
            return Fault(crash_in=random.randint(1, WRITES_MAX))
        case "status":
            for_ = f"{random.randint(*FAILS_MIN)}m"
            return Fault(destination=random.choice(names), status=random.choice(STATUSES), for_=for_)
    for_ = f"{random.randint(*FAILS_MIN)}m"
    return Fault(destination=random.choice(names), lost=random.choice(("requests", "answers")), for_=for_)


def _skewed(scenario: Scenario, step: Step, random: Random) -> Step:
    """Return the step with some clients' clocks wrong; the server corrects them by `sentAt`."""
    at_ms = scenario.at_ms(step.at)
    messages = []
    for message in listed(step.send):
        when = message.get("timestamp")
        when_ms = instant_ms(when) if isinstance(when, str) else None
        times = message.keys() & {"sentAt", "originalTimestamp", "receivedAt"}
        context = message.get("context", {})
        if when_ms is not None and not times and isinstance(context, dict) and random.random() < 0.3:
            skew_s = random.randint(-SKEW_S_MAX, SKEW_S_MAX)
            rest = {key: value for key, value in message.items() if key != "timestamp"}
            sent = {"sentAt": iso(at_ms + skew_s * 1000), "originalTimestamp": iso(when_ms + skew_s * 1000)}
            message = {**rest, **sent, "context": {**context, "chaosSkewSeconds": skew_s}}
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
    changing = [
        scenario.at_ms(step.at)
        for step in steps
        if any((step.define, step.edit, step.delete, step.connect, step.disconnect)) or step.fault != ()
    ]
    place = random.randrange(len(steps))
    at_ms = scenario.at_ms(steps[place].at)
    seconds = random.randint(*FULL_S)
    if any(at_ms <= one <= at_ms + 1000 * seconds for one in changing):
        return steps
    return [*steps[:place], Step(at=steps[place].at, fault=Fault(disk_full=f"{seconds}s")), *steps[place:]]


# -- how it ends -------------------------------------------------------------------------------------------------------


async def _ending(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario and return how it ends: what stands then, and what destinations believe when all is at rest."""
    found: dict[str, Any] = {}

    async def look(world: SimulatedWorld) -> None:
        found.update(await standing(world))
        await world.survived(lambda: world.move_to(world.clock.now_ms() + REST_MS))
        found.update(believed(world))

    failures = await run_to_end(_rested(scenario), look)
    if failures:
        found = {"broken": [f"{one.path}: {one.actual}" for one in failures]}
    return found


def _rested(scenario: Scenario) -> Scenario:
    """Return the scenario with time after its last step for the disk to have room and clients to send again."""
    last_ms = scenario.at_ms(scenario.steps[-1].at) if scenario.steps else scenario.start_ms
    return replace(scenario, steps=(*scenario.steps, Step(at=iso(last_ms + 2 * 1000 * FULL_S[1]))))


async def standing(world: SimulatedWorld) -> dict[str, Any]:
    """Return all memberships with since when, and all traits."""
    space = world.space
    found: dict[str, Any] = {}
    for view in space.definitions():
        if view.definition.kind == "audience":
            rows = await space.members(view.definition.key)
            found[f"members.{view.definition.key}"] = sorted((space.name_of(one), since) for one, since in rows)
    for entity in range(1, space.everyone().stop):
        if space.ids_of(entity):
            rows_ = await space.traits_of(entity)
            found[f"traits.{space.name_of(entity)}"] = {row.key: row.value for row in rows_}
    return found


def believed(world: SimulatedWorld) -> dict[str, Any]:
    """Return what each destination believes: of each id and key the value last told, told twice counted once."""
    found: dict[str, dict[str, Any]] = {}
    seen: set[tuple[str, str]] = set()
    for sent in world.receiver.sent:
        call = sent.call
        if sent.status >= 300 or (sent.destination, call.id) in seen:
            continue
        seen.add((sent.destination, call.id))
        who = call.user_id or call.email or call.anonymous or call.group_id
        found.setdefault(f"believed.{sent.destination}", {})[f"{call.kind} {who} {call.group_id} {call.key}"] = (
            call.value
        )
    return {
        name: {what: value for what, value in sorted(values.items()) if value not in _NO_EFFECT}
        for name, values in found.items()
    }


def _undated(ending: dict[str, Any]) -> dict[str, Any]:
    """Return an ending without since when: after a full disk it is when the message came again."""
    return {
        key: [(name, 0) for name, _ in value] if key.startswith("members.") else value for key, value in ending.items()
    }


def differences(scenario: Scenario) -> tuple[Difference, ...]:
    """Return where a scenario ends differently with its harmless faults than without."""
    return anyio.run(_differences, scenario, backend_options={"use_uvloop": True})


async def _differences(scenario: Scenario) -> tuple[Difference, ...]:
    return _compared(await _ending(calm(scenario)), await _ending(scenario), scenario)


def _compared(one: dict[str, Any], other: dict[str, Any], tried: Scenario) -> tuple[Difference, ...]:
    if "broken" in one:
        return ()  # it does not go without faults either
    if any(fault.disk_full is not None for step in tried.steps for fault in listed(step.fault)):
        one, other = _undated(one), _undated(other)
    keys = sorted(one.keys() | other.keys())
    return tuple(
        Difference(key, one.get(key), other.get(key)) for key in keys if (one.get(key) or {}) != (other.get(key) or {})
    )


# -- many runs ---------------------------------------------------------------------------------------------------------


def seed_of(scenario: Scenario, run: int) -> int:
    """Return the seed of a run: another for each, the same every time."""
    return scenario.seed * 1_000_003 + run


async def _first_difference(scenario: Scenario, runs: int) -> tuple[int, Scenario] | None:
    base = pinned(scenario)
    if any(_is_harmless(fault) for step in base.steps for fault in listed(step.fault)):
        if await _differences(base):
            return scenario.seed, base
        base = calm(base)
    ends = await _ending(base)
    for run in range(runs):
        seed = seed_of(scenario, run)
        tried = chaotic(base, seed)
        if _compared(ends, await _ending(tried), tried):
            return seed, tried
    return None


def chaos(scenario: Scenario, runs: int) -> Shown | None:
    """Run a scenario with random faults; return the first run that ends differently, made small, or None."""
    found = anyio.run(_first_difference, scenario, runs, backend_options={"use_uvloop": True})
    if found is None:
        return None
    seed, failing = found
    until = monotonic() + SHRINK_S

    def fails(smaller: Scenario) -> bool:
        return monotonic() < until and bool(differences(smaller))

    small = shrink(failing, fails)
    return Shown(seed, small, differences(small))


def with_ending(shown: Shown) -> Scenario:
    """Return the scenario that shows it, expecting in the end the memberships that it has without faults."""
    members = {
        one.where.removeprefix("members."): tuple(name for name, _ in one.calm or ())
        for one in shown.differences
        if one.where.startswith("members.")
    }
    *steps, last = _rested(shown.scenario).steps
    return replace(shown.scenario, steps=(*steps, replace(last, expect=Expect(members=members))))


def chaos_paths(paths: list[Path], runs: int, *, seed: int | None = None) -> Report:
    """Run all scenarios in files and folders with random faults."""
    return Report(tuple(_chaos_file(file, runs, seed) for file in files_of(paths)))


def _chaos_file(file: Path, runs: int, seed: int | None) -> Outcome:
    try:
        scenario = load(file).scenario
    except (TurnoutError, OSError) as error:
        failure = Failure(step=-1, at="", expected="a scenario", actual=str(error), path="")
        return Outcome(str(file), file.stem, passed=False, failures=(failure,))
    if seed is not None:
        scenario = replace(scenario, seed=seed)
    shown = chaos(scenario, runs)
    if shown is None:
        return Outcome(str(file), scenario.scenario, passed=True)
    at = iso(scenario.start_ms)
    failures = tuple(
        Failure(step=-1, at=at, expected=one.calm, actual=one.chaos, path=f"chaos (seed {shown.seed}): {one.where}")
        for one in shown.differences
    )
    comment = f"Found by chaos in {file.name}, seed {shown.seed}: `turnout simulate --chaos 1` shows it again."
    lines = dumps(_short(with_ending(shown)), comment=comment).splitlines()
    return Outcome(str(file), scenario.scenario, passed=False, failures=failures, trail=tuple(lines))


def _short(scenario: Scenario) -> Scenario:
    """Return the scenario with offsets where its times are whole seconds from the start."""
    steps = []
    for step in scenario.steps:
        try:
            steps.append(replace(step, at=offset_text(scenario.at_ms(step.at) - scenario.start_ms)))
        except ValueError:
            steps.append(step)
    return replace(scenario, steps=tuple(steps))
