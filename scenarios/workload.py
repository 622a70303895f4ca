"""A shop's traffic made up from a seed: as many tracking calls as a benchmark wants, alike in every run.

    python -m scenarios.workload --events 1000000 --profiles 100000 > events.ndjson

What makes it lifelike: few customers cause most of the traffic (the square of a uniform draw picks them), event names
have a shop's shares, messages of one visit follow each other with the same product, one visitor in five is not logged
in, customers belong to accounts, and about one event in a hundred comes late. A tracking call has about 240 bytes.
Times run evenly from `start_ms` over `span_ms`, in milliseconds since the epoch, UTC.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

DAY_MS: Final = 86_400_000
LATE_SHARE: Final = 0.01
LATE_MS_MAX: Final = 2 * DAY_MS
PRODUCTS: Final = 2_000
CATEGORIES: Final = ("bags", "cards", "clocks", "lights", "mugs", "toys")
COUNTRIES: Final = ("United Kingdom", "Germany", "France", "Spain", "Portugal", "Norway")

# Event names with their shares in a thousand tracking calls.
SHARES: Final = (
    ("Product Viewed", 520),
    ("Product Added", 170),
    ("Checkout Started", 70),
    ("Order Completed", 45),
    ("Product Returned", 5),
    ("page", 130),
    ("identify", 40),
    ("group", 20),
)


class Workload(Struct, frozen=True):
    """What traffic to make up."""

    events: int
    profiles: int = 10_000
    accounts: int = 100
    seed: int = 1
    start_ms: int = 1_767_225_600_000  # 2026-01-01
    span_ms: int = 30 * DAY_MS

    def messages(self) -> Iterator[bytes]:
        """Yield the tracking calls as JSON, in order of arrival; each has a message id of its own."""
        draw = random.Random(self.seed).random  # noqa: S311 - lifelike, not secret
        names = [name for name, share in SHARES for _ in range(share)]
        step_ms = self.span_ms / max(1, self.events)
        day, day_text = -1, ""
        for n in range(self.events):
            event_ms = self.start_ms + int(n * step_ms)
            if draw() < LATE_SHARE:
                event_ms -= int(draw() * LATE_MS_MAX)
            if event_ms // DAY_MS != day:
                day = event_ms // DAY_MS
                day_text = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")
            ms = event_ms % DAY_MS
            time = f"{day_text}T{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000:03}Z"
            person = int(self.profiles * draw() ** 2)
            who = f'"anonymousId":"visitor-{person}"' if person % 5 == 0 else f'"userId":"customer-{person}"'
            name = names[int(draw() * len(names))]
            yield self._message(name, f'"messageId":"{self.seed}-{n}","timestamp":"{time}",{who}', person, n).encode()

    def _message(self, name: str, head: str, person: int, n: int) -> str:
        """Return one call as JSON; `head` holds what all calls share."""
        product = person * 7919 % PRODUCTS  # the same through a visit, so that funnels by product match
        price = f"{product % 97 + 1}.{product % 10}9"
        if name == "identify":
            return (
                f'{{"type":"identify",{head},"traits":{{"country":"{COUNTRIES[person % 6]}","age":{18 + person % 60},'
                f'"plan":"{"pro" if person % 9 == 0 else "free"}"}}}}'
            )
        if name == "group":
            account = person % self.accounts
            return f'{{"type":"group",{head},"groupId":"account-{account}","traits":{{"seats":{account % 50 + 1}}}}}'
        if name == "page":
            return f'{{"type":"page",{head},"name":"Home","properties":{{"url":"https://shop.example/","path":"/"}}}}'
        if name in {"Order Completed", "Checkout Started"}:
            return (
                f'{{"type":"track",{head},"event":"{name}","properties":{{"order_id":"o-{n}","product_id":"p-{product}",'
                f'"total":{n % 400 + 5}.5,"currency":"EUR","quantity":{n % 5 + 1}}}}}'
            )
        return (
            f'{{"type":"track",{head},"event":"{name}","properties":{{"product_id":"p-{product}","price":{price},'
            f'"category":"{CATEGORIES[product % 6]}","quantity":{n % 3 + 1},"name":"Product number {product}"}}}}'
        )


def main(arguments: list[str] | None = None) -> int:
    """Write made-up traffic to standard output, a call a line."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.workload", description="A shop's traffic from a seed.")
    parser.add_argument("--events", type=int, required=True, help="how many tracking calls")
    parser.add_argument("--profiles", type=int, default=10_000, help="how many customers cause them")
    parser.add_argument("--accounts", type=int, default=100, help="how many accounts they belong to")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same traffic")
    asked = parser.parse_args(arguments)
    if min(asked.events, asked.profiles, asked.accounts) < 1:
        parser.error("--events, --profiles and --accounts are at least 1")
    workload = Workload(events=asked.events, profiles=asked.profiles, accounts=asked.accounts, seed=asked.seed)
    sys.stdout.buffer.writelines(message + b"\n" for message in workload.messages())
    return 0


if __name__ == "__main__":
    sys.exit(main())
