"""Time in the partition: who leaves when, with no event, and what is late."""

import pytest

from tests.partition.stage import Stage, accounts, audience, trait


def test_a_member_leaves_exactly_when_its_event_is_as_old_as_the_window() -> None:
    #  [A----------)      in at 9.999, out at 10
    stage = Stage(audience("buyers", "event('A').within(10 seconds).count() >= 1"))
    assert stage.track("ann", "A") == [("+buyers", "ann", 0)]
    assert stage.wait(9.999) == []
    assert stage.wait(0.001) == [("-buyers", "ann", 10)]


def test_an_exit_is_dated_when_the_window_closed_however_late_time_is_told() -> None:
    stage = Stage(audience("buyers", "event('A').within(10 seconds).count() >= 1"))
    stage.track("ann", "A")
    assert stage.wait(1000) == [("-buyers", "ann", 10)]


def test_an_exit_comes_before_the_event_that_let_time_pass() -> None:
    stage = Stage(audience("buyers", "event('A').within(10 seconds).count() >= 1"))
    stage.track("ann", "A")
    stage.now_s = 12
    assert stage.track("ann", "A") == [("-buyers", "ann", 10), ("+buyers", "ann", 12)]


def test_between_lets_in_at_its_nearer_edge_and_out_at_its_farther_one() -> None:
    #  A   [-------)      out at 3.999, in at 4, in at 9.999, out at 10
    stage = Stage(audience("lapsed", "event('A').between(4 seconds, 10 seconds).count() >= 1"))
    assert stage.track("ann", "A") == []
    assert stage.wait(3.999) == []
    assert stage.wait(0.001) == [("+lapsed", "ann", 4)]
    assert stage.wait(5.999) == []
    assert stage.wait(0.001) == [("-lapsed", "ann", 10)]


def test_several_who_are_due_leave_in_order_of_time_each_at_its_own() -> None:
    stage = Stage(audience("buyers", "event('A').within(10 seconds).count() >= 1"))
    for name in ("ann", "bob", "cid"):
        stage.track(name, "A")
        stage.wait(1)
    assert stage.wait(60) == [("-buyers", "ann", 10), ("-buyers", "bob", 11), ("-buyers", "cid", 12)]


def test_an_event_that_renews_membership_at_the_instant_it_would_end_leaves_no_gap_before_it() -> None:
    stage = Stage(audience("buyers", "event('A').within(10 seconds).count() >= 1"))
    stage.track("ann", "A")
    stage.now_s = 10
    # Time is told first: at 10 the first event is out, and the second is heard of then.
    assert stage.track("ann", "A") == [("-buyers", "ann", 10), ("+buyers", "ann", 10)]


def test_a_late_event_counts_by_its_timestamp_and_leaves_by_it() -> None:
    stage = Stage(audience("buyers", "event('A').within(10 seconds).count() >= 1"))
    stage.wait(100)
    assert stage.track("ann", "A", ago_s=9) == [("+buyers", "ann", 100)]
    assert stage.wait(5) == [("-buyers", "ann", 101)]
    assert stage.track("ann", "A", ago_s=10) == []


def test_two_conditions_that_swap_at_one_instant_never_show_a_member_of_neither() -> None:
    query = "event('A').within(10 seconds).count() >= 1 OR event('A').between(10 seconds, 20 seconds).count() >= 1"
    stage = Stage(audience("both", query))
    stage.track("ann", "A")
    assert stage.wait(15) == []
    assert stage.wait(15) == [("-both", "ann", 20)]


def test_those_who_are_due_at_one_instant_are_seen_together_by_their_account() -> None:
    query = "ANY (event('A').within(10 seconds).count() > 0 OR event('B').between(10 seconds, 20 seconds).count() > 0)"
    stage = Stage(accounts("active", query))
    stage.group("ann", "ACME")
    stage.group("bob", "ACME")
    stage.track("ann", "A")  # ann is out at 10
    assert stage.track("bob", "B") == []  # bob is in at 10
    assert stage.wait(15) == []
    assert stage.wait(15) == [("-active", "ACME", 20)]


def test_a_user_of_an_account_follows_it_at_the_same_instant() -> None:
    stage = Stage(
        accounts("busy", "ANY (event('A').within(10 seconds).count() >= 1)"),
        audience("colleagues", "audience('busy') AND event('A').count() = 0"),
        accounts("quiet", "NOT ANY (audience('busy'))"),
    )
    stage.group("ann", "ACME")
    assert stage.group("bob", "ACME") == []
    assert ("-quiet", "ACME", 0) not in stage.told()
    assert stage.track("ann", "A") == [
        ("+busy", "ACME", 0),
        ("+colleagues", "bob", 0),
        ("-quiet", "ACME", 0),
    ]
    assert stage.wait(30) == [("-busy", "ACME", 10), ("-colleagues", "bob", 10), ("+quiet", "ACME", 10)]


