"""What every log does, whatever it is kept in."""

import threading
from collections.abc import Sequence

import anyio
import pytest

from eventlog.columns import EventColumns
from eventlog.entries import (
    ERASED,
    IDENTIFY,
    TRACK,
    AnyFact,
    Commit,
    Entered,
    Event,
    IdAdded,
    Rejected,
    Ticked,
    TraitComputed,
)
from eventlog.erasure import erase_entities, forget_before
from eventlog.log import ENTITIES, IDS, MEMBERS, META, SENT, STATES, Changes, Log, place_of
from tests.conformance.conftest import Reopen
from tests.eventlog.worlds import START_MS, commit, commits, event

SIZES = (1, 3, 0, 700, 0, 2, 1300, 1, 1, 1)
ALL = commits(*SIZES)
EVENTS = [one for some in ALL for one in some.events]


async def filled(log: Log) -> Log:
    await log.append(ALL[:4])
    await log.append(ALL[4:])
    return log


def scanned(
    log: Log, names: Sequence[tuple[int, str | None]] | None, after: int = 0, until: int | None = None
) -> list[Event]:
    return [one for some in log.scan(names, after, until) for one in some]


# -- entries ---------------------------------------------------------------------------------------------------------


async def test_an_empty_log_has_nothing_to_read(log: Log) -> None:
    assert log.last_seq == 0
    assert list(log.read()) == []
    assert list(log.scan(None)) == []
    assert log.seq_at(START_MS) == 0
    assert log.columns_at(1) is None


async def test_what_was_appended_is_read_back_as_it_was(log: Log) -> None:
    await filled(log)
    assert log.last_seq == ALL[-1].last_seq
    assert list(log.read()) == ALL


async def test_what_was_appended_is_there_after_a_restart(reopen: Reopen) -> None:
    await filled(await reopen())
    log = await reopen()
    assert log.last_seq == ALL[-1].last_seq
    assert list(log.read()) == ALL
    await log.append([commit(log.last_seq + 1, 1)])
    assert len(list(log.read())) == len(ALL) + 1


async def test_facts_of_all_shapes_come_back(log: Log) -> None:
    facts: list[AnyFact] = [
        IdAdded(1, "users", "email", "ä@example.com", START_MS, 1),
        Rejected(0, "m", "invalid", "no", "src", b"\x00\xff{"),
        Entered(1, 2, START_MS, 1),
        TraitComputed(1, 2, 1.5, START_MS, 1),
        TraitComputed(1, 2, ["a", "b"], START_MS, 1),
        TraitComputed(1, 2, None, START_MS, 1),
    ]
    await log.append([commit(1, 2, facts)])
    assert next(log.read()).facts == tuple(facts)


async def test_a_number_over_64_bits_in_a_fact_comes_back(log: Log) -> None:
    facts = (Rejected(0, "m", "invalid", "no", "src", b"\x00\xff"), TraitComputed(1, 2, [10**30, "a"], START_MS, 1))
    await log.append([commit(1, 1, facts)])
    assert next(log.read()).facts == facts


async def test_a_commit_of_very_many_facts_comes_back(log: Log) -> None:
    facts = tuple(Entered(i, 1, START_MS + i, 1) for i in range(10_000))
    await log.append([commit(1, 600, facts), commit(10_601, 1)])
    first, second = log.read()
    assert first.facts == facts
    assert len(first.events) == 600
    assert second.first_seq == 10_601


async def test_large_bodies_come_back(log: Log) -> None:
    events = tuple(event(i, body=b'{"a":"%s"}' % (b"x" * 32_000)) for i in range(1, 101))
    await log.append([Commit(1, START_MS, events)])
    assert next(log.read()).events == events
    assert log.events_at([place_of(77)]) == [events[76]]


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5, 100, 704, 705, 706, 1000, 2005, 2009, 2010, 3000])
@pytest.mark.parametrize("until", [None, 0, 1, 4, 5, 700, 705, 1500, 2010, 5000])
async def test_a_read_gives_the_whole_commits_that_hold_the_entries_asked_for(
    log: Log, after: int, until: int | None
) -> None:
    await filled(log)
    limit = log.last_seq if until is None else until
    assert list(log.read(after, until)) == [
        c for c in ALL if c.last_seq > after and c.first_seq <= limit and after < limit
    ]
    assert scanned(log, None, after, until) == [e for e in EVENTS if after < e.seq <= limit]


