"""What is told of a destination that is paused: what waits for it is in rows, and is counted all the same."""

from tests.destinations.stage import HOUR_MS, MINUTE_MS, answer, identify, stage, track

ONCE = "event('Bought').count() >= 1"


async def test_a_paused_destination_still_tells_what_is_being_tried_again_and_what_waits_behind_it() -> None:
    async with stage() as it:
        crm = await it.webhook()
        await it.connect(await it.audience("Buyers", ONCE), crm, sendIdentify=False)
        it.receiver.rule = lambda ask, calls: answer(503) if calls[0].user_id in {"ann", "bob"} else None
        await it.send(*(track(user, "Bought") for user in ("ann", "bob", "cat")))
        before = it.deliveries.status(crm)
        assert (before.retrying, before.pending, before.delivered) == (2, 0, 1)
        await it.destinations.update_destination(crm, enabled=False)
        await it.step()
        status = it.deliveries.status(crm)
        assert (status.state, status.retrying, status.pending, status.in_flight) == ("disabled", 2, 0, 0)
        await it.restart()
        assert it.deliveries.status(crm).retrying == 2
        it.receiver.rule = None
        await it.destinations.update_destination(crm, enabled=True)
        await it.until(HOUR_MS)
        status = it.deliveries.status(crm)
        assert (status.retrying, status.pending, status.delivered) == (0, 0, 3)


async def test_a_letter_sent_again_to_a_paused_destination_is_pending_until_it_is_on_again_and_goes_once() -> None:
    async with stage() as it:
        crm = await it.webhook()
        await it.connect(await it.audience("Buyers", ONCE), crm, sendIdentify=False)
        it.receiver.script(400)
        await it.send(track("ann", "Bought"))
        await it.destinations.update_destination(crm, enabled=False)
        await it.step()
        assert await it.deliveries.resend(crm) == 1
        await it.until(MINUTE_MS)
        status = it.deliveries.status(crm)
        assert (status.pending, status.retrying, status.dead) == (1, 0, 0)
        await it.destinations.update_destination(crm, enabled=True)
        await it.until(2 * MINUTE_MS)
        assert it.receiver.taken() == [("ann", "Audience Entered")]
        assert it.deliveries.status(crm).pending == 0


async def test_a_paused_list_counts_each_profile_that_it_owes_something_once() -> None:
    async with stage() as it:
        ads = await it.destination(
            "facebook_custom_audiences", {"accessToken": "tok-secret", "adAccountId": "17", "audienceId": "5"}
        )
        it.receiver.script(*[503] * 3)
        await it.connect(await it.audience("Buyers", ONCE), ads)
        for user in ("ann", "bob"):
            await it.send(identify(user, email=f"{user}@x.org"), track(user, "Bought"))
        on = it.deliveries.status(ads)
        assert on.retrying + on.pending == 2
        await it.destinations.update_destination(ads, enabled=False)
        await it.step()
        off = it.deliveries.status(ads)
        assert (off.retrying, off.pending) == (on.retrying, on.pending)
