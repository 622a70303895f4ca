"""Events and commits for tests: small, varied, and the same each time."""

import random
from collections.abc import Sequence

from eventlog.entries import IDENTIFY, TRACK, AnyFact, Commit, Event, Ticked

START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
NAMES = ("Order Completed", "Product Viewed", "Größe gewählt")


def event(seq: int, *, profile: int = 0, name: str | None = None, body: bytes | None = None) -> Event:
    """Return an event that is told from its neighbours by every field."""
    kind = IDENTIFY if seq % 5 == 0 and name is None else TRACK
    return Event(
        seq=seq,
        event_ms=START_MS + seq * 1000 - seq % 7,
        received_ms=START_MS + seq * 1000,
        profile=profile or seq % 4 + 1,
        account=seq % 3,
        kind=kind,
        name="" if kind == IDENTIFY else name or NAMES[seq % 3],
        source=f"src_{seq % 2}",
        message_id=f"m-{seq}",
        body=body if body is not None else b'{"event":"%d","properties":{"total":%d}}' % (seq, seq),
    )


def commit(first_seq: int, events: int, facts: Sequence[AnyFact] = (), at_ms: int | None = None) -> Commit:
    """Return a commit of so many events and these facts."""
    last = first_seq + events - 1
    at_ms = START_MS + last * 1000 if at_ms is None else at_ms
    return Commit(first_seq, at_ms, tuple(event(first_seq + i) for i in range(events)), tuple(facts))


def commits(*sizes: int, first_seq: int = 1) -> list[Commit]:
    """Return commits of so many events each; a size of 0 is a commit of one fact."""
    made = []
    for size in sizes:
        facts = () if size else (Ticked(START_MS + first_seq * 1000),)
        made.append(commit(first_seq, size, facts, at_ms=START_MS + (first_seq + max(size, 1) - 1) * 1000))
        first_seq = made[-1].last_seq + 1
    return made


def chance(seed: int) -> random.Random:
    """Return random choices that are the same each time."""
    return random.Random(seed)  # noqa: S311 - a test's, not a secret's
