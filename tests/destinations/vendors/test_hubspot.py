"""The hubspot destination against a server that keeps HubSpot's rules."""

from collections.abc import Mapping
from typing import Any

from tests.destinations.stage import HOUR_MS, MINUTE_MS, SECOND_MS, identify, track
from tests.destinations.vendors.hubspot import REQUESTS, TOKEN, WINDOW_MS, Hubspot
from tests.destinations.vendors.service import Window
from tests.destinations.vendors.wired import RECENT, at_most, obeyed, wired

PROPERTY = "/crm/v3/properties/contacts"


def settings(vendor: Hubspot) -> Mapping[str, Any]:
    return {"endpoint": vendor.url, "accessToken": TOKEN}


async def test_hubspot_has_one_property_for_an_audience_that_says_who_is_in() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["ann", "bob"])
        assert it.vendor.contacts["ann@x.org"] == {"email": "ann@x.org", "recent": "true"}
        await it.stage.until(HOUR_MS)
        await it.stage.restart()
        await it.buy(["cat"])
        await it.stage.until(HOUR_MS + 10 * SECOND_MS)
        kept = {email: one["recent"] for email, one in it.vendor.contacts.items()}
        assert kept == {"ann@x.org": "false", "bob@x.org": "false", "cat@x.org": "true"}
        assert it.vendor.paths().count(PROPERTY) == 1
        assert it.dead() == []


async def test_a_property_that_hubspot_has_already_is_used() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        it.vendor.properties["buyers"] = {"type": "enumeration", "values": {"true", "false"}}
        await it.audience("Buyers")
        await it.buy(["ann"])
        assert it.vendor.paths(409) == [PROPERTY]
        assert it.vendor.contacts["ann@x.org"]["buyers"] == "true"


async def test_a_trait_is_a_number_or_a_text_at_hubspot() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        spent = await it.stage.trait("Spent", "event('Bought').sum(property('total'))")
        last = await it.stage.trait("Last", "event('Bought').last(property('item'))")
        for one in (spent, last):
            await it.stage.connect(one, it.destination)
        await it.stage.send(identify("ann", email="ann@x.org"), step=False)
        await it.stage.send(track("ann", "Bought", properties={"total": 4.5, "item": "a hat"}))
        await it.stage.until(SECOND_MS)
        assert it.vendor.contacts["ann@x.org"] == {"email": "ann@x.org", "spent": "4.5", "last": "a hat"}
        assert (it.vendor.properties["spent"]["type"], it.vendor.properties["last"]["type"]) == ("number", "string")


async def test_hubspot_gets_full_batches_and_never_too_large_ones_however_many_enter() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        await it.audience("Buyers")
        await it.buy(f"u{n}" for n in range(350))
        await it.stage.until(30 * SECOND_MS)
        assert len(it.vendor.contacts) == 350
        assert set(it.vendor.paths()) - set(it.vendor.paths(200)) <= {PROPERTY}
        assert len(it.vendor.seen) <= 1 + 4 + 2
        assert it.dead() == []


async def test_no_ten_seconds_hold_more_requests_than_hubspot_allows() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        for name in range(120):
            await it.audience(f"Buyers {name}")
        await it.buy(["ann"])
        await it.stage.until(MINUTE_MS)  # each has its property by now
        await it.buy(["bob"])
        for name in range(10):  # in between some that need two requests
            await it.stage.until(MINUTE_MS + name * SECOND_MS + 900)
            await it.audience(f"More {name}")
        await it.stage.until(3 * MINUTE_MS)
        at_most((asked.at_ms for asked, _ in it.vendor.seen), REQUESTS, WINDOW_MS)
        assert it.vendor.paths(429) == []
        assert {len(one) for one in it.vendor.contacts.values()} == {131}


async def test_a_429_of_hubspot_is_obeyed_and_nothing_is_lost() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        it.vendor.window = Window(5, WINDOW_MS)  # another app of the account takes the rest
        for name in range(12):
            await it.audience(f"Buyers {name}")
        await it.buy(["ann"])
        await it.stage.until(300 * SECOND_MS)
        assert obeyed(it.vendor, 800) > 0
        assert len(it.vendor.contacts["ann@x.org"]) == 13
        assert it.dead() == []


async def test_a_contact_that_hubspot_cannot_write_is_a_dead_letter_and_its_batch_is_taken() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        it.vendor.archived.add("bob@x.org")
        await it.audience("Buyers")
        await it.buy(["ann", "bob", "cat"])
        assert [(who, "cannot be written" in why) for who, why in it.dead()] == [("bob", True)]
        assert it.vendor.contacts.keys() == {"ann@x.org", "cat@x.org"}


async def test_an_email_that_has_hubspot_refuse_a_whole_batch_is_the_only_dead_letter() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        await it.audience("Buyers")
        await it.stage.send(identify("odd", email="nonsense"), track("odd", "Bought"), step=False)
        await it.buy(["ann", "bob"])
        await it.stage.until(30 * SECOND_MS)
        assert [(who, "nonsense is invalid" in why) for who, why in it.dead()] == [("odd", True)]
        assert it.vendor.contacts.keys() == {"ann@x.org", "bob@x.org"}


async def test_a_token_that_hubspot_does_not_know_makes_dead_letters_that_can_be_sent_later() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        bad = {**settings(it.vendor), "accessToken": "pat-na1-old"}
        await it.stage.destinations.update_destination(it.destination, settings=bad)
        await it.audience("Buyers")
        await it.buy(["ann"])
        assert [why.partition(":")[0] for _, why in it.dead()] == ["answered 401"]
        assert "pat-na1-old" not in str(it.dead())
        await it.stage.destinations.update_destination(it.destination, settings=settings(it.vendor))
        await it.stage.deliveries.resend(it.destination)
        await it.stage.until(SECOND_MS)
        assert it.vendor.contacts["ann@x.org"]["buyers"] == "true"


async def test_lost_answers_of_hubspot_make_neither_a_second_property_nor_a_second_contact() -> None:
    async with wired(Hubspot, "hubspot", settings) as it:
        it.vendor.lost = 2
        await it.audience("Buyers")
        await it.buy(["ann", "bob"])
        await it.stage.until(30 * SECOND_MS)
        assert it.vendor.contacts.keys() == {"ann@x.org", "bob@x.org"}
        assert (it.status.delivered, it.dead()) == (2, [])
