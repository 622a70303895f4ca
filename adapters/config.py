"""The daemon's settings: one table, read from one file, the environment and the command line, checked at start.

What comes later in that order wins. A setting that is wrong stops the start with its name, where it stood, what was
found and what would be right; a daemon never runs on half of what it was told. `docs/configuration.md` lists the table,
and a test holds the two together.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from eventlog.errors import ConfigError
from eventlog.instants import instant_ms

PREFIX: Final = "TURNOUT_"
NOT_SETTINGS: Final = ("TURNOUT_TOKEN", "TURNOUT_URL")
"""Variables of the command line's, not of the daemon's."""
SERVICE_LINKS: Final = ("TURNOUT_SERVICE_", "TURNOUT_PORT_")
"""What Kubernetes sets for a service named turnout."""


class Settings(Struct, frozen=True):
    """How a daemon runs."""

    data: str = "turnout-data"
    host: str = "127.0.0.1"
    port: int = 8765
    simulated_clock: str = ""
    durability: str = "full"
    log_format: str = "auto"
    log_level: str = "info"
    allow_private_destinations: bool = False
    connections_max: int = 4_000
    requests_max: int = 1_000
    request_timeout_s: float = 30.0
    keep_alive_s: int = 75
    shutdown_timeout_s: float = 20.0
    token_rate_per_s: float = 1_000.0
    token_burst: int = 2_000
    exports_keep_days: float = 7.0

    @property
    def simulated_clock_ms(self) -> int | None:
        """Return where the simulated clock starts, None for real time."""
        return instant_ms(self.simulated_clock) if self.simulated_clock else None


class Rule(Struct, frozen=True):
    """What a setting means and what it may be."""

    meaning: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


RULES: Final = {
    "data": Rule("the data directory"),
    "host": Rule("the address to listen on; `0.0.0.0` for all of IPv4, `::` for all"),
    "port": Rule("the port to listen on; 0 takes a free one", least=0, most=65_535),
    "simulated_clock": Rule("an ISO 8601 time: the clock starts there and moves only by `PUT /clock`"),
    "durability": Rule(
        "`full`: an acknowledged event survives a power cut; `normal`: it survives the process alone, and is faster",
        choices=("full", "normal"),
    ),
    "log_format": Rule(
        "`json` lines, `console` for people, `auto`: console on a terminal", choices=("auto", "json", "console")
    ),
    "log_level": Rule("what is logged at least", choices=("debug", "info", "warning", "error")),
    "allow_private_destinations": Rule("let destinations call private and loopback addresses"),
    "connections_max": Rule("open connections; more are closed with `503`", least=1, most=100_000),
    "requests_max": Rule("tracking requests worked on at once; more get `503`", least=1, most=100_000),
    "request_timeout_s": Rule("seconds in which a whole request must have arrived, else `408`", least=0.05, most=3_600),
    "keep_alive_s": Rule("seconds after which an idle connection is closed", least=1, most=3_600),
    "shutdown_timeout_s": Rule("seconds that a stop waits for requests to end", least=0, most=3_600),
    "token_rate_per_s": Rule("requests a second of one access token; more get `429`", least=0.001, most=100_000),
    "token_burst": Rule("requests of one access token at once, after a pause", least=1, most=100_000),
    "exports_keep_days": Rule("days that the file of an export is kept once it is finished", least=0.001, most=3_650),
}
"""Every setting; its type and default are those of `Settings`."""

_NAMES: Final = tuple(RULES)
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off", "")


def load_settings(
    path: Path | None = None, environment: Mapping[str, str] | None = None, given: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings. Raises ConfigError.

    Args:
        path: the configuration file (TOML), if any.
        environment: variables such as TURNOUT_PORT.
        given: what the command line says; None counts as not said.
    """
    found: dict[str, Any] = {}
    if path is not None:
        for name, value in _read_file(path).items():
            if name not in RULES:
                raise ConfigError(f"{name}: there is no such setting{_near(name)} (in {path})")
            found[name] = _checked(name, value, f"in {path}")
    for variable, text in (environment or {}).items():
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name in RULES and not _is_service_link(name, text):
            found[name] = _checked(name, _from_text(name, text, variable), f"in {variable}")
    for name, value in (given or {}).items():
        if value is not None:
            found[name] = _checked(name, value, "on the command line")
    return Settings(**found)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings and are none; a start warns of them."""
    return sorted(
        f"{variable}{_near(variable.removeprefix(PREFIX).lower())}"
        for variable in environment
        if variable.startswith(PREFIX)
        and variable not in NOT_SETTINGS
        and not variable.startswith(SERVICE_LINKS)
        and variable.removeprefix(PREFIX).lower() not in RULES
    )


def default_of(name: str) -> Any:
    """Return a setting's default."""
    return getattr(Settings(), name)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a file that can be read with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}; a setting is a line such as port = 8765") from None


def _is_service_link(name: str, text: str) -> bool:
    """Tell whether Kubernetes set TURNOUT_PORT for a service named turnout: an address, never a setting."""
    return name == "port" and text.startswith(("tcp://", "udp://"))


def _from_text(name: str, text: str, variable: str) -> Any:
    kind = type(default_of(name))
    if kind is bool:
        lowered = text.strip().lower()
        if lowered not in (*_TRUE, *_FALSE):
            raise _wrong(name, text, f"in {variable}")
        return lowered in _TRUE
    if kind in (int, float):
        try:
            return kind(text.strip())
        except ValueError:
            raise _wrong(name, text, f"in {variable}") from None
    return text


def _checked(name: str, value: Any, where: str) -> Any:
    rule, kind = RULES[name], type(default_of(name))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise _wrong(name, value, where)
    if rule.choices and value not in rule.choices:
        raise _wrong(name, value, where)
    if kind in (int, float) and not _is_within(rule, value):
        raise _wrong(name, value, where)
    if name == "simulated_clock" and value and instant_ms(value) is None:
        raise _wrong(name, value, where)
    if name in ("data", "host") and not value.strip():
        raise _wrong(name, value, where)
    return value


def _is_within(rule: Rule, value: float) -> bool:
    return (rule.least is None or value >= rule.least) and (rule.most is None or value <= rule.most)


def _wrong(name: str, value: Any, where: str) -> ConfigError:
    return ConfigError(f"{name}: found {value!r}, expected {expected_of(name)} ({where})")


def expected_of(name: str) -> str:
    """Return in words what a setting may be."""
    rule, kind = RULES[name], type(default_of(name))
    if rule.choices:
        return " or ".join(rule.choices)
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number from {rule.least:g} to {rule.most:g}"
    if name == "simulated_clock":
        return "an ISO 8601 time, as in 2026-03-01T00:00:00Z"
    return "text that is not empty"


def _near(name: str) -> str:
    close = difflib.get_close_matches(name, _NAMES, 1)
    return f"; did you mean {close[0]}?" if close else ""


assert _NAMES == tuple(field.name for field in msgspec.structs.fields(Settings)), "RULES and Settings name the same"
