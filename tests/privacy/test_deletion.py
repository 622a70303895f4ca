"""Who is deleted is gone: from members, from questions, from the log, from every byte of its files, for good."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from eventlog.entries import ERASED, AccountsErased, Erased, Exited, IdAdded, Rejected, TraitComputed
from eventlog.errors import ConflictError, InvalidError
from tests.destinations.stage import DAY_MS, HOUR_MS, answer, group, identify, track
from tests.privacy.room import Room, folded_anew, room, sliced

ANN = (
    *("ann-7f3a", "ann.lee@example.com", "device-of-ann", "Zanzibar-Road", "gift-card-4711", "coupon-ANN"),
    "loyalty-of-ann",
)
CHANCE = Random(5)  # noqa: S311 - text that does not repeat itself
BUYERS = "event('Order Completed').count() >= 1"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Room]:
    async with room(tmp_path) as opened:
        yield opened


async def peopled(here: Room) -> None:
    """Two people who buy, one of whom is to be deleted: she was two profiles before, and left traces all over."""
    for user in ("ann-7f3a", "bob"):
        await here.send(identify(user, email=f"{user}@x.com"))
    await here.send(
        {"type": "track", "anonymousId": "device-of-ann", "event": "Viewed", "properties": {"q": "gift-card-4711"}},
        {
            "type": "identify",
            "userId": "ann-7f3a",
            "anonymousId": "device-of-ann",
            "traits": {"street": "Zanzibar-Road"},
        },
        identify("ann-7f3a", email="Ann.Lee@example.com"),
        track("ann-7f3a", "Order Completed", properties={"total": 10, "coupon": "coupon-ANN"}),
        track("bob", "Order Completed", properties={"total": 20, "coupon": "coupon-BOB"}),
        group("ann-7f3a", "acme", traits={"plan": "pro", "owner": "Ann Lee <ann.lee@example.com>"}),
        group("bob", "acme", traits={"seats": 5}),
        {"type": "alias", "userId": "ann-7f3a", "previousId": "another-anonymous"},
        {  # too long to identify: its head is kept among the refused ids of her profile
            "type": "page",
            "userId": "ann-7f3a",
            "context": {"externalIds": [{"type": "loyalty", "id": "loyalty-of-ann" + 1000 * "x"}]},
        },
    )
    await here.refuse({"type": "track", "userId": "ann-7f3a", "event": "", "properties": {"street": "Zanzibar-Road"}})
    await here.refuse({"type": "track", "userId": "bob", "event": ""})


def random_text(size: int) -> str:
    return "".join(CHANCE.choices("0123456789abcdef", k=size))


# -- one deletion, looked at from all sides --------------------------------------------------------------------------


async def test_nothing_of_a_deleted_person_is_left_in_any_byte_of_the_files(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    await here.audience("Big accounts", "event('Order Completed').count() >= 2", entity_type="ACCOUNTS")
    await here.trait("Last coupon", "event('Order Completed').last(property('coupon'))")
    await here.space.create_definition(
        kind="trait",
        name="Coupons",
        entity_type="ACCOUNTS",
        query="event('Order Completed').unique(property('coupon'))",
    )
    await here.space.backfilled()
    await peopled(here)
    await here.until(HOUR_MS)
    await here.restart()  # so that all tables hold what they hold
    ann = here.space.find("users", "user_id", "ann-7f3a")
    assert ann is not None
    assert here.holders(*ANN) >= {
        "entry Event",
        "entry IdAdded",
        "entry IdRefused",
        "entry Rejected",
        "entry TraitComputed",
        "table ids",
        "table states",
    }

    said = await here.regulated("ann-7f3a")

    assert (said["status"], said["type"], said["subjects"], said["destinations"]) == ("FINISHED", "DELETE_ONLY", 1, [])
    for restarted in (False, True):
        if restarted:
            await here.restart()
        assert here.holders(*ANN) == set()
        assert here.space.find("users", "user_id", "ann-7f3a") is None
        assert here.space.events.seqs_of([ann, *here.space.identity.absorbed_by(ann)]) == []  # nor in the index
        assert here.space.find("users", "email", "ann.lee@example.com") is None
        assert [here.space.name_of(one) for one, _ in await here.space.members("buyers")] == ["bob"]
        bob = here.space.find("users", "user_id", "bob")
        assert bob is not None
        assert [event["type"] for event in await here.space.events_of(bob)] == ["identify", "track", "group"]


async def test_the_compressed_bytes_of_erased_events_are_gone_from_the_files(here: Room) -> None:
    batch = [track("ann-7f3a", "Order Completed", properties={"secret": random_text(400)})]
    batch += [track(f"user-{n}", "Order Completed", properties={"other": random_text(40)}) for n in range(200)]
    await here.batch(*batch)
    ann = here.space.find("users", "user_id", "ann-7f3a")
    assert ann is not None
    [before] = here.bodies({ann})
    assert all(here.files_with([one]) for one in sliced(before))
    await here.regulated("ann-7f3a")
    for restarted in (False, True):
        if restarted:
            await here.restart()
        # What is left of the others may be compressed to the same bytes here and there.
        old = [one for one in sliced(before) if not any(one in after for after in here.bodies())]
        assert len(old) > 100
        assert [one for one in old if here.files_with([one])] == []
        assert len([event for event in here.events() if event.kind != ERASED]) == 200


async def test_an_account_no_longer_counts_a_deleted_person_and_keeps_what_is_its_own(here: Room) -> None:
    await here.audience("Big accounts", "event('Order Completed').count() >= 2", entity_type="ACCOUNTS")
    await here.audience(
        "Any big spender",
        "ANY (event('Order Completed').sum(property('total')) <= 10 AND event('Order Completed').count() >= 1)",
        entity_type="ACCOUNTS",
    )
    await here.audience("Colleagues", "audience('big_accounts')", filter_by_external_ids=("user_id",))
    await here.space.create_definition(
        kind="trait",
        name="Coupons",
        entity_type="ACCOUNTS",
        query="event('Order Completed').unique(property('coupon'))",
    )
    await here.space.backfilled()
    await peopled(here)
    acme = here.space.find("accounts", "group_id", "acme")
    assert acme is not None
    assert [one for one, _ in await here.space.members("big_accounts")] == [acme]
    assert len(await here.space.members("colleagues")) == 2

    await here.regulated("ann-7f3a")

    for restarted in (False, True):
        if restarted:
            await here.restart()
        assert await here.space.members("big_accounts") == []
        assert await here.space.members("any_big_spender") == []
        assert await here.space.members("colleagues") == []
        assert [here.space.name_of(one) for one in await here.space.users_of(acme)] == ["bob"]
        traits = {row.key: row.value for row in await here.space.traits_of(acme)}
        assert traits == {
            "plan": "pro",
            "seats": 5,
            "big_accounts": False,
            "any_big_spender": False,
            "coupons": ["coupon-BOB"],
        }


async def test_the_log_folded_anew_brings_nobody_back_and_agrees_with_what_stands(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    await here.audience("Quiet", "NOT event('Viewed').count() >= 1", filter_by_external_ids=("anonymous_id", "user_id"))
    await here.audience("Recent", "event('Order Completed').within(2 days).count() >= 1")
    await here.audience("Big accounts", "event('Order Completed').count() >= 2", entity_type="ACCOUNTS")
    await peopled(here)
    await here.until(HOUR_MS)
    await here.regulated("ann-7f3a")
    await here.send(track("cay", "Order Completed"), track("bob", "Viewed"))
    await here.until(3 * DAY_MS)
    live, digest = here.space, here.space.identity.digest()
    async with folded_anew(here) as anew:
        assert anew.identity.digest() == live.identity.digest()
        for key in ("buyers", "quiet", "recent", "big_accounts"):
            assert await anew.members(key) == await live.members(key), key
        assert {n: e.traits for n, e in anew.partition.entities.items()} == {
            n: e.traits for n, e in live.partition.entities.items()
        }
    await here.restart()
    assert here.space.identity.digest() == digest


async def test_ids_of_a_deleted_person_are_free_and_make_another_profile(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    await peopled(here)
    before = here.space.find("users", "user_id", "ann-7f3a")
    await here.regulated("ann-7f3a")
    await here.send(identify("ann-7f3a"))
    after = here.space.find("users", "user_id", "ann-7f3a")
    assert after is not None
    assert after != before
    assert len(await here.space.events_of(after)) == 1
    assert [here.space.name_of(one) for one, _ in await here.space.members("buyers")] == ["bob"]


async def test_what_is_kept_of_a_deletion_is_numbers(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    await peopled(here)
    ann = here.space.find("users", "user_id", "ann-7f3a")
    assert ann is not None
    await here.regulated("ann-7f3a")
    facts = here.facts()
    assert [fact for fact in facts if isinstance(fact, Erased)] == [Erased(ann, "reg_1")]
    assert [fact.accounts for fact in facts if isinstance(fact, AccountsErased)] == [
        (here.space.find("accounts", "group_id", "acme"),)
    ]
    assert [fact.entity for fact in facts if isinstance(fact, Exited)] == [ann]
    assert {fact.value for fact in facts if isinstance(fact, IdAdded) and fact.entity == ann} == {""}
    bodies = [fact.body for fact in facts if isinstance(fact, Rejected)]
    assert bodies[0] == b""
    assert b"bob" in bodies[1]
    erased = [event for event in here.events() if event.kind == ERASED]
    assert {(event.profile, event.message_id, event.body, event.name, event.source) for event in erased} == {
        (0, "", b"", "", "")
    }


async def test_only_the_last_value_of_an_account_s_trait_is_kept(here: Room) -> None:
    await here.space.create_definition(
        kind="trait",
        name="Coupons",
        entity_type="ACCOUNTS",
        query="event('Order Completed').unique(property('coupon'))",
    )
    await here.space.backfilled()
    await peopled(here)
    await here.send(track("bob", "Order Completed", properties={"coupon": "coupon-NEW"}))
    await here.regulated("ann-7f3a")
    acme = here.space.find("accounts", "group_id", "acme")
    values = [fact.value for fact in here.facts() if isinstance(fact, TraitComputed) and fact.entity == acme]
    assert values[-1] == ["coupon-BOB", "coupon-NEW"]
    assert {str(value) for value in values[:-1]} == {"None"}


async def test_an_id_that_was_refused_on_another_profile_is_forgotten_there(here: Room) -> None:
    await here.send(identify("ann-7f3a", email="ann.lee@example.com"), identify("bob"))
    shared = {
        "type": "track",
        "userId": "bob",
        "event": "Viewed",
        "context": {"traits": {"email": "ann.lee@example.com"}},
    }
    await here.send(shared)
    bob = here.space.find("users", "user_id", "bob")
    assert bob is not None
    assert [one.value for one in here.space.identity.refusals(bob)] == ["ann.lee@example.com"]
    await here.regulated("ann-7f3a")
    assert here.space.identity.refusals(bob) == ()
    async with folded_anew(here) as anew:
        assert anew.identity.digest() == here.space.identity.digest()
    await here.restart()
    assert here.space.identity.refusals(bob) == ()


# -- suppression -----------------------------------------------------------------------------------------------------


async def test_a_suppressed_person_is_refused_at_the_door_and_counted(here: Room) -> None:
    said = await here.regulated("ann-7f3a", kind="SUPPRESS_ONLY")
    assert said["status"] == "FINISHED"
    assert len(here.space.suppressed()) == 1
    for restarted in (False, True):
        if restarted:
            await here.restart()
        with pytest.raises(AssertionError, match="suppressed"):
            await here.send(track("ann-7f3a", "Order Completed", properties={"coupon": "coupon-ANN"}))
    await here.send(track("bob", "Order Completed"))
    refused = [refusal for _, _, refusal in here.space.rejected()]
    assert [(one.code, one.body, one.message_id) for one in refused] == [("suppressed", b"", "")] * 2
    assert here.holders("ann-7f3a", "coupon-ANN") == set()


async def test_suppressing_does_not_delete_and_letting_in_takes_events_again(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    await peopled(here)
    await here.regulated("ann-7f3a", kind="SUPPRESS_ONLY", name="reg_1")
    assert len(await here.space.members("buyers")) == 2
    await here.regulated("ann-7f3a", "never-seen", kind="UNSUPPRESS", name="reg_2")
    assert here.space.suppressed() == []
    await here.send(track("ann-7f3a", "Viewed"))
    assert [one["id"] for one in here.space.regulations()] == ["reg_1", "reg_2"]


async def test_deleting_and_suppressing_does_both(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    await peopled(here)
    await here.regulated("ann-7f3a", "nobody", kind="SUPPRESS_WITH_DELETE")
    assert len(here.space.suppressed()) == 2
    assert here.holders(*ANN) == set()
    with pytest.raises(AssertionError, match="suppressed"):
        await here.send(track("ann-7f3a", "Order Completed"))
    assert here.space.find("users", "user_id", "ann-7f3a") is None


async def test_who_was_never_seen_can_be_deleted(here: Room) -> None:
    await here.refuse({"type": "track", "userId": "ann-7f3a"})
    said = await here.regulated("ann-7f3a")
    assert said["status"] == "FINISHED"
    assert here.holders("ann-7f3a") == set()


async def test_a_regulation_that_makes_no_sense_is_refused(here: Room) -> None:
    with pytest.raises(InvalidError, match="expected SUPPRESS_WITH_DELETE or"):
        await here.space.regulate("reg_1", "DELETE", ["ann"])
    with pytest.raises(InvalidError, match="1 to 5000 ids"):
        await here.space.regulate("reg_1", "DELETE_ONLY", [])
    with pytest.raises(InvalidError, match="1 to 5000 ids"):
        await here.space.regulate("reg_1", "DELETE_ONLY", [f"u{n}" for n in range(5_001)])
    await here.space.regulate("reg_1", "SUPPRESS_ONLY", ["ann"])
    with pytest.raises(ConflictError, match="reg_1"):
        await here.space.regulate("reg_1", "SUPPRESS_ONLY", ["ann"])


# -- destinations ----------------------------------------------------------------------------------------------------


async def connected(here: Room) -> str:
    """People in an audience that a webhook was told of."""
    buyers = await here.audience("Buyers", BUYERS)
    crm = await here.webhook()
    await here.connect(buyers, crm)
    await peopled(here)
    await here.until(HOUR_MS)
    return crm


def exits(here: Room) -> list[tuple[str | None, str]]:
    return [(user, event) for user, event in here.receiver.taken() if event == "Audience Exited"]


async def test_destinations_are_told_to_withdraw_and_then_nothing_is_kept_of_it(here: Room) -> None:
    crm = await connected(here)
    said = await here.regulated("ann-7f3a")
    assert exits(here) == [("ann-7f3a", "Audience Exited")]
    assert [(one["id"], one["status"]) for one in said["destinations"]] == [(crm, "FINISHED")]
    assert said["status"] == "FINISHED"
    assert here.holders(*ANN) == set()
    await here.restart()
    assert here.holders(*ANN) == set()
    assert exits(here) == [("ann-7f3a", "Audience Exited")]


@pytest.mark.parametrize("kind", ["DELETE_INTERNAL", "SUPPRESS_WITH_DELETE_INTERNAL"])
async def test_an_internal_deletion_leaves_destinations_alone(here: Room, kind: str) -> None:
    await connected(here)
    said = await here.regulated("ann-7f3a", kind=kind)
    assert said["status"] == "FINISHED"
    assert exits(here) == []
    assert here.holders(*ANN) == set()


async def test_a_deletion_is_not_finished_before_a_destination_is(here: Room) -> None:
    crm = await connected(here)
    here.receiver.rule = lambda *_: answer(503)
    await here.space.regulate("reg_1", "DELETE_ONLY", ["ann-7f3a"], actor="tok_1")
    for _ in range(5):
        await here.step()
        here.space.regulating.look()
        await here.space.regulating.moved()
    said = here.regulation()
    assert (said["status"], [one["status"] for one in said["destinations"]]) == ("RUNNING", ["RUNNING"])
    assert "entry Event" not in here.holders(*ANN)
    await here.restart()
    here.receiver.rule = None
    await here.until(2 * HOUR_MS)
    await here.over()
    assert exits(here) == [("ann-7f3a", "Audience Exited")]
    assert here.regulation()["status"] == "FINISHED"
    assert here.regulation()["destinations"][0]["id"] == crm
    assert here.holders(*ANN) == set()


async def test_a_destination_that_refuses_to_withdraw_is_told_of(here: Room) -> None:
    await connected(here)
    here.receiver.rule = lambda *_: answer(400)
    said = await here.regulated("ann-7f3a")
    assert said["status"] == "PARTIAL_SUCCESS"
    [destination] = said["destinations"]
    assert destination["status"] == "FAILED"
    assert "400" in destination["error"]
    assert here.holders(*ANN) == set()


async def test_a_destination_that_is_off_forgets_and_is_said_not_to_have_been_told(here: Room) -> None:
    crm = await connected(here)
    await here.destinations.update_destination(crm, enabled=False)
    await here.step()
    said = await here.regulated("ann-7f3a")
    assert said["status"] == "PARTIAL_SUCCESS"
    assert "it is off" in said["destinations"][0]["error"]
    assert here.holders(*ANN) == set()
    await here.restart()
    await here.destinations.update_destination(crm, enabled=True)
    await here.send(track("cay", "Order Completed"))
    await here.until(2 * HOUR_MS)
    assert ("cay", "Audience Entered") in here.receiver.taken()
    assert exits(here) == []
    assert here.holders(*ANN) == set()


async def test_dead_letters_of_a_deleted_person_are_gone(here: Room) -> None:
    here.receiver.rule = lambda *_: answer(400)
    crm = await connected(here)
    assert here.deliveries.status(crm).dead == 4
    here.receiver.rule = None
    await here.regulated("ann-7f3a")
    assert here.deliveries.status(crm).dead == 2
    assert here.holders(*ANN) == set()


# -- many, and together with others ----------------------------------------------------------------------------------


async def test_many_are_deleted_at_once_and_the_others_stay(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    people: list[dict[str, Any]] = [track(f"user-{n:04}", "Order Completed") for n in range(450)]
    await here.send(*people, *(group(f"user-{n:04}", "acme") for n in range(0, 450, 3)), step=False)
    gone = [f"user-{n:04}" for n in range(450) if n % 9]
    said = await here.regulated(*gone)
    assert said["profiles"] == len(gone)
    assert len(await here.space.members("buyers")) == 50
    assert here.holders(*gone) == set()
    acme = here.space.find("accounts", "group_id", "acme")
    assert acme is not None
    assert len(await here.space.users_of(acme)) == 50
    async with folded_anew(here) as anew:
        assert anew.identity.digest() == here.space.identity.digest()
        assert await anew.members("buyers") == await here.space.members("buyers")


async def test_events_that_come_while_people_are_deleted_are_all_there(here: Room) -> None:
    await here.audience("Buyers", BUYERS)
    await peopled(here)
    await here.space.regulate("reg_1", "DELETE_ONLY", ["ann-7f3a"])
    for n in range(50):
        await here.send(track(f"new-{n}", "Order Completed"), step=False)
    await here.over()
    assert len(await here.space.members("buyers")) == 51
    await here.restart()
    assert len(await here.space.members("buyers")) == 51