@pytest.mark.parametrize("after", [0, 1, 4, 5, 703, 704, 10_000])
@pytest.mark.parametrize("until", [None, 0, 4, 5, 704, 10_300, 20_000])
async def test_facts_alone_are_read_with_their_sequences(log: Log, after: int, until: int | None) -> None:
    many = tuple(Entered(i, 1, START_MS + i, 1) for i in range(10_000))
    written = [commit(1, 3, [Ticked(1)]), commit(5, 700), commit(705, 2, many), commit(10_707, 0, [Ticked(2)])]
    await log.append(written)
    limit = log.last_seq if until is None else until
    expected = []
    for one in written:
        first = one.first_seq + len(one.events)
        facts = [(seq, fact) for seq, fact in enumerate(one.facts, first) if after < seq <= limit]
        expected += [(one.at_ms, facts)] if facts else []
    assert list(log.read_facts(after, until)) == expected


async def test_commits_are_numbered_without_a_gap(log: Log) -> None:
    await log.append([commit(1, 2)])
    with pytest.raises(AssertionError):
        await log.append([commit(4, 1)])
    with pytest.raises(AssertionError):
        await log.append([commit(2, 1)])
    assert log.last_seq == 2
    await log.append([commit(3, 1)])
    assert [c.first_seq for c in log.read()] == [1, 3]


# -- scans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        [(TRACK, "Order Completed")],
        [(TRACK, "Größe gewählt"), (IDENTIFY, None)],
        [(TRACK, None)],
        [(IDENTIFY, None), (TRACK, "never sent")],
        [(IDENTIFY, "Order Completed")],
        [],
    ],
)
async def test_a_scan_gives_the_events_of_the_wanted_names(log: Log, names: list[tuple[int, str | None]]) -> None:
    await filled(log)
    expected = [e for e in EVENTS if (e.kind, e.name) in names or (e.kind, None) in names]
    assert scanned(log, names) == expected
    assert scanned(log, names, 3, 1500) == [e for e in expected if 3 < e.seq <= 1500]


async def test_columns_say_what_the_events_say(log: Log) -> None:
    await filled(log)
    names: list[tuple[int, str | None]] = [(TRACK, "Order Completed"), (IDENTIFY, None)]
    expected = scanned(log, names)
    batches = list(log.scan_columns(names))
    assert sum(map(len, batches)) == len(expected)
    rows = [
        row
        for b in batches
        for row in zip(
            b.seq.tolist(),
            b.event_ms.tolist(),
            b.received_ms.tolist(),
            b.profile.tolist(),
            b.account.tolist(),
            b.kind.tolist(),
            [b.names[i] for i in b.name.tolist()],
            [b.sources[i] for i in b.source.tolist()],
            b.message_ids(),
            b.bodies(),
            strict=True,
        )
    ]
    assert [Event(*row) for row in rows] == expected


async def test_selected_columns_keep_their_bodies(log: Log) -> None:
    await filled(log)
    found = []
    for batch in log.scan_columns(None):
        some = batch.select(batch.profile == 2)
        if len(some):
            few = some.select((some.seq % 3 == 0).nonzero()[0])
            found += few.events() if len(few) else []
    assert found == [e for e in EVENTS if e.profile == 2 and e.seq % 3 == 0]


async def test_a_log_of_many_small_commits_is_scanned_in_large_batches(log: Log) -> None:
    await log.append(commits(*([1, 2, 0] * 400)))
    batches = list(log.scan_columns(None))
    assert sum(map(len, batches)) == 1200
    assert len(batches) <= 3


async def test_events_are_found_by_their_places_in_any_order(log: Log) -> None:
    await filled(log)
    by_seq = {e.seq: e for e in EVENTS}
    seqs = [2010, 1, 700, 2, 6, 1999, 700]
    assert log.events_at([place_of(seq) for seq in seqs]) == [by_seq[seq] for seq in seqs]


async def test_an_event_is_found_with_its_neighbours(log: Log) -> None:
    await filled(log)
    for seq in (1, 4, 6, 600, 2011):
        columns = log.columns_at(seq)
        assert columns is not None
        assert seq in columns.seq.tolist()
    assert log.columns_at(5) is None  # a fact
    assert log.columns_at(2012) is None


async def test_the_last_sequence_known_at_a_time_is_found(log: Log) -> None:
    await filled(log)
    for known_ms in {START_MS - 1, *(c.at_ms + d for c in ALL for d in (-1, 0, 1))}:
        assert log.seq_at(known_ms) == max((c.last_seq for c in ALL if c.at_ms <= known_ms), default=0)


# -- tables ----------------------------------------------------------------------------------------------------------


async def test_rows_are_stored_with_the_cursor_and_survive_a_restart(reopen: Reopen) -> None:
    log = await reopen()
    await log.append([commit(1, 5)])
    rows = [(("email", "a@b.c"), b"1"), (("user_id", "ä"), b"")]
    await log.store([Changes("identity", 5, puts=((IDS, rows), (ENTITIES, [((7,), b"x")])))])
    for restarted in (False, True):
        current = await reopen() if restarted else log
        assert current.cursor("identity") == 5
        assert current.cursor("other") == 0
        assert current.get(IDS, ("email", "a@b.c")) == b"1"
        assert current.get(IDS, ("user_id", "ä")) == b""
        assert current.get(IDS, ("user_id", "a")) is None
        assert current.get(ENTITIES, (7,)) == b"x"
        wanted = [("email", "a@b.c"), ("email", "none"), ("user_id", "ä")]
        assert current.get_many(IDS, wanted) == dict(rows)


