"""Who is in an audience, and why: members, size over time, explain, overlap with another audience."""

from typing import Annotated, Any

from litestar import get
from litestar.params import FromPath, QueryParameter

from actors.space_api import Collection, SpaceApi
from adapters.http.context import ApiRequest, audience_of, definition_of, space_of
from adapters.http.envelopes import (
    Data,
    PageQuery,
    PaginationOutput,
    Shape,
    optional_time_ms,
)
from eventlog.errors import InvalidError, NotFoundError
from eventlog.instants import iso

AtQuery = Annotated[str | None, QueryParameter(name="at", description="what was true at this ISO 8601 time")]
KnownQuery = Annotated[str | None, QueryParameter(name="known", description="by what had been received by this time")]


class Member(Shape, frozen=True):
    """A member: its own id, its name (user_id, group_id, or TYPE:VALUE of its first id) and its external ids."""

    id: str
    name: str
    since: str
    external_ids: dict[str, list[str]]


class Members(Shape, frozen=True):
    """A page of members."""

    members: list[Member]
    at: str
    pagination: PaginationOutput


class Day(Shape, frozen=True):
    """A day's changes and the size at its end."""

    date: str
    entered: int
    exited: int
    size: int


class History(Shape, frozen=True):
    """The size over time, from the changes in the log; days without a change are left out."""

    history: list[Day]


class Explained(Shape, frozen=True):
    """Why a profile is, or is not, a member; for a computed trait what its value rests on."""

    profile: Member
    explanation: dict[str, Any]


class Half(Shape, frozen=True):
    """One of the two audiences compared."""

    id: str
    key: str
    size: int
    only: int


class Overlap(Shape, frozen=True):
    """How many are in both audiences, and in one alone."""

    count: int
    audience: Half
    other: Half


@get("/spaces/{space_id:str}/audiences/{audience_id:str}/members", summary="List members")
async def list_members(
    request: ApiRequest,
    space_id: FromPath[str],
    audience_id: FromPath[str],
    page: PageQuery,
    at: AtQuery = None,
    known: KnownQuery = None,
) -> Data[Members]:
    """List the members, in an order that entries and exits between two pages do not disturb.

    The pages of a question about the past all answer as of the first one.
    """
    space = space_of(request, space_id)
    view = audience_of(space, audience_id)
    after, at_ms, known_ms = 0, optional_time_ms(at, "at"), optional_time_ms(known, "known")
    await space.settle()
    now_ms, _ = space.now()
    if page.cursor is not None:
        after, at_ms, known_ms = page.cursors.decode(page.cursor, "members", tuple[int, int | None, int | None])
    elif at_ms is not None and known_ms is None:
        known_ms = now_ms
    found = await space.members(view.definition.id, after=after, limit=page.count + 1, at_ms=at_ms, known_ms=known_ms)
    shown = found[: page.count]
    more = len(found) > page.count
    total = view.size if at_ms is None and known_ms is None else None
    return Data(
        Members(
            members=[member_of(space, entity, since_ms) for entity, since_ms in shown],
            at=iso(now_ms if at_ms is None else at_ms),
            pagination=PaginationOutput(
                current=page.cursor or page.cursors.encode("members", after, at_ms, known_ms),
                next=page.cursors.encode("members", shown[-1][0], at_ms, known_ms) if more else None,
                total_entries=total,
            ),
        )
    )


def member_of(space: SpaceApi, entity: int, since_ms: int) -> Member:
    """Return an entity as lists of members show it."""
    ids: dict[str, list[str]] = {}
    for row in space.ids_of(entity):
        ids.setdefault(row.id_type, []).append(row.value)
    return Member(id=space.public_id(entity), name=space.name_of(entity), since=iso(since_ms), external_ids=ids)


@get("/spaces/{space_id:str}/audiences/{audience_id:str}/history", summary="Get the size over time")
async def get_history(request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str]) -> Data[History]:
    """Return each day's entries and exits and the size at its end."""
    space = space_of(request, space_id)
    view = audience_of(space, audience_id)
    await space.settle()
    days, size = [], 0
    for day_ms, entered, exited in await space.size_history(view.definition.id):
        size += entered - exited
        days.append(Day(date=iso(day_ms), entered=entered, exited=exited, size=size))
    return Data(History(history=days))


@get(
    [
        "/spaces/{space_id:str}/audiences/{audience_id:str}/explain",
        "/spaces/{space_id:str}/computed-traits/{trait_id:str}/explain",
    ],
    summary="Explain a membership or value",
)
async def explain(
    request: ApiRequest,
    space_id: FromPath[str],
    profile: Annotated[str, QueryParameter(name="profile", description="TYPE:VALUE, such as user_id:u1")],
    at: AtQuery = None,
    known: KnownQuery = None,
) -> Data[Explained]:
    """Return the definition's tree with each part's truth, what it rests on, and when it will change by itself."""
    space = space_of(request, space_id)
    view = definition_of(request, space)
    await space.settle()
    entity = entity_named(space, profile, "accounts" if view.definition.entity_type == "ACCOUNTS" else "users")
    explanation = await space.explain(
        view.definition.id, entity, at_ms=optional_time_ms(at, "at"), known_ms=optional_time_ms(known, "known")
    )
    now_ms, _ = space.now()
    return Data(Explained(profile=member_of(space, entity, now_ms), explanation=explanation))


def entity_named(space: SpaceApi, name: str, collection: Collection) -> int:
    """Return the entity of `TYPE:VALUE`. Raises InvalidError, NotFoundError."""
    id_type, colon, value = name.partition(":")
    if not colon or not id_type or not value:
        raise InvalidError(
            "invalid", f"profile: found {name[:64]!r}, expected TYPE:VALUE such as user_id:u1", field="profile"
        )
    entity = space.find(collection, id_type, value)
    if entity is None:
        raise NotFoundError("not_found", f"no profile {name[:200]!r} in {collection}", field="profile")
    return entity


@get("/spaces/{space_id:str}/audiences/{audience_id:str}/overlap", summary="Compare with another audience")
async def get_overlap(
    request: ApiRequest,
    space_id: FromPath[str],
    audience_id: FromPath[str],
    other_key: Annotated[str, QueryParameter(name="with", description="the key or id of the other audience")],
) -> Data[Overlap]:
    """Return how many are in both audiences, and how many in one alone."""
    space = space_of(request, space_id)
    left, right = audience_of(space, audience_id).definition, audience_of(space, other_key).definition
    if left.entity_type != right.entity_type:
        raise InvalidError(
            "invalid", f"with: {right.key!r} holds {right.entity_type}, {left.key!r} does not", field="with"
        )
    ours, theirs, both = await space.overlap(left.id, right.id)
    return Data(
        Overlap(
            count=both,
            audience=Half(id=left.id, key=left.key, size=ours, only=ours - both),
            other=Half(id=right.id, key=right.key, size=theirs, only=theirs - both),
        )
    )


ROUTES = [list_members, get_history, explain, get_overlap]