def test_a_trait_that_is_a_date_lets_in_and_out_on_time() -> None:
    #  now      when          within_next(10): in from 40 to 50, both included; a millisecond later out
    stage = Stage(audience("renewing", "trait('when').within_next(10 seconds)"))
    assert stage.identify("ann", when="1970-01-01T00:00:50Z") == []
    assert stage.wait(39.999) == []
    assert stage.wait(0.001) == [("+renewing", "ann", 40)]
    assert stage.wait(20) == [("-renewing", "ann", 50.001)]


def test_a_date_that_is_written_into_the_definition_is_waited_for_by_everybody() -> None:
    stage = Stage(audience("launched", "literal('1970-01-01T00:00:50Z').within_last(10 seconds)"))
    stage.track("ann", "A")
    stage.wait(20)
    stage.track("bob", "A")
    assert stage.wait(40) == [("+launched", "ann", 50), ("+launched", "bob", 50)]
    assert stage.wait(40) == [("-launched", "ann", 60.001), ("-launched", "bob", 60.001)]


def test_a_computed_trait_changes_with_time_alone() -> None:
    stage = Stage(trait("recent", "event('A').within(10 seconds).count()"))
    assert stage.track("ann", "A") == [("recent=1", "ann", 0)]
    stage.wait(4)
    assert stage.track("ann", "A") == [("recent=2", "ann", 4)]
    assert stage.wait(60) == [("recent=1", "ann", 10), ("recent=0", "ann", 14)]


def test_a_session_ends_with_time_alone() -> None:
    stage = Stage(trait("visit", "event('A').expires_after(10 seconds).count()"))
    stage.track("ann", "A")
    stage.wait(9)
    assert stage.track("ann", "A") == [("visit=2", "ann", 9)]
    assert stage.wait(30) == [("visit=0", "ann", 19)]


def test_a_funnel_waits_for_its_window_and_leaves_when_the_awaited_event_comes() -> None:
    query = (
        "event('Checkout').where(NOT event('Order').within(parent: 5 seconds).count() >= 1)"
        ".between(5 seconds, 60 seconds).count() >= 1"
    )
    stage = Stage(audience("abandoned", query))
    stage.track("ann", "Checkout")
    stage.track("bob", "Checkout")
    stage.wait(3)
    stage.track("bob", "Order")
    assert stage.wait(10) == [("+abandoned", "ann", 5)]
    assert stage.track("ann", "Order", ago_s=9) == [("-abandoned", "ann", 13)]


@pytest.mark.parametrize("asleep", [("ann",), ("ann", "bob"), ()])
def test_who_was_put_away_leaves_on_time_all_the_same(asleep: tuple[str, ...]) -> None:
    stage = Stage(
        audience("buyers", "event('A').within(10 seconds).count() >= 1"),
        trait("recent", "event('A').within(10 seconds).count()"),
        audience("lapsed", "event('A').between(10 seconds, 20 seconds).count() >= 1"),
    )
    stage.track("ann", "A")
    stage.track("bob", "A")
    stage.sleep(*asleep)
    assert sorted(stage.wait(15)) == sorted(
        [(text, who, 10) for who in ("ann", "bob") for text in ("-buyers", "recent=0", "+lapsed")]
    )
    stage.sleep(*asleep)
    assert sorted(stage.wait(15)) == [("-lapsed", "ann", 20), ("-lapsed", "bob", 20)]


def test_timers_do_not_pile_up_however_often_somebody_is_put_away() -> None:
    stage = Stage(audience("buyers", "event('A').within(10000 seconds).count() >= 1"))
    stage.track("ann", "A")
    for _ in range(100):
        stage.sleep()
        stage.track("ann", "B")
    assert len(stage.partition.timers) <= 2


def test_what_is_due_of_a_definition_that_is_gone_wakes_nobody_for_ever() -> None:
    stage = Stage(audience("buyers", "event('A').within(10 seconds).count() >= 1"))
    stage.track("ann", "A")
    stage.delete("buyers")
    for _ in range(3):
        assert stage.wait(10) == []
        stage.track("ann", "A")
    stage.wait(10)
    assert len(stage.partition.timers) == 0


@pytest.mark.parametrize("first", ["ACME", "ann"])
def test_an_account_and_its_user_who_are_due_at_one_instant_are_both_woken_as_they_were_before(first: str) -> None:
    """Whoever of them is decided first brings the other into memory, in whose eyes nothing would then have changed."""
    stage = Stage(
        accounts("busy", "event('A').within(10 seconds).count() >= 1"),
        accounts("some_busy", "ANY event('A').within(10 seconds).count() >= 1"),
        audience("at_busy", "audience('busy')"),
        audience("buyers", "event('A').within(10 seconds).count() >= 1"),
    )
    stage.group("bob" if first == "ACME" else "ann", "ACME")
    stage.group("ann", "ACME")
    stage.track("ann", "A")
    stage.sleep("ann", "bob", "ACME")
    left = sorted(stage.wait(20))
    assert [(key, who, at_s) for key, who, at_s in left if who in {"ann", "ACME"}] == [
        ("-at_busy", "ann", 10),
        ("-busy", "ACME", 10),
        ("-buyers", "ann", 10),
        ("-some_busy", "ACME", 10),
    ]
