"""The life of definitions in a space: backfill, edit, lock, disable, delete, and what they leave behind."""

from typing import Any

import anyio
import pytest

from actors.backfill import SWITCH_SLICE
from eventlog.entries import TRACK, Definition, DefinitionSaved, Options
from eventlog.errors import ConflictError, InvalidError, NotFoundError
from tests.space.room import Room, call

DAY_S = 86_400
BUYERS = "event('A').count() >= 1"


async def test_a_new_audience_knows_the_past(here: Room) -> None:
    await here.track("ann", "A")
    await here.track("bob", "B")
    await here.track("anon1", "A")
    await here.define("Buyers", BUYERS)
    assert await here.members("buyers") == ["ann"]
    assert here.space.definition("buyers").status == "Live"
    await here.check()


async def test_events_that_come_while_the_past_is_gathered_are_neither_lost_nor_counted_twice(here: Room) -> None:
    for name in ("ann", "bob", "cid"):
        await here.track(name, "A")
    await here.define("Thrice", "event('A').count() = 3", wait=False)
    await here.define("Once", "event('A').count() = 1", wait=False)
    for name in ("ann", "ann", "bob", "dan"):
        await here.track(name, "A")
    await here.space.backfilled()
    for name in ("bob", "eve"):
        await here.track(name, "A")
    assert await here.members("thrice") == ["ann", "bob"]
    assert await here.members("once") == ["cid", "dan", "eve"]
    await here.check()


async def test_profiles_that_merge_while_the_past_is_gathered_are_counted_as_one(here: Room) -> None:
    await here.track("ann", "A")
    await here.track("anon1", "A")
    await here.send(call("ann", "group", groupId="acme"))
    await here.define("Twice", "event('A').count() = 2", wait=False)
    await here.define("Team", "event('A').count() = 2", entity_type="ACCOUNTS", wait=False)
    await here.define("Any", "ANY (event('A').count() = 2)", entity_type="ACCOUNTS", wait=False)
    await here.send(call("ann", "identify", anonymousId="anon1"))
    await here.space.backfilled()
    assert await here.members("twice") == ["ann"]
    assert await here.members("team") == ["acme"]
    assert await here.members("any") == ["acme"]
    await here.check()


async def test_a_definition_whose_past_was_being_gathered_when_it_died_is_gathered_again(here: Room) -> None:
    await here.track("ann", "A")
    await here.die(backfills=False)
    await here.define("Buyers", BUYERS, wait=False)
    await here.track("bob", "A")
    assert here.space.definition("buyers").status == "Preparing"
    assert await here.members("buyers") == []
    await here.space.checkpoint()
    await here.die()
    await here.track("cid", "A")
    await here.space.backfilled()
    assert await here.members("buyers") == ["ann", "bob", "cid"]
    await here.check()


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_a_switch_that_is_folded_again_tells_the_same(here: Room, checkpoint: bool) -> None:
    await here.track("ann", "A")
    await here.track("anon1", "A")
    if checkpoint:
        await here.space.checkpoint()
    await here.define("Buyers", BUYERS, filter_by_external_ids=("user_id", "anonymous_id"))
    await here.send(call("ann", "identify", anonymousId="anon1"))
    told = await here.told()
    # Who is who is stored and so ahead of what is folded again.
    changes = here.space.identity.pending_changes(here.log.last_seq)
    assert changes is not None
    await here.log.store([changes])
    await here.die()
    assert await here.told() == told
    await here.check()


async def test_an_audience_that_counts_nothing_knows_everybody(here: Room) -> None:
    await here.track("ann", "A")
    await here.track("bob", "B")
    await here.send(call("ann", "group", groupId="acme"), {"type": "group", "groupId": "void"})
    await here.define("None", "event('A').count() = 0")
    await here.define("Nobody", "NONE (event('A').count() >= 1)", entity_type="ACCOUNTS")
    await here.track("cid", "B")
    assert await here.members("none") == ["bob", "cid"]
    assert await here.members("nobody") == ["void"]
    await here.check()


async def test_without_historical_data_only_what_comes_after_creation_counts_also_after_an_edit(here: Room) -> None:
    await here.track("ann", "A")
    await here.define("Buyers", BUYERS, include_historical_data=False)
    await here.track("bob", "A")
    assert await here.members("buyers") == ["bob"]
    await here.track("cid", "A")
    await here.space.edit_definition("buyers", query="event('A').count() >= 1 AND event('A').count() < 9")
    await here.space.backfilled()
    assert await here.members("buyers") == ["bob", "cid"]
    await here.check()


