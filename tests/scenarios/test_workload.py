"""Made-up traffic: the same from the same seed, and shaped as it says."""

import json
from collections import Counter

import pytest

from scenarios.workload import LATE_MS_MAX, LATE_SHARE, SHARES, Workload, main

WORKLOAD = Workload(events=20_000, profiles=500, accounts=7)


def test_the_same_seed_gives_the_same_traffic_and_another_seed_another() -> None:
    assert list(WORKLOAD.messages()) == list(WORKLOAD.messages())
    other = Workload(events=20_000, profiles=500, accounts=7, seed=2)
    assert set(WORKLOAD.messages()).isdisjoint(other.messages())


def test_traffic_has_the_shares_the_size_and_the_ids_that_were_asked_for() -> None:
    messages = [json.loads(line) for line in WORKLOAD.messages()]
    assert len({message["messageId"] for message in messages}) == WORKLOAD.events
    names = Counter(message.get("event", message["type"]) for message in messages)
    for name, share in SHARES:
        assert names[name] == pytest.approx(WORKLOAD.events * share / 1000, rel=0.25)
    assert len({message.get("userId") or message["anonymousId"] for message in messages}) > 400
    assert {message["groupId"] for message in messages if message["type"] == "group"} <= {
        f"account-{n}" for n in range(7)
    }
    assert sum(map(len, WORKLOAD.messages())) / WORKLOAD.events == pytest.approx(225, rel=0.1)


def test_few_calls_come_late_and_none_later_than_the_bound() -> None:
    times = [json.loads(line)["timestamp"] for line in WORKLOAD.messages()]
    late = [n for n, time in enumerate(times) if n and time < max(times[:n][-50:])]
    assert len(late) == pytest.approx(WORKLOAD.events * LATE_SHARE, rel=0.25)
    assert LATE_MS_MAX == 2 * 86_400_000
    assert min(times) >= "2025-12-30"


def test_the_command_writes_a_call_a_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    main(["--events", "5", "--seed", "3"])
    written = capfdbinary.readouterr().out.splitlines()
    assert written == list(Workload(events=5, seed=3).messages())
