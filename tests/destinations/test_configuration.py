"""Destinations and connections as facts: what is stored, what is refused, what a restart brings back."""

from random import Random
from typing import Any

import pytest

from actors.delivery import IdSync
from actors.destinations_state import PROJECTION, Destinations
from adapters.destinations import DESTINATIONS
from adapters.destinations.sealing import KEY_FILE, FernetSeal, load_seal, new_seal
from eventlog.errors import ConfigError, ConflictError, InvalidError, NotFoundError
from eventlog.log import DELIVERIES, SENT, Changes
from tests.destinations.stage import HOUR_MS, answer, identify, stage, track

ONCE = "event('Bought').count() >= 1"


async def test_a_restart_brings_everything_back_also_when_the_rows_were_thrown_away() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook(secret="s3cret", rate=7)
        connection = await it.connect(
            audience, destination, sendTrack=False, id_sync=[IdSync(external_id="email", strategy="all")]
        )
        await it.destinations.disconnect(connection)
        before = (it.destinations.destinations(), it.destinations.connections())
        await it.restart()
        assert (it.destinations.destinations(), it.destinations.connections()) == before
        folded = Destinations(it.space, DESTINATIONS, new_seal(), Random(1))  # noqa: S311 - a seed
        for commit in it.log.read():
            for fact in commit.facts:
                folded.fold(fact)
        assert (folded.destinations(), folded.connections()) == before


async def test_a_start_keeps_what_only_the_log_told_so_that_the_next_need_not_read_it() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        await it.connect(audience, await it.webhook(rate=7))
        before = (it.destinations.destinations(), it.destinations.connections())
        names = [key for key, _ in it.log.range(DELIVERIES, ("",))]
        await it.log.store([Changes(PROJECTION, 0, deletes=((DELIVERIES, names),))])
        for _ in range(2):
            started = Destinations(it.space, DESTINATIONS, new_seal(), Random(1))  # noqa: S311 - a seed
            await started.open()
            assert (started.destinations(), started.connections()) == before
            assert [key for key, _ in it.log.range(DELIVERIES, ("",))] == names
            assert it.log.cursor(PROJECTION) == it.log.last_seq


async def test_secrets_are_neither_in_the_log_nor_in_what_is_shown_and_survive_a_masked_edit() -> None:
    async with stage() as it:
        destination = await it.webhook(secret="s3cret-value")
        written = str(list(it.log.read())) + str(it.log.range(DELIVERIES))
        assert "s3cret-value" not in written
        shown = it.destinations.shown(it.destinations.destination(destination))
        assert shown["secret"] == "********"
        await it.destinations.update_destination(destination, settings={**shown, "rate": 9})
        readable = it.destinations.readable(it.destinations.destination(destination))
        assert (readable["secret"], readable["rate"]) == ("s3cret-value", 9)


async def test_headers_are_secret_too_and_are_sent_as_given() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook(headers={"Authorization": "Bearer t0ken-value"})
        assert "t0ken-value" not in str(list(it.log.read())) + str(it.log.range(DELIVERIES))
        assert it.destinations.shown(it.destinations.destination(destination))["headers"] == "********"
        await it.connect(audience, destination, sendIdentify=False)
        it.receiver.script(answer(401, body=b"Bearer t0ken-value is no good"))
        await it.send(track("ann", "Bought"))
        assert ("Authorization", "Bearer t0ken-value") in it.receiver.seen[0].ask.headers
        assert "t0ken-value" not in it.deliveries.dead_letters(destination)[0].reason


async def test_a_secret_that_the_receiver_repeats_does_not_get_into_dead_letters() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook(secret="s3cret-value")
        await it.connect(audience, destination, sendIdentify=False)
        it.receiver.script(answer(400, body=b"wrong secret s3cret-value, stupid"))
        await it.send(track("ann", "Bought"))
        (letter,) = it.deliveries.dead_letters(destination)
        assert "wrong secret ********" in letter.reason
        assert "s3cret-value" not in str(list(it.log.read())) + str(it.log.range(DELIVERIES))


