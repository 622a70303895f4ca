"""The Profile API: what is known of one user or account, by any of its external ids.

A profile is named `TYPE:VALUE` with both parts URL-encoded as needed; the value may hold colons and slashes. Reads see
every event acknowledged before them. `at` and `known` read the past: what was true then, by what had been received by
then; ids, events and links are cut the same way, and a profile of which nothing was known yet is not found.
Answers carry no `data` envelope but the Profile API's own; every one has a `Request-Id` header.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar
from typing import Literal as OneOf
from urllib.parse import parse_qsl, quote, unquote, urlencode

from litestar import get
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from actors.space_api import Collection, IdRow, RefusalRow, SpaceApi, TraitRow
from adapters.http.context import ApiRequest, api_of, space_of
from adapters.http.envelopes import parse_time_ms
from eventlog.errors import InvalidError, NotFoundError
from eventlog.instants import iso

PARTS: Final = ("traits", "external_ids", "events", "metadata", "links")
TRAITS_MAX: Final = 200  # contract, section 6
TRAITS_DEFAULT: Final = 10
IDS_MAX: Final = 200
IDS_DEFAULT: Final = 25  # as documented for external_ids
EVENTS_MAX: Final = 200
EVENTS_DEFAULT: Final = 10
LINKS_MAX: Final = 20  # contract, section 6
NAMES_MAX: Final = 1_000  # in include and exclude
REFUSED: Final = {  # why an id did not identify, by its code (contract, section 2)
    "value_blocked": "the value is blocked, too long or no id at all",
    "value_limit_exceeded": "a profile would have had more values of a type than it may",
    "value_time_limit_exceeded": "a profile would have had more values of a type than it may within the period",
    "merge_limit_exceeded": "a profile would have absorbed more profiles than it may, or two accounts merged",
    "id_limit_exceeded": "the profile or the call would have had more ids than it may",
    "no_matching_identifiers": "the call was about no account, so an account's id had nothing to go by",
}

T = TypeVar("T")

AtQuery = Annotated[str | None, QueryParameter(name="at", description="what was true at this ISO 8601 time")]
KnownQuery = Annotated[str | None, QueryParameter(name="known", description="by what had been received by this time")]
LimitQuery = Annotated[str | None, QueryParameter(name="limit", description="how many on a page")]
NextQuery = Annotated[str | None, QueryParameter(name="next", description="`cursor.next` of the page before")]
IncludeQuery = Annotated[str | None, QueryParameter(name="include", description="names wanted, separated by commas")]


class Cursor(Struct, frozen=True):
    """Where a page lies; `url` and `next` lead on while `has_more`."""

    url: str
    has_more: bool
    next: str
    limit: int


class VerboseTrait(Struct, frozen=True):
    """A trait with where it came from."""

    value: Any
    source_id: str
    updated_at: str


class TraitsAnswer(Struct, frozen=True):
    """A page of traits, sorted by key."""

    traits: dict[str, Any]
    cursor: Cursor


class ExternalIdOut(Struct, frozen=True):
    """An external id."""

    source_id: str
    collection: str
    id: str
    type: str
    created_at: str
    encoding: str
    first_message_id: str


class RefusedIdOut(Struct, frozen=True):
    """An external id of an event of the profile that was not used to identify it, and why."""

    id: str
    type: str
    code: str
    reason: str
    refused_at: str | None  # when the event happened; None: it is not kept any more
    first_message_id: str
    source_id: str


class ExternalIdsAnswer(Struct, frozen=True, omit_defaults=True):
    """A page of external ids, in the order they were given; `refused` where `verbose` asks for it."""

    data: list[ExternalIdOut]
    cursor: Cursor
    refused: list[RefusedIdOut] | None = None


class EventOut(Struct, frozen=True, omit_defaults=True):
    """A call, as it came."""

    external_ids: list[dict[str, str]]
    type: str
    message_id: str
    source_id: str
    timestamp: str
    context: dict[str, Any]
    related: dict[str, Any]
    event: str | None = None
    name: str | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None


class EventsAnswer(Struct, frozen=True):
    """A page of events."""

    data: list[EventOut]
    cursor: Cursor


class Metadata(Struct, frozen=True):
    """When and by what the profile was first and last heard of."""

    created_at: str | None
    updated_at: str | None
    expires_at: str | None
    first_message_id: str
    first_source_id: str
    last_message_id: str
    last_source_id: str


class MetadataAnswer(Struct, frozen=True):
    """A profile's metadata."""

    metadata: Metadata


