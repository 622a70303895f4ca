"""Destinations: their types, their configurations, and the audiences and computed traits connected to them.

Secrets in settings are shown as `********`; sent back so, they stay. Removing a connection forgets its settings,
`PATCH` with `enabled` false pauses it and keeps them. An activation is the public API's word for what a connection
sends: it is kept with the connection, switches it on or off, and can ask for a full resync.
"""

from collections.abc import Iterator
from typing import Any, Final
from typing import Literal as OneOf

from litestar import delete, get, patch, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK
from msgspec import UNSET, to_builtins

from actors.delivery import Connection, Destination, IdSync
from actors.destinations_state import Destinations, DestinationType
from actors.space_api import SpaceApi
from adapters.http.context import ApiRequest, api_of, audit, caller_of, definition_of, reaches, space_of
from adapters.http.envelopes import SUCCESS, Data, DetailedError, PageQuery, PaginationOutput, Shape, Status, paginate
from adapters.http.management.definitions import entity_type_of
from adapters.http.management.destination_metadata import DestinationMetadata, metadata_of
from adapters.http.management.sources import WORKSPACE_ID
from eventlog.errors import ForbiddenError, InvalidError, NotFoundError
from eventlog.instants import iso

_AUDIENCE: Final = "/spaces/{space_id:str}/audiences/{audience_id:str}"
_TRAIT: Final = "/spaces/{space_id:str}/computed-traits/{trait_id:str}"
ACTIVATIONS: Final = "activations"  # in a connection's settings; kept apart from what clients see there


class CreateDestination(Shape, frozen=True):
    """A destination to create; `metadataId` is its type. It belongs to the space of the source."""

    source_id: str
    metadata_id: str
    settings: dict[str, Any]
    enabled: bool | None = None
    name: str | None = None


class EditDestination(Shape, frozen=True):
    """What to change; settings are replaced whole."""

    enabled: bool | None = None
    name: str | None = None
    settings: dict[str, Any] | None = None


class CopyDestination(Shape, frozen=True):
    """How the copy differs: its name, and its source, of the same space."""

    name: str | None = None
    source_id: str | None = None
    enabled: bool | None = None


class DestinationOut(Shape, frozen=True):
    """A destination."""

    id: str
    name: str
    enabled: bool
    metadata: DestinationMetadata
    source_id: str
    space_id: str
    settings: dict[str, Any]
    created_at: str
    updated_at: str


class OneDestination(Shape, frozen=True):
    """A destination."""

    destination: DestinationOut


class DestinationList(Shape, frozen=True):
    """A page of destinations."""

    destinations: list[DestinationOut]
    pagination: PaginationOutput


class Supported(Shape, frozen=True):
    """Destination types by name, each with the schema of its settings."""

    destinations: dict[str, Any]
    pagination: PaginationOutput


class IdSyncConfiguration(Shape, frozen=True):
    """Which values of an external id type are sent, and under which name."""

    external_id: str
    strategy: OneOf["first", "last", "all"] = "last"
    map_to: str | None = None


class IdSyncOut(Shape, frozen=True):
    """Which values of an external id type are sent, and under which name; all of it told, the default too."""

    external_id: str
    strategy: OneOf["first", "last", "all"]
    map_to: str | None = None


class DestinationInput(Shape, frozen=True):
    """The destination to connect."""

    id: str
    type: str = ""


class Connect(Shape, frozen=True):
    """A connection to make, or one that is paused to resume."""

    destination: DestinationInput
    id_sync_configuration: list[IdSyncConfiguration] | None = None
    connection_settings: dict[str, Any] | None = None


class EditConnection(Shape, frozen=True):
    """What to change; `enabled` false pauses it, `resync` sends all again. It counts for what is sent from now on."""

    id_sync_configuration: list[IdSyncConfiguration] | None = None
    connection_settings: dict[str, Any] | None = None
    enabled: bool | None = None
    resync: bool = False


class Id(Shape, frozen=True):
    """An id."""

    id: str


class Connected(Shape, frozen=True):
    """A connection that was made."""

    connection: Id
    id_sync_configuration: list[IdSyncOut]
    connection_settings: dict[str, Any]


