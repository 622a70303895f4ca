"""What is owed, against an obvious reference: tell everybody everything, then leave out what is known."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from actors.delivery import Answer, IdSync, Limits, Verdict
from actors.delivery_ids import ids_key, ids_of_key, select
from actors.delivery_plan import Told, begun, owed, settled
from actors.delivery_retry import RETRY_AFTER_MAX_MS, Breaker, backoff_ms, failed, judge, probing, succeeded

pairs = st.sampled_from([("userId", "u"), ("userId", "v"), ("email", "e"), ("email", "f"), ("anonymousId", "a")])
idsets = st.sets(pairs, min_size=1, max_size=2).map(lambda found: tuple(sorted(found)))
OK = Verdict(how="delivered")
LIMITS = Limits(10, 10, 4, 0, 1_000, 300_000, 86_400_000)


@given(st.lists(st.tuples(st.booleans(), st.sets(idsets, max_size=3)), max_size=8))
def test_after_every_change_each_id_that_knows_of_the_profile_knows_the_truth(
    changes: list[tuple[bool, set[tuple[tuple[str, str], ...]]]],
) -> None:
    """In: each selected id was told so. Out: no id still believes it, whatever is selected by then."""
    told: dict[tuple[tuple[str, str], ...], Told] = {}
    believes: dict[tuple[str, str], bool] = {}
    for seq, (value, selected) in enumerate(changes, 1):
        targets = owed(value=value, kind="audience", seq=seq, told=told, selected=sorted(selected), again=False)
        for target in targets:
            told |= settled(target, [OK, OK], kind="audience", seq=seq, told=told)
            believes |= dict.fromkeys(target.ids, target.value)
        if value:
            assert all(believes[pair] for ids in selected for pair in ids)
        else:
            assert not any(believes.values())
        assert owed(value=value, kind="audience", seq=seq, told=told, selected=sorted(selected), again=True) == ()


def test_an_exit_goes_once_to_a_user_id_with_its_email_not_twice() -> None:
    told = {
        (("userId", "u"),): Told(True, 1),
        (("email", "e"), ("userId", "u")): Told(True, 1),
        (("email", "f"), ("userId", "u")): Told(True, 1),
    }
    targets = owed(value=False, kind="audience", seq=2, told=told, selected=[], again=False)
    assert sorted(target.ids for target in targets) == [
        (("email", "e"), ("userId", "u")),
        (("email", "f"), ("userId", "u")),
    ]


def test_a_refused_entry_owes_no_exit_and_one_that_may_have_arrived_does() -> None:
    ids = (("userId", "u"),)
    (target,) = owed(value=True, kind="audience", seq=1, told={}, selected=[ids], again=False)
    refused = settled(target, [Verdict(how="dead")], kind="audience", seq=1, told={})
    assert owed(value=False, kind="audience", seq=2, told=refused, selected=[ids], again=False) == ()
    timed_out = settled(target, [Verdict(how="dead", unsure=True)], kind="audience", seq=1, told={})
    assert len(owed(value=False, kind="audience", seq=2, told=timed_out, selected=[ids], again=False)) == 1
    partly = begun(target, seq=1, told={})
    assert len(owed(value=False, kind="audience", seq=2, told=partly, selected=[ids], again=False)) == 1


def test_a_trait_is_told_on_change_only_and_null_only_where_it_was_known() -> None:
    ids, other = (("userId", "u"),), (("userId", "v"),)
    (target,) = owed(value=5, kind="trait", seq=1, told={}, selected=[ids], again=False)
    told = settled(target, [OK], kind="trait", seq=1, told={})
    assert owed(value=5, kind="trait", seq=2, told=told, selected=[ids], again=False) == ()
    assert owed(value=6, kind="trait", seq=3, told=told, selected=[ids], again=False)[0].value == 6
    (gone,) = owed(value=None, kind="trait", seq=4, told=told, selected=[other], again=False)
    assert (gone.ids, gone.value) == (ids, None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["user_id", "email", "anonymous_id", "shop"]), st.sampled_from("abc")), max_size=6
    )
)
def test_every_selected_value_is_in_a_call_and_nothing_else_is(rows: list[tuple[str, str]]) -> None:
    rows = list(dict.fromkeys(rows))
    sync = [IdSync(external_id=name, strategy="all") for name in ("user_id", "email", "shop")]
    calls = select(rows, sync, "users")
    slots = {"user_id": "userId", "email": "email", "shop": "shop"}
    wanted = {(slots[name], value) for name, value in rows if name in slots}
    assert {pair for ids in calls for pair in ids} == wanted or not wanted
    assert len(calls) == len(set(calls))
    assert all(ids_of_key(ids_key(ids)) == ids for ids in calls)
    carriers = [pair for pair in wanted if pair[0] != "email"]
    emails = [pair for pair in wanted if pair[0] == "email"]
    assert len(calls) == (max(len(carriers), len(emails)) if wanted else min(1, len(rows)))


def test_retry_after_is_read_as_seconds_or_a_date_and_bounded() -> None:
    def pause(text: str) -> int | None:
        return judge(Answer(status=429, headers={"retry-after": text}), 1_772_323_200_000).retry_after_ms

    assert pause("7") == 7_000
    assert pause("0.5") == 500
    assert pause("Sun, 01 Mar 2026 00:00:30 GMT") == 30_000
    assert pause("Sun, 01 Mar 2026 00:00:00 GMT") == 0
    assert pause("999999999999") == RETRY_AFTER_MAX_MS
    assert pause("-5") == 0
    for nonsense in ("soon", "", "nan", "1e999", "\u0661"):
        assert pause(nonsense) in {None, 0, 1_000}


def test_pauses_double_up_to_the_longest_within_their_jitter() -> None:
    random = Random(1)  # noqa: S311 - a seed
    for attempts, nominal in ((1, 1_000), (2, 2_000), (5, 16_000), (9, 256_000), (10, 300_000), (500, 300_000)):
        found = [backoff_ms(attempts, LIMITS, random) for _ in range(50)]
        assert nominal * 0.8 <= min(found) < max(found) <= nominal * 1.2


def test_every_status_is_delivered_tried_again_or_final_as_the_contract_says() -> None:
    for status in range(200, 600):
        how = judge(Answer(status=status), 0).how
        if status < 300:
            assert how == "delivered"
        elif status >= 500 or status in {408, 429}:
            assert how == "retry"
        else:
            assert how == "dead"


def test_the_circuit_opens_for_several_profiles_and_closes_on_the_first_answer() -> None:
    random = Random(1)  # noqa: S311 - a seed
    one, many = Breaker(), Breaker()
    for n in range(20):
        one = failed(one, 1, n, LIMITS, random)
        many = failed(many, n, n, LIMITS, random) if many.state == "closed" else many
    assert one.state == "closed"
    assert (many.state, many.failures) == ("open", 5)
    first = many.until_ms - 4
    again = failed(probing(many), 9, many.until_ms, LIMITS, random)
    assert again.state == "open"
    assert again.until_ms - many.until_ms > first * 1.3
    assert again.since_ms == many.since_ms
    assert succeeded(probing(again)) == Breaker()
