"""The picture of the README: what the demo really showed, as SVG.

python -m scenarios.demo_picture docs/img/demo.svg        (make docs)
"""

import io
import re
import sys
from pathlib import Path
from typing import Final

import anyio
from rich.console import Console

from scenarios.demo import demo

COLUMNS: Final = 112
RUN_S: Final = 40.0  # by then some leave as their windows close, while others still enter
PLAY_S: Final = 45.0


def save(path: Path) -> None:
    """Run the demo and save what it showed last; the admin token, long void, is left out."""

    async def run() -> None:
        shown = await demo(Console(file=io.StringIO()), port=0, for_s=RUN_S, play_s=PLAY_S)
        shown.address = re.sub(r"http://\S+", "http://127.0.0.1:8765", shown.address).partition("  admin")[0]
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        console.print(shown.picture())
        console.save_svg(str(path), title="turnout demo")

    anyio.run(run, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    save(Path(sys.argv[1]))