class ConnectionEdited(Shape, frozen=True):
    """A connection that was changed."""

    destination: Id
    id_sync_configuration: list[IdSyncOut]
    connection_settings: dict[str, Any]


class MetadataBrief(Shape, frozen=True):
    """A destination's type."""

    id: str
    name: str
    slug: str


class SimpleDestination(Shape, frozen=True):
    """A connection with its destination."""

    id: str
    name: str
    source_id: str
    enabled: bool
    created_at: str
    updated_at: str
    settings: dict[str, Any]
    destination_id: str
    metadata: MetadataBrief
    id_sync_configuration: list[IdSyncOut]
    connection_settings: dict[str, Any]


class Connections(Shape, frozen=True):
    """A page of connections."""

    connections: list[SimpleDestination]
    pagination: PaginationOutput


class CreateActivation(Shape, frozen=True):
    """What a connection should send."""

    activation_type: str
    activation_name: str
    perform_resync: bool = False
    enabled: bool | None = None
    display_name: str | None = None
    personalization: dict[str, Any] | None = None
    destination_mapping: dict[str, Any] | None = None


class ActivationOut(Shape, frozen=True):
    """What a connection sends."""

    id: str
    enabled: bool
    workspace_id: str
    space_id: str
    audience_id: str
    connection_id: str
    activation_type: str
    activation_name: str
    personalization: dict[str, Any]
    perform_resync: bool
    display_name: str | None = None
    destination_mapping: dict[str, Any] | None = None


class OneActivation(Shape, frozen=True):
    """An activation."""

    activation: ActivationOut


class Activations(Shape, frozen=True):
    """A page of activations."""

    status: OneOf["SUCCESS"]
    activations: list[ActivationOut]
    pagination: PaginationOutput


# -- destinations ----------------------------------------------------------------------------------------------------


def _reached(request: ApiRequest) -> Iterator[tuple[SpaceApi, Destinations]]:
    """Yield the spaces that the token is let into, with their destinations."""
    daemon = api_of(request).daemon
    for record in daemon.control.spaces():
        if reaches(request, record.id):
            yield daemon.space(record.id), daemon.deliveries(record.id).destinations


def _located(request: ApiRequest, destination_id: str) -> tuple[SpaceApi, Destinations, Destination]:
    """Return a destination with its space. Raises NotFoundError."""
    for space, held in _reached(request):
        for one in held.destinations():
            if one.id == destination_id:
                return space, held, one
    raise NotFoundError("not_found", f"there is no destination {destination_id[:64]!r}", field="destinationId")


def _destination_out(space: SpaceApi, held: Destinations, one: Destination) -> DestinationOut:
    return DestinationOut(
        id=one.id,
        name=one.name,
        enabled=one.enabled,
        metadata=metadata_of(_type_of(held, one.type)),
        source_id=one.source_id,
        space_id=space.id,
        settings=held.shown(one),
        created_at=iso(one.created_ms),
        updated_at=iso(one.updated_ms),
    )


def _type_of(held: Destinations, name: str) -> DestinationType:
    held.adapter(name)
    return next(kind for kind in held.types() if kind.type == name)


@get("/destinations", summary="List destinations")
async def list_destinations(request: ApiRequest, page: PageQuery) -> Data[DestinationList]:
    """List the destinations of the spaces that the token is let into."""
    found = [_destination_out(space, held, one) for space, held in _reached(request) for one in held.destinations()]
    shown, pagination = paginate(found, lambda one: one.created_at + one.id, page, kind="destinations")
    return Data(DestinationList(destinations=shown, pagination=pagination))


@post("/destinations", status_code=HTTP_200_OK, summary="Create a destination")
async def create_destination(request: ApiRequest, data: JSONBody[CreateDestination]) -> Data[OneDestination]:
    """Create a destination in the space of the source."""
    daemon = api_of(request).daemon
    source = daemon.control.source(data.source_id)
    if not reaches(request, source.space_id):
        raise ForbiddenError("forbidden", f"the token is for the space {caller_of(request).space_id} alone")
    space, held = daemon.space(source.space_id), daemon.deliveries(source.space_id).destinations
    one = await held.create_destination(
        type=data.metadata_id,
        name=data.name or "",
        source_id=source.id,
        settings=data.settings,
        enabled=data.enabled is not False,
    )
    await audit(request, "Destination Created", "destination", one.id, one.name, space_id=space.id)
    return Data(OneDestination(destination=_destination_out(space, held, one)))