async def test_days_of_the_past_are_counted_back_from_creation(here: Room) -> None:
    #  created - 2 d (-----A-----] created      exactly two days old is out, a millisecond younger in
    await here.track("ann", "A", ago_s=2 * DAY_S)
    await here.track("bob", "A", ago_s=2 * DAY_S - 0.001)
    await here.define("Buyers", BUYERS, backfill_event_data_days=2)
    assert await here.members("buyers") == ["bob"]
    await here.wait(DAY_S)
    await here.track("cid", "A", ago_s=2 * DAY_S)
    assert await here.members("buyers") == ["bob", "cid"]
    await here.check()


async def test_traits_always_count(here: Room) -> None:
    await here.identify("ann", plan="pro")
    await here.define("Pro", "trait('plan') = 'pro'", include_historical_data=False)
    assert await here.members("pro") == ["ann"]


# -- edits -------------------------------------------------------------------------------------------------------------


async def test_an_edit_keeps_the_old_members_until_its_past_is_known_and_then_tells_only_differences(
    here: Room,
) -> None:
    await here.track("ann", "A")
    await here.track("bob", "A")
    await here.track("bob", "B")
    await here.track("cid", "B")
    await here.define("Buyers", BUYERS)
    await here.die(backfills=False)
    edited = await here.space.edit_definition("buyers", query="event('B').count() >= 1")
    assert edited.version == 2
    view = here.space.definition("buyers")
    assert (view.locked, view.status) == (True, "Preparing")
    assert await here.members("buyers") == ["ann", "bob"]
    with pytest.raises(ConflictError, match="locked") as refused:
        await here.space.edit_definition("buyers", query="event('C').count() >= 1")
    assert refused.value.code == "locked"
    await here.track("dan", "A")  # the old version still decides
    assert await here.members("buyers") == ["ann", "bob", "dan"]
    await here.die()
    await here.space.backfilled()
    assert await here.members("buyers") == ["bob", "cid"]
    told = await here.told()
    assert sorted(told[3:]) == [("+buyers", "cid", 0), ("-buyers", "ann", 0), ("-buyers", "dan", 0)]
    assert here.space.definition("buyers").locked is False
    await here.check()


async def test_a_name_is_changed_without_a_backfill(here: Room) -> None:
    await here.define("Buyers", BUYERS)
    edited = await here.space.edit_definition("buyers", name="Customers")
    assert (edited.version, edited.key, edited.name) == (1, "buyers", "Customers")
    assert here.space.definition("buyers").locked is False


async def test_a_definition_that_is_deleted_before_its_past_is_gathered_is_gone_and_checkpoints_go_on(
    here: Room,
) -> None:
    await here.track("ann", "A")
    await here.die(backfills=False)
    await here.define("Buyers", BUYERS, wait=False)
    await here.space.delete_definition("buyers")
    await here.die()
    await here.space.backfilled()
    await here.track("bob", "A")
    await here.space.settle()
    await here.space.checkpoint()
    assert here.log.cursor("partition") == here.space.folded_seq
    assert await here.told() == []


async def test_a_definition_that_is_deleted_just_before_its_switch_leaves_the_space_as_it_was(here: Room) -> None:
    await here.track("ann", "A")
    await here.define("Buyers", BUYERS, wait=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.space.backfills.done)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(here.space.delete_definition, "buyers")
    await here.space.settle()
    before = here.space.folded_seq
    await here.track("bob", "A")
    await here.space.settle()
    await here.space.checkpoint()
    assert here.log.cursor("partition") > before
    await here.check()


# -- disabling and deleting --------------------------------------------------------------------------------------------


async def test_disabling_freezes_and_enabling_catches_up(here: Room) -> None:
    await here.define("Buyers", BUYERS)
    await here.define("Asked", "audience('buyers')")
    await here.track("ann", "A")
    await here.space.edit_definition("buyers", enabled=False)
    assert here.space.definition("buyers").status == "Disabled"
    await here.track("bob", "A")
    assert await here.members("buyers") == ["ann"]
    assert await here.members("asked") == ["ann"]
    await here.die()
    assert await here.members("buyers") == ["ann"]
    await here.space.edit_definition("buyers", enabled=True)
    await here.space.backfilled()
    assert await here.members("buyers") == ["ann", "bob"]
    assert await here.members("asked") == ["ann", "bob"]
    await here.check()


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_a_deleted_audience_leaves_true_with_its_members_and_false_with_all_others(
    here: Room, checkpoint: bool
) -> None:
    await here.define("Buyers", BUYERS)
    await here.track("ann", "A")
    await here.track("bob", "B")
    await here.space.delete_definition("buyers")
    if checkpoint:
        await here.space.checkpoint()
    await here.die()
    await here.track("cid", "B")
    await here.define("Were", "trait('buyers') = true")
    await here.define("Were not", "trait('buyers') = false")
    assert await here.members("were") == ["ann"]
    assert await here.members("were_not") == ["bob"]
    await here.check()  # ann has nothing else that is looked at
    await here.identify("ann", buyers=False)
    assert await here.members("were_not") == ["ann", "bob"]
    await here.check()


