"""Rows that are not yet stored, against a plain dictionary: whatever is written is read at once."""

import anyio
from hypothesis import given
from hypothesis import strategies as st

from actors.delivery_rows import Rows
from eventlog.log import DELIVERIES, SENT, Key
from eventlog.memory import MemoryLog

keys = st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["", "x", "y"]))
acts = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.binary(max_size=2)),
        st.tuples(st.just("delete"), keys, st.just(b"")),
        st.tuples(st.just("take"), keys, st.just(b"")),
        st.tuples(st.just("stored"), keys, st.just(b"")),
    ),
    max_size=30,
)


@given(acts, st.integers(0, 3), keys, st.integers(1, 4))
def test_reads_see_every_write_whether_it_is_stored_or_not(
    done: list[tuple[str, Key, bytes]], depth: int, place: Key, limit: int
) -> None:
    async def check() -> None:
        log = MemoryLog()
        rows, plain, taken = Rows(log), {}, None
        for act, key, value in done:
            if act == "put":
                rows.put(SENT, key, value)
                plain[key] = value
            elif act == "delete":
                rows.delete(SENT, key)
                plain.pop(key, None)
            elif act == "take" and taken is None:
                taken = rows.take("p", 0)
            elif act == "stored" and taken is not None:
                await log.store([taken])
                rows.stored()
                taken = None
        for key in [place, *plain]:
            assert rows.get(SENT, key) == plain.get(key)
        assert rows.get_many(SENT, [place, *plain]) == {key: plain[key] for key in [place, *plain] if key in plain}
        prefix, after = place[:depth], place if depth < 3 else None
        wanted = sorted(key for key in plain if key[:depth] == prefix and (after is None or key > after))
        found = rows.range(SENT, prefix, after, limit)
        assert [(row.key, row.value) for row in found] == [(key, plain[key]) for key in wanted[:limit]]

    anyio.run(check)


def test_tables_do_not_mix() -> None:
    rows = Rows(MemoryLog())
    rows.put(DELIVERIES, ("d", "x"), b"1")
    assert rows.get(SENT, ("d", 1, "x")) is None
    assert [row.key for row in rows.range(DELIVERIES, ("d",))] == [("d", "x")]