@post("/destinations/{destination_id:str}/copies", status_code=HTTP_200_OK, summary="Copy a destination")
async def copy_destination(
    request: ApiRequest, destination_id: FromPath[str], data: JSONBody[CopyDestination]
) -> Data[OneDestination]:
    """Import a destination's configuration, its secrets too, into a new one that nothing is connected to."""
    daemon = api_of(request).daemon
    space, held, one = _located(request, destination_id)
    if data.source_id is not None and daemon.control.source(data.source_id).space_id != space.id:
        raise InvalidError("invalid_source", f"the source is not of the space {space.id}", field="sourceId")
    made = await held.copy_destination(
        one.id, name=data.name, source_id=data.source_id, enabled=data.enabled is not False
    )
    await audit(request, "Destination Copied", "destination", made.id, made.name, space_id=space.id)
    return Data(OneDestination(destination=_destination_out(space, held, made)))


@get("/destinations/{destination_id:str}", summary="Get a destination")
async def get_destination(request: ApiRequest, destination_id: FromPath[str]) -> Data[OneDestination]:
    """Return a destination, its secrets masked."""
    return Data(OneDestination(destination=_destination_out(*_located(request, destination_id))))


@patch("/destinations/{destination_id:str}", summary="Edit a destination")
async def edit_destination(
    request: ApiRequest, destination_id: FromPath[str], data: JSONBody[EditDestination]
) -> Data[OneDestination]:
    """Change a destination; a masked secret stays as it was. While it is off nothing is sent."""
    space, held, one = _located(request, destination_id)
    changed = await held.update_destination(one.id, name=data.name, settings=data.settings, enabled=data.enabled)
    await audit(request, "Destination Modified", "destination", changed.id, changed.name, space_id=space.id)
    return Data(OneDestination(destination=_destination_out(space, held, changed)))


@delete("/destinations/{destination_id:str}", status_code=HTTP_200_OK, summary="Delete a destination")
async def delete_destination(request: ApiRequest, destination_id: FromPath[str]) -> Data[Status]:
    """Forget a destination with its connections."""
    space, held, one = _located(request, destination_id)
    await held.delete_destination(one.id)
    await audit(request, "Destination Deleted", "destination", one.id, one.name, space_id=space.id)
    return SUCCESS


@get(
    "/spaces/{space_id:str}/audienceType/{audience_type:str}/supported-destinations",
    summary="List destination types",
)
async def list_supported(
    request: ApiRequest, space_id: FromPath[str], audience_type: FromPath[str], page: PageQuery
) -> Data[Supported]:
    """List the destination types that take audiences of this type, by name."""
    space = space_of(request, space_id)
    if audience_type.upper() == "LINKED":
        raise DetailedError(404, "not_served", "linked audiences are not served", field="audienceType")
    entity_type = entity_type_of(audience_type, "audienceType")
    held = api_of(request).daemon.deliveries(space.id).destinations
    kinds = [kind for kind in held.types() if entity_type in held.adapter(kind.type).entity_types]
    shown, pagination = paginate(kinds, lambda kind: kind.type, page, kind="supported")
    return Data(
        Supported(destinations={kind.type: to_builtins(metadata_of(kind)) for kind in shown}, pagination=pagination)
    )


# -- connections -----------------------------------------------------------------------------------------------------


def _id_sync_in(given: list[IdSyncConfiguration] | None) -> tuple[IdSync, ...] | None:
    return None if given is None else tuple(IdSync(one.external_id, one.strategy, one.map_to) for one in given)


def _id_sync_out(connection: Connection) -> list[IdSyncOut]:
    return [
        IdSyncOut(external_id=one.external_id, strategy=one.strategy, map_to=one.map_to)
        for one in connection.id_sync or ()
    ]


