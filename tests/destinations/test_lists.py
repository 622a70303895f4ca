"""List destinations: the net change at an interval, the remote list made once, batches, resync."""

from typing import Any

from msgspec import json

from actors.delivery import Answer, Call, HttpAsk
from tests.destinations.stage import DAY_MS, HOUR_MS, Stage, answer, identify, stage, track

RECENT = "event('Bought').within(1 hours).count() >= 1"
SETTINGS = {"accessToken": "tok", "adAccountId": "act_17"}


def graph(it: Stage) -> None:
    """Answer as Facebook does."""

    def rule(ask: HttpAsk, calls: tuple[Call, ...]) -> Answer:
        body = b'{"id":"list9"}' if ask.url.endswith("customaudiences") else b'{"num_received":1}'
        return answer(200, body=body)

    it.receiver.rule = rule


def told(it: Stage, after: int = 0) -> list[tuple[str, int]]:
    """Return (method, rows) of the requests that changed the list."""
    return [
        (one.ask.method, len(one.message["payload"]["data"]))
        for one in it.receiver.seen[after:]
        if one.ask.url.endswith("/users")
    ]


async def bought(it: Stage, *users: str) -> None:
    for user in users:
        await it.send(identify(user, email=f"{user}@x.org"), track(user, "Bought"), step=False)
    await it.step()


async def test_the_first_sync_makes_the_list_and_sends_it_whole_the_next_ones_only_the_net_change() -> None:
    async with stage() as it:
        graph(it)
        audience = await it.audience("Recent", RECENT)
        await bought(it, "ann", "bob")
        destination = await it.destination("facebook_custom_audiences", SETTINGS)
        await it.connect(audience, destination)
        assert [one.ask.url.rsplit("/", 1)[1] for one in it.receiver.seen] == ["customaudiences", "users"]
        assert told(it) == [("POST", 2)]
        await it.until(30 * 60_000)
        await bought(it, "cat", "dan")  # in at 0:30, out at 1:30: both within the second interval for none
        await it.until(HOUR_MS)
        assert told(it, 2) == [("POST", 2), ("DELETE", 2)] or told(it, 2) == [("DELETE", 2), ("POST", 2)]
        await it.until(HOUR_MS + 1)
        await bought(it, "eve")
        await it.until(HOUR_MS + 2 * 60_000)
        assert len(told(it)) == 3  # not before the interval is over


async def test_one_who_came_and_went_between_two_syncs_is_never_sent() -> None:
    async with stage() as it:
        graph(it)
        audience = await it.audience("Short", "event('Bought').within(10 minutes).count() >= 1")
        destination = await it.destination("facebook_custom_audiences", SETTINGS)
        await it.connect(audience, destination)
        await bought(it, "ann")  # the first sync is due at once
        assert told(it) == [("POST", 1)]
        await it.until(5 * 60_000)
        await bought(it, "bob")
        await it.until(3 * HOUR_MS)
        assert told(it) == [("POST", 1), ("DELETE", 1)]
        assert it.deliveries.status(destination).pending == 0


async def test_the_remote_list_is_remembered_over_a_restart_and_made_anew_by_a_resync() -> None:
    async with stage() as it:
        graph(it)
        audience = await it.audience("Ever", "event('Bought').count() >= 1")
        destination = await it.destination("facebook_custom_audiences", SETTINGS)
        connection = await it.connect(audience, destination)
        await bought(it, "ann")
        await it.restart()
        await bought(it, "bob")
        await it.until(DAY_MS)
        made = [one for one in it.receiver.seen if one.ask.url.endswith("customaudiences")]
        assert len(made) == 1
        assert told(it) == [("POST", 1), ("POST", 1)]
        await it.destinations.resync(connection)
        await it.until(2 * DAY_MS)
        assert len([one for one in it.receiver.seen if one.ask.url.endswith("customaudiences")]) == 2
        assert told(it)[2:] == [("POST", 2)]


async def test_a_failing_sync_is_tried_again_and_a_restart_in_between_loses_nothing() -> None:
    async with stage() as it:
        audience = await it.audience("Ever", "event('Bought').count() >= 1")
        destination = await it.destination("facebook_custom_audiences", {**SETTINGS, "audienceId": "5"})
        await it.connect(audience, destination)
        it.receiver.rule = lambda ask, calls: answer(503)
        await bought(it, "ann", "bob")
        await it.restart()
        await it.until(HOUR_MS)
        graph(it)
        await it.until(3 * HOUR_MS)
        taken = {
            user for one in it.receiver.seen if one.status == 200 for call in one.calls for user in (call.user_id,)
        }
        assert taken == {"ann", "bob"}


async def test_one_bad_row_does_not_sink_its_batch() -> None:
    async with stage() as it:
        audience = await it.audience("Ever", "event('Bought').count() >= 1")
        destination = await it.destination("braze", {"endpoint": "https://rest.example.com", "apiKey": "k"})

        def rule(ask: HttpAsk, calls: tuple[Call, ...]) -> Answer:
            return answer(400 if any(call.user_id == "bad" for call in calls) else 201, body=b"{}")

        it.receiver.rule = rule
        await it.send(*(track(user, "Bought") for user in ("u1", "u2", "bad", "u3")))
        await it.connect(audience, destination)
        letters = it.deliveries.dead_letters(destination)
        assert {one.call.user_id for one in letters} == {"bad"}
        good: set[Any] = {call.user_id for one in it.receiver.seen if one.status == 201 for call in one.calls}
        assert good == {"u1", "u2", "u3"}
        first = json.decode(it.receiver.seen[0].ask.body)
        assert len(first["attributes"]) + len(first["events"]) == 8  # all in one request


async def test_computed_traits_are_refused_where_there_are_only_lists() -> None:
    import pytest

    from eventlog.errors import InvalidError

    async with stage() as it:
        trait = await it.trait("Orders", "event('Bought').count()")
        destination = await it.destination("facebook_custom_audiences", SETTINGS)
        with pytest.raises(InvalidError) as caught:
            await it.connect(trait, destination)
        assert caught.value.code == "traits_not_supported"
