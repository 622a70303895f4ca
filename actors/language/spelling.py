r"""How names, text, numbers, durations and times are spelled, and read back.

In quotes `\'`, `\"` and `\\` are escapes; before anything else a backslash stands for itself (so `'\d+'` is a regular
expression as it is). In a path a dot that follows a backslash belongs to the name, and a doubled backslash is one.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from actors.language.vocabulary import UNITS_MS

INTEGER_MAX: Final = 2**63 - 1  # what JSON programs read back exactly as an integer at most; beyond it a float
INTEGRAL_MAX: Final = 1e15  # integral floats below it are exact, and are spelled as integers

_ESCAPE = re.compile(r"""\\(['"\\])""")
_PATH_PIECE = re.compile(r"\\([.\\])|(\.)|([^.\\]+|\\)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def unquoted(token: str) -> str:
    """Return the text of a quoted token."""
    return _ESCAPE.sub(r"\1", token[1:-1])


def quoted_text(text: str) -> str:
    """Return text in single quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def path_of(text: str) -> tuple[str, ...]:
    """Return the keys of a dotted path."""
    keys = [""]
    for escaped, dot, plain in _PATH_PIECE.findall(text):
        if dot:
            keys.append("")
        else:
            keys[-1] += escaped or plain
    return tuple(keys)


def path_text(path: tuple[str, ...]) -> str:
    """Return the dotted path of some keys."""
    return ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in path)


def number_of_text(text: str) -> int | float:
    """Return the number that a number token spells; infinite if it is beyond what a float can be."""
    try:
        whole = int(text)
    except ValueError:  # a fraction, an exponent, or thousands of digits
        return plain_number(float(text))
    return plain_number(whole)


def plain_number(value: float) -> int | float:
    """Return the one form of a number: integral floats as integers, integers too big for 64 bits as floats."""
    if isinstance(value, int):
        try:
            return value if -INTEGER_MAX <= value <= INTEGER_MAX else float(value)
        except OverflowError:
            return float("inf")
    return int(value) if value.is_integer() and -INTEGRAL_MAX < value < INTEGRAL_MAX else value


def duration_text(ms: int) -> str:
    """Return a duration in its largest fitting unit up to days."""
    for unit in ("day", "hour", "minute", "second"):
        if ms % UNITS_MS[unit] == 0 and (ms or unit == "day"):
            count = ms // UNITS_MS[unit]
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{ms} milliseconds"


def instant_text(instant_ms: int) -> str:
    """Return a time in ISO 8601 (UTC), to the second, or the millisecond if it has any."""
    moment = (_EPOCH + timedelta(milliseconds=instant_ms)).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='milliseconds' if instant_ms % 1000 else 'seconds')}Z"
