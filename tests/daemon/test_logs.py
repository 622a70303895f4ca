"""The daemon's own log."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from adapters.logs import configure_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_hold_the_event_its_fields_and_the_time() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    structlog.get_logger("t").warning("throttled", destination="crm", retry_after_ms=1500)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "throttled", "level": "warning", "destination": "crm", "retry_after_ms": 1500}


def test_libraries_come_out_the_same_way() -> None:
    stream = io.StringIO()
    configure_logs("auto", "info", stream)  # no terminal: JSON
    logging.getLogger("some.library").error("broke %s", "twice")
    logging.getLogger("aiosqlite").info("chatter")
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "broke twice"


def test_an_exception_stands_in_its_line() -> None:
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger("t").exception("failed")
    assert "ValueError: why" in json.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_is_told_without_the_values_of_variables(log_format: str) -> None:
    stream = io.StringIO()
    configure_logs(log_format, "info", stream)
    authorization = "-".join(["Bearer", "secret"])  # its text does not stand in the source
    try:
        raise ValueError(len(authorization))
    except ValueError:
        structlog.get_logger("t").exception("failed")
    assert "ValueError: 13" in stream.getvalue()
    assert authorization not in stream.getvalue()


def test_what_is_below_the_level_is_left_out() -> None:
    stream = io.StringIO()
    configure_logs("console", "warning", stream)
    structlog.get_logger("t").info("quiet")
    structlog.get_logger("t").warning("loud", number=1)
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()
    assert "number=1" in stream.getvalue()
