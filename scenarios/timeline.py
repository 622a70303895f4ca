"""A scenario as a flat list of what happens, in order: the same for the engine and for the reference evaluator.

All chance is spent here. A message that a fault duplicates is there twice, with one `messageId`; one that is delayed,
or that met a full disk, arrives later, dated when it was sent. Times are milliseconds since the epoch, UTC.
"""

import random
from typing import Any

from msgspec import Struct

from eventlog.instants import iso
from scenarios.format import (
    Connect,
    Define,
    Delay,
    Delete,
    Disconnect,
    Edit,
    Expect,
    Fault,
    Scenario,
    Step,
    duration_ms,
    listed,
)

DEFAULT_SOURCE = "scenario"


class Move(Struct, frozen=True):
    """Time has come to this step."""


class Send(Struct, frozen=True):
    """A message arrives."""

    message: dict[str, Any]
    source: str


class Attempt(Struct, frozen=True):
    """A message arrives while the disk is full: it is not taken, and comes again later."""

    message: dict[str, Any]
    source: str


class Check(Struct, frozen=True):
    """Something must be true; `path` is where in the file it says so."""

    expect: Expect
    path: str


Action = Move | Send | Attempt | Check | Define | Edit | Delete | Connect | Disconnect | Fault


class Moment(Struct, frozen=True):
    """One thing that happens: when, and in which step (-1: before the first)."""

    at_ms: int
    step: int
    action: Action


class _Chance:
    """The faults of messages that are on, and the random numbers they spend."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.duplicate = 0.0
        self.delay: Delay | None = None
        self.disk_full_until_ms: int | None = None

    def turn(self, fault: Fault, at_ms: int) -> None:
        """Take a fault into account from now on."""
        if fault.duplicate is not None:
            self.duplicate = fault.duplicate
        if fault.delay is not None:
            self.delay = fault.delay
        if fault.disk_full is not None:
            self.disk_full_until_ms = at_ms + duration_ms(fault.disk_full)

    def arrivals_ms(self, at_ms: int) -> list[int]:
        """Return when a message that is sent now arrives, once or twice."""
        times = 2 if self.duplicate and self.random.random() < self.duplicate else 1
        arrivals = []
        for _ in range(times):
            late = self.delay is not None and self.random.random() < self.delay.p
            arrivals.append(at_ms + duration_ms(self.delay.by) if self.delay is not None and late else at_ms)
        return arrivals


def timeline(scenario: Scenario) -> list[Moment]:
    """Return all that happens, in order."""
    start_ms = scenario.start_ms
    moments = [Moment(start_ms, -1, Define(audience=spec)) for spec in scenario.audiences]
    moments += [Moment(start_ms, -1, Define(trait=spec)) for spec in scenario.traits]
    for destination in scenario.destinations:
        for kind, keys in (("audience", destination.audiences), ("trait", destination.traits)):
            for key in keys:
                connect = Connect(
                    destination=destination.name,
                    audience=key if kind == "audience" else None,
                    trait=key if kind == "trait" else None,
                    send_identify=destination.send_identify,
                    send_track=destination.send_track,
                    send_group=destination.send_group,
                    id_sync_configuration=destination.id_sync_configuration,
                )
                moments.append(Moment(start_ms, -1, connect))
    chance = _Chance(scenario.seed)
    late: list[Moment] = []
    for index, step in enumerate(scenario.steps):
        at_ms = scenario.at_ms(step.at)
        due = sorted((moment for moment in late if moment.at_ms <= at_ms), key=lambda moment: moment.at_ms)
        late = [moment for moment in late if moment.at_ms > at_ms]
        moments += [*due, Moment(at_ms, index, Move())]
        for fault in listed(step.fault):
            chance.turn(fault, at_ms)
        moments += [Moment(at_ms, index, action) for action in _actions(step)]
        for place, message in enumerate(listed(step.send)):
            now, later = _sent(message, index, place, at_ms, chance)
            moments += now
            late += later
        several = isinstance(step.expect, tuple)
        for place, expect in enumerate(listed(step.expect)):
            path = f"steps[{index}].expect" + (f"[{place}]" if several else "")
            moments.append(Moment(at_ms, index, Check(expect, path)))
    return moments


def _actions(step: Step) -> tuple[Action, ...]:
    """Return what a step does before it sends."""
    return (
        *listed(step.fault),
        *listed(step.define),
        *listed(step.edit),
        *listed(step.delete),
        *listed(step.connect),
        *listed(step.disconnect),
    )


def _sent(
    given: dict[str, Any], step: int, place: int, at_ms: int, chance: _Chance
) -> tuple[list[Moment], list[Moment]]:
    """Return the arrivals of a message: those at once, and those later."""
    message = {key: value for key, value in given.items() if key != "writeKey"}
    source = given.get("writeKey", DEFAULT_SOURCE)
    if message.get("messageId") is None:
        message["messageId"] = f"step-{step}-{place}"
    if message.get("timestamp") is None and message.get("originalTimestamp") is None:
        message["timestamp"] = iso(at_ms)
    now: list[Moment] = []
    later: list[Moment] = []
    for arrival_ms in chance.arrivals_ms(at_ms):
        if chance.disk_full_until_ms is not None and arrival_ms < chance.disk_full_until_ms:
            if arrival_ms == at_ms:
                now.append(Moment(at_ms, step, Attempt(message, source)))
            arrival_ms = chance.disk_full_until_ms
        moment = Moment(arrival_ms, step, Send(message, source))
        (now if arrival_ms == at_ms else later).append(moment)
    return now, later