def _settings_out(connection: Connection) -> dict[str, Any]:
    return {name: value for name, value in connection.settings.items() if name != ACTIVATIONS}


def _settings_in(given: dict[str, Any], before: Connection) -> dict[str, Any]:
    """Return settings to store: what a client gives, and the activations that are kept beside."""
    kept = {ACTIVATIONS: before.settings[ACTIVATIONS]} if ACTIVATIONS in before.settings else {}
    return {**given, **kept}


def _connection_of(held: Destinations, definition: int, named: str) -> Connection:
    """Return a definition's connection by its destination's id, or its own."""
    for connection in held.connections(definition=definition):
        if named in (connection.destination, connection.id):
            return connection
    raise NotFoundError("not_found", f"it is not connected to {named[:64]!r}", field="destinationId")


@post(
    [f"{_AUDIENCE}/destination-connections", f"{_TRAIT}/destination-connections"],
    status_code=HTTP_200_OK,
    summary="Connect to a destination",
)
async def connect(
    request: ApiRequest,
    space_id: FromPath[str],
    data: JSONBody[Connect],
) -> Data[Connected]:
    """Connect an audience or computed trait, or resume its paused connection; its members so far are sent."""
    space = space_of(request, space_id)
    definition = definition_of(request, space).definition
    held = api_of(request).daemon.deliveries(space.id).destinations
    made = await held.connect(
        definition.id,
        held.destination(data.destination.id).id,
        id_sync=_id_sync_in(data.id_sync_configuration),
        settings=data.connection_settings,
    )
    await audit(request, "Destination Connected", "connection", made.id, definition.key, space_id=space.id)
    return Data(
        Connected(
            connection=Id(id=made.id),
            id_sync_configuration=_id_sync_out(made),
            connection_settings=_settings_out(made),
        )
    )


@get([f"{_AUDIENCE}/destination-connections", f"{_TRAIT}/destination-connections"], summary="List connections")
async def list_connections(
    request: ApiRequest,
    space_id: FromPath[str],
    page: PageQuery,
) -> Data[Connections]:
    """List the destinations that an audience or computed trait is connected to."""
    space = space_of(request, space_id)
    definition = definition_of(request, space).definition
    held = api_of(request).daemon.deliveries(space.id).destinations
    found = held.connections(definition=definition.number)
    shown, pagination = paginate(found, lambda one: f"{one.created_ms:015d}{one.id}", page, kind="connections")
    return Data(Connections(connections=[_simple(held, one) for one in shown], pagination=pagination))


def _simple(held: Destinations, connection: Connection) -> SimpleDestination:
    destination = held.destination(connection.destination)
    kind = _type_of(held, destination.type)
    return SimpleDestination(
        id=connection.id,
        name=destination.name,
        source_id=destination.source_id,
        enabled=connection.enabled,
        created_at=iso(connection.created_ms),
        updated_at=iso(connection.updated_ms),
        settings=held.shown(destination),
        destination_id=destination.id,
        metadata=MetadataBrief(id=kind.type, name=kind.title, slug=kind.type),
        id_sync_configuration=_id_sync_out(connection),
        connection_settings=_settings_out(connection),
    )


@patch(
    [
        f"{_AUDIENCE}/destination-connections/{{destination_id:str}}",
        f"{_TRAIT}/destination-connections/{{destination_id:str}}",
    ],
    summary="Edit a connection",
)
async def edit_connection(
    request: ApiRequest,
    space_id: FromPath[str],
    destination_id: FromPath[str],
    data: JSONBody[EditConnection],
) -> Data[ConnectionEdited]:
    """Change which ids and events are sent, or pause and resume."""
    space = space_of(request, space_id)
    definition = definition_of(request, space).definition
    held = api_of(request).daemon.deliveries(space.id).destinations
    before = _connection_of(held, definition.number, destination_id)
    settings = data.connection_settings
    id_sync = data.id_sync_configuration
    changed = await held.update_connection(
        before.id,
        id_sync=UNSET if id_sync is None else _id_sync_in(id_sync),
        settings=UNSET if settings is None else _settings_in(settings, before),
        enabled=data.enabled,
    )
    if data.resync:
        await held.resync(changed.id)
    await audit(request, "Destination Connection Modified", "connection", changed.id, definition.key, space_id=space.id)
    return Data(
        ConnectionEdited(
            destination=Id(id=changed.destination),
            id_sync_configuration=_id_sync_out(changed),
            connection_settings=_settings_out(changed),
        )
    )


