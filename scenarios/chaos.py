"""Chaos: a scenario with random faults must end as it does without them.

What is drawn stands in `chaos_faults`. Compared are all memberships with since when, all traits, every change in the
log, and what each destination believes once every delivery has come to rest; where something was known later than
without faults (a full disk, a message that came late) nothing is said of since when. A failure is a scenario again,
with its faults as steps.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any, Final

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from actors.space import Space
from eventlog.entries import Entered, Exited, TraitComputed
from eventlog.errors import TurnoutError
from eventlog.instants import iso
from scenarios.chaos_faults import FULL_S, MOVED, SKEW, calm, chaotic, is_harmless, is_late, pinned
from scenarios.expectations import Failure
from scenarios.format import Expect, Fault, Scenario, Step, dumps, listed, load, offset_text
from scenarios.runner import Outcome, Report, files_of, run_to_end
from scenarios.shrink import shrink
from scenarios.world import SimulatedWorld

REST_MS: Final = 2 * 86_400_000  # after the end: longer than a delivery is tried
SHRINK_S: Final = 30.0  # somebody waits
RUNS_A_PROCESS: Final = 200  # below it a process costs more than it saves

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
    """Return all memberships with since when, all traits, and how the log tells of them."""
    space = world.space
    found: dict[str, Any] = {}
    names = _Names(space)
    for view in space.definitions():
        if view.definition.kind == "audience":
            rows = await space.members(view.definition.key)
            found[f"members.{view.definition.key}"] = sorted((names.of(one), since) for one, since in rows)
    for entity in range(1, space.everyone().stop):
        if space.ids_of(entity):
            rows_ = await space.traits_of(entity)
            found[f"traits.{names.of(entity)}"] = {row.key: row.value for row in rows_}
    await _told(space, names, found)
    return found


class _Names:
    """How entities are named, whatever came first."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._names: dict[int, str] = {}

    def of(self, entity: int) -> str:
        """Return an entity's user_id or group_id, else the least of its ids."""
        if entity not in self._names:
            ids = [(one.id_type, one.value) for one in self._space.ids_of(entity)]
            named = [value for id_type, value in ids if id_type in ("user_id", "group_id")]
            self._names[entity] = min(named) if named else min((f"{one}:{value}" for one, value in ids), default="")
        return self._names[entity]


async def _told(space: Space, names: _Names, found: dict[str, Any]) -> None:
    """Add the changes that the log tells of, by whom, and where they contradict each other or what stands."""
    stands: dict[int, dict[int, Any]] = {}
    told: dict[str, list[tuple[str, str, Any]]] = {}
    wrong = []
    for _, facts in space.log.read_facts():
        for seq, fact in facts:
            if not isinstance(fact, Entered | Exited | TraitComputed):
                continue
            value = fact.value if isinstance(fact, TraitComputed) else isinstance(fact, Entered) or None
            values = stands.setdefault(fact.definition, {})
            if values.get(fact.entity) == value and type(values.get(fact.entity)) is type(value):
                wrong.append(f"{type(fact).__name__} twice: definition {fact.definition}, entry {seq}")
            values[fact.entity] = value
            told.setdefault(names.of(fact.entity), []).append((iso(fact.at_ms), str(fact.definition), value))
    for view in space.definitions():
        number = view.definition.number
        if view.definition.kind == "audience" and view.status == "Live":
            there = {entity for entity, _ in await space.members(view.definition.key)}
            if there != {entity for entity, value in stands.get(number, {}).items() if value}:
                wrong.append(f"the log tells of other members of {view.definition.key} than it has")
        elif view.status != "Disabled" and view.status != "Live":
            wrong.append(f"{view.definition.key} is {view.status}")
    if wrong:
        found["wrong"] = wrong
    found.update({f"changes.{name}": sorted(changes, key=repr) for name, changes in told.items()})


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
    """Return an ending without what rests on when something was known."""
    return {
        key: [(name, 0) for name, _ in value] if key.startswith("members.") else value
        for key, value in ending.items()
        if not key.startswith("changes.")
    }


