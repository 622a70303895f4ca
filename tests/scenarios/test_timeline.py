"""A scenario as a list of what happens: order, chance, and messages that arrive late."""

from scenarios.format import Scenario, loads
from scenarios.timeline import Attempt, Check, Moment, Move, Send, timeline

START = "2026-03-01T00:00:00Z"


def scenario(steps: str, seed: int = 0) -> Scenario:
    return loads(f"scenario: x\nseed: {seed}\nstart: {START}\n{steps}").scenario


def sent(moments: list[Moment]) -> list[tuple[int, str]]:
    start_ms = moments[0].at_ms
    return [
        ((moment.at_ms - start_ms) // 60_000, moment.action.message["userId"])
        for moment in moments
        if isinstance(moment.action, Send)
    ]


def test_within_a_step_faults_come_first_then_definitions_then_messages_then_expectations() -> None:
    told = scenario(
        """
audiences: [{name: A, query: q}]
destinations: [{name: crm, audiences: [a]}]
steps:
  - at: +1d
    expect: {rejected: 0}
    send: {type: track, userId: u}
    disconnect: {destination: crm, audience: a}
    connect: {destination: crm, audience: a}
    delete: {audience: a}
    edit: {audience: {key: a}}
    define: {audience: {name: B, query: q}}
    fault: {crash: true}
"""
    )
    kinds = [type(moment.action).__name__ for moment in timeline(told)]
    assert kinds == [
        "Define",
        "Connect",
        "Move",
        "Fault",
        "Define",
        "Edit",
        "Delete",
        "Connect",
        "Disconnect",
        "Send",
        "Check",
    ]
    assert [moment.step for moment in timeline(told)] == [-1, -1, *([0] * 9)]


def test_a_message_gets_an_id_a_time_and_its_source() -> None:
    told = scenario(
        "steps:\n- {at: +1d, send: [{type: track, writeKey: app}, {type: track, timestamp: t, messageId: m}]}"
    )
    sends = [moment.action for moment in timeline(told) if isinstance(moment.action, Send)]
    assert sends[0] == Send({"type": "track", "messageId": "step-0-0", "timestamp": "2026-03-02T00:00:00.000Z"}, "app")
    assert sends[1].message == {"type": "track", "timestamp": "t", "messageId": "m"}


def test_a_duplicate_has_the_same_id_and_chance_comes_from_the_seed() -> None:
    messages = ", ".join(f"{{type: track, userId: u{n}}}" for n in range(40))
    steps = "steps:\n- {at: +0s, fault: {duplicate: 0.5}, send: [" + messages + "]}"
    first, again, other = (timeline(scenario(steps, seed)) for seed in (1, 1, 2))
    assert first == again != other
    sends = [moment.action for moment in first if isinstance(moment.action, Send)]
    assert 45 < len(sends) < 75
    assert len({send.message["messageId"] for send in sends}) == 40


def test_a_delayed_message_arrives_later_dated_when_it_was_sent() -> None:
    told = scenario(
        """
steps:
  - {at: +0m, fault: {delay: {p: 1, by: 10m}}, send: [{type: track, userId: a}]}
  - {at: +5m, fault: {delay: {p: 0, by: 10m}}, send: [{type: track, userId: b}]}
  - {at: +20m, send: [{type: track, userId: c}]}
"""
    )
    moments = timeline(told)
    assert sent(moments) == [(5, "b"), (10, "a"), (20, "c")]
    late = next(
        moment.action
        for moment in moments
        if isinstance(moment.action, Send) and moment.action.message["userId"] == "a"
    )
    assert late.message["timestamp"] == "2026-03-01T00:00:00.000Z"


def test_a_message_that_meets_a_full_disk_is_tried_and_sent_again_when_it_is_over() -> None:
    told = scenario(
        """
steps:
  - {at: +0m, fault: {disk_full: 5m}, send: [{type: track, userId: a}]}
  - {at: +4m, send: [{type: track, userId: b}]}
  - {at: +5m, send: [{type: track, userId: c}], expect: {rejected: 0}}
"""
    )
    moments = timeline(told)
    assert sent(moments) == [(5, "a"), (5, "b"), (5, "c")]
    assert sum(isinstance(moment.action, Attempt) for moment in moments) == 2
    assert isinstance(moments[-1].action, Check)
    assert sum(isinstance(moment.action, Move) for moment in moments) == 3
