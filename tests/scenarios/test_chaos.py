"""Chaos: harmless faults change nothing in the end, and an engine that lets them is caught and shown small."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import convert
from msgspec.structs import replace

from scenarios import chaos as chaos_
from scenarios.chaos import chaos, differences
from scenarios.chaos_faults import MOVED, SKEW, calm, chaotic, movable, pinned
from scenarios.format import Fault, Scenario, Step, dumps, listed, load, loads
from scenarios.runner import run_to_end
from scenarios.world import Receiver, SimulatedWorld
from tests.cli.conftest import Turnout, turnout

__all__ = ["turnout"]

LIBRARY = Path(__file__).parents[2] / "scenarios" / "library"
SHOP = """
scenario: A shop with a destination
seed: 3
start: 2026-03-01T00:00:00Z
audiences:
  - {name: Buyers, query: "event('Order Completed').within(1 days).count() >= 1"}
traits:
  - {name: Spend, query: "event('Order Completed').sum(property('total'))"}
destinations:
  - {name: crm, audiences: [buyers], traits: [spend]}
steps:
  - at: +0s
    send:
      - {type: track, userId: ann, event: Order Completed, properties: {total: 5}}
      - {type: track, userId: bob, event: Order Completed, properties: {total: 7}}
  - {at: +1h, send: {type: track, userId: cy, event: Order Completed, properties: {total: 1}}}
  - {at: +12h, send: {type: track, userId: ann, event: Order Completed, properties: {total: 5}}}
  - {at: +1d1h, send: {type: track, userId: dee, event: Order Completed}}
"""
FAULTS = """
scenario: Dies at many writes
audiences:
  - {name: Buyers, query: "event('Order Completed').within(7 days).count() >= 1"}
destinations:
  - {name: crm, audiences: [buyers]}
steps:
  - at: +0s
    fault: [{crash_after: 1}, {crash_in: 2}]
    send:
      - {type: track, userId: ann, event: Order Completed}
      - {type: track, userId: bob, event: Order Completed}
  - at: +1s
    fault: {destination: crm, lost: answers, for: 1m}
    send: {type: track, userId: cy, event: Order Completed}
  - {at: +1d, fault: {crash_after: 2}, expect: {members: {buyers: [ann, bob, cy]}}}
  - {at: +7d1h, expect: {members: {buyers: []}}}
"""


def shop() -> Scenario:
    return loads(SHOP).scenario


def test_a_process_that_dies_at_any_write_loses_nothing_that_was_acknowledged() -> None:
    scenario = loads(FAULTS).scenario
    assert differences(pinned(scenario)) == ()


@pytest.mark.parametrize("writes", range(1, 13))
@pytest.mark.parametrize("where", ["crash_in", "crash_after"])
def test_each_write_of_a_shop_may_be_the_last(where: str, writes: int) -> None:
    text = SHOP.replace("at: +0s\n", f"at: +0s\n    fault: {{{where}: {writes}}}\n")
    assert differences(pinned(loads(text).scenario)) == ()


def test_random_faults_change_nothing_in_the_end() -> None:
    assert chaos(shop(), 25) is None


@pytest.mark.parametrize("name", ["trait_presence", "device_ids", "account_quantifiers"])
def test_scenarios_of_the_library_withstand_chaos(name: str) -> None:
    assert chaos(load(LIBRARY / f"{name}.yaml").scenario, 3) is None


def test_the_same_seed_gives_the_same_faults_and_calm_takes_them_out() -> None:
    base = pinned(shop())
    kinds = set()
    for seed in range(80):
        tried = chaotic(base, seed)
        assert dumps(tried) == dumps(chaotic(base, seed))
        assert loads(dumps(tried)).scenario == tried
        quiet = calm(tried)
        assert sent_in(quiet) == sent_in(base)
        assert [step for step in quiet.steps if step.edit or step.fault] == []
        for fault in (fault for step in tried.steps for fault in listed(step.fault)):
            kinds |= {name for name in fault.__struct_fields__ if getattr(fault, name) not in (None, False)}
        kinds |= {"edit" for step in tried.steps if step.edit}
        for _, message in sent_in(tried):
            kinds |= message.get("context", {}).keys()
    faults = {
        "crash",
        "crash_after",
        "crash_in",
        "crash_in_backfill",
        "down",
        "restart",
        "checkpoint",
        "full_in",
        "disk_full",
        "edit",
        SKEW,
        MOVED,
    }
    assert kinds == faults | {"destination", "status", "lost", "slow", "for_"}


def sent_in(scenario: Scenario) -> list[tuple[str, dict[str, Any]]]:
    sent = [(step.at, message) for step in scenario.steps for message in listed(step.send)]
    return sorted(sent, key=lambda one: (one[0], one[1]["messageId"]))


def test_only_messages_that_provably_change_nothing_come_late() -> None:
    base = pinned(shop())
    assert movable(base) == {"step-1-0", "step-2-0", "step-3-0"}  # of the first two each has the other's timestamp
    for change in (
        "settings: {idLimits: {user_id: 2}}\nsteps:",  # whoever comes first may be another
        "steps:\n  - {at: +0s, edit: {audience: {key: buyers, enabled: false}}}",  # it keeps what was known then
        "steps:\n  - {at: +0s, send: {type: group, userId: ann, groupId: acme}}",  # told of whoever is in it then
        "steps:\n  - {at: +0s, send: {type: alias, userId: ann, previousId: bob}}\n"
        "  - {at: +0s, send: {type: identify, userId: cy, anonymousId: bob}}",  # one of two user_ids is demoted
    ):
        assert movable(pinned(loads(SHOP.replace("steps:", change, 1)).scenario)) == set(), change


def test_a_crash_may_cut_the_making_of_a_definition_short_and_a_refusal_stays_one() -> None:
    text = """
