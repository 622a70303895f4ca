"""Reading a space: who is in an audience, now or at any time; what a definition would give; what is known of somebody.

Questions about now are answered from the partition. Questions with `at_ms` or `known_ms` fold the log anew (`history`):
`at` alone with everything known today, `known` with the definitions, the identities and the events known then.
"""

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import anyio.lowlevel
import anyio.to_thread
import msgspec
from msgspec.structs import replace

from actors.bulk_ids import own_id
from actors.definitions import SHADOW, Definitions, spec_of, tree_of
from actors.entities import Account, Entity, User
from actors.history import Hindsight
from actors.identity_past import WhoIsWho
from actors.language import references
from actors.leavings import left_behind, merged
from actors.scanning import Question, world_of
from actors.snapshots import values_of
from actors.space_api import EntityType, IdRow, Preview, RefusalRow, TraitRow
from eventlog.entries import (
    KIND_NAMES,
    Definition,
    Entered,
    Exited,
    Options,
)
from eventlog.errors import InvalidError
from eventlog.log import STATES
from eventlog.memory import MemoryLog

if TYPE_CHECKING:
    from actors.space_core import SpaceCore

NAMED_SLICE: Final = 500  # people named, before others get a turn
PAGES_SLICE: Final = 8  # pages of answers taken, before others get a turn
VALUES_SLICE: Final = 500  # people whose values are looked up, before others get a turn
DAY_MS: Final = 86_400_000
DRAFT: Final = SHADOW * 2  # the number of a definition that is only looked at


def public_id(space: "SpaceCore", entity: int) -> str:
    """Return an entity's own id: use_… or acc_… and its number in base 36."""
    return own_id(entity, space.identity.collection(entity))


def name_of(space: "SpaceCore", entity: int) -> str:
    """Return user_id (group_id for an account), else TYPE:VALUE of its first id, else its own id."""
    ids = space.identity.ids(entity)
    for one in ids:
        if one.id_type in ("user_id", "group_id"):
            return one.value
    return f"{ids[0].id_type}:{ids[0].value}" if ids else public_id(space, entity)


def ids_of(space: "SpaceCore", entity: int, known_seq: int | None = None) -> list[IdRow]:
    """Return the external ids of an entity, oldest first."""
    ids = who_was_who(space, known_seq).ids(entity)
    if not ids:
        return []
    collection = space.identity.collection(entity) or "users"  # never changes; asked as of then it finds all ids again
    return [IdRow(collection, one.id_type, one.value, one.event_ms, one.source, one.encoding, one.seq) for one in ids]


def refusals_of(space: "SpaceCore", entity: int, known_seq: int | None = None) -> list[RefusalRow]:
    """Return the newest refusals of an entity, the oldest of them first."""
    return [
        RefusalRow(one.id_type, one.value, one.code, one.seq)
        for one in space.identity.refusals(entity)
        if known_seq is None or one.seq <= known_seq
    ]


def who_was_who(space: "SpaceCore", known_seq: int | None) -> WhoIsWho:
    """Return who is who, or was once the log was known up to a sequence."""
    return space.identity if known_seq is None else space.identity.as_of(known_seq)


# -- the past --------------------------------------------------------------------------------------------------------


async def definitions_at(space: "SpaceCore", known_seq: int | None) -> Definitions:
    """Return the definitions, as they were once the log was known up to a sequence."""
    if known_seq is None:
        return space.definitions_held

    def work() -> Definitions:
        then = Definitions()
        for _, facts in space.log.read_facts(0, known_seq):
            for seq, fact in facts:
                then.apply(fact, seq)
        return then

    found: Definitions = await off_loop(space, work)
    return found


def closure(held: Definitions, wanted: Iterable[Definition]) -> list[Definition]:
    """Return definitions with all that they refer to."""
    by_key = {one.latest.key: one.active or one.latest for one in held.held.values()}
    found: dict[int, Definition] = {}
    stack = list(wanted)
    while stack:
        definition = stack.pop()
        if definition.number in found:
            continue
        found[definition.number] = definition
        keys = references(tree_of(definition.query, definition.entity_type, definition.kind))
        stack += [by_key[key] for key in keys if key in by_key and key != definition.key]
    return list(found.values())


