"""The settings of a space: identity rules, how long message ids are remembered, how long events are kept.

All are frozen values with a JSON form, the same in the API, in a scenario's `settings:` and in the log (the fact
`IdentityRulesChanged` holds all of it). They count for events from then on: nothing resolved earlier is resolved anew.
Times are milliseconds.

```json
{"idLimits": {"user_id": 1, "email": {"count": 5, "period": "monthly"}, "*": 5},
 "idPriority": ["user_id", "email"],
 "blockedIds": ["-1", {"regex": "^[0-]*$"}, {"value": "test@acme.com", "type": "email"}],
 "maxIds": 1000, "maxMerges": 100, "dedupeWindow": "24h", "eventRetentionDays": null}
```
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final
from typing import Literal as OneOf

from msgspec import Struct
from msgspec.structs import replace

from actors.conditions.compare import pattern
from actors.external_ids import TYPE_CHARS_MAX, VALUE_CHARS_MAX
from actors.language.rules import pattern_flaw
from eventlog.errors import InvalidError

Period = OneOf["ever", "weekly", "monthly", "annually"]

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
# A period rolls: no stretch of this length holds more first uses than the limit says. None: all of time is one.
PERIODS_MS: Final[Mapping[Period, int | None]] = {
    "ever": None,
    "weekly": 7 * DAY_MS,
    "monthly": 30 * DAY_MS,
    "annually": 365 * DAY_MS,
}
_PERIODS: Final[Mapping[str, Period]] = {period: period for period in PERIODS_MS}
OTHERS: Final = "*"  # in idLimits: every type that is not named

DEDUPE_WINDOW_MS: Final = 24 * HOUR_MS  # contract, section 1
DEDUPE_WINDOW_MS_MAX: Final = 30 * DAY_MS  # ours: message ids are kept in memory and on disk as long
RETENTION_DAYS_MAX: Final = 36_500  # ours: a hundred years
IDS_MAX: Final = 1000  # contract, section 2
MERGES_MAX: Final = 100  # contract, section 2
BOUND_MAX: Final = 10_000  # ours: a profile's record is read and written whole
LIMIT_COUNT_MAX: Final = 10_000  # as BOUND_MAX
LIMITS_MAX: Final = 200  # ours: id types with a rule of their own
PRIORITY_MAX: Final = 200  # ours: as LIMITS_MAX
BLOCKED_MAX: Final = 1000  # ours: exact values
BLOCKED_PATTERNS_MAX: Final = 100  # ours: each new value is searched for each of them
PATTERN_CHARS_MAX: Final = 1000  # ours

_PIECE = re.compile(
    r"\s*(\d+)\s*(ms|milliseconds?|s|seconds?|m|minutes?|h|hours?|d|days?|w|weeks?)(?![a-z])", re.ASCII | re.IGNORECASE
)
_UNITS_MS: Final = {
    **{"ms": 1, "millisecond": 1, "s": 1000, "second": 1000, "m": 60_000, "minute": 60_000},
    **{"h": HOUR_MS, "hour": HOUR_MS, "d": DAY_MS, "day": DAY_MS, "w": 7 * DAY_MS, "week": 7 * DAY_MS},
}
_DIGITS_MAX: Final = 15  # more overflow no int of ours


class IdLimit(Struct, frozen=True):
    """How many values of an id type a profile may have; 0: ids of this type never identify."""

    count: int
    period: Period = "ever"


class BlockedId(Struct, frozen=True):
    """A value that never identifies: an exact one or, with `regex`, all in which the pattern is found."""

    value: str
    regex: bool = False
    id_type: str | None = None  # None: whatever the type


DEFAULT_LIMITS: Final[Mapping[str, IdLimit]] = {OTHERS: IdLimit(5), "user_id": IdLimit(1)}
DEFAULT_PRIORITY: Final = ("user_id", "email")
DEFAULT_BLOCKED: Final = (
    BlockedId(""),
    BlockedId("-1"),
    BlockedId("null"),
    BlockedId("anonymous"),
    BlockedId("^[0-]*$", regex=True),
)
# The pattern above as Python searches it, which starts ten times as fast as re2: every new profile's id is searched.
_OWN_SEARCHES: Final = {"^[0-]*$": re.compile("[0-]*").fullmatch}


class IdentityRules(Struct, frozen=True):
    """Which external ids may identify a profile, and how many it may have."""

    limits: tuple[tuple[str, IdLimit], ...] = tuple(DEFAULT_LIMITS.items())
    priority: tuple[str, ...] = DEFAULT_PRIORITY  # the rest follow in alphabetical order
    blocked: tuple[BlockedId, ...] = DEFAULT_BLOCKED
    ids_max: int = IDS_MAX
    merges_max: int = MERGES_MAX

    def limit(self, id_type: str) -> IdLimit:
        """Return the limit of an id type."""
        others = DEFAULT_LIMITS[OTHERS]
        for name, limit in self.limits:
            if name == id_type:
                return limit
            if name == OTHERS:
                others = limit
        return others

    def rank(self, id_type: str) -> tuple[int, str]:
        """Return what sorts id types by priority, the highest first."""
        listed = id_type in self.priority
        return (self.priority.index(id_type) if listed else len(self.priority), id_type)

    def blocks(self) -> Callable[[str, str], bool]:
        """Return the compiled test of (id type, value): does it never identify?"""
        return _blocks(self.blocked)


def _search(regex: str) -> Callable[[str], object]:
    """Return the search for a pattern; one that a user wrote takes linear time (re2)."""
    return _OWN_SEARCHES.get(regex) or pattern(regex).search


@lru_cache(maxsize=64)
def _blocks(blocked: tuple[BlockedId, ...]) -> Callable[[str, str], bool]:
    exact = {(entry.id_type, entry.value) for entry in blocked if not entry.regex}
    searches = [(entry.id_type, _search(entry.value)) for entry in blocked if entry.regex]

    def is_blocked(id_type: str, value: str) -> bool:
        if (None, value) in exact or (id_type, value) in exact:
            return True
        for wanted, search in searches:
            if (wanted is None or wanted == id_type) and search(value) is not None:
                return True
        return False

    return is_blocked


class SpaceSettings(Struct, frozen=True):
    """What can be set for a whole space."""

    rules: IdentityRules = IdentityRules()
    dedupe_window_ms: int = DEDUPE_WINDOW_MS
    event_retention_days: int | None = None  # None: for ever

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, every setting named; `settings_from_json` reads it back."""
        rules = self.rules
        return {
            "idLimits": {name: {"count": limit.count, "period": limit.period} for name, limit in rules.limits},
            "idPriority": list(rules.priority),
            "blockedIds": [_blocked_to_json(entry) for entry in rules.blocked],
            "maxIds": rules.ids_max,
            "maxMerges": rules.merges_max,
            "dedupeWindow": self.dedupe_window_ms,
            "eventRetentionDays": self.event_retention_days,
        }


