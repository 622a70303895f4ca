"""The destination actor end to end: a real space, a simulated clock, a scripted receiver."""

from collections.abc import Callable
from itertools import pairwise

import anyio
import pytest

from actors.delivery import Answer, Call, HttpAsk
from eventlog.log import DELIVERIES, SENT
from tests.destinations.stage import DAY_MS, HOUR_MS, START_MS, Killed, Stage, answer, group, identify, stage, track

ONCE = "event('Bought').count() >= 1"
RECENT = "event('Bought').within(7 days).count() >= 1"


async def test_an_entry_and_an_exit_are_told_on_time_as_the_contract_shows_them() -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        await it.connect(audience, await it.webhook())
        await it.send(track("ann", "Bought"))
        await it.until(7 * DAY_MS)
        bodies = [one.message for one in it.receiver.seen]
        personas = {
            "computation_class": "audience",
            "computation_id": audience,
            "computation_key": "recent_buyers",
            "namespace": "spa_1",
            "space_id": "spa_1",
        }
        assert [body["type"] for body in bodies] == ["identify", "track", "identify", "track"]
        ids = [body.pop("messageId") for body in bodies]
        assert len(set(ids)) == 4
        assert bodies[0] == {
            "type": "identify",
            "userId": "ann",
            "traits": {"recent_buyers": True},
            "context": {"personas": personas},
            "timestamp": "2026-03-01T00:00:00.000Z",
        }
        assert bodies[3] == {
            "type": "track",
            "userId": "ann",
            "event": "Audience Exited",
            "properties": {"audience_key": "recent_buyers", "recent_buyers": False},
            "context": {"personas": personas},
            "timestamp": "2026-03-08T00:00:00.000Z",
        }
        assert [one.at_ms - START_MS for one in it.receiver.seen] == [0, 0, 7 * DAY_MS, 7 * DAY_MS]


async def test_connecting_fills_with_the_current_members_dated_when_they_became_so() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.send(track("ann", "Bought"))
        await it.until(HOUR_MS)
        await it.send(track("bob", "Bought"), track("cat", "Looked"))
        await it.connect(audience, await it.webhook())
        assert it.receiver.taken() == [("ann", "Audience Entered"), ("bob", "Audience Entered")]
        tracks = [one.message for one in it.receiver.seen if one.message["type"] == "track"]
        assert [body["timestamp"] for body in tracks] == [
            "2026-03-01T00:00:00.000Z",
            "2026-03-01T01:00:00.000Z",
        ]


async def test_an_audience_without_historical_data_is_not_filled() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE, include_historical_data=False)
        await it.send(track("ann", "Bought"))
        await it.connect(audience, await it.webhook())
        await it.send(track("bob", "Bought"))
        assert it.receiver.taken() == [("bob", "Audience Entered")]


async def test_a_computed_trait_is_told_with_its_value_and_its_own_class() -> None:
    async with stage() as it:
        trait = await it.trait("Orders", "event('Bought').count()")
        await it.send(track("ann", "Bought"))
        await it.connect(trait, await it.webhook())
        await it.send(track("ann", "Bought"))
        tracks = [one.message for one in it.receiver.seen if one.message["type"] == "track"]
        assert [body["properties"] for body in tracks] == [
            {"trait_key": "orders", "orders": 1},
            {"trait_key": "orders", "orders": 2},
        ]
        assert tracks[0]["event"] == "Trait Computed"
        assert tracks[0]["context"]["personas"]["computation_class"] == "trait"
        assert it.receiver.taken("identify") == [("ann", "orders=1"), ("ann", "orders=2")]


async def test_what_a_connection_is_told_not_to_send_is_not_sent_and_events_have_the_names_it_gives() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook(), sendIdentify=False, enteredEventName="Joined")
        await it.send(track("ann", "Bought"))
        assert it.receiver.taken("identify") == []
        assert it.receiver.taken() == [("ann", "Joined")]


async def test_a_failing_delivery_is_tried_again_with_the_same_message_id_and_then_goes_on() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook())
        it.receiver.script(503, 503, 200)
        await it.send(track("ann", "Bought"))
        await it.until(HOUR_MS)
        assert [one.status for one in it.receiver.seen] == [503, 503, 200, 200]
        assert len({one.message["messageId"] for one in it.receiver.seen[:3]}) == 1
        pauses = [one.at_ms - START_MS for one in it.receiver.seen[:3]]
        assert 800 <= pauses[1] <= 1200
        assert 1600 <= pauses[2] - pauses[1] <= 2400