async def test_changes_given_to_an_append_are_stored_with_it(log: Log) -> None:
    await log.append([commit(1, 2)], [Changes("p", 2, puts=((META, [(("a",), b"1")]),))])
    assert log.get(META, ("a",)) == b"1"
    assert log.cursor("p") == 2


async def test_changes_clear_then_delete_then_put(log: Log) -> None:
    await log.append([commit(1, 2)])
    await log.store([Changes("p", 1, puts=((META, [((k,), b"1") for k in "abc"]), (MEMBERS, [((1, 1), b"m")])))])
    await log.store([Changes("p", 2, deletes=((META, [("a",), ("b",), ("z",)]),), puts=((META, [(("b",), b"2")]),))])
    assert log.range(META) == [(("b",), b"2"), (("c",), b"1")]
    await log.store([Changes("p", 2, cleared=(META,), puts=((META, [(("d",), b"3"), (("d",), b"4")]),))])
    assert log.range(META) == [(("d",), b"4")]
    assert log.range(MEMBERS) == [((1, 1), b"m")]


async def test_a_range_gives_the_rows_of_a_prefix_in_order_from_a_key_on(log: Log) -> None:
    await log.append([commit(1, 2)])
    keys = [(c, e, t) for c in ("a", "b", "ä") for e in (-5, 0, 3, 2**40) for t in ("", "x", "y")]
    rows = [(key, repr(key).encode()) for key in keys]
    await log.store([Changes("p", 1, puts=((SENT, rows[::-1]),))])
    ordered = sorted(rows)
    assert log.range(SENT) == ordered
    prefixes: list[tuple[int | str, ...]] = [(), ("a",), ("b",), ("ä",), ("c",), ("b", 0), ("b", 3, "x")]
    afters: list[tuple[int | str, ...] | None] = [
        None,
        ("b",),
        ("b", 0),
        ("b", 0, "x"),
        ("a", 9, ""),
        ("ä", 3, "y"),
        ("z",),
    ]
    for prefix in prefixes:
        for after in afters:
            expected = [r for r in ordered if r[0][: len(prefix)] == prefix and (after is None or r[0] > after)]
            assert log.range(SENT, prefix, after) == expected, (prefix, after)
            assert log.range(SENT, prefix, after, limit=2) == expected[:2]


async def test_pages_of_a_range_join_without_a_gap(log: Log) -> None:
    await log.append([commit(1, 2)])
    rows = [((entity, seq), b"%d" % seq) for entity in (1, 2, 3) for seq in range(25)]
    await log.store([Changes("states", 2, puts=((STATES, rows),))])
    found: list[tuple[tuple[int | str, ...], bytes]] = []
    while page := log.range(STATES, (2,), found[-1][0] if found else None, 10):
        found += page
    assert found == [row for row in rows if row[0][0] == 2]


# -- following -------------------------------------------------------------------------------------------------------


async def test_a_follower_gets_what_is_there_and_then_what_comes_until_the_log_is_closed(log: Log) -> None:
    await filled(log)
    got: list[Commit] = []
    late = commits(1, 0, first_seq=log.last_seq + 1)

    async def follow() -> None:
        async for one in log.follow(4):
            got.append(one)  # noqa: PERF401 - looked at while it goes on

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            for one in late:
                await log.append([one])
            while not got or got[-1] != late[-1]:
                await anyio.lowlevel.checkpoint()
            await log.close()
    assert got == [c for c in ALL if c.last_seq > 4] + late


async def test_a_cancelled_append_is_stored_or_not_but_never_by_half(log: Log) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await log.append([commit(1, 600)], [Changes("p", 1)])
    assert [c.last_seq for c in log.read()] == ([600] if log.last_seq else [])
    assert log.cursor("p") == (1 if log.last_seq else 0)
    await log.append([commit(log.last_seq + 1, 1)])


