"""The program `turnout`: the commands of `adapters/cli`, and those that run scenarios.

It stands here because imports go one way: nothing below may import scenarios.
"""

import gc
import sys
from typing import Final

from cyclopts import App

from adapters.cli.app import add, application, run
from adapters.cli.commands import COMMANDS as BELOW
from adapters.cli.commands import RUN, Command

COMMANDS: Final = {
    "demo": Command(
        "scenarios.commands:demo",
        RUN,
        "See Turnout at work: a daemon on real shop data, with audiences, a destination and live traffic.\n\n"
        "Everything lies in a temporary directory. A terminal shows a live picture, a pipe a line for each change. "
        "Ctrl-C ends it.",
        """
    turnout demo
    turnout demo --for 30s --port 0
""",
    ),
    "simulate": Command(
        "scenarios.commands:simulate",
        RUN,
        "Run scenarios on a simulated clock and tell what differs from what they expect.\n\n"
        "A scenario is a YAML file; a folder stands for all that lie in it. The same file gives the same outcome, on "
        "every machine. The exit status is 1 if something differs, a file is no scenario, or there is none.",
        """
    turnout simulate scenarios/library
    turnout simulate cart_abandonment.yaml --verbose
    turnout simulate scenarios --report json
    turnout simulate scenarios --chaos 20      # with random faults: does it end the same?
""",
    ),
}

REPLAY: Final = Command(
    "scenarios.what_if_command:replay",
    BELOW["replay"].group,
    BELOW["replay"].about,
    BELOW["replay"].examples.rstrip()
    + """
    turnout replay --with definitions.yaml --svg what-if.svg   # what would have been, day by day
""",
)

COLLECT_AFTER: Final = (500_000, 50, 1_000)
"""How many new objects before the collector looks for cycles. Entities are many, live long and have none: with Python's
700 the collector takes half of a fold's time (16 us an event against 7 with these)."""


def program() -> App:
    """Return the application with all of its commands."""
    app = application()
    for name, command in COMMANDS.items():
        add(app, name, command)
    del app["replay"]
    add(app, "replay", REPLAY)
    return app


def main() -> None:
    """Carry out the command line of this process."""
    gc.set_threshold(*COLLECT_AFTER)
    sys.exit(run(program(), sys.argv[1:]))


if __name__ == "__main__":
    main()
