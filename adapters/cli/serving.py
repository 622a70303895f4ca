"""`turnout serve`: run the daemon until it is told to stop."""

import functools
import os
import sys
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from adapters.cli.opened import tell_secrets
from adapters.cli.options import DATA_DEFAULT, MisusedError
from adapters.cli.terminal import note
from adapters.config import PREFIX, load_settings, unknown_variables
from adapters.daemon import Daemon, serve
from adapters.logs import configure_logs
from eventlog.errors import ConfigError


def serve_(
    *,
    data: Annotated[str | None, Parameter(metavar="DIR")] = None,
    host: Annotated[str | None, Parameter(metavar="HOST")] = None,
    port: Annotated[int | None, Parameter(metavar="PORT")] = None,
    config: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    simulated_clock: Annotated[str | None, Parameter(metavar="TIME")] = None,
    log_format: Annotated[str | None, Parameter(metavar="FORMAT")] = None,
) -> int:
    """Run the daemon: take events, keep audiences, sync destinations, answer the APIs.

    The first start makes a space, a source and an admin token, and prints the token and the write key once.

    Args:
        data: Data directory, made if it is not there. [default: ./turnout-data]
        host: Address to listen on. [default: 127.0.0.1]
        port: Port to listen on; 0 takes a free one. [default: 8765]
        config: Configuration file (TOML).
        simulated_clock: Start the clock at this time (ISO 8601); it moves only by PUT /clock.
        log_format: json, console (for people), or auto: console at a terminal. [default: auto]
    """
    given = {
        "data": data,
        "host": host,
        "port": port,
        "simulated_clock": simulated_clock,
        "log_format": log_format,
    }
    try:
        load_settings(given=given)
    except ConfigError as error:
        raise MisusedError(str(error)) from None
    settings = load_settings(config, os.environ, given)
    configure_logs(settings.log_format, settings.log_level)
    for variable in unknown_variables(os.environ):
        note(f"turnout: {variable} is no setting and changes nothing")
    anyio.run(functools.partial(serve, settings, _tell), backend_options={"use_uvloop": True})
    return 0


def say(text: str) -> None:
    """Write a line to standard output at once; standard error is the log's."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _tell(daemon: Daemon) -> None:
    """Say where the daemon is, and the secrets of a first start."""
    if daemon.first is not None:
        tell_secrets(daemon.first, daemon.data_dir, say)
    say(f"Turnout listens on {daemon.url} (data in {daemon.data_dir}); Ctrl-C stops it.")


assert str(DATA_DEFAULT) == load_settings().data, "the daemon and the commands mean the same directory"
assert PREFIX == "TURNOUT_"
