"""Generated functions: one per event name, which loads each property once, tests all filters, and updates states.

Generated code is what 50 conditions on one name cost least by (measured: closures 99,000 events/s, generated 342,000).
A function takes (states, event_ms, seq, data, source, now_ms) and returns which of its subscriptions matched, as bits;
`Handler.plan` turns those bits into the leaves and computed traits to look at.

Thousands may listen to one name, and come and go one by one: they are compiled in pieces of bounded size, and no sooner
than an event comes. Those who listen to any name are pieces that all names of a kind share.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from actors.conditions.writing import Field, Subscription, Writer
from actors.language.tree import Condition, Context, Property
from actors.language.walk import walk

if TYPE_CHECKING:
    from actors.conditions.program import Leaf, Node

PIECE_MAX: Final = 64  # subscriptions that are compiled as one function, in some milliseconds
PLANS_MAX: Final = 1024  # ours: of a handler
Run = Callable[..., int]
AskedBy = dict[int, tuple[dict["Leaf", None], dict["Node", None]]]
"""By question, the leaves and the computed traits that ask it."""


class Plan(Struct, frozen=True):
    """What to look at after an event: leaves at once, the rest in order of rank."""

    leaves: "tuple[Leaf, ...]"
    later: "tuple[Leaf | Node, ...]"


class _Listeners:
    """The subscriptions of one (kind, name), compiled in pieces once events come: a change spoils at most two."""

    __slots__ = ("_inside", "_places", "_runs", "subscriptions")

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []
        self._places: dict[int, set[int]] = {}  # of a question's
        self._runs: list[Run | None] = []  # by piece, None: to be compiled
        self._inside = 0  # how many look at properties or context

    @property
    def looks_inside(self) -> bool:
        """Tell whether one looks at properties or context."""
        return self._inside > 0

    def add(self, subscription: Subscription) -> None:
        """Let a subscription listen too."""
        place = len(self.subscriptions)
        self.subscriptions.append(subscription)
        self._places.setdefault(subscription.asked, set()).add(place)
        self._inside += subscription.looks_inside
        if place % PIECE_MAX == 0:
            self._runs.append(None)
        self._runs[place // PIECE_MAX] = None

    def drop(self, question: int) -> None:
        """Let a question's subscriptions listen no more; the last ones take their places."""
        for place in sorted(self._places.pop(question, ()), reverse=True):
            self._inside -= self.subscriptions[place].looks_inside
            last = self.subscriptions.pop()
            end = len(self.subscriptions)
            if place < end:
                self.subscriptions[place] = last
                places = self._places[last.asked]
                places.discard(end)
                places.add(place)
                self._runs[place // PIECE_MAX] = None
            self._runs[end // PIECE_MAX] = None
            del self._runs[-(-end // PIECE_MAX) :]

    def pieces(self) -> list[tuple[Run, int]]:
        """Return the functions, each with how many subscriptions it is of."""
        found = []
        for number, run in enumerate(self._runs):
            some = self.subscriptions[number * PIECE_MAX : (number + 1) * PIECE_MAX]
            if run is None:
                run = self._runs[number] = compiled(some)
            found.append((run, len(some)))
        return found


class Handler:
    """What the events of one name are given to, and what follows from its answer; compiled when the first one comes."""

    __slots__ = ("_any", "_folds", "_own", "_plans", "_readers", "fold", "looks_inside", "run")

    def __init__(self, own: _Listeners, of_any: _Listeners | None, readers: "AskedBy") -> None:
        self._own = own
        self._any = of_any
        self._readers = readers
        self._plans: dict[int, Plan]
        self._folds: dict[Any, tuple[Run, Sequence[Subscription]]] = {}  # by what they are made of
        self.run: Run
        self.fold: Run  # what a live partition goes by, see `writing`
        self.looks_inside: bool  # at properties or context; else the name and the time are enough
        self.renew()

    @property
    def subscriptions(self) -> list[Subscription]:
        """Return who listens, in the order of the bits of an answer."""
        return [*self._own.subscriptions, *(self._any.subscriptions if self._any is not None else ())]

    def renew(self) -> None:
        """Take note that others listen."""
        self.run = self._first_run
        self.looks_inside = self._own.looks_inside or (self._any is not None and self._any.looks_inside)
        self.replan()

    def replan(self) -> None:
        """Take note that something else is to be looked at after an event."""
        self._plans = {}
        self.fold = self._first_fold

    def _first_run(self, *event: Any) -> int:
        """Compile what has to be, and take an event."""
        mine = self.subscriptions
        if len(mine) <= PIECE_MAX:
            self.run = compiled(mine) if self._any is not None and self._any.subscriptions else self._own.pieces()[0][0]
        else:
            self.run = _one_by_one(self._own.pieces() + (self._any.pieces() if self._any is not None else []))
        return self.run(*event)

    def _first_fold(self, *event: Any) -> int:
        """Make what has to be made for the fold, and take an event."""
        own, of_any = self._own.subscriptions, self._any.subscriptions if self._any is not None else []
        if len(own) + len(of_any) <= PIECE_MAX:
            pieces: list[Sequence[Subscription]] = [[*own, *of_any]]
        else:
            pieces = [some[at : at + PIECE_MAX] for some in (own, of_any) for at in range(0, len(some), PIECE_MAX)]
        often = Counter(one.asked for piece in pieces for one in piece)
        folds: dict[Any, tuple[Run, Sequence[Subscription]]] = {}
        found = []
        for piece in pieces:
            leaves = [self._own_leaves(one.asked) if often[one.asked] == 1 else None for one in piece]
            made_of = (*map(id, piece), *(None if mine is None else tuple(mine) for mine in leaves))
            fold, _ = folds[made_of] = self._folds.get(made_of) or (Writer().fold(piece, leaves), piece)
            found.append((fold, len(piece)))
        self._folds = folds
        self.fold = found[0][0] if len(found) == 1 else _one_by_one(found)
        return self.fold(*event)

    def _own_leaves(self, question: int) -> "list[Leaf] | None":
        """Return the leaves that ask a question, if they rest on nothing else and nobody else asks it."""
        leaves, nodes = self._readers[question]
        if nodes or any(leaf.rank or len(leaf.asked) > 1 for leaf in leaves):
            return None
        return list(leaves)

    def plan(self, matched: int) -> Plan:
        """Return what to look at when these subscriptions matched."""
        plan = self._plans.get(matched)
        if plan is None:
            mine = self.subscriptions
            touched = dict.fromkeys(mine[bit].asked for bit in bits_of(matched))
            leaves = dict.fromkeys(leaf for index in touched for leaf in self._readers[index][0])
            nodes = dict.fromkeys(node for index in touched for node in self._readers[index][1])
            plan = Plan(
                tuple(leaf for leaf in leaves if leaf.rank == 0),
                (*(leaf for leaf in leaves if leaf.rank > 0), *nodes),
            )
            if len(self._plans) < PLANS_MAX:
                self._plans[matched] = plan
        return plan


def bits_of(number: int) -> Iterator[int]:
    """Yield the places of the bits that are set; a digit at a time, for there may be thousands."""
    for place, digit in enumerate(number.to_bytes(-(-number.bit_length() // 8), "little")):
        if digit:
            for bit in range(8):
                if digit >> bit & 1:
                    yield place * 8 + bit


def _one_by_one(pieces: Iterable[tuple[Run, int]]) -> Run:
    """Return the function that gives an event to each of these."""
    runs = []
    shift = 0
    for piece, count in pieces:
        runs.append((piece, shift))
        shift += count

    def run(*event: Any) -> int:
        matched = 0
        for piece, shift in runs:
            found = piece(*event)
            if found:
                matched |= found << shift
        return matched

    return run


class Handlers(dict[tuple[int, str | None], Handler]):
    """The handlers of one scope by (kind, name); a name of None stands for all other names."""

    def __init__(self, readers: "AskedBy") -> None:
        super().__init__()
        self._readers = readers
        self._listeners: dict[tuple[int, str | None], _Listeners] = {}

    def add(self, subscription: Subscription) -> None:
        """Let a subscription listen."""
        name = subscription.name
        for kind in subscription.kinds:
            own = self._listeners_of(kind, name)
            own.add(subscription)
            if (kind, name) not in self:
                of_any = None if name is None else self._listeners_of(kind, None)
                self[kind, name] = Handler(own, of_any, self._readers)
            for handler in self._of(kind, name):
                handler.renew()

    def drop(self, question: int, subscriptions: Iterable[Subscription]) -> None:
        """Let a question, whose subscriptions these are, listen no more."""
        for kind, name in dict.fromkeys((kind, one.name) for one in subscriptions for kind in one.kinds):
            own = self._listeners[kind, name]
            own.drop(question)
            for handler in self._of(kind, name):
                handler.renew()
            if not own.subscriptions:
                self.pop((kind, name), None)
                if name is not None:
                    del self._listeners[kind, name]

    def replan(self, subscriptions: Iterable[Subscription]) -> None:
        """Take note that something else is to be looked at when one of these has matched."""
        for subscription in subscriptions:
            for kind in subscription.kinds:
                for handler in self._of(kind, subscription.name):
                    handler.replan()

    def _listeners_of(self, kind: int, name: str | None) -> _Listeners:
        return self._listeners.setdefault((kind, name), _Listeners())

    def _of(self, kind: int, name: str | None) -> list[Handler]:
        """Return the handlers in which listeners to a name are; those to any name are in all."""
        if name is not None:
            return [self[kind, name]] if (kind, name) in self else []
        return [handler for (its_kind, _), handler in self.items() if its_kind == kind]


def generate(subscriptions: Iterable[Subscription]) -> Handlers:
    """Return handlers for these subscriptions, to be run alone: nobody is told what to look at."""
    handlers = Handlers({})
    for subscription in subscriptions:
        handlers.add(subscription)
    return handlers


def looks_inside(conditions: Iterable[Condition], fields: Sequence[Field]) -> bool:
    """Tell whether conditions or fields look at an event's properties or context."""
    return bool(fields) or any(isinstance(part, Property | Context) for one in conditions for part in walk(one))


def compiled(subscriptions: Sequence[Subscription]) -> Run:
    """Return the function that gives an event to these subscriptions, and tells by bits which of them matched."""
    return Writer().run(subscriptions)
