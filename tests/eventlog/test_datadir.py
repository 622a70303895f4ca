"""The data directory: one holder, one format, and names that stay inside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventlog.datadir import FORMAT, SCRATCH_PREFIX, DataDir, holder_of
from eventlog.errors import LogCorruptError, LogError, LogHeldError

HOLD = """
import sys
from eventlog.datadir import SCRATCH_PREFIX, DataDir
held = DataDir.open(sys.argv[1], holder="turnout serve", url="http://127.0.0.1:8765")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_new_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    with DataDir.open(path, holder="test") as data:
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path / "format").read_text().strip() == str(FORMAT)
        assert data.space_path("spa_1") == path / "spaces" / "spa_1.log"
        assert data.control_path.parent == path
        assert data.exports_path.is_dir()
        data.space_path("spa_1").touch()
        assert data.space_ids() == ["spa_1"]


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "data")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == b"held\n"
        holder = holder_of(tmp_path / "data")
        assert holder is not None
        assert (holder.pid, holder.url, holder.what) == (process.pid, "http://127.0.0.1:8765", "turnout serve")
        with pytest.raises(LogHeldError, match=rf"turnout serve \(pid {process.pid}, http://127.0.0.1:8765\)"):
            DataDir.open(tmp_path / "data", holder="test")
    finally:
        process.kill()  # a killed process holds nothing, whatever its file says
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert holder_of(tmp_path / "data") is None
    DataDir.open(tmp_path / "data", holder="test").close()


def test_the_same_process_cannot_open_it_twice(tmp_path: Path) -> None:
    with DataDir.open(tmp_path, holder="turnout serve") as data:
        data.announce("http://h:1")
        with pytest.raises(LogHeldError, match="http://h:1"):
            DataDir.open(tmp_path, holder="turnout import")
        assert holder_of(tmp_path) is not None
    assert holder_of(tmp_path) is None
    DataDir.open(tmp_path, holder="turnout import").close()


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        ("2\n", LogError, "newer Turnout"),
        ("0\n", LogError, "no release"),
        ("", LogCorruptError, "not a version number"),
        ("\x00\x00", LogCorruptError, "not a version number"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, content: str, error: type[LogError], match: str) -> None:
    DataDir.open(tmp_path, holder="test").close()
    (tmp_path / "format").write_text(content)
    with pytest.raises(error, match=match):
        DataDir.open(tmp_path, holder="test")
    assert holder_of(tmp_path) is None


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(LogError, match=r"thesis\.tex"):
        DataDir.open(tmp_path, holder="test")
    with pytest.raises(LogError, match="is a file"):
        DataDir.open(tmp_path / "thesis.tex", holder="test")


def test_logs_without_a_format_are_damage(tmp_path: Path) -> None:
    DataDir.open(tmp_path, holder="test").close()
    (tmp_path / "format").unlink()
    with pytest.raises(LogCorruptError, match="format"):
        DataDir.open(tmp_path, holder="test")


@pytest.mark.parametrize("space_id", ["", "../x", "a/b", "a.log", "ä", "x" * 101])
def test_a_space_id_cannot_leave_the_directory(tmp_path: Path, space_id: str) -> None:
    with DataDir.open(tmp_path, holder="test") as data, pytest.raises(LogError, match="space"):
        data.space_path(space_id)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LogError):
        DataDir.open(tmp_path / "data", holder="test")


def test_copies_of_a_log_that_a_killed_process_left_are_deleted(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "data", holder="turnout replay"):
        pass
    left = tmp_path / "data" / f"{SCRATCH_PREFIX}x1"
    left.mkdir()
    (left / "replay.log").write_bytes(b"somebody")
    (tmp_path / "data" / "turnout-backup.tar.zst").write_bytes(b"kept")
    with DataDir.open(tmp_path / "data", holder="turnout serve"):
        assert not left.exists()
        assert (tmp_path / "data" / "turnout-backup.tar.zst").exists()


def test_copies_of_a_log_that_a_process_is_at_work_on_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    at_work = tmp_path / "data" / f"{SCRATCH_PREFIX}x1"
    with DataDir.open(at_work, holder="turnout replay"):
        (tmp_path / "data" / "format").write_text(f"{FORMAT}\n")
        with DataDir.open(tmp_path / "data", holder="turnout serve"):
            assert (at_work / "format").exists()
    with DataDir.open(tmp_path / "data", holder="turnout serve"):
        assert not at_work.exists()
