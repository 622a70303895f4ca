"""Questions about events answered from all of them, plainly: what the states that are kept are held against."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct

from actors.language import tree
from scenarios.reference_compare import compare
from scenarios.reference_reducers import reduce_values


class Happened(Struct, frozen=True):
    """A track call."""

    ms: int
    seq: int
    name: str
    properties: dict[str, Any]

    @property
    def order(self) -> tuple[int, int]:
        """Return what events are ordered by."""
        return (self.ms, self.seq)


class Plain:
    """All that happened to one profile, asked at one time."""

    def __init__(self, happened: Sequence[Happened], at_ms: int, traits: Mapping[str, Any]) -> None:
        self.happened = sorted((one for one in happened if one.ms <= at_ms), key=lambda one: one.order)
        self.at_ms = at_ms
        self.traits = traits

    def passing(self, event: tree.Event, parent: Happened | None = None) -> list[Happened]:
        """Return the events that pass a question's filters, oldest first."""
        found = [one for one in self.happened if event.name in (None, one.name)]
        if parent is not None:
            found = [one for one in found if one.order > parent.order]
        for window in event.windows:
            if window.parent:
                assert parent is not None
                first = parent.ms + window.after_ms if window.after_ms or window.later else None
                found = [one for one in found if first is None or one.ms > first]
                found = [one for one in found if one.ms <= parent.ms + window.before_ms]
            else:
                found = [one for one in found if self.at_ms - window.before_ms < one.ms <= self.at_ms - window.after_ms]
        if event.where is not None:
            found = [one for one in found if self.holds(event.where, one, parent)]
        if event.expires_after_ms is not None:
            found = self.session(found, event.expires_after_ms)
        return found

    def session(self, found: list[Happened], gap_ms: int) -> list[Happened]:
        """Return the latest run of events with gaps under `gap_ms`, none once that has passed since the last."""
        run: list[Happened] = []
        next_ms = self.at_ms
        for one in reversed(found):
            if next_ms - one.ms >= gap_ms:
                break
            run.insert(0, one)
            next_ms = one.ms
        return run

    def answer(self, event: tree.Event, parent: Happened | None = None) -> Any:
        """Return the value that a question's events are reduced to."""
        found = self.passing(event, parent)
        reducer = event.reducer
        if reducer.name == "count":
            return len(found)
        assert reducer.of is not None
        values = [self.looked_at(reducer.of, one, parent) for one in found]
        return reduce_values(reducer, [value for value in values if value is not None])

    def looked_at(self, of: Any, event: Happened, parent: Happened | None) -> Any:
        """Return a property of an event, or of its parent."""
        owner = parent if of.parent else event
        assert owner is not None
        return owner.properties.get(of.path[0])

    def value(self, of: Any, event: Happened, parent: Happened | None) -> Any:
        """Return either side of a comparison."""
        match of:
            case tree.Literal(value):
                return value
            case tree.Duration(ms):
                return timedelta(milliseconds=ms)
            case tree.Property():
                return self.looked_at(of, event, parent)
            case tree.Trait(path):
                return self.traits.get(path[0])
            case _:
                return self.answer(of, event)

    def holds(self, condition: tree.Condition, event: Happened, parent: Happened | None) -> bool:
        """Tell whether a `where` holds of an event."""
        match condition:
            case tree.And(of):
                return all(self.holds(part, event, parent) for part in of)
            case tree.Or(of):
                return any(self.holds(part, event, parent) for part in of)
            case tree.Not(of):
                return not self.holds(of, event, parent)
            case tree.Comparison(left, op, right):
                value = self.value(left, event, parent)
                return compare(op, value, [self.value(other, event, parent) for other in right], self.at_ms)
        raise AssertionError(condition)
