"""Who is who in the partition: ids, accounts, merges, erasure, and definitions that come and go."""

import pytest

from actors.partition import GATHER_SLICE
from tests.partition.stage import Stage, accounts, audience, trait


def test_a_profile_counts_once_it_has_one_of_the_ids_that_are_asked_for() -> None:
    stage = Stage(audience("buyers", "event('A').count() >= 1", known_only=True))
    assert stage.track("anon1", "A") == []
    assert stage.merge("ann", "anon1") == [("+buyers", "ann", 0)]


def test_a_profile_counts_once_it_absorbed_one_that_is_known() -> None:
    stage = Stage(audience("buyers", "event('A').count() >= 1", known_only=True))
    assert stage.track("anon1", "A") == []
    assert stage.identify("ann", t="x") == []
    assert stage.merge("anon1", "ann") == [("+buyers", "ann", 0)]


def test_a_profile_of_which_nothing_is_known_is_in_what_holds_of_nothing() -> None:
    stage = Stage(
        audience("none", "event('A').count() = 0"),
        audience("nameless", "trait('name').absent()"),
        accounts("empty", "NONE (event('A').count() >= 1)"),
        accounts("all", "ALL (event('A').count() >= 1)"),
        audience("outside", "NOT audience('none')"),
    )
    assert stage.group("", "ACME") == [("+empty", "ACME", 0)]
    assert sorted(stage.identify("ann")) == [("+nameless", "ann", 0), ("+none", "ann", 0)]
    assert sorted(stage.track("ann", "A")) == [("+outside", "ann", 0), ("-none", "ann", 0)]


def test_an_audience_of_an_audience_and_a_trait_in_an_audience_follow_within_one_event() -> None:
    stage = Stage(
        trait("spent", "event('A').sum(property('x'))"),
        audience("rich", "trait('spent') >= 100"),
        audience("rich_and_new", "audience('rich') AND event('B').count() = 0"),
        trait("bought", "event('A').where(trait('rich') = true).count()"),
    )
    assert stage.track("ann", "A", x=99) == [("spent=99", "ann", 0)]
    assert sorted(stage.track("ann", "A", x=1)) == [
        ("+rich", "ann", 0),
        ("+rich_and_new", "ann", 0),
        ("bought=2", "ann", 0),
        ("spent=100", "ann", 0),
    ]
    assert stage.track("ann", "B") == [("-rich_and_new", "ann", 0)]


def test_quantifiers_count_users_who_join_leave_and_change() -> None:
    stage = Stage(
        accounts("any", "ANY (event('A').count() >= 1)"),
        accounts("all", "ALL (event('A').count() >= 1)"),
        accounts("none", "NONE (event('A').count() >= 1)"),
    )
    stage.track("ann", "A")
    assert sorted(stage.group("ann", "ACME")) == [("+all", "ACME", 0), ("+any", "ACME", 0)]
    assert stage.group("bob", "ACME") == [("-all", "ACME", 0)]
    assert stage.track("bob", "A") == [("+all", "ACME", 0)]
    assert stage.group("ann", "ACME", left=True) == []
    assert sorted(stage.group("bob", "ACME", left=True)) == [
        ("+none", "ACME", 0),
        ("-all", "ACME", 0),
        ("-any", "ACME", 0),
    ]


def test_a_late_group_call_does_not_undo_a_later_one() -> None:
    stage = Stage(accounts("any", "ANY (event('A').count() >= 1)"))
    stage.wait(10)
    stage.track("ann", "A")
    stage.group("ann", "ACME", left=True, ago_s=2)
    assert stage.group("ann", "ACME", ago_s=5) == []
    assert stage.group("ann", "ACME", ago_s=1) == [("+any", "ACME", 10)]


def test_an_account_looks_at_the_whole_history_of_whoever_joins_and_forgets_it_with_who_leaves() -> None:
    stage = Stage(accounts("big", "event('A').sum(property('x')) >= 10"))
    stage.track("ann", "A", x=6)
    stage.track("bob", "A", x=4)
    stage.group("ann", "ACME")
    assert stage.group("bob", "ACME") == [("+big", "ACME", 0)]
    assert stage.group("bob", "ACME", left=True) == [("-big", "ACME", 0)]
    assert stage.track("bob", "A", x=100) == []
    assert stage.track("ann", "A", x=4) == [("+big", "ACME", 0)]


def test_what_was_the_largest_is_looked_for_again_in_slices_once_its_user_has_left() -> None:
    stage = Stage(trait("largest", "event('A').max(property('x'))", "ACCOUNTS"))
    stage.partition.in_slices = True
    for number in range(2 * GATHER_SLICE + 1):
        stage.track(f"u{number}", "A", x=number)
        stage.group(f"u{number}", "ACME")
    stage.group("u7", "ACME", left=True)
    assert stage.slices == 0  # it was not the largest: nothing to look for
    largest = 2 * GATHER_SLICE
    assert stage.group(f"u{largest}", "ACME", left=True) == [(f"largest={largest - 1}", "ACME", 0)]
    assert stage.slices == 1


