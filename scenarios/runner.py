"""Run scenario files on the real engine, and say what differed (contract, section 10).

A file that cannot be read is a failure of that file; the others run. Many files are spread over processes.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from msgspec import Struct

from actors.delivery_payloads import payload
from eventlog.errors import QueryError, RefusedError, TurnoutError
from eventlog.instants import iso
from scenarios.expectations import Checked, Failure, same
from scenarios.format import Define, Expect, Fault, Refused, Scenario, listed, load
from scenarios.timeline import Attempt, Check, Moment, Move, Send, timeline
from scenarios.world import Changing, Sent, SimulatedWorld, simulated

FILES_A_PROCESS: Final = 100  # below it a process costs more than it saves
SUFFIXES: Final = (".yaml", ".yml")

Opened = Callable[[int, int, dict[str, Any]], AbstractAsyncContextManager[SimulatedWorld]]


class Outcome(Struct, frozen=True):
    """How one scenario went."""

    file: str
    scenario: str
    passed: bool
    failures: tuple[Failure, ...] = ()
    trail: tuple[str, ...] = ()  # what happened, a line each; only where asked for


class Report(Struct, frozen=True):
    """How all of them went."""

    scenarios: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Tell whether there was something to run, and all of it passed."""
        return bool(self.scenarios) and all(one.passed for one in self.scenarios)

    def json(self) -> dict[str, Any]:
        """Return the report as the contract gives it."""
        return {
            "scenarios": [
                {
                    "file": one.file,
                    "scenario": one.scenario,
                    "passed": one.passed,
                    "failures": [
                        {
                            "step": failure.step,
                            "at": failure.at,
                            "expected": failure.expected,
                            "actual": failure.actual,
                            "path": failure.path,
                        }
                        for failure in one.failures
                    ],
                }
                for one in self.scenarios
            ]
        }


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Return the scenario files in files and folders, in order, each once. Raises FileNotFoundError."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update((file, None) for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES)
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(path)
    return list(found)


