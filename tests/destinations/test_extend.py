"""The example of the page on adding a destination: taken off the page, added, and put to work."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adapters.destinations import DESTINATIONS
from tests.destinations import stage as stages
from tests.destinations.stage import SECOND_MS, answer, stage, track

PAGE = Path(__file__).parents[2] / "docs" / "extend" / "destination.md"


@pytest.fixture
def acme() -> ModuleType:
    """Return the page's file as a module."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    made = ModuleType("acme")
    exec(compile(code, str(PAGE), "exec"), made.__dict__)  # noqa: S102 - our own page
    return made


async def test_the_pages_example_is_a_destination_with_everything_that_the_others_have(
    acme: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "DESTINATIONS", {**DESTINATIONS, "acme": acme.ACME})
    async with stage() as it:
        settings = {"endpoint": "https://acme.example", "apiKey": "acme-secret"}
        destination = await it.destination("acme", settings)
        buyers = await it.audience("Buyers", "event('Bought').count() >= 1")
        await it.send(*(track(f"u{number}", "Bought") for number in range(60)))
        it.receiver.answers = [answer(400, body=b"no acme-secret")]
        await it.connect(buyers, destination)
        await it.until(10 * SECOND_MS)
        people: list[dict[str, Any]] = [
            one for seen in it.receiver.seen if seen.status == 200 for one in seen.message["people"]
        ]
        assert sorted(one["id"] for one in people) == sorted(f"u{number}" for number in range(60))
        assert {(one["tag"], one["on"]) for one in people} == {("buyers", True)}
        assert max(len(seen.calls) for seen in it.receiver.seen) == 50
        assert all("acme-secret" not in repr(one) for one in it.deliveries.failures(destination))
        assert it.destinations.shown(it.destinations.destination(destination))["apiKey"] == "********"
        assert (await it.deliveries.ping(destination)).how == "delivered"
