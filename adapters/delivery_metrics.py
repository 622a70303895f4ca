"""Deliveries as Prometheus metrics, read from the destinations' own counts when they are asked for."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.supervisor import Deliveries, DestinationStatus

Reading = Callable[[DestinationStatus], float]

LABELS: Final = ("space", "destination", "type", "name")
CIRCUITS: Final = {"closed": 0, "half_open": 1, "open": 2}
GAUGES: Final[Mapping[str, tuple[str, Reading]]] = {
    "turnout_deliveries_pending": ("Changes read and not yet sent.", lambda one: one.pending),
    "turnout_deliveries_in_flight": ("Calls under way.", lambda one: one.in_flight),
    "turnout_deliveries_retrying": ("Profiles whose next call failed and waits.", lambda one: one.retrying),
    "turnout_dead_letters": ("Dead letters that nobody has sent again or deleted.", lambda one: one.dead),
    "turnout_delivery_behind_entries": ("Entries of the log not yet read.", lambda one: one.behind),
    "turnout_delivery_lag_seconds": (
        "How long the oldest change that is not yet told has been in the log.",
        lambda one: one.lag_s,
    ),
    "turnout_delivery_allowed_per_second": (
        "Requests a second that may go: less than the setting after the destination asked to wait.",
        lambda one: one.allowed_per_s,
    ),
    "turnout_delivery_achieved_per_second": (
        "Requests a second that went, over the last minute.",
        lambda one: one.achieved_per_s,
    ),
    "turnout_delivery_circuit": ("0 closed, 1 probing, 2 open.", lambda one: CIRCUITS[one.circuit]),
}
COUNTERS: Final[Mapping[str, tuple[str, Reading]]] = {
    "turnout_deliveries_delivered": ("Calls that were taken.", lambda one: one.delivered),
    "turnout_deliveries_given_up": ("Calls that became dead letters.", lambda one: one.given_up),
    "turnout_deliveries_failed_attempts": ("Attempts that failed and are tried again.", lambda one: one.retried),
}
DELIVERY_METRIC_NAMES: Final = (*GAUGES, *(f"{name}_total" for name in COUNTERS))


class DeliveryCollector(Collector):
    """The destinations' metrics."""

    def __init__(self, by_space: Callable[[], Mapping[str, Deliveries]]) -> None:
        """Read metrics from the deliveries of the spaces that are open."""
        self._by_space = by_space

    def collect(self) -> Iterable[Metric]:
        """Yield every metric, a sample for each destination; `docs/operations.md` explains them."""
        found = [
            ((space, one.id, one.type, one.name), deliveries.status(one.id))
            for space, deliveries in self._by_space().items()
            for one in deliveries.destinations.destinations()
        ]
        for name, (text, reading) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=LABELS)
            for labels, status in found:
                gauge.add_metric(labels, reading(status))
            yield gauge
        for name, (text, reading) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=LABELS)
            for labels, status in found:
                counter.add_metric(labels, reading(status))
            yield counter