async def test_a_retrying_delivery_holds_its_own_profile_only_and_keeps_the_order_there() -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        await it.connect(audience, await it.webhook(retryForSeconds=30 * 86_400), sendIdentify=False)
        it.receiver.rule = lambda ask, calls: answer(500) if calls[0].user_id == "ann" else None
        await it.send(track("ann", "Bought"), track("bob", "Bought"))
        assert it.receiver.taken() == [("bob", "Audience Entered")]
        await it.until(8 * DAY_MS)  # both have left since
        assert it.receiver.taken() == [("bob", "Audience Entered"), ("bob", "Audience Exited")]
        it.receiver.rule = None
        await it.until(9 * DAY_MS)
        assert it.receiver.taken()[2:] == [("ann", "Audience Entered"), ("ann", "Audience Exited")]


async def test_a_delivery_is_given_up_after_its_time_and_listed_as_a_dead_letter() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook()
        await it.connect(audience, destination, sendIdentify=False)
        it.receiver.rule = lambda ask, calls: answer(500, body=b"try later")
        await it.send(track("ann", "Bought"))
        await it.until(23 * HOUR_MS)
        assert it.deliveries.status(destination).retrying == 1
        assert it.deliveries.dead_letters(destination) == []
        await it.until(25 * HOUR_MS)
        (letter,) = it.deliveries.dead_letters(destination)
        assert letter.call.user_id == "ann"
        assert letter.status == 500
        assert "try later" in letter.reason
        assert it.deliveries.status(destination).dead == 1


async def test_a_4xx_is_final_at_once_and_the_letter_can_be_sent_again_with_its_message_id() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook()
        await it.connect(audience, destination)
        it.receiver.script(400, 410)
        await it.send(track("ann", "Bought"))
        letters = it.deliveries.dead_letters(destination)
        assert sorted(one.status for one in letters) == [400, 410]
        assert await it.deliveries.resend(destination, letters[0].call.id) == 1
        assert await it.deliveries.resend(destination) == 1
        await it.step()
        assert it.receiver.taken() == [("ann", "Audience Entered")]
        assert {one.message["messageId"] for one in it.receiver.seen[2:]} == {one.call.id for one in letters}
        assert it.deliveries.dead_letters(destination) == []


async def test_an_entry_that_was_refused_for_good_has_no_exit() -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        it.receiver.script(400)
        await it.send(track("ann", "Bought"))
        await it.until(8 * DAY_MS)
        assert [one.status for one in it.receiver.seen] == [400]


async def test_a_429_holds_the_whole_destination_for_as_long_as_it_says() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook()
        await it.connect(audience, destination, sendIdentify=False)
        it.receiver.script(answer(429, {"retry-after": "90"}))
        await it.send(track("ann", "Bought"))
        await it.send(track("bob", "Bought"))
        assert len(it.receiver.seen) == 1
        status = it.deliveries.status(destination)
        assert status.held_until_ms == START_MS + 90_000
        await it.until(89_999)
        assert len(it.receiver.seen) == 1
        await it.until(90_000)
        assert sorted(it.receiver.taken()) == [("ann", "Audience Entered"), ("bob", "Audience Entered")]


async def test_an_open_circuit_lets_one_probe_through_at_a_time_and_closes_on_the_first_answer() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook()
        await it.connect(audience, destination, sendIdentify=False)
        it.receiver.rule = lambda ask, calls: answer(0)
        await it.send(*(track(f"u{n}", "Bought") for n in range(40)))
        tried = len(it.receiver.seen)
        assert tried < 40
        assert it.deliveries.status(destination).circuit == "open"
        await it.until(HOUR_MS)
        assert len(it.receiver.seen) - tried < 30  # an hour of probes, up to 5 min apart
        assert it.deliveries.dead_letters(destination) == []
        it.receiver.rule = None
        await it.until(HOUR_MS + 7 * 60_000)
        assert it.deliveries.status(destination).circuit == "closed"
        assert len({user for user, _ in it.receiver.taken()}) == 40


