"""Random tracking calls in small numbers, so that ids are shared, times tie and values meet.

Every kind of call and every kind of value: text that is nearly a number, dates with zones, arrays with nulls, objects.
Times are milliseconds since the epoch, UTC.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventlog.instants import iso
from scenarios.generator_queries import DOTTED, NAMES, PAGE_NAMES, SOURCES, UNIT_HOURS

UNIT_MS: Final = UNIT_HOURS * 3_600_000
USERS: Final = ("u1", "u2", "u3")
VISITORS: Final = ("a1", "a2", "a3")
ACCOUNTS: Final = ("g1", "g2")
EMAILS: Final = ("e1@x.io", " E1@X.io", "e2@x.io", "e3@x.io")
TRAIT_KEYS: Final = ("t", "s", "o", "when", DOTTED)
VALUES: Final[tuple[Any, ...]] = (
    *(1, 2, 2, 3, 0, -1, 2.5, 1.0, 10, 2.0),
    *("1", "2", "10", "2.5", "x", "y", "X", "", " 2 ", "true"),
    *(True, False, None, [], ["x", "y"], [1, "2"], [None], [["x"], "y"], {"k": "x"}, [{"k": 1}]),
)
RARE_VALUES: Final[tuple[Any, ...]] = (
    *(0.1, 0.2, 1e21, 1e15, 999999999999999, -0.0, 12345678901234567, 1e-7, 3.0e5),
    *(
        "1e1",
        "+1",
        "01",
        "0x10",
        ".5",
        "1_0",
        "NaN",
        "-0",
        "2.0",
        "é",
        "ẞx",
        "x y",
        "X1",
        "1x",
        "false",
        "null",
        "\u00a0",
    ),
    *({}, {"k": None}, {"k": {"k": 1}}, [True, None], ["2", 2, 2.0], [[1]], ["", None], {"k": [1, 2]}, [{"k": 1}, "x"]),
    *("2026-03-01", "2026-03-02T00:00:00Z"),
)
DATES: Final = (
    *("2026-03-01", "2026-03-02T06:00:00Z", "2026-03-03T01:00:00+01:00", "2026-03-04T12:00:00", "soon"),
    *("2026-03-02T06:00:00.001Z", "2026-03-01 18:00", "2026-02-29", "2026-03-05T00:00:00-0600", "2026-03"),
)
DEVICES: Final[tuple[dict[str, Any], ...]] = (
    {"type": "ios", "id": "d1", "advertisingId": "f1", "adTrackingEnabled": True},
    {"type": "iOS", "id": "d2", "advertisingId": "f1"},
    {"type": "android", "id": "d1", "advertisingId": "f2", "adTrackingEnabled": True, "token": "k1"},
    {"type": "tv", "id": "d1"},
)
WRONG: Final[tuple[dict[str, Any], ...]] = (
    *({"type": "tract"}, {"timestamp": "noon"}, {"type": None}, {"properties": 1}, {"context": []}),
    *({"userId": "null"}, {"userId": "anonymous"}, {"userId": 7}, {"userId": ""}, {"userId": " u1"}),
)


class Messages:
    """Makes tracking calls."""

    def __init__(self, rng: random.Random, start_ms: int, keys: Callable[[], Sequence[str]]) -> None:
        self.rng = rng
        self.start_ms = start_ms
        self.keys = keys  # of definitions, living and gone: calls write them as traits now and then
        self.message_ids: list[str] = []
        # Busy worlds have one user who does most, many events at a time, few values: funnels are gone through.
        self.is_busy = rng.random() < 0.4
        self.numbers = (0, 2, 3, 5, 8) if self.is_busy else (0, 1, 1, 2, 3, 5)  # of messages in a step
        self.values = tuple(rng.sample(VALUES, 4)) if self.is_busy else VALUES

    def message(self, units: int) -> dict[str, Any]:
        """Return a tracking call that is sent a number of units after the start."""
        kinds: tuple[Callable[[], dict[str, Any]], ...] = (
            *([self.track] * (40 if self.is_busy else 9)),
            *([self.page] * 2),
            *([self.identify] * 4),
            *([self.group] * 3),
            self.alias,
        )
        message = self.rng.choice(kinds)()
        self.date(message, units)
        if self.rng.random() < 0.15:
            message["writeKey"] = self.rng.choice(SOURCES)
        if self.rng.random() < 0.12:
            known = self.rng.choice((*self.message_ids, f"m{len(self.message_ids)}"))
            self.message_ids.append(known)
            message["messageId"] = known
        if self.rng.random() < 0.04:
            message.update(self.rng.choice(WRONG))
        return message

    def date(self, message: dict[str, Any], units: int) -> None:
        """Give a call a time: mostly none, else late, in the future or by a wrong clock, on the grid or just beside."""
        chance = self.rng.random()
        if chance < 0.6:
            return
        late = self.rng.choice((-1, 0, 1, 1, 2, 4, 9, 13))
        beside = self.rng.choice((0, 0, 0, 0, 1, -1))
        at_ms = self.start_ms + (units - late) * UNIT_MS + beside
        name = "timestamp" if self.rng.random() < 0.95 else "originalTimestamp"
        message[name] = iso(at_ms) if self.rng.random() < 0.9 else iso(at_ms)[:-1]
        if chance > 0.95:
            message["sentAt"] = iso(at_ms + self.rng.choice((-1, 0, 1, 2)) * UNIT_MS)

    def who(self) -> dict[str, Any]:
        """Return the ids of a call, and what of its context gives ids."""
        user, visitor = self.rng.choice(USERS), self.rng.choice(VISITORS)
        if self.is_busy and self.rng.random() < 0.7:
            user = USERS[0]
        ids: dict[str, Any] = self.rng.choice(
            (
                {"userId": user},
                {"userId": user},
                {"userId": user},
                {"anonymousId": visitor},
                {"userId": user, "anonymousId": visitor},
            )
        ).copy()
        context: dict[str, Any] = {}
        if self.rng.random() < 0.1:
            context["traits"] = {"email": self.rng.choice(EMAILS)}
        if self.rng.random() < 0.1:
            context["c"] = self.value()
            context["page"] = {"url": self.value()}
        if self.rng.random() < 0.04:
            collection = (
                {"collection": self.rng.choice(("users", "users", "accounts"))} if self.rng.random() < 0.8 else {}
            )
            context["externalIds"] = [{"id": self.rng.choice(("x1", "x2")), "type": "crm", **collection}]
        if self.rng.random() < 0.04:
            context["device"] = self.rng.choice(DEVICES)
        if context:
            ids["context"] = context
        return ids

    def value(self) -> Any:
        """Return a JSON value of any kind."""
        return self.rng.choice(RARE_VALUES if self.rng.random() < 0.1 else self.values)

    def properties(self) -> dict[str, Any]:
        """Return the properties of an event."""
        properties: dict[str, Any] = {}
        for name in ("p", "q", "n"):
            if self.rng.random() < 0.5:
                properties[name] = self.value() if name != "n" else self.rng.choice((1, 2, 3, 0.5, "2", "1.5", -1))
        if self.rng.random() < 0.15:
            properties["o"] = {"k": self.value()}
        if self.rng.random() < 0.15:
            properties["when"] = self.rng.choice(DATES)
        if self.rng.random() < 0.05:
            properties[DOTTED] = self.value()
        return properties

    def track(self) -> dict[str, Any]:
        """Return a track call."""
        message = {"type": "track", **self.who(), "event": self.rng.choice(NAMES)}
        properties = self.properties()
        return {**message, "properties": properties} if properties else message

    def page(self) -> dict[str, Any]:
        """Return a page or screen call."""
        message = {"type": self.rng.choice(("page", "screen")), **self.who()}
        if self.rng.random() < 0.7:
            message["name"] = self.rng.choice(PAGE_NAMES)
        return {**message, "properties": self.properties()} if self.rng.random() < 0.5 else message

    def traits(self) -> dict[str, Any]:
        """Return traits to write; now and then under the key of a definition."""
        traits: dict[str, Any] = {}
        for key in TRAIT_KEYS:
            if self.rng.random() < 0.3:
                traits[key] = {"o": {"k": self.value()}, "when": self.rng.choice(DATES)}.get(key, self.value())
        keys = self.keys()
        if keys and self.rng.random() < 0.2:
            traits[self.rng.choice(keys)] = self.value()
        return traits

    def identify(self) -> dict[str, Any]:
        """Return an identify call."""
        message = {"type": "identify", **self.who()}
        traits = self.traits()
        if self.rng.random() < 0.2:
            traits["email"] = self.rng.choice(EMAILS)
        if self.rng.random() < 0.15:
            context = dict(message.get("context", {}))
            context["traits"] = {**context.get("traits", {}), **self.traits()}
            message["context"] = context
        return {**message, "traits": traits}

    def group(self) -> dict[str, Any]:
        """Return a group call: a user joins, leaves, or the account alone is described."""
        who = self.who() if self.rng.random() < 0.85 else {}
        message = {"type": "group", **who, "groupId": self.rng.choice(ACCOUNTS)}
        traits = self.traits() if self.rng.random() < 0.5 else {}
        if self.rng.random() < 0.2:
            traits["$left"] = self.rng.choice((True, True, False))
        return {**message, "traits": traits} if traits else message

    def alias(self) -> dict[str, Any]:
        """Return an alias call."""
        return {"type": "alias", "userId": self.rng.choice(USERS), "previousId": self.rng.choice(VISITORS)}
