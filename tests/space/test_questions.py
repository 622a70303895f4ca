"""Asking a space: now, at another time, and as it was known then; why somebody is in an audience, and until when."""

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.questions import next_of
from eventlog.instants import instant_ms, iso
from tests.space.room import SECOND_MS, START_MS, Room, call

DAY_MS = 86_400_000
RECENT = "event('A').within(10 seconds).count() >= 2"


def at(seconds: float) -> int:
    return START_MS + round(seconds * SECOND_MS)


async def test_a_read_sees_every_event_acknowledged_before_it_and_waits_for_none_that_comes_after(here: Room) -> None:
    await here.define("Buyers", "event('A').count() >= 1")
    answers: list[list[str]] = []

    async def flood(name: str) -> None:
        while not answers:
            await here.track(name, "A")

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(flood, f"u{number}")
        await here.track("ann", "A")
        with anyio.fail_after(20):
            answers.append(await here.members("buyers"))
    assert "ann" in answers[0]


async def test_at_asks_with_everything_known_today(here: Room) -> None:
    await here.define("Recent", RECENT)
    await here.track("ann", "A")
    await here.wait(5)
    await here.track("ann", "A")
    await here.wait(60)
    await here.track("bob", "A", ago_s=62)  # at 3
    await here.track("bob", "A", ago_s=61)  # at 4
    await here.define("Later", "audience('recent') AND event('A').count() >= 2")
    expected = {2: [], 4: ["bob"], 5: ["ann", "bob"], 9.999: ["ann", "bob"], 10: ["bob"], 12.999: ["bob"], 13: []}
    for seconds, members in expected.items():
        assert await here.members("recent", at_ms=at(seconds)) == members, seconds
        assert await here.members("later", at_ms=at(seconds)) == members, seconds


async def test_known_reproduces_what_was_said_then(here: Room) -> None:
    await here.define("Buyers", "event('A').count() >= 1", filter_by_external_ids=("user_id", "anonymous_id"))
    said: dict[int, list[str]] = {}

    async def note() -> None:
        said[here.clock.now_ms()] = sorted(f"{entity}" for entity, _ in await here.space.members("buyers"))
        await here.wait(10)

    await note()
    await here.track("ann", "A")
    await note()
    await here.track("anon1", "A")
    await note()
    await here.send(call("ann", "identify", anonymousId="anon1"))
    await note()
    await here.track("bob", "B")
    await here.space.edit_definition("buyers", query="event('B').count() >= 1")
    await here.space.backfilled()
    await note()
    await here.track("cid", "B", ago_s=30)  # late: it was not known then
    await note()
    for known_ms, members in said.items():
        then = await here.space.members("buyers", known_ms=known_ms)
        assert sorted(f"{entity}" for entity, _ in then) == members, (known_ms - START_MS) / SECOND_MS


async def test_a_time_with_what_was_known_at_another(here: Room) -> None:
    await here.define("Recent", RECENT)
    await here.track("ann", "A")
    await here.track("ann", "A")
    await here.wait(20)
    await here.track("bob", "A", ago_s=20)
    await here.track("bob", "A", ago_s=20)
    assert await here.members("recent", at_ms=at(1)) == ["ann", "bob"]
    assert await here.members("recent", at_ms=at(1), known_ms=at(10)) == ["ann"]


async def test_traits_as_they_were(here: Room) -> None:
    await here.define("Spent", "event('A').sum(property('x'))", kind="trait")
    await here.identify("ann", plan="free")
    await here.track("ann", "A", x=1)
    await here.wait(10)
    await here.identify("ann", plan="pro")
    await here.track("ann", "A", x=2)
    await here.wait(10)
    ann = here.entity("ann")
    now = {row.key: row.value for row in await here.space.traits_of(ann)}
    then = {row.key: row.value for row in await here.space.traits_of(ann, at_ms=at(5))}
    assert (now, then) == ({"plan": "pro", "spent": 3}, {"plan": "free", "spent": 1})
    before = await here.space.traits_of(ann, known_ms=at(-1))
    assert before == []


async def test_who_belonged_to_an_account_then(here: Room) -> None:
    await here.send(call("ann", "group", groupId="acme"))
    await here.wait(10)
    await here.send(call("ann", "group", groupId="acme", traits={"$left": True}))
    await here.send(call("bob", "group", groupId="acme"))
    await here.wait(10)
    account = here.space.find("accounts", "group_id", "acme")
    assert account is not None
    ann, bob = here.entity("ann"), here.entity("bob")
    assert await here.space.users_of(account) == [bob]
    assert await here.space.users_of(account, at_ms=at(5)) == [ann]
    assert await here.space.accounts_of(ann) == []
    assert await here.space.accounts_of(ann, at_ms=at(5)) == [account]


