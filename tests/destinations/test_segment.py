"""The `segment` destination against a real tracking API: our own daemon."""

from pathlib import Path

import pytest
from msgspec import json

from actors.delivery import HttpAsk
from adapters.config import Settings
from adapters.daemon import running
from adapters.destinations import DESTINATIONS
from adapters.net import HttpTransport
from tests.destinations.test_catalog import call, talk
from tests.destinations.test_net import CRM


@pytest.mark.parametrize("user", ["ann", None], ids=["with_a_user_id", "with_an_email_alone"])
async def test_our_own_tracking_api_takes_what_a_segment_destination_sends(tmp_path: Path, user: str | None) -> None:
    async with running(Settings(data=str(tmp_path / "data"), port=0)) as daemon:
        assert daemon.first is not None
        transport = HttpTransport(allow_private=True)
        given = {"url": daemon.url, "writeKey": daemon.first.write_key}
        account = call("group", None, None, ids=(("groupId", "acme"), ("userId", user or "bob")))
        for one in (call("identify", user), call("track", user), account):
            (ask,), _ = talk(DESTINATIONS["segment"], (one,), **given)
            assert isinstance(ask, HttpAsk)
            answer = await transport(CRM, ask, ())
            assert (answer.status, json.decode(answer.body)) == (200, {"success": True})
        space = daemon.data.spaces()[0]
        await space.settle()
        found = [event.message_id for commit in space.log.read() for event in commit.events]
        assert found == [call("identify", user).id, call("track", user).id, account.id]
        wrong, _ = talk(DESTINATIONS["segment"], (call("track", user),), url=daemon.url, writeKey="wrong")
        assert (await transport(CRM, wrong[0], ())).status == 401
        await transport.close()