class Link(Struct, frozen=True):
    """A linked profile: an account of the user, or a user of the account."""

    to_collection: str
    external_ids: list[dict[str, str]]


class LinksAnswer(Struct, frozen=True):
    """A page of links."""

    data: list[Link]
    cursor: Cursor


class Asked(Struct, frozen=True):
    """What a request asks about: a profile, and as of when."""

    space: SpaceApi
    entity: int
    ids: Sequence[IdRow]
    at_ms: int | None
    known_ms: int | None
    known_seq: int | None


async def asked(
    request: ApiRequest, space_id: str, collection: str, profile: str, at: str | None, known: str | None
) -> Asked:
    """Find the profile that the path names. Raises NotFoundError when nothing is, or was then, known of it."""
    space = space_of(request, space_id)
    at_ms, known_ms = _time(at, "at"), _time(known, "known")
    id_type, colon, value = unquote(profile).partition(":")
    if not colon or not id_type or not value:
        raise InvalidError(
            "invalid_request_error", f"found {unquote(profile)[:64]!r}, expected TYPE:VALUE such as user_id:u1"
        )
    await space.settle()
    entity = space.find(_collection(collection), id_type, value)
    known_seq = None if known_ms is None else space.known_seq(known_ms)
    ids = [] if entity is None else _ids_as_of(space, entity, at_ms, known_seq)
    if entity is None or not ids:
        raise NotFoundError("not_found", "Profile was not found.")
    return Asked(space, entity, ids, at_ms, known_ms, known_seq)


def _ids_as_of(space: SpaceApi, entity: int, at_ms: int | None, known_seq: int | None) -> list[IdRow]:
    """Return an entity's ids in the order they were given, as they were at and known by then."""
    given = space.ids_of(entity, known_seq=known_seq)
    return sorted((row for row in given if at_ms is None or row.created_ms <= at_ms), key=lambda row: row.seq)


def _collection(name: str) -> Collection:
    if name == "users":
        return "users"
    if name == "accounts":
        return "accounts"
    raise NotFoundError("not_found", f"no collection {name[:64]!r}; there are users and accounts")


def _time(text: str | None, field: str) -> int | None:
    try:
        return None if text is None else parse_time_ms(text, field)
    except InvalidError as error:
        raise InvalidError("validation_error", error.message, field=field) from None


def _limit(text: str | None, default: int, most: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) < 10):
        raise InvalidError("validation_error", f"limit: found {text[:32]!r}, expected 1 to {most}", field="limit")
    return int(text)


def _names(text: str | None, field: str) -> frozenset[str] | None:
    """Return the names of a comma list; None where there is none, or nothing in it."""
    if text is None or not text.strip():
        return None
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    if len(names) > NAMES_MAX:
        raise InvalidError("validation_error", f"{field}: {len(names)} names, at most {NAMES_MAX}", field=field)
    return names


def _cursor(request: ApiRequest, limit: int, following: str | None) -> Cursor:
    """Return the cursor of an answer: the address and the `next` of the page behind it, where there is one."""
    if following is None:
        return Cursor(url="", has_more=False, next="", limit=limit)
    asked_for = request.scope["query_string"].decode("latin-1")
    query = [pair for pair in parse_qsl(asked_for, keep_blank_values=True) if pair[0] != "next"]  # in their order
    path = quote(request.scope["raw_path"].decode("latin-1"), safe="/%:@!$&'()*+,;=~-._")
    return Cursor(url=f"{path}?{urlencode([*query, ('next', following)])}", has_more=True, next=following, limit=limit)