def test_the_newest_events_of_those_who_left_do_not_stand_for_older_ones() -> None:
    stage = Stage(accounts("thrice", "event('A').within(10 seconds).count() >= 3"))
    for user in ("ann", "ann", "bob", "bob", "bob"):
        stage.track(user, "A")
        stage.wait(1)
    stage.group("ann", "ACME")
    assert stage.group("bob", "ACME") == [("+thrice", "ACME", 5)]
    assert stage.group("bob", "ACME", left=True) == [("-thrice", "ACME", 5)]
    assert stage.track("ann", "A") == [("+thrice", "ACME", 5)]
    assert stage.wait(6) == [("-thrice", "ACME", 10)]


def test_a_count_of_texts_is_absent_once_nobody_is_left_who_had_an_event() -> None:
    stage = Stage(trait("texts", "event('A').unique(property('x')).count()", "ACCOUNTS"))
    stage.track("ann", "A", x="a")
    assert stage.group("ann", "ACME") == [("texts=1", "ACME", 0)]
    stage.group("bob", "ACME")
    assert stage.group("ann", "ACME", left=True) == [("texts=null", "ACME", 0)]


def test_an_accounts_funnel_meets_events_of_all_its_users() -> None:
    stage = Stage(
        accounts("won", "event('Trial').where(event('Order').within(parent: 5 seconds).count() >= 1).count() >= 1")
    )
    stage.group("ann", "ACME")
    stage.group("bob", "ACME")
    stage.track("ann", "Trial")
    stage.wait(5)
    assert stage.track("bob", "Order") == [("+won", "ACME", 5)]


async def test_a_merge_joins_memberships_timers_and_half_open_funnels() -> None:
    stage = Stage(
        audience("twice", "event('A').within(10 seconds).count() >= 2"),
        audience("won", "event('Trial').where(event('Order').within(parent: 5 seconds).count() >= 1).count() >= 1"),
        audience("once", "event('A').count() >= 1"),
    )
    stage.track("ann", "A")
    stage.track("ann", "Trial")
    stage.wait(4)
    stage.track("anon1", "A")
    assert stage.track("anon1", "Order") == []
    assert sorted(stage.merge("ann", "anon1")) == [("+twice", "ann", 4), ("+won", "ann", 4), ("~once", "#2", 4)]
    await stage.check()
    assert stage.wait(20) == [("-twice", "ann", 10)]


async def test_a_merge_that_ends_what_held_of_a_half_tells_so() -> None:
    stage = Stage(audience("newcomers", "event('A').count() = 1"))
    stage.track("ann", "A")
    stage.track("anon1", "A")
    assert sorted(stage.merge("ann", "anon1")) == [("-newcomers", "#2", 0), ("-newcomers", "ann", 0)]
    await stage.check()


async def test_merged_halves_belong_to_an_account_as_their_last_group_call_says() -> None:
    stage = Stage(
        accounts("users", "ANY (event('A').count() >= 2)"),
        accounts("all", "ALL (event('A').count() >= 2)"),
        accounts("events", "event('A').count() >= 2"),
    )
    for name in ("one", "two", "three", "four", "five", "six"):
        stage.track(name, "A")
    # ACME: both are in. BETA: one is in. CORP: one is in, the other has left later.
    stage.group("one", "ACME")
    stage.group("two", "ACME")
    stage.group("three", "BETA")
    stage.wait(1)
    stage.group("five", "CORP")
    stage.wait(1)
    stage.group("six", "CORP", left=True)
    stage.told()
    assert stage.merge("one", "two") == [("+users", "ACME", 2), ("+all", "ACME", 2)]
    assert stage.merge("three", "four") == [("+events", "BETA", 2), ("+users", "BETA", 2), ("+all", "BETA", 2)]
    stage.merge("five", "six")
    assert stage.members("users") == ["ACME", "BETA"]
    assert stage.members("events") == ["ACME", "BETA"]
    await stage.check()


def test_profiles_that_merged_share_nothing_with_their_account() -> None:
    stage = Stage(accounts("events", "event('A').within(10 seconds).count() >= 3"), trait("n", "event('A').count()"))
    stage.group("ann", "ACME")
    stage.track("ann", "A")
    stage.track("ann", "A")
    assert stage.track("bob", "A") == [("n=1", "bob", 0)]
    assert stage.track("ann", "B") == []
    stage.group("bob", "BETA")
    assert stage.track("bob", "A") == [("n=2", "bob", 0)]
    assert stage.members("events") == []


