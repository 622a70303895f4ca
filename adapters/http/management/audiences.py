"""Audiences: create, list, read, edit, delete, run, and who refers to them. Fields as the public API has them.

Everything is in real time, so `computeCadence` is always REALTIME and there are no schedules. Beside the public API's
fields an audience tells `locked`, `progress`, `secondsLeft`, `failureReason` and, with its definition, the tree.
"""

from typing import Annotated, Any
from typing import Literal as OneOf

from litestar import delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from actors.space_api import DefinitionView
from adapters.http.context import ApiRequest, actor_of, audience_of, audit, definition_of, space_of
from adapters.http.envelopes import SUCCESS, Data, DetailedError, PageQuery, PaginationOutput, Shape, Status, paginate
from adapters.http.management.definitions import (
    DESCRIPTION_CHARS_MAX,
    NAME_CHARS_MAX,
    checked_id_types,
    checked_name,
    checked_text,
    edit_act,
    id_types,
    refuse_locked,
    tree_of,
    whole_days,
)
from eventlog.entries import Options
from eventlog.errors import ConflictError
from eventlog.instants import iso

AudienceType = OneOf["USERS", "ACCOUNTS", "LINKED"]


class AudienceDefinition(Shape, frozen=True):
    """The text of a definition; in answers also its syntax tree."""

    query: str
    target_entity: str | None = None
    tree: Any = None


class AudienceOptions(Shape, frozen=True):
    """What an audience looks at."""

    include_historical_data: bool | None = None
    filter_by_external_ids: list[str] | None = None
    backfill_event_data_days: float | None = None


class CreateAudience(Shape, frozen=True):
    """An audience to create. `key` is made from the name unless it is given."""

    name: str
    definition: AudienceDefinition
    audience_type: AudienceType
    enabled: bool | None = None
    description: str | None = None
    options: AudienceOptions | None = None
    key: str | None = None


class EditAudience(Shape, frozen=True):
    """What to change; what is left out stays."""

    enabled: bool | None = None
    name: str | None = None
    description: str | None = None
    definition: AudienceDefinition | None = None
    options: AudienceOptions | None = None


class AudienceSize(Shape, frozen=True):
    """How many are members."""

    count: int
    type: OneOf["USERS", "ACCOUNTS"]


class ComputeCadence(Shape, frozen=True):
    """When membership is worked out: always at once."""

    type: OneOf["REALTIME"]


class AudienceOut(Shape, frozen=True):
    """An audience."""

    id: str
    space_id: str
    name: str
    key: str
    enabled: bool
    definition: AudienceDefinition
    status: str
    created_by: str
    updated_by: str
    created_at: str
    updated_at: str
    audience_type: OneOf["USERS", "ACCOUNTS"]
    options: AudienceOptions
    compute_cadence: ComputeCadence
    size: AudienceSize
    locked: bool
    progress: float
    version: int
    seconds_left: float | None = None
    failure_reason: str | None = None
    description: str | None = None


class OneAudience(Shape, frozen=True):
    """An audience."""

    audience: AudienceOut


class Audiences(Shape, frozen=True):
    """A page of audiences, in order of creation."""

    audiences: list[AudienceOut]
    pagination: PaginationOutput


class Run(Shape, frozen=True):
    """A run's id."""

    id: str


class OneRun(Shape, frozen=True):
    """A run, done by the time it is answered: an audience is always up to date."""

    run: Run


def audience_out(space_id: str, view: DefinitionView) -> AudienceOut:
    """Return an audience as the API shows it."""
    saved = view.definition
    return AudienceOut(
        id=saved.id,
        space_id=space_id,
        name=saved.name,
        key=saved.key,
        enabled=saved.enabled,
        definition=AudienceDefinition(query=saved.query, tree=tree_of(saved.query, saved.entity_type, saved.kind)),
        status=view.status,
        created_by=saved.created_by,
        updated_by=saved.updated_by,
        created_at=iso(saved.created_ms),
        updated_at=iso(saved.updated_ms),
        audience_type=saved.entity_type,
        options=options_out(saved.options),
        compute_cadence=ComputeCadence(type="REALTIME"),
        size=AudienceSize(count=view.size, type=saved.entity_type),
        locked=view.locked,
        progress=view.progress,
        version=saved.version,
        seconds_left=view.seconds_left,
        failure_reason=view.failure,
        description=saved.description,
    )


def options_out(options: Options) -> AudienceOptions:
    """Return an audience's options, the default ids spelled out."""
    return AudienceOptions(
        include_historical_data=options.include_historical_data,
        filter_by_external_ids=list(id_types(options)),
        backfill_event_data_days=options.backfill_event_data_days,
    )


def options_in(given: AudienceOptions | None, base: Options) -> Options:
    """Return the options asked for; what is left out stays as in `base`."""
    if given is None:
        return base
    return Options(
        include_historical_data=base.include_historical_data
        if given.include_historical_data is None
        else given.include_historical_data,
        filter_by_external_ids=base.filter_by_external_ids
        if given.filter_by_external_ids is None
        else checked_id_types(given.filter_by_external_ids),
        backfill_event_data_days=base.backfill_event_data_days
        if given.backfill_event_data_days is None
        else whole_days(given.backfill_event_data_days, "options.backfillEventDataDays"),
    )


def refuse_linked(audience_type: str, target_entity: str | None) -> OneOf["USERS", "ACCOUNTS"]:
    """Return the type of an audience that Turnout keeps. Raises DetailedError (404) for linked ones."""
    if audience_type == "LINKED" or target_entity:
        raise DetailedError(
            404,
            "not_served",
            "linked audiences are not served: they need entities of a data warehouse; "
            "Turnout keeps audiences of USERS and ACCOUNTS",
            field="audienceType" if audience_type == "LINKED" else "definition.targetEntity",
        )
    return "ACCOUNTS" if audience_type == "ACCOUNTS" else "USERS"


