"""The short way of a batch: a call is only said to be known where deciding would give the same and change nothing."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from actors.external_ids import VALUE_BLOCKED, ExternalId
from actors.identity import Identity


class Call(Struct, frozen=True):
    """What is read of a call."""

    ids: tuple[ExternalId, ...]
    group: ExternalId | None
    event_ms: int

    @property
    def only(self) -> tuple[str, str]:
        """Its only id, if that is all that has to be looked up."""
        one = self.ids[0]
        is_plain = self.group is None and len(self.ids) == 1 and one.collection == "users" and not one.refusal
        return (one.id_type, one.value) if is_plain else ("", "")


ids = st.builds(
    ExternalId,
    collection=st.sampled_from(["users", "users", "accounts"]),
    id_type=st.sampled_from(["user_id", "anonymous_id"]),
    value=st.sampled_from(["a", "b"]),
    refusal=st.sampled_from(["", "", "", VALUE_BLOCKED]),
)
groups = st.builds(ExternalId, st.just("accounts"), st.just("group_id"), st.sampled_from(["x", "y"]))
calls = st.builds(Call, st.lists(ids, min_size=1, max_size=2).map(tuple), st.none() | groups, st.integers(1, 4))


@given(st.lists(st.lists(calls, min_size=1, max_size=4), max_size=6))
def test_a_call_said_to_be_known_is_decided_the_same_and_changes_nothing(batches: list[list[Call]]) -> None:
    identity = Identity(suppression_key=b"k")
    seq = 0
    for batch in batches:
        known = identity.known_profiles(batch)
        for call, profile in zip(batch, known, strict=True):
            if profile:
                decided = identity._resolve(call.ids, call.group, call.event_ms, seq + 1, "s")
                assert (decided.profile, decided.account, decided.facts) == (profile, 0, ())
        for call in batch:
            seq += 1
            identity.resolve(call.ids, group=call.group, event_ms=call.event_ms, cause_seq=seq, source="s")


def test_an_event_from_before_all_that_is_known_of_its_id_is_not_passed_by() -> None:
    identity = Identity(suppression_key=b"k")
    one = ExternalId("users", "user_id", "a")
    identity.resolve([one], event_ms=5, cause_seq=1)
    assert identity.known_profiles([Call((one,), None, 5), Call((one,), None, 4)]) == [1, 0]
    again = ExternalId("users", "user_id", "a", refusal=VALUE_BLOCKED)
    account = ExternalId("accounts", "user_id", "a")
    assert identity.known_profiles([Call((again,), None, 5), Call((account,), None, 5)]) == [0, 0]
