"""The customerio destination against a server that keeps Customer.io's rules."""

from collections.abc import Mapping
from typing import Any

from tests.destinations.stage import HOUR_MS, SECOND_MS, identify, track
from tests.destinations.vendors.customerio import KEY, SITE, Customerio
from tests.destinations.vendors.service import Window
from tests.destinations.vendors.wired import RECENT, at_most, obeyed, wired


def settings(vendor: Customerio) -> Mapping[str, Any]:
    return {"endpoint": vendor.url, "siteId": SITE, "apiKey": KEY}


async def test_customerio_knows_who_is_in_by_an_attribute_and_who_came_and_left_by_events() -> None:
    async with wired(Customerio, "customerio", settings) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["ann", "bob"])
        assert it.vendor.people["ann"] == {"email": "ann@x.org", "recent": True}
        await it.stage.until(HOUR_MS)
        assert {who: kept["recent"] for who, kept in it.vendor.people.items()} == {"ann": False, "bob": False}
        told = [(user, f"Audience {how}") for user in ("ann", "bob") for how in ("Entered", "Exited")]
        assert sorted(it.vendor.events) == told
        assert it.dead() == []


async def test_a_batch_stays_below_customerios_limit_of_bytes_with_the_largest_items_there_are() -> None:
    async with wired(Customerio, "customerio", settings) as it:
        await it.stage.connect(await it.stage.trait("Note", "event('Noted').last(property('text'))"), it.destination)
        for n in range(40):
            await it.stage.send(track(f"u{n}", "Noted", properties={"text": "x" * 20_000}), step=False)
        await it.buy(["ann"])
        await it.stage.until(60 * SECOND_MS)
        assert it.vendor.paths(413) == []
        assert it.vendor.paths(207) != []  # each refused by itself: the value is too long
        assert {who for who, _ in it.dead()} == {f"u{n}" for n in range(40)}
        assert len(it.vendor.seen) >= 40 * 2 * 20_000 / 500_000


async def test_an_item_that_customerio_refuses_is_a_dead_letter_with_its_words_and_its_batch_is_taken() -> None:
    async with wired(Customerio, "customerio", settings) as it:
        await it.audience("Buyers", sendIdentify=False, enteredEventName="e" * 101)
        await it.audience("Others", sendTrack=False)
        await it.buy(["ann", "bob"])
        assert [(who, "1 to 100 bytes" in why) for who, why in it.dead()] == [("ann", True), ("bob", True)]
        assert it.vendor.people["ann"]["others"] is True
        assert it.vendor.events == []


async def test_the_limit_of_customerio_is_kept_and_a_429_of_it_is_obeyed() -> None:
    async with wired(Customerio, "customerio", settings) as it:
        await it.audience("Buyers")
        await it.buy(f"u{n}" for n in range(600))
        await it.stage.until(30 * SECOND_MS)
        at_most((asked.at_ms for asked, _ in it.vendor.seen), 3_000, 3_000)
        assert it.vendor.paths(429) == []
        assert len(it.vendor.events) == 600
        it.vendor.window = Window(3, 3_000)
        await it.buy(f"v{n}" for n in range(150))
        await it.stage.until(120 * SECOND_MS)
        assert len(it.vendor.events) == 750
        assert obeyed(it.vendor, 800) > 3  # a second, 20 % more or less: Customer.io does not say for how long
        assert it.dead() == []


async def test_credentials_that_customerio_does_not_know_make_dead_letters_that_can_be_sent_later() -> None:
    async with wired(Customerio, "customerio", settings) as it:
        bad = {**settings(it.vendor), "siteId": "other"}
        await it.stage.destinations.update_destination(it.destination, settings=bad)
        await it.audience("Buyers", sendTrack=False)
        await it.buy(["ann"])
        assert [why.partition(":")[0] for _, why in it.dead()] == ["answered 401"]
        await it.stage.destinations.update_destination(it.destination, settings=settings(it.vendor))
        assert (await it.stage.deliveries.ping(it.destination)).how == "delivered"
        await it.stage.deliveries.resend(it.destination)
        await it.stage.step()
        assert it.vendor.people["ann"]["buyers"] is True


async def test_customerio_takes_an_event_once_whose_answer_was_lost() -> None:
    async with wired(Customerio, "customerio", settings) as it:
        it.vendor.lost = 2
        await it.audience("Buyers")
        await it.buy(["ann", "bob"])
        await it.stage.until(10 * SECOND_MS)
        assert len(it.vendor.seen) == 3
        assert sorted(it.vendor.events) == [("ann", "Audience Entered"), ("bob", "Audience Entered")]
        assert (it.status.delivered, it.dead()) == (4, [])


async def test_somebody_without_userid_or_email_has_events_at_customerio_and_no_attributes() -> None:
    async with wired(Customerio, "customerio", settings) as it:
        audience = await it.stage.audience(
            "Buyers", "event('Bought').count() >= 1", filter_by_external_ids=("user_id", "anonymous_id")
        )
        await it.stage.connect(audience, it.destination)
        await it.stage.send({"type": "track", "anonymousId": "a1", "event": "Bought"}, identify("ann"))
        known = {"traits": {"email": "cat@x.org"}}
        await it.stage.send({"type": "track", "anonymousId": "a2", "event": "Bought", "context": known})
        assert it.vendor.events == [("a1", "Audience Entered"), ("cat@x.org", "Audience Entered")]
        assert it.vendor.people == {"cat@x.org": {"email": "cat@x.org", "buyers": True}}
        assert [why for _, why in it.dead()] == ["neither userId nor email"]
