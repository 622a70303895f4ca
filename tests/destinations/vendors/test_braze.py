"""The braze destination against a server that keeps Braze's rules."""

from collections.abc import Mapping
from typing import Any

from actors.delivery import IdSync
from tests.destinations.stage import HOUR_MS, SECOND_MS, phoned, track
from tests.destinations.vendors.braze import KEY, Braze
from tests.destinations.vendors.service import Window
from tests.destinations.vendors.wired import RECENT, at_most, obeyed, wired


def settings(vendor: Braze) -> Mapping[str, Any]:
    return {"endpoint": vendor.url, "apiKey": KEY}


async def test_braze_knows_who_is_in_by_an_attribute_and_who_came_and_left_by_events() -> None:
    async with wired(Braze, "braze", settings) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["ann", "bob"])
        assert it.vendor.users["ann"] == {"external_id": "ann", "email": "ann@x.org", "recent": True}
        await it.stage.until(HOUR_MS)
        assert {user: kept["recent"] for user, kept in it.vendor.users.items()} == {"ann": False, "bob": False}
        told = sorted((user, name) for user, name, _ in it.vendor.events)
        assert told == [(user, f"Audience {how}") for user in ("ann", "bob") for how in ("Entered", "Exited")]
        assert it.dead() == []


async def test_braze_knows_people_by_their_phone_where_nothing_else_says_who_they_are() -> None:
    async with wired(Braze, "braze", settings) as it:
        await it.audience("Buyers", id_sync=(IdSync("email"), IdSync("phone")))
        await it.stage.send(phoned("ann", "+44 844 412 4653"), step=False)
        await it.stage.send(phoned("bob", "+44 844 412 4654", email="bob@x.org"))
        await it.stage.until(10 * SECOND_MS)
        assert {user: kept["buyers"] for user, kept in it.vendor.users.items()} == {
            "+448444124653": True,
            "bob@x.org": True,
        }
        assert sorted(user for user, _, _ in it.vendor.events) == ["+448444124653", "bob@x.org"]
        assert it.dead() == []


async def test_braze_gets_full_batches_and_never_too_large_ones_however_many_enter() -> None:
    async with wired(Braze, "braze", settings) as it:
        await it.audience("Buyers")
        await it.buy(f"u{n}" for n in range(400))
        await it.stage.until(10 * SECOND_MS)
        assert it.vendor.paths() == it.vendor.paths(201)
        assert len(it.vendor.seen) <= 2 * 400 // 75 + 2
        assert len(it.vendor.users) == len(it.vendor.events) == 400
        assert it.dead() == []


async def test_an_object_that_braze_leaves_out_is_a_dead_letter_and_its_batch_is_taken() -> None:
    async with wired(Braze, "braze", settings) as it:
        await it.audience("Buyers")
        await it.buy(["ann", "bob"], step=False)
        await it.stage.send({"type": "identify", "userId": "odd", "traits": {"email": "nonsense"}}, step=False)
        await it.stage.send(track("odd", "Bought"))
        await it.stage.until(10 * SECOND_MS)
        assert [(who, "email" in why) for who, why in it.dead()] == [("odd", True)]
        assert it.vendor.users.keys() == {"ann", "bob"}
        assert sorted(user for user, _, _ in it.vendor.events) == ["ann", "bob", "odd"]


async def test_a_429_of_braze_holds_until_its_window_resets_and_nothing_is_lost() -> None:
    async with wired(Braze, "braze", settings) as it:
        it.vendor.window = Window(2, 60 * SECOND_MS)  # others in the workspace have used up the rest
        await it.audience("Buyers", sendTrack=False)
        for start in range(0, 300, 75):
            await it.buy(f"u{n}" for n in range(start, start + 75))
        assert it.status.held_until_ms - it.stage.clock.now_ms() == 60 * SECOND_MS
        await it.stage.until(300 * SECOND_MS)
        assert len(it.vendor.users) == 300
        assert obeyed(it.vendor, 60 * SECOND_MS) == 1
        assert it.dead() == []


async def test_the_limit_of_braze_is_kept_at_full_speed() -> None:
    async with wired(Braze, "braze", settings) as it:
        for name in range(6):
            await it.audience(f"Buyers {name}")
        await it.buy(f"u{n}" for n in range(100))
        await it.stage.until(10 * SECOND_MS)
        at_most((asked.at_ms for asked, _ in it.vendor.seen), 3_000, 3_000)
        assert it.vendor.paths(429) == []


async def test_a_key_that_braze_does_not_know_makes_dead_letters_and_a_new_one_sends_them() -> None:
    async with wired(Braze, "braze", settings) as it:
        await it.stage.destinations.update_destination(
            it.destination, settings={**settings(it.vendor), "apiKey": "old"}
        )
        await it.audience("Buyers", sendTrack=False)
        await it.buy(["ann", "bob"])
        assert {why.partition(":")[0] for _, why in it.dead()} == {"answered 401"}
        assert (await it.stage.deliveries.ping(it.destination)).status == 401
        await it.stage.destinations.update_destination(it.destination, settings=settings(it.vendor))
        assert (await it.stage.deliveries.ping(it.destination)).how == "delivered"
        assert await it.stage.deliveries.resend(it.destination) == 2
        await it.stage.step()
        assert it.vendor.users.keys() == {"ann", "bob"}


async def test_a_batch_whose_answer_was_lost_is_sent_again_with_the_message_ids_it_had() -> None:
    async with wired(Braze, "braze", settings) as it:
        it.vendor.lost = 1
        await it.audience("Buyers")
        await it.buy(["ann", "bob"])
        await it.stage.until(10 * SECOND_MS)
        (first, _), (second, _) = it.vendor.seen[:2]
        assert first.body == second.body
        assert len({message_id for _, _, message_id in it.vendor.events}) == 2
        assert (it.status.delivered, it.dead()) == (4, [])


async def test_an_outage_of_braze_is_waited_out() -> None:
    async with wired(Braze, "braze", settings) as it:
        it.vendor.down = 7
        await it.audience("Buyers")
        await it.buy(f"u{n}" for n in range(10))
        await it.stage.until(HOUR_MS)
        assert len(it.vendor.events) == 10
        assert it.dead() == []
