"""The application `turnout`: its commands, and what its exit statuses mean.

0 is good, 1 failed (the data, the definition or the daemon said no), 2 misused (the command line cannot be meant).
Commands that run scenarios are added by `scenarios/cli.py`, which may import them.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from cyclopts import App, CycloptsError, Group, Parameter
from rich.text import Text

from adapters.cli.commands import COMMANDS, FAMILIES, KEEP, Command
from adapters.cli.options import MisusedError
from adapters.cli.terminal import complain
from eventlog.errors import QueryError, TurnoutError

GOOD: Final = 0
FAILED: Final = 1
MISUSED: Final = 2

ABOUT: Final = (
    "Audiences and computed traits from customer events, in real time.\n\n"
    "turnout demo shows it at work on real data. turnout serve runs a daemon; the other commands ask that daemon "
    "(--url and TURNOUT_TOKEN) or open a data directory themselves (--data, by default ./turnout-data)."
)


def application() -> App:
    """Return the application with every command that needs no scenario."""
    app = App(
        name="turnout",
        help=ABOUT,
        version=version("turnout"),
        help_epilogue="Exit status: 0 good, 1 failed, 2 misused.",
        error_formatter=_misused,
        help_format="plaintext",
        default_parameter=Parameter(negative=""),
        group_commands=Group("Help", sort_key=9),
    )
    for family, (about, shown) in FAMILIES.items():
        app.command(App(name=family, help=about, help_epilogue=shown, group=KEEP))
    for names, command in COMMANDS.items():
        add(app, names, command)
    return app


def add(app: App, names: str, command: Command) -> None:
    """Add a command to the application, or, where its name is two words, to the one that it is under."""
    *above, name = names.split()
    parent = app[above[0]] if above else app
    group = None if above else command.group
    parent.command(command.where, name=name, help=command.about, help_epilogue=command.examples, group=group)


def run(app: App, arguments: Sequence[str]) -> int:
    """Carry out a command line and return its exit status."""
    try:
        status = app(list(arguments), result_action="return_value")
        sys.stdout.flush()
    except MisusedError as error:
        complain(error)
        return MISUSED
    except QueryError as error:
        complain(error, next((argument for argument in arguments if _holds(argument, error)), None))
        return FAILED
    except TurnoutError as error:
        complain(error)
        return FAILED
    except BrokenPipeError:
        # Whoever read the answer has seen enough (`turnout members … | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    return status if isinstance(status, int) else GOOD


def _holds(argument: str, error: QueryError) -> bool:
    """Tell whether a command line's argument is the definition that an error is about."""
    lines = argument.splitlines()
    return "(" in argument and error.line <= len(lines) and error.column <= len(lines[error.line - 1]) + 1


def _misused(error: CycloptsError) -> Text:
    command = " ".join(("turnout", *(error.command_chain or ())))
    return Text.assemble(("turnout: ", "bold red"), f"{error} (see {command} --help)")
