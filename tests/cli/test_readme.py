"""The README's commands run, as they stand, and do what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_serving import serving

HOUSE = Path(__file__).parents[2]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Make a folder with `turnout`, and with a curl where the machine has none."""
    folder = tmp_path / "programs"
    folder.mkdir()
    turnout = folder / "turnout"
    turnout.write_text(f'#!/bin/sh\nexec {sys.executable} -m scenarios.cli "$@"\n')
    turnout.chmod(0o755)
    if shutil.which("curl") is None:
        curl = folder / "curl"
        curl.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "curl.py"} "$@"\n')
        curl.chmod(0o755)
    return folder


def test_the_first_audience_of_the_readme_is_made_by_its_commands(tmp_path: Path, programs: Path) -> None:
    readme = (HOUSE / "README.md").read_text()
    (script,) = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    with serving(tmp_path / "data") as (_, said):
        secrets = {line.split()[0]: line.split()[-1] for line in said if line.startswith(("admin token", "write key"))}
        url = next(word for word in said[-1].split() if word.startswith("http://"))
        script = re.sub(r"^export .*$", "set -eu", script, flags=re.MULTILINE)
        script = script.replace("http://localhost:8765", url).replace(".venv/bin/turnout", "turnout")
        environment = {
            **os.environ,
            "TURNOUT_TOKEN": secrets["admin"],
            "WRITE_KEY": secrets["write"],
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        done = subprocess.run(["bash", "-c", script], env=environment, cwd=HOUSE, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert '{"success":true}' in done.stdout
    assert '"key":"big_spenders"' in done.stdout
    assert '"members":[{"id":"use_00000001","name":"ann"' in done.stdout
    assert '{"traits":{"big_spenders":true}' in done.stdout
    told = done.stdout.splitlines()
    shown = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)[0].splitlines()
    assert [re.sub(r"\S*\d{4}-\S+|[0-9a-f]{8}-\S+", "", line) for line in told[-3:]] == [
        re.sub(r"\S*\d{4}-\S+|[0-9a-f]{8}-\S+", "", line) for line in shown
    ]


def test_every_command_that_the_readme_names_is_one() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "scenarios.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    named = set(re.findall(r"`turnout ([a-z]+)", (HOUSE / "README.md").read_text()))
    assert len(named) > 12
    for name in named:
        assert re.search(rf"│ {name}\s", listed), name
