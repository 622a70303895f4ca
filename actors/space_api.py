"""What a space does for its callers: the interface, and the values that go through it."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol
from typing import Literal as OneOf

from msgspec import Struct

from actors.door import Incoming
from actors.identity_rules import SpaceSettings
from eventlog.clock import Clock
from eventlog.entries import AnyFact, Commit, Definition, Options, Rejected
from eventlog.log import Changes, Log

EntityType = OneOf["USERS", "ACCOUNTS"]
Collection = OneOf["users", "accounts"]


class DefinitionView(Struct, frozen=True):
    """A definition with how it is doing."""

    definition: Definition
    status: str  # Preparing, Backfilling, Live, Disabled, Failed
    locked: bool
    progress: float  # 0-1
    seconds_left: float | None
    failure: str | None
    size: int  # members (audiences) or entities with a value (traits)


class Preview(Struct, frozen=True):
    """What a definition would give on history."""

    size: int
    sample: tuple[
        tuple[int, str], ...
    ]  # entity, its name (see Space.name_of); in order of entity, at most what was asked
    at_ms: int
    known_seq: int


class IdRow(Struct, frozen=True):
    """One external id of an entity."""

    collection: Collection
    id_type: str
    value: str
    created_ms: int
    source: str
    encoding: str
    seq: int = 0  # of the event that gave it


class RefusalRow(Struct, frozen=True):
    """An external id of an event of an entity that was not used to identify it."""

    id_type: str
    value: str
    code: str
    seq: int  # of the event


class TraitRow(Struct, frozen=True):
    """One trait of an entity: custom, computed or an audience's boolean."""

    key: str
    value: Any
    kind: OneOf["custom", "computed_trait", "audience"]
    source: str
    updated_ms: int


