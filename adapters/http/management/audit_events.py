"""The audit trail: who did what to which resource, newest first."""

from typing import Annotated, Final

from litestar import get
from litestar.params import QueryParameter

from actors.control import AuditRow
from adapters.http.context import ApiRequest, api_of, caller_of
from adapters.http.envelopes import (
    Data,
    PageQuery,
    PaginationOutput,
    Shape,
    optional_time_ms,
)
from eventlog.instants import iso

READ_MAX: Final = 1_000  # acts looked at a time while filtering


class AuditEvent(Shape, frozen=True):
    """An administrative act; `actor` is the id of the token that did it."""

    id: str
    timestamp: str
    type: str
    actor: str
    resource_id: str
    resource_type: str
    resource_name: str
    space_id: str | None = None


class AuditEvents(Shape, frozen=True):
    """A page of acts."""

    events: list[AuditEvent]
    pagination: PaginationOutput


@get("/audit-events", summary="List audit events")
async def list_audit_events(
    request: ApiRequest,
    page: PageQuery,
    start_time: Annotated[str | None, QueryParameter(name="startTime", description="acts at or after it")] = None,
    end_time: Annotated[str | None, QueryParameter(name="endTime", description="acts before it")] = None,
    resource_id: Annotated[str | None, QueryParameter(name="resourceId")] = None,
    resource_type: Annotated[str | None, QueryParameter(name="resourceType")] = None,
    within: Annotated[
        str | None, QueryParameter(name="spaceId", description="acts in this space: ids are unique in a space alone")
    ] = None,
) -> Data[AuditEvents]:
    """List acts, newest first. A token of one space sees the acts of that space."""
    control = api_of(request).daemon.control
    space_id = caller_of(request).space_id
    wanted_id = None if within is None else control.space(within).id
    start_ms, end_ms = optional_time_ms(start_time, "startTime"), optional_time_ms(end_time, "endTime")

    def wanted(row: AuditRow) -> bool:
        act = row.act
        return (
            (not space_id or space_id in (act.space_id, act.resource_id))
            and (wanted_id is None or wanted_id in (act.space_id, act.resource_id))
            and (start_ms is None or row.at_ms >= start_ms)
            and (end_ms is None or row.at_ms < end_ms)
            and resource_id in (None, act.resource_id)
            and (resource_type is None or resource_type.lower() == act.resource_type.lower())
        )

    before = None if page.cursor is None else page.cursors.decode(page.cursor, "audit", tuple[int | None])[0]
    found: list[AuditRow] = []
    while len(found) <= page.count and (rows := control.acts(before_seq=before, limit=READ_MAX)):
        found += filter(wanted, rows)
        before = rows[-1].seq
    shown = found[: page.count]
    pagination = PaginationOutput(
        current=page.cursor or page.cursors.encode("audit", None),
        next=page.cursors.encode("audit", shown[-1].seq) if len(found) > page.count else None,
    )
    return Data(AuditEvents(events=[_event(row) for row in shown], pagination=pagination))


def _event(row: AuditRow) -> AuditEvent:
    act = row.act
    return AuditEvent(
        id=f"audit_{row.seq}",
        timestamp=iso(row.at_ms),
        type=act.type,
        actor=act.actor,
        resource_id=act.resource_id,
        resource_type=act.resource_type,
        resource_name=act.resource_name,
        space_id=act.space_id or None,
    )


ROUTES = [list_audit_events]
