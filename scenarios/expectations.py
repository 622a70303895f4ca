"""What was expected against what is there: the failures of a scenario, the same for the engine and the reference.

Values are equal as JSON values are: 5 and 5.0 are, 1 and true are not. The order of members does not matter.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from eventlog.instants import iso
from scenarios.format import Expect


class Failure(Struct, frozen=True):
    """One thing that is not as expected."""

    step: int  # index in `steps`, -1 for what stands above them
    at: str
    expected: Any
    actual: Any
    path: str


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


class Checked:
    """The failures found so far."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def fail(self, *, step: int, at_ms: int, path: str, expected: Any, actual: Any) -> None:
        """Note a failure."""
        self.failures.append(Failure(step=step, at=iso(at_ms), expected=expected, actual=actual, path=path))

    def members(
        self, expect: Expect, actual: Callable[[str], Sequence[str] | None], *, step: int, at_ms: int, path: str
    ) -> None:
        """Compare whole memberships; `actual` gives the names of an audience's members, None for no such audience."""
        for key, wanted in expect.members.items():
            names = actual(key)
            if names is None or sorted(names) != sorted(wanted):
                there = "no such audience" if names is None else sorted(names)
                self.fail(step=step, at_ms=at_ms, path=f"{path}.members.{key}", expected=sorted(wanted), actual=there)

    def traits(self, expect: Expect, actual: Callable[[str, str], Any], *, step: int, at_ms: int, path: str) -> None:
        """Compare traits; `actual` gives the value of a profile's trait, None for absent."""
        for name, wanted in expect.traits.items():
            for key, value in wanted.items():
                there = actual(name, key)
                if not same(value, there):
                    self.fail(step=step, at_ms=at_ms, path=f"{path}.traits.{name}.{key}", expected=value, actual=there)

    def rejected(self, expect: Expect, actual: int, *, step: int, at_ms: int, path: str) -> None:
        """Compare how many events have been refused so far."""
        if expect.rejected is not None and expect.rejected != actual:
            self.fail(step=step, at_ms=at_ms, path=f"{path}.rejected", expected=expect.rejected, actual=actual)


def ids_of_name(name: str) -> list[tuple[str, str]]:
    """Return the ids (type, value) that a profile's name may stand for: a user_id, or TYPE:VALUE."""
    id_type, colon, value = name.partition(":")
    return [("user_id", name), (id_type, value)] if colon else [("user_id", name)]