async def test_a_deleted_trait_leaves_its_values(here: Room) -> None:
    await here.define("Spent", "event('A').sum(property('x'))", kind="trait")
    await here.track("ann", "A", x=5)
    assert await here.values("spent") == {"ann": 5}
    await here.space.delete_definition("spent")
    await here.track("ann", "A", x=5)
    rows = {row.key: (row.kind, row.value) for row in await here.space.traits_of(here.entity("ann"))}
    assert rows == {"spent": ("custom", 5)}


async def test_what_was_never_live_leaves_nothing_behind(here: Room) -> None:
    await here.track("ann", "A")
    await here.define("Buyers", BUYERS, enabled=False, wait=False)
    await here.space.delete_definition("buyers")
    assert await here.space.traits_of(here.entity("ann")) == []
    await here.define("Without", "trait('buyers').absent()")
    assert await here.members("without") == ["ann"]
    await here.check()


@pytest.mark.parametrize(
    "options", [{"backfill_event_data_days": 0}, {"backfill_event_data_days": 36_501}, {"filter_by_external_ids": ()}]
)
async def test_options_that_make_no_sense_are_refused_at_a_creation_and_at_an_edit(
    here: Room, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidError, match="expected"):
        await here.define("odd", BUYERS, **options)
    await here.define("buyers", BUYERS)
    with pytest.raises(InvalidError, match="expected"):
        await here.space.edit_definition("buyers", options=Options(**options))
    assert here.space.definition("buyers").definition.options == Options()


async def test_a_key_is_never_used_again(here: Room) -> None:
    await here.define("Buyers", BUYERS)
    await here.space.delete_definition("buyers")
    await here.space.checkpoint()
    await here.die()
    with pytest.raises(ConflictError) as refused:
        await here.define("Büyérs ", BUYERS)
    assert refused.value.code == "key_taken"
    with pytest.raises(ConflictError):
        await here.define("Other", "event('A').count()", kind="trait", wait=False) and await here.define(
            "other", BUYERS
        )


async def test_cycles_are_refused_and_name_the_way_round(here: Room) -> None:
    await here.define("One", "trait('two').exists()")
    with pytest.raises(InvalidError, match="two -> one -> two"):
        await here.define("Two", "audience('one')")
    await here.define("Three", "audience('one')")
    with pytest.raises(InvalidError, match="cycle"):
        await here.space.edit_definition("one", query="event('A').where(audience('three')).count() >= 1")


async def test_what_others_refer_to_is_not_deleted(here: Room) -> None:
    await here.define("One", BUYERS)
    await here.define("Two", "audience('one')")
    with pytest.raises(ConflictError, match="two"):
        await here.space.delete_definition("one")
    await here.space.delete_definition("two")
    await here.space.delete_definition("one")
    with pytest.raises(NotFoundError):
        here.space.definition("one")


async def test_a_definition_in_the_log_of_which_nothing_is_stored_is_live_after_a_start(here: Room) -> None:
    await here.track("ann", "A")
    await here.define("Buyers", BUYERS)
    stored = [fact for commit in here.log.read() for fact in commit.facts if isinstance(fact, DefinitionSaved)]
    assert isinstance(stored[0].definition, Definition)
    await here.die()
    assert here.space.definition("buyers").definition.created_seq > 0
    assert await here.members("buyers") == ["ann"]
    assert sum(event.kind == TRACK for commit in here.log.read() for event in commit.events) == 1


async def test_others_get_a_turn_while_everybody_joins_and_reads_wait_for_all_of_them(here: Room) -> None:
    people = 4 * SWITCH_SLICE
    await here.send(*(call(f"u{number}", "track", event="A") for number in range(people)))
    sizes: set[int] = set()

    async def look() -> None:
        while True:
            sizes.add(here.space.definition("buyers").size if here.space.definitions() else 0)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await here.define("Buyers", "event('A').count() >= 1", wait=False)
        while not 0 < max(sizes) < people:  # seen half way
            await anyio.lowlevel.checkpoint()
        assert len(await here.members("buyers")) == people
        tasks.cancel_scope.cancel()
    assert len([size for size in sizes if 0 < size < people]) >= 2
    assert len(await here.told()) == people