async def off_loop(space: "SpaceCore", work: Callable[[], Any]) -> Any:
    """Do a scan: in a thread where the log is a file, at once where it is in memory."""
    if isinstance(space.log, MemoryLog):
        return work()
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


async def frozen_values(
    space: "SpaceCore",
    definitions: Iterable[Definition],
    held: Definitions,
    at_ms: int,
    canonical: Sequence[int],
    entities: Iterable[int] | None = None,
) -> dict[int, dict[int, Any]]:
    """Return what those of the definitions that are disabled say, by entity (all, or these): what they said then.

    Of an earlier time they say what was known of it when they were disabled; one that was never enabled says nothing.
    """
    frozen: dict[int, dict[int, Any]] = {}
    for definition in definitions:
        if definition.enabled:
            continue
        number = definition.number
        values = frozen[number] = {}
        one = held.held.get(number)
        if one is None or not one.disabled_seq:
            continue
        known_seq = one.disabled_seq - 1
        then = await definitions_at(space, known_seq)
        deciding = then.held[number].active
        if deciding is None:
            continue
        time_ms = min(at_ms, one.disabled_ms)
        if entities is None:
            values.update(await answers(space, deciding, then, time_ms, known_seq))
        else:
            who = who_was_who(space, known_seq)
            for half in sorted({who.canonical(entity) for entity in entities}):
                world = await hindsight_of(space, [deciding], then, half, time_ms, known_seq)
                values.update((entity, world.value(entity, number)) for entity in world.members(number))
        frozen[number] = merged(values, canonical)
    return frozen


async def question(
    space: "SpaceCore", wanted: Iterable[Definition], held: Definitions, at_ms: int, known_seq: int | None
) -> tuple[Question, "array[int]"]:
    """Return the question who is in these definitions at a time, and who is who for it."""
    asked = list(wanted)
    definitions = closure(held, asked)
    space.retention.check_past(definitions, at_ms)
    canonical = space.identity.canonical_map(known_seq)
    living = {one.latest.key for one in held.held.values()}
    keys = {key for d in definitions for key in references(tree_of(d.query, d.entity_type, d.kind))}
    frozen = await frozen_values(space, definitions, held, at_ms, canonical)
    job = Question(
        definitions=tuple(definitions),
        wanted=tuple(one.number for one in asked),
        at_ms=at_ms,
        until_seq=space.log.last_seq if known_seq is None else known_seq,
        left_keys=tuple(key for key in space.definitions_held.keys if key in keys and key not in living),
        frozen=frozen,
        is_forgetful=space.retention.forgotten_ms is not None,
    )
    return job, canonical


async def answers(
    space: "SpaceCore", wanted: Definition, held: Definitions, at_ms: int, known_seq: int | None
) -> list[tuple[int, Any]]:
    """Return who is in a definition at a time (with true), or has a value (with it), in order of entity."""
    job, canonical = await question(space, [wanted], held, at_ms, known_seq)
    found: list[tuple[int, Any]] = []
    async with space.scans.run(space.log, job, canonical) as pages:
        for count, page in enumerate(pages, 1):
            found += [(entity, value) for entity, _, value in page]
            if count % PAGES_SLICE == 0:
                await anyio.lowlevel.checkpoint()
    return found


async def hindsight(
    space: "SpaceCore", wanted: Iterable[Definition], held: Definitions, at_ms: int, known_seq: int | None
) -> Hindsight:
    """Return the world as it was at a time: everyone with all traits, and what these definitions say of them."""
    job, canonical = await question(space, wanted, held, at_ms, known_seq)
    living = {one.latest.key for one in held.held.values()}
    left_keys = tuple(key for key in space.definitions_held.keys if key not in living)
    full = replace(job, in_full=True, left_keys=left_keys)
    world: Hindsight = await off_loop(space, lambda: world_of(full, space.log, canonical))
    return world


