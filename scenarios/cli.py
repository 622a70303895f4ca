"""The program `turnout`: the commands of `adapters/cli`, and those that run scenarios.

It stands here because imports go one way: nothing below may import scenarios.
"""

import gc
import sys
from typing import Final

from cyclopts import App

from adapters.cli.app import application, run

COLLECT_AFTER: Final = (100_000, 50, 1_000)
"""How many new objects before the collector looks for cycles. Entities are many, live long and have none: with Python's
700 the collector takes half of a fold's time (16 us an event against 7 with these)."""


def program() -> App:
    """Return the application with all of its commands."""
    return application()


def main() -> None:
    """Carry out the command line of this process."""
    gc.set_threshold(*COLLECT_AFTER)
    sys.exit(run(program(), sys.argv[1:]))


if __name__ == "__main__":
    main()