async def test_erasure_ends_memberships_and_an_account_no_longer_counts_who_is_gone() -> None:
    stage = Stage(
        audience("buyers", "event('A').within(10 seconds).count() >= 1"),
        accounts("any", "ANY (event('A').count() >= 1)"),
        accounts("sum", "event('A').count() >= 1"),
    )
    stage.group("ann", "ACME")
    stage.track("ann", "A")
    stage.group("bob", "ACME")
    number = stage.entity("ann")
    assert sorted(stage.erase("ann")) == [
        ("-any", "ACME", 0),
        ("-buyers", f"#{number}", 0),
        ("-sum", "ACME", 0),
    ]
    assert stage.wait(20) == []
    assert stage.partition.find(number) is None
    await stage.check()


# -- definitions -------------------------------------------------------------------------------------------------------


def test_a_deleted_audience_leaves_its_last_value_behind() -> None:
    stage = Stage(audience("buyers", "event('A').count() >= 1"))
    stage.track("ann", "A")
    stage.track("bob", "B")
    assert stage.delete("buyers") == []
    stage.track("cid", "B")
    told = stage.define(
        audience("were", "trait('buyers') = true"),
        audience("were_not", "trait('buyers') = false"),
        audience("never", "trait('buyers').absent()"),
    )
    assert told == []
    for name in ("ann", "bob", "cid"):
        stage.identify(name, x=1)
    for key in ("were", "were_not", "never"):
        node = stage.partition.program.nodes[stage.number_of(key)]
        for name in ("ann", "bob", "cid"):
            entity = stage.partition.find(stage.entity(name))
            assert entity is not None
            stage.partition.ask(entity, node)
    stage.partition.settle()
    assert [stage.members(key) for key in ("were", "were_not", "never")] == [["ann"], ["bob"], ["cid"]]
    stage.wait(1)
    assert sorted(stage.identify("ann", buyers=False)) == [("+were_not", "ann", 1), ("-were", "ann", 1)]
    assert stage.members("were") == []


def test_while_a_definition_lives_its_key_is_its_own() -> None:
    stage = Stage(audience("vip", "event('A').count() >= 1"), audience("asked", "trait('vip') = true"))
    assert stage.identify("ann", vip=True) == []
    assert stage.track("ann", "A") == [("+vip", "ann", 0), ("+asked", "ann", 0)]


@pytest.mark.parametrize("window", [".within(10 seconds)", ""])  # its end wakes ann, or nothing does
async def test_a_quantified_condition_that_was_forgotten_and_asked_again_is_counted_anew(window: str) -> None:
    condition = f"event('A'){window}.count() >= 1"
    stage = Stage(accounts("busy", f"ANY ({condition})"))
    stage.group("ann", "ACME")
    stage.track("ann", "A")
    stage.sleep()
    stage.delete("busy")
    stage.wait(20)
    stage.group("bob", "ACME")
    stage.sleep("bob")
    stage.define(accounts("again", f"ANY ({condition})"), accounts("quiet", f"NONE ({condition})"))
    for key in ("again", "quiet"):
        node = stage.partition.program.nodes[stage.number_of(key)]
        for number in list(stage.numbers.values()):
            entity = stage.partition.find(number)
            assert entity is not None
            stage.partition.ask(entity, node)
    stage.partition.settle()
    assert stage.told() == [("+quiet", "ACME", 20)]  # a past is not looked for here
    assert stage.track("bob", "A") == [("+again", "ACME", 20), ("-quiet", "ACME", 20)]
    stage.recount()
    assert stage.group("bob", "ACME", left=True) == [("-again", "ACME", 20), ("+quiet", "ACME", 20)]
    stage.recount()


def test_an_account_that_was_put_away_tells_its_users_what_they_begin_to_look_at() -> None:
    stage = Stage(accounts("busy", "event('A').count() >= 1"))
    stage.group("ann", "ACME")
    stage.track("ann", "A")
    stage.sleep()
    stage.define(audience("at_busy", "audience('busy')"))
    entity = stage.partition.find(stage.entity("ann"))
    assert entity is not None
    stage.partition.ask(entity, stage.partition.program.nodes[stage.number_of("at_busy")])
    stage.partition.settle()
    assert stage.members("at_busy") == ["ann"]


def test_what_nobody_asks_any_more_is_no_longer_kept() -> None:
    stage = Stage(
        audience("buyers", "event('A').within(10 seconds).count() >= 1"), audience("b", "event('B').count() > 0")
    )
    stage.track("ann", "A")
    stage.track("ann", "B")
    stage.delete("buyers")
    entity = stage.partition.find(stage.entity("ann"))
    assert entity is not None
    assert len(entity.s) == 1
    assert entity.dues == {}
