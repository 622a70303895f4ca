"""The facebook_custom_audiences destination against a server that keeps Meta's rules."""

import hashlib
from collections.abc import Mapping
from typing import Any

from actors.delivery import IdSync
from tests.destinations.stage import HOUR_MS, MINUTE_MS, phoned, track
from tests.destinations.vendors.facebook import ACCOUNT, ROWS, TOKEN, Facebook
from tests.destinations.vendors.service import Said, Window
from tests.destinations.vendors.wired import RECENT, at_most, obeyed, wired

KIND = "facebook_custom_audiences"


def settings(vendor: Facebook) -> Mapping[str, Any]:
    return {"endpoint": f"{vendor.url}/v25.0", "accessToken": TOKEN, "adAccountId": f"act_{ACCOUNT}"}


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def row(user: str) -> tuple[str, str, str, str]:
    return (hashed(f"{user.lower()}@x.org"), "", user, "")


def is_throttled(said: Said) -> bool:
    return said.status == 400 and said.body["error"]["code"] == 80_003


async def test_facebook_has_one_list_of_those_who_are_in_as_hashes() -> None:
    async with wired(Facebook, KIND, settings) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["Ann", "bob"])
        await it.stage.until(MINUTE_MS)
        ((made, name),) = it.vendor.names.items()
        assert name == "recent"
        assert it.vendor.rows[made] == {row("Ann"), row("bob")}
        await it.buy(["cat"])
        await it.stage.restart()
        await it.stage.until(HOUR_MS + MINUTE_MS)  # the two left, one came
        assert it.vendor.rows[made] == {row("cat")}
        await it.stage.until(3 * HOUR_MS)
        assert it.vendor.rows[made] == set()
        assert len(it.vendor.names) == 1
        assert it.dead() == []


async def test_facebook_gets_no_more_rows_in_a_request_than_it_takes() -> None:
    async with wired(Facebook, KIND, settings) as it:
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(MINUTE_MS)
        await it.buy((f"u{n}" for n in range(ROWS + 20)), step=False)
        await it.stage.until(HOUR_MS + MINUTE_MS)
        assert [len(rows) for rows in it.vendor.rows.values()] == [1 + ROWS + 20]
        assert it.vendor.paths() == it.vendor.paths(200)
        assert len(it.vendor.seen) == 2 + 2


async def test_facebook_is_asked_again_when_it_says_that_access_is_regained() -> None:
    async with wired(Facebook, KIND, settings) as it:
        it.vendor.window = Window(1, 20 * MINUTE_MS)  # another app of the account uses up the rest
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(2 * HOUR_MS)
        assert obeyed(it.vendor, 20 * MINUTE_MS, is_throttled=is_throttled) == 1
        assert [len(rows) for rows in it.vendor.rows.values()] == [1]
        assert it.dead() == []


async def test_the_limit_of_facebook_is_kept_with_many_audiences() -> None:
    async with wired(Facebook, KIND, settings) as it:
        for name in range(30):
            await it.audience(f"Buyers {name}")
        await it.buy(["ann"])
        await it.stage.until(3 * HOUR_MS)
        at_most((asked.at_ms for asked, _ in it.vendor.seen), 5_000, HOUR_MS)
        assert [len(rows) for rows in it.vendor.rows.values()] == [1] * 30
        assert not any(is_throttled(said) for _, said in it.vendor.seen)


async def test_somebody_whom_facebook_cannot_find_is_a_dead_letter_that_says_so() -> None:
    async with wired(Facebook, KIND, settings) as it:
        await it.audience("Buyers")
        await it.stage.send(track("odd", "Bought"), step=False)
        await it.buy(["ann"])
        await it.stage.until(HOUR_MS)
        needed = "an email, a phone number with its country code or a mobile advertising id"
        assert it.dead() == [("odd", f"Facebook needs {needed}")]
        assert list(it.vendor.rows.values()) == [{row("ann")}]


async def test_facebook_finds_people_by_phone_and_sees_the_hash_of_its_digits_alone() -> None:
    async with wired(Facebook, KIND, settings) as it:
        await it.audience("Recent", RECENT, id_sync=(IdSync("email"), IdSync("phone")))
        await it.stage.send(phoned("ann", "+44 844 412 4653", email="ann@x.org"), step=False)
        await it.stage.send(phoned("bob", "001 (234) 567-8910"), step=False)
        await it.stage.send(phoned("odd", "0844 412 4653"))
        await it.stage.until(MINUTE_MS)
        (rows,) = it.vendor.rows.values()
        assert rows == {
            (hashed("ann@x.org"), hashed("448444124653"), "", ""),
            ("", hashed("12345678910"), "", ""),
        }
        assert ["with its country code" in why for _, why in it.dead()] == [True]
        assert not any(digits in asked.body for asked, _ in it.vendor.seen for digits in (b"4653", b"8910"))
        await it.stage.until(3 * HOUR_MS)
        assert list(it.vendor.rows.values()) == [set()]


async def test_a_token_that_expired_makes_dead_letters_and_a_new_one_sends_them() -> None:
    async with wired(Facebook, KIND, settings) as it:
        it.vendor.token = "EAAB-renewed"
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(MINUTE_MS)
        assert [why.startswith("error 190: ") for _, why in it.dead()] == [True]
        assert (await it.stage.deliveries.ping(it.destination)).how == "dead"
        renewed = {**settings(it.vendor), "accessToken": "EAAB-renewed"}
        await it.stage.destinations.update_destination(it.destination, settings=renewed)
        await it.stage.deliveries.resend(it.destination)
        await it.stage.until(2 * HOUR_MS)
        assert list(it.vendor.rows.values()) == [{row("ann")}]


async def test_a_list_that_was_deleted_at_facebook_is_said_and_made_anew_by_a_resync() -> None:
    async with wired(Facebook, KIND, settings) as it:
        connection = await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(MINUTE_MS)
        it.vendor.rows.clear()
        await it.buy(["bob"])
        await it.stage.until(2 * HOUR_MS)
        assert [(who, "resync" in why) for who, why in it.dead()] == [("bob", True)]
        await it.stage.destinations.resync(connection)
        await it.stage.until(4 * HOUR_MS)
        assert list(it.vendor.rows.values()) == [{row("ann"), row("bob")}]


async def test_a_lost_answer_of_facebook_doubles_nobody() -> None:
    async with wired(Facebook, KIND, settings) as it:
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(MINUTE_MS)
        it.vendor.lost = 1
        await it.buy(["bob"])
        await it.stage.until(2 * HOUR_MS)
        assert list(it.vendor.rows.values()) == [{row("ann"), row("bob")}]
        assert (it.status.delivered, it.dead()) == (2, [])