def differences(scenario: Scenario) -> tuple[Difference, ...]:
    """Return where a scenario ends differently with its harmless faults than without."""
    return anyio.run(_differences, scenario, backend_options={"use_uvloop": True})


async def _differences(scenario: Scenario) -> tuple[Difference, ...]:
    return _compared(await _ending(calm(scenario)), await _ending(scenario), scenario)


def _compared(one: dict[str, Any], other: dict[str, Any], tried: Scenario) -> tuple[Difference, ...]:
    if "broken" in one:
        return ()  # it does not go without faults either
    if "wrong" in other:
        return (Difference("wrong", [], other["wrong"]),)
    if is_late(tried):
        one, other = _undated(one), _undated(other)
    keys = sorted(one.keys() | other.keys())
    return tuple(
        Difference(key, one.get(key), other.get(key)) for key in keys if (one.get(key) or {}) != (other.get(key) or {})
    )


# -- many runs ---------------------------------------------------------------------------------------------------------


def seed_of(scenario: Scenario, run: int) -> int:
    """Return the seed of a run: another for each, the same every time."""
    return scenario.seed * 1_000_003 + run


class Found(Struct, frozen=True):
    """A run that ends differently: its number (-1: by its own faults alone), its seed, and its scenario."""

    run: int
    seed: int
    scenario: Scenario


async def _first_difference(scenario: Scenario, runs: Sequence[int]) -> Found | None:
    base = pinned(scenario)
    if any(is_harmless(fault) for step in base.steps for fault in listed(step.fault)) or calm(base) != base:
        if await _differences(base):
            return Found(-1, scenario.seed, base)
        base = calm(base)
    ends = await _ending(base)
    for run in runs:
        seed = seed_of(scenario, run)
        tried = chaotic(base, seed)
        if _compared(ends, await _ending(tried), tried):
            return Found(run, seed, tried)
    return None


def first_difference(scenario: Scenario, runs: Sequence[int]) -> Found | None:
    """Return the first of these runs of a scenario that ends differently, or None."""
    return anyio.run(_first_difference, scenario, runs, backend_options={"use_uvloop": True})


def chaos(scenario: Scenario, runs: int) -> Shown | None:
    """Run a scenario with random faults; return the first run that ends differently, made small, or None."""
    found = first_difference(scenario, range(runs))
    return None if found is None else shown_small(found)


def shown_small(found: Found) -> Shown:
    """Return a run that ends differently, made small."""
    until = monotonic() + SHRINK_S

    def fails(smaller: Scenario) -> bool:
        return monotonic() < until and bool(differences(smaller))

    small = shrink(found.scenario, fails)
    return Shown(found.seed, small, differences(small))


def with_ending(shown: Shown) -> Scenario:
    """Return the scenario that shows it, expecting in the end the memberships that it has without faults."""
    members = {
        one.where.removeprefix("members."): tuple(name for name, _ in one.calm or ())
        for one in shown.differences
        if one.where.startswith("members.")
    }
    *steps, last = _rested(shown.scenario).steps
    return replace(shown.scenario, steps=(*steps, replace(last, expect=Expect(members=members))))


class _Task(Struct, frozen=True):
    """Some runs of a file's scenario."""

    file: Path
    runs: tuple[int, ...]
    seed: int | None