class SpaceApi(Protocol):
    """What a space does for its callers (`Space` is the one implementation)."""

    id: str
    log: Log
    clock: Clock
    duplicates: int  # messages whose id had been taken before, since the space was opened

    # -- in ----------------------------------------------------------------------------------------------------------

    async def ingest(self, accepted: Sequence[Incoming], rejected: Sequence[Rejected], source: str) -> list[Rejected]:
        """Take accepted messages and record rejected ones; return once durable, with every refusal (both kinds).

        Duplicates (by message id) are taken in silence. Refuses suppressed and all-blocked ids (their `index` kept).
        """

    async def ingest_calls(
        self, accepted: Sequence[Incoming], rejected: Sequence[Rejected], source: str
    ) -> dict[int, Rejected]:
        """Do as `ingest`; return the refusals among the accepted by their place: each came by a call of its own."""

    async def settle(self) -> None:
        """Return once everything acknowledged so far has been folded and its effects are durable."""

    async def advance(self) -> None:
        """Fire every timer due by the clock's now, and return once the effects are durable."""

    async def record(self, facts: Sequence[AnyFact], changes: Sequence[Changes] = ()) -> int:
        """Append facts from outside the partition (destinations, …), with projection changes, in one transaction.

        Returns the sequence of the first of them, once durable.
        """

    # -- definitions -------------------------------------------------------------------------------------------------

    async def create_definition(
        self,
        *,
        kind: OneOf["audience", "trait"],
        name: str,
        entity_type: EntityType,
        query: str,
        key: str | None = None,
        description: str | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
        enabled: bool = True,
        actor: str = "",
    ) -> Definition:
        """Create a definition and start its backfill. Raises QueryError, InvalidError, ConflictError."""

    async def edit_definition(
        self,
        id_or_key: str,
        *,
        name: str | None = None,
        description: str | None = None,
        query: str | None = None,
        options: Options | None = None,
        enabled: bool | None = None,
        actor: str = "",
    ) -> Definition:
        """Change a definition; a new query or options starts a backfill. Raises ConflictError while it is locked."""

    async def delete_definition(self, id_or_key: str, *, send_exits: bool = False, actor: str = "") -> None:
        """Delete a definition. Raises ConflictError naming those that refer to it."""

    def definitions(
        self, kind: OneOf["audience", "trait"] | None = None, *, numbers: Sequence[int] | None = None
    ) -> list[DefinitionView]:
        """Return the living definitions in order of creation; with `numbers` those alone, in their order."""

    def definition_numbers(self, kind: OneOf["audience", "trait"]) -> list[int]:
        """Return the numbers of the living definitions, in order of creation: of many, a page is shown."""

    def definition(self, id_or_key: str) -> DefinitionView:
        """Return one living definition. Raises NotFoundError."""

    def references(self, id_or_key: str) -> list[Definition]:
        """Return the living definitions that refer to this one."""

    async def backfilled(self, id_or_key: str | None = None) -> None:
        """Return once the definition's backfill (or every backfill) has ended."""

    @property
    def settings(self) -> SpaceSettings:
        """Return the settings in force."""

    async def change_settings(self, given: dict[str, Any], actor: str = "", *, force: bool = False) -> SpaceSettings:
        """Change some settings; they are in force from here on. Raises InvalidError.

        Keeping events for less than a living definition needs is a ConflictError, unless forced.
        """

    # -- people ------------------------------------------------------------------------------------------------------

    async def regulate(self, regulation_id: str, kind: str, user_ids: Sequence[str], *, actor: str = "") -> None:
        """Delete, suppress or let in people by their user ids. Raises InvalidError, ConflictError.

        When this returns, events of those suppressed are refused and those deleted are nobody's members any more. Their
        events are erased, and destinations told, from then on; `regulations` says how far that is.
        """

    def regulations(self) -> list[dict[str, Any]]:
        """Return all regulations, oldest first: id, type, status, created_ms, finished_ms, destinations, …."""

    async def regulated(self, regulation_id: str) -> None:
        """Return once a regulation is FINISHED, or as good as it gets. Raises NotFoundError."""

    def suppressed(self) -> list[str]:
        """Return the keyed hashes of suppressed user ids."""

    def beyond_retention(self) -> list[str]:
        """Return what living definitions need more than the space keeps (forced settings), each as a sentence."""

    async def upkeep(self) -> None:
        """Go on with deletions, and forget what is too old, until cancelled; a daemon does it beside a space."""

    # -- questions ---------------------------------------------------------------------------------------------------

    def now(self) -> tuple[int, int]:
        """Return the clock's now and the last folded sequence."""

    def known_seq(self, known_ms: int) -> int:
        """Return the last sequence recorded by `known_ms`."""

    async def preview(
        self,
        query: str,
        entity_type: EntityType = "USERS",
        *,
        options: Options = Options(),  # noqa: B008 - frozen
        trait: bool = False,
        at_ms: int | None = None,
        known_ms: int | None = None,
        sample: int | None = 10,
        edit_of: str | None = None,
    ) -> Preview:
        """Evaluate a definition on all of history without creating it; `sample` None lists every member."""

    async def members(
        self,
        id_or_key: str,
        *,
        after: int = 0,
        limit: int | None = None,
        at_ms: int | None = None,
        known_ms: int | None = None,
    ) -> list[tuple[int, int]]:
        """Return (entity, since_ms) of an audience's members, in order of entity, those after `after`."""

    async def overlap(self, id_or_key: str, other: str) -> tuple[int, int, int]:
        """Return how many are in two audiences now: in one, in the other, in both."""

    async def size_history(self, id_or_key: str) -> list[tuple[int, int, int]]:
        """Return (day's start in ms, entries, exits) of each day with a change, from the log."""

    async def explain(
        self, id_or_key: str, entity: int, *, at_ms: int | None = None, known_ms: int | None = None
    ) -> dict[str, Any]:
        """Return the definition's tree with each part's truth and what it rests on."""

    def find(self, collection: Collection, id_type: str, value: str, *, known_seq: int | None = None) -> int | None:
        """Return the entity that an external id leads to, after all merges (emails trimmed and lower-cased).

        With `known_seq` the entity that it led to once the log was known so far.
        """

    def name_of(self, entity: int) -> str:
        """Return user_id (group_id for an account), else TYPE:VALUE of its first id."""

    def public_id(self, entity: int) -> str:
        """Return the entity's own id, as in exports: use_… or acc_…."""

    def ids_of(self, entity: int, *, known_seq: int | None = None) -> list[IdRow]:
        """Return the external ids of an entity, oldest first, those of what it absorbed too."""

    def packed_ids(self, entities: Sequence[int]) -> bytes:
        """Return what is known of the external ids of many, for `actors.bulk_ids.known_ids` to take apart.

        One read for all of them, about a microsecond each; whose they were when is decided as they are taken apart.
        """

    def refusals_of(self, entity: int, *, known_seq: int | None = None) -> list[RefusalRow]:
        """Return the ids of an entity's events that were not used to identify it and why: the newest, oldest first."""

    async def traits_of(self, entity: int, *, at_ms: int | None = None, known_ms: int | None = None) -> list[TraitRow]:
        """Return all traits of an entity, sorted by key: custom, computed, and a boolean for every live audience."""

    async def events_of(self, entity: int) -> list[dict[str, Any]]:
        """Return the messages of an entity in (timestamp, sequence) order, with seq, event_ms, source, message_id."""

    async def accounts_of(self, entity: int, *, at_ms: int | None = None, known_ms: int | None = None) -> list[int]:
        """Return the accounts a user belongs to."""

    async def users_of(self, entity: int, *, at_ms: int | None = None, known_ms: int | None = None) -> list[int]:
        """Return the users of an account."""

    def accounts_now(self, entity: int) -> list[int]:
        """Return the accounts a user belongs to, as far as is folded."""

    def users_now(self, entity: int) -> list[int]:
        """Return the users of an account, as far as is folded."""

    def values_now(self, entity: int) -> dict[str, Any]:
        """Return an entity's audiences and computed traits by key, as far as is folded; None: no value.

        Those that are not live yet are left out: what they will say is not known.
        """

    def members_now(self, id_or_key: str, *, after: int, numbers: int) -> tuple[list[tuple[int, int]], int | None]:
        """Return (entity, since_ms) of an audience's members among the next `numbers` entities, as far as is folded.

        Also where to go on (None: those were the last): a pass over all looks at each once, and sorts nothing.
        """

    async def values(
        self, id_or_key: str, *, at_ms: int | None = None, known_ms: int | None = None
    ) -> list[tuple[int, Any]]:
        """Return (entity, value) of a computed trait, in order of entity, of all that have one."""

    def changes(self, after_seq: int = 0) -> AsyncIterator[Commit]:
        """Follow the log."""

    def rejected(self, *, before_seq: int | None = None, limit: int = 100) -> Iterator[tuple[int, int, Rejected]]:
        """Yield (sequence, recorded ms, refusal), newest first."""