async def preview(
    space: "SpaceCore",
    query: str,
    entity_type: EntityType,
    *,
    options: Options,
    trait: bool,
    at_ms: int | None,
    known_ms: int | None,
    sample: int | None,
    edit_of: str | None,
) -> Preview:
    """Evaluate a definition on all of history."""
    kind: Any = "trait" if trait else "audience"
    now_ms, known_seq = moment(space, at_ms, known_ms)
    held = await definitions_at(space, known_seq)
    draft = Definition(
        number=DRAFT,
        id="draft",
        kind=kind,
        key="",
        name="",
        entity_type=entity_type,
        query=query,
        options=options,
        created_ms=space.clock.now_ms(),
        created_seq=space.log.last_seq,
    )
    if edit_of is not None:
        edited = held.of(edit_of).latest
        draft = replace(draft, created_ms=edited.created_ms, created_seq=edited.created_seq)
        held.check_query(edited.key, query, entity_type, kind)
    tree_of(query, entity_type, kind)
    members = [entity for entity, _ in await answers(space, draft, held, now_ms, known_seq)]
    named: list[tuple[int, str]] = []
    for entity in members if sample is None else members[:sample]:
        named.append((entity, name_of(space, entity)))
        if len(named) % NAMED_SLICE == 0:
            await anyio.lowlevel.checkpoint()
    return Preview(
        size=len(members),
        sample=tuple(named),
        at_ms=now_ms,
        known_seq=space.log.last_seq if known_seq is None else known_seq,
    )


def moment(space: "SpaceCore", at_ms: int | None, known_ms: int | None) -> tuple[int, int | None]:
    """Return the time asked about (now, unless said), and up to which sequence the log is known (None: all of it)."""
    known_seq = None if known_ms is None else space.log.seq_at(known_ms)
    return (space.clock.now_ms() if at_ms is None else at_ms), known_seq


def next_of(members: Collection[int], after: int, limit: int | None, last: int) -> list[int]:
    """Return the next members after one, in order. Of many only as many are looked at as the page takes.

    Where members are dense among all entities up to `last`, walking the numbers meets a page soon; else there are few.
    """
    if limit is None and after == 0:
        return sorted(members)
    if limit is not None and limit * last < len(members) ** 2:
        return list(islice((entity for entity in range(after + 1, last + 1) if entity in members), limit))
    left = (entity for entity in members if entity > after)
    return sorted(left) if limit is None else nsmallest(limit, left)


async def members(
    space: "SpaceCore", id_or_key: str, *, after: int, limit: int | None, at_ms: int | None, known_ms: int | None
) -> list[tuple[int, int]]:
    """Return (entity, since_ms) of members, in order of entity. In the past `since_ms` is the time asked about."""
    if at_ms is None and known_ms is None:
        held = space.definitions_held.of(id_or_key)
        now = space.partition.members.get(held.latest.number, {})
        return [(entity, now[entity]) for entity in next_of(now, after, limit, space.partition.last_entity)]
    time_ms, known_seq = moment(space, at_ms, known_ms)
    then = await definitions_at(space, known_seq)
    held = then.of(id_or_key)
    found = await answers(space, held.active or held.latest, then, time_ms, known_seq)
    return [(entity, time_ms) for entity, _ in found if entity > after][:limit]


def overlap(space: "SpaceCore", id_or_key: str, other: str) -> tuple[int, int, int]:
    """Return how many are in two audiences: in one, in the other, in both."""
    numbers = (space.definitions_held.of(one).latest.number for one in (id_or_key, other))
    left, right = (space.partition.members.get(number, {}).keys() for number in numbers)
    return len(left), len(right), len(left & right)


async def size_history(space: "SpaceCore", id_or_key: str) -> list[tuple[int, int, int]]:
    """Return (day's start in ms, entries, exits) of each day with a change."""
    number = space.definitions_held.of(id_or_key).latest.number

    def work() -> list[tuple[int, int, int]]:
        days: dict[int, list[int]] = {}
        for _, facts in space.log.read_facts():
            for _, fact in facts:
                if isinstance(fact, Entered | Exited) and fact.definition == number:
                    day = days.setdefault(fact.at_ms - fact.at_ms % DAY_MS, [0, 0])
                    day[isinstance(fact, Exited)] += 1
        return [(day, entries, exits) for day, (entries, exits) in sorted(days.items())]

    found: list[tuple[int, int, int]] = await off_loop(space, work)
    return found


