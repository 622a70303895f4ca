"""Exports of audiences and computed traits as CSV files: ask for one, watch it, download it (with `Range`)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final
from typing import Literal as OneOf

import anyio
from litestar import Response, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK, HTTP_206_PARTIAL_CONTENT, HTTP_416_REQUESTED_RANGE_NOT_SATISFIABLE

from actors.control import EXPORTS_RAW
from adapters.export import ExportSpec
from adapters.export_jobs import ExportRecord
from adapters.http.auth import authorize
from adapters.http.byte_ranges import Span, UnsatisfiableError, wanted_span
from adapters.http.context import ApiRequest, actor_of, api_of, audit, caller_of, definition_of, space_of
from adapters.http.envelopes import Data, Errors, PageQuery, PaginationOutput, RequestError, Shape, paginate
from adapters.http.management.definitions import ID_TYPE_CHARS_MAX, checked_text
from eventlog.errors import ConflictError
from eventlog.instants import iso

CHUNK_BYTES: Final = 256 * 1024  # read from the file at once

_PATHS: Final = (
    "/spaces/{space_id:str}/audiences/{audience_id:str}/exports",
    "/spaces/{space_id:str}/computed-traits/{trait_id:str}/exports",
)


class CreateExport(Shape, frozen=True):
    """What the file should hold."""

    format: OneOf["unformatted", "formatted", "single_column"] = "unformatted"
    external_id: str = "email"
    hash: OneOf["sha256", "none"] | None = None


class ExportOut(Shape, frozen=True):
    """An export and how far it is."""

    id: str
    status: OneOf["PENDING", "RUNNING", "READY", "FAILED"]
    format: str
    hash: OneOf["sha256", "none"]
    progress: float
    estimated_seconds: float
    created_at: str
    snapshot_at: str
    known_seq: int
    requested_by: str
    external_id: str | None = None
    rows: int | None = None
    size_bytes: int | None = None
    finished_at: str | None = None
    expires_at: str | None = None
    failure_reason: str | None = None


class OneExport(Shape, frozen=True):
    """An export."""

    export: ExportOut


class ExportList(Shape, frozen=True):
    """A page of exports, oldest first."""

    exports: list[ExportOut]
    pagination: PaginationOutput


def export_out(record: ExportRecord) -> ExportOut:
    """Return an export as the API shows it."""
    spec = record.spec
    return ExportOut(
        id=record.id,
        status=record.status,
        format=spec.format,
        hash="sha256" if spec.hashed else "none",
        progress=round(record.progress, 3),
        estimated_seconds=record.estimated_s or 0.0,
        created_at=iso(record.created_ms),
        snapshot_at=iso(record.at_ms),
        known_seq=record.known_seq,
        requested_by=record.requested_by,
        external_id=spec.external_id if spec.format == "single_column" else None,
        rows=record.rows,
        size_bytes=record.size_bytes,
        finished_at=None if record.finished_ms is None else iso(record.finished_ms),
        expires_at=None if record.expires_ms is None else iso(record.expires_ms),
        failure_reason=record.failure,
    )


@post(list(_PATHS), status_code=HTTP_200_OK, summary="Export to CSV")
async def create_export(
    request: ApiRequest,
    space_id: FromPath[str],
    data: JSONBody[CreateExport],
) -> Data[OneExport]:
    """Ask for a file with everyone as of now. Ids unhashed by name (`hash: none`) take the scope exports:raw."""
    space = space_of(request, space_id)
    view = definition_of(request, space)
    external_id = checked_text(data.external_id, "externalId", ID_TYPE_CHARS_MAX) or ""
    spec = ExportSpec(data.format, external_id, data.hash)
    if spec.is_raw:
        authorize(caller_of(request), EXPORTS_RAW, space.id)
    record = await api_of(request).exports.create(space, view, spec, actor=actor_of(request))
    await audit(request, "Export Created", "export", record.id, record.file_name, space_id=space.id)
    return Data(OneExport(export=export_out(record)))


@get(list(_PATHS), summary="List exports")
async def list_exports(
    request: ApiRequest,
    space_id: FromPath[str],
    page: PageQuery,
) -> Data[ExportList]:
    """List the exports that have not expired."""
    space = space_of(request, space_id)
    view = definition_of(request, space)
    records = api_of(request).exports.all(space.id, view.definition.id)
    shown, pagination = paginate(records, lambda record: f"{record.created_ms:015d}{record.id}", page, kind="exports")
    return Data(ExportList(exports=[export_out(record) for record in shown], pagination=pagination))


@get([f"{path}/{{export_id:str}}" for path in _PATHS], summary="Get an export")
async def get_export(
    request: ApiRequest,
    space_id: FromPath[str],
    export_id: FromPath[str],
) -> Data[OneExport]:
    """Tell how far an export is."""
    return Data(OneExport(export=export_out(_record(request, space_id, export_id))))


def _record(request: ApiRequest, space_id: str, export_id: str) -> ExportRecord:
    space = space_of(request, space_id)
    view = definition_of(request, space)
    return api_of(request).exports.get(space.id, view.definition.id, export_id)


@get(
    [f"{path}/{{export_id:str}}/download" for path in _PATHS],
    summary="Download an export",
    media_type="text/csv",
    raises=[],
)
async def download_export(
    request: ApiRequest,
    space_id: FromPath[str],
    export_id: FromPath[str],
    range_header: Annotated[
        str | None, HeaderParameter(name="Range", description="bytes=0-499, bytes=500-, bytes=-500")
    ] = None,
    if_range: Annotated[str | None, HeaderParameter(name="If-Range", description="the ETag of the part held")] = None,
) -> Stream | Response[Any]:
    """Send the file, or the part of it that `Range` asks for."""
    record = _record(request, space_id, export_id)
    if record.spec.is_raw:
        authorize(caller_of(request), EXPORTS_RAW, record.space_id)
    if record.status != "READY":
        raise ConflictError("not_ready", f"the export is {record.status}; ask again when it is READY")
    path = api_of(request).exports.path(record)
    size_bytes = (await anyio.Path(path).stat()).st_size
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{record.id}"',
        "Content-Disposition": f'attachment; filename="{record.file_name}"',
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    span = None
    try:
        if if_range is None or if_range.strip() == headers["ETag"]:
            span = wanted_span(range_header, size_bytes)
    except UnsatisfiableError:
        wrong = RequestError(
            type="range_not_satisfiable",
            message=f"Range: found {(range_header or '')[:64]!r}, but the file has {size_bytes} bytes",
            status=HTTP_416_REQUESTED_RANGE_NOT_SATISFIABLE,
        )
        return Response(
            Errors([wrong]),
            status_code=HTTP_416_REQUESTED_RANGE_NOT_SATISFIABLE,
            media_type="application/json",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    status = HTTP_200_OK
    if span is not None:
        status = HTTP_206_PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size_bytes}"
    part = span or Span(0, size_bytes)
    headers["Content-Length"] = str(part.stop - part.start)
    return Stream(_read(path, part), status_code=status, media_type="text/csv; charset=utf-8", headers=headers)


async def _read(path: Path, part: Span) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(part.start)
        left = part.stop - part.start
        while left > 0 and (chunk := await file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


ROUTES = [create_export, list_exports, get_export, download_export]
