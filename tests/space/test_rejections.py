"""The list of refused events: newest first, page by page, whatever lies between them and whoever died."""

from random import Random

from actors.rejections import FROM_KEY, REJECTIONS_PROJECTION, RUN_GAP
from eventlog.entries import Rejected
from eventlog.log import META, REJECTIONS, Changes
from tests.space.room import Reopen, Room, call, room


def refused(number: int) -> Rejected:
    return Rejected(0, f"r{number}", "invalid", "why", "web", b"{}")


def all_of(here: Room) -> list[tuple[int, str]]:
    """Return every refusal in the log, newest first, found the plain way."""
    found = [
        (seq, fact.message_id)
        for commit in here.log.read()
        for seq, fact in enumerate(commit.facts, commit.first_seq + len(commit.events))
        if isinstance(fact, Rejected)
    ]
    return found[::-1]


def paged(here: Room, limit: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    before_seq = None
    while page := list(here.space.rejected(before_seq=before_seq, limit=limit)):
        assert len(page) <= limit
        found += [(seq, row.message_id) for seq, _, row in page]
        before_seq = page[-1][0]
    return found


async def test_every_refusal_is_listed_once_newest_first_whatever_lies_between(here: Room) -> None:
    drawn = Random(7)  # noqa: S311 - the same in every run
    await here.define("Buyers", "event('A').count() >= 1")
    assert list(here.space.rejected()) == []
    for number in range(60):
        for count in range(drawn.choice([0, 0, 1, 3])):
            await here.space.ingest([], [refused(100 * number + count)], "web")
        if drawn.random() < 0.2:
            await here.send({**call("null", "track", event="A")})  # refused within the space: all its ids are blocked
        for _ in range(drawn.choice([0, 1, 5])):
            await here.track(f"u{drawn.randrange(9)}", "A")
        if drawn.random() < 0.1:
            await here.die()
    expected = all_of(here)
    assert len(expected) > 50
    for limit in (1, 2, 7, 1000):
        assert paged(here, limit) == expected


async def test_refusals_far_from_each_other_are_found(here: Room) -> None:
    for number in range(3):
        await here.space.ingest([], [refused(number)], "web")
        await here.send(*(call("ann", "track", event="A") for _ in range(RUN_GAP + 5)))
    assert [one for _, one in paged(here, 10)] == ["r2", "r1", "r0"]


async def test_a_log_older_than_the_index_is_looked_through_from_where_the_index_begins(reopen: Reopen) -> None:
    async with room(reopen) as here:
        for number in range(3):
            await here.space.ingest([], [refused(number)], "web")
            await here.track("ann", "A")
        # As a log is that was written before there was an index.
        gone = Changes(REJECTIONS_PROJECTION, 0, cleared=(REJECTIONS,), deletes=((META, [FROM_KEY]),))
        await here.log.store([gone])
        await here.die()
        assert [one for _, one in paged(here, 2)] == ["r2", "r1", "r0"]
        for number in range(3, 6):
            await here.space.ingest([], [refused(number)], "web")
            await here.die()
        assert [one for _, one in paged(here, 2)] == ["r5", "r4", "r3", "r2", "r1", "r0"]
        assert [one for _, one in paged(here, 100)] == ["r5", "r4", "r3", "r2", "r1", "r0"]
