"""What runs the daemon asks of it: is it alive, is it ready, how is it doing, what time is it.

`/health/live` and `/health/ready` answer anyone, from the first moment of a start on; `/metrics` (Prometheus) takes a
token with `audiences:read`, `/clock` one with `admin`. Metrics are read from the parts' own counts when they are
asked for: counting costs the hot path an addition, and nothing is kept twice.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from actors.control import ADMIN, AUDIENCES_READ
from actors.space_api import SpaceApi
from adapters.http.auth import Gate, management_refusal, refusal_headers
from adapters.http.body import CallError, ClientGoneError, Receive, read_body
from adapters.http.tracking import SECONDS_LEAST, Counts
from eventlog.clock import Clock
from eventlog.errors import InvalidError, RefusedError
from eventlog.instants import instant_ms, iso

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

LIVE: Final = "/health/live"
READY: Final = "/health/ready"
METRICS: Final = "/metrics"
CLOCK: Final = "/clock"
PATHS: Final = (LIVE, READY, METRICS, CLOCK)
CLOCK_BODY_BYTES_MAX: Final = 1_000  # {"now": …}
CLOCK_MS_MAX: Final = 253_402_300_799_999  # 9999-12-31, the last day that ISO 8601 spells in four digits


class Watched(Protocol):
    """What is asked of the daemon."""

    clock: Clock

    @property
    def condition(self) -> str:
        """Return `starting`, `ready`, `stopping` or `failed`."""

    @property
    def gate(self) -> Gate:
        """Return what lets requests in. Raises RefusedError while the daemon is starting."""

    async def set_clock(self, now_ms: int) -> None:
        """Move the simulated clock, and return once all that follows has happened. Raises ConflictError."""


class OperationsApp:
    """The ASGI app of PATHS."""

    def __init__(self, watched: Watched, registry: CollectorRegistry) -> None:
        self._watched = watched
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to one of PATHS."""
        headers = dict(scope["headers"])
        try:
            status, kind, body = await self._answer(scope, headers, receive)
            extra: dict[str, str] = {}
        except ClientGoneError:
            return
        except RefusedError as error:
            status, kind, body = error.status, b"application/json", msgspec.json.encode(management_refusal(error))
            extra = refusal_headers(error)
        head = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        head.extend((name.lower().encode(), value.encode()) for name, value in extra.items())
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> tuple[int, bytes, bytes]:
        path, method = scope["path"], scope["method"]
        if method not in ("GET", "HEAD") and (path != CLOCK or method != "PUT"):
            raise CallError(405, "method_not_allowed", f"found {method}, expected GET{' or PUT' * (path == CLOCK)}")
        if path == LIVE:
            return _json(200, {"status": "live"})
        if path == READY:
            condition = self._watched.condition
            return _json(200 if condition == "ready" else 503, {"status": condition})
        authorization = headers.get(b"authorization")
        known = None if authorization is None else authorization.decode("latin-1")
        self._watched.gate.admit(known, AUDIENCES_READ if path == METRICS else ADMIN)
        if path == METRICS:
            return 200, CONTENT_TYPE_LATEST.encode(), generate_latest(self._registry)
        if method == "PUT":
            body = await read_body(headers, receive, bytes_max=CLOCK_BODY_BYTES_MAX)
            await self._watched.set_clock(wanted_time_ms(body))
        return _json(200, {"data": {"now": iso(self._watched.clock.now_ms())}})


class _Wanted(Struct, frozen=True):
    """The body of `PUT /clock`."""

    now: str | int


def wanted_time_ms(body: bytes) -> int:
    """Return the time in `{"now": T}`, ISO 8601 or milliseconds since 1970. Raises InvalidError."""
    try:
        now = msgspec.json.decode(body, type=_Wanted).now
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidError("invalid", f'expected {{"now": "2026-03-01T00:00:00Z"}}: {error}', field="now") from None
    now_ms = instant_ms(now) if isinstance(now, str) else now
    if now_ms is None or not 0 <= now_ms <= CLOCK_MS_MAX:
        raise InvalidError("invalid", f"now: found {now!r}, expected a time as in 2026-03-01T00:00:00Z", field="now")
    return now_ms