async def test_the_history_of_a_size_is_what_the_log_says(here: Room) -> None:
    await here.define("Recent", RECENT)
    await here.track("ann", "A")
    await here.track("ann", "A")
    await here.wait(DAY_MS / SECOND_MS)
    for name in ("ann", "bob"):
        await here.track(name, "A")
        await here.track(name, "A")
    await here.wait(60)
    assert await here.space.size_history("recent") == [(START_MS, 1, 1), (START_MS + DAY_MS, 2, 2)]


async def test_a_preview_says_what_a_definition_would_give_and_leaves_nothing(here: Room) -> None:
    await here.define("Buyers", "event('A').count() >= 1")
    for name in ("ann", "bob", "cid"):
        await here.track(name, "A")
    await here.track("bob", "B")
    before = here.log.last_seq
    preview = await here.space.preview("audience('buyers') AND event('B').count() = 0", sample=1)
    assert (preview.size, [name for _, name in preview.sample]) == (2, ["ann"])
    assert here.space.definition("buyers").size == 3
    await here.space.settle()
    assert here.log.last_seq - before <= 3  # the effects of the events at most
    everyone = await here.space.preview("event('A').count() >= 1", sample=None)
    assert len(everyone.sample) == everyone.size == 3


# -- why ---------------------------------------------------------------------------------------------------------------

EXPLAINED = (
    RECENT,
    "NOT event('A').within(10 seconds).count() >= 1 OR trait('plan') = 'pro'",
    "event('A').where(event('B').within(parent: 5 seconds).count() >= 1).within(20 seconds).count() >= 1",
    "event('A').between(5 seconds, 15 seconds).sum(property('x')) >= 3 AND trait('when').within_next(20 seconds)",
    "literal('2026-03-01T00:00:15Z').within_last(5 seconds)",
)


@pytest.mark.parametrize("query", EXPLAINED)
async def test_an_explanation_agrees_with_the_membership_and_says_exactly_when_a_part_changes_by_itself(
    here: Room, query: str
) -> None:
    await here.define("It", query)
    await here.identify("ann", plan="free", when="2026-03-01T00:00:30Z")
    await here.track("ann", "A", x=2)
    await here.wait(1)
    await here.track("ann", "A", x=2)
    await here.track("ann", "B")
    ann = here.entity("ann")
    for _ in range(60):
        explained = await here.space.explain("it", ann)
        assert explained["member"] is (await here.members("it") == ["ann"])
        assert truth_of(explained["tree"]) is explained["member"]
        changes_at = explained["changes_at"]
        told = len(await here.told())
        if changes_at is None:
            await here.wait(1000)
            assert len(await here.told()) == told
            break
        due_ms = ms_of(changes_at)
        assert due_ms > here.clock.now_ms()
        truths = leaves_of(explained["tree"])
        await here.wait((due_ms - here.clock.now_ms() - 1) / SECOND_MS)
        assert len(await here.told()) == told
        same = await here.space.explain("it", ann)
        assert leaves_of(same["tree"]) == truths, "a part changed before it was said to"
        await here.wait(0.001)
    else:
        pytest.fail("it never comes to rest")


def ms_of(text: str) -> int:
    found = instant_ms(text)
    assert found is not None
    return found


def truth_of(part: dict[str, Any]) -> bool:
    """Work a part's truth out of those of its parts."""
    inner = [truth_of(one) for one in part.get("parts", ())]
    match part["kind"]:
        case "and":
            truth = all(inner)
        case "or":
            truth = any(inner)
        case "not":
            truth = not inner[0]
        case _:
            truth = bool(part["truth"])
    assert part["truth"] is bool(truth)
    return bool(truth)


def leaves_of(part: dict[str, Any]) -> list[bool]:
    """Return the truths of the comparisons."""
    if "parts" in part:
        return [truth for one in part["parts"] for truth in leaves_of(one)]
    return [part["truth"]]


async def test_an_explanation_names_the_events_it_rests_on(here: Room) -> None:
    await here.define("Big", "event('A').where(property('x') >= 2).within(10 seconds).sum(property('x')) >= 6")
    await here.send(call("ann", "track", event="A", messageId="small", properties={"x": 1}))
    await here.send(call("ann", "track", event="A", messageId="one", properties={"x": 2}))
    await here.send(call("anon1", "track", event="A", messageId="two", properties={"x": 3}))
    await here.send(call("ann", "identify", anonymousId="anon1"))
    explained = await here.space.explain("big", here.entity("ann"))
    tree = explained["tree"]
    assert (explained["member"], tree["value"], tree["missing"]) == (False, 5, "1 more")
    assert [(event["messageId"], event["value"]) for event in tree["events"]] == [("one", 2), ("two", 3)]
    assert tree["events_count"] == 2


