"""The sample data is what its page says, and keeps its shape when it is moved in time."""

import json
from collections import Counter

from eventlog.instants import instant_ms
from scenarios.retail import END_MS, FILE, dated, invoices, messages, moved

DAY_MS = 86_400_000


def time_ms(line: bytes) -> int:
    found = instant_ms(json.loads(line)["timestamp"])
    assert found is not None
    return found


def test_the_sample_data_is_what_its_page_says_and_names_its_source() -> None:
    rows = [json.loads(line) for line in messages()]
    kinds = Counter(row.get("event", row["type"]) for row in rows)
    page = (FILE.parent / "README.md").read_text()
    for kind, count in kinds.items():
        assert f"{kind}` | {count:,} |" in page or f"| {kind} | {count:,} |" in page
    assert max(map(time_ms, messages())) == END_MS
    assert "CC BY 4.0" in page
    assert "10.24432/C5BW33" in page


def test_moving_changes_the_timestamps_alone_and_all_by_the_same() -> None:
    before, by_ms = messages()[::500], 5_500 * DAY_MS + 1
    for old, new in zip(before, moved(before, by_ms), strict=True):
        assert time_ms(new) - time_ms(old) == by_ms
        assert {**json.loads(new), "timestamp": ""} == {**json.loads(old), "timestamp": ""}


def test_dating_puts_all_messages_at_one_moment() -> None:
    assert {time_ms(line) for line in dated(messages()[:100], 1_772_323_200_000)} == {1_772_323_200_000}


def test_an_invoice_holds_what_one_customer_did_in_one_go() -> None:
    all_messages = messages()
    found = invoices(all_messages)
    assert [line for invoice in found for line in invoice] == all_messages
    for invoice in found:
        rows = [json.loads(line) for line in invoice]
        assert len({row["timestamp"] for row in rows}) == 1
        assert len({row.get("userId") or row["anonymousId"] for row in rows}) == 1