def settings_from_json(given: Any, base: SpaceSettings = SpaceSettings()) -> SpaceSettings:  # noqa: B008 - frozen
    """Return `base` with the settings that are given. Raises InvalidError naming the field.

    `idLimits` changes the types it names; `idPriority` and `blockedIds` replace the whole list.
    """
    if not isinstance(given, dict):
        raise _invalid("settings", given, "an object")
    settings = base
    for field, value in given.items():
        read = _READERS.get(field)
        if read is None:
            raise InvalidError(
                "unknown_setting", f"there is no setting {field!r}; there are {', '.join(_READERS)}", field=str(field)
            )
        settings = read(settings, value)
    return settings


def duration_ms(text: str) -> int | None:
    """Return the milliseconds of a duration such as `1h`, `24 hours` or `1d12h`, None if it is none."""
    total, at = 0, 0
    text = text.strip()
    while at < len(text):
        found = _PIECE.match(text, at)
        if found is None or len(found.group(1)) > _DIGITS_MAX:
            return None
        unit = found.group(2).lower()
        total += int(found.group(1)) * _UNITS_MS[unit if unit in _UNITS_MS else unit.removesuffix("s")]
        at = found.end()
    return total if text else None


# -- reading the settings one by one ---------------------------------------------------------------------------------


def _read_limits(settings: SpaceSettings, given: Any) -> SpaceSettings:
    if not isinstance(given, dict):
        raise _invalid("idLimits", given, "an object of id types and their limits")
    limits = dict(settings.rules.limits)
    for id_type, value in given.items():
        _check_type(f"idLimits.{id_type}", id_type)
        limits[id_type] = _read_limit(f"idLimits.{id_type}", value)
    if len(limits) > LIMITS_MAX:
        raise _invalid("idLimits", f"{len(limits)} id types", f"at most {LIMITS_MAX}")
    return replace(settings, rules=replace(settings.rules, limits=tuple(sorted(limits.items()))))


def _read_limit(field: str, given: Any) -> IdLimit:
    if not isinstance(given, dict):
        return IdLimit(_whole(field, given, 0, LIMIT_COUNT_MAX))
    if unknown := set(given) - {"count", "period"}:
        raise _invalid(field, sorted(map(str, unknown))[0], "only count and period")
    spelt = given.get("period", "ever")
    period = _PERIODS.get(spelt.lower()) if isinstance(spelt, str) else None
    if period is None:
        raise _invalid(f"{field}.period", spelt, " or ".join(_PERIODS))
    return IdLimit(_whole(f"{field}.count", given.get("count"), 0, LIMIT_COUNT_MAX), period)


def _read_priority(settings: SpaceSettings, given: Any) -> SpaceSettings:
    if not isinstance(given, list) or len(given) > PRIORITY_MAX:
        raise _invalid("idPriority", given, f"a list of at most {PRIORITY_MAX} id types, the highest first")
    for at, id_type in enumerate(given):
        _check_type(f"idPriority[{at}]", id_type)
    if len(set(given)) != len(given):
        raise _invalid("idPriority", given, "each id type once")
    return replace(settings, rules=replace(settings.rules, priority=tuple(given)))


