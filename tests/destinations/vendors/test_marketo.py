"""The marketo_static_lists destination against a server that keeps Marketo's rules."""

from collections.abc import Mapping
from typing import Any

from tests.destinations.stage import HOUR_MS, MINUTE_MS, SECOND_MS, START_MS, identify, track
from tests.destinations.vendors.marketo import CALLS, CLIENT, FOLDER, SECRET, WINDOW_MS, Marketo
from tests.destinations.vendors.service import Said, Window
from tests.destinations.vendors.wired import RECENT, at_most, obeyed, wired

KIND = "marketo_static_lists"
TOKEN = "/identity/oauth/token"
LISTS = "/rest/asset/v1/staticLists.json"


def settings(vendor: Marketo) -> Mapping[str, Any]:
    return {"endpoint": vendor.url, "clientId": CLIENT, "clientSecret": SECRET, "folderId": FOLDER}


def often(vendor: Marketo) -> Mapping[str, Any]:
    """Return settings that sync each minute, so that a token is used more than once."""
    return {**settings(vendor), "syncIntervalSeconds": 60}


def codes(vendor: Marketo) -> list[str]:
    """Return the codes of the errors that were answered, in order."""
    return [one["code"] for _, said in vendor.seen for one in (said.body or {}).get("errors", [])]


def is_throttled(said: Said) -> bool:
    return any(one["code"] in {"606", "607"} for one in (said.body or {}).get("errors", []))


async def test_marketo_has_one_list_of_those_who_are_in() -> None:
    async with wired(Marketo, KIND, settings) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["ann", "Bob"])
        await it.stage.until(MINUTE_MS)
        assert it.vendor.lists == {1_021: "recent"}
        assert it.vendor.members == {1_021: {"ann@x.org", "bob@x.org"}}
        await it.buy(["cat"])
        await it.stage.restart()
        await it.stage.until(HOUR_MS + MINUTE_MS)
        assert it.vendor.members == {1_021: {"cat@x.org"}}
        await it.stage.until(3 * HOUR_MS)
        assert it.vendor.members == {1_021: set()}
        assert it.vendor.paths().count(LISTS) == 1
        assert (codes(it.vendor), it.dead()) == ([], [])


async def test_marketo_gets_no_more_records_in_a_request_than_it_takes() -> None:
    async with wired(Marketo, KIND, settings) as it:
        await it.audience("Buyers")
        await it.buy((f"u{n}" for n in range(1_000)), step=False)
        await it.stage.until(HOUR_MS)
        assert [len(one) for one in it.vendor.members.values()] == [1_000]
        assert (codes(it.vendor), it.dead()) == ([], [])
        assert len(it.vendor.seen) <= 2 + 2 * 6


async def test_no_twenty_seconds_hold_more_calls_than_marketo_allows() -> None:
    async with wired(Marketo, KIND, often) as it:
        for name in range(60):
            await it.audience(f"Buyers {name}")
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        await it.buy(["bob"])
        await it.stage.until(10 * MINUTE_MS)
        assert [len(one) for one in it.vendor.members.values()] == [2] * 60
        counted = [asked.at_ms for asked, _ in it.vendor.seen if asked.path != TOKEN]
        assert len(counted) == 60 * 3 + 60 * 2
        at_most(counted, CALLS, WINDOW_MS)
        assert codes(it.vendor) == []


async def test_marketo_saying_that_it_was_too_much_is_obeyed_and_nothing_is_lost() -> None:
    async with wired(Marketo, KIND, often) as it:
        it.vendor.window = Window(10, WINDOW_MS)  # other services of the instance use up the rest
        for name in range(12):
            await it.audience(f"Buyers {name}")
        await it.buy(["ann"])
        await it.stage.until(HOUR_MS)
        assert obeyed(it.vendor, 800, is_throttled=is_throttled) > 0
        assert [len(one) for one in it.vendor.members.values()] == [1] * 12
        assert it.dead() == []


async def test_a_day_whose_quota_is_used_up_is_waited_out_hour_by_hour() -> None:
    async with wired(Marketo, KIND, settings) as it:
        it.vendor.quota = 0
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(5 * HOUR_MS)
        assert obeyed(it.vendor, HOUR_MS - MINUTE_MS, is_throttled=is_throttled) >= 4
        it.vendor.quota = 50_000
        await it.stage.until(8 * HOUR_MS)
        assert [len(one) for one in it.vendor.members.values()] == [1]
        assert it.dead() == []


