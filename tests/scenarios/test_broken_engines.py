"""Engines that are broken on purpose, each in one way: the library or chaos must go red for every one of them.

Quick: the files and runs that are known to catch each. Slow: the whole library and chaos on all of it; `python -m
tests.scenarios.test_broken_engines` writes the table of docs/scenarios.md.
"""

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
import structlog
from msgspec import Struct

from actors.checkpoint import Cut, Partly
from actors.conditions.queries import FOREVER, Query
from actors.deciding import Deciding
from actors.definitions import Definitions
from actors.identity_matching import Matching
from actors.partition import Partition
from actors.space_core import EFFECTS
from actors.timers import Timers
from eventlog.entries import AnyFact, Exited, TraitComputed
from eventlog.log import Changes
from eventlog.memory import MemoryLog
from eventlog.seen import SeenIds
from scenarios.chaos import Found, first_difference, shown_small
from scenarios.edges import MortalLog
from scenarios.format import Scenario, load
from scenarios.runner import run_file

LIBRARY: Final = Path(__file__).parents[2] / "scenarios" / "library"
CHAOS_RUNS: Final = 6  # a file, in the full form

Patch = pytest.MonkeyPatch


# -- how they are broken -----------------------------------------------------------------------------------------------


def drops_a_timer(patch: Patch) -> None:
    """Of several entities due at one instant the last is forgotten."""
    pop_due = Timers.pop_due

    def forgetful(self: Timers, until_ms: int) -> tuple[int, list[int]] | None:
        popped = pop_due(self, until_ms)
        return popped if popped is None or len(popped[1]) == 1 else (popped[0], popped[1][:-1])

    patch.setattr(Timers, "pop_due", forgetful)


def loses_timers_at_a_restart(patch: Patch) -> None:
    """Timers are not brought back from a checkpoint."""
    patch.setattr(Deciding, "expect", lambda self, number, due_ms: None)


def doubles_an_effect(patch: Patch) -> None:
    """Every exit is told twice."""
    take = Partition.take_effects

    def twice(self: Partition) -> list[AnyFact]:
        return [one for fact in take(self) for one in ((fact, fact) if isinstance(fact, Exited) else (fact,))]

    patch.setattr(Partition, "take_effects", twice)


def writes_effects_again_after_a_crash(patch: Patch) -> None:
    """Where the log's effects end is forgotten."""
    _cursor(patch, lambda name, seq, last_seq: 0 if name == EFFECTS else seq)


def skips_what_a_destination_has_not_got(patch: Patch) -> None:
    """After a restart a destination reads on at the end of the log, not at its cursor."""
    _cursor(patch, lambda name, seq, last_seq: last_seq if name.startswith("destination:") else seq)


def _cursor(patch: Patch, moved: Callable[[str, int, int], int]) -> None:
    cursor = MemoryLog.cursor
    patch.setattr(MemoryLog, "cursor", lambda self, name: moved(name, cursor(self, name), self.last_seq))


def acknowledges_before_it_stores(patch: Patch) -> None:
    """What was written last is lost when the process dies."""
    reborn = MortalLog.reborn

    def losing(self: MortalLog) -> MortalLog:
        log = reborn(self)
        if log._packs and log._packs[-1].last_seq == log._last_seq:
            log._packs = log._packs[:-1]
            log._last_seq = log._packs[-1].last_seq if log._packs else 0
        return log

    patch.setattr(MortalLog, "reborn", losing)


def forgets_the_absorbed(patch: Patch) -> None:
    """A merge does not join what the two profiles did."""
    for joins in ("_add_states", "_take_over"):
        patch.setattr(Partition, joins, lambda self, states, others: None)


def keeps_memberships_of_the_absorbed(patch: Patch) -> None:
    """The memberships of an absorbed profile do not end."""
    patch.setattr(Partition, "_end_absorbed", lambda self: self._absorbed.clear())


