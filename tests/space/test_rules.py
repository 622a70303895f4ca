"""Identity rules change while a space lives: they count from then on, and nothing decided is decided anew."""

import pytest

from actors.identity import Identity
from eventlog.entries import IdentityRulesChanged
from tests.space.room import KEY, Room, call

SHARED = {"email": "family@x.io"}


def owner(here: Room, user: str) -> int:
    """Return whose profile a user id leads to."""
    found = here.space.find("users", "user_id", user)
    assert found is not None
    return found


@pytest.mark.parametrize("dies", [False, True])
async def test_changed_rules_change_nothing_that_was_decided_also_when_folded_anew(here: Room, dies: bool) -> None:
    await here.send(call("ann", "identify", traits=SHARED), call("bob", "identify", traits=SHARED))
    await here.space.change_settings({"idLimits": {"user_id": 2}}, "an admin")
    await here.send(call("cem", "identify", traits=SHARED))  # a second user id may join now
    await here.space.change_settings({"idLimits": {"user_id": 1}, "blockedIds": ["ann"]}, "an admin")
    if dies:
        await here.die()
    await here.send(call("dan", "identify", traits=SHARED))
    assert len(await here.send(call("ann", "identify"))) == 1  # blocked since
    assert owner(here, "ann") == owner(here, "cem")
    assert len({owner(here, user) for user in ("ann", "bob", "dan")}) == 3

    changes = [fact for commit in here.log.read() for fact in commit.facts if isinstance(fact, IdentityRulesChanged)]
    assert [one.rules["idLimits"]["user_id"]["count"] for one in changes] == [2, 1]
    anew = Identity.from_facts(here.log.read(), suppression_key=KEY)
    assert (anew.digest(), anew.settings) == (here.space.identity.digest(), here.space.settings)
