"""What is older than is kept is forgotten, and nothing is promised that would need it."""

from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copytree

import pytest

from actors.language import parse
from actors.retention import EVERY_MS, lookback_ms
from actors.space import open_space
from eventlog.entries import ERASED, EventsForgotten
from eventlog.errors import ConflictError, InvalidError
from eventlog.instants import iso
from eventlog.sqlite import SqliteLog
from tests.destinations.stage import DAY_MS, HOUR_MS, group, identify, track
from tests.privacy.room import KEY, Room, folded_anew, room

RECENT = "event('Order Completed').within(2 days).count() >= 1"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Room]:
    async with room(tmp_path) as opened:
        yield opened


# -- how far back a definition looks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("event('A').within(7 days).count() >= 1", 7),
        ("event('A').between(30 days, 90 days).count() >= 1", 90),
        ("event('A').within(7 days).between(1 days, 3 days).count() >= 1", 3),
        ("event('A').within(7 days).count() >= 1 AND NOT event('B').within(9 days).count() >= 1", 9),
        ("event('A').count() >= 1", None),
        ("event('A').since(2026-01-01T00:00:00Z).count() >= 1", None),
        ("trait('country') = 'PT'", 0),
        ("trait('country') = 'PT' OR event('A').count() >= 1", None),
        ("audience('others')", 0),
        ("event('A').where(event('B').within(parent: 1 days).count() >= 1).within(7 days).count() >= 1", 7),
        ("event('A').where(event('B').count() >= 1).within(7 days).count() >= 1", 7),
        ("event('A').where(NOT event('B').within(2 days).count() >= 1).count() >= 1", None),
        ("event('A').within(3 days).count() >= event('B').within(5 days).count()", 5),
        ("event('A').within(3 days).count() >= event('B').count()", None),
    ],
)
def test_a_look_back_is_the_widest_that_any_event_of_a_definition_has(query: str, days: int | None) -> None:
    assert lookback_ms(parse(query)) == (None if days is None else days * DAY_MS)


def test_quantified_parts_and_traits_look_back_too() -> None:
    assert lookback_ms(parse("ANY event('A').within(4 days).count() >= 1", entity_type="ACCOUNTS")) == 4 * DAY_MS
    assert lookback_ms(parse("event('A').within(4 days).sum(property('x'))", kind="trait")) == 4 * DAY_MS
    assert lookback_ms(parse("event('A').sum(property('x'))", kind="trait")) is None


# -- what is refused -------------------------------------------------------------------------------------------------


async def test_a_setting_that_keeps_less_than_a_definition_needs_is_refused_naming_it(here: Room) -> None:
    await here.audience("Recent", RECENT)
    await here.audience("Ever", "event('Order Completed').count() >= 1")
    await here.audience("Monthly", "event('Order Completed').within(30 days).count() >= 1")
    with pytest.raises(ConflictError, match="ever needs events of any age; monthly needs events of 30 days") as refused:
        await here.space.change_settings({"eventRetentionDays": 7})
    assert "recent" not in refused.value.message
    assert here.space.settings.event_retention_days is None
    await here.space.delete_definition("ever")
    await here.space.change_settings({"eventRetentionDays": 30})
    await here.space.change_settings({"maxIds": 500})
    with pytest.raises(ConflictError, match="monthly"):
        await here.space.change_settings({"eventRetentionDays": 29})


async def test_a_definition_that_needs_more_than_is_kept_is_refused_with_what_would_do(here: Room) -> None:
    await here.space.change_settings({"eventRetentionDays": 7})
    with pytest.raises(InvalidError, match=r"any age, but this space keeps them for 7 days .*\.within\(7 days\)"):
        await here.audience("Ever", "event('Order Completed').count() >= 1")
    await here.audience("Recent", RECENT)
    with pytest.raises(InvalidError, match="needs events of 8 days"):
        await here.space.edit_definition("recent", query="event('A').within(8 days).count() >= 1")
    await here.space.edit_definition("recent", query="event('A').within(7 days).count() >= 1")


async def test_a_forced_setting_leaves_definitions_as_they_stand_but_not_to_be_computed_anew(here: Room) -> None:
    await here.audience("Ever", "event('Order Completed').count() >= 1")
    await here.send(track("ann", "Order Completed"))
    await here.until(9 * DAY_MS)
    await here.space.change_settings({"eventRetentionDays": 7}, force=True)
    assert await here.space.retention.forget() == 1
    for restarted in (False, True):
        if restarted:
            await here.restart()
        assert len(await here.space.members("ever")) == 1
        with pytest.raises(InvalidError, match="ever needs events of any age"):
            await here.space.members("ever", at_ms=here.clock.now_ms())
        with pytest.raises(InvalidError, match="needs events of any age"):
            await here.space.edit_definition("ever", query="event('Order Completed').count() >= 2")


async def test_a_kill_after_events_were_forgotten_leaves_what_had_been_counted(here: Room, tmp_path: Path) -> None:
    await here.audience("Ever", "event('Order Completed').count() >= 1")
    await here.send(track("ann", "Order Completed"))
    await here.until(9 * DAY_MS)
    await here.space.change_settings({"eventRetentionDays": 7}, force=True)
    assert await here.space.retention.forget() == 1
    killed = tmp_path / "killed"
    copytree(here.path.parent, killed)  # what a kill leaves: nothing is written any more
    copied = await SqliteLog.open(killed / here.path.name)
    try:
        async with open_space("spa_1", copied, here.clock, suppression_key=KEY) as space:
            assert [space.name_of(one) for one, _ in await space.members("ever")] == ["ann"]
    finally:
        await copied.close()


