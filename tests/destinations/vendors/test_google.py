"""The google_customer_match destination against a server that keeps Google's rules."""

import hashlib
from collections.abc import Mapping
from typing import Any

from actors.delivery import IdSync
from tests.destinations.stage import HOUR_MS, MINUTE_MS, START_MS, identify, phoned, track
from tests.destinations.vendors.google import CLIENT, LISTS, MEMBERS, REFRESH, SECRET, Google, Member
from tests.destinations.vendors.service import Window
from tests.destinations.vendors.wired import at_most, obeyed, wired

KIND = "google_customer_match"
DAY = "event('Bought').within(1 days).count() >= 1"


def settings(vendor: Google) -> Mapping[str, Any]:
    return {
        "endpoint": vendor.url,
        "oauthUrl": f"{vendor.url}/token",
        "clientId": CLIENT,
        "clientSecret": SECRET,
        "refreshToken": REFRESH,
        "customerId": "123-456-7890",
        "acceptCustomerMatchTerms": True,
    }


def often(vendor: Google) -> Mapping[str, Any]:
    """Return settings that sync each minute, so that a token is used more than once."""
    return {**settings(vendor), "syncIntervalSeconds": 60}


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def member(email: str | None = None, phone: str | None = None) -> Member:
    """Return somebody as Google keeps them."""
    given = {"emailAddress": email, "phoneNumber": phone}
    return frozenset((field, hashed(value)) for field, value in given.items() if value is not None)


async def test_google_has_one_list_of_those_who_are_in_as_hashes() -> None:
    async with wired(Google, KIND, settings) as it:
        await it.audience("Recent", DAY)
        await it.buy(["ann", "bob"])
        await it.stage.send(identify("dot", email="Do.T+shop@gmail.com"), track("dot", "Bought"))
        await it.stage.until(7 * HOUR_MS)
        ((made, name),) = it.vendor.names.items()
        assert name == "recent"
        assert it.vendor.members[made] == {member("ann@x.org"), member("bob@x.org"), member("dot@gmail.com")}
        await it.buy(["cat"])
        await it.stage.restart()
        await it.stage.until(30 * HOUR_MS + MINUTE_MS)  # the sync at which the first two have left
        assert it.vendor.members[made] == {member("cat@x.org")}
        assert it.vendor.paths().count(LISTS) == 1
        assert it.dead() == []


async def test_google_gets_no_more_members_in_a_request_than_it_takes() -> None:
    async with wired(Google, KIND, settings) as it:
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(HOUR_MS)
        await it.buy((f"u{n}" for n in range(MEMBERS + 20)), step=False)
        await it.stage.until(6 * HOUR_MS + MINUTE_MS)
        assert [len(one) for one in it.vendor.members.values()] == [1 + MEMBERS + 20]
        assert it.vendor.paths() == it.vendor.paths(200)
        assert it.vendor.paths().count("/v1/audienceMembers:ingest") == 3


async def test_a_token_of_google_is_used_until_it_ends_and_then_renewed() -> None:
    async with wired(Google, KIND, often) as it:
        await it.audience("Buyers")
        for minute in range(0, 150, 10):
            await it.buy([f"u{minute}"])
            await it.stage.until((minute + 10) * MINUTE_MS)
        asked = [asked.at_ms - START_MS for asked, _ in it.vendor.seen if asked.path == "/token"]
        assert len(asked) == 3
        assert it.vendor.paths(401) == []
        assert [len(one) for one in it.vendor.members.values()] == [15]


async def test_a_token_that_google_revoked_is_renewed_whatever_it_was_used_for() -> None:
    async with wired(Google, KIND, often) as it:
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        it.vendor.tokens.clear()
        await it.buy(["bob"])
        await it.stage.until(10 * MINUTE_MS)
        assert it.vendor.paths(401) == ["/v1/audienceMembers:ingest"]
        it.vendor.tokens = dict.fromkeys(it.vendor.tokens, 0)
        await it.audience("Others")
        await it.stage.until(20 * MINUTE_MS)
        assert it.vendor.paths(401) == ["/v1/audienceMembers:ingest", LISTS]
        assert [len(one) for one in it.vendor.members.values()] == [2, 2]
        assert it.dead() == []


async def test_a_refresh_token_that_was_revoked_makes_dead_letters_and_a_new_one_sends_them() -> None:
    async with wired(Google, KIND, often) as it:
        it.vendor.refresh = "1//0other"
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(MINUTE_MS)
        assert [("invalid_grant" in why, REFRESH in why) for _, why in it.dead()] == [(True, False)]
        assert (await it.stage.deliveries.ping(it.destination)).how == "dead"
        renewed = {**often(it.vendor), "refreshToken": "1//0other"}
        await it.stage.destinations.update_destination(it.destination, settings=renewed)
        await it.stage.deliveries.resend(it.destination)
        await it.stage.until(5 * MINUTE_MS)
        assert [len(one) for one in it.vendor.members.values()] == [1]


