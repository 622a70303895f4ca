"""Options that several commands share, and what is said when a command line makes no sense."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from typing import Literal as OneOf

from cyclopts import Group, Parameter

from eventlog.errors import TurnoutError
from eventlog.instants import instant_ms

DATA_DEFAULT: Final = Path("turnout-data")

WHERE: Final = Group("Where the data is", sort_key=1)
WHEN: Final = Group("As of when", sort_key=0)


class MisusedError(TurnoutError):
    """The command line asks for something that cannot be meant: exit status 2."""


def _instant(_: Any, tokens: Any) -> int:
    instant = instant_ms(tokens[0].value)
    if instant is None:
        raise ValueError(f"{tokens[0].value!r} is not an ISO 8601 time, as in 2026-03-01T12:00:00Z or 2026-03-01.")
    return instant


Instant = Annotated[int, Parameter(converter=_instant, n_tokens=1, accepts_keys=False, metavar="TIME")]
"""A time on the command line, in ms since the epoch; without a zone UTC, a date alone its first moment."""

Flag = Annotated[bool, Parameter(show_default=False)]
Entities = OneOf["users", "accounts"]
Output = OneOf["text", "json"]

Query = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""A definition; it may begin with a comment."""


@Parameter(name="*")
@dataclass(frozen=True)
class Target:
    """Which data a command is about: a data directory that it opens itself, or a daemon that it asks."""

    data: Annotated[
        Path | None,
        Parameter(
            group=WHERE,
            metavar="DIR",
            help="Data directory, opened directly; refused while a daemon holds it. [default: ./turnout-data]",
        ),
    ] = None
    url: Annotated[
        str | None,
        Parameter(
            group=WHERE,
            metavar="URL",
            help="Ask the daemon at this address instead, with the token in TURNOUT_TOKEN.",
        ),
    ] = None
    space: Annotated[
        str | None, Parameter(group=WHERE, metavar="SPACE", help="Id or slug of the space. [default: the first one]")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Folder:
    """The data directory of a command that asks no daemon."""

    data: Annotated[
        Path | None,
        Parameter(group=WHERE, metavar="DIR", help="Data directory. [default: ./turnout-data]"),
    ] = None

    def target(self, space: str | None = None) -> Target:
        """Return it as what commands about one space work on."""
        return Target(data=self.data, space=space)


@Parameter(name="*")
@dataclass(frozen=True)
class Moment:
    """The two times of a question."""

    at: Annotated[
        Instant | None,
        Parameter(
            group=WHEN, help="What was true at this time (ISO 8601), with everything known today. [default: now]"
        ),
    ] = None
    known: Annotated[
        Instant | None,
        Parameter(group=WHEN, help="Only what had been received by this time: with --at, what Turnout said then."),
    ] = None


NOW: Final = Moment()
HERE: Final = Target()
THIS: Final = Folder()