def _from(request: ApiRequest, cursor: str | None, kind: str) -> int:
    """Return the place that a page starts at."""
    if cursor is None or cursor == "":
        return 0
    (start,) = _decoded(request, cursor, kind, tuple[int])
    return start


def _decoded(request: ApiRequest, cursor: str, kind: str, shape: type[T]) -> T:
    try:
        return api_of(request).cursors.decode(cursor, kind, shape)
    except InvalidError:
        message = "next is not a cursor of this list; leave it out for the first page, then send `cursor.next`"
        raise InvalidError("validation_error", message, field="next") from None


@get("/v1/spaces/{space_id:str}/collections/{collection:str}/profiles/{profile:str}/traits", summary="Get traits")
async def get_traits(
    request: ApiRequest,
    space_id: FromPath[str],
    collection: FromPath[str],
    profile: FromPath[str],
    limit: LimitQuery = None,
    include: IncludeQuery = None,
    trait_class: Annotated[
        str | None, QueryParameter(name="class", description="`audience`, `computed_trait` or `custom`")
    ] = None,
    verbose: Annotated[str | None, QueryParameter(name="verbose", description="true: with source and time")] = None,
    following: NextQuery = None,
    at: AtQuery = None,
    known: KnownQuery = None,
) -> TraitsAnswer:
    """Return custom traits, computed traits and audiences, sorted by key; `cursor.next` is the next one's key."""
    most, names = _limit(limit, TRAITS_DEFAULT, TRAITS_MAX), _names(include, "include")
    if trait_class not in (None, "", "audience", "computed_trait", "custom"):
        raise InvalidError(
            "validation_error",
            f"class: found {trait_class[:64]!r}, expected audience, computed_trait or custom",
            field="class",
        )
    is_verbose = _flag(verbose, "verbose")
    about = await asked(request, space_id, collection, profile, at, known)
    rows = await about.space.traits_of(about.entity, at_ms=about.at_ms, known_ms=about.known_ms)
    wanted = [
        row
        for row in rows
        if (names is None or row.key in names)
        and (not trait_class or row.kind == trait_class)
        and (not following or row.key >= following)
    ]
    shown = wanted[:most]
    after = wanted[most].key if len(wanted) > most else None
    return TraitsAnswer({row.key: _trait(row, is_verbose) for row in shown}, _cursor(request, most, after))


def _trait(row: TraitRow, verbose: bool) -> Any:
    return VerboseTrait(row.value, row.source, iso(row.updated_ms)) if verbose else row.value


def _flag(text: str | None, field: str) -> bool:
    if text is None or text.lower() in ("false", "0", ""):
        return False
    if text.lower() in ("true", "1"):
        return True
    raise InvalidError("validation_error", f"{field}: found {text[:32]!r}, expected true or false", field=field)


@get(
    "/v1/spaces/{space_id:str}/collections/{collection:str}/profiles/{profile:str}/external_ids",
    summary="Get external ids",
)
async def get_external_ids(
    request: ApiRequest,
    space_id: FromPath[str],
    collection: FromPath[str],
    profile: FromPath[str],
    limit: LimitQuery = None,
    include: IncludeQuery = None,
    verbose: Annotated[str | None, QueryParameter(name="verbose", description="true: with refused ids")] = None,
    following: NextQuery = None,
    at: AtQuery = None,
    known: KnownQuery = None,
) -> ExternalIdsAnswer:
    """Return the external ids in the order they were given; `include` names the types wanted.

    With `verbose=true` also those that were refused or demoted, the newest 50, each with the rule that was broken.
    """
    most, types = _limit(limit, IDS_DEFAULT, IDS_MAX), _names(include, "include")
    start = _from(request, following, "ids")
    is_verbose = _flag(verbose, "verbose")
    about = await asked(request, space_id, collection, profile, at, known)
    wanted = [row for row in about.ids if (types is None or row.id_type in types) and row.seq >= start]
    shown, after = _cut(wanted, most, lambda row: row.seq)
    events = {row["seq"]: row for row in await about.space.events_of(about.entity)}
    refused = [
        _refused(row, events.get(row.seq, {}))
        for row in (about.space.refusals_of(about.entity, known_seq=about.known_seq) if is_verbose else ())
        if (types is None or row.id_type in types) and _is_past(events.get(row.seq, {}), about.at_ms)
    ]
    return ExternalIdsAnswer(
        [
            ExternalIdOut(
                source_id=row.source,
                collection=row.collection,
                id=row.value,
                type=row.id_type,
                created_at=iso(row.created_ms),
                encoding=row.encoding,
                first_message_id=events.get(row.seq, {}).get("message_id", ""),
            )
            for row in shown
        ],
        _cursor(request, most, None if after is None else api_of(request).cursors.encode("ids", after)),
        refused if is_verbose else None,
    )


