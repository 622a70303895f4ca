"""The obvious identity: every question is answered by looking at every profile, every rule by counting.

Shares no code with the engine. Ids are (type, value) pairs; times milliseconds.
"""

import re
from typing import Final
from typing import Literal as OneOf

DAY_MS: Final = 24 * 60 * 60 * 1000
PERIODS_DAYS: Final = {"weekly": 7, "monthly": 30, "annually": 365}
Pair = tuple[str, str]
Kind = OneOf["users", "accounts"]


class PlainId:
    """An id on a profile."""

    def __init__(self, pair: Pair, added_ms: int) -> None:
        self.pair = pair
        self.added_ms = added_ms
        self.first_ms = added_ms


class PlainEntity:
    """A profile or account."""

    def __init__(self, number: int, kind: Kind) -> None:
        self.number = number
        self.kind = kind
        self.ids: list[PlainId] = []
        self.absorbed: list[int] = []
        self.refusals: list[tuple[str, str, str]] = []

    def get(self, pair: Pair) -> PlainId | None:
        """Return the id if it is there."""
        for one in self.ids:
            if one.pair == pair:
                return one
        return None


class PlainIdentity:
    """All entities there are, in a list."""

    def __init__(self) -> None:
        self.entities: list[PlainEntity] = []
        self.numbers = 0
        self.limits: dict[str, tuple[int, str]] = {"user_id": (1, "ever"), "*": (5, "ever")}
        self.priority = ["user_id", "email"]
        self.blocked = ["", "-1", "null", "anonymous"]
        self.blocked_patterns = ["^[0-]*$"]
        self.ids_max = 1000
        self.merges_max = 100

    def take(self, pairs: list[Pair], group: Pair | None, event_ms: int) -> tuple[int, int, list[str]] | None:
        """Return profile, account and the codes of newly refused ids; None when the event is refused."""
        refused: list[tuple[Pair, str]] = []
        refused_accounts: list[tuple[Pair, str]] = []
        good = self.sift(pairs, refused)
        good_accounts = self.sift([] if group is None else [group], refused_accounts)
        profile = self.place(good, "users", self.merges_max, event_ms, refused)
        account = self.place(good_accounts, "accounts", 0, event_ms, refused_accounts)
        if profile is None and account is None:
            return None
        codes = self.note(profile, refused) + self.note(profile or account, refused_accounts)
        return (profile.number if profile else 0, account.number if account else 0, codes)

    def sift(self, pairs: list[Pair], refused: list[tuple[Pair, str]]) -> list[Pair]:
        """Return those that may identify."""
        good = []
        for pair in dict.fromkeys(pairs):
            patterns = [pattern for pattern in self.blocked_patterns if re.search(pattern, pair[1])]
            if pair[1] in self.blocked or patterns or pair[1] == "":
                refused.append((pair, "value_blocked"))
            elif self.limit(pair[0])[0] == 0:
                refused.append((pair, "value_limit_exceeded"))
            else:
                good.append(pair)
        return good

    def place(
        self, pairs: list[Pair], kind: Kind, merges_max: int, event_ms: int, refused: list[tuple[Pair, str]]
    ) -> PlainEntity | None:
        """Find, make, add to or merge."""
        trying = list(pairs)
        while trying:
            matched = [one for one in self.entities if one.kind == kind and any(one.get(pair) for pair in trying)]
            broken = self.broken(trying, matched, merges_max, event_ms)
            if not broken:
                return self.joined(pairs, trying, matched, kind, event_ms)
            lowest = max(trying, key=lambda pair: (self.rank(pair[0]), pairs.index(pair)))
            trying.remove(lowest)
            refused.append((lowest, broken))
        return None

    def rank(self, id_type: str) -> tuple[int, str]:
        """Return the place of a type in the priorities."""
        return (self.priority.index(id_type), "") if id_type in self.priority else (999, id_type)

    def limit(self, id_type: str) -> tuple[int, str]:
        """Return count and period."""
        return self.limits.get(id_type, self.limits["*"])

    def broken(self, trying: list[Pair], matched: list[PlainEntity], merges_max: int, event_ms: int) -> str:
        """Return which rule would be broken."""
        groups = [[one.pair for one in entity.ids] for entity in matched]
        added = {one.pair: one.added_ms for entity in matched for one in entity.ids}
        fresh = [pair for pair in trying if pair not in added]
        groups += [[pair] for pair in fresh]
        if len(groups) <= 1 and not fresh:
            return ""
        added.update(dict.fromkeys(fresh, event_ms))
        for id_type in sorted({pair[0] for pair in added}):
            count, period = self.limit(id_type)
            if sum(any(pair[0] == id_type for pair in pairs) for pairs in groups) < 2 and not any(
                pair[0] == id_type for pair in fresh
            ):
                continue
            times = [ms for pair, ms in added.items() if pair[0] == id_type]
            if period == "ever" and len(times) > count:
                return "value_limit_exceeded"
            if period != "ever" and len([ms for ms in times if ms > event_ms - PERIODS_DAYS[period] * DAY_MS]) > count:
                return "value_time_limit_exceeded"
        if len(matched) > 1 and sum(len(one.absorbed) for one in matched) + len(matched) - 1 > merges_max:
            return "merge_limit_exceeded"
        return "id_limit_exceeded" if len(added) > self.ids_max else ""

    def joined(
        self, pairs: list[Pair], trying: list[Pair], matched: list[PlainEntity], kind: Kind, event_ms: int
    ) -> PlainEntity:
        """Make all that matched one, and give it the ids."""
        if matched:
            entity, *others = sorted(matched, key=lambda one: one.number)
        else:
            self.numbers += 1
            entity, others = PlainEntity(self.numbers, kind), []
            self.entities.append(entity)
        for other in others:
            entity.ids += other.ids
            entity.absorbed += [other.number, *other.absorbed]
            entity.refusals += other.refusals
            self.entities.remove(other)
        for pair in pairs:
            if pair in trying:
                known = entity.get(pair)
                if known is None:
                    entity.ids.append(PlainId(pair, event_ms))
                else:
                    known.first_ms = min(known.first_ms, event_ms)
        return entity

    def note(self, entity: PlainEntity | None, refused: list[tuple[Pair, str]]) -> list[str]:
        """Keep refusals that are not kept yet."""
        codes = []
        for (id_type, value), code in refused:
            if entity is None:
                codes.append(code)
            elif (id_type, value, code) not in entity.refusals:
                entity.refusals.append((id_type, value, code))
                codes.append(code)
        return codes

    def picture(self) -> dict[int, tuple[str, list[tuple[str, str, int]], list[int]]]:
        """Return every entity: kind, ids with their earliest times, what it absorbed."""
        return {
            one.number: (
                one.kind,
                sorted((*known.pair, known.first_ms) for known in one.ids),
                sorted(one.absorbed),
            )
            for one in self.entities
        }