scenario: Made in hard times
steps:
  - {at: +0s, send: [{type: track, userId: ann, event: Buy}, {type: track, userId: bob, event: Buy}]}
  - at: +1h
    fault: {FAULT: WRITES}
    define: {audience: {name: Buyers, query: event('Buy').count() >= 1}}
    expect: {members: {buyers: [ann, bob]}}
  - at: +2h
    fault: {FAULT: WRITES}
    edit: {audience: {key: buyers, query: event('Buy').count() >= 2}}
    expect: {members: {buyers: []}, refused: {audience: {name: Buyers, query: event('Buy').count() >= 1}}}
  - at: +3h
    fault: {FAULT: WRITES}
    delete: {audience: buyers}
    expect: {refused: {delete: {audience: buyers}}}
"""
    for fault in ("crash_in", "crash_after", "full_in"):
        for writes in range(1, 8):
            scenario = loads(text.replace("FAULT", fault).replace("WRITES", str(writes))).scenario
            assert anyio.run(run_to_end, scenario, None) == [], (fault, writes)


@pytest.mark.parametrize("writes", range(1, 13))
def test_each_write_of_a_shop_may_find_no_room(writes: int) -> None:
    text = SHOP.replace("at: +0s\n", f"at: +0s\n    fault: {{full_in: {writes}}}\n")
    assert differences(pinned(loads(text).scenario)) == ()


@pytest.mark.parametrize("name", ["merge_joins_histories", "merge_in_an_account", "edit_backfills"])
@pytest.mark.parametrize("where", ["crash_in", "crash_after", "full_in"])
def test_each_write_of_merges_backfills_and_checkpoints_may_be_the_last(name: str, where: str) -> None:
    base = pinned(load(LIBRARY / f"{name}.yaml").scenario)
    for writes in range(1, 13):
        for place in range(1, len(base.steps)):
            step = Step(at=base.steps[place].at, fault=(convert({where: writes}, Fault), Fault(checkpoint=True)))
            tried = replace(base, steps=(*base.steps[:place], step, *base.steps[place:]))
            assert differences(tried) == (), (writes, place)


def test_a_slow_answer_holds_its_own_profile_and_nobody_else() -> None:
    text = SHOP.replace("at: +0s\n", "at: +0s\n    fault: {destination: crm, slow: 10s, for: 5s}\n", 1)
    seen: list[tuple[int, str | None]] = []

    async def look(world: SimulatedWorld) -> None:
        start_ms = shop().start_ms
        seen.extend((sent.at_ms - start_ms, sent.call.user_id) for sent in world.receiver.sent)

    assert anyio.run(run_to_end, loads(text).scenario, look) == []
    early = [(at_ms, who) for at_ms, who in seen if at_ms < 3_600_000]
    assert {who for at_ms, who in early if at_ms == 0} == {"ann", "bob"}
    for who in ("ann", "bob"):
        times = [at_ms for at_ms, whose in early if whose == who]
        assert len(times) > 1
        assert times[0] == 0
        assert times[1] == 10_000  # its next call waits for the answer to the first


def test_an_answer_that_never_comes_is_a_call_again() -> None:
    text = SHOP.replace("at: +0s\n", "at: +0s\n    fault: {destination: crm, slow: 1h, for: 5s}\n", 1)
    seen: list[str] = []

    async def look(world: SimulatedWorld) -> None:
        seen.extend(sent.call.id for sent in world.receiver.sent)

    assert anyio.run(run_to_end, loads(text).scenario, look) == []
    assert len(seen) > len(set(seen))
    assert differences(pinned(loads(text).scenario)) == ()


def test_many_processes_find_what_one_finds_and_verbose_tells_what_was_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, turnout: Turnout
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    monkeypatch.setattr(chaos_, "RUNS_A_PROCESS", 1)
    one, two = (turnout("simulate", file, "--chaos", 4, "--verbose", "--jobs", jobs) for jobs in (1, 2))
    assert one.status == two.status == 0
    assert one.out.splitlines()[:-1] == two.out.splitlines()[:-1]
    assert [f"run {run}, seed {3 * 1_000_003 + run}: " in one.out for run in range(5)] == [True] * 4 + [False]
    assert "crash" in one.out


def test_an_engine_that_forgets_when_it_crashes_is_caught_and_shown_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, turnout: Turnout
) -> None:
    restart = SimulatedWorld._restart

    async def forgetful(self: SimulatedWorld) -> None:
        self.log._packs = self.log._packs[:-1]
        self.log._last_seq = self.log._packs[-1].last_seq if self.log._packs else 0
        await restart(self)

    monkeypatch.setattr(SimulatedWorld, "_restart", forgetful)
    monkeypatch.setattr(chaos_, "SHRINK_S", 5.0)
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    ran = turnout("simulate", file, "--chaos", 20)
    assert ran.status == 1
    assert "chaos (seed 3000" in ran.out
    assert "fault: {crash" in ran.out or "fault: {restart" in ran.out
    assert ran.out.count("fault:") == 1  # the smallest has one fault


def test_a_lost_answer_is_a_call_again_with_its_id_and_a_lost_request_is_one_call() -> None:
    for lost, again in (("answers", True), ("requests", False)):
        text = SHOP.replace("at: +0s\n", f"at: +0s\n    fault: {{destination: crm, lost: {lost}, for: 1s}}\n", 1)
        seen: list[str] = []

        async def look(world: SimulatedWorld, seen: list[str] = seen) -> None:
            receiver: Receiver = world.receiver
            seen += [sent.call.id for sent in receiver.sent]

        assert anyio.run(run_to_end, loads(text).scenario, look) == []
        assert (len(seen) > len(set(seen))) is again