def _is_past(event: dict[str, Any], at_ms: int | None) -> bool:
    """Tell whether an event had happened; one that is not kept any more is as old as can be."""
    return at_ms is None or event.get("event_ms", at_ms) <= at_ms


def _refused(row: RefusalRow, event: dict[str, Any]) -> RefusedIdOut:
    return RefusedIdOut(
        id=row.value,
        type=row.id_type,
        code=row.code,
        reason=REFUSED[row.code],
        refused_at=iso(event["event_ms"]) if event else None,
        first_message_id=event.get("message_id", ""),
        source_id=event.get("source", ""),
    )


def _cut(rows: Sequence[T], most: int, place: Callable[[T], int]) -> tuple[Sequence[T], int | None]:
    """Return the first rows and where the next page starts; rows that share a place stay together."""
    stop = most
    while stop < len(rows) and place(rows[stop]) == place(rows[stop - 1]):
        stop += 1
    return rows[:stop], place(rows[stop]) if stop < len(rows) else None


@get("/v1/spaces/{space_id:str}/collections/{collection:str}/profiles/{profile:str}/events", summary="Get events")
async def get_events(
    request: ApiRequest,
    space_id: FromPath[str],
    collection: FromPath[str],
    profile: FromPath[str],
    limit: LimitQuery = None,
    include: IncludeQuery = None,
    exclude: Annotated[str | None, QueryParameter(name="exclude", description="event names not wanted")] = None,
    start: Annotated[str | None, QueryParameter(name="start", description="events at or after it")] = None,
    end: Annotated[str | None, QueryParameter(name="end", description="events at or before it")] = None,
    sort: Annotated[str | None, QueryParameter(name="sort", description="`desc` (default) or `asc`")] = None,
    following: NextQuery = None,
    at: AtQuery = None,
    known: KnownQuery = None,
) -> EventsAnswer:
    """Return events by their timestamps, the newest first unless `sort=asc`."""
    most, wanted, unwanted = (
        _limit(limit, EVENTS_DEFAULT, EVENTS_MAX),
        _names(include, "include"),
        _names(exclude, "exclude"),
    )
    start_ms, end_ms = _time(start, "start"), _time(end, "end")
    ascending = _ascending(sort)
    after = _events_after(request, following)
    about = await asked(request, space_id, collection, profile, at, known)
    rows = await _events(about)
    if not ascending:
        rows = rows[::-1]
    found = []
    for row in rows:
        place = (row["event_ms"], row["seq"])
        name = row.get("event") or row.get("name") or ""
        if (
            (start_ms is None or place[0] >= start_ms)
            and (end_ms is None or place[0] <= end_ms)
            and (wanted is None or name in wanted)
            and (unwanted is None or name not in unwanted)
            and (after is None or (place > after if ascending else place < after))
        ):
            found.append(row)
            if len(found) > most:
                break
    shown = found[:most]
    more = len(found) > most
    place_of_last = api_of(request).cursors.encode("events", shown[-1]["event_ms"], shown[-1]["seq"]) if more else None
    ids = _id_pairs(about.ids)
    return EventsAnswer([_event(row, ids) for row in shown], _cursor(request, most, place_of_last))


