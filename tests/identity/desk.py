"""A desk that events are handed in at: resolves them, appends what was decided, stores now and then, and may die."""

from collections.abc import Iterable
from typing import Any, Final

from actors.external_ids import ExternalId
from actors.identity import Identity, Resolution
from actors.identity_rules import settings_from_json
from actors.identity_store import IdentityStore
from eventlog.entries import TRACK, AnyFact, Commit, Event, IdentityRulesChanged
from eventlog.log import Changes, Log

KEY: Final = b"a key of this test's space"


def users(*spelt: str) -> tuple[ExternalId, ...]:
    """Return ids of a user, each written `type:value`; the short types u, e and a stand for the common ones."""
    return tuple(_id("users", one) for one in spelt)


def account(spelt: str) -> ExternalId:
    """Return a group's id."""
    return ExternalId("accounts", "group_id", spelt)


def _id(collection: Any, spelt: str) -> ExternalId:
    short, _, value = spelt.partition(":")
    return ExternalId(collection, {"u": "user_id", "e": "email", "a": "anonymous_id"}.get(short, short), value)


class Desk:
    """One space's identity over a log; caches of two rows, so that all but nothing comes from the tables."""

    def __init__(self, log: Log, *, cached_max: int = 2) -> None:
        self.log = log
        self._cached_max = cached_max
        self.identity = self._opened()
        self.last_event_seq = 0
        self._handed_out: Changes | None = None

    def _opened(self) -> Identity:
        store = IdentityStore(self.log, ids_cached_max=self._cached_max, records_cached_max=self._cached_max)
        identity = Identity(self.log, suppression_key=KEY, store=store)
        for commit in self.log.read(identity.cursor_seq):
            identity.apply_commit(commit)
        return identity

    async def take(self, *ids: ExternalId, group: ExternalId | None = None, event_ms: int = 0) -> Resolution:
        """Hand in one event."""
        return (await self.take_batch([(ids, group, event_ms)]))[0]

    async def take_batch(
        self, calls: Iterable[tuple[tuple[ExternalId, ...], ExternalId | None, int]]
    ) -> list[Resolution]:
        """Hand in events that are appended as one commit."""
        first_seq = self.log.last_seq + 1
        events: list[Event] = []
        facts: list[AnyFact] = []
        answers: list[Resolution] = []
        for ids, group, event_ms in calls:
            seq = first_seq + len(events)
            answer = self.identity.resolve(ids, group=group, event_ms=event_ms, cause_seq=seq, source="web")
            answers.append(answer)
            if not answer.refusal:
                events.append(
                    Event(seq, event_ms, event_ms, answer.profile, answer.account, TRACK, "E", "web", f"m{seq}", b"{}")
                )
                facts.extend(answer.facts)
        if events:
            await self.log.append([Commit(first_seq, 0, tuple(events), tuple(facts))])
            self.last_event_seq = events[-1].seq
        return answers

    async def record(self, *facts: AnyFact) -> None:
        """Append facts that no event caused."""
        for fact in facts:
            self.identity.apply(fact)
        await self.log.append([Commit(self.log.last_seq + 1, 0, (), facts)])

    async def set_rules(self, **given: Any) -> None:
        """Change settings, by their names in JSON."""
        changed = settings_from_json(given, self.identity.settings)
        await self.record(IdentityRulesChanged(changed.to_json()))

    async def store(self) -> None:
        """Write what is pending behind, first what was handed out and not written yet."""
        if self._handed_out is not None:
            await self._write(self._handed_out)
        changes = self.identity.pending_changes(self.log.last_seq)
        if changes is not None:
            await self._write(changes)

    async def _write(self, changes: Changes) -> None:
        await self.log.store([changes])
        self.identity.stored(changes)
        self._handed_out = None

    def hand_out(self) -> None:
        """Take what is pending, as a writer does that has yet to write it."""
        self._handed_out = self._handed_out or self.identity.pending_changes(self.log.last_seq)

    def die_and_start(self) -> None:
        """Lose all memory and start from the tables and the log's tail."""
        self._handed_out = None
        self.identity = self._opened()

    async def upset(self, how: str) -> None:
        """Do as the words say: `hand out`, `store`, `die`."""
        if how == "hand out":
            self.hand_out()
        if "store" in how:
            await self.store()
        if "die" in how:
            self.die_and_start()
