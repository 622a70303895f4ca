"""Random definitions over the whole language, as text, in small numbers so that edges meet.

Few event names, properties and values; windows that are multiples of the unit that times are multiples of. Every choice
comes from the `random.Random` that is handed in. What it writes parses; rules that need more than shape (cycles, keys)
are the caller's.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final
from typing import Literal as OneOf

from msgspec import Struct

UNIT_HOURS: Final = 6  # all times and windows are multiples of it
NAMES: Final = ("A", "B", "C")
PAGE_NAMES: Final = ("P", "Q")
DOTTED: Final = "d.t"  # a name with a dot in it
PROPERTIES: Final = ("p", "p", "q", "q", "n", "n", "o.k", "o", "when", "d\\.t")
CONTEXTS: Final = ("c", "page.url")
TRAITS: Final = ("t", "t", "s", "s", "o.k", "when", "d\\.t", "email")
SOURCES: Final = ("web", "app")
TEXTS: Final = ("x", "y", "1", "2", "10", "true", "", "e1@x.io", "1e1", "é", "2026-03-01")
NUMBERS: Final = ("0", "1", "2", "3", "10", "-1", "2.5", "1e1", "2.0", "1000000000000000", "0.3")
DATES: Final = (
    *("2026-03-01", "2026-03-02T06:00:00Z", "2026-03-03T01:00:00+01:00", "2026-03-04T12:00:00"),
    "2026-03-02T06:00:00.001Z",
)
PATTERNS: Final = ("x", "^1", "y$", "^$", "[0-9]+", "(?i)X", ".", "^e1@")
ORDER: Final = (("> ", "greater_than"), (">= ", "at_least"), ("< ", "less_than"), ("<= ", "at_most"))
SPANS: Final = ("within_last", "within_next", "before_last", "after_next")
DEPTH_MAX: Final = 3
NESTED_MAX: Final = 3

EntityType = OneOf["USERS", "ACCOUNTS"]


class Place(Struct, frozen=True):
    """Where an expression stands: how deep in junctions and `where`s, and what may stand there."""

    entity_type: EntityType
    depth: int = 0
    nested: int = 0  # how many events' `where` it stands in
    quantified: bool = False


class Queries:
    """Writes definitions."""

    def __init__(self, rng: random.Random, audiences: Sequence[str], traits: Sequence[str]) -> None:
        self.rng = rng
        self.audiences = audiences  # keys that may be referred to
        self.traits = (*TRAITS, *traits, *audiences)

    def audience(self, entity_type: EntityType) -> str:
        """Return an audience's query."""
        return self.condition(Place(entity_type))

    def trait(self, entity_type: EntityType) -> str:
        """Return a computed trait's query."""
        place = Place(entity_type)
        chain = self.chain(place) if self.chance(0.6) else self.called()
        if self.chance(0.15):
            chain += f".expires_after({self.duration()})"
        return chain + self.reducer(place, compared=False)[0]

    # -- small choices -------------------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        """Return true with a probability."""
        return self.rng.random() < probability

    def quoted(self, text: str) -> str:
        """Return text as a string of the language."""
        quote = self.rng.choice("'\"")
        return quote + text.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote

    def duration(self) -> str:
        """Return a duration of one to eight units."""
        units = self.rng.choice((1, 1, 2, 4, 4, 8, 0, 28))
        hours = units * UNIT_HOURS
        if hours == 168 and self.chance(0.5):
            return "1 week"
        if self.chance(0.05):
            return f"{hours * 3600} seconds"
        if hours % 24 == 0 and self.chance(0.7):
            return f"{hours // 24} day{'s' if self.chance(0.7) else ''}"
        return f"{hours} hours" if self.chance(0.8) else f"{hours * 60} minutes"

    def span(self) -> tuple[str, str]:
        """Return two durations, the shorter one first."""
        short = self.rng.choice((0, 1, 1, 2, 4))
        long = short + self.rng.choice((1, 2, 4))
        return f"{short * UNIT_HOURS} hours", f"{long * UNIT_HOURS} hours"

    def literal(self) -> str:
        """Return a constant."""
        return self.rng.choice(
            (
                lambda: self.rng.choice(NUMBERS),
                lambda: self.rng.choice(NUMBERS),
                lambda: self.quoted(self.rng.choice(TEXTS)),
                lambda: self.quoted(self.rng.choice(TEXTS)),
                lambda: self.rng.choice(("true", "false")),
            )
        )()

    # -- conditions ----------------------------------------------------------------------------------------------------

    def condition(self, place: Place) -> str:
        """Return any condition that may stand here."""
        down = Place(place.entity_type, place.depth + 1, place.nested, place.quantified)
        if place.depth < DEPTH_MAX and self.chance(0.45 if place.depth == 0 else 0.25):
            return self.junction(down)
        if place.entity_type == "ACCOUNTS" and not place.nested and not place.quantified and self.chance(0.5):
            inner = Place(place.entity_type, place.depth + 1, 0, quantified=True)
            return f"{self.rng.choice(('ANY', 'ALL', 'NONE', 'any'))} ({self.condition(inner)})"
        return self.rng.choice(self.leaves(place))(place)

    def leaves(self, place: Place) -> list[Callable[[Place], str]]:
        """Return what may be asked here, the likelier more than once."""
        leaves: list[Callable[[Place], str]] = [self.trait_comparison]
        if place.nested:
            leaves += [self.property_comparison] * 4
        if place.nested < NESTED_MAX:
            leaves += [self.event_comparison] * (2 if place.nested else 5)
        if self.audiences:
            leaves.append(self.reference)
        if self.chance(0.05):
            leaves.append(self.literal_comparison)
        return leaves

    def junction(self, place: Place) -> str:
        """Return parts joined by AND, OR or NOT."""
        kind = self.rng.choice(("AND", "AND", "OR", "NOT", "and", "mixed"))
        if kind == "NOT":
            return f"NOT ({self.condition(place)})" if self.chance(0.5) else f"NOT {self.leaf(place)}"
        if kind == "mixed":
            return f"{self.leaf(place)} OR {self.leaf(place)} AND {self.leaf(place)}"
        return f" {kind} ".join(f"({self.condition(place)})" for _ in range(self.rng.choice((2, 2, 3))))

    def leaf(self, place: Place) -> str:
        """Return a condition without junctions of its own."""
        return self.rng.choice(self.leaves(place))(place)

    def reference(self, place: Place) -> str:
        """Return a reference to another audience."""
        key = self.rng.choice(self.audiences)
        if self.chance(0.5):
            return f"audience({self.quoted(key)})"
        return f"trait({self.quoted(key)}) {self.rng.choice(('=', '!='))} {self.rng.choice(('true', 'false'))}"

    def trait_comparison(self, place: Place) -> str:
        """Return a comparison of a trait."""
        return self.comparison(f"trait({self.quoted(self.rng.choice(self.traits))})", place)

    def literal_comparison(self, place: Place) -> str:
        """Return a comparison of a constant."""
        value = f"literal({self.literal()})"
        return f"{value} {self.rng.choice(('=', '!=', '<', '>='))} {self.right(place)}"

    def property_comparison(self, place: Place) -> str:
        """Return a comparison of a property or a context field of the event."""
        return self.comparison(self.field(parent=False), place)

    def event_comparison(self, place: Place) -> str:
        """Return a comparison of what events are reduced to."""
        chain = self.chain(place)
        reducer, kind = self.reducer(place)
        value = chain + reducer
        if kind == "count":
            if self.chance(0.1):
                return self.compared_number(value, place)
            return f"{value} {self.rng.choice(('>=', '>=', '>=', '=', '<', '!='))} {self.rng.choice('0011123')}"
        if kind == "list":
            return value + self.rng.choice((".exists()", ".absent()", f".count() {self.rng.choice(('>=', '='))} 2"))
        if kind == "number":
            return self.compared_number(value, place)
        return self.comparison(value, place)

    def field(self, *, parent: bool) -> str:
        """Return a property or context field of the event, or of its parent."""
        prefix = "parent: " if parent else ""
        if self.chance(0.15):
            return f"context({prefix}{self.quoted(self.rng.choice(CONTEXTS))})"
        return f"property({prefix}{self.quoted(self.rng.choice(PROPERTIES))})"

    def right(self, place: Place) -> str:
        """Return the right side of a comparison: mostly a constant."""
        if self.chance(0.75):
            return self.literal()
        choices: list[Callable[[], str]] = [lambda: f"trait({self.quoted(self.rng.choice(self.traits))})"]
        if place.nested:
            choices.append(lambda: self.field(parent=False))
        if place.nested > 1:
            choices += [lambda: self.field(parent=True)] * 3
        if place.nested < NESTED_MAX:
            choices.append(lambda: self.chain(place) + self.number_reducer(place))
        return self.rng.choice(choices)()

    def number_reducer(self, place: Place) -> str:
        """Return a reducer that gives something that may stand on the right side of a comparison."""
        while True:
            text, kind = self.reducer(place)
            if kind != "list":
                return text

    def compared_number(self, value: str, place: Place) -> str:
        """Return a comparison of what is a number or nothing."""
        symbol = self.rng.choice(("=", "!=", ">", ">=", "<", "<="))
        return f"{value}.exists()" if self.chance(0.15) else f"{value} {symbol} {self.right(place)}"

    def comparison(self, value: str, place: Place) -> str:
        """Return any comparison of a value whose type is not known."""
        form = self.rng.choice(
            ("equals", "equals", "equals", "order", "there", "text", "several", "date", "span", "matches", "omits")
        )
        if form == "equals":
            op = self.rng.choice((" = ", " == ", " != ", ".equals", ".differs"))
            right = self.right(place)
            return f"{value}{op}({right})" if op.startswith(".") else f"{value}{op}{right}"
        if form == "order":
            symbol, name = self.rng.choice(ORDER)
            right = self.right(place)
            return f"{value} {symbol}{right}" if self.chance(0.7) else f"{value}.{name}({right})"
        if form == "there":
            return value + self.rng.choice((".exists()", ".absent()"))
        if form == "omits":
            return f"{value}.omits({', '.join(self.literal() for _ in range(self.rng.choice((1, 1, 2))))})"
        if form == "matches":
            return f"{value}.matches({self.quoted(self.rng.choice(PATTERNS))})"
        if form == "date":
            return f"{value}.{self.rng.choice(('before_date', 'after_date'))}({self.quoted(self.rng.choice(DATES))})"
        if form == "span":
            return f"{value}.{self.rng.choice(SPANS)}({self.duration()})"
        several = ", ".join(self.literal() for _ in range(self.rng.choice((1, 2, 3))))
        names = ("one_of", "none_of") if form == "several" else ("contains", "starts_with", "ends_with")
        return f"{value}.{self.rng.choice(names)}({several})"

    # -- events --------------------------------------------------------------------------------------------------------

    def chain(self, place: Place) -> str:
        """Return an event with its filters, without a reducer."""
        chain = self.called()
        filters: list[str] = []
        if self.chance(0.55 if place.nested == 0 else 0.4):
            inner = Place(place.entity_type, place.depth + 1, place.nested + 1, place.quantified)
            filters.append(f".where({self.condition(inner)})")
        if self.chance(0.6):
            filters.append(self.window(place))
        if self.chance(0.1):
            filters.append(self.window(place))
        if self.chance(0.08):
            filters.append(f".sources(exclude: [{self.quoted(self.rng.choice(SOURCES))}])")
        if self.chance(0.06):
            filters.append(f".{self.rng.choice(('since', 'until'))}(2026-03-0{self.rng.choice('2345')}T00:00:00Z)")
        self.rng.shuffle(filters)
        return chain + "".join(filters)

    def called(self) -> str:
        """Return which calls are asked about."""
        if self.chance(0.85):
            return f"event({self.quoted(self.rng.choice(NAMES))})"
        name = self.quoted(self.rng.choice(PAGE_NAMES))
        return self.rng.choice(("event()", "page()", "screen()", f"page({name})", f"screen({name})"))

    def window(self, place: Place) -> str:
        """Return a window before now, or after the parent of a nested event."""
        parent = "parent: " if place.nested and self.chance(0.6) else ""
        if self.chance(0.65):
            return f".within({parent}{self.duration()})"
        short, long = self.span()
        return f".between({parent}{short}, {long})"

    def reducer(self, place: Place, *, compared: bool = True) -> tuple[str, str]:
        """Return a reducer and what it gives: a count, a number, a list or anything."""
        if self.chance(0.6 if compared else 0.25):
            return ".count()", "count"
        inside = place.nested > 0 and self.chance(0.1)
        field = self.field(parent=inside)
        name = self.rng.choice(("sum", "sum", "avg", "min", "max", "mode", "first", "last", "unique", "unique_count"))
        if name == "unique_count":
            return f".unique({field}).count()", "count"
        if name == "unique":
            return f".unique({field})", "list"
        if name == "mode":
            frequency = self.rng.choice((", 1", ", 2", ", 3", ""))
            return f".mode({field}{' as array' if self.chance(0.15) else ''}{frequency})", "any"
        if name in ("min", "max") and self.chance(0.3):
            return f".{name}({field} as string)", "any"
        return f".{name}({field})", "number" if name in ("sum", "avg", "min", "max") else "any"