@pytest.mark.parametrize(
    ("kind", "settings", "field"),
    [
        ("webhook", {}, None),
        ("webhook", {"url": "ftp://x"}, "url"),
        ("webhook", {"url": 5}, "url"),
        ("webhook", {"url": {"sealed": "x"}}, "url"),
        ("webhook", {"url": "https://x.org", "secret": {"sealed": "x"}}, "secret"),
        ("webhook", {"url": "https://x.org", "secrte": "x"}, None),
        ("webhook", {"url": "https://x.org", "rate": 0}, "rate"),
        ("webhook", {"url": "https://x.org", "burst": 0}, "burst"),
        ("webhook", {"url": "https://x.org", "concurrency": 1000}, "concurrency"),
        ("webhook", {"url": "https://x.org", "headers": {"a\nb": "c"}}, None),
        ("mailchimp", {"apiKey": "no-data-center-", "listId": "x"}, "apiKey"),
        ("nonsense", {}, "type"),
    ],
)
async def test_wrong_settings_are_refused_naming_the_field(
    kind: str, settings: dict[str, Any], field: str | None
) -> None:
    async with stage() as it:
        with pytest.raises(InvalidError) as caught:
            await it.destination(kind, settings)
        assert caught.value.field == field
        assert it.destinations.destinations() == []


async def test_there_is_one_configuration_per_destination_type_and_audience() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        first, second = await it.webhook(), await it.webhook()
        connection = await it.connect(audience, first)
        with pytest.raises(ConflictError) as caught:
            await it.connect(audience, second)
        assert caught.value.code == "type_connected"
        with pytest.raises(ConflictError) as caught:
            await it.connect(audience, first)
        assert caught.value.code == "already_connected"
        await it.destinations.disconnect(connection)
        assert await it.connect(audience, first) == connection  # resumes, settings kept
        await it.destinations.remove(connection)
        await it.connect(audience, second)


async def test_disconnecting_keeps_settings_and_reconnecting_uses_them_for_what_changed_since_alone() -> None:
    async with stage() as it:
        audience, crm = await it.audience("Buyers", ONCE), await it.webhook()
        chosen = [IdSync(external_id="email", strategy="first", map_to="userId")]
        connection = await it.connect(
            audience, crm, id_sync=chosen, sendIdentify=False, enteredEventName="Came in", note="the client's own"
        )
        await it.send(identify("ann", email="ann@x.org"), track("ann", "Bought"))
        await it.destinations.disconnect(connection)
        (before,) = it.destinations.connections()
        await it.send(identify("bob", email="bob@x.org"), track("bob", "Bought"))
        await it.restart()
        assert it.receiver.taken() == [("ann@x.org", "Came in")]
        assert (await it.destinations.connect(audience, crm)).id == connection  # no settings given
        await it.step()
        (after,) = it.destinations.connections()
        assert (after.settings, after.id_sync) == (before.settings, before.id_sync)
        assert after.settings["note"] == "the client's own"
        assert it.receiver.taken() == [("ann@x.org", "Came in"), ("bob@x.org", "Came in")]


@pytest.mark.parametrize(
    ("settings", "id_sync"),
    [
        ({"sendTrack": "yes"}, None),
        ({"enteredEventName": 5}, None),
        ({"big": "x" * 40_000}, None),
        ({}, [IdSync(external_id="")]),
        ({}, [IdSync(external_id="email")] * 51),
    ],
)
async def test_wrong_connection_settings_are_refused(settings: dict[str, Any], id_sync: Any) -> None:
    async with stage() as it:
        audience, destination = await it.audience("Buyers", ONCE), await it.webhook()
        with pytest.raises(InvalidError):
            await it.destinations.connect(audience, destination, settings=settings, id_sync=id_sync)


