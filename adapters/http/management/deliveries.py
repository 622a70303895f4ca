"""How deliveries are doing: a destination's state, its newest deliveries, its dead letters, and sending them again."""

from typing import Annotated, Any, Final

from litestar import delete, get, post
from litestar.params import FromPath, QueryParameter
from litestar.status_codes import HTTP_200_OK

from actors.delivery_failures import Failure
from actors.delivery_ledger import DeadLetter
from actors.supervisor import Deliveries, DeliveryView, DestinationStatus
from adapters.http.context import ApiRequest, api_of, audit, space_of
from adapters.http.envelopes import (
    Data,
    PageQuery,
    PaginationOutput,
    Shape,
)
from eventlog.errors import InvalidError
from eventlog.instants import iso

SEARCH_CHARS_MAX: Final = 1_000  # no id, key or reason is longer
SearchQuery = Annotated[
    str | None, QueryParameter(name="search", description="those that hold this text in an id, key, event or reason")
]


class FailureOut(Shape, frozen=True):
    """A request that failed: what was asked and what was answered, secrets taken out, both cut short."""

    at: str
    reason: str
    status: int
    calls: int
    method: str
    address: str
    headers: dict[str, str]
    body: str
    answer_headers: dict[str, str]
    answer_body: str


class DeliveryOut(Shape, frozen=True):
    """A delivery: one call to a destination."""

    id: str
    state: str
    kind: str
    key: str
    event: str
    profile: str
    value: Any
    at: str
    attempts: int
    status: int
    reason: str
    user_id: str | None = None
    anonymous_id: str | None = None
    email: str | None = None
    settled_at: str | None = None
    next_attempt_at: str | None = None


class StateOut(Shape, frozen=True):
    """How a destination is doing. `pending` counts what was read of the log; `behind` entries were not yet read."""

    state: str
    reason: str
    pending: int
    more_pending: bool
    in_flight: int
    delivered: int
    retrying: int
    dead: int
    given_up: int
    retried: int
    circuit: str
    rate_per_second: float
    burst: int
    tokens: float
    allowed_per_second: float
    achieved_per_second: float
    lag_seconds: float
    behind: int
    passes: dict[str, str]
    last_error: str
    held_reason: str
    errors: list[FailureOut]
    circuit_until: str | None = None
    held_until: str | None = None
    oldest_pending_at: str | None = None
    last_delivered_at: str | None = None
    last_error_at: str | None = None
    next_sync_at: str | None = None


class DeliveryList(Shape, frozen=True):
    """A destination's state, what is under way or waits, then what was settled lately, newest first."""

    state: StateOut
    deliveries: list[DeliveryOut]
    pagination: PaginationOutput


class DeadLetterOut(Shape, frozen=True):
    """A delivery that was given up."""

    id: str
    kind: str
    key: str
    event: str
    profile: str
    value: Any
    at: str
    reason: str
    status: int
    attempts: int
    first_attempt_at: str
    dead_at: str
    user_id: str | None = None
    anonymous_id: str | None = None
    email: str | None = None
    group_id: str | None = None


class DeadLetters(Shape, frozen=True):
    """A page of dead letters, in order of their ids."""

    dead_letters: list[DeadLetterOut]
    pagination: PaginationOutput


class Count(Shape, frozen=True):
    """How many were re-sent or deleted."""

    count: int


class Ping(Shape, frozen=True):
    """Whether a destination's settings work."""

    ok: bool
    reason: str
    status: int


def _held(request: ApiRequest, space_id: str) -> tuple[str, Deliveries]:
    space = space_of(request, space_id)
    return space.id, api_of(request).daemon.deliveries(space.id)


def _optional(time_ms: int | None) -> str | None:
    """Return a time, None for none (0 counts as none)."""
    return iso(time_ms) if time_ms else None


def _failure_out(failure: Failure) -> FailureOut:
    return FailureOut(
        at=iso(failure.at_ms),
        reason=failure.reason,
        status=failure.status,
        calls=failure.calls,
        method=failure.method,
        address=failure.address,
        headers=failure.headers,
        body=failure.body,
        answer_headers=failure.answer_headers,
        answer_body=failure.answer_body,
    )


def _state_out(status: DestinationStatus, failures: list[Failure]) -> StateOut:
    return StateOut(
        state=status.state,
        reason=status.reason,
        pending=status.pending,
        more_pending=status.more_pending,
        in_flight=status.in_flight,
        delivered=status.delivered,
        retrying=status.retrying,
        dead=status.dead,
        given_up=status.given_up,
        retried=status.retried,
        circuit=status.circuit,
        rate_per_second=status.rate_per_s,
        burst=status.burst,
        tokens=status.tokens,
        allowed_per_second=status.allowed_per_s,
        achieved_per_second=status.achieved_per_s,
        lag_seconds=status.lag_s,
        behind=status.behind,
        passes=dict(status.passes),
        last_error=status.last_error,
        held_reason=status.held_reason,
        circuit_until=_optional(status.circuit_until_ms),
        held_until=_optional(status.held_until_ms),
        oldest_pending_at=_optional(status.oldest_pending_ms),
        last_delivered_at=_optional(status.last_delivered_ms),
        last_error_at=_optional(status.last_error_ms),
        next_sync_at=_optional(status.next_sync_ms),
        errors=[_failure_out(failure) for failure in failures],
    )


