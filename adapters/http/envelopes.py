"""What every answer is wrapped in: `{"data": …}`, `{"errors": […]}`, pages with cursors, times as ISO 8601.

A page is cut by a *key* that an item keeps for life (its number, its entity, its sequence), never by an offset: what is
created or deleted meanwhile shifts nothing, no item comes twice and none is left out. Cursors: `cursors.py`.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar
from typing import Literal as OneOf

from litestar.di import NamedDependency
from msgspec import Struct

from adapters.http.cursors import CURSOR_CHARS_MAX, OF_THIS_PROCESS, Cursors, Key
from eventlog.errors import InvalidError, RefusedError
from eventlog.instants import instant_ms

PAGE_COUNT_MAX: Final = 1000  # the public API's own bound on pagination[count]
PAGE_COUNT_DEFAULT: Final = 100

T = TypeVar("T")


class Shape(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The base of what the API takes and gives: camelCase names, unknown fields ignored, absent ones left out."""


class Data(Struct, Generic[T], frozen=True):
    """A successful answer."""

    data: T


class RequestError(Shape, frozen=True):
    """One thing that was wrong; `type` is public and stays, `message` may improve."""

    type: str
    message: str | None = None
    field: str | None = None
    data: Any = None
    status: int | None = None


class Errors(Struct, frozen=True):
    """A refusal."""

    errors: list[RequestError]


class PaginationOutput(Shape, frozen=True):
    """Where a page lies; hand `next` back as `pagination[cursor]` to go on."""

    current: str
    next: str | None = None
    previous: str | None = None
    total_entries: int | None = None


class Status(Shape, frozen=True):
    """The answer to a deletion."""

    status: OneOf["SUCCESS"]


class DetailedError(RefusedError):
    """A refusal with more to tell: data beside the message, and when to try again."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        data: Any = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code, message, field=field)
        self.status = status
        self.data = data
        self.retry_after_s = retry_after_s


SUCCESS: Final = Data(Status(status="SUCCESS"))


class Page(Struct, frozen=True):
    """Which part of a list is wanted."""

    count: int = PAGE_COUNT_DEFAULT
    cursor: str | None = None
    cursors: Cursors = OF_THIS_PROCESS


# -- times -----------------------------------------------------------------------------------------------------------


def parse_time_ms(text: str, field: str) -> int:
    """Return the milliseconds of an ISO 8601 time; without a zone it is UTC, a date is its midnight."""
    spelled = text.strip()
    if "T" in spelled:
        spelled = spelled.replace(" ", "+")  # a plus that a client did not encode in the query
    time_ms = instant_ms(spelled)
    if time_ms is None or time_ms < 0:
        raise InvalidError(
            "invalid_time", f"{field}: {text[:64]!r} is not an ISO 8601 time such as 2026-03-01T00:00:00Z", field=field
        )
    return time_ms


def optional_time_ms(text: str | None, field: str) -> int | None:
    """Return the milliseconds of an ISO 8601 time, None for none."""
    return None if text is None else parse_time_ms(text, field)


# -- pages -----------------------------------------------------------------------------------------------------------

_COUNT = re.compile(r"""["']?\bcount["']?\s*[:=]\s*["']?(-?\d+)(?:\.0+)?["']?(?=[\s,;}&]|$)""")
_COUNT_NAMED = re.compile(r"""["']?\bcount["']?\s*[:=]\s*(?!["']?(?:None|null|undefined)\b)""")
_CURSOR = re.compile(r"""["']?\bcursor["']?\s*[:=]\s*["']?(?!(?:None|null|undefined)\b)([\w\-+/=%.~]+)""")
_PAGE_HINT: Final = 'pagination[count]=50&pagination[cursor]=…, or pagination={"count": 50}'


def parse_page(
    count: str | None, cursor: str | None, pagination: str | None, cursors: Cursors = OF_THIS_PROCESS
) -> Page:
    """Return the page asked for by `pagination[count]`, `pagination[cursor]`, or one `pagination` value for both.

    Some clients send `pagination` as JSON, some as a printed Python dict or `count=50 cursor='…'`: all are read alike.
    """
    if pagination is not None and pagination.strip() not in ("", "{}", "None", "null"):
        text = pagination[: CURSOR_CHARS_MAX * 2]
        found_count, found_cursor = _COUNT.search(text), _CURSOR.search(text)
        if found_count is None and (found_cursor is None or _COUNT_NAMED.search(text)):
            raise InvalidError(
                "invalid_pagination", f"pagination is not understood; send {_PAGE_HINT}", field="pagination"
            )
        count = count if found_count is None or count is not None else found_count[1]
        cursor = cursor if found_cursor is None or cursor is not None else found_cursor[1]
    return Page(_parse_count(count), cursor or None, cursors)


def _parse_count(count: str | None) -> int:
    if count is None or count == "":
        return PAGE_COUNT_DEFAULT
    if (match := re.fullmatch(r"\s*(\d{1,9})(?:\.0+)?\s*", count, re.ASCII)) and 1 <= int(match[1]) <= PAGE_COUNT_MAX:
        return int(match[1])
    raise InvalidError(
        "invalid_pagination",
        f"pagination[count] is {count[:20]!r}; it takes a whole number from 1 to {PAGE_COUNT_MAX}",
        field="pagination[count]",
    )


PageQuery = NamedDependency[Page]
"""Which part of a list a request wants."""


def paginate(
    items: Sequence[T], key: Callable[[T], Key], page: Page, *, kind: str, total: int | None = None
) -> tuple[list[T], PaginationOutput]:
    """Cut a page out of a whole list; an item's key is for life, and the list is sorted by it here."""
    ordered = sorted(items, key=lambda item: _order(key(item)))
    start = 0
    if page.cursor is not None:
        (after,) = page.cursors.decode(page.cursor, kind, tuple[Key | None])
        if after is not None:
            start = bisect_right(ordered, _order(after), key=lambda item: _order(key(item)))
    shown = ordered[start : start + page.count]
    before = max(0, start - page.count)
    return shown, PaginationOutput(
        current=page.cursor or page.cursors.encode(kind, None),
        next=page.cursors.encode(kind, key(shown[-1])) if start + page.count < len(ordered) else None,
        previous=page.cursors.encode(kind, key(ordered[before - 1]) if before else None) if start else None,
        total_entries=len(ordered) if total is None else total,
    )


def _order(key: Key) -> tuple[bool, int, str]:
    """Order numbers before texts."""
    return (False, key, "") if isinstance(key, int) else (True, 0, key)