async def test_threads_read_while_the_writer_writes(log: Log) -> None:
    stop = threading.Event()
    problems: list[str] = []
    rounds = [0]

    def read_on() -> None:
        while not stop.is_set():
            until = log.last_seq
            seqs = [e.seq for some in log.scan(None, 0, until) for e in some]
            if seqs != list(range(1, until + 1)):
                problems.append(f"{len(seqs)} of {until}")
            if sum(len(c.events) for c in log.read(until // 2, until)) < until - until // 2:
                problems.append(f"read from {until // 2} to {until}")
            rounds[0] += 1

    threads = [threading.Thread(target=read_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            await log.append([commit(log.last_seq + 1, 40)])
            await log.store([Changes("p", log.last_seq, puts=((META, [(("a",), b"%d" % log.last_seq)]),))])
            assert log.get(META, ("a",)) == b"%d" % log.last_seq
    finally:
        stop.set()
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
    assert problems == []
    assert rounds[0] > 0


# -- erasure ---------------------------------------------------------------------------------------------------------


async def test_an_erased_profile_leaves_empty_places_behind(reopen: Reopen) -> None:
    log = await reopen()
    await filled(log)
    log.events_at([place_of(6)])  # so that something is cached
    assert await erase_entities(log, {2}) > 0
    for restarted in (False, True):
        current = await reopen() if restarted else log
        assert current.last_seq == ALL[-1].last_seq
        kept = [e for e in EVENTS if e.profile != 2 and e.account != 2]
        assert scanned(current, None) == kept
        read = [e for c in current.read() for e in c.events]
        assert [e.seq for e in read] == [e.seq for e in EVENTS]
        for before, after in zip(EVENTS, read, strict=True):
            gone = before.profile == 2 or before.account == 2
            assert after == (
                Event(before.seq, before.received_ms, before.received_ms, 0, 0, ERASED, "", "", "", b"")
                if gone
                else before
            )
        assert current.events_at([place_of(e.seq) for e in EVENTS]) == kept
        assert [(c.first_seq, c.at_ms, c.facts) for c in current.read()] == [
            (c.first_seq, c.at_ms, c.facts) for c in ALL
        ]
    assert await erase_entities(current, {2}) == 0


async def test_facts_of_an_erased_profile_are_replaced_one_by_one(log: Log) -> None:
    facts = (IdAdded(1, "users", "email", "a@b.c", START_MS, 1), IdAdded(2, "users", "email", "d@e.f", START_MS, 1))
    await log.append([commit(1, 1, facts), commit(4, 0, (Ticked(START_MS),))])

    def blank(fact: AnyFact) -> AnyFact:
        if isinstance(fact, IdAdded) and fact.entity == 1:
            return IdAdded(1, "users", "email", "", fact.event_ms, fact.cause_seq)
        return fact

    assert await erase_entities(log, {1}, blank) == 1
    assert [f.value for c in log.read() for f in c.facts if isinstance(f, IdAdded)] == ["", "d@e.f"]


async def test_a_rewrite_decodes_only_commits_whose_events_or_facts_are_meant(log: Log) -> None:
    added = IdAdded(1, "users", "email", "a@b.c", START_MS, 1)
    await log.append([commit(1, 3, (added,)), commit(5, 3), commit(8, 0, (Ticked(START_MS),)), commit(9, 0, (added,))])
    meant = next(event.seq for event in list(log.read())[1].events)
    decoded: list[int] = []

    def note(one: Commit) -> Commit:
        decoded.append(one.first_seq)
        return one

    def mentioning(facts: Sequence[AnyFact]) -> bool:
        return any(isinstance(fact, IdAdded) for fact in facts)

    def touching(columns: EventColumns) -> bool:
        return bool((columns.seq == meant).any())

    assert await log.rewrite(note, touching=touching, mentioning=mentioning) == 0
    assert decoded == [1, 5, 9]
    decoded.clear()
    assert await log.rewrite(note, mentioning=mentioning) == 0
    assert decoded == [1, 9]


async def test_only_the_wanted_kinds_of_old_events_are_forgotten(log: Log) -> None:
    await filled(log)
    before_ms = START_MS + 1000 * 1000
    kept = [e for e in EVENTS if e.event_ms >= before_ms or e.kind != TRACK]
    assert await forget_before(log, before_ms, {TRACK}) > 0
    assert scanned(log, None) == kept
    assert len(kept) not in (0, len(EVENTS))


async def test_events_older_than_is_kept_are_forgotten(log: Log) -> None:
    await filled(log)
    before_ms = START_MS + 1000 * 1000
    assert await forget_before(log, before_ms) > 0
    assert scanned(log, None) == [e for e in EVENTS if e.event_ms >= before_ms]
    assert await forget_before(log, before_ms) == 0
    await log.append([commit(log.last_seq + 1, 3)])
    assert len(scanned(log, None, ALL[-1].last_seq)) == 3


async def test_an_edit_may_not_change_the_numbering(log: Log) -> None:
    await filled(log)
    with pytest.raises(AssertionError):
        await log.rewrite(lambda c: Commit(c.first_seq, c.at_ms, c.events[:-1], c.facts))
    assert list(log.read()) == ALL


async def test_a_compacted_log_is_the_same_log(log: Log) -> None:
    await filled(log)
    await erase_entities(log, {1})
    before = list(log.read())
    await log.compact()
    assert list(log.read()) == before
    await log.append([commit(log.last_seq + 1, 3)])
