"""Spaces and their settings: identity rules, how long message ids are remembered, how long events are kept."""

from typing import Annotated, Any

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from adapters.http.context import ApiRequest, actor_of, api_of, audit, reaches, space_of
from adapters.http.envelopes import Data, PageQuery, PaginationOutput, Shape, paginate
from adapters.http.management.definitions import checked_name
from eventlog.entries import SpaceRecord
from eventlog.instants import iso


class CreateSpace(Shape, frozen=True):
    """A space to create; the slug is made from the name unless it is given."""

    name: str
    slug: str | None = None


class SpaceOut(Shape, frozen=True):
    """A space."""

    id: str
    slug: str
    name: str
    created_at: str


class OneSpace(Shape, frozen=True):
    """A space."""

    space: SpaceOut


class Spaces(Shape, frozen=True):
    """A page of spaces."""

    spaces: list[SpaceOut]
    pagination: PaginationOutput


class Settings(Shape, frozen=True):
    """A space's settings in full, and what living definitions need that they do not keep."""

    settings: dict[str, Any]
    warnings: tuple[str, ...] = ()


def _space_out(record: SpaceRecord) -> SpaceOut:
    return SpaceOut(id=record.id, slug=record.slug, name=record.name, created_at=iso(record.created_ms))


@get("/spaces", summary="List spaces")
async def list_spaces(request: ApiRequest, page: PageQuery) -> Data[Spaces]:
    """List the spaces that the token is let into."""
    records = [record for record in api_of(request).daemon.control.spaces() if reaches(request, record.id)]
    shown, pagination = paginate(records, lambda record: f"{record.created_ms:015d}{record.id}", page, kind="spaces")
    return Data(Spaces(spaces=[_space_out(record) for record in shown], pagination=pagination))


@post("/spaces", status_code=HTTP_200_OK, summary="Create a space")
async def create_space(request: ApiRequest, data: JSONBody[CreateSpace]) -> Data[OneSpace]:
    """Create a space, with a log of its own. Takes an admin token of no single space."""
    record = await api_of(request).daemon.create_space(checked_name(data.name), slug=data.slug, actor=actor_of(request))
    return Data(OneSpace(space=_space_out(record)))


@get("/spaces/{space_id:str}", summary="Get a space")
async def get_space(request: ApiRequest, space_id: FromPath[str]) -> Data[OneSpace]:
    """Return a space by id or slug."""
    return Data(OneSpace(space=_space_out(api_of(request).daemon.control.space(space_id))))


@get("/spaces/{space_id:str}/settings", summary="Get a space's settings")
async def get_settings(request: ApiRequest, space_id: FromPath[str]) -> Data[Settings]:
    """Return the identity rules and the other settings."""
    space = space_of(request, space_id)
    return Data(Settings(settings=space.settings.to_json(), warnings=tuple(space.beyond_retention())))


@patch("/spaces/{space_id:str}/settings", summary="Change a space's settings")
async def change_settings(
    request: ApiRequest,
    space_id: FromPath[str],
    data: JSONBody[dict[str, Any]],
    force: Annotated[bool, QueryParameter(description="keep events for less than living definitions need")] = False,
) -> Data[Settings]:
    """Change the settings that are given; they count for events from now on."""
    space = space_of(request, space_id)
    changed = await space.change_settings(data, actor=actor_of(request), force=force)
    name = api_of(request).daemon.control.space(space.id).name
    await audit(request, "Space Settings Modified", "space", space.id, name, space_id=space.id)
    return Data(Settings(settings=changed.to_json(), warnings=tuple(space.beyond_retention())))


ROUTES = [list_spaces, create_space, get_space, get_settings, change_settings]
