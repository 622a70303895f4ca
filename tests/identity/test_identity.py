"""Who is who, case by case: matching, merging, each refusal by its name, erasure, suppression, storing."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from actors.external_ids import ExternalId
from actors.identity import REFUSAL_CODES, Identity, Resolution
from actors.identity_rows import STATE_VERSION, Header
from actors.identity_rules import DAY_MS
from actors.identity_store import PROJECTION
from eventlog.entries import AnyFact, Erased, IdAdded, IdRefused, IdSeenEarlier, Merged, Suppressed, Unsuppressed
from eventlog.log import IDS, META, Changes, Key, Log, Table
from eventlog.memory import MemoryLog
from eventlog.sqlite import SqliteLog
from tests.identity.desk import KEY, Desk, account, users


@pytest.fixture(params=["memory", "sqlite"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    """Both logs, since reads go past the cache to them."""
    opened = MemoryLog() if request.param == "memory" else await SqliteLog.open(tmp_path / "space.db")
    yield opened
    await opened.close()


@pytest.fixture
def desk(log: Log) -> Desk:
    return Desk(log)


def known(identity: Identity, entity: int) -> list[tuple[str, str]]:
    return [(one.id_type, one.value) for one in identity.ids(entity)]


def refused(answer: Resolution) -> list[tuple[str, str]]:
    return [(fact.value, fact.code) for fact in answer.facts if isinstance(fact, IdRefused)]


# -- matching ----------------------------------------------------------------------------------------------------------


async def test_no_match_makes_a_profile_one_adds_to_it_and_a_known_id_changes_nothing(desk: Desk) -> None:
    first = await desk.take(*users("a:1"), event_ms=5)
    assert first.profile == 1
    assert first.facts == (IdAdded(1, "users", "anonymous_id", "1", 5, 1, "web"),)
    assert (await desk.take(*users("a:1", "u:ann"), event_ms=6)).profile == 1
    assert await desk.take(*users("u:ann"), event_ms=7) == Resolution(1, 0)
    assert known(desk.identity, 1) == [("anonymous_id", "1"), ("user_id", "ann")]


async def test_several_matches_merge_into_the_oldest_and_all_ids_lead_there(desk: Desk) -> None:
    for one in ("a:1", "a:2", "e:x@y.z"):
        await desk.take(*users(one))
    answer = await desk.take(*users("u:ann", "e:x@y.z", "a:2", "a:1"))
    assert answer.profile == 1
    assert answer.facts[:2] == (Merged(1, (2, 3), answer.facts[0].cause_seq), answer.facts[1])
    assert [desk.identity.canonical(entity) for entity in (1, 2, 3)] == [1, 1, 1]
    assert desk.identity.absorbed_by(1) == (2, 3)
    assert desk.identity.find("EMAIL", " X@Y.Z ") == 1
    assert desk.identity.entities("users") == [1]


async def test_ids_of_the_absorbed_that_an_event_does_not_name_lead_on_too(desk: Desk) -> None:
    for ids in (users("a:1"), users("a:2", "e:x@y.z"), users("a:3", "ios.id:d")):
        await desk.take(*ids)
    await desk.take(*users("a:3", "a:2"))
    await desk.take(*users("a:2", "a:1"))
    for one in ("e:x@y.z", "ios.id:d"):
        assert (await desk.take(*users(one))).profile == 1
    assert [desk.identity.canonical(entity) for entity in (1, 2, 3)] == [1, 1, 1]


async def test_a_chain_of_merges_within_one_batch_ends_at_the_oldest(desk: Desk) -> None:
    calls = [users("a:1"), users("a:2"), users("a:3"), users("a:3", "a:2"), users("a:2", "u:ann"), users("a:3", "a:1")]
    answers = await desk.take_batch([(ids, None, 0) for ids in calls])
    assert [answer.profile for answer in answers] == [1, 2, 3, 2, 2, 1]
    assert desk.identity.absorbed_by(1) == (2, 3)
    assert [desk.identity.as_of(seq).canonical(3) for seq in (3, 4, 5, 6)] == [3, 2, 2, 1]


async def test_alias_calls_that_go_round_in_a_circle_end_in_one_profile(desk: Desk) -> None:
    for pair in (("u:1", "a:2"), ("a:2", "a:3"), ("a:3", "u:1"), ("a:3", "a:2")):
        assert (await desk.take(*users(*pair))).profile == 1
    assert desk.identity.entities("users") == [1]


async def test_the_contracts_worked_example(desk: Desk) -> None:
    """Profile (abc123, jane@), event (abc456, jane@): the email is demoted, abc456 is a new profile."""
    await desk.take(*users("u:abc123", "e:jane@x.com"))
    answer = await desk.take(*users("u:abc456", "e:jane@x.com"))
    assert answer.profile == 2
    assert refused(answer) == [("jane@x.com", "value_limit_exceeded")]
    assert known(desk.identity, 2) == [("user_id", "abc456")]
    assert desk.identity.find("email", "jane@x.com") == 1
    assert [one.code for one in desk.identity.refusals(2)] == ["value_limit_exceeded"]
    again = await desk.take(*users("u:abc456", "e:jane@x.com"))
    assert again == Resolution(2, 0)  # what is on the profile already is not recorded again


async def test_ids_keep_the_order_of_the_event(desk: Desk) -> None:
    await desk.take(*users("a:1", "e:x@y.z", "u:ann"))
    assert known(desk.identity, 1) == [("anonymous_id", "1"), ("email", "x@y.z"), ("user_id", "ann")]


async def test_an_id_given_twice_in_one_event_is_added_once(desk: Desk) -> None:
    answer = await desk.take(*users("a:1"), ExternalId("users", "anonymous_id", "1", "base64"))
    assert len(answer.facts) == 1


async def test_a_new_email_of_a_known_profile_is_one_more_id(desk: Desk) -> None:
    await desk.take(*users("u:ann", "e:old@x.com"))
    await desk.take(*users("u:ann", "e:new@x.com"))
    assert known(desk.identity, 1) == [("user_id", "ann"), ("email", "old@x.com"), ("email", "new@x.com")]
    assert desk.identity.id_types(1) == {"user_id", "email"}
    assert desk.identity.has_any_id_type(1, ["email", "ios.id"])
    assert not desk.identity.has_any_id_type(1, ["ios.id"])


async def test_a_late_event_moves_the_time_since_when_an_id_is_known(desk: Desk) -> None:
    await desk.take(*users("u:ann"), event_ms=100)
    late = await desk.take(*users("u:ann"), event_ms=40)
    assert late.facts == (IdSeenEarlier(1, "users", "user_id", "ann", 40, 3),)
    assert await desk.take(*users("u:ann"), event_ms=40) == Resolution(1, 0)
    assert [desk.identity.has_any_id_type(1, ["user_id"], at_ms) for at_ms in (39, 40)] == [False, True]
    then = desk.identity.as_of(2)  # before the late event was known
    assert [then.has_any_id_type(1, ["user_id"], at_ms) for at_ms in (99, 100)] == [False, True]


# -- accounts ----------------------------------------------------------------------------------------------------------


async def test_a_group_call_finds_or_makes_its_account_beside_the_profile(desk: Desk) -> None:
    answer = await desk.take(*users("u:ann"), group=account("acme"))
    assert (answer.profile, answer.account) == (1, 2)
    assert await desk.take(*users("u:ann"), group=account("acme")) == Resolution(1, 2)
    assert await desk.take(group=account("acme")) == Resolution(0, 2)
    assert desk.identity.find("group_id", "acme", "accounts") == 2
    assert desk.identity.find("group_id", "acme") is None
    assert (desk.identity.entities("users"), desk.identity.entities("accounts")) == ([1], [2])
    assert [desk.identity.collection(entity) for entity in (1, 2, 3)] == ["users", "accounts", None]


async def test_a_users_id_never_meets_an_accounts_of_the_same_name(desk: Desk) -> None:
    await desk.take(group=account("7"))
    answer = await desk.take(ExternalId("users", "group_id", "7"))
    assert answer.profile == 2


async def test_accounts_take_further_ids_but_never_merge(desk: Desk) -> None:
    crm = ExternalId("accounts", "crm", "c1")
    await desk.take(crm, group=account("acme"))
    assert known(desk.identity, 1) == [("group_id", "acme"), ("crm", "c1")]
    await desk.take(group=account("other"))
    answer = await desk.take(crm, group=account("other"))
    assert answer.account == 2
    assert refused(answer) == [("c1", "merge_limit_exceeded")]
    assert desk.identity.entities("accounts") == [1, 2]


async def test_an_accounts_id_on_a_call_about_no_account_is_refused(desk: Desk) -> None:
    answer = await desk.take(*users("u:ann"), ExternalId("accounts", "crm", "c1"))
    assert refused(answer) == [("c1", "no_matching_identifiers")]


async def test_a_blocked_group_leaves_the_profile_and_a_blocked_user_the_account(desk: Desk) -> None:
    answer = await desk.take(*users("u:ann"), group=account("null"))
    assert (answer.profile, answer.account, refused(answer)) == (1, 0, [("null", "value_blocked")])
    answer = await desk.take(*users("u:-1"), group=account("acme"))
    assert (answer.profile, answer.account) == (0, 2)


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_an_event_whose_ids_are_all_blocked_is_refused_and_leaves_nothing(desk: Desk) -> None:
    answer = await desk.take(*users("u:-1", "a:anonymous"))
    assert (answer.refusal, answer.profile, answer.facts) == ("value_blocked", 0, ())
    assert "user_id '-1' (value_blocked)" in answer.message
    assert desk.identity.entity_count == 0
    assert (await desk.take(group=account("null"))).refusal == "value_blocked"


@pytest.mark.parametrize("value", ["-1", "null", "00-0"])
async def test_a_blocked_id_alone_is_refused_also_where_nobody_has_it(desk: Desk, value: str) -> None:
    answer = await desk.take(*users(f"u:{value}"))
    assert (answer.profile, answer.refusal, answer.facts) == (0, "value_blocked", ())
    assert desk.identity.entity_count == 0


async def test_an_id_of_ten_thousand_characters_alone_is_refused(desk: Desk) -> None:
    too_long = ExternalId("users", "user_id", "u" * 100, refusal="value_blocked")
    assert (await desk.take(too_long)).refusal == "value_blocked"
    assert (await desk.take(too_long, *users("a:1"))).profile == 1
    await desk.take(*users("u:" + "u" * 100))
    assert (await desk.take(too_long, *users("a:1"))).profile == 1  # its head is somebody else's id, and no match


async def test_blocked_patterns_count_from_when_they_are_set(desk: Desk) -> None:
    await desk.take(*users("u:test-1", "a:1"))
    await desk.set_rules(blockedIds=[{"regex": "^test"}])
    answer = await desk.take(*users("u:test-1"))
    assert answer.refusal == "value_blocked"
    assert (await desk.take(*users("u:test-1", "a:1"))).profile == 1
    assert desk.identity.find("user_id", "test-1") == 1  # still on the profile


async def test_a_limit_of_nought_makes_a_type_identify_nobody(desk: Desk) -> None:
    await desk.set_rules(idLimits={"ios.id": 0})
    assert (await desk.take(*users("ios.id:d"))).refusal == "no_matching_identifiers"
    assert refused(await desk.take(*users("a:1", "ios.id:d"))) == [("d", "value_limit_exceeded")]


async def test_a_limit_per_week_lets_the_next_value_in_when_the_week_is_over(desk: Desk) -> None:
    await desk.set_rules(idLimits={"email": {"count": 1, "period": "weekly"}})
    await desk.take(*users("u:ann", "e:1@x.com"), event_ms=0)
    #                          [1@----------7 d)   the week looks back from the event
    early = await desk.take(*users("u:ann", "e:2@x.com"), event_ms=7 * DAY_MS - 1)
    assert refused(early) == [("2@x.com", "value_time_limit_exceeded")]
    assert desk.identity.find("email", "2@x.com") is None
    assert refused(await desk.take(*users("u:ann", "e:2@x.com"), event_ms=7 * DAY_MS)) == []
    assert desk.identity.find("email", "2@x.com") == 1


async def test_a_merge_beyond_the_limit_is_refused(desk: Desk) -> None:
    await desk.set_rules(maxMerges=1)
    for one in ("a:1", "a:2", "a:3"):
        await desk.take(*users(one))
    assert (await desk.take(*users("a:1", "a:2"))).profile == 1
    answer = await desk.take(*users("a:1", "a:3"))
    assert (answer.profile, refused(answer)) == (1, [("3", "merge_limit_exceeded")])


async def test_ids_beyond_the_limit_of_a_profile_are_refused(desk: Desk) -> None:
    await desk.set_rules(maxIds=2)
    answer = await desk.take(*users("u:ann", "e:x@y.z", "a:1"))
    assert (known(desk.identity, 1), refused(answer)) == (
        [("user_id", "ann"), ("email", "x@y.z")],
        [("1", "id_limit_exceeded")],
    )


async def test_the_lowest_of_the_priorities_is_left_out(desk: Desk) -> None:
    await desk.set_rules(idPriority=["anonymous_id"], maxIds=1)
    assert [value for value, _ in refused(await desk.take(*users("u:ann", "e:x@y.z", "a:1")))] == ["ann", "x@y.z"]


async def test_a_stricter_limit_does_not_lock_a_profile_that_is_over_it_already(desk: Desk) -> None:
    await desk.take(*users("u:ann", "e:1@x.com", "e:2@x.com"))
    await desk.set_rules(idLimits={"email": 1})
    assert refused(await desk.take(*users("u:ann", "a:1"))) == []
    assert refused(await desk.take(*users("u:ann", "e:3@x.com"))) == [("3@x.com", "value_limit_exceeded")]


def test_the_refusals_have_the_six_names_of_the_contract() -> None:
    assert set(REFUSAL_CODES) == {
        "value_blocked",
        "value_limit_exceeded",
        "value_time_limit_exceeded",
        "merge_limit_exceeded",
        "id_limit_exceeded",
        "no_matching_identifiers",
    }


async def test_a_device_shared_by_a_crowd_does_not_merge_it() -> None:
    """Each user stays alone, and the last costs as little as the first: no list grows with the crowd."""
    identity = Identity(suppression_key=KEY)
    for number in range(1, 50_001):
        ids = users(f"u:{number}", "ios.id:shared")
        answer = identity.resolve(ids, event_ms=number, cause_seq=number)
        assert answer.profile == number
        assert len(answer.facts) == 2
    assert [(one.id_type, one.value) for one in identity.ids(1)] == [("user_id", "1"), ("ios.id", "shared")]
    assert len(identity.refusals(1)) == 0


# -- erasure and suppression -------------------------------------------------------------------------------------------


async def test_an_erased_profile_is_nobody_its_ids_are_free_and_its_numbers_are_not(desk: Desk) -> None:
    await desk.take(*users("u:ann"))
    await desk.take(*users("a:1"))
    await desk.take(*users("u:ann", "a:1", "e:null"))
    await desk.store()
    await desk.record(Erased(2))
    assert (desk.identity.ids(1), desk.identity.refusals(1), desk.identity.id_types(1)) == ((), (), frozenset())
    assert (desk.identity.find("user_id", "ann"), desk.identity.collection(1)) == (None, None)
    assert desk.identity.entities("users") == []
    assert desk.identity.as_of(1).ids(1) == ()
    assert (await desk.take(*users("u:ann"))).profile == 3
    await desk.store()
    desk.die_and_start()
    assert (desk.identity.find("user_id", "ann"), desk.identity.canonical(2)) == (3, 1)


def without_value(fact: AnyFact, gone: set[int]) -> AnyFact:
    """Return what is left of a fact in the log when entities are erased."""
    if isinstance(fact, IdAdded | IdSeenEarlier | IdRefused) and fact.entity in gone:
        return replace(fact, value="")
    return fact


async def test_a_log_without_the_erased_values_folds_to_the_same_state(desk: Desk) -> None:
    await desk.take(*users("u:ann"))
    await desk.take(*users("a:1"))
    await desk.take(*users("u:bob", "a:null"))
    await desk.take(*users("u:ann", "a:1", "a:null"), event_ms=-5)
    gone = {1, *desk.identity.absorbed_by(1)}
    await desk.record(Erased(1))
    facts = [without_value(fact, gone) for commit in desk.log.read() for fact in commit.facts]
    assert not any(getattr(fact, "value", "") in {"ann", "1"} for fact in facts)
    assert any(getattr(fact, "value", "") == "bob" for fact in facts)
    folded = Identity(suppression_key=KEY)
    for fact in facts:
        folded.apply(fact)
    assert folded.digest() == desk.identity.digest()


async def test_a_suppressed_user_id_is_known_by_its_hash_alone_until_it_is_released(desk: Desk) -> None:
    hashed = desk.identity.suppression_hash("ann")
    assert not desk.identity.is_suppressed("ann")
    await desk.record(Suppressed(hashed, "reg_1"), Suppressed(desk.identity.suppression_hash("bob"), "reg_1"))
    await desk.store()
    desk.die_and_start()
    assert desk.identity.suppressed_id(users("a:ann", "u:ann")) == "ann"
    assert desk.identity.suppressed_id(users("a:ann", "u:eve")) is None
    await desk.record(Unsuppressed(hashed))
    await desk.store()
    desk.die_and_start()
    assert not desk.identity.is_suppressed("ann")
    assert desk.identity.suppressed() == {desk.identity.suppression_hash("bob"): "reg_1"}
    assert Identity(suppression_key=b"another space").suppression_hash("ann") != hashed


# -- storing -----------------------------------------------------------------------------------------------------------


async def test_what_is_not_stored_is_folded_from_the_tail_of_the_log(desk: Desk) -> None:
    await desk.take(*users("u:ann"))
    await desk.store()
    await desk.take(*users("u:bob"))
    assert desk.identity.cursor_seq == 2
    digest = desk.identity.digest()
    desk.die_and_start()
    assert (desk.identity.cursor_seq, desk.identity.digest()) == (2, digest)


async def test_nothing_is_handed_out_twice_nor_when_there_is_nothing(desk: Desk) -> None:
    await desk.take(*users("u:ann"))
    changes = desk.identity.pending_changes(2)
    assert changes is not None
    assert desk.identity.pending_changes(2) is None
    await desk.log.store([changes])
    desk.identity.stored(changes)
    assert desk.identity.unsaved_rows == 0
    assert desk.identity.pending_changes(2) is None


async def test_changes_are_not_handed_out_with_a_cursor_before_what_was_decided(desk: Desk) -> None:
    await desk.take(*users("u:ann"))
    desk.identity.resolve(users("u:bob"), event_ms=0, cause_seq=3)
    with pytest.raises(AssertionError):
        desk.identity.pending_changes(2)


async def test_tables_of_another_version_are_emptied_and_folded_anew(desk: Desk) -> None:
    await desk.take(*users("u:ann", "e:x@y.z"))
    await desk.record(Suppressed("h"))
    await desk.store()
    digest = desk.identity.digest()
    header: Any = msgpack.encode(Header(STATE_VERSION + 1, 77, {}))
    await desk.log.store([Changes(PROJECTION, desk.log.last_seq, puts=((META, [((PROJECTION,), header)]),))])
    desk.die_and_start()
    assert (desk.identity.cursor_seq, desk.identity.digest()) == (0, digest)
    await desk.store()
    desk.die_and_start()
    assert (desk.identity.cursor_seq, desk.identity.digest()) == (desk.log.last_seq, digest)


async def test_many_entities_are_listed_in_pages_in_order(log: Log) -> None:
    desk = Desk(log, cached_max=1000)
    await desk.take_batch([(users(f"u:{number}"), None, 0) for number in range(1, 2501)])
    await desk.store()
    await desk.take_batch([(users(f"u:{number}", "e:x"), None, 0) for number in range(2500, 2503)])
    identity = desk.identity
    assert identity.entities("users") == list(range(1, 2503))
    assert identity.entities("users", after=999, limit=3) == [1000, 1001, 1002]
    assert list(identity.canonical_map()) == list(range(2503))


class _CountingLog(MemoryLog):
    """A log that counts the ids it is asked for."""

    asked = 0

    def get(self, table: Table, key: Key) -> bytes | None:
        self.asked += table is IDS
        return super().get(table, key)

    def get_many(self, table: Table, keys: Sequence[Key]) -> dict[Key, bytes]:
        self.asked += len(keys) if table is IDS else 0
        return super().get_many(table, keys)


async def test_a_space_that_began_here_looks_up_stored_ids_and_not_new_ones() -> None:
    log = _CountingLog()
    desk = Desk(log)
    first = [await desk.take(ExternalId("users", "user_id", f"u{number}")) for number in range(200)]
    await desk.store()
    log.asked = 0
    again = [await desk.take(ExternalId("users", "user_id", f"u{number}")) for number in range(200)]
    assert [one.profile for one in again] == [one.profile for one in first]
    assert log.asked > 150  # the caches hold two
    log.asked = 0
    for number in range(200, 400):
        await desk.take(ExternalId("users", "user_id", f"u{number}"))
    assert log.asked < 10  # but for a likeness of hashes, one in twenty thousand
    later = Desk(log)
    assert (await later.take(ExternalId("users", "user_id", "u7"))).profile == first[7].profile
