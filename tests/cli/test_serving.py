"""`turnout serve` as a process of its own: it says where it listens, and a signal stops it with nothing lost."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Turnout

READY_S_MAX = 60.0


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a daemon and yield it with what it said until it was ready."""
    command = [sys.executable, "-m", "scenarios.cli", "serve", "--data", str(data), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said: list[str] = []
            for line in process.stdout:
                said.append(line.strip())
                if "listens on" in line:
                    break
            yield process, said
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_daemon_says_where_it_listens_and_a_signal_stops_it_with_nothing_lost(
    turnout: Turnout, tmp_path: Path, number: signal.Signals
) -> None:
    data = tmp_path / "data"
    with serving(data) as (process, said):
        write_key = next(line.split()[-1] for line in said if line.startswith("write key"))
        url = next(word for word in said[-1].split() if word.startswith("http://"))
        call = {"userId": "ann", "event": "Last Call"}
        answer = httpx.post(f"{url}/v1/track", json=call, auth=(write_key, ""), timeout=READY_S_MAX)
        assert answer.json() == {"success": True}
        process.send_signal(number)
        _, log = process.communicate(timeout=READY_S_MAX)
        assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines] == ["ready", "stopping", "stopped"]
    ran = turnout("preview", "event('Last Call').count() = 1", "--ids", "--data", data)
    assert ran.out == "ann\n"


def test_a_second_start_tells_no_secrets(tmp_path: Path) -> None:
    for is_first in (True, False):
        with serving(tmp_path / "data") as (_, said):
            assert any("admin token" in line for line in said) is is_first


def test_a_daemon_that_cannot_start_says_why_and_fails(turnout: Turnout, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    ran = turnout("serve", "--data", tmp_path / "file", "--port", "0")
    assert (ran.status, ran.out) == (1, "")
    assert "is a file; name a directory to keep data in" in ran.err
    ran = turnout("serve", "--config", tmp_path / "missing.toml")
    assert ran.status == 1
    assert "missing.toml: No such file" in ran.err
