"""What Prometheus is told of deliveries: every number that the state has, for each destination."""

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from adapters.delivery_metrics import DELIVERY_METRIC_NAMES, DeliveryCollector
from tests.destinations.stage import MINUTE_MS, stage, track

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


async def test_metrics_tell_of_each_destination_what_its_state_does() -> None:
    async with stage() as it:
        crm = await it.webhook(rate=2)
        buyers = await it.audience("Buyers", "event('Bought').count() >= 1")
        await it.connect(buyers, crm, sendIdentify=False)
        it.receiver.script(200, 400, *[503] * 7)
        await it.send(*(track(f"u{n}", "Bought") for n in range(8)))
        await it.until(4_000)
        registry = CollectorRegistry()
        registry.register(DeliveryCollector(lambda: {"spa_1": it.deliveries}))
        lines = generate_latest(registry).decode().splitlines()
        labels = f'{{destination="{crm}",name="webhook",space="spa_1",type="webhook"}}'
        told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        read = {name: float(told[f"{name}{labels}"]) for name in DELIVERY_METRIC_NAMES}
        status = it.deliveries.status(crm)
        assert read["turnout_deliveries_delivered_total"] == status.delivered == 1
        assert read["turnout_dead_letters"] == read["turnout_deliveries_given_up_total"] == status.dead == 1
        assert read["turnout_deliveries_failed_attempts_total"] == status.retried >= 4
        assert read["turnout_delivery_allowed_per_second"] == 2
        assert read["turnout_delivery_circuit"] == {"closed": 0, "half_open": 1, "open": 2}[status.circuit]
        assert read["turnout_delivery_lag_seconds"] == status.lag_s == 4
        await it.until(5 * MINUTE_MS)
        status = it.deliveries.status(crm)
        assert (status.pending, status.lag_s, status.circuit) == (0, 0, "closed")


def test_every_metric_of_deliveries_is_documented() -> None:
    page = PAGE.read_text()
    assert [name for name in DELIVERY_METRIC_NAMES if f"`{name}`" not in page] == []
