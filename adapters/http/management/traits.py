"""Computed traits: create, list, read, edit, delete. Fields as the public API has them, progress beside them."""

from typing import Annotated, Any
from typing import Literal as OneOf

from litestar import delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from actors.space_api import DefinitionView
from adapters.http.context import ApiRequest, actor_of, audit, space_of, trait_of
from adapters.http.envelopes import SUCCESS, Data, PageQuery, PaginationOutput, Shape, Status, paginate
from adapters.http.management.definitions import (
    DESCRIPTION_CHARS_MAX,
    NAME_CHARS_MAX,
    checked_name,
    checked_text,
    edit_act,
    refuse_locked,
    tree_of,
    whole_days,
)
from eventlog.entries import Options
from eventlog.errors import ConflictError, InvalidError
from eventlog.instants import iso


class TraitDefinition(Shape, frozen=True):
    """The text of a definition; in answers also its syntax tree."""

    query: str
    type: OneOf["USERS", "ACCOUNTS"]
    tree: Any = None


class TraitOptions(Shape, frozen=True):
    """What a computed trait looks at."""

    include_historical_data: bool | None = None
    include_anonymous_users: bool | None = None
    backfill_duration_days: float | None = None


class CreateTrait(Shape, frozen=True):
    """A computed trait to create. `key` is made from the name unless it is given."""

    name: str
    definition: TraitDefinition
    enabled: bool | None = None
    description: str | None = None
    options: TraitOptions | None = None
    key: str | None = None


class EditTrait(Shape, frozen=True):
    """What to change; what is left out stays."""

    enabled: bool | None = None
    name: str | None = None
    description: str | None = None
    definition: TraitDefinition | None = None
    options: TraitOptions | None = None


class TraitOut(Shape, frozen=True):
    """A computed trait; `size` is how many profiles have a value."""

    id: str
    space_id: str
    name: str
    key: str
    enabled: bool
    definition: TraitDefinition
    status: str
    created_by: str
    updated_by: str
    created_at: str
    updated_at: str
    options: TraitOptions
    size: int
    locked: bool
    progress: float
    version: int
    seconds_left: float | None = None
    failure_reason: str | None = None
    description: str | None = None


class OneTrait(Shape, frozen=True):
    """A computed trait."""

    computed_trait: TraitOut


class Traits(Shape, frozen=True):
    """A page of computed traits, in order of creation."""

    computed_traits: list[TraitOut]
    pagination: PaginationOutput


def trait_out(space_id: str, view: DefinitionView) -> TraitOut:
    """Return a computed trait as the API shows it."""
    saved = view.definition
    return TraitOut(
        id=saved.id,
        space_id=space_id,
        name=saved.name,
        key=saved.key,
        enabled=saved.enabled,
        definition=TraitDefinition(
            query=saved.query, type=saved.entity_type, tree=tree_of(saved.query, saved.entity_type, saved.kind)
        ),
        status=view.status,
        created_by=saved.created_by,
        updated_by=saved.updated_by,
        created_at=iso(saved.created_ms),
        updated_at=iso(saved.updated_ms),
        options=TraitOptions(
            include_historical_data=saved.options.include_historical_data,
            include_anonymous_users=saved.options.include_anonymous_users,
            backfill_duration_days=saved.options.backfill_event_data_days,
        ),
        size=view.size,
        locked=view.locked,
        progress=view.progress,
        version=saved.version,
        seconds_left=view.seconds_left,
        failure_reason=view.failure,
        description=saved.description,
    )


def _options_in(given: TraitOptions | None, base: Options) -> Options:
    if given is None:
        return base
    history, anonymous = given.include_historical_data, given.include_anonymous_users
    days = whole_days(given.backfill_duration_days, "options.backfillDurationDays")
    return Options(
        include_historical_data=base.include_historical_data if history is None else history,
        include_anonymous_users=base.include_anonymous_users if anonymous is None else anonymous,
        backfill_event_data_days=base.backfill_event_data_days if days is None else days,
    )


