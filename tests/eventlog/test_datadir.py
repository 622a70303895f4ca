"""The data directory: one holder, one format, and names that stay inside."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from eventlog.datadir import FORMAT, SCRATCH_PREFIX, DataDir, holder_of
from eventlog.errors import LogCorruptError, LogError, LogHeldError
from eventlog.sqlite_errors import log_error

NOBODY = 65534

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


def contents(path: Path) -> dict[str, bytes | None]:
    """Return all that lies in a directory."""
    return {str(one.relative_to(path)): one.read_bytes() if one.is_file() else None for one in path.rglob("*")}


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"2\n", LogError, "has format 2, from a newer Turnout; this one reads 1: upgrade it"),
        (b"0\n", LogError, "has format 0, which no release of Turnout has written; this one reads 1"),
        (b"", LogCorruptError, "not a version number: ''; this Turnout writes 1"),
        (b"\x00\x00", LogCorruptError, "not a version number"),
        (b"\xff\xfe1", LogCorruptError, "not a version number"),
        (b"-1\n", LogCorruptError, "not a version number"),
        (b"1.0\n", LogCorruptError, "not a version number"),
        (b"1\n1\n", LogCorruptError, "not a version number"),
        (b"\xc2\xb2", LogCorruptError, "not a version number"),
        (b"9" * 5_000, LogCorruptError, "not a version number: '99999999999999999999'"),
    ],
)
def test_another_format_is_refused_and_nothing_is_changed(
    tmp_path: Path, content: bytes, error: type[LogError], match: str
) -> None:
    DataDir.open(tmp_path, holder="test").close()
    (tmp_path / "format").write_bytes(content)
    (tmp_path / "control.log").write_bytes(b"a newer one")
    before = contents(tmp_path)
    with pytest.raises(error, match=match):
        DataDir.open(tmp_path, holder="test")
    assert holder_of(tmp_path) is None
    (tmp_path / "turnout.lock").write_bytes(b"")  # what is in it is for people alone
    assert contents(tmp_path) == before


def test_a_format_that_is_a_directory_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "format").mkdir()
    with pytest.raises(LogError, match="directory"):
        DataDir.open(tmp_path, holder="test")


def test_spaces_around_a_format_do_not_matter(tmp_path: Path) -> None:
    DataDir.open(tmp_path, holder="test").close()
    (tmp_path / "format").write_bytes(b" 1\r\n")
    DataDir.open(tmp_path, holder="test").close()


@pytest.mark.parametrize("left", [(), ("turnout.lock",), ("turnout.lock", "format.partial")])
def test_a_first_start_that_was_cut_short_is_taken_up(tmp_path: Path, left: tuple[str, ...]) -> None:
    for name in left:
        (tmp_path / name).write_bytes(b"")
    with DataDir.open(tmp_path, holder="test") as data:
        assert (tmp_path / "format").read_text() == f"{FORMAT}\n"
        assert data.space_ids() == []


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "base", "PG_VERSION", "format.txt"])
def test_a_directory_of_something_else_is_left_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(LogError, match=rf"is no data directory: it holds {name}; name an empty or a new one"):
        DataDir.open(tmp_path, holder="test")
    assert contents(tmp_path) == {name: b""}
    with pytest.raises(LogError, match="is a file; name a directory"):
        DataDir.open(tmp_path / name, holder="test")
    with pytest.raises(LogError, match="Not a directory"):
        DataDir.open(tmp_path / name / "data", holder="test")


def test_logs_without_a_format_are_damage(tmp_path: Path) -> None:
    DataDir.open(tmp_path, holder="test").close()
    (tmp_path / "format").unlink()
    with pytest.raises(LogCorruptError, match="the file is gone, but there are logs"):
        DataDir.open(tmp_path, holder="test")
    assert not (tmp_path / "format").exists()


def test_spaces_without_the_control_log_are_damage_and_no_first_start(tmp_path: Path) -> None:
    with DataDir.open(tmp_path, holder="test") as data:
        data.control_path.touch()
        data.space_path("spa_1").touch()
    DataDir.open(tmp_path, holder="test").close()
    data.control_path.unlink()
    with pytest.raises(LogCorruptError, match=r"control\.log.*the file is gone, but there are logs of spaces"):
        DataDir.open(tmp_path, holder="test")


@pytest.mark.parametrize("space_id", ["", "../x", "a/b", "a.log", "ä", "x" * 101])
def test_a_space_id_cannot_leave_the_directory(tmp_path: Path, space_id: str) -> None:
    with DataDir.open(tmp_path, holder="test") as data, pytest.raises(LogError, match="space"):
        data.space_path(space_id)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be nobody, where the tests run as root, who may write anywhere."""
    if (before := os.geteuid()) == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def shut() -> Iterator[Path]:
    """Return a data directory that may be read, and not written."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        DataDir.open(path, holder="test").close()
        shown = (Path(folder), *(one for one in (path, *path.rglob("*")) if one.is_dir()))
        for one in shown:
            one.chmod(0o555)
        (path / "turnout.lock").chmod(0o444)
        yield path
        for one in shown:
            one.chmod(0o700)


@pytest.mark.parametrize("name", ["data", "new", "data/new"])
def test_a_directory_that_may_not_be_written_is_told_and_what_to_do(shut: Path, name: str) -> None:
    with (
        somebody_else(),
        pytest.raises(LogError, match="Permission denied; let the user that runs Turnout write there"),
    ):
        DataDir.open(shut.parent / name, holder="test")
    assert holder_of(shut) is None


def test_a_disk_that_is_read_only_is_told_alike() -> None:
    error = OSError(errno.EROFS, "Read-only file system", "/mnt/data/format.partial")
    said = str(log_error(error, Path("/mnt/data")))
    assert said.startswith(
        "/mnt/data/format.partial: Read-only file system; let the user that runs Turnout write there"
    )


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