async def test_a_token_of_marketo_is_used_until_it_ends_and_then_renewed() -> None:
    async with wired(Marketo, KIND, often) as it:
        await it.audience("Buyers")
        for minute in range(0, 150, 10):
            await it.buy([f"u{minute}"])
            await it.stage.until((minute + 10) * MINUTE_MS)
        asked = [(one.at_ms - START_MS) // MINUTE_MS for one, _ in it.vendor.seen if one.path == TOKEN]
        assert len(asked) == 3
        assert codes(it.vendor) == []
        assert [len(one) for one in it.vendor.members.values()] == [15]


async def test_a_token_that_ends_early_is_renewed_whatever_it_was_used_for() -> None:
    async with wired(Marketo, KIND, often) as it:
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        it.vendor.token_until_ms = it.vendor.now_ms
        await it.buy(["bob"])
        await it.stage.until(10 * MINUTE_MS)
        assert codes(it.vendor) == ["602"]
        it.vendor.token_until_ms = it.vendor.now_ms
        await it.audience("Others")
        await it.stage.until(20 * MINUTE_MS)
        assert codes(it.vendor) == ["602", "602"]
        assert [len(one) for one in it.vendor.members.values()] == [2, 2]
        assert it.dead() == []


async def test_credentials_that_marketo_does_not_know_make_dead_letters_that_can_be_sent_later() -> None:
    async with wired(Marketo, KIND, often) as it:
        bad = {**often(it.vendor), "clientSecret": "wr0ng-secret"}
        await it.stage.destinations.update_destination(it.destination, settings=bad)
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(MINUTE_MS)
        assert [why.partition(":")[0] for _, why in it.dead()] == ["answered 401"]
        assert (await it.stage.deliveries.ping(it.destination)).status == 401
        (failure, *_) = it.stage.deliveries.failures(it.destination)
        assert "wr0ng-secret" not in str(failure)  # it is in the address of the request
        await it.stage.destinations.update_destination(it.destination, settings=often(it.vendor))
        await it.stage.deliveries.resend(it.destination)
        await it.stage.until(5 * MINUTE_MS)
        assert [len(one) for one in it.vendor.members.values()] == [1]


async def test_records_that_marketo_skips_are_dead_letters_and_the_others_are_members() -> None:
    async with wired(Marketo, KIND, often) as it:
        it.vendor.merging.add("bob@x.org")
        await it.audience("Buyers")
        await it.stage.send(identify("odd", email="nonsense"), track("odd", "Bought"), step=False)
        await it.buy(["ann", "bob", "cat"])
        await it.stage.until(5 * MINUTE_MS)
        assert sorted(it.dead()) == [
            ("bob", "skipped: Lead not found"),
            ("odd", "skipped: Invalid email address 'nonsense'"),
        ]
        assert [sorted(one) for one in it.vendor.members.values()] == [["ann@x.org", "cat@x.org"]]


async def test_somebody_whom_marketo_does_not_have_in_a_list_leaves_it_all_the_same() -> None:
    async with wired(Marketo, KIND, often) as it:
        await it.audience("Recent", RECENT)
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        it.vendor.merging.add("ann@x.org")
        await it.stage.until(2 * HOUR_MS)
        assert (it.status.delivered, it.dead()) == (2, [])


async def test_a_list_whose_making_was_answered_to_nobody_is_found_by_its_name() -> None:
    async with wired(Marketo, KIND, often) as it:
        await it.audience("Buyers")
        it.vendor.lost, it.vendor.lost_at = 1, LISTS
        await it.buy(["ann"])
        await it.stage.until(10 * MINUTE_MS)
        assert codes(it.vendor) == ["709"]
        assert it.vendor.lists == {1_021: "buyers"}
        assert it.vendor.members == {1_021: {"ann@x.org"}}
        assert it.dead() == []


async def test_a_list_that_was_deleted_at_marketo_is_said_and_made_anew_by_a_resync() -> None:
    async with wired(Marketo, KIND, often) as it:
        connection = await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        it.vendor.members.clear()
        it.vendor.lists.clear()
        await it.buy(["bob"])
        await it.stage.until(10 * MINUTE_MS)
        assert [(who, "resync" in why) for who, why in it.dead()] == [("bob", True)]
        await it.stage.destinations.resync(connection)
        await it.stage.until(20 * MINUTE_MS)
        assert [len(one) for one in it.vendor.members.values()] == [2]


async def test_a_lost_answer_of_marketo_doubles_nobody() -> None:
    async with wired(Marketo, KIND, often) as it:
        await it.audience("Buyers")
        await it.buy(["ann"])
        await it.stage.until(5 * MINUTE_MS)
        it.vendor.lost = 2
        await it.buy(["bob"])
        await it.stage.until(10 * MINUTE_MS)
        assert len(it.vendor.people) == 2
        assert [len(one) for one in it.vendor.members.values()] == [2]
        assert (it.status.delivered, it.dead()) == (2, [])


async def test_an_outage_of_marketo_is_waited_out() -> None:
    async with wired(Marketo, KIND, often) as it:
        it.vendor.down = 6
        await it.audience("Buyers")
        await it.buy(["ann", "bob"])
        await it.stage.until(HOUR_MS + 30 * SECOND_MS)
        assert [len(one) for one in it.vendor.members.values()] == [2]
        assert it.dead() == []