async def test_one_message_that_the_destination_cannot_stomach_never_opens_the_circuit() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook()
        await it.connect(audience, destination, sendIdentify=False)
        it.receiver.rule = lambda ask, calls: answer(500) if calls[0].user_id == "ann" else None
        await it.send(track("ann", "Bought"))
        await it.until(HOUR_MS)
        assert it.deliveries.status(destination).circuit == "closed"
        await it.send(track("bob", "Bought"))
        assert it.receiver.taken() == [("bob", "Audience Entered")]


async def test_the_rate_is_obeyed_across_a_restart() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook(rate=10, burst=5), sendIdentify=False)
        await it.send(*(track(f"u{n}", "Bought") for n in range(60)))
        assert len(it.receiver.seen) == 5
        for _ in range(3):
            await it.restart()
        assert len(it.receiver.seen) == 5
        await it.until(1000)
        assert len(it.receiver.seen) <= 15
        await it.until(10_000)
        times = [one.at_ms for one in it.receiver.seen]
        assert len(times) == 60
        for first in range(60):
            for last in range(first, 60):
                assert last - first + 1 <= 10 * (times[last] - times[first]) / 1000 + 5


def killing(event: str, at: int) -> Callable[..., Answer | None]:
    """Return a rule by which the process dies during the so-many-th request of an event."""
    left = [at]

    def rule(ask: HttpAsk, calls: tuple[Call, ...]) -> Answer | None:
        if calls[0].kind == "track" and calls[0].event == event:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
        return None

    return rule


async def test_a_crash_during_a_request_wins_no_token() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook(rate=10, burst=1), sendIdentify=False)
        for crash in range(1, 8):
            it.receiver.rule = killing("Audience Entered", 2)
            await it.send(*(track(f"u{crash}-{n}", "Bought") for n in range(3)), step=False)
            with pytest.raises(Killed):
                await it.until(it.clock.now_ms() - START_MS + 10_000)
            it.receiver.rule = None
            await it.restart()
        await it.until(it.clock.now_ms() - START_MS + 10_000)
        times = [one.at_ms for one in it.receiver.seen]
        assert all(later - earlier >= 100 for earlier, later in pairwise(times))
        assert len({one.calls[0].id for one in it.receiver.seen}) == 21


@pytest.mark.parametrize("event", ["Audience Entered", "Audience Exited"])
async def test_a_crash_between_the_calls_of_a_change_loses_none_of_them(event: str) -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        await it.connect(audience, await it.webhook())
        it.receiver.rule = killing(event, 1)
        await it.send(track("ann", "Bought"), step=False)
        with pytest.raises(Killed):
            await it.until(8 * DAY_MS)
        it.receiver.rule = None
        await it.restart()
        await it.until(9 * DAY_MS)
        assert it.receiver.taken() == [("ann", "Audience Entered"), ("ann", "Audience Exited")]
        ids = [one.calls[0].id for one in it.receiver.seen if one.calls[0].event == event]
        assert len(set(ids)) == 2  # what was repeated has the id it had


async def test_a_restart_sends_nothing_twice_and_loses_no_retry() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook()
        await it.connect(audience, destination)
        it.receiver.rule = lambda ask, calls: answer(503) if calls[0].user_id == "ann" else None
        await it.send(track("ann", "Bought"), track("bob", "Bought"))
        it.receiver.rule = None
        await it.restart()
        assert it.deliveries.status(destination).retrying == 1
        await it.until(HOUR_MS)
        await it.restart()
        assert it.receiver.taken() == [("bob", "Audience Entered"), ("ann", "Audience Entered")]
        assert len([one for one in it.receiver.seen if one.status == 503]) == 1


async def test_a_paused_connection_sends_only_the_net_change_when_it_is_resumed() -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        connection = await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send(track("ann", "Bought"), track("bob", "Bought"))
        await it.destinations.disconnect(connection)
        await it.until(8 * DAY_MS)  # both left
        await it.send(track("bob", "Bought"), track("cat", "Bought"))  # bob came back
        assert len(it.receiver.seen) == 2
        await it.destinations.update_connection(connection, enabled=True)
        await it.step()
        assert sorted(it.receiver.taken()[2:]) == [("ann", "Audience Exited"), ("cat", "Audience Entered")]
        exits = [one.message for one in it.receiver.seen if one.message["event"] == "Audience Exited"]
        assert exits[0]["timestamp"] == "2026-03-08T00:00:00.000Z"


