"""What folds read of a stored call."""

import pytest

from eventlog.errors import LogError
from eventlog.messages import EventData, decode_data


def test_the_parts_that_definitions_look_at_are_decoded() -> None:
    data = decode_data(
        b'{"type":"track","event":"A","userId":"u","properties":{"a":[1,{"b":2.5}]},"context":{"ip":"x"}}'
    )
    assert data == EventData(event="A", properties={"a": [1, {"b": 2.5}]}, context={"ip": "x"})
    assert decode_data(b'{"name":"Home","traits":{"email":"e"},"event":null}') == EventData(
        name="Home", traits={"email": "e"}
    )


def test_a_field_of_an_unexpected_type_counts_as_absent() -> None:
    assert decode_data(b'{"event":7,"properties":"x","traits":{"a":1}}') == EventData(traits={"a": 1})
    assert decode_data(b"[1]") == EventData()


def test_an_erased_event_has_nothing_to_look_at() -> None:
    assert decode_data(b"") == EventData()


def test_a_body_that_is_no_json_is_an_error_of_ours() -> None:
    with pytest.raises(LogError, match="not JSON"):
        decode_data(b'{"event":')
