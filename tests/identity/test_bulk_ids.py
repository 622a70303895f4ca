"""The ids of very many at once. That they are what each is asked by itself: `test_identity_agrees`."""

import pytest
from msgspec import msgpack

from actors.bulk_ids import known_ids, own_id, packed
from actors.external_ids import Collection
from actors.identity_rows import EntityRecord, GivenId
from actors.identity_store import DENSE, IdentityStore
from eventlog.log import ENTITIES, Changes
from eventlog.memory import MemoryLog


def record(number: int) -> EntityRecord:
    """Return somebody with one id."""
    return EntityRecord("users", (GivenId("user_id", f"u{number}", 1, 1, 1, number),))


def names(store: IdentityStore, entities: list[int]) -> list[list[str]]:
    """Return the values of each one's ids."""
    return [[one.value for one in mine] for mine in known_ids(store.packed(entities), entities, 1)[1]]


@pytest.mark.parametrize("step", [1, DENSE - 1, DENSE, DENSE + 1, 100])
async def test_those_that_lie_close_together_and_those_that_do_not_are_read_alike(step: int) -> None:
    log = MemoryLog()
    store = IdentityStore(log)
    rows = [((number,), msgpack.encode(record(number))) for number in range(1, 1001)]
    await log.append([], [Changes("identity", 1, puts=((ENTITIES, rows),))])
    store.grow(1000)
    entities = list(range(1, 1001, step))
    assert names(store, entities) == [[f"u{number}"] for number in entities]
    store.put_record(entities[-1], record(5000))
    store.remove_record(entities[0])
    expected = [[f"u{number}"] for number in entities]
    expected[0], expected[-1] = [], ["u5000"]
    assert names(store, entities) == expected


def test_nobody_is_asked_about() -> None:
    assert known_ids(IdentityStore(MemoryLog()).packed([]), [], 1) == ([], [])
    assert known_ids(packed([None]), [7], 1) == (["use_00000007"], [()])


@pytest.mark.parametrize(
    ("entity", "expected"),
    [(1, "use_00000001"), (35, "use_0000000z"), (36, "use_00000010"), (36**6 - 1, "use_00zzzzzz")],
)
def test_an_own_id_is_the_number_in_base_36(entity: int, expected: str) -> None:
    assert own_id(entity, "users") == expected
    assert own_id(entity, "accounts") == expected.replace("use", "acc")


@pytest.mark.parametrize("entity", [36**6, 36**6 + 1, 2**32 - 1])
def test_an_own_id_holds_the_largest_numbers_too(entity: int) -> None:
    text = own_id(entity, None)
    assert (len(text), int(text[4:], 36)) == (12, entity)


@pytest.mark.parametrize("first", [0, 36**3 - 2, 36**3, 36**6 - 2])
@pytest.mark.parametrize("kinds", [["users"], ["accounts"], ["users", "accounts"]])
def test_the_own_ids_of_many_are_what_each_is_asked_by_itself(first: int, kinds: list[Collection]) -> None:
    entities = [first + 3, first, first + 1, first + 2]
    collections = (kinds * 4)[:4]
    records = packed([msgpack.encode(EntityRecord(one)) for one in collections])
    assert known_ids(records, entities, 1)[0] == list(map(own_id, entities, collections))