def _read_blocked(settings: SpaceSettings, given: Any) -> SpaceSettings:
    if isinstance(given, dict):  # by id type: {"email": ["a@b.c"]}
        given = [_of_type(id_type, entry) for id_type, entries in given.items() for entry in _listed(id_type, entries)]
    if not isinstance(given, list):
        raise _invalid("blockedIds", given, "a list of values")
    blocked = tuple(_read_blocked_id(f"blockedIds[{at}]", entry) for at, entry in enumerate(given))
    patterns = sum(entry.regex for entry in blocked)
    if patterns > BLOCKED_PATTERNS_MAX or len(blocked) - patterns > BLOCKED_MAX:
        raise _invalid(
            "blockedIds",
            f"{len(blocked)} values",
            f"at most {BLOCKED_MAX} exact ones and {BLOCKED_PATTERNS_MAX} patterns",
        )
    return replace(settings, rules=replace(settings.rules, blocked=blocked))


def _listed(id_type: Any, entries: Any) -> list[Any]:
    if not isinstance(entries, list):
        raise _invalid(f"blockedIds.{id_type}", entries, "a list of values")
    return entries


def _of_type(id_type: Any, entry: Any) -> Any:
    return {**entry, "type": id_type} if isinstance(entry, dict) else {"value": entry, "type": id_type}


def _read_blocked_id(field: str, entry: Any) -> BlockedId:
    if isinstance(entry, dict):
        if unknown := set(entry) - {"value", "regex", "type"}:
            raise _invalid(field, sorted(map(str, unknown))[0], "only value or regex, and type")
        if ("value" in entry) == ("regex" in entry):
            raise _invalid(field, entry, "either a value or a regex")
        id_type = entry.get("type")
        if id_type is not None:
            _check_type(f"{field}.type", id_type)
        regex = "regex" in entry
        value = entry["regex"] if regex else entry["value"]
    else:
        value, regex, id_type = entry, False, None
    if type(value) is int:  # YAML reads a bare -1 as a number
        value = str(value)
    if value is None and not regex:  # and a bare null as null
        value = "null"
    if not isinstance(value, str) or len(value) > (PATTERN_CHARS_MAX if regex else VALUE_CHARS_MAX):
        raise _invalid(field, value, f"text of at most {PATTERN_CHARS_MAX if regex else VALUE_CHARS_MAX} characters")
    if regex:
        flaw = pattern_flaw(value)
        if flaw is not None:
            raise _invalid(f"{field}.regex", value, f"a regular expression (RE2; {flaw})")
    return BlockedId(value, regex, id_type)


def _blocked_to_json(entry: BlockedId) -> Any:
    if not entry.regex and entry.id_type is None:
        return entry.value
    given = {"regex" if entry.regex else "value": entry.value}
    return given if entry.id_type is None else {**given, "type": entry.id_type}


def _read_ids_max(settings: SpaceSettings, given: Any) -> SpaceSettings:
    return replace(settings, rules=replace(settings.rules, ids_max=_whole("maxIds", given, 1, BOUND_MAX)))


def _read_merges_max(settings: SpaceSettings, given: Any) -> SpaceSettings:
    return replace(settings, rules=replace(settings.rules, merges_max=_whole("maxMerges", given, 0, BOUND_MAX)))


def _read_dedupe_window(settings: SpaceSettings, given: Any) -> SpaceSettings:
    window_ms = duration_ms(given) if isinstance(given, str) else given
    if type(window_ms) is not int or not 0 <= window_ms <= DEDUPE_WINDOW_MS_MAX:
        raise _invalid("dedupeWindow", given, 'a duration such as "24h", or milliseconds, of at most 30 days')
    return replace(settings, dedupe_window_ms=window_ms)


def _read_retention(settings: SpaceSettings, given: Any) -> SpaceSettings:
    days = None if given is None else _whole("eventRetentionDays", given, 1, RETENTION_DAYS_MAX)
    return replace(settings, event_retention_days=days)


_READERS: Final[dict[str, Callable[[SpaceSettings, Any], SpaceSettings]]] = {
    "idLimits": _read_limits,
    "idPriority": _read_priority,
    "blockedIds": _read_blocked,
    "maxIds": _read_ids_max,
    "maxMerges": _read_merges_max,
    "dedupeWindow": _read_dedupe_window,
    "eventRetentionDays": _read_retention,
}


def _check_type(field: str, id_type: Any) -> None:
    if not isinstance(id_type, str) or not 0 < len(id_type) <= TYPE_CHARS_MAX or id_type != id_type.strip().lower():
        raise _invalid(field, id_type, f"an id type: lower-case text of at most {TYPE_CHARS_MAX} characters")


def _whole(field: str, given: Any, least: int, most: int) -> int:
    if type(given) is not int or not least <= given <= most:
        raise _invalid(field, given, f"a whole number from {least} to {most}")
    return given


def _invalid(field: str, found: Any, expected: str) -> InvalidError:
    return InvalidError("invalid_setting", f"{field}: expected {expected}, found {str(found)[:200]!r}", field=field)
