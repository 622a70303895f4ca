"""From messages to profiles: the door and identity together, against the scenarios' reference evaluator."""

from random import Random
from typing import Any

import pytest
from msgspec import json

from actors.door import Incoming, accept
from actors.identity import Identity
from scenarios.reference_identity import Received, Rules, identify
from tests.identity.desk import KEY

NOW_MS = 1_780_000_000_000


def message(random: Random) -> dict[str, Any]:
    """Draw a call of any kind, its ids from few values so that profiles meet."""
    kind = random.choice(("track", "identify", "identify", "page", "group", "alias"))
    drawn: dict[str, Any] = {"type": kind, "event": "E"} if kind == "track" else {"type": kind}
    ids = {"userId": ("u1", "u2", 3, "-1"), "anonymousId": ("a1", "a2", "a3", "anonymous"), "previousId": ("a1", "a4")}
    for name, values in ids.items():
        if random.random() < 0.6:
            drawn[name] = random.choice(values)
    if kind == "group":
        drawn["groupId"] = random.choice(("g1", "g2", 7, "null"))
    emails = ("Ann@x.com ", "ann@x.com", "bob@x.com", None)
    if random.random() < 0.4:
        drawn["traits"] = {"email": random.choice(emails)}
    context: dict[str, Any] = {}
    if random.random() < 0.2:
        context["traits"] = {"email": random.choice(emails)}
    if random.random() < 0.2:
        device = {"id": "d1", "advertisingId": "00-00", "token": "t1", "adTrackingEnabled": True}
        context["device"] = {"type": random.choice(("iOS", "android", "web")), **device}
    if random.random() < 0.2:
        context["externalIds"] = [{"type": "loyalty", "id": random.choice(("l1", 2)), "collection": "users"}]
    return {**drawn, "context": context} if context else drawn


@pytest.mark.parametrize("seed", range(20))
def test_messages_end_in_the_profiles_that_the_reference_finds(seed: int) -> None:
    """Same profiles, same accounts, the same events refused."""
    random = Random(seed)  # noqa: S311 - a test world, no secret
    messages = [message(random) for _ in range(120)]
    identity = Identity(suppression_key=KEY)
    refused = []
    for seq, one in enumerate(messages, 1):
        call = accept(
            json.encode(one),
            kind=None,
            received_ms=NOW_MS,
            sent_at=None,
            index=0,
            source="web",
            new_id=lambda: "m",
        )
        if not isinstance(call, Incoming):
            refused.append(seq)
        elif identity.resolve(call.ids, group=call.group, event_ms=call.event_ms, cause_seq=seq).refusal:
            refused.append(seq)
    expected = identify([Received(seq, NOW_MS, "web", one) for seq, one in enumerate(messages, 1)], Rules())
    assert refused == [one.seq for one in expected.rejected]
    for collection, entities in (("users", expected.users), ("accounts", expected.accounts)):
        found = {
            tuple((one.id_type, one.value) for one in identity.ids(entity)) for entity in listed(identity, collection)
        }
        assert found == {tuple((one.type, one.value) for one in entity.ids) for entity in entities}


def listed(identity: Identity, collection: Any) -> list[int]:
    return identity.entities(collection)
