"""Chaos: harmless faults change nothing in the end, and an engine that lets them is caught and shown small."""

from pathlib import Path

import anyio
import pytest

from scenarios import chaos as chaos_
from scenarios.chaos import calm, chaos, chaotic, differences, pinned
from scenarios.format import Scenario, dumps, listed, load, loads
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
    for seed in range(40):
        tried = chaotic(base, seed)
        assert dumps(tried) == dumps(chaotic(base, seed))
        assert loads(dumps(tried)).scenario == tried
        quiet = [step for step in calm(tried).steps if step.send != ()]
        assert [step.send for step in quiet] == [listed(step.send) for step in base.steps]
        for fault in (fault for step in tried.steps for fault in listed(step.fault)):
            kinds |= {name for name in fault.__struct_fields__ if getattr(fault, name) not in (None, False)}
    assert kinds == {"crash", "crash_after", "crash_in", "destination", "status", "lost", "for_", "disk_full"}


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
    assert "fault: {crash" in ran.out
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
