"""One space: what adapters and scenarios talk to (`space_api.SpaceApi`). The work is done by the modules it names."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from typing import Literal as OneOf

import anyio
from msgspec.structs import replace

from actors import questions
from actors.definitions import Held
from actors.entities import Account, User
from actors.explain import explain
from actors.identity_rules import SpaceSettings, settings_from_json
from actors.scanning import HERE, Scans
from actors.space_api import Collection, DefinitionView, EntityType, IdRow, Preview, RefusalRow, SpaceApi, TraitRow
from actors.space_core import ACTIVE_MAX, SpaceCore
from eventlog.clock import Clock
from eventlog.entries import (
    Commit,
    Definition,
    DefinitionDeleted,
    DefinitionSaved,
    IdentityRulesChanged,
    Options,
    Rejected,
)
from eventlog.errors import ConflictError, InvalidError
from eventlog.log import Log

__all__ = [
    "Collection",
    "DefinitionView",
    "EntityType",
    "IdRow",
    "Preview",
    "RefusalRow",
    "Space",
    "SpaceApi",
    "TraitRow",
    "open_space",
]

_PREFIX = {"audience": "aud", "trait": "tra"}


class Space(SpaceCore):
    """A space, open. Get one from `open_space`."""

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
        held = self.definitions_held
        options = questions.checked_options(options)
        async with self.defining:
            chosen = held.check_new(kind=kind, name=name, key=key, entity_type=entity_type, query=query)
            self.retention.check_definition(query, entity_type, kind)
            number = held.last_number + 1
            now_ms = self.clock.now_ms()
            definition = Definition(
                number=number,
                id=f"{_PREFIX[kind]}_{number}",
                kind=kind,
                key=chosen,
                name=name,
                entity_type=entity_type,
                query=query,
                description=description,
                options=options,
                enabled=enabled,
                created_ms=now_ms,
                updated_ms=now_ms,
                created_by=actor,
                updated_by=actor,
            )
            await self.record([DefinitionSaved(definition)])
            await self.settle()
        return held.held[number].latest if number in held.held else definition

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
        async with self.defining:
            held = self.definitions_held.of(id_or_key)
            was = held.latest
            changed = (query is not None and query != was.query) or (options is not None and options != was.options)
            if changed and held.pending and was.enabled:
                raise self._locked(held)
            if query is not None:
                self.definitions_held.check_query(was.key, query, was.entity_type, was.kind)
            if name is not None and not name.strip():
                raise InvalidError("invalid_name", "name: needs at least one character", field="name")
            now = replace(
                was,
                name=was.name if name is None else name,
                description=was.description if description is None else description,
                query=was.query if query is None else query,
                options=was.options if options is None else questions.checked_options(options),
                enabled=was.enabled if enabled is None else enabled,
                updated_ms=self.clock.now_ms(),
                updated_by=actor,
            )
            begins_anew = now.enabled and (not was.enabled or held.failure is not None)
            if changed or begins_anew:
                self.retention.check_definition(now.query, now.entity_type, now.kind)
                now = replace(now, version=was.version + 1)
            await self.record([DefinitionSaved(now)])
            await self.settle()
        return now

    def _locked(self, held: Held) -> ConflictError:
        view = self._view(held)
        left = "" if view.seconds_left is None else f", about {view.seconds_left:.0f} s left"
        return ConflictError(
            "locked", f"{held.latest.key} is locked while its last change is applied ({view.progress:.0%}{left})"
        )

    async def delete_definition(self, id_or_key: str, *, send_exits: bool = False, actor: str = "") -> None:
        """Delete a definition. Raises ConflictError naming those that refer to it."""
        async with self.defining:
            was = self.definitions_held.of(id_or_key).latest
            others = [one for one in self.definitions_held.referring_to(was.key) if one.number != was.number]
            if others:
                names = ", ".join(sorted(one.key for one in others))
                raise ConflictError("referenced", f"{was.key} is not deleted: {names} refer to it")
            await self.record([DefinitionDeleted(was.number, send_exits, actor)])
            await self.settle()

    def definitions(
        self, kind: OneOf["audience", "trait"] | None = None, *, numbers: Sequence[int] | None = None
    ) -> list[DefinitionView]:
        """Return the living definitions in order of creation; with `numbers` those alone, in their order."""
        held = self.definitions_held.held
        chosen = held.values() if numbers is None else [held[number] for number in numbers if number in held]
        return [self._view(one) for one in chosen if kind in (None, one.latest.kind)]

    def definition_numbers(self, kind: OneOf["audience", "trait"]) -> list[int]:
        """Return the numbers of the living definitions, in order of creation: of many, a page is shown."""
        return [number for number, held in self.definitions_held.held.items() if held.latest.kind == kind]

    def definition(self, id_or_key: str) -> DefinitionView:
        """Return one living definition. Raises NotFoundError."""
        return self._view(self.definitions_held.of(id_or_key))

    def _view(self, held: Held) -> DefinitionView:
        definition = held.latest
        runs = definition.number in self.backfills.running
        progress, seconds_left = (self.backfills.progress if runs else 0.0), None
        if runs and progress > 0:
            spent_s = (self.clock.now_ms() - self.backfills.started_ms) / 1000
            seconds_left = spent_s * (1 - progress) / progress
        if not definition.enabled:
            status = "Disabled"
        elif held.failure is not None:
            status = "Failed"
        elif not held.pending:
            status = "Live"
        else:
            status = "Backfilling" if runs else "Preparing"
        return DefinitionView(
            definition=definition,
            status=status,
            locked=held.pending and definition.enabled,
            progress=progress if held.pending else 1.0,
            seconds_left=seconds_left,
            failure=held.failure,
            size=len(self.partition.members.get(definition.number, ())),
        )

    def references(self, id_or_key: str) -> list[Definition]:
        """Return the living definitions that refer to this one."""
        was = self.definitions_held.of(id_or_key).latest
        return [one for one in self.definitions_held.referring_to(was.key) if one.number != was.number]

    async def backfilled(self, id_or_key: str | None = None) -> None:
        """Return once the definition's backfill (or every backfill) has ended."""
        await self.settle()
        await self.backfills.done(None if id_or_key is None else self.definitions_held.of(id_or_key).latest.number)
        await self.settle()

    # -- settings ----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> SpaceSettings:
        """Return the settings in force."""
        return self.identity.settings

    async def change_settings(self, given: dict[str, Any], actor: str = "", *, force: bool = False) -> SpaceSettings:
        """Change some settings; they are in force from here on. Raises InvalidError.

        Keeping events for less than a living definition needs is a ConflictError, unless forced.
        """
        settings = settings_from_json(given, self.identity.settings)
        if not force:
            self.retention.check_settings(settings)
        await self.record([IdentityRulesChanged(settings.to_json(), actor)])
        await self.settle()
        return settings

    # -- people ------------------------------------------------------------------------------------------------------

    async def regulate(self, regulation_id: str, kind: str, user_ids: Sequence[str], *, actor: str = "") -> None:
        """Delete, suppress or let in people by their user ids. Raises InvalidError, ConflictError.

        When this returns, events of those suppressed are refused and those deleted are nobody's members any more. Their
        events are erased, and destinations told, from then on; `regulations` says how far that is.
        """
        await self.regulating.take(regulation_id, kind, user_ids, actor=actor)

    def regulations(self) -> list[dict[str, Any]]:
        """Return all regulations, oldest first: id, type, status, created_ms, finished_ms, destinations, …."""
        return self.regulating.all()

    async def regulated(self, regulation_id: str) -> None:
        """Return once a regulation is FINISHED, or as good as it gets. Raises NotFoundError."""
        await self.regulating.finished(regulation_id)

    def suppressed(self) -> list[str]:
        """Return the keyed hashes of suppressed user ids."""
        return sorted(self.identity.suppressed())

    def beyond_retention(self) -> list[str]:
        """Return what living definitions need more than the space keeps (forced settings), each as a sentence."""
        return self.retention.beyond(self.settings)

    async def upkeep(self) -> None:
        """Go on with deletions, and forget what is too old, until cancelled; a daemon does it beside a space."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.regulating.run)
            tasks.start_soon(self.retention.run)

    # -- questions ---------------------------------------------------------------------------------------------------

    def now(self) -> tuple[int, int]:
        """Return the clock's now and the last folded sequence."""
        return self.clock.now_ms(), self.folded_seq

    def known_seq(self, known_ms: int) -> int:
        """Return the last sequence recorded by `known_ms`."""
        return self.log.seq_at(known_ms)

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
        await self.caught_up()
        return await questions.preview(
            self,
            query,
            entity_type,
            options=options,
            trait=trait,
            at_ms=at_ms,
            known_ms=known_ms,
            sample=sample,
            edit_of=edit_of,
        )

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
        await self.caught_up()
        return await questions.members(self, id_or_key, after=after, limit=limit, at_ms=at_ms, known_ms=known_ms)

    async def overlap(self, id_or_key: str, other: str) -> tuple[int, int, int]:
        """Return how many are in two audiences now: in one, in the other, in both."""
        await self.settle()
        return questions.overlap(self, id_or_key, other)

    async def size_history(self, id_or_key: str) -> list[tuple[int, int, int]]:
        """Return (day's start in ms, entries, exits) of each day with a change, from the log."""
        await self.settle()
        return await questions.size_history(self, id_or_key)

    async def explain(
        self, id_or_key: str, entity: int, *, at_ms: int | None = None, known_ms: int | None = None
    ) -> dict[str, Any]:
        """Return the definition's tree with each part's truth and what it rests on."""
        await self.caught_up()
        return await explain(self, id_or_key, entity, at_ms=at_ms, known_ms=known_ms)

    def find(self, collection: Collection, id_type: str, value: str, *, known_seq: int | None = None) -> int | None:
        """Return the entity that an external id leads (or led) to (emails trimmed and lower-cased)."""
        return questions.who_was_who(self, known_seq).find(id_type, value, collection)

    def name_of(self, entity: int) -> str:
        """Return user_id (group_id for an account), else TYPE:VALUE of its first id."""
        return questions.name_of(self, entity)

    def public_id(self, entity: int) -> str:
        """Return the entity's own id, as in exports: use_… or acc_…."""
        return questions.public_id(self, entity)

    def ids_of(self, entity: int, *, known_seq: int | None = None) -> list[IdRow]:
        """Return the external ids of an entity, oldest first, those of what it absorbed too."""
        return questions.ids_of(self, entity, known_seq)

    def refusals_of(self, entity: int, *, known_seq: int | None = None) -> list[RefusalRow]:
        """Return the ids of an entity's events that were not used to identify it and why: the newest, oldest first."""
        return questions.refusals_of(self, entity, known_seq)

    def packed_ids(self, entities: Sequence[int]) -> bytes:
        """Return what is known of the external ids of many, for `actors.bulk_ids.known_ids` to take apart."""
        return self.identity.packed_ids(entities)

    async def traits_of(self, entity: int, *, at_ms: int | None = None, known_ms: int | None = None) -> list[TraitRow]:
        """Return all traits of an entity, sorted by key: custom, computed, and a boolean for every live audience."""
        await self.caught_up()
        return await questions.traits_of(self, entity, at_ms, known_ms)

    async def events_of(self, entity: int) -> list[dict[str, Any]]:
        """Return the messages of an entity in (timestamp, sequence) order, with seq, event_ms, source, message_id."""
        return questions.events_of(self, entity)

    async def accounts_of(self, entity: int, *, at_ms: int | None = None, known_ms: int | None = None) -> list[int]:
        """Return the accounts a user belongs to."""
        await self.caught_up()
        return await questions.accounts_of(self, entity, at_ms, known_ms)

    async def users_of(self, entity: int, *, at_ms: int | None = None, known_ms: int | None = None) -> list[int]:
        """Return the users of an account."""
        await self.caught_up()
        return await questions.users_of(self, entity, at_ms, known_ms)

    def accounts_now(self, entity: int) -> list[int]:
        """Return the accounts a user belongs to, as far as is folded."""
        user = self.partition.find(self.identity.canonical(entity))
        return sorted(user.joined()) if isinstance(user, User) else []

    def users_now(self, entity: int) -> list[int]:
        """Return the users of an account, as far as is folded."""
        account = self.partition.find(entity)
        return sorted(account.users) if isinstance(account, Account) else []

    def values_now(self, entity: int) -> dict[str, Any]:
        """Return an entity's audiences and computed traits by key, as far as is folded; None: no value.

        Those that are not live yet are left out: what they will say is not known.
        """
        found = self.partition.find(self.identity.canonical(entity))
        if found is None:
            return {}
        values: dict[str, Any] = {}
        for one in self.definitions_held.held.values():
            definition = one.latest
            fits = (definition.entity_type == "ACCOUNTS") == found.is_account
            if fits and definition.number in self.partition.live:
                number = definition.number
                is_audience = definition.kind == "audience"
                values[definition.key] = number in found.inside if is_audience else found.values.get(number)
        return values

    def members_now(self, id_or_key: str, *, after: int, numbers: int) -> tuple[list[tuple[int, int]], int | None]:
        """Return (entity, since_ms) of an audience's members among the next `numbers` entities, as far as is folded.

        Also where to go on (None: those were the last): a pass over all looks at each once, and sorts nothing.
        """
        members = self.partition.members.get(self.definitions_held.of(id_or_key).latest.number, {})
        last = self.partition.last_entity if members else 0
        until = min(after + numbers, last)
        page = [(entity, members[entity]) for entity in range(after + 1, until + 1) if entity in members]
        return page, until if until < last else None

    async def values(
        self, id_or_key: str, *, at_ms: int | None = None, known_ms: int | None = None
    ) -> list[tuple[int, Any]]:
        """Return (entity, value) of a computed trait, in order of entity, of all that have one."""
        await self.caught_up()
        return await questions.values(self, id_or_key, at_ms, known_ms)

    def changes(self, after_seq: int = 0) -> AsyncIterator[Commit]:
        """Follow the log."""
        return self.log.follow(after_seq)

    def rejected(self, *, before_seq: int | None = None, limit: int = 100) -> Iterator[tuple[int, int, Rejected]]:
        """Yield (sequence, recorded ms, refusal), newest first."""
        return iter(self.rejections.newest(before_seq, limit))


@asynccontextmanager
async def open_space(
    space_id: str,
    store: Log,
    clock: Clock,
    *,
    suppression_key: bytes,
    active_max: int = ACTIVE_MAX,
    scans: Scans = HERE,
) -> AsyncIterator[Space]:
    """Open a space, run it while the block lasts, and store what is not yet stored at its end."""
    space = Space(space_id, store, clock, suppression_key=suppression_key, active_max=active_max, scans=scans)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(space.run)
        tasks.start_soon(space.backfills.run)
        try:
            yield space
            await space.close()
        finally:
            tasks.cancel_scope.cancel()