@get("/spaces/{space_id:str}/audiences", summary="List audiences")
async def list_audiences(request: ApiRequest, space_id: FromPath[str], page: PageQuery) -> Data[Audiences]:
    """List the audiences of a space, oldest first."""
    space = space_of(request, space_id)
    numbers, pagination = paginate(space.definition_numbers("audience"), int, page, kind="audiences")
    shown = space.definitions(numbers=numbers)
    return Data(Audiences(audiences=[audience_out(space.id, view) for view in shown], pagination=pagination))


@post("/spaces/{space_id:str}/audiences", status_code=HTTP_200_OK, summary="Create an audience")
async def create_audience(
    request: ApiRequest, space_id: FromPath[str], data: JSONBody[CreateAudience]
) -> Data[OneAudience]:
    """Create an audience; its backfill starts at once."""
    space = space_of(request, space_id)
    entity_type = refuse_linked(data.audience_type, data.definition.target_entity)
    created = await space.create_definition(
        kind="audience",
        name=checked_name(data.name),
        entity_type=entity_type,
        query=data.definition.query,
        key=checked_text(data.key, "key", NAME_CHARS_MAX),
        description=checked_text(data.description, "description", DESCRIPTION_CHARS_MAX, empty=True),
        options=options_in(data.options, Options()),
        enabled=data.enabled is not False,
        actor=actor_of(request),
    )
    await audit(request, "Audience Created", "audience", created.id, created.name, space_id=space.id)
    return Data(OneAudience(audience=audience_out(space.id, space.definition(created.id))))


@get("/spaces/{space_id:str}/audiences/{audience_id:str}", summary="Get an audience")
async def get_audience(request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str]) -> Data[OneAudience]:
    """Return an audience by id or key."""
    space = space_of(request, space_id)
    return Data(OneAudience(audience=audience_out(space.id, audience_of(space, audience_id))))


@patch("/spaces/{space_id:str}/audiences/{audience_id:str}", summary="Edit an audience")
async def edit_audience(
    request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str], data: JSONBody[EditAudience]
) -> Data[OneAudience]:
    """Change an audience. A new definition or new options start a backfill, which locks it until it is done."""
    space = space_of(request, space_id)
    view = audience_of(space, audience_id)
    options = options_in(data.options, view.definition.options)
    if data.definition is not None:
        refuse_linked("", data.definition.target_entity)
    try:
        saved = await space.edit_definition(
            view.definition.id,
            name=None if data.name is None else checked_name(data.name),
            description=checked_text(data.description, "description", DESCRIPTION_CHARS_MAX, empty=True),
            query=None if data.definition is None else data.definition.query,
            options=None if options == view.definition.options else options,
            enabled=data.enabled,
            actor=actor_of(request),
        )
    except ConflictError as error:
        raise refuse_locked(error, space.definition(view.definition.id)) from error
    act = edit_act("Audience", data.enabled, view.definition)
    await audit(request, act, "audience", saved.id, saved.name, space_id=space.id)
    return Data(OneAudience(audience=audience_out(space.id, space.definition(saved.id))))


@delete("/spaces/{space_id:str}/audiences/{audience_id:str}", status_code=HTTP_200_OK, summary="Delete an audience")
async def delete_audience(
    request: ApiRequest,
    space_id: FromPath[str],
    audience_id: FromPath[str],
    send_exits: Annotated[
        bool, QueryParameter(name="sendExits", description="tell destinations that all left")
    ] = False,
) -> Data[Status]:
    """Delete an audience; its last values stay behind as a custom trait."""
    space = space_of(request, space_id)
    view = audience_of(space, audience_id)
    await space.delete_definition(view.definition.id, send_exits=send_exits, actor=actor_of(request))
    await audit(request, "Audience Deleted", "audience", view.definition.id, view.definition.name, space_id=space.id)
    return SUCCESS


@post("/spaces/{space_id:str}/audiences/{audience_id:str}/runs", status_code=HTTP_200_OK, summary="Run an audience")
async def run_audience(request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str]) -> Data[OneRun]:
    """Bring an audience up to now: answered once every event taken so far has been counted."""
    space = space_of(request, space_id)
    view = audience_of(space, audience_id)
    await space.settle()
    _, known_seq = space.now()
    return Data(OneRun(run=Run(id=f"run_{view.definition.number}_{known_seq}")))


class References(Shape, frozen=True):
    """The audiences, and beside them the computed traits, that refer to a definition."""

    audiences: list[AudienceOut]
    computed_trait_keys: list[str]
    pagination: PaginationOutput


@get(
    [
        "/spaces/{space_id:str}/audiences/{audience_id:str}/audience-references",
        "/spaces/{space_id:str}/computed-traits/{trait_id:str}/audience-references",
    ],
    summary="List what refers to an audience or computed trait",
)
async def list_references(
    request: ApiRequest,
    space_id: FromPath[str],
    page: PageQuery,
) -> Data[References]:
    """List the audiences whose definitions refer to this one."""
    space = space_of(request, space_id)
    view = definition_of(request, space)
    found = space.references(view.definition.id)
    shown, pagination = paginate(
        [other for other in found if other.kind == "audience"], lambda other: other.number, page, kind="references"
    )
    return Data(
        References(
            audiences=[audience_out(space.id, space.definition(other.id)) for other in shown],
            computed_trait_keys=[other.key for other in found if other.kind == "trait"],
            pagination=pagination,
        )
    )


ROUTES = [
    list_audiences,
    create_audience,
    get_audience,
    edit_audience,
    delete_audience,
    run_audience,
    list_references,
]
