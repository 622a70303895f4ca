"""Retention: what profiles did is kept for so many days (setting `eventRetentionDays`), then forgotten for good.

Forgotten are track, page, screen and alias calls, by their timestamps. Identify and group calls are kept: they say what
a profile *is*, and traits always count (contract, section 4); so are facts, which say who is who and what was decided.

A definition has a *look-back*: how old an event can be and still count. The windows of its events say it; without a
window it is for ever. Only what looks back no further than events are kept agrees with what a fold of the log gives, so
anything else is refused: a definition that needs more, a setting that keeps less, a question about a past that has been
forgotten. Times are milliseconds since the epoch, UTC.
"""

from collections.abc import Iterable, Iterator
from math import inf
from typing import TYPE_CHECKING, Final

import anyio
import structlog
from msgspec import msgpack

from actors.definitions import tree_of
from actors.identity_rules import DAY_MS, SpaceSettings
from actors.language.reach import Reach, reach_of
from actors.language.tree import And, Audience, Comparison, Not, Or, Users
from actors.language.tree import Definition as Tree
from actors.language.tree import Event as EventQuestion
from eventlog.entries import ALIAS, PAGE, SCREEN, TRACK, Definition, EventsForgotten
from eventlog.erasure import forget_before
from eventlog.errors import ConflictError, InvalidError, LogError
from eventlog.instants import iso
from eventlog.log import META, Changes
from eventlog.memory import MemoryLog

if TYPE_CHECKING:
    from actors.space_core import SpaceCore

log = structlog.get_logger("turnout.retention")

FORGOTTEN_KINDS: Final = frozenset({TRACK, PAGE, SCREEN, ALIAS})
EVERY_MS: Final = 3_600_000  # an event is kept at most so much longer than the setting says
POLL_S: Final = 60.0
NAMED_MAX: Final = 5  # definitions, in a message
PROJECTION: Final = "retention"
_KEY: Final = ("retention",)


# -- how far back a definition looks ---------------------------------------------------------------------------------


def lookback_ms(tree: Tree) -> int | None:
    """Return how old an event can be and still count for a definition; None: events of any age."""
    lows = [reach.low_ms for reach in _reaches(tree, None)]
    if any(low == -inf for low in lows):
        return None
    return max([0, *(int(-low) for low in lows)])


def _reaches(node: Tree, outer: Reach | None) -> Iterator[Reach]:
    match node:
        case EventQuestion():
            reach = reach_of(node, outer)
            yield reach
            if node.where is not None:
                yield from _reaches(node.where, reach)
        case Comparison(left=left, right=right):
            for value in (left, *right):
                if isinstance(value, EventQuestion):
                    yield from _reaches(value, outer)
        case And(of=parts) | Or(of=parts):
            for part in parts:
                yield from _reaches(part, outer)
        case Not(of=part) | Users(of=part):
            yield from _reaches(part, outer)
        case Audience():
            pass


def lookback_of(definition: Definition) -> int | None:
    """Return how far back a definition looks by itself; what it refers to looks back on its own."""
    return lookback_ms(tree_of(definition.query, definition.entity_type, definition.kind))


def _exceeds(lookback: int | None, days: int | None) -> bool:
    return days is not None and (lookback is None or lookback > days * DAY_MS)


