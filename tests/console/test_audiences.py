"""The pages of audiences: what there is stands on them, under the scopes of the API, names escaped."""

import httpx
import pytest

from adapters.console.picture import draw
from adapters.daemon import Daemon
from tests.api.room import Room, identify, track
from tests.console.browser import Browser, signed_in

HOSTILE = "<script>alert('x')</script>\"'&"
DAY_MS = 24 * 3600 * 1000


async def test_an_audience_is_shown_with_its_members_changes_and_sizes(room: Room, admin: Browser) -> None:
    await room.send(track("ann"), track("bob"), identify("cid", email="c@x.org"))
    audience = await room.audience("Buyers of late", description="Who bought")
    at = f"/console/spaces/{room.space_id}/audiences"
    listed = await admin.see(at)
    assert "Buyers of late" in listed
    assert f"{at}/{audience['id']}" in listed
    page = await admin.see(f"{at}/{audience['id']}")
    for shown in (
        "buyers_of_late",
        "Who bought",
        "event(&#39;Order Completed&#39;).count() &gt;= 1",
        "<strong>2</strong>",
    ):
        assert shown in page
    changes = await admin.see(f"{at}/{audience['id']}/changes")
    assert "explain?profile=user_id%3Aann" in changes.replace("user_id:", "user_id%3A")
    assert changes.count('"entered"') == 2
    sizes = await admin.see(f"{at}/{audience['id']}/size")
    assert "Size over time: 2 at last" in sizes
    assert ">2026-03-01</text>" in sizes  # the day of the audience: its history came in then
    assert "2026-03-02" not in sizes
    members = await admin.see(f"{at}/{audience['id']}/members")
    assert "2026-03-01 12:00:00 UTC" in members
    assert "ann" in members
    assert "cid" not in members


async def test_an_audience_without_members_says_so(room: Room, admin: Browser) -> None:
    audience = await room.audience()
    at = f"/console/spaces/{room.space_id}/audiences/{audience['id']}"
    assert "Nobody has entered yet" in await admin.see(f"{at}/size")
    assert "None among the latest" in await admin.see(f"{at}/changes")
    assert "Nobody." in await admin.see(f"{at}/members")


async def test_more_members_than_a_page_holds_are_on_the_next(room: Room, admin: Browser) -> None:
    await room.send(*(track(f"user-{n:03d}") for n in range(60)))
    audience = await room.audience()
    at = f"/console/spaces/{room.space_id}/audiences/{audience['id']}"
    first = await admin.see(f"{at}/members")
    following = first.split(f'href="{at}/members?cursor=')[1].split('"')[0]
    second = await admin.see(f"{at}/members?cursor={following}")
    for n in range(60):
        assert (f">user-{n:03d}<" in first) is not (f">user-{n:03d}<" in second)


async def test_an_explanation_tells_each_part_and_its_events(room: Room, admin: Browser) -> None:
    await room.send(track("ann", messageId="m-1"))
    query = "event('Order Completed').within(7 days).count() >= 1 AND NOT trait('plan') = 'pro'"
    audience = await room.audience(query=query)
    at = f"/console/spaces/{room.space_id}/audiences/{audience['id']}"
    page = await admin.see(f"{at}/explain?profile=ann")
    assert "ann is a member" in page
    assert "m-1" in page
    assert "changes by itself at 2026-03-08 12:00:00 UTC" in page
    before = await admin.see(f"{at}/explain?profile=user_id:ann&at=2026-02-01T00:00:00Z")
    assert "ann is not a member" in before
    assert "no profile" in await admin.see(f"{at}/explain?profile=nobody", status=404)
    assert "ISO 8601" in await admin.see(f"{at}/explain?profile=ann&at=tomorrow", status=400)


async def test_hostile_names_are_shown_and_not_run(room: Room, admin: Browser) -> None:
    await room.send(track(HOSTILE, event=HOSTILE))
    audience = await room.audience(
        HOSTILE, query=f"event({HOSTILE!r}).count() >= 1", key="hostile", description=HOSTILE
    )
    at = f"/console/spaces/{room.space_id}/audiences"
    pages = [at, f"{at}/hostile"]
    pages += [f"{at}/{audience['id']}/{part}" for part in ("members", "changes", "size", "now")]
    for page in pages:
        assert "<script>alert" not in await admin.see(page), page
    assert "&lt;script&gt;alert" in await admin.see(f"{at}/hostile/members")
    found = await admin.client.get(f"{at}/hostile/explain", params={"profile": f"user_id:{HOSTILE}"})
    assert found.status_code == 200
    assert "<script>alert" not in found.text
    missing = await admin.client.get(f"{at}/hostile/explain", params={"profile": "<script>alert(1)"})
    assert missing.status_code == 404
    assert "<script>alert" not in missing.text


async def test_pages_show_no_more_than_the_token_may_see(daemon: Daemon, client: httpx.AsyncClient, room: Room) -> None:
    audience = await room.audience()
    own = f"/console/spaces/{room.space_id}/audiences"
    parts = ("", "/now", "/size", "/changes", "/members", "/explain?profile=ann")
    assert daemon.first is not None
    async with signed_in(daemon, await room.token("profiles:read")) as browser:
        for path in ("/console", own, *(f"{own}/{audience['id']}{part}" for part in parts)):
            assert "audiences:read" in await browser.see(path, status=403)
    async with signed_in(daemon, await room.token("audiences:read", space_id=daemon.first.space.id)) as browser:
        for path in (own, *(f"{own}/{audience['id']}{part}" for part in parts)):
            assert room.space.id not in (await browser.see(path, status=403)).replace(daemon.first.space.id, "")
    async with signed_in(daemon, await room.token("audiences:read", space_id=room.space_id)) as browser:
        assert "Buyers" in await browser.see("/console")


@pytest.mark.parametrize("path", ["spaces/none/audiences", "spaces/default/audiences/none", "nothing/here"])
async def test_what_is_not_there_is_said_on_a_page(admin: Browser, path: str) -> None:
    page = await admin.see(f"/console/{path}", status=404)
    assert 'role="alert"' in page
    assert "Sign out" in page


def test_a_picture_goes_up_at_the_day_of_the_change_and_on_to_now() -> None:
    assert draw([], 0) is None
    picture = draw([(0, 2), (5 * DAY_MS, 1)], 10 * DAY_MS)
    assert picture is not None
    #                      0 members  2 at x=8     1 from the middle on      to now
    assert picture.line == "M8.0 176.0H8.0V20.0H360.0V98.0H712.0"
    assert (picture.end_x, picture.end_y, picture.size_max) == (712.0, 98.0, 2)
