"""The program `turnout`: the commands of `adapters/cli`, and those that run scenarios.

It stands here because imports go one way: nothing below may import scenarios.
"""

import sys

from cyclopts import App

from adapters.cli.app import application, run


def program() -> App:
    """Return the application with all of its commands."""
    return application()


def main() -> None:
    """Carry out the command line of this process."""
    sys.exit(run(program(), sys.argv[1:]))


if __name__ == "__main__":
    main()
