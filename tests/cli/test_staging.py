"""The examples of docs/staging.md run, as they stand, against a daemon with a simulated clock."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.cli.test_readme import programs
from tests.cli.test_serving import serving

__all__ = ["programs"]

PAGE = Path(__file__).parents[2] / "docs" / "staging.md"


def test_the_examples_move_time_with_curl_and_then_with_python(tmp_path: Path, programs: Path) -> None:
    page = PAGE.read_text()
    serve, curl = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (python,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    start = serve.split()[-1]
    with serving(tmp_path / "data", "--simulated-clock", start) as (_, said):
        secrets = {line.split()[0]: line.split()[-1] for line in said if line.startswith(("admin token", "write key"))}
        url = next(word for word in said[-1].split() if word.startswith("http://"))
        environment = {
            **os.environ,
            "URL": url,
            "TURNOUT_TOKEN": secrets["admin"],
            "WRITE_KEY": secrets["write"],
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        for command in (["bash", "-euc", curl], [sys.executable, "-c", python]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
            clock = httpx.get(f"{url}/clock", headers={"Authorization": f"Bearer {secrets['admin']}"}).json()
            expected = "2026-03-08T12:00:00.000Z" if "bash" in command else "2026-03-15T12:00:00.000Z"
            assert clock == {"data": {"now": expected}}