def chaos_paths(
    paths: list[Path], runs: int, *, seed: int | None = None, verbose: bool = False, jobs: int | None = None
) -> Report:
    """Run all scenarios in files and folders with random faults.

    Args:
        paths: files and folders.
        runs: how often each is run.
        seed: used instead of each scenario's own.
        verbose: keep a trail of what was drawn.
        jobs: how many processes; None for as many as pay. The outcome is the same.
    """
    files = files_of(paths)
    total = len(files) * runs
    workers = min(jobs or os.cpu_count() or 1, 1 + total // RUNS_A_PROCESS) if jobs != 1 else 1
    parts = -(-workers // max(1, len(files)))  # a file alone is shared, too
    tasks = [_Task(file, tuple(range(part, runs, parts)), seed) for file in files for part in range(parts)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(_run_task, tasks))
    else:
        found = [_run_task(task) for task in tasks]
    first: dict[Path, Found | str | None] = dict.fromkeys(files)
    for task, one in zip(tasks, found, strict=True):
        known = first[task.file]
        if isinstance(one, str) or (one is not None and (not isinstance(known, Found) or one.run < known.run)):
            first[task.file] = one
    return Report(tuple(_outcome(file, one, runs, seed, verbose=verbose) for file, one in first.items()))


def _loaded(file: Path, seed: int | None) -> Scenario:
    scenario = load(file).scenario
    return scenario if seed is None else replace(scenario, seed=seed)


def _run_task(task: _Task) -> Found | str | None:
    """Return the first run that ends differently; a text where the file is no scenario."""
    try:
        return first_difference(_loaded(task.file, task.seed), task.runs)
    except (TurnoutError, OSError) as error:
        return str(error)


def _outcome(file: Path, found: Found | str | None, runs: int, seed: int | None, *, verbose: bool) -> Outcome:
    if isinstance(found, str):
        failure = Failure(step=-1, at="", expected="a scenario", actual=found, path="")
        return Outcome(str(file), file.stem, passed=False, failures=(failure,))
    scenario = _loaded(file, seed)
    last = runs - 1 if found is None else found.run
    trail = _drawn(scenario, range(last + 1)) if verbose else ()
    if found is None:
        return Outcome(str(file), scenario.scenario, passed=True, trail=trail)
    shown = shown_small(found)
    at = iso(scenario.start_ms)
    failures = tuple(
        Failure(step=-1, at=at, expected=one.calm, actual=one.chaos, path=f"chaos (seed {shown.seed}): {one.where}")
        for one in shown.differences
    )
    comment = f"Found by chaos in {file.name}, seed {shown.seed}: `turnout simulate --chaos 1` shows it again."
    lines = dumps(_short(with_ending(shown)), comment=comment).splitlines()
    return Outcome(str(file), scenario.scenario, passed=False, failures=failures, trail=(*trail, *lines))


def _drawn(scenario: Scenario, runs: range) -> tuple[str, ...]:
    """Return of each run its seed and its faults, a line each."""
    base = calm(pinned(scenario))
    lines = []
    for run in runs:
        seed = seed_of(scenario, run)
        lines.append(f"{scenario.scenario}: run {run}, seed {seed}: {'; '.join(drawn(base, chaotic(base, seed)))}")
    return tuple(lines)


def drawn(base: Scenario, tried: Scenario) -> list[str]:
    """Return what was drawn in a run, in words."""
    steps = [step for step in tried.steps if step not in base.steps]
    said = [f"{iso(tried.at_ms(step.at))} {_in_words(fault)}" for step in steps for fault in listed(step.fault)]
    said += [f"{iso(tried.at_ms(step.at))} the same in other words" for step in steps for _ in listed(step.edit)]
    sent = [message for step in tried.steps for message in listed(step.send)]
    counts = {
        "come again": len(sent) - sum(len(listed(step.send)) for step in base.steps),
        "come late": sum(MOVED in (message.get("context") or {}) for message in sent),
        "by a wrong clock": sum(SKEW in (message.get("context") or {}) for message in sent),
    }
    return said + [f"{count} {what}" for what, count in counts.items() if count]


def _in_words(fault: Fault) -> str:
    return ", ".join(f"{name}: {value}" for name, value in msgspec.to_builtins(fault).items())


def _short(scenario: Scenario) -> Scenario:
    """Return the scenario with offsets where its times are whole seconds from the start."""
    steps = []
    for step in scenario.steps:
        try:
            steps.append(replace(step, at=offset_text(scenario.at_ms(step.at) - scenario.start_ms)))
        except ValueError:
            steps.append(step)
    return replace(scenario, steps=tuple(steps))
