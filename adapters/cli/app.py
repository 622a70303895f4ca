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

from adapters.cli import (
    access,
    checking,
    copies,
    explaining,
    exporting,
    importing,
    questions,
    replaying,
    serving,
)
from adapters.cli.options import MisusedError
from adapters.cli.terminal import complain
from eventlog.errors import QueryError, TurnoutError

GOOD: Final = 0
FAILED: Final = 1
MISUSED: Final = 2

RUN: Final = Group("Run", sort_key=0)
ASK: Final = Group("Ask", sort_key=1)
MOVE: Final = Group("Move data", sort_key=2)
KEEP: Final = Group("Look after", sort_key=3)

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
    app.command(serving.serve_, name="serve", group=RUN, help_epilogue=serving.EXAMPLES)
    app.command(questions.preview, group=ASK, help_epilogue=questions.PREVIEW_EXAMPLES)
    app.command(questions.members, group=ASK, help_epilogue=questions.MEMBERS_EXAMPLES)
    app.command(checking.check, group=ASK, help_epilogue=checking.EXAMPLES)
    app.command(explaining.explain, group=ASK, help_epilogue=explaining.EXAMPLES)
    app.command(importing.import_, name="import", group=MOVE, help_epilogue=importing.EXAMPLES)
    app.command(exporting.export, group=MOVE, help_epilogue=exporting.EXAMPLES)
    app.command(access.tokens_app(KEEP))
    app.command(replaying.replay, group=KEEP, help_epilogue=replaying.EXAMPLES)
    app.command(copies.backup, group=KEEP, help_epilogue=copies.BACKUP_EXAMPLES)
    app.command(copies.restore, group=KEEP, help_epilogue=copies.RESTORE_EXAMPLES)
    return app


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