async def test_what_is_not_there_is_said_to_be_not_there() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        with pytest.raises(NotFoundError):
            await it.destinations.connect(audience, "dst_none")
        with pytest.raises(NotFoundError):
            await it.destinations.update_destination("dst_none")
        with pytest.raises(NotFoundError):
            it.deliveries.status("dst_none")
        destination = await it.webhook()
        await it.step()
        with pytest.raises(NotFoundError):
            await it.deliveries.resend(destination, "no-such-letter")


async def test_deleting_a_destination_leaves_no_rows_of_it_also_after_a_crash_in_between() -> None:
    for crash in (False, True):
        async with stage() as it:
            audience = await it.audience("Buyers", ONCE)
            destination = await it.webhook()
            await it.connect(audience, destination)
            await it.send(identify("ann", email="ann@x.org"), track("ann", "Bought"))
            await it.destinations.delete_destination(destination)
            if crash:
                await it.restart()
            else:
                await it.step()
            assert it.log.range(SENT) == []
            assert it.log.range(DELIVERIES) == []
            assert it.destinations.connections() == []


async def test_a_configuration_can_be_imported_with_its_secrets() -> None:
    async with stage() as it:
        original = await it.webhook(secret="s3cret")
        copy = await it.destinations.copy_destination(original, name="second", source_id="other")
        assert it.destinations.readable(copy) == it.destinations.readable(it.destinations.destination(original))
        assert (copy.name, copy.source_id) == ("second", "other")


async def test_ids_are_chosen_and_mapped_as_id_sync_says() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE, filter_by_external_ids=("user_id",))
        chosen = [
            IdSync(external_id="user_id", map_to="customer_no"),
            IdSync(external_id="anonymous_id", strategy="all"),
            IdSync(external_id="email", strategy="first"),
        ]
        await it.send(
            {"type": "identify", "userId": "ann", "anonymousId": "a1", "traits": {"email": "one@x.org"}},
            {"type": "identify", "userId": "ann", "anonymousId": "a2", "traits": {"email": "two@x.org"}},
            track("ann", "Bought"),
        )
        await it.connect(audience, await it.webhook(), id_sync=chosen, sendTrack=False)
        bodies = [one.message for one in it.receiver.seen]
        assert [(body.get("userId"), body.get("anonymousId")) for body in bodies] == [
            (None, "a2"),
            (None, "a1"),
            (None, "a2"),
        ]
        assert bodies[0]["traits"] == {"email": "one@x.org", "customer_no": "ann", "buyers": True}
        assert bodies[0]["context"]["externalIds"][0]["type"] == "customer_no"


async def test_a_profile_without_any_chosen_id_is_told_by_its_anonymous_id() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE, filter_by_external_ids=("anonymous_id",))
        await it.connect(audience, await it.webhook())
        await it.send({"type": "track", "anonymousId": "a1", "event": "Bought"})
        assert [one.message["anonymousId"] for one in it.receiver.seen] == ["a1", "a1"]


async def test_settings_sealed_with_another_key_stop_the_destination_and_say_so() -> None:
    async with stage() as it:
        audience = await it.audience("Buyers", ONCE)
        destination = await it.webhook(secret="s3cret")
        await it.connect(audience, destination)
        it._seal = new_seal()
        await it.restart()
        await it.send(track("ann", "Bought"))
        status = it.deliveries.status(destination)
        assert status.state == "misconfigured"
        assert KEY_FILE in status.reason
        assert it.receiver.seen == []
        await it.destinations.update_destination(
            destination, settings={"url": "https://crm.example.com/hook", "secret": "new"}
        )
        await it.until(HOUR_MS)
        assert it.receiver.taken() == [("ann", "Audience Entered")]


def test_the_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Any) -> None:
    sealed = load_seal(tmp_path).seal("text")
    assert load_seal(tmp_path).open(sealed) == "text"
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError):
        new_seal().open(sealed)
    (tmp_path / KEY_FILE).write_text("rubbish")
    with pytest.raises(ConfigError):
        load_seal(tmp_path)
    assert isinstance(new_seal(), FernetSeal)