async def test_an_explained_funnel_names_the_events_that_followed(here: Room) -> None:
    inner = "event('C').where(property('x') = property(parent: 'x')).within(parent: 1 hour).count() >= 1"
    await here.define("Then", f"event('A').where(event('B').where({inner}).count() >= 1).count() >= 1")
    for name, x in (("A", 1), ("B", 1), ("B", 2), ("C", 2), ("A", 3)):
        await here.track("ann", name, x=x)
        await here.wait(1)
    tree = (await here.space.explain("then", here.entity("ann")))["tree"]
    assert [event["event"] for event in tree["events"]] == ["A"]
    assert [nested["event"] for nested in tree["events"][0]["followed_by"]] == ["B", "C"]
    assert tree["events"][0]["followed_by_count"] == 2


async def test_an_explanation_of_an_account_tells_of_its_users(here: Room) -> None:
    await here.define("All", "ALL (event('A').count() >= 1)", entity_type="ACCOUNTS")
    for name in ("ann", "bob"):
        await here.send(call(name, "group", groupId="acme"))
    await here.track("ann", "A")
    account = here.space.find("accounts", "group_id", "acme")
    assert account is not None
    tree = (await here.space.explain("all", account))["tree"]
    assert (tree["truth"], tree["holds_for"], tree["users"]) == (False, 1, 2)
    assert [(one["profile"], one["truth"]) for one in tree["sample"]] == [("bob", False), ("ann", True)]


async def test_an_explanation_of_the_past_knows_what_was_known_then(here: Room) -> None:
    await here.define("Buyers", "event('A').count() >= 1")
    await here.track("ann", "B")
    await here.wait(10)
    await here.track("ann", "A", ago_s=8)
    ann = here.entity("ann")
    assert (await here.space.explain("buyers", ann, at_ms=at(5)))["member"] is True
    assert (await here.space.explain("buyers", ann, at_ms=at(1)))["member"] is False
    assert (await here.space.explain("buyers", ann, at_ms=at(5), known_ms=at(5)))["member"] is False


async def test_an_explanation_of_the_past_shows_the_definition_the_parts_and_the_events_of_then(here: Room) -> None:
    await here.define("Buyers", "event('A').within(5 seconds).count() >= 1")
    await here.send(call("ann", "track", event="A", messageId="first"))
    await here.wait(10)
    await here.send(call("ann", "track", event="A", messageId="late", ago_s=8))
    await here.send(call("ann", "track", event="A", messageId="last"))
    await here.wait(1)
    await here.space.edit_definition("buyers", query="event('A').count() >= 9")
    await here.space.backfilled()
    ann = here.entity("ann")

    async def seen(at_s: float, known_s: float) -> tuple[bool, list[str], str | None]:
        told = await here.space.explain("buyers", ann, at_ms=at(at_s), known_ms=at(known_s))
        tree = told["tree"]
        assert told["query"] == "event('A').within(5 seconds).count() >= 1"
        assert tree["truth"] is told["member"]
        return tree["truth"], [event["messageId"] for event in tree["events"]], tree["changes_at"]

    assert await seen(4, 4) == (True, ["first"], iso(at(5)))
    assert await seen(4, 10.5) == (True, ["first", "late"], iso(at(7)))
    assert await seen(7, 10.5) == (False, [], None)
    assert await seen(10.5, 10.5) == (True, ["last"], iso(at(15)))
    assert (await here.space.explain("buyers", ann))["query"] == "event('A').count() >= 9"


# -- pages -------------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 60)), st.integers(0, 60), st.none() | st.integers(1, 10))
def test_a_page_of_members_is_the_next_in_order_however_dense_they_are(
    members: set[int], after: int, limit: int | None
) -> None:
    expected = sorted(entity for entity in members if entity > after)[:limit]
    for last in (max(members, default=0), 10_000):
        assert next_of(members, after, limit, last) == expected


async def test_members_are_paged_through_without_a_gap(here: Room) -> None:
    await here.define("Buyers", "event('A').count() >= 1")
    for number in range(25):
        await here.track(f"u{number}", "A" if number % 5 else "B")
    everyone = await here.space.members("buyers")
    paged: list[tuple[int, int]] = []
    while page := await here.space.members("buyers", after=paged[-1][0] if paged else 0, limit=3):
        paged += page
    assert paged == everyone
    assert len(paged) == 20
