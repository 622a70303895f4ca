"""Deletion and suppression of people (regulations), and who is suppressed.

A regulation covers every space that the token is let into, or the one that `spaceId` names. Of those suppressed only a
keyed hash is kept, so that is what `GET /suppressions` lists. Once people were deleted, finished exports of the space
are deleted too: they may hold them.
"""

from secrets import token_hex
from typing import Any, Final
from typing import Literal as OneOf

from litestar import get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from actors.space_api import SpaceApi
from adapters.http.context import ApiRequest, actor_of, api_of, audit, caller_of, reaches
from adapters.http.envelopes import Data, PageQuery, PaginationOutput, Shape, paginate
from adapters.http.management.sources import WORKSPACE_ID
from eventlog.errors import ForbiddenError, InvalidError, NotFoundError
from eventlog.instants import iso

SUBJECTS_MAX: Final = 5_000  # as documented for the public API
SUBJECT_CHARS_MAX: Final = 500
DELETING: Final = ("SUPPRESS_WITH_DELETE", "SUPPRESS_WITH_DELETE_INTERNAL", "DELETE_ONLY", "DELETE_INTERNAL")
WORST_FIRST: Final = (
    "FAILED",
    "INVALID",
    "NOT_SUPPORTED",
    "PARTIAL_SUCCESS",
    "RUNNING",
    "INITIALIZED",
    "FINISHED",
)
"""How the states of several spaces become one."""

RegulationType = OneOf[
    "SUPPRESS_WITH_DELETE",
    "DELETE_ONLY",
    "SUPPRESS_ONLY",
    "UNSUPPRESS",
    "SUPPRESS_WITH_DELETE_INTERNAL",
    "DELETE_INTERNAL",
]


class CreateRegulation(Shape, frozen=True):
    """Whom to delete, suppress or let in again."""

    regulation_type: RegulationType
    subject_type: OneOf["USER_ID", "OBJECT_ID"]
    subject_ids: list[str]
    space_id: str | None = None


class Regulated(Shape, frozen=True):
    """A regulation that was taken."""

    regulate_id: str


class DestinationStatus(Shape, frozen=True):
    """How far a destination is."""

    name: str
    id: str
    status: str
    err_string: str
    finished_at: str


class StreamStatus(Shape, frozen=True):
    """How far a space is."""

    id: str
    destination_status: list[DestinationStatus]


class RegulationOut(Shape, frozen=True):
    """A regulation."""

    id: str
    workspace_id: str
    regulation_type: str
    overall_status: str
    created_at: str
    stream_status: list[StreamStatus]
    finished_at: str | None = None


class OneRegulation(Shape, frozen=True):
    """A regulation."""

    regulation: RegulationOut


class Regulations(Shape, frozen=True):
    """A page of regulations, oldest first."""

    regulations: list[RegulationOut]
    pagination: PaginationOutput


class Suppressed(Shape, frozen=True):
    """Suppressed subjects; their ids are keyed hashes, the ids themselves are not kept."""

    subject_type: str
    subject_ids: list[str]


class Suppressions(Shape, frozen=True):
    """A page of suppressed subjects."""

    suppressed: list[Suppressed]
    pagination: PaginationOutput


def _spaces(request: ApiRequest, space_id: str | None = None) -> list[SpaceApi]:
    """Return the spaces that a request covers."""
    daemon = api_of(request).daemon
    records = daemon.control.spaces() if space_id is None else [daemon.control.space(space_id)]
    covered = [daemon.space(record.id) for record in records if reaches(request, record.id)]
    if not covered:
        raise ForbiddenError("forbidden", f"the token is for the space {caller_of(request).space_id} alone")
    return covered


