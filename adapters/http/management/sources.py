"""Sources: where events come from. A write key is told once, when it is made; after that only its last letters."""

from typing import Any, Final
from typing import Literal as OneOf

from litestar import delete, get, patch, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from actors.delivery_settings import check_size
from adapters.http.context import ApiRequest, actor_of, api_of, caller_of, reaches
from adapters.http.envelopes import SUCCESS, Data, PageQuery, PaginationOutput, Shape, Status, paginate
from adapters.http.management.definitions import checked_text
from eventlog.entries import SourceRecord
from eventlog.errors import ForbiddenError
from eventlog.instants import iso

METADATA_ID_CHARS_MAX: Final = 200
HIDDEN: Final = "…"  # stands before the last letters of a write key


class CreateSource(Shape, frozen=True):
    """A source to create. `settings.spaceId` names its space, the first one by default."""

    slug: str
    enabled: bool = True
    metadata_id: str = ""
    settings: dict[str, Any] | None = None
    name: str | None = None


class EditSource(Shape, frozen=True):
    """What to change."""

    enabled: bool


class SourceLogos(Shape, frozen=True):
    """Where a picture lies; Turnout ships none, so it is empty."""

    default: str


class SourceMetadata(Shape, frozen=True):
    """What kind of source it is."""

    id: str
    name: str
    slug: str
    description: str
    logos: SourceLogos
    options: list[Any]
    categories: list[str]
    is_cloud_event_source: bool
    status: OneOf["PUBLIC"]


class SourceOut(Shape, frozen=True):
    """A source."""

    id: str
    slug: str
    name: str
    metadata: SourceMetadata
    workspace_id: str
    space_id: str
    enabled: bool
    write_keys: list[str]
    settings: dict[str, Any] | None
    labels: list[Any]
    created_at: str


class OneSource(Shape, frozen=True):
    """A source."""

    source: SourceOut


class Sources(Shape, frozen=True):
    """A page of sources."""

    sources: list[SourceOut]
    pagination: PaginationOutput


def source_out(record: SourceRecord, write_key: str | None = None) -> SourceOut:
    """Return a source as the API shows it; the key in full where it was just made."""
    keys = [HIDDEN + hint for hint in record.key_hints]
    if write_key is not None:
        keys[-1] = write_key
    kind = record.metadata_id or "http"
    return SourceOut(
        id=record.id,
        slug=record.slug,
        name=record.name,
        metadata=SourceMetadata(
            id=kind,
            name=kind,
            slug=kind,
            description="Any client of the tracking API.",
            logos=SourceLogos(default=""),
            options=[],
            categories=["Server"],
            is_cloud_event_source=False,
            status="PUBLIC",
        ),
        workspace_id=WORKSPACE_ID,
        space_id=record.space_id,
        enabled=record.enabled,
        write_keys=keys,
        settings=record.settings,
        labels=[],
        created_at=iso(record.created_ms),
    )


WORKSPACE_ID: Final = "turnout"  # one installation is one workspace


@get("/sources", summary="List sources")
async def list_sources(request: ApiRequest, page: PageQuery) -> Data[Sources]:
    """List the sources of the spaces that the token is let into."""
    records = [record for record in api_of(request).daemon.control.sources() if reaches(request, record.space_id)]
    shown, pagination = paginate(records, lambda record: f"{record.created_ms:015d}{record.id}", page, kind="sources")
    return Data(Sources(sources=[source_out(record) for record in shown], pagination=pagination))


@post("/sources", status_code=HTTP_201_CREATED, summary="Create a source")
async def create_source(request: ApiRequest, data: JSONBody[CreateSource]) -> Data[OneSource]:
    """Create a source and tell its write key, this once."""
    control = api_of(request).daemon.control
    settings = data.settings or {}
    check_size(settings, "settings")
    bound = caller_of(request).space_id
    named = settings.get("spaceId")
    if bound and named is not None and (not isinstance(named, str) or control.space(named).id != bound):
        raise ForbiddenError("forbidden", f"the token is for the space {bound} alone", field="settings.spaceId")
    record, write_key = await control.create_source(
        data.name or data.slug,
        slug=data.slug,
        space_id=bound or None,
        enabled=data.enabled,
        metadata_id=checked_text(data.metadata_id, "metadataId", METADATA_ID_CHARS_MAX, empty=True) or "",
        settings=settings,
        actor=actor_of(request),
    )
    return Data(OneSource(source=source_out(record, write_key)))


def _source(request: ApiRequest, source_id: str) -> SourceRecord:
    record = api_of(request).daemon.control.source(source_id)
    if not reaches(request, record.space_id):
        raise ForbiddenError("forbidden", f"the token is for the space {caller_of(request).space_id} alone")
    return record


@get("/sources/{source_id:str}", summary="Get a source")
async def get_source(request: ApiRequest, source_id: FromPath[str]) -> Data[OneSource]:
    """Return a source by id or slug."""
    return Data(OneSource(source=source_out(_source(request, source_id))))


@patch("/sources/{source_id:str}", summary="Enable or disable a source")
async def edit_source(request: ApiRequest, source_id: FromPath[str], data: JSONBody[EditSource]) -> Data[OneSource]:
    """Enable a source or disable it; events of a disabled one are refused."""
    record = _source(request, source_id)
    control = api_of(request).daemon.control
    changed = await control.change_source(record.id, enabled=data.enabled, actor=actor_of(request))
    return Data(OneSource(source=source_out(changed)))


@post(
    ["/sources/{source_id:str}/write-keys", "/sources/{source_id:str}/writekey"],
    status_code=HTTP_200_OK,
    summary="Add a write key",
)
async def add_write_key(request: ApiRequest, source_id: FromPath[str]) -> Data[OneSource]:
    """Make one more write key and tell it, this once; the older ones go on."""
    record = _source(request, source_id)
    changed, write_key = await api_of(request).daemon.control.add_write_key(record.id, actor=actor_of(request))
    return Data(OneSource(source=source_out(changed, write_key)))


@delete("/sources/{source_id:str}/write-keys/{hint:str}", status_code=HTTP_200_OK, summary="Remove a write key")
async def remove_write_key(request: ApiRequest, source_id: FromPath[str], hint: FromPath[str]) -> Data[OneSource]:
    """Take a write key away, named by its last letters; events that come with it are refused at once."""
    return Data(OneSource(source=source_out(await _without(request, source_id, hint))))


async def _without(request: ApiRequest, source_id: str, key: str) -> SourceRecord:
    record = _source(request, source_id)
    control = api_of(request).daemon.control
    return await control.remove_write_key(record.id, key.removeprefix(HIDDEN), actor=actor_of(request))


@delete("/sources/{source_id:str}/writekey/{write_key:str}", status_code=HTTP_200_OK, summary="Remove a write key")
async def remove_named_key(request: ApiRequest, source_id: FromPath[str], write_key: FromPath[str]) -> Data[Status]:
    """Take a write key away, named in full or by its last letters: the path and the answer of the official clients."""
    await _without(request, source_id, write_key)
    return SUCCESS


ROUTES = [list_sources, create_source, get_source, edit_source, add_write_key, remove_write_key, remove_named_key]
