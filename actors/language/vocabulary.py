"""The words of the language, its bounds, and what a misspelt word was probably meant to be.

Everything here is a constant: the parser, the checker, the printer and the documentation's test read the same tables.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from actors.language.tree import OPERATORS

DEFINITION_CHARS_MAX: Final = 32 * 1024  # as much as an event (contract, section 1)
PRIMARIES_MAX: Final = 50  # contract, section 3
DEPTH_MAX: Final = 50  # open parentheses and prefix operators around one place; no real definition comes near
NAME_CHARS_MAX: Final = 1_000  # of events, paths, keys and source ids; event names seen in practice are below 200
PATTERN_CHARS_MAX: Final = 1_000  # of a regular expression: as a name
PATTERN_BYTES_MAX: Final = 1 << 20  # of its program in RE2, an eighth of its own default: a match costs text x program
FREQUENCY_MAX: Final = 1_000_000  # of mode(…, n)
DURATION_MS_MAX: Final = 36_500 * 86_400_000  # a hundred years: longer than any history

UNITS_MS: Final[dict[str, int]] = {
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 604_800_000,
}
"""Milliseconds of each unit; the plural is the unit with an s."""

UNIT_WORDS: Final = ("seconds", "minutes", "hours", "days", "weeks")

EVENT_CALLS: Final = ("event", "page", "screen")
EXTRACTORS: Final = ("event", "page", "screen", "trait", "property", "context", "literal", "audience")
FILTERS: Final = ("where", "within", "between", "sources", "since", "until", "expires_after")
REDUCERS: Final = ("count", "sum", "avg", "min", "max", "mode", "first", "last", "unique")
COMPARISONS: Final = tuple(OPERATORS)

CASTS: Final[dict[str, dict[str, str | None]]] = {
    "min": {"number": None, "string": "string"},
    "max": {"number": None, "string": "string"},
    "mode": {"string": None, "number": None, "array": "array"},
}
"""What may follow `as` in each reducer, and the cast that the tree then holds (None: how it works anyway)."""

SPAN_OPERATORS: Final = frozenset({"within_last", "within_next", "before_last", "after_next"})
"""Comparisons that take a duration."""

DATE_OPERATORS: Final = frozenset({"before_date", "after_date"}) | SPAN_OPERATORS
"""Comparisons that need a date on their left."""

ORDER_OPERATORS: Final = frozenset({"greater_than", "at_least", "less_than", "at_most"})

_MEANT: Final[dict[str, str]] = {
    "average": "avg",
    "mean": "avg",
    "total": "sum",
    "distinct": "unique",
    "equal": "equals",
    "eq": "equals",
    "is": "equals",
    "not_equal": "differs",
    "not_equals": "differs",
    "ne": "differs",
    "gt": "greater_than",
    "gte": "at_least",
    "greater_than_or_equal": "at_least",
    "lt": "less_than",
    "lte": "at_most",
    "less_than_or_equal": "at_most",
    "is_set": "exists",
    "is_not_set": "absent",
    "includes": "contains",
    "not_contains": "omits",
    "does_not_contain": "omits",
    "in": "one_of",
    "not_in": "none_of",
    "regex": "matches",
    "like": "matches",
    "filter": "where",
    "last_days": "within",
    "session": "expires_after",
    "track": "event",
    "prop": "property",
    "user": "trait",
    "segment": "audience",
    "month": "days",
    "months": "days",
    "year": "days",
    "years": "days",
    "d": "days",
    "h": "hours",
    "m": "minutes",
    "min": "minutes",
    "s": "seconds",
    "w": "weeks",
}
"""What people write who know another language."""

_GUESS_CHARS_MAX: Final = 40  # a longer word is no misspelling, and comparing it costs time


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return a hint that names the nearest of the candidates, or an empty one."""
    known = tuple(candidates)
    plain = word.lower()
    if len(plain) > _GUESS_CHARS_MAX:
        return ""
    meant = _MEANT.get(plain)
    if meant not in known:
        meant = next(iter(get_close_matches(plain, known, n=1, cutoff=0.6)), None)
    return f"did you mean {meant}?" if meant else ""
