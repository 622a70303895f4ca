"""What a JSON value is as a number, as text, at a path, and as an instant (contract, section 3).

A number is a JSON number or text that spells one, as in RFC 8259, white space around it set aside; a boolean is none.
The text of a number is its JSON spelling, an integral float spelled as the integer; booleans are `true` and `false`.
"""

import re
from typing import Any, Final

from eventlog.instants import instant_ms

NUMBER_TEXT_MAX: Final = 400  # characters; a longer one overflows a double or is padding
INTEGRAL_MAX: Final = 1e15  # integral floats below it are exact, and are taken as integers

INTEGER_MAX: Final = 2**63  # larger integers are taken as doubles, as JSON numbers are
NUMBER_MAX: Final = int(1.7e308)  # beyond it a double overflows; such a number is not one

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?\Z", re.ASCII)
_INFINITE = float("inf")

Number = int | float


def number_of(value: Any) -> Number | None:
    """Return the number a JSON value is or spells, integral floats as integers; None for anything else."""
    kind = type(value)
    if kind is int:
        return value if -INTEGER_MAX < value < INTEGER_MAX else _wide(value)
    if kind is float:
        return _plain(value)
    if kind is str and len(value) <= NUMBER_TEXT_MAX:
        found = _NUMBER.match(value.strip())
        if found is not None:
            if found.group(1) is None and found.group(2) is None:
                whole = int(value)
                return whole if -INTEGER_MAX < whole < INTEGER_MAX else _wide(whole)
            return _plain(float(value))
    return None


def _wide(value: int) -> Number | None:
    return float(value) if -NUMBER_MAX < value < NUMBER_MAX else None


def _plain(value: float) -> Number | None:
    if value.is_integer():
        return int(value) if -INTEGRAL_MAX < value < INTEGRAL_MAX else value
    return value if -_INFINITE < value < _INFINITE else None


def text_of(value: Any) -> str | None:
    """Return the text of a scalar; None for null, arrays and objects."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        plain = _plain(value)
        return None if plain is None else repr(plain)
    return None


def at_path(root: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a dotted path; None where it is missing. Paths do not enter arrays."""
    for key in path:
        if type(root) is not dict:
            return None
        root = root.get(key)
    return root


def date_of(value: Any) -> int | None:
    """Return the instant that text spells in ISO 8601, in milliseconds; None for anything else."""
    return instant_ms(value) if type(value) is str else None
