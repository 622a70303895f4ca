"""Who is let in: by a token, by a code that works once, for as long as the token lives, and from our own pages only."""

import httpx
import pytest

from adapters.console.sessions import CODE_MS, SESSION_MS, SESSIONS_MAX, Sessions
from adapters.daemon import Daemon
from eventlog.clock import SimulatedClock
from tests.api.room import Room
from tests.console.browser import Browser, signed_in


def test_a_session_ends_by_time_and_the_oldest_makes_room() -> None:
    clock = SimulatedClock(1_000)
    sessions = Sessions(clock)
    first = sessions.start("tt_a")
    ids = [sessions.start("tt_b") for _ in range(SESSIONS_MAX)]
    assert sessions.get(first) is None
    assert sessions.get(ids[0]) is not None
    clock.set_ms(1_000 + SESSION_MS - 1)
    assert sessions.get(ids[-1]) is not None
    clock.set_ms(1_000 + SESSION_MS)
    assert sessions.get(ids[-1]) is None


def test_a_code_works_once_and_not_too_late() -> None:
    clock = SimulatedClock(1_000)
    sessions = Sessions(clock)
    code, late = sessions.issue_code("tt_a"), sessions.issue_code("tt_b")
    assert sessions.redeem(code) == "tt_a"
    assert sessions.redeem(code) is None
    clock.set_ms(1_000 + CODE_MS)
    assert sessions.redeem(late) is None


async def test_the_demo_s_address_signs_in_once(daemon: Daemon, stranger: httpx.AsyncClient) -> None:
    assert daemon.first is not None
    address = daemon.console_address(daemon.first.admin_token)
    answer = await stranger.get(address)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    assert (await stranger.get("/console", follow_redirects=True)).status_code == 200
    stranger.cookies.clear()
    again = await stranger.get(address)
    assert again.status_code == 401
    assert "set-cookie" not in again.headers


async def test_the_cookie_is_for_this_server_s_console_alone(daemon: Daemon, stranger: httpx.AsyncClient) -> None:
    assert daemon.first is not None
    answer = await stranger.post("/console/sign-in", data={"token": daemon.first.admin_token})
    cookie = answer.headers["set-cookie"].lower()
    assert daemon.first.admin_token.lower() not in cookie
    for part in ("httponly", "samesite=strict", "path=/console"):
        assert part in cookie
    behind_tls = await stranger.post(
        "/console/sign-in",
        data={"token": daemon.first.admin_token},
        headers={"origin": daemon.url.replace("http:", "https:")},
    )
    assert "secure" in behind_tls.headers["set-cookie"].lower()


@pytest.mark.parametrize("path", ["/console", "/console/", "/console/spaces/x/audiences", "/console/nothing/here"])
async def test_nothing_is_shown_without_signing_in_but_the_log_in_page(stranger: httpx.AsyncClient, path: str) -> None:
    answer = await stranger.get(path)
    assert answer.status_code == 401
    assert 'name="token"' in answer.text
    assert "www-authenticate" not in answer.headers  # browsers would ask for a password
    part = await stranger.get(path, headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/console/sign-in")


async def test_a_script_is_not_served_without_signing_in_but_the_log_in_page_has_its_looks(
    stranger: httpx.AsyncClient, admin: Browser
) -> None:
    assert (await stranger.get("/console/static/htmx.min.js")).status_code == 401
    assert (await stranger.get("/console/static/console.css")).headers["content-type"].startswith("text/css")
    assert "htmx" in await admin.see("/console/static/htmx.min.js")


async def test_a_wrong_token_does_not_sign_in(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.post("/console/sign-in", data={"token": "tt_wrong"})
    assert answer.status_code == 401
    assert "No such token" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("onward", ["https://evil.example/", "//evil.example", "/console/\\evil", "/spaces", ""])
async def test_signing_in_leads_nowhere_but_into_the_console(
    daemon: Daemon, stranger: httpx.AsyncClient, onward: str
) -> None:
    assert daemon.first is not None
    form = {"token": daemon.first.admin_token, "onward": onward}
    answer = await stranger.post("/console/sign-in", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")


async def test_signing_in_leads_to_the_page_that_was_asked_for(daemon: Daemon, stranger: httpx.AsyncClient) -> None:
    assert daemon.first is not None
    path = f"/console/spaces/{daemon.first.space.id}/audiences"
    assert f'value="{path}"' in (await stranger.get(path)).text
    answer = await stranger.post("/console/sign-in", data={"token": daemon.first.admin_token, "onward": path})
    assert answer.headers["location"] == path


async def test_a_revoked_token_ends_its_session_at_once(daemon: Daemon, client: httpx.AsyncClient, room: Room) -> None:
    body = {"name": "brief", "scopes": ["audiences:read"], "spaceId": room.space_id}
    made = (await client.post("/tokens", json=body)).json()["data"]["token"]
    async with signed_in(daemon, made["token"]) as browser:
        await browser.see(f"/console/spaces/{room.space_id}/audiences")
        assert (await client.delete(f"/tokens/{made['id']}")).status_code == 200
        assert "revoked" not in await browser.see(f"/console/spaces/{room.space_id}/audiences", status=401)


async def test_signing_out_ends_the_session(daemon: Daemon) -> None:
    assert daemon.first is not None
    async with signed_in(daemon, daemon.first.admin_token) as browser:
        kept = dict(browser.client.cookies)
        assert (await browser.send("/console/sign-out")).status_code == 303
        browser.client.cookies.update(kept)
        await browser.see("/console", status=401)


async def test_a_form_of_elsewhere_is_refused(admin: Browser) -> None:
    good = {"form_token": admin.form_token}
    for fields, headers in (
        ({}, {}),
        ({"form_token": "wrong"}, {}),
        ({"form_token": "ü"}, {}),
        (good, {"origin": "https://evil.example"}),
        (good, {"origin": "null"}),
        (good, {"sec-fetch-site": "cross-site"}),
    ):
        answer = await admin.client.post("/console/sign-out", data=fields, headers=headers)
        assert answer.status_code == 403, (fields, headers)
    await admin.see("/console")


async def test_every_answer_forbids_scripts_of_elsewhere_and_frames(
    stranger: httpx.AsyncClient, admin: Browser
) -> None:
    for client, path in (
        (stranger, "/console/sign-in"),
        (stranger, "/console"),
        (admin.client, "/console/spaces/none/audiences"),
        (admin.client, "/console/static/htmx.min.js"),
    ):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("private, max-age=86400" if "static" in path else "no-store")


async def test_a_form_that_is_too_large_is_refused(admin: Browser) -> None:
    answer = await admin.send("/console/sign-out", more="x" * 300_000)
    assert answer.status_code == 413
