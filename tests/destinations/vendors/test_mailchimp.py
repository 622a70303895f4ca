"""The mailchimp destination against a server that keeps Mailchimp's rules."""

from collections.abc import Mapping
from typing import Any

import anyio

from tests.destinations.stage import HOUR_MS, SECOND_MS, identify, track
from tests.destinations.vendors.mailchimp import CONNECTIONS, KEY, LIST, Mailchimp
from tests.destinations.vendors.wired import RECENT, obeyed, waits_for, wired


def settings(vendor: Mailchimp) -> Mapping[str, Any]:
    return {"endpoint": vendor.url, "apiKey": KEY, "listId": LIST}


async def test_mailchimp_tags_those_who_are_in_and_subscribes_nobody() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["ann", "Bob"])
        assert it.vendor.tags == {"ann@x.org": {"recent"}, "bob@x.org": {"recent"}}
        assert {one["status"] for one in it.vendor.members.values()} == {"transactional"}
        await it.stage.until(HOUR_MS + 10 * SECOND_MS)
        assert it.vendor.tags == {"ann@x.org": set(), "bob@x.org": set()}
        assert it.dead() == []


async def test_somebody_whom_mailchimp_has_lost_leaves_without_being_made_anew() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["ann"])
        it.vendor.members.clear()
        await it.stage.until(HOUR_MS + 10 * SECOND_MS)
        assert it.vendor.members == {}
        assert it.vendor.paths(404) != []
        assert it.dead() == []


async def test_a_trait_is_a_merge_field_at_mailchimp_and_one_it_lacks_is_said() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        for name in ("ltv", "other"):
            await it.stage.connect(await it.stage.trait(name, "event('Bought').sum(property('total'))"), it.destination)
        await it.stage.send(identify("ann", email="ann@x.org"), step=False)
        await it.stage.send(track("ann", "Bought", properties={"total": 4.5}))
        (member,) = it.vendor.members.values()
        assert member["merge_fields"] == {"LTV": "4.5"}
        assert [(who, "merge fields were invalid" in why) for who, why in it.dead()] == [("ann", True)]


async def test_no_more_than_ten_connections_are_open_to_mailchimp_at_once() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        it.vendor.gate = anyio.Event()
        fast = {**settings(it.vendor), "rate": 100}  # only the connections are to hold it back
        await it.stage.destinations.update_destination(it.destination, settings=fast)
        await it.audience("Buyers")
        await it.buy((f"u{n}" for n in range(40)), step=False)

        async def hold() -> None:
            await waits_for(lambda: it.vendor.busy == 5)
            await anyio.sleep(0.05)
            assert it.vendor.gate is not None
            it.vendor.gate.set()

        await it.side_by_side(hold)
        await it.stage.until(30 * SECOND_MS)
        assert 5 <= it.vendor.busiest <= CONNECTIONS
        assert it.vendor.paths(429) == []
        assert len(it.vendor.tags) == 40


async def test_the_rate_to_mailchimp_counts_both_requests_of_a_member() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        await it.audience("Buyers")
        await it.buy(f"u{n}" for n in range(100))
        await it.stage.until(60 * SECOND_MS)
        asked = [one.at_ms for one, _ in it.vendor.seen]
        assert len(asked) == 200
        assert asked[-1] - asked[0] >= (200 - 10 - 10) / 10 * SECOND_MS


async def test_a_429_of_mailchimp_is_obeyed() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        it.vendor.connections_max = 0  # others of the account hold all ten
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(20 * SECOND_MS)
        it.vendor.connections_max = CONNECTIONS
        await it.stage.until(HOUR_MS)
        assert obeyed(it.vendor, 800) >= 3
        assert it.vendor.tags == {"ann@x.org": {"buyers"}}
        assert it.dead() == []


async def test_an_address_that_mailchimp_does_not_take_is_a_dead_letter_with_its_words() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        it.vendor.forgotten.add("bob@x.org")
        await it.audience("Buyers")
        await it.stage.send(identify("odd", email="nonsense"), track("odd", "Bought"), step=False)
        await it.buy(["ann", "bob"])
        await it.stage.until(20 * SECOND_MS)
        assert [(who, "valid email" in why, "permanently deleted" in why) for who, why in sorted(it.dead())] == [
            ("bob", False, True),
            ("odd", True, False),
        ]
        assert it.vendor.tags == {"ann@x.org": {"buyers"}}


async def test_a_key_or_a_list_that_mailchimp_does_not_know_makes_dead_letters() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        for wrong, status in (({"apiKey": "old-us21"}, 401), ({"listId": "other"}, 404)):
            given = {**settings(it.vendor), **wrong}
            await it.stage.destinations.update_destination(it.destination, settings=given)
            assert (await it.stage.deliveries.ping(it.destination)).status == status
        await it.audience("Buyers")
        await it.buy(["ann"])
        assert [why.partition(":")[0] for _, why in it.dead()] == ["answered 404"]
        await it.stage.destinations.update_destination(it.destination, settings=settings(it.vendor))
        await it.stage.deliveries.resend(it.destination)
        await it.stage.step()
        assert it.vendor.tags == {"ann@x.org": {"buyers"}}


async def test_a_lost_answer_of_mailchimp_makes_one_member_with_one_tag() -> None:
    async with wired(Mailchimp, "mailchimp", settings) as it:
        it.vendor.lost = 2
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(20 * SECOND_MS)
        assert len(it.vendor.members) == 1
        assert it.vendor.tags == {"ann@x.org": {"buyers"}}
        assert (it.status.delivered, it.dead()) == (1, [])
