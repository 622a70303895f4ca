"""What the management API tells of destinations at work, and what it lets be done with them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.destinations.wire import Server, receiver
from tests.http.stand import Stand, ordered, standing

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="
PATIENCE_S = 20.0


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Stand]:
    """Return a daemon on real time that may call this machine."""
    async with standing(tmp_path, simulated_clock="", allow_private_destinations=True) as started:
        yield started


async def connected(real: Stand, server: Server, **settings: Any) -> str:
    """Create a webhook with a secret, connect an audience, return the webhook's id."""
    [source] = (await real.admin.data("GET", "/sources"))["sources"]
    given = {"url": server.url, "secret": SECRET, **settings}
    asked = {"sourceId": source["id"], "metadataId": "webhook", "name": "crm", "settings": given}
    made: str = (await real.admin.data("POST", "/destinations", json=asked))["destination"]["id"]
    audience = await real.audience("Buyers")
    asked = {"destination": {"id": made}, "connectionSettings": {"sendIdentify": False}}
    await real.admin.data("POST", f"{real.path}/audiences/{audience['id']}/destination-connections", json=asked)
    return made


async def until(
    ask: Callable[[], Awaitable[dict[str, Any]]], holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Ask until something holds; return the last answer."""
    with anyio.fail_after(PATIENCE_S):
        while not holds(found := await ask()):  # noqa: ASYNC110 - the API tells by being asked
            await anyio.sleep(0.02)
    return found


async def test_a_state_tells_of_deliveries_pace_and_the_last_errors_and_no_secret(real: Stand) -> None:
    refusal = f"HTTP/1.1 400 X\r\nContent-Length: {len(SECRET) + 4}\r\nX-Key: {SECRET}\r\n\r\nbad {SECRET}".encode()
    async with receiver([200, refusal]) as server:
        crm = await connected(real, server, rate=40, burst=7)

        async def state() -> dict[str, Any]:
            found: dict[str, Any] = await real.admin.data("GET", f"{real.path}/destinations/{crm}/deliveries")
            return found

        await real.send(ordered("ann"))
        await until(state, lambda found: found["state"]["delivered"] == 1)
        await real.send(ordered("bob"))
        found = await until(state, lambda found: found["state"]["dead"] == 1)
    told = found["state"]
    assert (told["state"], told["circuit"], told["pending"], told["inFlight"]) == ("connected", "closed", 0, 0)
    assert (told["retrying"], told["givenUp"], told["retried"]) == (0, 1, 0)
    assert (told["ratePerSecond"], told["allowedPerSecond"], told["burst"]) == (40, 40, 7)
    assert 0 < told["achievedPerSecond"] <= 2
    assert told["lagSeconds"] == 0
    assert told["lastDeliveredAt"] < told["lastErrorAt"]
    [error] = told["errors"]
    assert (error["method"], error["address"], error["status"]) == ("POST", server.url, 400)
    assert '"userId":"bob"' in error["body"]
    assert error["answerBody"] == "bad ********"
    assert error["headers"]["webhook-signature"] == error["answerHeaders"]["x-key"] == "********"
    assert [(one["state"], one["userId"], one["attempts"]) for one in found["deliveries"]] == [
        ("dead", "bob", 1),
        ("delivered", "ann", 1),
    ]
    assert SECRET not in str(found)


async def test_dead_letters_are_searched_sent_again_and_dropped_one_by_one_or_all(real: Stand) -> None:
    async with receiver([400] * 4) as server:
        crm = await connected(real, server)
        path = f"{real.path}/destinations/{crm}/dead-letters"

        async def letters(**query: str) -> dict[str, Any]:
            found: dict[str, Any] = await real.admin.data("GET", path, params=query)
            return found

        await real.send(*(ordered(user) for user in ("ann", "bob", "cat", "dan")))
        found = await until(letters, lambda found: len(found["deadLetters"]) == 4)
        assert found["pagination"]["totalEntries"] == 4
        [one] = (await letters(search="BOB"))["deadLetters"]
        assert (one["userId"], one["event"], one["key"], one["status"]) == ("bob", "Audience Entered", "buyers", 400)
        assert len((await letters(search="answered 400"))["deadLetters"]) == 4
        nothing = await letters(search="nowhere")
        assert (nothing["deadLetters"], nothing["pagination"].get("totalEntries")) == ([], None)
        await real.admin.refusal("GET", path, 400, params={"search": "x" * 1_001})

        assert await real.admin.data("POST", f"{path}/{one['id']}/resend") == {"count": 1}
        await until(letters, lambda found: len(found["deadLetters"]) == 3)
        with anyio.fail_after(PATIENCE_S):
            while len(server.requests) < 5:  # noqa: ASYNC110 - a real server tells by being called
                await anyio.sleep(0.02)
        assert server.requests[-1].headers["webhook-id"] == one["id"]
        [dropped] = (await letters(search="dan"))["deadLetters"]
        assert await real.admin.data("DELETE", f"{path}/{dropped['id']}") == {"count": 1}
        assert await real.admin.data("POST", f"{path}/resend") == {"count": 2}
        assert await real.admin.data("DELETE", path) == {"count": 0}
        await real.admin.refusal("DELETE", f"{path}/{dropped['id']}", 404)


async def test_a_ping_tells_what_is_wrong_and_needs_no_delivery(real: Stand) -> None:
    async with receiver([401]) as server:
        crm = await connected(real, server)
        path = f"{real.path}/destinations/{crm}/ping"
        said = await real.admin.data("POST", path)
        assert (said["ok"], said["status"]) == (False, 401)
        assert (await real.admin.data("POST", path))["ok"] is True


async def test_a_configuration_is_imported_with_its_secrets_which_nobody_is_shown(real: Stand) -> None:
    async with receiver() as server:
        crm = await connected(real, server, rate=3)
        answer = await real.admin.data("POST", f"/destinations/{crm}/copies", json={"name": "second"})
        copy = answer["destination"]
        assert (copy["name"], copy["enabled"], copy["metadata"]["slug"]) == ("second", True, "webhook")
        assert copy["settings"] == {"url": server.url, "secret": "********", "rate": 3}
        assert copy["id"] != crm
        assert SECRET not in str(answer)

        held = real.daemon.deliveries(real.space.id).destinations
        assert held.readable(held.destination(copy["id"]))["secret"] == SECRET
        assert held.connections(destination=copy["id"]) == []
        events = (await real.admin.data("GET", "/audit-events"))["events"]
        assert [one["resourceId"] for one in events if one["type"] == "Destination Copied"] == [copy["id"]]

        off = await real.admin.data("POST", f"/destinations/{crm}/copies", json={"enabled": False})
        assert (off["destination"]["name"], off["destination"]["enabled"]) == ("crm", False)
        await real.admin.data("PATCH", f"/destinations/{crm}", json={"settings": {"url": server.url}})
        assert held.readable(held.destination(copy["id"]))["secret"] == SECRET  # each has its own from then on


async def test_a_copy_stays_in_its_space_and_needs_the_scope_that_making_one_does(real: Stand) -> None:
    async with receiver() as server:
        crm = await connected(real, server)
        other = (await real.admin.data("POST", "/spaces", json={"name": "Other"}))["space"]["id"]
        asked = {"slug": "web", "enabled": True, "metadataId": "http", "settings": {"spaceId": other}}
        elsewhere = (await real.admin.data("POST", "/sources", json=asked))["source"]["id"]
        path = f"/destinations/{crm}/copies"
        refused = await real.admin.refusal("POST", path, 400, json={"sourceId": elsewhere})
        assert refused["field"] == "sourceId"
        await real.admin.refusal("POST", path, 400, json={"name": " "})
        await real.admin.refusal("POST", "/destinations/dst_nobody/copies", 404, json={})
        await (await real.token("audiences:write")).refusal("POST", path, 403, json={})
        await (await real.token("admin", space=other)).refusal("POST", path, 404, json={})
        assert len((await real.admin.data("GET", "/destinations"))["destinations"]) == 1