# -- one profile -----------------------------------------------------------------------------------------------------


async def traits_of(space: "SpaceCore", entity: int, at_ms: int | None, known_ms: int | None) -> list[TraitRow]:
    """Return all traits of an entity, sorted by key."""
    if at_ms is None and known_ms is None:
        now = space.partition.find(space.identity.canonical(entity))
        if now is None:
            return []
        return _trait_rows(space, now, space.definitions_held, space.partition.members)
    time_ms, known_seq = moment(space, at_ms, known_ms)
    held = await definitions_at(space, known_seq)
    who = who_was_who(space, known_seq)
    wanted = [one.active or one.latest for one in held.held.values()]
    world = await hindsight_of(space, wanted, held, entity, time_ms, known_seq)
    then = world.entity(who.canonical(entity))
    return [] if then is None else _trait_rows(space, then, held, {})


async def hindsight_of(
    space: "SpaceCore",
    wanted: list[Definition],
    held: Definitions,
    entity: int,
    at_ms: int,
    known_seq: int | None,
) -> Hindsight:
    """Return the world of one entity at a time: its own events, and where accounts matter those of all it is with."""
    definitions = closure(held, wanted)
    space.retention.check_past(definitions, at_ms)
    if any(definition.entity_type == "ACCOUNTS" for definition in definitions):
        return await hindsight(space, definitions, held, at_ms, known_seq)
    who = who_was_who(space, known_seq)
    until_seq = space.log.last_seq if known_seq is None else known_seq
    now = who.canonical(entity)
    living = {one.latest.key for one in held.held.values()}
    keys = {key for key in space.definitions_held.keys if key not in living}
    canonical = space.identity.canonical_map(known_seq)
    behind = [
        replace(one, values={number: one.values[number] for number in (now,) if number in one.values})
        for one in await off_loop(space, lambda: left_behind(space.log, keys, until_seq, canonical))
    ]
    frozen = await frozen_values(space, definitions, held, at_ms, canonical, [now, *who.absorbed_by(now)])
    world = Hindsight([spec_of(d, d.number) for d in definitions], at_ms, behind, frozen)
    for seq in space.events.seqs_of([now, *who.absorbed_by(now)], until_seq=until_seq):
        columns = space.log.columns_at(seq)
        if columns is not None:
            event = columns.select(columns.seq == seq)
            if who.collection(now) != "accounts" and event.event_ms[0] <= at_ms:
                world.user(now)
            world.feed(event, canonical)
    world.decide(lambda one, types: who.has_any_id_type(one, types, at_ms))
    return world


def _trait_rows(
    space: "SpaceCore", entity: Entity, held: Definitions, members: dict[int, dict[int, int]]
) -> list[TraitRow]:
    rows: list[TraitRow] = []
    owned = {one.latest.key: one for one in held.held.values()}
    keys = dict.fromkeys([*entity.traits, *entity.program.left])
    for key in keys:
        if key in owned:
            continue
        value = entity.custom_trait(key)
        if value is not None:
            written = entity.traits.get(key)
            rows.append(TraitRow(key, value, "custom", "", written[0] if written else entity.program.left[key].at_ms))
    for key, one in owned.items():
        definition = one.latest
        if (definition.entity_type == "ACCOUNTS") != entity.is_account:
            continue
        since = members.get(definition.number, {}).get(entity.number, definition.updated_ms)
        if definition.kind == "audience":
            rows.append(TraitRow(key, definition.number in entity.inside, "audience", definition.id, since))
        elif definition.number in entity.values:
            value = entity.values[definition.number]
            rows.append(TraitRow(key, value, "computed_trait", definition.id, since))
    return sorted(rows, key=lambda row: row.key)