def _json(status: int, value: object) -> tuple[int, bytes, bytes]:
    return status, b"application/json", msgspec.json.encode(value)


class DaemonCollector(Collector):
    """The daemon's metrics, read from its parts when they are asked for."""

    def __init__(
        self,
        counts: Counts,
        spaces: Callable[[], Sequence[SpaceApi]],
        tick_lag_ms: Callable[[], int],
        connections: Callable[[], int],
    ) -> None:
        """Read metrics from the tracking API's counts, the open spaces, the ticker and the server."""
        self._counts = counts
        self._spaces = spaces
        self._tick_lag_ms = tick_lag_ms
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        """Yield every metric; `docs/operations.md` explains them."""
        yield from self._tracking()
        yield from self._by_space()
        yield GaugeMetricFamily("turnout_connections", "Open connections.", value=self._connections())
        yield GaugeMetricFamily(
            "turnout_timer_lag_seconds",
            "How much later than due the last timer fired: exits happen on time while this is under 1.",
            value=self._tick_lag_ms() / 1000,
        )

    def _tracking(self) -> Iterable[Metric]:
        counts = self._counts
        requests = CounterMetricFamily("turnout_tracking_requests", "Tracking requests answered.", labels=["status"])
        for status, number in sorted(counts.requests.items()):
            requests.add_metric([str(status)], number)
        yield requests
        refused = CounterMetricFamily("turnout_events_refused", "Events refused, by reason.", labels=["code"])
        for code, number in sorted(counts.events_refused.items()):
            refused.add_metric([code], number)
        yield refused
        yield CounterMetricFamily("turnout_events_taken", "Events taken, duplicates too.", value=counts.events_taken)
        yield CounterMetricFamily(
            "turnout_tracking_bytes", "Bytes of tracking bodies, unpacked.", value=counts.bytes_in
        )
        yield GaugeMetricFamily(
            "turnout_tracking_requests_in_flight", "Tracking requests worked on now.", value=counts.in_flight
        )
        seconds = HistogramMetricFamily(
            "turnout_tracking_request_seconds", "From the first byte seen by the app to the durable answer."
        )
        below, buckets = 0, []
        for edge, number in zip((*SECONDS_LEAST, float("inf")), counts.within_s, strict=True):
            below += number
            buckets.append(("+Inf" if edge == float("inf") else f"{edge:g}", below))
        seconds.add_metric([], buckets, sum_value=counts.seconds)
        yield seconds

    def _by_space(self) -> Iterable[Metric]:
        entries = GaugeMetricFamily("turnout_log_entries", "Entries in the log.", labels=["space"])
        sizes = GaugeMetricFamily(
            "turnout_definition_size", "Members of an audience, entities with a trait.", labels=["space", "key"]
        )
        backfills = GaugeMetricFamily("turnout_definitions_locked", "Backfills going on.", labels=["space"])
        for space in self._spaces():
            entries.add_metric([space.id], space.log.last_seq)
            views = space.definitions()
            for view in views:
                sizes.add_metric([space.id, view.definition.key], view.size)
            backfills.add_metric([space.id], sum(view.locked for view in views))
        yield from (entries, sizes, backfills)


METRIC_NAMES: Final = (
    "turnout_tracking_requests_total",
    "turnout_events_refused_total",
    "turnout_events_taken_total",
    "turnout_tracking_bytes_total",
    "turnout_tracking_requests_in_flight",
    "turnout_tracking_request_seconds",
    "turnout_log_entries",
    "turnout_definition_size",
    "turnout_definitions_locked",
    "turnout_connections",
    "turnout_timer_lag_seconds",
)
"""Every metric of ours; the process's own (process_…, python_info) stand beside them."""
