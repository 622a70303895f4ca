"""Random funnels: up to three events inside one another, joined by properties, with every kind of window and count.

What `generator_queries` draws from the whole language seldom goes deep; here every definition is a chain of events.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from scenarios.generator_queries import NAMES, SOURCES, Place, Queries

LEVELS_MAX: Final = 3  # of events nested in the outermost one
COUNTS: Final = (">= 1", ">= 1", ">= 1", ">= 2", "= 1", "= 0", "< 2", "!= 1", "> 1", "<= 1", ">= 0", "< 1")
JOINED: Final = ("p", "p", "q", "n")  # properties that events are joined by
OPERATORS: Final = ("=", "=", "=", "=", "!=", ">=", "<")


class Funnels:
    """Writes definitions that are funnels."""

    def __init__(self, queries: Queries) -> None:
        self.queries = queries
        self.rng = queries.rng
        self.chance = queries.chance

    def audience(self, entity_type: str) -> str:
        """Return an audience's query."""
        place = Place("ACCOUNTS" if entity_type == "ACCOUNTS" else "USERS")
        funnel = self.compared(place, 0)
        if self.chance(0.2):
            funnel = f"NOT {funnel}"
        if entity_type == "ACCOUNTS" and self.chance(0.5):
            funnel = f"{self.rng.choice(('ANY', 'ALL', 'NONE'))} ({funnel})"
        if self.chance(0.15):
            funnel = f"{funnel} {self.rng.choice(('AND', 'OR'))} {self.queries.leaf(place)}"
        return funnel

    def trait(self, entity_type: str) -> str:
        """Return a computed trait's query."""
        place = Place("ACCOUNTS" if entity_type == "ACCOUNTS" else "USERS")
        return self.event(place, 0) + self.queries.reducer(place, compared=False)[0]

    def compared(self, place: Place, level: int) -> str:
        """Return a comparison of what an event and those nested in it come to."""
        event = self.event(place, level)
        chance = self.rng.random()
        if chance < 0.75:
            return f"{event}.count() {self.rng.choice(COUNTS)}"
        if chance < 0.85 and level:  # compared with a value of the event that it is nested in
            return f"{event}.count() {self.rng.choice(OPERATORS)} property('n')"
        reducer, kind = self.queries.reducer(place)
        if kind in ("count", "number"):
            return self.queries.compared_number(event + reducer, place)
        return f"{event}{reducer}.{self.rng.choice(('exists', 'absent'))}()"

    def event(self, place: Place, level: int) -> str:
        """Return an event with its filters, without a reducer."""
        name = self.queries.quoted(self.rng.choice(NAMES))
        call = f"event({name})" if self.chance(0.93) else "event()"
        filters: list[str] = []
        inner = replace(place, nested=place.nested + 1, depth=place.depth + 1)
        parts = self.conditions(inner, level)
        if parts:
            filters.append(f".where({self.joined(parts)})")
        filters += [f".{window}" for window in self.windows(level)]
        if self.chance(0.08):
            filters.append(f".expires_after({self.queries.duration()})")
        if self.chance(0.05):
            filters.append(f".sources(exclude: ['{self.rng.choice(SOURCES)}'])")
        if self.chance(0.05):
            filters.append(f".{self.rng.choice(('since', 'until'))}(2026-03-0{self.rng.choice('2345')}T00:00:00Z)")
        self.rng.shuffle(filters)
        return call + "".join(filters)

    def joined(self, parts: list[str]) -> str:
        """Return conditions joined in one."""
        if self.chance(0.2):
            parts = [f"NOT {part}" if self.chance(0.3) else part for part in parts]
        return f" {self.rng.choice(('AND', 'AND', 'AND', 'OR'))} ".join(parts)

    def conditions(self, inner: Place, level: int) -> list[str]:
        """Return what an event's `where` asks: of the event, of the one outside it, and of those inside."""
        parts: list[str] = []
        if level and self.chance(0.6):
            parts.append(self.join())
        if level < LEVELS_MAX and self.chance((0.95, 0.55, 0.4)[level]):
            nested = self.compared(inner, level + 1)
            parts.append(f"NOT {nested}" if self.chance(0.3) else nested)
        if level < LEVELS_MAX and self.chance(0.1):
            parts.append(self.compared(inner, LEVELS_MAX))
        if self.chance(0.3):
            parts.append(self.rng.choice(self.others())(inner))
        self.rng.shuffle(parts)
        return parts

    def others(self) -> list[Callable[[Place], str]]:
        """Return what may be asked besides."""
        queries = self.queries
        others = [queries.property_comparison, queries.trait_comparison, self.against_trait]
        return [*others, queries.reference] if queries.audiences else others

    def against_trait(self, _place: Place) -> str:
        """Return a comparison of a property with a trait."""
        trait = self.queries.quoted(self.rng.choice(self.queries.traits))
        return f"property('{self.rng.choice(JOINED)}') {self.rng.choice(OPERATORS)} trait({trait})"

    def join(self) -> str:
        """Return a comparison of a value of the event with one of the event that it is nested in."""
        own, theirs = self.value(""), self.value("parent: ")
        if self.chance(0.2):
            own, theirs = theirs, own
        if self.chance(0.1):
            return f"{own}.{self.rng.choice(('contains', 'one_of', 'none_of', 'omits', 'starts_with'))}({theirs})"
        return f"{own} {self.rng.choice(OPERATORS)} {theirs}"

    def value(self, prefix: str) -> str:
        """Return a property of an event, rarely a field of its context."""
        if self.chance(0.07):
            return f"context({prefix}'c')"
        return f"property({prefix}'{self.rng.choice(JOINED)}')"

    def windows(self, level: int) -> list[str]:
        """Return windows: of a nested event mostly forward from its parent, else back from now; at times both."""
        windows: list[str] = []
        if level and self.chance(0.65):
            windows.append(self.window("parent: "))
        if self.chance(0.35 if level else 0.65):
            windows.append(self.window(""))
        if self.chance(0.05):
            windows.append(self.window("parent: " if level and self.chance(0.5) else ""))
        return windows

    def window(self, prefix: str) -> str:
        """Return one window."""
        if self.chance(0.65):
            return f"within({prefix}{self.queries.duration()})"
        short, long = self.queries.span()
        return f"between({prefix}{short}, {long})"