def counts_a_message_id_twice(patch: Patch) -> None:
    """A `messageId` is never known."""
    patch.setattr(SeenIds, "add", lambda self, message_id, received_ms: True)


def forgets_message_ids_at_a_restart(patch: Patch) -> None:
    """A `messageId` is known only to the process that took it."""
    patch.setattr(SeenIds, "restore", lambda self, now_ms: None)


def ignores_the_far_edge(patch: Patch) -> None:
    """`between(a, b)` never ends."""
    init = Query.__init__

    def endless(self: Query, event: Any) -> None:
        init(self, event)
        if self.after_ms:
            self.before_ms = FOREVER

    patch.setattr(Query, "__init__", endless)


def starts_from_a_stale_snapshot(patch: Patch) -> None:
    """A checkpoint leaves the first changed entity as it was before."""
    init = Cut.__init__

    def partly(self: Cut, partition: Partition) -> None:
        init(self, partition)
        self._numbers = self._numbers[1:]

    patch.setattr(Cut, "__init__", partly)


def forgets_what_a_backfill_has_yet_to_gather(patch: Patch) -> None:
    """A checkpoint does not say which definitions' past is yet to be gathered."""
    changes = Cut.changes

    def without(
        self: Cut, definitions: Definitions, incomplete: dict[int, int], partly: dict[int, Partly], cursor_seq: int
    ) -> Changes:
        return changes(self, definitions, {}, {}, cursor_seq)

    patch.setattr(Cut, "changes", without)


def never_demotes(patch: Patch) -> None:
    """No limit of ids holds."""
    patch.setattr(Matching, "_broken_rule", lambda self: "")


def adds_a_past_twice(patch: Patch) -> None:
    """A backfill counts events twice at the switch."""
    add = Partition.add_history

    def twice(self: Partition, entity: Any, states: dict[int, Any]) -> None:
        add(self, entity, states)
        add(self, entity, states)

    patch.setattr(Partition, "add_history", twice)


def tells_a_late_change_now(patch: Patch) -> None:
    """What a timer changes is dated when it was noticed, not when it became true."""
    advance = Deciding.advance

    def at_once(self: Deciding, to_ms: int) -> None:
        due_ms = self.timers.next_ms()
        if due_ms is not None and due_ms < to_ms:
            self.now_ms = max(self.now_ms, to_ms)
        advance(self, to_ms)

    patch.setattr(Deciding, "advance", at_once)


def drops_a_traits_change(patch: Patch) -> None:
    """Now and then the change of a computed trait is not written."""
    take = Partition.take_effects

    def some(self: Partition) -> list[AnyFact]:
        return [one for one in take(self) if not isinstance(one, TraitComputed) or one.cause_seq % 2]

    patch.setattr(Partition, "take_effects", some)


class Broken(Struct, frozen=True):
    """A way to break the engine, and what is known to catch it: files, and a file's run of chaos."""

    breaks: Callable[[Patch], None]
    files: tuple[str, ...] = ()
    chaos: tuple[str, int] | None = None


BROKEN: Final = (
    Broken(drops_a_timer, files=("active_30_to_90_days_ago", "checkout_not_completed")),
    Broken(loses_timers_at_a_restart, chaos=("active_30_to_90_days_ago", 3)),
    Broken(doubles_an_effect, chaos=("account_quantifiers", 0)),
    Broken(writes_effects_again_after_a_crash, chaos=("account_events_together", 3)),
    Broken(skips_what_a_destination_has_not_got, chaos=("delivered_payloads", 3)),
    Broken(acknowledges_before_it_stores, files=("crash",), chaos=("account_events_together", 0)),
    Broken(forgets_the_absorbed, files=("merge_joins_histories", "merge_by_email")),
    Broken(keeps_memberships_of_the_absorbed, files=("merge_joins_histories",)),
    Broken(counts_a_message_id_twice, files=("duplicate_message",), chaos=("account_events_together", 0)),
    Broken(forgets_message_ids_at_a_restart, chaos=("account_events_together", 3)),
    Broken(ignores_the_far_edge, files=("between_edges",)),
    Broken(starts_from_a_stale_snapshot, chaos=("account_events_together", 2)),
    Broken(
        forgets_what_a_backfill_has_yet_to_gather,
        files=("crash_in_a_backfill",),
        chaos=("active_30_to_90_days_ago", 2),
    ),
    Broken(never_demotes, files=("id_limits_and_priority", "merge_stopped_by_limit")),
    Broken(adds_a_past_twice, files=("trait_history_bounded",), chaos=("any_call", 2)),
    Broken(tells_a_late_change_now, files=("down_when_a_window_closes",)),
    Broken(drops_a_traits_change, files=("delivered_payloads",), chaos=("session", 0)),
)


