"""The page docs/cli.md: every command's help text, as the program prints it.

python -m scenarios.cli_reference > docs/cli.md        (make docs)
"""

import io
import sys
from collections.abc import Iterator
from typing import Final

from cyclopts import App
from rich.console import Console

from scenarios.cli import program

COLUMNS: Final = 100

OPENING: Final = """\
# The command line

This page is generated (`make docs`) from what `turnout COMMAND --help` prints.

Exit status: **0** good, **1** failed (the data, the definition or the daemon said no), **2** misused (the command line
cannot be meant). Answers go to standard output, everything about the work itself (progress, warnings, errors, logs) to
standard error; progress bars are shown at a terminal only.

Commands about data open a data directory themselves (`--data DIR`, by default `./turnout-data`), which is refused while
a daemon holds it, or ask a daemon (`--url http://localhost:8765`) with the token in `TURNOUT_TOKEN`.
"""


def page() -> str:
    """Return the page."""
    app = program()
    parts = [OPENING]
    for names in commands(app):
        shown = io.StringIO()
        console = Console(file=shown, width=COLUMNS, color_system=None)
        app.help_print([*names], console=console)
        text = "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())
        parts.append(f"## turnout {' '.join(names)}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def commands(app: App, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the names of every command, those of its own commands after it."""
    for name in sorted(app):
        if not name.startswith("-"):
            yield (*above, name)
            yield from commands(app[name], (*above, name))


if __name__ == "__main__":
    sys.stdout.write(page())