@get("/spaces/{space_id:str}/computed-traits", summary="List computed traits")
async def list_traits(request: ApiRequest, space_id: FromPath[str], page: PageQuery) -> Data[Traits]:
    """List the computed traits of a space, oldest first."""
    space = space_of(request, space_id)
    numbers, pagination = paginate(space.definition_numbers("trait"), int, page, kind="computed-traits")
    shown = space.definitions(numbers=numbers)
    return Data(Traits(computed_traits=[trait_out(space.id, view) for view in shown], pagination=pagination))


@post("/spaces/{space_id:str}/computed-traits", status_code=HTTP_200_OK, summary="Create a computed trait")
async def create_trait(request: ApiRequest, space_id: FromPath[str], data: JSONBody[CreateTrait]) -> Data[OneTrait]:
    """Create a computed trait; its backfill starts at once."""
    space = space_of(request, space_id)
    created = await space.create_definition(
        kind="trait",
        name=checked_name(data.name),
        entity_type=data.definition.type,
        query=data.definition.query,
        key=checked_text(data.key, "key", NAME_CHARS_MAX),
        description=checked_text(data.description, "description", DESCRIPTION_CHARS_MAX, empty=True),
        options=_options_in(data.options, Options()),
        enabled=data.enabled is not False,
        actor=actor_of(request),
    )
    await audit(request, "Computed Trait Created", "computed_trait", created.id, created.name, space_id=space.id)
    return Data(OneTrait(computed_trait=trait_out(space.id, space.definition(created.id))))


@get("/spaces/{space_id:str}/computed-traits/{trait_id:str}", summary="Get a computed trait")
async def get_trait(request: ApiRequest, space_id: FromPath[str], trait_id: FromPath[str]) -> Data[OneTrait]:
    """Return a computed trait by id or key."""
    space = space_of(request, space_id)
    return Data(OneTrait(computed_trait=trait_out(space.id, trait_of(space, trait_id))))


@patch("/spaces/{space_id:str}/computed-traits/{trait_id:str}", summary="Edit a computed trait")
async def edit_trait(
    request: ApiRequest, space_id: FromPath[str], trait_id: FromPath[str], data: JSONBody[EditTrait]
) -> Data[OneTrait]:
    """Change a computed trait. A new definition or new options start a backfill, which locks it until it is done."""
    space = space_of(request, space_id)
    view = trait_of(space, trait_id)
    before = view.definition
    if data.definition is not None and data.definition.type != before.entity_type:
        raise InvalidError(
            "invalid",
            f"definition.type: {data.definition.type}, but the trait is of {before.entity_type} for life",
            field="definition.type",
        )
    options = _options_in(data.options, before.options)
    try:
        saved = await space.edit_definition(
            before.id,
            name=None if data.name is None else checked_name(data.name),
            description=checked_text(data.description, "description", DESCRIPTION_CHARS_MAX, empty=True),
            query=None if data.definition is None else data.definition.query,
            options=None if options == before.options else options,
            enabled=data.enabled,
            actor=actor_of(request),
        )
    except ConflictError as error:
        raise refuse_locked(error, space.definition(before.id)) from error
    act = edit_act("Computed Trait", data.enabled, before)
    await audit(request, act, "computed_trait", saved.id, saved.name, space_id=space.id)
    return Data(OneTrait(computed_trait=trait_out(space.id, space.definition(saved.id))))


@delete("/spaces/{space_id:str}/computed-traits/{trait_id:str}", status_code=HTTP_200_OK, summary="Delete a trait")
async def delete_trait(
    request: ApiRequest,
    space_id: FromPath[str],
    trait_id: FromPath[str],
    send_exits: Annotated[
        bool, QueryParameter(name="sendExits", description="tell destinations that it is gone")
    ] = False,
) -> Data[Status]:
    """Delete a computed trait; its last values stay behind as a custom trait."""
    space = space_of(request, space_id)
    gone = trait_of(space, trait_id).definition
    await space.delete_definition(gone.id, send_exits=send_exits, actor=actor_of(request))
    await audit(request, "Computed Trait Deleted", "computed_trait", gone.id, gone.name, space_id=space.id)
    return SUCCESS


ROUTES = [list_traits, create_trait, get_trait, edit_trait, delete_trait]