async def test_a_destination_that_was_off_sends_the_net_change_when_it_is_on_again() -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        destination = await it.webhook()
        await it.connect(audience, destination, sendIdentify=False)
        await it.send(track("ann", "Bought"))
        await it.destinations.update_destination(destination, enabled=False)
        await it.until(DAY_MS)
        await it.send(track("bob", "Bought"))
        await it.until(7 * DAY_MS + HOUR_MS)  # ann left, bob is still in
        await it.send(track("ann", "Bought"))  # and came back
        await it.restart()
        assert len(it.receiver.seen) == 1
        await it.destinations.update_destination(destination, enabled=True)
        await it.step()
        assert it.receiver.taken()[1:] == [("bob", "Audience Entered")]


async def test_a_new_email_sends_current_memberships_again_with_it() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook())
        await it.send(track("ann", "Bought"))
        await it.send(identify("ann", email="Ann@Example.com "))
        identifies = [one.message for one in it.receiver.seen if one.message["type"] == "identify"]
        tracks = [one.message for one in it.receiver.seen if one.message["type"] == "track"]
        assert [body["traits"] for body in identifies] == [
            {"buyers": True},
            {"email": "ann@example.com", "buyers": True},
        ]
        assert tracks[1]["context"]["traits"] == {"email": "ann@example.com"}
        stems = {body["messageId"].rsplit("-", 2)[0] for body in tracks}
        assert len(stems) == 1
        assert tracks[0]["messageId"] != tracks[1]["messageId"]


async def test_an_exit_goes_to_every_id_that_ever_got_the_entry() -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send(track("ann", "Bought", context={"traits": {"email": "old@example.com"}}))
        await it.until(HOUR_MS)
        await it.send(identify("ann", email="new@example.com"))
        await it.until(8 * DAY_MS)
        exits = [one.message for one in it.receiver.seen if one.message["event"] == "Audience Exited"]
        emails = sorted(body["context"]["traits"]["email"] for body in exits)
        assert emails == ["new@example.com", "old@example.com"]
        assert [body["userId"] for body in exits] == ["ann", "ann"]


async def test_a_merge_tells_what_changed_once() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE, filter_by_external_ids=("anonymous_id", "user_id"))
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send({"type": "track", "anonymousId": "a1", "event": "Bought"})
        await it.send(track("ann", "Bought"))
        assert [one.message.get("userId") or one.message["anonymousId"] for one in it.receiver.seen] == ["a1", "ann"]
        await it.send({"type": "identify", "userId": "ann", "anonymousId": "a1", "traits": {}})
        assert len(it.receiver.seen) == 2  # both ids know already
        await it.restart()
        assert len(it.receiver.seen) == 2


async def test_a_merge_that_ends_a_membership_tells_every_id_that_had_it() -> None:
    async with stage() as it:
        audience = await it.audience("Just one", "event('Bought').count() = 1")
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send(track("ann", "Bought", context={"traits": {"email": "a@example.com"}}))
        await it.send(
            {"type": "track", "anonymousId": "b", "event": "Bought", "context": {"traits": {"email": "b@x.org"}}}
        )
        await it.send({"type": "identify", "userId": "ann", "anonymousId": "b", "traits": {}})
        told = [(one.message.get("userId"), one.message["context"]["traits"]["email"]) for one in it.receiver.seen]
        assert told == [("ann", "a@example.com"), (None, "b@x.org"), ("ann", "a@example.com"), (None, "b@x.org")]
        assert [event for _, event in it.receiver.taken()][2:] == ["Audience Exited", "Audience Exited"]


async def test_a_merge_waits_for_what_the_absorbed_is_still_owed() -> None:
    async with stage() as it:
        audience = await it.audience("Recent buyers", RECENT)
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        it.receiver.script(503)
        visit = {"type": "track", "anonymousId": "b", "event": "Bought", "context": {"traits": {"email": "b@x.org"}}}
        await it.send(identify("ann"), visit)  # the older profile is the one that stays
        await it.until(500)
        await it.send(identify("ann", email="a@x.org"))  # the newer address: the other is not sent for ann
        await it.send({"type": "identify", "userId": "ann", "anonymousId": "b", "traits": {}})
        await it.until(8 * DAY_MS)
        last: dict[str, str] = {}
        for one in it.receiver.seen:
            if one.status == 200:
                last |= {value: one.message["event"] for _, value in one.calls[0].ids}
        assert last == dict.fromkeys(("a@x.org", "b@x.org", "ann"), "Audience Exited")