async def test_a_member_that_google_does_not_take_is_the_only_dead_letter_of_a_large_batch() -> None:
    async with wired(Google, KIND, often) as it:
        it.vendor.refused_hashes = {hashed("u7@x.org"), hashed("u9@x.org")}
        await it.audience("Buyers")
        await it.buy((f"u{n}" for n in range(1_000)), step=False)
        await it.stage.until(20 * MINUTE_MS)
        assert sorted(who or "" for who, _ in it.dead()) == ["u7", "u9"]
        assert [len(one) for one in it.vendor.members.values()] == [998]
        assert len(it.vendor.seen) < 20


async def test_google_finds_people_by_phone_as_well_and_an_email_and_a_phone_are_one_member() -> None:
    async with wired(Google, KIND, settings) as it:
        await it.audience("Recent", DAY, id_sync=(IdSync("email"), IdSync("phone")))
        await it.stage.send(phoned("ann", "+1 (800) 555-0100", email="ann@x.org"), step=False)
        await it.stage.send(phoned("bob", "0044 844 412 4653"), step=False)
        await it.stage.send(phoned("odd", "555-0100"))
        await it.stage.until(7 * HOUR_MS)
        assert list(it.vendor.members.values()) == [
            {member("ann@x.org", "+18005550100"), member(None, "+448444124653")}
        ]
        assert [why for _, why in it.dead()] == ["Google needs an email or a phone number with its country code"]
        assert not any(digits in asked.body for asked, _ in it.vendor.seen for digits in (b"5550100", b"4124653"))
        await it.stage.until(31 * HOUR_MS)
        assert list(it.vendor.members.values()) == [set()]


async def test_a_phone_that_google_does_not_take_blames_its_own_member_alone() -> None:
    async with wired(Google, KIND, often) as it:
        it.vendor.refused_hashes = {hashed("+15550000003"), hashed("+15550000008")}
        await it.audience("Buyers", id_sync=(IdSync("email"), IdSync("phone", map_to="phone")))
        for n in range(10):  # every other with a phone alone
            await it.stage.send(phoned(f"u{n}", f"+1 555 000 000{n}", **({"email": f"u{n}@x.org"} if n % 2 else {})))
        await it.stage.until(20 * MINUTE_MS)
        numbers = [dict(one.call.ids)["phone"] for one in it.stage.deliveries.dead_letters(it.destination)]
        assert sorted(numbers) == ["+1 555 000 0003", "+1 555 000 0008"]
        assert [len(one) for one in it.vendor.members.values()] == [8]


async def test_terms_that_were_not_accepted_are_said_and_no_member_is_blamed() -> None:
    async with wired(Google, KIND, often) as it:
        await it.stage.destinations.update_destination(
            it.destination, settings={**often(it.vendor), "acceptCustomerMatchTerms": False}
        )
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(10 * MINUTE_MS)
        assert ["TERMS_AND_CONDITIONS_NOT_SIGNED" in why for _, why in it.dead()] == [True]


async def test_the_quota_of_google_is_kept_and_its_429_obeyed_for_as_long_as_it_says() -> None:
    async with wired(Google, KIND, often) as it:
        for name in range(20):
            await it.audience(f"Buyers {name}")
        await it.buy(["ann"])
        await it.stage.until(10 * MINUTE_MS)
        at_most((asked.at_ms for asked, _ in it.vendor.seen), 300, MINUTE_MS)
        assert it.vendor.paths(429) == []
        it.vendor.window = Window(1, 5 * MINUTE_MS)  # another client of the project uses up the rest
        await it.buy(["bob"])
        await it.stage.until(4 * HOUR_MS)
        assert obeyed(it.vendor, 4 * MINUTE_MS) > 0
        assert [len(one) for one in it.vendor.members.values()] == [2] * 20
        assert it.dead() == []


async def test_a_list_that_was_deleted_at_google_is_said_and_made_anew_by_a_resync() -> None:
    async with wired(Google, KIND, often) as it:
        connection = await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        it.vendor.members.clear()
        await it.buy(["bob"])
        await it.stage.until(10 * MINUTE_MS)
        assert [(who, "resync" in why) for who, why in it.dead()] == [("bob", True)]
        await it.stage.destinations.resync(connection)
        await it.stage.until(20 * MINUTE_MS)
        assert [len(one) for one in it.vendor.members.values()] == [2]


async def test_a_lost_answer_of_google_doubles_nobody() -> None:
    async with wired(Google, KIND, often) as it:
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        it.vendor.lost = 1
        await it.buy(["bob"])
        await it.stage.until(10 * MINUTE_MS)
        assert list(it.vendor.members.values()) == [{member("ann@x.org"), member("bob@x.org")}]
        assert (it.status.delivered, it.dead()) == (2, [])