def _needs(lookback: int | None) -> str:
    if lookback is None:
        return "needs events of any age"
    days = -(-lookback // DAY_MS)
    return f"needs events of {days} day{'s' * (days != 1)}"


# -- what is refused, and what is forgotten --------------------------------------------------------------------------


class Retention:
    """How long events of a space are kept."""

    def __init__(self, space: "SpaceCore") -> None:
        self._space = space
        stored = space.log.get(META, _KEY)
        self.forgotten_ms: int | None = None if stored is None else msgpack.decode(stored, type=int)

    def apply(self, fact: EventsForgotten) -> None:
        """Take note that events were forgotten."""
        self.forgotten_ms = max(fact.before_ms, self.forgotten_ms or fact.before_ms)

    def check_definition(self, query: str, entity_type: str, kind: str) -> None:
        """Refuse a definition that needs events which are not kept. Raises InvalidError."""
        days = self._space.identity.settings.event_retention_days
        lookback = lookback_ms(tree_of(query, entity_type, kind))
        if _exceeds(lookback, days):
            raise InvalidError(
                "beyond_retention",
                f"the definition {_needs(lookback)}, but this space keeps them for {days} days (eventRetentionDays): "
                f"ask .within({days} days) or less of every event, or raise the setting",
                field="definition.query",
            )

    def beyond(self, settings: SpaceSettings) -> list[str]:
        """Return what living definitions need more than these settings keep, each as a sentence."""
        days = settings.event_retention_days
        if days is None:
            return []
        found: list[str] = []
        for held in self._space.definitions_held.held.values():
            versions = [held.latest] if held.active is None else [held.latest, held.active]
            needed = [lookback_of(one) for one in versions]
            worst = None if None in needed else max(one for one in needed if one is not None)
            if _exceeds(worst, days):
                found.append(f"{held.latest.key} {_needs(worst)}")
        return found

    def check_settings(self, settings: SpaceSettings) -> None:
        """Refuse to keep events for less than a living definition needs. Raises ConflictError naming it."""
        if settings.event_retention_days == self._space.identity.settings.event_retention_days:
            return
        found = self.beyond(settings)
        if found:
            more = f", and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
            raise ConflictError(
                "needed",
                f"eventRetentionDays {settings.event_retention_days}: {'; '.join(found[:NAMED_MAX])}{more}. Change or "
                "delete them first, or force it: then they go on as they stand, and can never be computed anew",
                field="eventRetentionDays",
            )

    def check_past(self, definitions: Iterable[Definition], at_ms: int) -> None:
        """Refuse a question that rests on forgotten events. Raises InvalidError that says what can be asked."""
        if self.forgotten_ms is None:
            return
        for definition in definitions:
            lookback = lookback_of(definition)
            name = definition.key or "the definition"
            if lookback is None:
                raise InvalidError(
                    "beyond_retention",
                    f"{name} needs events of any age, and those before {iso(self.forgotten_ms)} are no longer kept "
                    "(eventRetentionDays)",
                )
            if at_ms - lookback < self.forgotten_ms:
                raise InvalidError(
                    "beyond_retention",
                    f"{name} {_needs(lookback)}, and those before {iso(self.forgotten_ms)} are no longer kept "
                    f"(eventRetentionDays): ask about {iso(self.forgotten_ms + lookback)} or later",
                )

    # -- forgetting --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Forget what is too old, until cancelled."""
        while True:
            await anyio.sleep(POLL_S)
            try:
                await self.forget()
            except LogError as error:  # tried again
                log.warning("forgetting_failed", space=self._space.id, error=str(error))

    async def forget(self) -> int:
        """Forget events that are older than is kept, if it is time to; return how many commits changed."""
        space = self._space
        days = space.identity.settings.event_retention_days
        if days is None:
            return 0
        before_ms = space.clock.now_ms() - days * DAY_MS
        if self.forgotten_ms is not None and before_ms < self.forgotten_ms + EVERY_MS:
            return 0
        if not await self._has_older(before_ms):
            return 0
        # First all that follows from the events is stored: a start after a kill must not need them.
        stored = Changes(PROJECTION, space.log.last_seq, puts=((META, [(_KEY, msgpack.encode(before_ms))]),))
        await space.store_beside([EventsForgotten(before_ms)], [stored])
        commits = await forget_before(space.log, before_ms, FORGOTTEN_KINDS)
        log.info("events_forgotten", space=space.id, before=iso(before_ms), commits=commits)
        return commits

    async def _has_older(self, before_ms: int) -> bool:
        def look() -> bool:
            names = [(kind, None) for kind in FORGOTTEN_KINDS]
            scanned = self._space.log.scan_columns(names)
            return any(bool((columns.event_ms < before_ms).any()) for columns in scanned)

        if isinstance(self._space.log, MemoryLog):
            return look()
        return await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