@post("/regulations", status_code=HTTP_200_OK, summary="Delete or suppress people")
async def create_regulation(request: ApiRequest, data: JSONBody[CreateRegulation]) -> Data[Regulated]:
    """Take a regulation; events of those suppressed are refused from the answer on."""
    if data.subject_type != "USER_ID":
        raise InvalidError("invalid", "subjectType: OBJECT_ID is not served, expected USER_ID", field="subjectType")
    ids = list(dict.fromkeys(data.subject_ids))
    if not 1 <= len(ids) <= SUBJECTS_MAX or any(not 1 <= len(one) <= SUBJECT_CHARS_MAX for one in ids):
        raise InvalidError(
            "invalid",
            f"subjectIds: expected 1 to {SUBJECTS_MAX} ids of 1 to {SUBJECT_CHARS_MAX} characters",
            field="subjectIds",
        )
    regulate_id = f"reg_{token_hex(9)}"
    for space in _spaces(request, data.space_id):
        await space.regulate(regulate_id, data.regulation_type, ids, actor=actor_of(request))
        if data.regulation_type in DELETING:
            await api_of(request).exports.drop_space(space.id)
        act = f"Regulation {data.regulation_type}"
        await audit(request, act, "regulation", regulate_id, f"{len(ids)} subjects", space_id=space.id)
    return Data(Regulated(regulate_id=regulate_id))


@get("/regulations", summary="List regulations")
async def list_regulations(request: ApiRequest, page: PageQuery) -> Data[Regulations]:
    """List regulations, oldest first."""
    found = _regulations(request)
    shown, pagination = paginate(found, lambda one: one.created_at + one.id, page, kind="regulations")
    return Data(Regulations(regulations=shown, pagination=pagination))


@get("/regulations/{regulate_id:str}", summary="Get a regulation")
async def get_regulation(request: ApiRequest, regulate_id: FromPath[str]) -> Data[OneRegulation]:
    """Tell how far a regulation is, in each space and destination."""
    for found in _regulations(request):
        if found.id == regulate_id:
            return Data(OneRegulation(regulation=found))
    raise NotFoundError("not_found", f"no regulation {regulate_id[:64]!r}", field="regulateId")


def _regulations(request: ApiRequest) -> list[RegulationOut]:
    by_id: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for space in _spaces(request):
        for saved in space.regulations():
            by_id.setdefault(saved["id"], []).append((space.id, saved))
    return [_regulation_out(regulate_id, parts) for regulate_id, parts in by_id.items()]


def _regulation_out(regulate_id: str, parts: list[tuple[str, dict[str, Any]]]) -> RegulationOut:
    """Return one regulation from its state in each space."""
    states = {saved["status"] for _, saved in parts}
    finished = [saved.get("finished_ms") for _, saved in parts]
    ends = [end_ms for end_ms in finished if end_ms is not None]
    return RegulationOut(
        id=regulate_id,
        workspace_id=WORKSPACE_ID,
        regulation_type=parts[0][1]["type"],
        overall_status=min(states, key=WORST_FIRST.index),
        created_at=iso(min(saved["created_ms"] for _, saved in parts)),
        stream_status=[StreamStatus(id=space_id, destination_status=_destinations(saved)) for space_id, saved in parts],
        finished_at=iso(max(ends)) if len(ends) == len(finished) else None,
    )


def _destinations(saved: dict[str, Any]) -> list[DestinationStatus]:
    return [
        DestinationStatus(
            name=one["name"],
            id=one["id"],
            status=one["status"],
            err_string=one.get("error", ""),
            finished_at=iso(one["finished_ms"]) if one.get("finished_ms") is not None else "",
        )
        for one in saved.get("destinations", ())
    ]


@get("/suppressions", summary="List who is suppressed")
async def list_suppressions(request: ApiRequest, page: PageQuery) -> Data[Suppressions]:
    """List the keyed hashes of suppressed user ids."""
    hashes = {id_hash for space in _spaces(request) for id_hash in space.suppressed()}
    shown, pagination = paginate(list(hashes), str, page, kind="suppressions")
    rows = [Suppressed(subject_type="USER_ID", subject_ids=shown)] if shown else []
    return Data(Suppressions(suppressed=rows, pagination=pagination))


ROUTES = [create_regulation, list_regulations, get_regulation, list_suppressions]
