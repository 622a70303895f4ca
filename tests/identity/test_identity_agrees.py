"""Identity against a plain reference: random graphs, rules, batches, write-behind and crashes."""

from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers

from actors.bulk_ids import known_ids, own_id
from actors.external_ids import ExternalId
from actors.identity import Identity
from actors.identity_past import WhoIsWho
from eventlog.memory import MemoryLog
from tests.identity.desk import KEY, Desk
from tests.identity.plain import DAY_MS, PlainIdentity

Picture = dict[int, tuple[str, list[tuple[str, str, int]], list[int]]]

TYPES = ("user_id", "email", "anonymous_id", "ios.id", "loyalty")
VALUES = ("1", "2", "3", "4", "-1", "00-0", "x9")
DAYS = (0, 1, 7, 8, 30, 31, 37)  # so that the edges of weeks and months meet


def call(random: Random) -> tuple[list[tuple[str, str]], tuple[str, str] | None, int]:
    """Draw an event: mostly few ids, now and then a group."""
    pairs = [(random.choice(TYPES), random.choice(VALUES)) for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3, 5)))]
    group = ("group_id", random.choice(("g1", "g2", "null"))) if random.random() < 0.2 else None
    return list(dict.fromkeys(pairs)), group, random.choice(DAYS) * DAY_MS


def rule_change(random: Random) -> dict[str, Any]:
    """Draw settings, few or all of them."""
    periods = ("ever", "ever", "weekly", "monthly")
    given: dict[str, Any] = {
        "idLimits": {
            name: {"count": random.choice((0, 1, 1, 2, 3)), "period": random.choice(periods)}
            for name in random.sample((*TYPES, "*"), random.randrange(4))
        },
        "maxIds": random.choice((1, 3, 5, 8, 8)),
        "maxMerges": random.choice((0, 1, 2, 3, 3)),
    }
    if random.random() < 0.3:
        given["idPriority"] = random.sample(TYPES, random.randrange(4))
    if random.random() < 0.3:
        given["blockedIds"] = random.choice((["2", {"regex": "^x"}], ["3"], []))
    return given


def step(random: Random) -> Any:
    """Draw what happens next: a batch of events, a store, a crash or other rules."""
    kind = random.random()
    if kind < 0.75:
        return [call(random) for _ in range(random.choice((1, 1, 2, 5)))]
    return rule_change(random) if kind < 0.8 else random.choice(("store", "die", "store and die", "hand out"))


def set_rules(plain: PlainIdentity, given: dict[str, Any]) -> None:
    plain.limits.update({name: (limit["count"], limit["period"]) for name, limit in given["idLimits"].items()})
    plain.ids_max, plain.merges_max = given["maxIds"], given["maxMerges"]
    plain.priority = given.get("idPriority", plain.priority)
    if "blockedIds" in given:
        plain.blocked = [one for one in given["blockedIds"] if isinstance(one, str)]
        plain.blocked_patterns = [one["regex"] for one in given["blockedIds"] if isinstance(one, dict)]


def external(pair: tuple[str, str], collection: Any = "users") -> ExternalId:
    return ExternalId(collection, *pair)


def picture(who: WhoIsWho) -> Picture:
    return {
        entity: (
            collection,
            sorted((one.id_type, one.value, one.event_ms) for one in who.ids(entity)),
            list(who.absorbed_by(entity)),
        )
        for collection in ("users", "accounts")
        for entity in who.entities(collection)
    }


def check_in_bulk(identity: Identity, entities: list[int], seq: int) -> None:
    """Hold what is read of many at once against what each is asked by itself."""
    who = identity.as_of(seq)
    keys, ids = known_ids(identity.packed_ids(entities), entities, seq)
    assert [[(one.id_type, one.value, one.seq) for one in mine] for mine in ids] == [
        [(one.id_type, one.value, one.seq) for one in who.ids(entity)] for entity in entities
    ]
    assert keys == [own_id(entity, who.collection(entity)) for entity in entities]


async def take_both(desk: Desk, plain: PlainIdentity, batch: list[Any]) -> None:
    """Hand a batch to both and compare each answer."""
    answers = await desk.take_batch(
        (tuple(map(external, pairs)), None if group is None else external(group, "accounts"), event_ms)
        for pairs, group, event_ms in batch
    )
    for (pairs, group, event_ms), answer in zip(batch, answers, strict=True):
        expected = plain.take(pairs, group, event_ms)
        assert (answer.refusal == "") is (expected is not None)
        if expected is not None:
            codes = [fact.code for fact in answer.facts if hasattr(fact, "code")]
            assert (answer.profile, answer.account, codes) == expected


async def play(random: Random, steps: int) -> None:
    desk, plain = Desk(MemoryLog(), cached_max=random.choice((1, 4, 100))), PlainIdentity()
    past: list[tuple[int, Picture]] = []
    for _ in range(steps):
        drawn = step(random)
        if isinstance(drawn, dict):
            set_rules(plain, drawn)
            await desk.set_rules(**drawn)
        elif isinstance(drawn, list):
            if random.random() < 0.5:
                desk.identity.prefetch(external(pair) for pairs, _, _ in drawn for pair in pairs)
            await take_both(desk, plain, drawn)
            past.append((desk.last_event_seq, plain.picture()))
        else:
            await desk.upset(drawn)
        assert picture(desk.identity) == plain.picture()
        assert types(desk.identity, plain) == {
            one.number: {known.pair[0] for known in one.ids} for one in plain.entities
        }
    for seq, then in past:
        assert picture(desk.identity.as_of(seq)) == then
        check_in_bulk(desk.identity, list(then), seq)
    assert desk.identity.digest() == Identity.from_facts(desk.log.read(), suppression_key=KEY).digest()
    for entity in plain.entities:
        assert all(desk.identity.canonical(one) == entity.number for one in entity.absorbed)
        assert all(desk.identity.find(*one.pair, entity.kind) == entity.number for one in entity.ids)


def types(identity: Identity, plain: PlainIdentity) -> dict[int, frozenset[str]]:
    return {one.number: identity.id_types(one.number) for one in plain.entities}


@settings(deadline=None, max_examples=200)
@given(integers(0, 2**32), integers(1, 8))
def test_identity_agrees_with_the_plain_one_over_a_few_steps(seed: int, steps: int) -> None:
    """Answers, ids, merges and the past are the same, and a fold of the log gives the same state."""
    anyio.run(play, Random(seed), steps)  # noqa: S311 - a test world, no secret


@pytest.mark.parametrize("seed", range(40))
def test_identity_agrees_with_the_plain_one_whatever_is_stored_or_lost_between(seed: int) -> None:
    """As above, over a longer life."""
    anyio.run(play, Random(seed), 60)  # noqa: S311 - a test world, no secret