def events_of(space: "SpaceCore", entity: int) -> list[dict[str, Any]]:
    """Return the messages of an entity in (timestamp, sequence) order."""
    now = space.identity.canonical(entity)
    events = space.events.events_of([now, *space.identity.absorbed_by(now)])
    rows = []
    for event in sorted(events, key=lambda e: (e.event_ms, e.seq)):
        message = msgspec.json.decode(event.body)
        message |= {
            "type": KIND_NAMES[event.kind],  # a single call says it in its path alone
            "seq": event.seq,
            "event_ms": event.event_ms,
            "received_ms": event.received_ms,
            "source": event.source,
            "message_id": event.message_id,
        }
        rows.append(message)
    return rows


async def accounts_of(space: "SpaceCore", entity: int, at_ms: int | None, known_ms: int | None) -> list[int]:
    """Return the accounts a user belongs to, or belonged to."""
    user = await _entity_at(space, entity, at_ms, known_ms)
    return sorted(user.joined()) if isinstance(user, User) else []


async def users_of(space: "SpaceCore", entity: int, at_ms: int | None, known_ms: int | None) -> list[int]:
    """Return the users of an account, now or then."""
    account = await _entity_at(space, entity, at_ms, known_ms)
    return sorted(account.users) if isinstance(account, Account) else []


async def _entity_at(space: "SpaceCore", entity: int, at_ms: int | None, known_ms: int | None) -> Entity | None:
    """Return an entity as it is, or as it was with regard to its accounts."""
    if at_ms is None and known_ms is None:
        return space.partition.find(space.identity.canonical(entity))
    time_ms, known_seq = moment(space, at_ms, known_ms)
    world = Hindsight((), time_ms)
    world.needs_groups = True
    canonical = space.identity.canonical_map(known_seq)
    until_seq = space.log.last_seq if known_seq is None else known_seq
    await off_loop(space, lambda: world.scan(space.log, until_seq, canonical))
    world.decide(lambda _entity, _types: False)
    return world.entity(canonical[entity])


async def values(space: "SpaceCore", id_or_key: str, at_ms: int | None, known_ms: int | None) -> list[tuple[int, Any]]:
    """Return (entity, value) of a computed trait, in order of entity."""
    if at_ms is None and known_ms is None:
        number = space.definitions_held.of(id_or_key).latest.number
        return await values_now(space, number)
    time_ms, known_seq = moment(space, at_ms, known_ms)
    then = await definitions_at(space, known_seq)
    held = then.of(id_or_key)
    return await answers(space, held.active or held.latest, then, time_ms, known_seq)


async def values_now(space: "SpaceCore", number: int) -> list[tuple[int, Any]]:
    """Return (entity, value) of a computed trait, all of one moment: nothing folds meanwhile, but others get a turn.

    Who is not in memory is looked at where it rests: its snapshot says the same, and it stays there.
    """
    found: list[tuple[int, Any]] = []
    entities = space.partition.entities
    async with space.still:
        holders = sorted(space.partition.members.get(number, ()))
        for start in range(0, len(holders), VALUES_SLICE):
            some = holders[start : start + VALUES_SLICE]
            resting = space.log.get_many(STATES, [(entity, 0) for entity in some if entity not in entities])
            for entity in some:
                awake = entities.get(entity)
                row = resting.get((entity, 0))
                values = awake.values if awake is not None else values_of(row) if row is not None else {}
                if number in values:
                    found.append((entity, values[number]))
            await anyio.lowlevel.checkpoint()
    return found


def checked_options(options: Options) -> Options:
    """Return options that can be used. Raises InvalidError."""
    days = options.backfill_event_data_days
    if days is not None and not 0 < days <= 36_500:
        raise InvalidError(
            "invalid_options",
            f"backfillEventDataDays {days}: expected 1 to 36500",
            field="options.backfillEventDataDays",
        )
    types = options.filter_by_external_ids
    if types is not None and not types:
        raise InvalidError(
            "invalid_options", "filterByExternalIds: expected at least one id type", field="options.filterByExternalIds"
        )
    return options
