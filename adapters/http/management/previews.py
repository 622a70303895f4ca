"""Previews of audiences: size and a sample of a definition on history, without creating anything.

Beside the public API's fields a request may say `at` and `known` (ask the past), `editOf` (the id or key of an audience
that this would replace: the answer then tells who stays, enters and leaves), `sampleSize` or `everyone`, `trait` (the
definition is a computed trait's: who has a value), and `sizeOverTime` (`{"points": 12, "days": 30}`: the size at so
many moments, evenly over the days before `at`).
"""

from typing import Annotated, Any, Final

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from actors.language.parser import parse
from adapters.http.context import ApiRequest, api_of, audience_of, space_of
from adapters.http.envelopes import SUCCESS, Data, Shape, Status, optional_time_ms
from adapters.http.management.audiences import (
    AudienceDefinition,
    AudienceOptions,
    AudienceSize,
    AudienceType,
    options_in,
    options_out,
    refuse_linked,
)
from adapters.http.management.definitions import DAYS_MAX, Kind, tree_of
from adapters.http.previews import SAMPLE_MAX, SIZES_MAX, Named, PreviewRecord, PreviewSpec, Side
from eventlog.entries import Options
from eventlog.errors import InvalidError, TooManyError
from eventlog.instants import iso

SAMPLE_DEFAULT: Final = 10
DAY_MS: Final = 86_400_000


class SizeOverTime(Shape, frozen=True):
    """How many moments to tell the size at, over how many days."""

    points: int = 12
    days: float = 30


class CreatePreview(Shape, frozen=True):
    """A definition to preview."""

    definition: AudienceDefinition
    audience_type: AudienceType
    options: AudienceOptions | None = None
    at: str | None = None
    known: str | None = None
    edit_of: str | None = None
    sample_size: int | None = None
    everyone: bool = False
    trait: bool = False
    size_over_time: SizeOverTime | None = None


class PreviewId(Shape, frozen=True):
    """Where to ask for the answer."""

    id: str


class OnePreviewId(Shape, frozen=True):
    """A preview that was started."""

    audience_preview: PreviewId


class PreviewResult(Shape, frozen=True):
    """One who would be a member."""

    id: str
    name: str


class PreviewSide(Shape, frozen=True):
    """How many an edit would keep, add or remove, and some of them."""

    count: int
    sample: list[PreviewResult]


class PreviewDifference(Shape, frozen=True):
    """What an edit would change."""

    stay: PreviewSide
    enter: PreviewSide
    leave: PreviewSide


class SizeThen(Shape, frozen=True):
    """The size at a moment."""

    at: str
    size: int


class PreviewOut(Shape, frozen=True):
    """A preview and, once COMPLETED, its answer."""

    id: str
    audience_type: str
    definition: AudienceDefinition
    options: AudienceOptions
    status: str
    results: list[PreviewResult] | None = None
    size: AudienceSize | None = None
    failure_reason: str | None = None
    at: str | None = None
    known_seq: int | None = None
    difference: PreviewDifference | None = None
    size_over_time: list[SizeThen] | None = None


class OnePreview(Shape, frozen=True):
    """A preview."""

    audience_preview: PreviewOut


@post("/spaces/{space_id:str}/audiences/previews", status_code=HTTP_200_OK, summary="Preview an audience")
async def create_preview(
    request: ApiRequest, space_id: FromPath[str], data: JSONBody[CreatePreview]
) -> Data[OnePreviewId]:
    """Start a preview; ask for it by its id."""
    space = space_of(request, space_id)
    entity_type = refuse_linked(data.audience_type, data.definition.target_entity)
    kind: Kind = "trait" if data.trait else "audience"
    parse(data.definition.query, entity_type=entity_type, kind=kind)
    at_ms = optional_time_ms(data.at, "at")
    edit_of = None if data.edit_of is None else audience_of(space, data.edit_of).definition
    if edit_of is not None and (edit_of.entity_type != entity_type or data.trait):
        found = "a computed trait" if data.trait else entity_type
        raise InvalidError(
            "invalid",
            f"editOf: found {found}, but {edit_of.key!r} is an audience of {edit_of.entity_type}",
            field="editOf",
        )
    sample = SAMPLE_DEFAULT if data.sample_size is None else data.sample_size
    if not 0 <= sample <= SAMPLE_MAX:
        raise InvalidError("invalid", f"sampleSize: {sample}, expected 0 to {SAMPLE_MAX}", field="sampleSize")
    now_ms, _ = space.now()
    spec = PreviewSpec(
        query=data.definition.query,
        entity_type=entity_type,
        options=options_in(data.options, Options() if edit_of is None else edit_of.options),
        at_ms=at_ms,
        known_ms=optional_time_ms(data.known, "known"),
        edit_of=None if edit_of is None else edit_of.id,
        trait=data.trait,
        sample=None if data.everyone else sample,
        sizes_at_ms=_moments(data.size_over_time, now_ms if at_ms is None else at_ms),
    )
    previews = api_of(request).previews
    if previews.is_full:
        raise TooManyError("too_many_previews", "too many previews are waiting; ask in a moment", retry_after_ms=1000)
    return Data(OnePreviewId(audience_preview=PreviewId(id=previews.start(space, spec).id)))


