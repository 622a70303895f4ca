"""What can be seen of deliveries: how a destination is doing, and each call on its way or settled."""

from collections.abc import Mapping
from typing import Any
from typing import Literal as OneOf

from msgspec import Struct

from actors.delivery import Destination
from actors.delivery_ledger import DeadLetter, Ledger, Record, SetAside
from actors.destination import DestinationActor


class DeliveryView(Struct, frozen=True):
    """A delivery as it is listed: under way, waiting for its next attempt, delivered or dead."""

    id: str
    state: OneOf["pending", "in_flight", "retrying", "delivered", "dead"]
    kind: str
    key: str
    event: str
    profile: str
    user_id: str | None
    anonymous_id: str | None
    email: str | None
    value: Any
    at_ms: int
    attempts: int
    status: int
    reason: str
    settled_ms: int = 0
    next_ms: int = 0


class DestinationStatus(Struct, frozen=True):
    """How a destination is doing."""

    state: OneOf["connected", "disabled", "misconfigured", "failed"]
    reason: str
    pending: int  # changes read and not yet sent, and profiles of a list or a fill still to be compared
    more_pending: bool  # there is more in the log that has not been read yet
    in_flight: int
    delivered: int  # calls, ever
    retrying: int
    dead: int  # dead letters now
    given_up: int  # calls, ever
    retried: int  # failed attempts, ever
    circuit: OneOf["closed", "open", "half_open"]
    circuit_until_ms: int
    held_until_ms: int
    held_reason: str
    rate_per_s: float  # as its settings allow
    burst: int
    tokens: float
    allowed_per_s: float  # the rate that is used now: less after it asked everyone to wait
    achieved_per_s: float  # requests over the last minute
    lag_s: float  # how long the oldest change that is not yet told has been in the log
    behind: int  # entries of the log not yet read
    oldest_pending_ms: int | None
    last_delivered_ms: int
    last_error: str
    last_error_ms: int
    next_sync_ms: int | None
    passes: Mapping[str, str]  # connection -> fill, refill, withdraw or forget, while one goes on


class Found(Struct, frozen=True):
    """Dead letters that hold a text, and the id from which to look on, None at the end."""

    letters: tuple[DeadLetter, ...]
    after: str | None


def holds(letter: DeadLetter, text: str) -> bool:
    """Tell whether a text stands in a dead letter, whatever its case."""
    call = letter.call
    ids = (value for _, value in call.ids)
    held = (call.id, call.key, call.event, call.kind, call.profile, str(letter.status), letter.reason, *ids)
    return any(text.casefold() in one.casefold() for one in held)


def status_of(
    destination: Destination,
    ledger: Ledger,
    actor: DestinationActor | None,
    *,
    failure: str,
    now_ms: int,
    last_seq: int,
    read_seq: int,
) -> DestinationStatus:
    """Return how a destination is doing."""
    state = ledger.state
    problem = actor.problem if actor is not None else ""
    shown: OneOf["connected", "disabled", "misconfigured", "failed"] = "connected"
    if not destination.enabled:
        shown = "disabled"
    elif failure:
        shown = "failed"
    elif problem:
        shown = "misconfigured"
    at_rest = actor is None or not actor.loaded  # then what waits is in rows alone
    aside = ledger.set_aside() if at_rest else SetAside(0, 0, 0)
    lanes = actor.lanes.lanes() if actor is not None and not at_rest else []
    in_flight = sum(lane.in_flight for lane in lanes)
    waiting = [lane.jobs[0].queued_ms for lane in lanes if lane.jobs]
    since_ms = min((lane.jobs[0].since_ms for lane in lanes if lane.jobs and not lane.in_filling), default=now_ms)
    pending = sum(len(lane.jobs) for lane in lanes) - sum(1 for lane in lanes if lane.in_flight or lane.attempts)
    reconciling = sum(one.job.what == "reconcile" for lane in lanes for one in lane.jobs) + aside.reconciling
    return DestinationStatus(
        state=shown,
        reason=failure or problem,
        pending=pending + aside.pending + max(0, state.unsettled - reconciling),
        more_pending=actor is None or not actor.lanes.open or not destination.enabled,
        in_flight=in_flight,
        delivered=state.delivered,
        retrying=aside.retrying if actor is None or at_rest else actor.lanes.retrying,
        dead=state.dead,
        given_up=state.given_up,
        retried=state.retried,
        circuit=state.breaker.state,
        circuit_until_ms=state.breaker.until_ms,
        held_until_ms=state.held_until_ms if state.held_until_ms > now_ms else 0,
        held_reason=state.held_reason if state.held_until_ms > now_ms else "",
        rate_per_s=actor.limits.rate_per_s if actor is not None else 0.0,
        burst=actor.limits.burst if actor is not None else 0,
        tokens=actor.allowance.level(now_ms) if actor is not None else 0.0,
        allowed_per_s=actor.allowance.rate_per_s if actor is not None else 0.0,
        achieved_per_s=actor.allowance.achieved_per_s(now_ms) if actor is not None else 0.0,
        lag_s=max(0, now_ms - since_ms) / 1000,
        behind=max(0, last_seq - read_seq),
        oldest_pending_ms=min(waiting, default=None),
        last_delivered_ms=state.last_delivered_ms,
        last_error=state.last_error,
        last_error_ms=state.last_error_ms,
        next_sync_ms=actor.next_sync_ms() if actor is not None else None,
        passes={connection: walk.what for connection, walk in state.walks.items()},
    )


def waiting(actor: DestinationActor, limit: int) -> list[DeliveryView]:
    """Return the calls that are under way or wait."""
    views: list[DeliveryView] = []
    for lane in actor.lanes.lanes():
        if lane.work is None or len(views) >= limit:
            continue
        for index, call in enumerate(lane.work.calls(limit - len(views))):
            state: OneOf["pending", "in_flight", "retrying"] = "pending"
            if index < lane.in_flight:
                state = "in_flight"
            elif index == 0 and lane.attempts:
                state = "retrying"
            views.append(
                DeliveryView(
                    id=call.id,
                    state=state,
                    kind=call.kind,
                    key=call.key,
                    event=call.event,
                    profile=call.profile,
                    user_id=call.user_id,
                    anonymous_id=call.anonymous,
                    email=call.email,
                    value=call.value,
                    at_ms=call.at_ms,
                    attempts=lane.attempts if index == 0 else 0,
                    status=0,
                    reason=lane.reason if index == 0 else "",
                    next_ms=lane.next_ms if index == 0 else 0,
                )
            )
    return views


def settled(record: Record) -> DeliveryView:
    """Return a settled call."""
    call = record.call
    return DeliveryView(
        id=call.id,
        state=record.how,
        kind=call.kind,
        key=call.key,
        event=call.event,
        profile=call.profile,
        user_id=call.user_id,
        anonymous_id=call.anonymous,
        email=call.email,
        value=call.value,
        at_ms=call.at_ms,
        attempts=record.attempts,
        status=record.status,
        reason=record.reason,
        settled_ms=record.at_ms,
    )