async def test_deleting_an_audience_sends_exits_only_when_asked() -> None:
    for send_exits, expected in ((False, 0), (True, 2)):
        async with stage() as it:
            audience = await it.audience("Buyers", ONCE)
            destination = await it.webhook()
            await it.connect(audience, destination, sendIdentify=False)
            await it.send(track("ann", "Bought"), track("bob", "Bought"))
            await it.space.delete_definition(audience, send_exits=send_exits)
            await it.step()
            assert [event for _, event in it.receiver.taken()][2:] == ["Audience Exited"] * expected
            assert it.destinations.connections() == []


async def test_an_account_audience_sends_group_once_and_the_rest_once_per_user() -> None:
    async with stage() as it:
        audience = await it.audience("Big", "ANY (event('Bought').count() >= 1)", entity_type="ACCOUNTS")
        await it.connect(audience, await it.webhook())
        await it.send(group("ann", "acme"), group("bob", "acme"))
        await it.send(track("ann", "Bought"))
        kinds = [
            (one.message["type"], one.message.get("userId"), one.message.get("groupId")) for one in it.receiver.seen
        ]
        assert sorted(kinds, key=str) == [
            ("group", None, "acme"),
            ("identify", "ann", None),
            ("identify", "bob", None),
            ("track", "ann", None),
            ("track", "bob", None),
        ]
        assert next(one.message for one in it.receiver.seen if one.message["type"] == "group")["traits"] == {
            "big": True
        }
        await it.send(group("cat", "acme"))  # who joins is told too
        assert it.receiver.taken()[-1] == ("cat", "Audience Entered")


async def regulate(it: Stage, kind: str, user: str) -> str:
    """Take a regulation on a user, and let deliveries go on until it is over; return its status."""
    await it.space.regulate("reg_1", kind, [user])
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def step() -> None:
                while True:
                    await it.step()
                    await anyio.sleep(0.005)

            tasks.start_soon(step)
            tasks.start_soon(it.space.upkeep)
            await it.space.regulated("reg_1")
            tasks.cancel_scope.cancel()
    (saved,) = it.space.regulations()
    return str(saved["status"])


def traces(it: Stage, user: str) -> list[str]:
    """Return what the rows still hold of a user."""
    return [str(row) for table in (SENT, DELIVERIES) for row in it.log.range(table) if user in str(row)]


async def test_a_deleted_user_is_withdrawn_from_destinations_and_forgotten() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send(track("ann", "Bought"), track("bob", "Bought"))
        assert await regulate(it, "DELETE_ONLY", "ann") == "FINISHED"
        assert it.receiver.taken()[2:] == [("ann", "Audience Exited")]
        assert traces(it, "ann") == []
        assert traces(it, "bob") != []


async def test_an_internal_deletion_leaves_destinations_alone() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send(track("ann", "Bought"))
        assert await regulate(it, "DELETE_INTERNAL", "ann") == "FINISHED"
        assert len(it.receiver.seen) == 1
        assert traces(it, "ann") == []


async def test_a_paused_connection_forgets_a_deleted_user_without_a_word() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        connection = await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send(track("ann", "Bought"))
        await it.destinations.disconnect(connection)
        assert await regulate(it, "DELETE_ONLY", "ann") == "FINISHED"
        assert len(it.receiver.seen) == 1
        assert traces(it, "ann") == []


async def test_a_list_gives_a_deleted_user_up_at_its_next_sync() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        settings = {"accessToken": "tok", "adAccountId": "1", "audienceId": "5"}
        await it.connect(audience, await it.destination("facebook_custom_audiences", settings))
        await it.send(identify("ann", email="ann@x.org"), track("ann", "Bought"))
        await it.space.regulate("reg_1", "DELETE_ONLY", ["ann"])
        await it.until(HOUR_MS)
        assert [one.ask.method for one in it.receiver.seen] == ["POST", "DELETE"]
        assert traces(it, "ann") == []