# -- what catches them -------------------------------------------------------------------------------------------------


@lru_cache
def scenario_of(stem: str) -> Scenario:
    return load(LIBRARY / f"{stem}.yaml").scenario


def differs(stem: str) -> bool:
    """Tell whether a scenario of the library is not as it expects."""
    return not anyio.run(run_file, LIBRARY / f"{stem}.yaml", backend_options={"use_uvloop": True}).passed


def found_by_chaos(stem: str, runs: range) -> Found | None:
    return first_difference(scenario_of(stem), runs)


def _name(broken: Broken) -> str:
    return broken.breaks.__name__


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A broken engine complains."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("broken", BROKEN, ids=_name)
def test_every_broken_engine_is_caught(broken: Broken, monkeypatch: Patch) -> None:
    assert broken.files or broken.chaos
    broken.breaks(monkeypatch)
    assert [stem for stem in broken.files if differs(stem)] == [*broken.files]
    if broken.chaos is not None:
        stem, run = broken.chaos
        assert found_by_chaos(stem, range(run, run + 1)) is not None


def test_what_catches_them_finds_nothing_in_the_engine_as_it_is() -> None:
    assert [stem for stem in sorted({stem for one in BROKEN for stem in one.files}) if differs(stem)] == []
    for stem, run in sorted({one.chaos for one in BROKEN if one.chaos is not None}):
        assert found_by_chaos(stem, range(run, run + 1)) is None, (stem, run)


@pytest.mark.slow
def test_the_whole_library_with_chaos_finds_nothing_in_the_engine_as_it_is() -> None:
    for file in sorted(LIBRARY.glob("*.yaml")):
        assert not differs(file.stem), file.stem
        assert found_by_chaos(file.stem, range(CHAOS_RUNS)) is None, file.stem


# -- the table ---------------------------------------------------------------------------------------------------------


def _line(broken: Broken) -> str:
    """Return a line of the table: all of the library that catches it, and chaos at its first."""
    stems = [file.stem for file in sorted(LIBRARY.glob("*.yaml"))]
    with Patch.context() as patch:
        broken.breaks(patch)
        red = [stem for stem in stems if differs(stem)]
        found = None
        for stem in (one for one in stems if one not in red):
            found = found_by_chaos(stem, range(CHAOS_RUNS))
            if found is not None:
                break
        by_chaos = "-"
        if found is not None:
            small = shown_small(found).scenario
            faults = sum(len(step.fault) if isinstance(step.fault, tuple) else 1 for step in small.steps if step.fault)
            by_chaos = f"`{stem}`, run {found.run}, seed {found.seed}: {len(small.steps)} steps, {faults} faults"
    some = ", ".join(f"`{one}`" for one in red[:3])
    library = f"{some} and {len(red) - 3} more" if len(red) > 3 else some or "-"
    return f"| {broken.breaks.__doc__} | {library} | {by_chaos} |"


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for one in BROKEN:
        print(f"{_name(one)} {_line(one)}", flush=True)  # noqa: T201 - a program
