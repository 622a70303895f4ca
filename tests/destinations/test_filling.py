"""Filling a destination, sending all again, and what an edit sends: passes over many profiles beside live changes."""

from tests.destinations.stage import HOUR_MS, Stage, answer, stage, track

ONCE = "event('Bought').count() >= 1"


async def filled(it: Stage, count: int, **settings: object) -> tuple[str, str, str]:
    """Connect a webhook to an audience with so many members; return audience, destination, connection."""
    audience = await it.audience("Buyers", ONCE)
    await it.send(*(track(f"u{n:03d}", "Bought") for n in range(count)), step=False)
    await it.space.settle()
    destination = await it.webhook(**settings)
    return audience, destination, await it.connect(audience, destination, sendIdentify=False)


async def test_a_fill_goes_on_after_a_restart_where_it_was() -> None:
    async with stage() as it:
        await filled(it, 60, rate=5, burst=5)
        for second in range(1, 20):
            await it.until(second * 1000)
            await it.restart()
        users = [str(user) for user, _ in it.receiver.taken()]
        assert sorted(users) == sorted(set(users))
        assert len(users) == 60


async def test_a_live_change_does_not_wait_for_a_fill() -> None:
    async with stage() as it:
        await filled(it, 300, rate=10, burst=10)
        await it.until(1_000)
        await it.send(track("late", "Bought"))
        await it.until(2_000)
        users = [user for user, _ in it.receiver.taken()]
        assert "late" in users
        assert len(users) < 40
        await it.until(60_000)
        assert len(it.receiver.taken()) == 301


async def test_a_fill_does_not_wait_for_live_changes_either() -> None:
    async with stage() as it:
        await filled(it, 20, rate=10, burst=10)
        for second in range(1, 12):
            await it.send(*(track(f"live{second}-{n}", "Bought") for n in range(10)), step=False)
            await it.until(second * 1000)
        fill = [user for user, _ in it.receiver.taken() if user is not None and user.startswith("u")]
        assert len(fill) == 20


async def test_one_who_left_during_the_fill_is_never_told_to_be_in() -> None:
    async with stage() as it:
        audience = await it.audience("Recent", "event('Bought').within(10 seconds).count() >= 1")
        await it.send(*(track(f"u{n}", "Bought") for n in range(40)), step=False)
        await it.space.settle()
        await it.connect(audience, await it.webhook(rate=1, burst=1), sendIdentify=False)
        await it.until(HOUR_MS)
        told: dict[str | None, list[str]] = {}
        for user, event in it.receiver.taken():
            told.setdefault(user, []).append(event)
        assert all(events == ["Audience Entered", "Audience Exited"] for events in told.values())
        assert len(told) < 15


async def test_a_full_resync_sends_everyone_again_with_new_message_ids() -> None:
    async with stage() as it:
        _, _, connection = await filled(it, 3)
        await it.destinations.resync(connection)
        await it.step()
        assert [user for user, _ in it.receiver.taken()] == ["u000", "u001", "u002"] * 2
        assert len({one.message["messageId"] for one in it.receiver.seen}) == 6


async def test_a_full_resync_also_repeats_an_exit_that_was_refused() -> None:
    async with stage() as it:
        audience = await it.audience("Recent", "event('Bought').within(10 seconds).count() >= 1")
        destination = await it.webhook()
        connection = await it.connect(audience, destination, sendIdentify=False)
        await it.send(track("ann", "Bought"))
        it.receiver.script(400)
        await it.until(20_000)
        assert len(it.deliveries.dead_letters(destination)) == 1
        await it.destinations.resync(connection)
        await it.step()
        assert it.receiver.taken() == [("ann", "Audience Entered"), ("ann", "Audience Exited")]


async def test_a_trait_that_is_gone_is_told_as_null_to_those_who_knew_it() -> None:
    async with stage() as it:
        trait = await it.trait("Last product", "event('Bought').within(10 seconds).last(property('product'))")
        await it.connect(trait, await it.webhook())
        await it.send(track("ann", "Bought", properties={"product": "tea"}))
        await it.until(20_000)
        assert it.receiver.taken("identify") == [("ann", 'last_product="tea"'), ("ann", "last_product=null")]


async def test_connecting_a_trait_fills_with_the_newest_values_alone() -> None:
    async with stage() as it:
        trait = await it.trait("Orders", "event('Bought').count()")
        await it.send(*(track(user, "Bought") for user in ("ann", "bob", "ann", "ann")))
        await it.connect(trait, await it.webhook(), sendTrack=False)
        assert sorted(it.receiver.taken("identify")) == [("ann", "orders=3"), ("bob", "orders=1")]