def run_paths(
    paths: Sequence[Path], *, seed: int | None = None, verbose: bool = False, jobs: int | None = None
) -> Report:
    """Run all scenarios in files and folders.

    Args:
        paths: files and folders.
        seed: used instead of each scenario's own.
        verbose: keep a trail of what happened.
        jobs: how many processes; None for as many as pay.
    """
    files = files_of(paths)
    workers = min(jobs or os.cpu_count() or 1, 1 + len(files) // FILES_A_PROCESS) if jobs != 1 else 1
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            chunks = [files[n::workers] for n in range(workers)]
            parts = pool.map(_run_files, chunks, [seed] * workers, [verbose] * workers)
            by_file = {one.file: one for part in parts for one in part}
        return Report(tuple(by_file[str(file)] for file in files))
    return Report(tuple(_run_files(files, seed, verbose)))


def _run_files(files: Sequence[Path], seed: int | None, verbose: bool) -> list[Outcome]:
    return anyio.run(_run_all, files, seed, verbose, backend_options={"use_uvloop": True})


async def _run_all(files: Sequence[Path], seed: int | None, verbose: bool) -> list[Outcome]:
    return [await run_file(file, seed=seed, verbose=verbose) for file in files]


async def run_file(file: Path, *, seed: int | None = None, verbose: bool = False) -> Outcome:
    """Run one scenario file."""
    try:
        scenario = load(file).scenario
    except (TurnoutError, OSError) as error:
        failure = Failure(step=-1, at="", expected="a scenario", actual=str(error), path="")
        return Outcome(str(file), file.stem, passed=False, failures=(failure,))
    trail: list[str] | None = [] if verbose else None
    failures = await run_scenario(scenario, seed=seed, trail=trail)
    return Outcome(str(file), scenario.scenario, not failures, tuple(failures), tuple(trail or ()))


async def run_scenario(
    scenario: Scenario, *, seed: int | None = None, trail: list[str] | None = None, opened: Opened = simulated
) -> list[Failure]:
    """Return what of a scenario is not as it expects, in the world that `opened` opens for it."""
    if seed is not None:
        scenario = _reseeded(scenario, seed)
    return await run_to_end(scenario, None, trail=trail, opened=opened)


async def run_to_end(
    scenario: Scenario,
    look: Callable[[SimulatedWorld], Awaitable[None]] | None,
    *,
    trail: list[str] | None = None,
    opened: Opened = simulated,
) -> list[Failure]:
    """Run a scenario, have the world looked at in the end, and return what is not as it expects."""
    run = _Run(scenario, trail)
    try:
        async with opened(scenario.start_ms, scenario.seed, scenario.settings) as world:
            await run.all(world)
            if look is not None:
                await look(world)
    except Exception as error:  # noqa: BLE001 - whatever ends a scenario is that scenario's failure, and the others run
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        run.broken(error)
    return run.checked.failures


def _reseeded(scenario: Scenario, seed: int) -> Scenario:
    values = {name: getattr(scenario, name) for name in scenario.__struct_fields__}
    return Scenario(**{**values, "seed": seed})


class _Run:
    """One scenario, going on."""

    def __init__(self, scenario: Scenario, trail: list[str] | None) -> None:
        self.scenario = scenario
        self.checked = Checked()
        self._trail = trail
        self._moment = Moment(scenario.start_ms, -1, Move())

    async def all(self, world: SimulatedWorld) -> None:
        """Let everything happen."""
        for spec in self.scenario.destinations:
            await world.add_destination(spec)
        for moment in timeline(self.scenario):
            self._moment = moment
            if moment.at_ms > world.clock.now_ms():  # the process may have been down until later
                await world.survived(partial(world.move_to, moment.at_ms))
            await self._one(world, moment.action)
            if self._trail is not None:
                self._note(world, moment)
        await world.survived(world.settle)

    def broken(self, error: Exception) -> None:
        """Note an error that ended the run."""
        self._fail(f"steps[{self._moment.step}]", "no error", f"{type(error).__name__}: {error}")

    def _fail(self, path: str, expected: Any, actual: Any) -> None:
        moment = self._moment
        self.checked.fail(step=moment.step, at_ms=moment.at_ms, path=path, expected=expected, actual=actual)

    async def _one(self, world: SimulatedWorld, action: Any) -> None:
        match action:
            case Send(message=message, source=source):
                await world.survived(partial(world.send, message, source))
                await world.survived(world.folded)
            case Attempt(message=message, source=source):
                await world.survived(partial(world.attempt, message, source))
            case Fault():
                await world.fault(action)
            case Check():
                await self._check(world, action)
            case Move():
                pass
            case _:
                reason = await self._change(world, action)
                if reason is not None:
                    self._fail(f"steps[{self._moment.step}]", "taken", reason)
                await world.survived(world.settle)

    async def _change(self, world: SimulatedWorld, action: Changing) -> str | None:
        """Make a change; return why it is refused, None if it is made."""
        stood, reason = world.stands(action), None

        async def act() -> None:
            nonlocal reason
            if not stood and world.stands(action):
                return  # whoever sees an error looks first, and does not blindly do it again
            try:
                await world.change(action)
            except (QueryError, RefusedError) as error:
                reason = str(error)

        await world.survived(act)
        return reason

    # -- expectations ------------------------------------------------------------------------------------------------

    async def _check(self, world: SimulatedWorld, check: Check) -> None:
        await world.survived(world.settle)
        expect = check.expect
        at_ms = None if expect.at is None else self.scenario.at_ms(expect.at)
        known_ms = None if expect.known is None else self.scenario.at_ms(expect.known)
        where: dict[str, Any] = {"step": self._moment.step, "at_ms": self._moment.at_ms, "path": check.path}
        members = {key: await _members(world, key, at_ms, known_ms) for key in expect.members}
        self.checked.members(expect, members.get, **where)
        traits = {name: await world.traits_of(name, at_ms, known_ms) for name in expect.traits}
        self.checked.traits(expect, lambda name, key: traits[name].get(key), **where)
        self.checked.rejected(expect, world.rejected, **where)
        self._delivered(world, expect, check.path)
        several = isinstance(expect.refused, tuple)
        for index, refused in enumerate(listed(expect.refused)):
            await self._refused(world, refused, f"{check.path}.refused" + (f"[{index}]" if several else ""))

    def _delivered(self, world: SimulatedWorld, expect: Expect, path: str) -> None:
        for name, wanted in expect.delivered.items():
            there = [shown(one) for one in world.receiver.sent if one.destination == name and one.status < 300]
            there = _spoken_of(wanted, there)
            if not _in_order(wanted, there):
                self._fail(f"{path}.delivered.{name}", [*wanted], there)

    async def _refused(self, world: SimulatedWorld, refused: Refused, path: str) -> None:
        """Try what must be refused. If it is taken, that is told, and the run goes on with it."""
        action: Any = refused.edit or refused.delete or refused.connect
        if refused.audience is not None or refused.trait is not None:
            action = Define(audience=refused.audience, trait=refused.trait)
        reason = await self._change(world, action)
        if reason is None:
            self._fail(path, refused.because or "refused", f"taken at {iso(world.clock.now_ms())}: {_said(action)}")
        elif refused.because is not None and refused.because.lower() not in reason.lower():
            self._fail(path, refused.because, reason)

    # -- the trail ---------------------------------------------------------------------------------------------------

    def _note(self, world: SimulatedWorld, moment: Moment) -> None:
        assert self._trail is not None
        if not isinstance(moment.action, Move | Check):
            self._trail.append(f"{iso(moment.at_ms)}  {_said(moment.action)}")


async def _members(world: SimulatedWorld, key: str, at_ms: int | None, known_ms: int | None) -> list[str] | None:
    try:
        return await world.member_names(key, at_ms, known_ms)
    except RefusedError:
        return None


def shown(sent: Sent) -> dict[str, Any]:
    """Return a delivered call as expectations name it."""
    call = sent.call
    found: dict[str, Any] = {"type": call.kind, "at": iso(sent.at_ms)}
    if call.kind == "track":
        found["event"] = call.event
    ids = {"userId": call.user_id, "anonymousId": call.anonymous, "email": call.email, "groupId": call.group_id}
    found |= {name: value for name, value in ids.items() if value is not None}
    found["audience" if call.computation_class == "audience" else "trait"] = call.key
    found["value"] = call.value
    if call.kind != "member":
        body = payload(call)
        found |= {name: body[name] for name in ("traits", "properties", "context", "timestamp") if name in body}
    found["profile"] = call.profile
    found["messageId"] = call.id
    return found


def _spoken_of(wanted: Sequence[dict[str, Any]], there: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls that an expectation is about: identify and group calls only if it names one, or none else came.

    One change makes several calls, and the contract's own example speaks of the track call alone.
    """
    aside = {"identify", "group"} - {item.get("type") for item in wanted}
    aside -= {"group"} if any("groupId" in item for item in wanted) else set()
    return [one for one in there if one["type"] not in aside] or list(there)


def _in_order(wanted: Sequence[dict[str, Any]], there: Sequence[dict[str, Any]]) -> bool:
    """Tell whether these calls were delivered, and no others: in order per profile, as deliveries promise."""
    lanes: dict[str, list[dict[str, Any]]] = {}
    for one in there:
        lanes.setdefault(one["profile"], []).append(one)
    place = {id(one): n for n, one in enumerate(there)}
    for item in wanted:
        heads = sorted((lane[0] for lane in lanes.values() if lane), key=lambda one: place[id(one)])
        found = next((one for one in heads if _fits(item, one)), None)
        if found is None:
            return False
        del lanes[found["profile"]][0]
    return not any(lanes.values())


def _fits(wanted: dict[str, Any], there: dict[str, Any]) -> bool:
    """Tell whether everything that is wanted of a call, and of the objects in it, is so."""
    return all(key in there and _is_so(key, value, there[key]) for key, value in wanted.items())


def _is_so(name: str, wanted: Any, there: Any) -> bool:
    if name != "value" and isinstance(wanted, dict) and isinstance(there, dict):
        return _fits(wanted, there)
    return same(wanted, there)


def _said(action: Any) -> str:
    if isinstance(action, Send | Attempt):
        message = action.message
        who = message.get("userId") or message.get("anonymousId") or message.get("groupId")
        return f"{message.get('type')} {message.get('event') or message.get('name') or ''} from {who}"
    return f"{type(action).__name__.lower()} {action}"