def _delivery_out(view: DeliveryView) -> DeliveryOut:
    return DeliveryOut(
        id=view.id,
        state=view.state,
        kind=view.kind,
        key=view.key,
        event=view.event,
        profile=view.profile,
        value=view.value,
        at=iso(view.at_ms),
        attempts=view.attempts,
        status=view.status,
        reason=view.reason,
        user_id=view.user_id,
        anonymous_id=view.anonymous_id,
        email=view.email,
        settled_at=_optional(view.settled_ms),
        next_attempt_at=_optional(view.next_ms),
    )


def _letter_out(letter: DeadLetter) -> DeadLetterOut:
    call = letter.call
    return DeadLetterOut(
        id=call.id,
        kind=call.kind,
        key=call.key,
        event=call.event,
        profile=call.profile,
        value=call.value,
        at=iso(call.at_ms),
        reason=letter.reason,
        status=letter.status,
        attempts=letter.attempts,
        first_attempt_at=iso(letter.first_ms),
        dead_at=iso(letter.at_ms),
        user_id=call.user_id,
        anonymous_id=call.anonymous,
        email=call.email,
        group_id=call.group_id,
    )


@get("/spaces/{space_id:str}/destinations/{destination_id:str}/deliveries", summary="List deliveries")
async def list_deliveries(
    request: ApiRequest, space_id: FromPath[str], destination_id: FromPath[str], page: PageQuery
) -> Data[DeliveryList]:
    """Tell how a destination is doing, and list its newest deliveries. There is one page, of `pagination[count]`."""
    _, held = _held(request, space_id)
    if page.cursor is not None:
        page.cursors.decode(page.cursor, "deliveries", tuple[None])  # `current` of the one page, nothing else
    views = held.deliveries(destination_id, limit=page.count)
    return Data(
        DeliveryList(
            state=_state_out(held.status(destination_id), held.failures(destination_id)),
            deliveries=[_delivery_out(view) for view in views],
            pagination=PaginationOutput(current=page.cursors.encode("deliveries", None)),
        )
    )


@get("/spaces/{space_id:str}/destinations/{destination_id:str}/dead-letters", summary="List dead letters")
async def list_dead_letters(
    request: ApiRequest,
    space_id: FromPath[str],
    destination_id: FromPath[str],
    page: PageQuery,
    search: SearchQuery = None,
) -> Data[DeadLetters]:
    """List the deliveries that were given up; with `search`, those that hold a text (a page may then be short)."""
    _, held = _held(request, space_id)
    after = "" if page.cursor is None else page.cursors.decode(page.cursor, "dead-letters", tuple[str])[0]
    if search is not None and len(search) > SEARCH_CHARS_MAX:
        raise InvalidError("invalid_search", f"search takes at most {SEARCH_CHARS_MAX} characters", field="search")
    found = held.search_dead_letters(destination_id, search or "", after=after, limit=page.count)
    pagination = PaginationOutput(
        current=page.cursor or page.cursors.encode("dead-letters", ""),
        next=page.cursors.encode("dead-letters", found.after) if found.after is not None else None,
        total_entries=None if search else held.status(destination_id).dead,
    )
    return Data(DeadLetters(dead_letters=[_letter_out(letter) for letter in found.letters], pagination=pagination))


@post(
    [
        "/spaces/{space_id:str}/destinations/{destination_id:str}/dead-letters/resend",
        "/spaces/{space_id:str}/destinations/{destination_id:str}/dead-letters/{delivery_id:str}/resend",
    ],
    status_code=HTTP_200_OK,
    summary="Send dead letters again",
)
async def resend_dead_letters(
    request: ApiRequest, space_id: FromPath[str], destination_id: FromPath[str]
) -> Data[Count]:
    """Send one dead letter again, or all of them."""
    own_id, held = _held(request, space_id)
    count = await held.resend(destination_id, request.path_params.get("delivery_id"))
    await audit(request, "Dead Letters Resent", "destination", destination_id, f"{count} deliveries", space_id=own_id)
    return Data(Count(count=count))


@delete(
    [
        "/spaces/{space_id:str}/destinations/{destination_id:str}/dead-letters",
        "/spaces/{space_id:str}/destinations/{destination_id:str}/dead-letters/{delivery_id:str}",
    ],
    status_code=HTTP_200_OK,
    summary="Delete dead letters",
)
async def delete_dead_letters(
    request: ApiRequest, space_id: FromPath[str], destination_id: FromPath[str]
) -> Data[Count]:
    """Delete one dead letter, or all of them."""
    own_id, held = _held(request, space_id)
    count = await held.drop(destination_id, request.path_params.get("delivery_id"))
    await audit(request, "Dead Letters Deleted", "destination", destination_id, f"{count} deliveries", space_id=own_id)
    return Data(Count(count=count))


@post(
    "/spaces/{space_id:str}/destinations/{destination_id:str}/ping",
    status_code=HTTP_200_OK,
    summary="Try a destination's settings",
)
async def ping_destination(request: ApiRequest, space_id: FromPath[str], destination_id: FromPath[str]) -> Data[Ping]:
    """Ask a destination a harmless question, and tell whether its settings work."""
    _, held = _held(request, space_id)
    verdict = await held.ping(destination_id)
    return Data(Ping(ok=verdict.how == "delivered", reason=verdict.reason, status=verdict.status))


ROUTES = [list_deliveries, list_dead_letters, resend_dead_letters, delete_dead_letters, ping_destination]
