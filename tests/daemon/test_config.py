"""The settings: where they come from, which goes before which, and how wrong ones are told."""

import re
from pathlib import Path
from typing import Any

import pytest

from adapters.config import RULES, Settings, default_of, expected_of, load_settings, unknown_variables
from eventlog.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "turnout.toml"
    path.write_text(text)
    return path


def test_without_any_settings_the_defaults_hold() -> None:
    assert load_settings() == Settings()
    assert load_settings(None, {"PATH": "/bin", "TURNOUT_TOKEN": "tt_1"}, {"port": None}) == Settings()


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, 'host = "0.0.0.0"\nport = 1\nlog_level = "debug"')
    settings = load_settings(path, {"TURNOUT_PORT": "2", "TURNOUT_LOG_LEVEL": "error"}, {"port": 3})
    assert (settings.host, settings.log_level, settings.port) == ("0.0.0.0", "error", 3)  # noqa: S104 - only compared


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("Yes", True), ("0", False), ("", False)])
def test_a_switch_is_read_from_the_environment(text: str, value: bool) -> None:
    assert load_settings(None, {"TURNOUT_ALLOW_PRIVATE_DESTINATIONS": text}).allow_private_destinations is value


def test_a_simulated_clock_is_an_iso_time() -> None:
    assert load_settings().simulated_clock_ms is None
    assert load_settings(given={"simulated_clock": "2026-03-01"}).simulated_clock_ms == 1_772_323_200_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('port = "8765"', "port: found '8765', expected a whole number from 0 to 65535 (in "),
        ("port = 65536", "port: found 65536, expected a whole number from 0 to 65535 (in "),
        ("port = -1", "port: found -1, expected"),
        ("port = true", "port: found True, expected"),
        ("port = 1.5", "port: found 1.5, expected"),
        ("prot = 1", "prot: there is no such setting; did you mean port? (in "),
        ("[server]\nport = 1", "server: there is no such setting"),
        ("allow_private_destinations = 1", "allow_private_destinations: found 1, expected true or false"),
        ('log_format = "xml"', "log_format: found 'xml', expected auto or json or console"),
        ("request_timeout_s = nan", "request_timeout_s: found nan, expected a number from 0.05 to 3600"),
        ('data = " "', "data: found ' ', expected text that is not empty"),
        ('simulated_clock = "noon"', "simulated_clock: found 'noon', expected an ISO 8601 time, as in 2026-03-01"),
        ("port 1", "not TOML: "),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings(file(tmp_path, text))


@pytest.mark.parametrize(("name", "text"), [("PORT", "http"), ("PORT", ""), ("TOKEN_RATE_PER_S", "inf")])
def test_a_wrong_variable_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name.lower()}: found .*\(in TURNOUT_{name}\)"):
        load_settings(None, {f"TURNOUT_{name}": text})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file"):
        load_settings(tmp_path / "missing.toml")


def test_what_kubernetes_sets_for_a_service_named_turnout_is_left_alone() -> None:
    environment = {"TURNOUT_PORT": "tcp://10.0.0.1:80", "TURNOUT_SERVICE_HOST": "10.0.0.1", "TURNOUT_PORT_80_TCP": "x"}
    assert load_settings(None, environment) == Settings()
    assert unknown_variables(environment) == []


def test_variables_that_only_look_like_settings_are_told() -> None:
    environment = {"TURNOUT_DATA": "x", "TURNOUT_DATTA": "y", "TURNOUT_TOKEN": "z", "HOME": "/"}
    assert unknown_variables(environment) == ["TURNOUT_DATTA; did you mean data?"]


def shown(value: Any) -> str:
    if value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


def test_the_documentation_lists_every_setting_as_it_is() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{name}` | {shown(default_of(name))} | {expected_of(name)} | {rule.meaning} |"
        for name, rule in RULES.items()
    ]