async def test_an_edit_sends_only_the_differences() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        await it.send(track("ann", "Bought"), track("bob", "Bought"), track("bob", "Bought"), track("cat", "Looked"))
        await it.space.edit_definition(audience, query="event('Bought').count() >= 2 OR event('Looked').count() >= 1")
        await it.space.backfilled()
        await it.step()
        assert sorted(it.receiver.taken()[2:]) == [("ann", "Audience Exited"), ("cat", "Audience Entered")]


async def test_a_user_is_in_an_account_audience_while_any_of_its_accounts_is() -> None:
    async with stage() as it:
        audience = await it.audience(
            "Active", "ANY (event('Bought').within(1 hours).count() >= 1)", entity_type="ACCOUNTS"
        )
        await it.connect(audience, await it.webhook(), sendIdentify=False, sendGroup=False)
        for account in ("acme", "initech"):
            await it.send({"type": "group", "userId": "ann", "groupId": account})
        await it.send({"type": "group", "userId": "bob", "groupId": "acme"})
        await it.send({"type": "group", "userId": "cat", "groupId": "initech"})
        await it.send(track("bob", "Bought"))  # acme is in: ann and bob
        await it.until(30 * 60_000)
        await it.send(track("cat", "Bought"))  # initech too: cat
        assert sorted(it.receiver.taken()) == [
            ("ann", "Audience Entered"),
            ("bob", "Audience Entered"),
            ("cat", "Audience Entered"),
        ]
        await it.until(70 * 60_000)  # acme is out, initech still in: ann stays
        assert it.receiver.taken()[3:] == [("bob", "Audience Exited")]
        await it.until(2 * HOUR_MS)
        assert sorted(it.receiver.taken()[4:]) == [("ann", "Audience Exited"), ("cat", "Audience Exited")]


async def test_connecting_an_account_audience_fills_accounts_and_their_users() -> None:
    async with stage() as it:
        audience = await it.audience("Big", "ANY (event('Bought').count() >= 1)", entity_type="ACCOUNTS")
        await it.send({"type": "group", "userId": "ann", "groupId": "acme"}, track("ann", "Bought"))
        await it.send({"type": "group", "userId": "bob", "groupId": "acme"})
        await it.connect(audience, await it.webhook(), sendIdentify=False)
        kinds = sorted((one.message["type"], str(one.message.get("userId"))) for one in it.receiver.seen)
        assert kinds == [("group", "None"), ("track", "ann"), ("track", "bob")]


async def test_a_pause_in_the_middle_of_a_profile_owes_its_exit() -> None:
    async with stage() as it:
        audience = await it.audience("Recent", "event('Bought').within(10 seconds).count() >= 1")
        connection = await it.connect(audience, await it.webhook(rate=1, burst=1))
        await it.send(track("ann", "Bought"))  # identify goes, track has to wait
        await it.destinations.disconnect(connection)
        await it.until(HOUR_MS)
        await it.destinations.update_connection(connection, enabled=True)
        await it.until(2 * HOUR_MS)
        assert it.receiver.taken("identify") == [("ann", "recent=true"), ("ann", "recent=false")]


async def test_what_was_connected_and_removed_leaves_no_rows() -> None:
    from eventlog.log import SENT

    async with stage() as it:
        _, _, connection = await filled(it, 30)
        it.receiver.rule = lambda ask, calls: answer(503)
        await it.send(track("late", "Bought"))
        await it.destinations.remove(connection)
        await it.step()
        assert it.log.range(SENT) == []
        await it.until(HOUR_MS)
        assert len([one for one in it.receiver.seen if one.status == 503]) == 1


async def test_a_merge_leaves_the_joined_value_of_a_trait_as_the_last_word() -> None:
    for seed in range(8):
        async with stage() as it:
            trait = await it.trait("Orders", "event('Bought').count()")
            await it.connect(trait, await it.webhook(rate=2, burst=1), sendTrack=False)
            visit = {"type": "track", "anonymousId": "v", "event": "Bought"}
            await it.send(track("ann", "Bought"), *[visit] * (1 + seed % 3), step=seed % 2 == 0)
            await it.send({"type": "identify", "userId": "ann", "anonymousId": "v", "traits": {}}, step=False)
            await it.send(visit, step=False)
            await it.until(HOUR_MS)
            assert it.receiver.taken("identify")[-1] == ("ann", f"orders={3 + seed % 3}")
