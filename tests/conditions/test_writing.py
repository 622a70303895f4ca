"""What a live partition asks as an event comes is what the leaves say when they are asked by themselves."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.conditions.program import ACCOUNT, USER, Scope, Spec
from actors.language import parse
from actors.partition import Partition
from eventlog.entries import GROUP, TRACK, Event
from eventlog.messages import EventData

SIGNS = ("=", "!=", ">", ">=", "<", "<=")
ASKED = (
    "count()",
    "within(4 seconds).count()",
    "between(2 seconds, 5 seconds).count()",
    "sum(property('x'))",
    "avg(property('x'))",
    "min(property('x'))",
    "max(property('x'))",
    "unique(property('x')).count()",
    "within(4 seconds).sum(property('x'))",
    "where(property('x') != 'a').count()",
    "where(property('x') = 2).within(3 seconds).count()",
    "where(event('B').count() >= 1).count()",
    "expires_after(3 seconds).count()",
)
values = st.sampled_from((None, 1, 2, 3.5, "2", "a", True, [1, "a"]))
events = st.lists(
    st.tuples(st.sampled_from("AAB"), st.integers(0, 3), st.integers(0, 4), values), min_size=1, max_size=12
)
questions = st.lists(
    st.tuples(st.sampled_from(ASKED), st.sampled_from(SIGNS), st.integers(0, 4), st.sampled_from((USER, ACCOUNT))),
    min_size=1,
    max_size=6,
    unique=True,
)


def compiled(asked: list[tuple[str, str, int, Scope]]) -> Partition:
    """Return a partition with an audience for each of these questions, in seconds where the language has seconds."""
    partition = Partition()
    specs = [
        Spec(
            number,
            f"k{number}",
            "audience",
            scope,
            parse(f"event('A').{question.replace('milliseconds', 'seconds')} {sign} {bound}"),
        )
        for number, (question, sign, bound, scope) in enumerate(asked, 1)
    ]
    partition.set_definitions(specs, [spec.number for spec in specs], tuple)
    return partition


@given(questions, events)
@settings(max_examples=300)
def test_a_fold_leaves_every_leaf_as_it_answers_by_itself(
    asked: list[tuple[str, str, int, Scope]], happened: list[tuple[str, int, int, Any]]
) -> None:
    partition = compiled(asked)
    program = partition.program
    partition.fold_event(Event(1, 0, 0, 1, 2, GROUP, "", "s", "m", b""), EventData())
    now_ms = 0
    for seq, (name, later_s, ago_s, x) in enumerate(happened, 2):
        now_ms += later_s * 1000
        event = Event(seq, now_ms - ago_s * 1000, now_ms, 1, 0, TRACK, name, "s", "m", b"")
        partition.fold_event(event, EventData(properties={} if x is None else {"x": x}))
        for entity, scope in ((partition.user(1), USER), (partition.account(2), ACCOUNT)):
            for leaf in program.scoped[scope]:
                assert (entity.bits & leaf.mask != 0) is leaf.holds(entity, now_ms)
                due_ms = None if leaf.due is None else leaf.due(entity, now_ms)
                if due_ms is not None and leaf.holds(entity, due_ms) is not leaf.holds(entity, now_ms):
                    assert entity.dues[leaf.index] <= due_ms
                    assert entity.due_ms <= entity.dues[leaf.index]
            for node in program.nodes.values():
                if node.scope == scope and node.number > 0:
                    assert (node.number in entity.inside) is partition.belongs(entity, node)
