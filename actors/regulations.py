"""Regulations: people who are deleted from a space, suppressed at its door, or let in again.

A deletion goes in steps, each of which may be done twice, so that a kill at any moment is made good at the next start:

1. The door: suppressed user ids are refused. `Erased` is recorded for each profile; its ids lead nowhere from then on,
   its memberships end, its accounts no longer count it. Then the request is answered.
2. All that is kept beside the log is stored as it is without them, so that no start needs their events again.
3. The log is rewritten: their events, and the values in facts, are gone from its files.
4. Destinations withdraw what they were told (they follow the log) and forget; when none has a row of them any more the
   regulation is finished, and the files hold nothing of them.

What is left to do is one row of META, stored with each step. Until step 4 that row holds the people's ids, which have
to be looked for in other people's facts; it is the last thing to be deleted. The log keeps a regulation as
`RegulationSaved`: numbers and names of destinations, nobody's ids.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog
from msgspec import Struct, msgpack
from msgspec.structs import replace

from actors.delivery import Connection, Destination
from actors.erasing import Gone, Id, Rewriting, Search, gone_of, group_traces
from actors.questions import off_loop
from eventlog.entries import (
    AccountsErased,
    AnyFact,
    Commit,
    DeadLettered,
    Erased,
    RegulationSaved,
    Suppressed,
    Unsuppressed,
)
from eventlog.errors import ConflictError, InvalidError, LogError, NotFoundError
from eventlog.log import DELIVERIES, META, SENT, Changes, Key

if TYPE_CHECKING:
    from actors.space_core import SpaceCore

log = structlog.get_logger("turnout.regulations")

KINDS: Final = (
    "SUPPRESS_WITH_DELETE",
    "DELETE_ONLY",
    "SUPPRESS_ONLY",
    "UNSUPPRESS",
    "SUPPRESS_WITH_DELETE_INTERNAL",
    "DELETE_INTERNAL",
)
SUBJECTS_MAX: Final = 5_000  # as documented for the public API
SLICE: Final = 200  # profiles erased with one commit: events of others are folded between
PAUSE_FIRST_S: Final = 0.05  # until destinations are looked at again, doubled
PAUSE_MAX_S: Final = 10.0
ATTEMPTS_MAX: Final = 10  # to store something, before a regulation is FAILED until the next start
PAGE: Final = 1_000  # rows read at once

PROJECTION: Final = "regulations"
_SAVED: Final = "regulation:"
_LEFT: Final = "regulation.left:"


class Left(Struct, frozen=True, omit_defaults=True):
    """What is left to do of a deletion."""

    regulation: str
    user_ids: tuple[str, ...] = ()  # whose profiles are still there
    entities: tuple[int, ...] = ()  # erased, those that they had absorbed too
    ids: tuple[Id, ...] = ()
    accounts: tuple[int, ...] = ()  # that the erased had belonged to
    is_traced: bool = False  # those accounts are known
    since_seq: int = 0  # the last erasures come after it; 0: none so far
    is_rewritten: bool = False  # only destinations are left; ids and accounts are forgotten
    failed: dict[str, str] = {}  # destination -> why it could not be told


class Regulations:
    """The regulations of a space."""

    def __init__(self, space: "SpaceCore") -> None:
        self._space = space
        self._saved: dict[str, dict[str, Any]] = {}
        self._left: dict[str, Left] = {}
        self._wake = anyio.Event()
        self._moved = anyio.Event()
        self._newest: set[str] = set()  # regulations whose state is not to be taken from the log
        self._taking: set[str] = set()  # regulations that `take` is at work on
        self._shown: dict[str, list[dict[str, Any]]] = {}  # how far destinations were when last looked at
        self._attempts: dict[str, int] = {}
        self._load()

    def _load(self) -> None:
        for name, data in self._rows(_SAVED):
            state = msgpack.decode(data)
            if state["status"] == "FAILED":  # it is tried again
                state = {**state, "status": "RUNNING"}
            self._saved[name] = state
        self._left = {name: msgpack.decode(data, type=Left) for name, data in self._rows(_LEFT)}
        self._newest.update(self._saved)

    def _rows(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        after: Key = (prefix,)
        while rows := self._space.log.range(META, (), after, PAGE):
            for (key,), data in rows:
                if not str(key).startswith(prefix):
                    return
                yield str(key).removeprefix(prefix), data
            after = rows[-1][0]

    def apply(self, fact: RegulationSaved | DeadLettered) -> None:
        """Take a fact of the log into account."""
        if isinstance(fact, RegulationSaved):
            regulation_id = str(fact.regulation.get("id"))
            if regulation_id not in self._newest:
                self._saved[regulation_id] = fact.regulation
            return
        for left in list(self._left.values()):
            if left.since_seq and fact.delivery.get("entity") in left.entities:
                reason = f"a call was given up (status {fact.delivery.get('status')}): it may still hold the profile"
                self._keep(replace(left, failed={**left.failed, fact.destination: reason}))

    # -- what callers ask --------------------------------------------------------------------------------------------

    async def take(self, regulation_id: str, kind: str, user_ids: Sequence[str], *, actor: str) -> None:
        """Take a regulation. Raises InvalidError, ConflictError."""
        wanted = tuple(dict.fromkeys(user_ids))
        if kind not in KINDS:
            raise InvalidError(
                "invalid", f"regulationType: expected {' or '.join(KINDS)}, found {kind!r}", field="regulationType"
            )
        if not 1 <= len(wanted) <= SUBJECTS_MAX or not all(wanted):
            raise InvalidError(
                "invalid", f"subjectIds: expected 1 to {SUBJECTS_MAX} ids that are not empty", field="subjectIds"
            )
        if regulation_id in self._saved:
            raise ConflictError("regulation_exists", f"there is a regulation {regulation_id!r} already")
        is_deleting = kind not in ("SUPPRESS_ONLY", "UNSUPPRESS")
        now_ms = self._space.clock.now_ms()
        state: dict[str, Any] = {
            "id": regulation_id,
            "type": kind,
            "actor": actor,
            "subjects": len(wanted),
            "status": "INITIALIZED" if is_deleting else "FINISHED",
            "created_ms": now_ms,
            "destinations": [],
        }
        if not is_deleting:
            state["finished_ms"] = now_ms
        left = Left(regulation_id, user_ids=wanted) if is_deleting else None
        await self._save(state, left, self._of_the_door(kind, wanted, regulation_id))
        if left is not None:
            self._taking.add(regulation_id)
            try:
                await self._erase_profiles(self._left[regulation_id])
            except LogError as error:  # `run` goes on with it
                log.warning("regulation_waits", space=self._space.id, regulation=regulation_id, error=str(error))
            finally:
                self._taking.discard(regulation_id)
                self._wake.set()

    def _of_the_door(self, kind: str, user_ids: Sequence[str], regulation_id: str) -> list[AnyFact]:
        """Return who is to be refused, or taken again, from now on."""
        identity = self._space.identity
        hashes = {identity.suppression_hash(one): identity.is_suppressed(one) for one in user_ids}
        if kind == "UNSUPPRESS":
            return [Unsuppressed(id_hash, regulation_id) for id_hash, is_out in hashes.items() if is_out]
        if kind.startswith("SUPPRESS"):
            return [Suppressed(id_hash, regulation_id) for id_hash, is_out in hashes.items() if not is_out]
        return []

    def all(self) -> list[dict[str, Any]]:
        """Return all regulations, oldest first."""
        found = [
            {**saved, "destinations": self._shown.get(regulation_id, saved["destinations"])}
            for regulation_id, saved in self._saved.items()
        ]
        return sorted(found, key=lambda one: (one["created_ms"], one["id"]))

    async def finished(self, regulation_id: str) -> None:
        """Return once a regulation is over. Raises NotFoundError."""
        if regulation_id not in self._saved:
            raise NotFoundError("not_found", f"no regulation {regulation_id[:64]!r}", field="regulateId")
        while regulation_id in self._left and self._saved[regulation_id]["status"] != "FAILED":
            await self._moved.wait()

    def look(self) -> None:
        """Look at once, rather than after a pause, whether destinations are done."""
        self._wake.set()

    async def moved(self) -> None:
        """Return once something was looked at or done."""
        await self._moved.wait()

    # -- doing it ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what is left to do, until cancelled; the next start goes on."""
        for left in list(self._left.values()):
            if left.since_seq:
                await off_loop(self._space, partial(self._hear_again, left))
        pause_s = PAUSE_FIRST_S
        while True:
            is_waiting = False
            for regulation_id in [one for one in self._left if one not in self._taking]:
                is_waiting |= await self._try(regulation_id)
            self._tell()
            with anyio.move_on_after(pause_s if is_waiting else inf):
                await self._wake.wait()
            pause_s = PAUSE_FIRST_S if self._wake.is_set() else min(PAUSE_MAX_S, 2 * pause_s)
            self._wake = anyio.Event()

    def _hear_again(self, left: Left) -> None:
        """Take into account what destinations had given up before this start."""
        for commit in self._space.log.read(left.since_seq):
            for fact in commit.facts:
                if isinstance(fact, DeadLettered):
                    self.apply(fact)

    async def _try(self, regulation_id: str) -> bool:
        """Go on with a regulation; tell whether it has to be looked at again."""
        if self._attempts.get(regulation_id, 0) >= ATTEMPTS_MAX:
            return False
        try:
            await self._go_on(self._left[regulation_id])
        except LogError as error:
            attempts = self._attempts[regulation_id] = self._attempts.get(regulation_id, 0) + 1
            log.warning("regulation_waits", space=self._space.id, regulation=regulation_id, error=str(error))
            if attempts >= ATTEMPTS_MAX:
                await self._fail(regulation_id, str(error))
                return False
            return True
        self._attempts.pop(regulation_id, None)
        return regulation_id in self._left

    async def _fail(self, regulation_id: str, reason: str) -> None:
        """Say that it cannot be done now; the next start tries again."""
        state = {**self._saved[regulation_id], "status": "FAILED", "error": reason}
        self._saved[regulation_id] = state
        try:
            await self._space.record([RegulationSaved(state)], [self._changes(state, self._left[regulation_id])])
        except LogError as error:
            log.error("regulation_failed", space=self._space.id, regulation=regulation_id, error=str(error))
        self._tell()

    async def _go_on(self, left: Left) -> None:
        left = await self._erase_profiles(left)
        if not left.is_rewritten:
            left = await self._rewrite(left)
        await self._finish(left)

    async def _erase_profiles(self, left: Left) -> Left:
        """Take the profiles out of the space, in slices; return what is left to do."""
        space = self._space
        while left.user_ids:
            identity = space.identity  # another one after a write has failed
            some = left.user_ids[:SLICE]
            found = dict.fromkeys(identity.find("user_id", one) for one in some)
            profiles = [one for one in found if one is not None]
            entities = [other for one in profiles for other in (one, *identity.absorbed_by(one))]
            ids: list[Id] = [(one.id_type, one.value) for number in profiles for one in identity.ids(number)]
            ids += [("user_id", one) for one in some]
            facts: list[AnyFact] = [Erased(one, left.regulation) for one in profiles]
            left = replace(
                left,
                user_ids=left.user_ids[SLICE:],
                entities=(*left.entities, *entities),
                since_seq=max(1, space.log.last_seq),
                ids=tuple(dict.fromkeys((*left.ids, *ids))),
            )
            state = {**self._saved[left.regulation], "status": "RUNNING", "profiles": len(left.entities)}
            await space.folded(await self._save(state, left, facts))
        return self._left.get(left.regulation, left)

    async def _rewrite(self, left: Left) -> Left:
        """Leave nothing of them in what is stored beside the log, and then in the log."""
        space = self._space
        gone = gone_of(left.entities, left.ids)
        if not left.is_traced:
            left = await self._trace(left, gone)
        accounts = frozenset(left.accounts)
        search = Search(gone, accounts)
        await space.log.rewrite(_unchanged, mentioning=search.mentioning)
        space.identity.forget_refusals(search.refusing, gone.ids)
        state = self._saved[left.regulation]
        await space.store_beside([RegulationSaved(state)], [self._changes(state, left)])
        await space.forget_history(left.entities)
        rewriting = Rewriting(gone, accounts, search.computed)
        commits = await space.log.rewrite(rewriting.edit, touching=rewriting.touching, mentioning=rewriting.mentioning)
        log.info("people_erased", space=space.id, regulation=left.regulation, commits=commits)
        left = replace(left, ids=(), accounts=(), is_rewritten=True)
        await self._save({**state, "erased_ms": space.clock.now_ms()}, left)
        await space.log.scrub()
        return self._left[left.regulation]

    async def _trace(self, left: Left, gone: Gone) -> Left:
        """Find the accounts they belonged to, and take out of those what names them."""
        accounts, traits = await off_loop(self._space, lambda: group_traces(self._space.log, gone))
        facts: list[AnyFact] = []
        if accounts:
            facts.append(AccountsErased(tuple(sorted(accounts)), tuple(sorted(traits)), left.regulation))
        left = replace(left, accounts=tuple(sorted(accounts)), is_traced=True)
        seq = await self._save(self._saved[left.regulation], left, facts)
        await self._space.folded(seq)
        return self._left[left.regulation]

    async def _finish(self, left: Left) -> None:
        """Once destinations have nothing of them any more, say so, and leave nothing in the log's files."""
        destinations = self._shown[left.regulation] = await self._destinations(left)
        if any(one["status"] == "RUNNING" for one in destinations):
            return
        await self._space.log.scrub()
        state = {
            **self._saved[left.regulation],
            "status": "PARTIAL_SUCCESS" if any(one["status"] == "FAILED" for one in destinations) else "FINISHED",
            "finished_ms": self._space.clock.now_ms(),
            "destinations": destinations,
        }
        state.pop("error", None)
        await self._save(state, None)

    # -- destinations ------------------------------------------------------------------------------------------------

    async def _destinations(self, left: Left) -> list[dict[str, Any]]:
        """Return how far each destination is."""
        destinations: list[Destination] = []
        connections: dict[str, list[str]] = {}
        after: Key | None = None
        while rows := self._space.log.range(DELIVERIES, ("",), after, PAGE):
            for (_, name), data in rows:
                if str(name).startswith("d:"):
                    destinations.append(msgpack.decode(data, type=Destination))
                elif str(name).startswith("c:"):
                    connection = msgpack.decode(data, type=Connection)
                    connections.setdefault(connection.destination, []).append(connection.id)
            after = rows[-1][0]
        shown = []
        for one in destinations:
            has_rows = await self._has_rows(one, connections.get(one.id, []), left.entities)
            shown.append(self._shown_of(one, left, has_rows=has_rows))
        return shown

    def _shown_of(self, destination: Destination, left: Left, *, has_rows: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": destination.id, "name": destination.name}
        if has_rows:
            return {**shown, "status": "RUNNING"}
        if not destination.enabled:
            return {**shown, "status": "FAILED", "error": "it is off, and was not told: it may still hold the profile"}
        if destination.id in left.failed:
            return {**shown, "status": "FAILED", "error": left.failed[destination.id]}
        return {**shown, "status": "FINISHED", "finished_ms": self._space.clock.now_ms()}

    async def _has_rows(self, destination: Destination, connections: list[str], entities: Sequence[int]) -> bool:
        """Tell whether a destination was told of one of these profiles, or has something to tell."""
        store = self._space.log
        for entity in entities:
            if any(store.range(SENT, (connection, entity), limit=1) for connection in connections):
                return True
            await anyio.lowlevel.checkpoint()
        after: Key = (destination.id, "p:")
        wanted = {str(entity) for entity in entities}
        while destination.enabled and (rows := store.range(DELIVERIES, (destination.id,), after, PAGE)):
            names = [str(key[1]) for key, _ in rows if str(key[1]).startswith("p:")]
            if any(name.split(":")[2] in wanted for name in names):
                return True
            if len(names) < len(rows):
                break
            after = rows[-1][0]
        return False

    # -- storing -----------------------------------------------------------------------------------------------------

    async def _save(self, state: dict[str, Any], left: Left | None, facts: Sequence[AnyFact] = ()) -> int:
        """Record a regulation's state, then facts, with what is left to do; return the last one's sequence."""
        recorded: list[AnyFact] = [RegulationSaved(state), *facts]
        first_seq = await self._space.record(recorded, [self._changes(state, left)])
        self._saved[state["id"]] = state
        self._newest.add(state["id"])
        if left is None:
            self._left.pop(state["id"], None)
            self._shown.pop(state["id"], None)
        else:
            self._keep(left)
        self._tell()
        return first_seq + len(recorded) - 1

    def _keep(self, left: Left) -> Left:
        """Hold what is left to do, with what became known of destinations meanwhile."""
        before = self._left.get(left.regulation)
        if before is not None and before.failed:
            left = replace(left, failed={**before.failed, **left.failed})
        self._left[left.regulation] = left
        return left

    def _changes(self, state: dict[str, Any], left: Left | None) -> Changes:
        puts: list[tuple[Key, bytes]] = [((f"{_SAVED}{state['id']}",), msgpack.encode(state))]
        deletes: list[Key] = []
        if left is None:
            deletes.append((f"{_LEFT}{state['id']}",))
        else:
            puts.append(((f"{_LEFT}{state['id']}",), msgpack.encode(left)))
        return Changes(PROJECTION, self._space.log.last_seq, puts=((META, puts),), deletes=((META, deletes),))

    def _tell(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()


def _unchanged(commit: Commit) -> Commit:
    return commit