def _ascending(sort: str | None) -> bool:
    if sort is None or sort.lower() in ("desc", "descending", ""):
        return False
    if sort.lower() in ("asc", "ascending"):
        return True
    raise InvalidError("validation_error", f"sort: found {sort[:32]!r}, expected asc or desc", field="sort")


def _events_after(request: ApiRequest, cursor: str | None) -> tuple[int, int] | None:
    return _decoded(request, cursor, "events", tuple[int, int]) if cursor else None


async def _events(about: Asked) -> list[dict[str, Any]]:
    rows = await about.space.events_of(about.entity)
    return [
        row
        for row in rows
        if (about.at_ms is None or row["event_ms"] <= about.at_ms)
        and (about.known_seq is None or row["seq"] <= about.known_seq)
    ]


def _event(row: dict[str, Any], ids: list[dict[str, str]]) -> EventOut:
    context = row.get("context")
    return EventOut(
        external_ids=ids,
        type=str(row.get("type", "")),
        message_id=row["message_id"],
        source_id=row["source"],
        timestamp=iso(row["event_ms"]),
        context=context if isinstance(context, dict) else {},
        related={},
        event=row.get("event"),
        name=row.get("name"),
        properties=row.get("properties"),
        traits=row.get("traits"),
    )


def _id_pairs(ids: Sequence[IdRow]) -> list[dict[str, str]]:
    return [
        {"collection": row.collection, "type": row.id_type, "id": row.value, "encoding": row.encoding} for row in ids
    ]


@get("/v1/spaces/{space_id:str}/collections/{collection:str}/profiles/{profile:str}/metadata", summary="Get metadata")
async def get_metadata(
    request: ApiRequest,
    space_id: FromPath[str],
    collection: FromPath[str],
    profile: FromPath[str],
    at: AtQuery = None,
    known: KnownQuery = None,
) -> MetadataAnswer:
    """Return when and by what the profile was first and last heard of."""
    about = await asked(request, space_id, collection, profile, at, known)
    rows = sorted(await _events(about), key=lambda row: row["seq"])
    first, last = (rows[0], rows[-1]) if rows else ({}, {})
    created_ms = min(row.created_ms for row in about.ids)
    return MetadataAnswer(
        Metadata(
            created_at=iso(created_ms),
            updated_at=iso(last["event_ms"] if last else created_ms),
            expires_at=None,
            first_message_id=first.get("message_id", ""),
            first_source_id=first.get("source", ""),
            last_message_id=last.get("message_id", ""),
            last_source_id=last.get("source", ""),
        )
    )


@get("/v1/spaces/{space_id:str}/collections/{collection:str}/profiles/{profile:str}/links", summary="Get links")
async def get_links(
    request: ApiRequest,
    space_id: FromPath[str],
    collection: FromPath[str],
    profile: FromPath[str],
    limit: LimitQuery = None,
    following: NextQuery = None,
    at: AtQuery = None,
    known: KnownQuery = None,
) -> LinksAnswer:
    """Return the accounts of a user, or the users of an account."""
    most, start = _limit(limit, LINKS_MAX, LINKS_MAX), _from(request, following, "links")
    about = await asked(request, space_id, collection, profile, at, known)
    to_users = collection == "accounts"
    ask = about.space.users_of if to_users else about.space.accounts_of
    found = await ask(about.entity, at_ms=about.at_ms, known_ms=about.known_ms)
    linked = sorted(entity for entity in found if entity >= start)
    shown, after = _cut(linked, most, lambda entity: entity)
    to: OneOf["users", "accounts"] = "users" if to_users else "accounts"
    return LinksAnswer(
        [Link(to, _id_pairs(_ids_as_of(about.space, entity, about.at_ms, about.known_seq))) for entity in shown],
        _cursor(request, most, None if after is None else api_of(request).cursors.encode("links", after)),
    )


ROUTES = [get_traits, get_external_ids, get_events, get_metadata, get_links]
