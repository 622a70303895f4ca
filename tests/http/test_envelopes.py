"""Pages, cursors and times of the management API."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.http.cursors import Cursors
from adapters.http.envelopes import (
    PAGE_COUNT_DEFAULT,
    Page,
    paginate,
    parse_page,
    parse_time_ms,
)
from eventlog.errors import InvalidError

CURSORS = Cursors(b"key")


@pytest.mark.parametrize(
    ("pagination", "expected"),
    [
        ('{"count": 25}', Page(25)),
        ('{"count":25,"cursor":"abc-_"}', Page(25, "abc-_")),
        ("{'count': 25, 'cursor': None}", Page(25)),
        ("{'cursor': 'abc', 'count': 25.0}", Page(25, "abc")),
        ("count=25 cursor='abc'", Page(25, "abc")),
        ("cursor=None count=25", Page(25)),
        ("cursor='abc='", Page(PAGE_COUNT_DEFAULT, "abc=")),
        ('{"count": "25"}', Page(25)),
        ("{}", Page()),
        ("", Page()),
        ("None", Page()),
    ],
)
def test_pagination_in_one_value_is_read_however_a_client_spells_it(pagination: str, expected: Page) -> None:
    assert parse_page(None, None, pagination) == expected


def test_bracketed_parameters_win_over_the_single_value() -> None:
    assert parse_page("5", None, '{"count": 25, "cursor": "abc"}') == Page(5, "abc")


@pytest.mark.parametrize("count", ["0", "1001", "-1", "ten", "1.5", "1e3", "٣", "9" * 40])
def test_a_count_out_of_bounds_is_refused_by_name(count: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_page(count, None, None)
    assert refused.value.field == "pagination[count]"


@pytest.mark.parametrize(
    "pagination", ["{'count': 0}", '{"count": -3}', "count=1001", "{'count': 'x'}", "nonsense", "[1]"]
)
def test_a_pagination_that_cannot_be_read_is_refused(pagination: str) -> None:
    with pytest.raises(InvalidError):
        parse_page(None, None, pagination)


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_pagination_ever_crashes(pagination: str, cursor: str) -> None:
    try:
        page = parse_page(None, cursor, pagination)
        paginate([1, 2, 3], lambda item: item, page, kind="numbers")
    except InvalidError:
        pass


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5), max_size=3))
def test_a_cursor_with_values_of_the_wrong_type_never_crashes(values: list[Any]) -> None:
    try:
        paginate([1, 2, 3], lambda item: item, Page(2, CURSORS.encode("numbers", *values), CURSORS), kind="numbers")
    except InvalidError:
        pass


def walk(items: list[int], count: int) -> list[int]:
    seen: list[int] = []
    page = Page(count)
    while True:
        shown, out = paginate(items, lambda item: item, page, kind="numbers")
        seen += shown
        if out.next is None:
            return seen
        page = Page(count, out.next)


@given(st.sets(st.integers(0, 30)), st.integers(1, 5))
def test_pages_hold_every_item_once(items: set[int], count: int) -> None:
    assert walk(list(items), count) == sorted(items)


def test_what_is_created_or_deleted_between_two_pages_shifts_nothing() -> None:
    _, first = paginate([1, 2, 3, 4, 5], lambda item: item, Page(2), kind="numbers")
    shown, _ = paginate([2, 3, 4, 5, 6], lambda item: item, Page(10, first.next), kind="numbers")
    assert shown == [3, 4, 5, 6]
    assert first.total_entries == 5


def test_previous_leads_back_to_the_page_before() -> None:
    items = list(range(10))
    _, first = paginate(items, lambda item: item, Page(3), kind="numbers")
    second_items, second = paginate(items, lambda item: item, Page(3, first.next), kind="numbers")
    _, third = paginate(items, lambda item: item, Page(3, second.next), kind="numbers")
    assert first.previous is None
    assert paginate(items, lambda item: item, Page(3, third.previous), kind="numbers")[0] == second_items
    assert paginate(items, lambda item: item, Page(3, second.previous), kind="numbers")[0] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T00:00:01", 1000),
        ("1970-01-02", 86_400_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T01:00:00 01:00", 0),  # a plus that a client did not encode
    ],
)
def test_times_are_iso_8601_and_utc_without_a_zone(text: str, time_ms: int) -> None:
    assert parse_time_ms(text, "at") == time_ms


@pytest.mark.parametrize("text", ["", "yesterday", "12345", "2026-13-01", "1969-12-31"])
def test_another_time_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_time_ms(text, "known")
    assert refused.value.field == "known"
