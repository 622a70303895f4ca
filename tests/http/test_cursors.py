"""Cursors are refused unless this data directory made them, for this list."""

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.http.cursors import Cursors
from eventlog.errors import InvalidError
from tests.http.stand import Stand, ordered, standing

OURS, OTHERS = Cursors(b"ours"), Cursors(b"another key")
SHAPE: Any = tuple[int, str | None]


def refused(cursor: str, kind: str = "numbers", shape: Any = SHAPE) -> InvalidError:
    """Return what is said of a cursor that is not taken."""
    with pytest.raises(InvalidError) as error:
        OURS.decode(cursor, kind, shape)
    return error.value


@given(st.integers(-(2**63), 2**63 - 1), st.none() | st.text(max_size=50))
def test_a_cursor_says_what_was_put_into_it(number: int, text: str | None) -> None:
    cursor = OURS.encode("numbers", number, text)
    assert OURS.decode(cursor, "numbers", SHAPE) == (number, text)
    assert OURS.decode(cursor + "==", "numbers", SHAPE) == (number, text)


def test_a_cursor_of_another_list_or_another_key_is_refused_and_the_message_says_what_to_do() -> None:
    for cursor, kind in ((OURS.encode("tokens", 3, None), "numbers"), (OTHERS.encode("numbers", 3, None), "numbers")):
        error = refused(cursor, kind)
        assert (error.code, error.field) == ("invalid_pagination", "pagination[cursor]")
        assert "leave it out for the first page" in str(error)
    assert refused(OURS.encode("numbers", "three", None))
    assert refused(OURS.encode("numbers", 3))


@given(st.data())
def test_a_cursor_with_any_bit_turned_or_any_byte_gone_is_refused(data: st.DataObject) -> None:
    cursor = OURS.encode("numbers", 1_000_000, "a")
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    place = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[place // 8] ^= 1 << place % 8
    refused(base64.urlsafe_b64encode(raw).decode())
    refused(cursor[: data.draw(st.integers(0, len(cursor) - 2))])


@given(st.text(max_size=100) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_no_text_is_taken_for_a_cursor_by_chance(cursor: str) -> None:
    refused(cursor)


def test_what_is_too_long_is_not_even_read() -> None:
    refused(OURS.encode("numbers", 3, "x" * 2_000))


async def test_paging_goes_on_over_a_restart(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        made = await stand.audience("Buyers")
        await stand.send(*(ordered(f"u{n}") for n in range(3)))
        path = f"{stand.path}/audiences/{made['id']}/members"
        first = await stand.admin.data("GET", path, params={"pagination[count]": "2"})
    async with standing(tmp_path) as stand:
        asked = {"pagination[count]": "2", "pagination[cursor]": first["pagination"]["next"]}
        rest = await stand.admin.data("GET", path, params=asked)
    assert [one["name"] for one in first["members"] + rest["members"]] == ["u0", "u1", "u2"]


async def test_all_pages_about_the_past_answer_as_of_the_first_one(stand: Stand) -> None:
    made = await stand.audience("Buyers")
    await stand.send(*(ordered(f"u{n}", timestamp="2026-02-01T00:00:00Z") for n in range(4)))
    path, asked = f"{stand.path}/audiences/{made['id']}/members", {"pagination[count]": "2", "at": "2026-02-10"}
    first = await stand.admin.data("GET", path, params=asked)
    await stand.move("2026-03-01T13:00:00Z")
    await stand.send(ordered("late", timestamp="2026-02-02T00:00:00Z"))
    then = {**asked, "pagination[count]": "9", "pagination[cursor]": first["pagination"]["next"]}
    rest = await stand.admin.data("GET", path, params=then)
    assert [one["name"] for one in first["members"] + rest["members"]] == ["u0", "u1", "u2", "u3"]
    anew = await stand.admin.data("GET", path, params={**asked, "pagination[count]": "9"})
    assert [one["name"] for one in anew["members"]] == ["u0", "u1", "u2", "u3", "late"]