def _moments(wanted: SizeOverTime | None, until_ms: int) -> tuple[int, ...]:
    """Return the moments that a size over time is told at, the last one being `until_ms`."""
    if wanted is None:
        return ()
    if not 1 <= wanted.points <= SIZES_MAX or not 0 < wanted.days <= DAYS_MAX:
        raise InvalidError(
            "invalid",
            f"sizeOverTime: {wanted.points} points over {wanted.days} days, expected 1 to {SIZES_MAX} points "
            f"and at most {DAYS_MAX} days",
            field="sizeOverTime",
        )
    step_ms = wanted.days * DAY_MS / max(1, wanted.points - 1)
    moments = (until_ms - round(place * step_ms) for place in reversed(range(wanted.points)))
    return tuple(moment_ms for moment_ms in moments if moment_ms >= 0)


@get("/spaces/{space_id:str}/audiences/previews/{preview_id:str}", summary="Get a preview")
async def get_preview(
    request: ApiRequest,
    space_id: FromPath[str],
    preview_id: FromPath[str],
    wait: Annotated[float, QueryParameter(name="wait", description="seconds to wait for the answer", ge=0, le=60)] = 0,
) -> Data[OnePreview]:
    """Return a preview: RUNNING, then COMPLETED with its answer or FAILED with the reason.

    With `wait` it is answered once it is no longer RUNNING, or after so many seconds; it is cancelled if the last who
    waits for it goes away. One that nobody has asked for for a minute is cancelled, too.
    """
    space = space_of(request, space_id)
    found = await api_of(request).previews.waited(space.id, preview_id, wait)
    return Data(OnePreview(audience_preview=_preview_out(found)))


@delete(
    "/spaces/{space_id:str}/audiences/previews/{preview_id:str}", status_code=HTTP_200_OK, summary="Cancel a preview"
)
async def cancel_preview(request: ApiRequest, space_id: FromPath[str], preview_id: FromPath[str]) -> Data[Status]:
    """End a preview that is running, and forget it."""
    space = space_of(request, space_id)
    await api_of(request).previews.cancel(space.id, preview_id)
    return SUCCESS


def _preview_out(record: PreviewRecord) -> PreviewOut:
    spec = record.spec
    done: dict[str, Any] = {}
    if record.status == "COMPLETED":
        done = {
            "results": _results(record.sample),
            "size": AudienceSize(count=record.size or 0, type=spec.entity_type),
            "at": iso(record.at_ms or 0),
            "known_seq": record.known_seq,
        }
        if record.difference is not None:
            sides = record.difference
            done["difference"] = PreviewDifference(
                stay=_side(sides.stay), enter=_side(sides.enter), leave=_side(sides.leave)
            )
        if record.sizes:
            done["size_over_time"] = [SizeThen(at=iso(at_ms), size=size) for at_ms, size in record.sizes]
    return PreviewOut(
        id=record.id,
        audience_type=spec.entity_type,
        definition=AudienceDefinition(
            query=spec.query, tree=tree_of(spec.query, spec.entity_type, "trait" if spec.trait else "audience")
        ),
        options=options_out(spec.options),
        status=record.status,
        failure_reason=record.failure,
        **done,
    )


def _results(sample: tuple[Named, ...]) -> list[PreviewResult]:
    return [PreviewResult(id=own_id, name=name) for own_id, name in sample]


def _side(side: Side) -> PreviewSide:
    return PreviewSide(count=side.count, sample=_results(side.sample))


ROUTES = [create_preview, get_preview, cancel_preview]