@delete(
    [
        f"{_AUDIENCE}/destination-connections/{{destination_id:str}}",
        f"{_TRAIT}/destination-connections/{{destination_id:str}}",
    ],
    status_code=HTTP_200_OK,
    summary="Remove a connection",
)
async def remove_connection(
    request: ApiRequest,
    space_id: FromPath[str],
    destination_id: FromPath[str],
) -> Data[Status]:
    """Forget a connection and its settings."""
    space = space_of(request, space_id)
    definition = definition_of(request, space).definition
    held = api_of(request).daemon.deliveries(space.id).destinations
    gone = _connection_of(held, definition.number, destination_id)
    await held.remove(gone.id)
    await audit(request, "Destination Disconnected", "connection", gone.id, definition.key, space_id=space.id)
    return SUCCESS


# -- activations -----------------------------------------------------------------------------------------------------


@post(
    f"{_AUDIENCE}/destination-connections/{{connection_id:str}}/activations",
    status_code=HTTP_200_OK,
    summary="Add an activation",
)
async def create_activation(
    request: ApiRequest,
    space_id: FromPath[str],
    audience_id: FromPath[str],
    connection_id: FromPath[str],
    data: JSONBody[CreateActivation],
) -> Data[OneActivation]:
    """Say what a connection sends: switches it on or off, and sends everything again with `performResync`."""
    space = space_of(request, space_id)
    definition = definition_of(request, space).definition
    held = api_of(request).daemon.deliveries(space.id).destinations
    before = _connection_of(held, definition.number, connection_id)
    kept = list(before.settings.get(ACTIVATIONS, ()))
    activation = {
        "id": f"act_{before.id.partition('_')[2]}_{len(kept) + 1}",
        **to_builtins(data),
        "enabled": data.enabled is not False,
    }
    changed = await held.update_connection(
        before.id,
        settings={**before.settings, ACTIVATIONS: [*kept, activation]},
        enabled=None if data.enabled is None or data.enabled == before.enabled else data.enabled,
    )
    if data.perform_resync and changed.enabled:
        await held.resync(changed.id)
    await audit(request, "Activation Created", "activation", activation["id"], definition.key, space_id=space.id)
    return Data(OneActivation(activation=_activation_out(space.id, changed, activation)))


@get(f"{_AUDIENCE}/activations", summary="List activations")
async def list_activations(
    request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str], page: PageQuery
) -> Data[Activations]:
    """List the activations of an audience's connections."""
    space = space_of(request, space_id)
    definition = definition_of(request, space).definition
    held = api_of(request).daemon.deliveries(space.id).destinations
    found = [
        _activation_out(space.id, connection, activation)
        for connection in held.connections(definition=definition.number)
        for activation in connection.settings.get(ACTIVATIONS, ())
    ]
    shown, pagination = paginate(found, lambda one: one.id, page, kind="activations")
    return Data(Activations(status="SUCCESS", activations=shown, pagination=pagination))


def _activation_out(space_id: str, connection: Connection, kept: dict[str, Any]) -> ActivationOut:
    return ActivationOut(
        id=kept["id"],
        enabled=kept["enabled"] and connection.enabled,
        workspace_id=WORKSPACE_ID,
        space_id=space_id,
        audience_id=connection.definition_id,
        connection_id=connection.id,
        activation_type=kept["activationType"],
        activation_name=kept["activationName"],
        personalization=kept.get("personalization") or {"profile": {"properties": []}},
        perform_resync=kept.get("performResync", False),
        display_name=kept.get("displayName"),
        destination_mapping=kept.get("destinationMapping"),
    )


ROUTES = [
    list_destinations,
    create_destination,
    copy_destination,
    get_destination,
    edit_destination,
    delete_destination,
    list_supported,
    connect,
    list_connections,
    edit_connection,
    remove_connection,
    create_activation,
    list_activations,
]