# -- what is forgotten -----------------------------------------------------------------------------------------------


async def lived(here: Room) -> None:
    """Ten days of a space that keeps five."""
    await here.audience("Recent", RECENT)
    await here.audience(
        "Portuguese", "trait('country') = 'PT' AND NOT event('Order Completed').within(2 days).count() >= 1"
    )
    await here.audience("Busy", "event('Order Completed').within(3 days).count() >= 2", entity_type="ACCOUNTS")
    await here.space.change_settings({"eventRetentionDays": 5})
    await here.send(
        identify("ann", country="PT"),
        {"type": "track", "anonymousId": "a1", "event": "Viewed", "properties": {"page": "secret-page"}},
        {"type": "identify", "userId": "ann", "anonymousId": "a1"},
        group("ann", "acme", traits={"plan": "pro"}),
        group("bob", "acme"),
        {"type": "alias", "userId": "bob", "previousId": "b1"},
    )
    for day in range(10):
        await here.until(day * DAY_MS + HOUR_MS)
        await here.send(track("ann" if day % 4 else "bob", "Order Completed", properties={"day": f"day-{day}"}))
    await here.until(9 * DAY_MS + 2 * HOUR_MS)


async def test_old_events_are_gone_and_what_profiles_are_is_kept(here: Room) -> None:
    await lived(here)
    members = {key: await here.space.members(key) for key in ("recent", "portuguese", "busy")}
    assert here.holders("secret-page", "day-3")
    assert await here.space.retention.forget() > 0
    for restarted in (False, True):
        if restarted:
            await here.restart()
        assert here.holders("secret-page", "day-3", "day-0") == set()
        assert here.holders("day-5", "day-9")
        assert {key: await here.space.members(key) for key in members} == members
        ann = here.space.find("users", "anonymous_id", "a1")
        assert ann is not None
        assert ann == here.space.find("users", "user_id", "ann")
        assert {row.key: row.value for row in await here.space.traits_of(ann)}["country"] == "PT"
        kinds = [event["type"] for event in await here.space.events_of(ann)]
        assert kinds == ["identify", "identify", "group", *["track"] * 4]
    cut_ms = here.clock.now_ms() - 5 * DAY_MS
    assert [fact for fact in here.facts() if isinstance(fact, EventsForgotten)] == [EventsForgotten(cut_ms)]
    assert any(event.kind == ERASED for event in here.events())


async def test_forgetting_is_not_done_again_until_it_is_time(here: Room) -> None:
    await lived(here)
    assert await here.space.retention.forget() > 0
    assert await here.space.retention.forget() == 0
    await here.until(9 * DAY_MS + 12 * HOUR_MS)
    assert await here.space.retention.forget() == 0  # nothing has become too old
    await here.until(10 * DAY_MS + 12 * HOUR_MS)
    assert await here.space.retention.forget() > 0
    await here.send({**track("ann", "Order Completed"), "timestamp": iso(here.clock.now_ms() - 6 * DAY_MS)})
    await here.until(10 * DAY_MS + 12 * HOUR_MS + EVERY_MS - 1)
    assert await here.space.retention.forget() == 0  # one is too old, for less than an hour since the last time
    await here.until(10 * DAY_MS + 12 * HOUR_MS + EVERY_MS)
    assert await here.space.retention.forget() == 1


async def test_members_folded_anew_from_what_is_kept_are_those_that_stand(here: Room) -> None:
    await lived(here)
    await here.space.retention.forget()
    async with folded_anew(here) as anew:
        assert anew.identity.digest() == here.space.identity.digest()
        for key in ("recent", "portuguese", "busy"):
            ours, theirs = dict(await here.space.members(key)), dict(await anew.members(key))
            assert set(ours) == set(theirs), key


async def test_the_past_is_told_as_far_as_it_is_kept_and_refused_beyond(here: Room) -> None:
    await lived(here)
    now_ms = here.clock.now_ms()
    moments = [now_ms - hours * HOUR_MS for hours in range(0, 72, 9)]
    before = {at_ms: [one for one, _ in await here.space.members("recent", at_ms=at_ms)] for at_ms in moments}
    quiet = (await here.space.preview("NOT event('Order Completed').within(1 days).count() >= 1")).size
    await here.space.retention.forget()
    cut_ms = now_ms - 5 * DAY_MS
    for at_ms in moments:
        assert [one for one, _ in await here.space.members("recent", at_ms=at_ms)] == before[at_ms]
    assert len({tuple(one) for one in before.values()}) > 1
    assert await here.space.members("recent", at_ms=cut_ms + 2 * DAY_MS) is not None
    with pytest.raises(InvalidError, match=r"recent needs events of 2 days, .* ask about 2026-03-07T02:00:00"):
        await here.space.members("recent", at_ms=cut_ms + 2 * DAY_MS - 1)
    with pytest.raises(InvalidError, match="any age"):
        await here.space.preview("event('Order Completed').count() >= 1")
    assert (await here.space.preview("NOT event('Order Completed').within(1 days).count() >= 1")).size == quiet


async def test_without_a_setting_nothing_is_forgotten(here: Room) -> None:
    await here.send(track("ann", "Order Completed"))
    await here.until(400 * DAY_MS)
    assert await here.space.retention.forget() == 0
    assert here.space.retention.forgotten_ms is None
