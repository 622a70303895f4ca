"""`turnout backup` and `turnout restore`: a data directory in one file, and back.

A backup is a tar archive packed with zstandard: every log as it was at one moment of its own (also while a daemon goes
on writing), the control log first, so that every space it names is there. Exports are left out: they can be asked for
again. The key that destinations' secrets are sealed with goes along. Each log is opened and checked before a backup is
called done, and again when it is restored.
"""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import anyio
import zstandard
from cyclopts import Parameter

from adapters.cli.opened import path_of
from adapters.cli.options import THIS, Folder
from adapters.cli.terminal import bar, note
from adapters.destinations.sealing import KEY_FILE
from eventlog.datadir import DataDir
from eventlog.errors import TurnoutError
from eventlog.sqlite import SqliteLog
from eventlog.sqlite_file import sync_directory

CONTROL: Final = "control.log"
FORMAT_FILE: Final = "format"
SPACES: Final = "spaces"
CHUNK_BYTES: Final = 1 << 20
LEVEL: Final = 3  # logs are packed already; a higher one costs time and gains little


class BackupError(TurnoutError):
    """A backup cannot be written or read. Says which and why."""


def backup(file: Annotated[Path, Parameter(metavar="FILE")], /, *, folder: Folder = THIS) -> int:
    """Copy a data directory into one file, also while a daemon has it open.

    Args:
        file: The file to write, usually .tar.zst; it appears whole or not at all.
        folder: The data directory.
    """
    data = path_of(folder.target())
    if file.exists():
        raise BackupError(f"{file} is there already; name a new file")
    with (
        tempfile.TemporaryDirectory(prefix=".turnout-backup-", dir=file.parent) as room,
        bar("backing up") as show,
    ):
        partial, copy = Path(room) / file.name, Path(room) / "copy.log"
        partial.touch(mode=0o600)  # events are personal data, and the key opens secrets
        with _writing(partial) as archive:
            archive.add(data / FORMAT_FILE, FORMAT_FILE)
            if (data / KEY_FILE).exists():
                archive.add(data / KEY_FILE, KEY_FILE)
            _add(archive, data / CONTROL, CONTROL, copy)
            logs = sorted((data / SPACES).glob("*.log"))
            show.of(len(logs))
            for done, log in enumerate(logs, 1):
                _add(archive, log, f"{SPACES}/{log.name}", copy)
                show.to(done)
        partial.replace(file)
        sync_directory(file.parent)
    note(f"{data}: {len(logs)} spaces in {file} ({file.stat().st_size:,} bytes)")
    return 0


def restore(file: Annotated[Path, Parameter(metavar="FILE")], /, *, folder: Folder = THIS) -> int:
    """Make a data directory from a backup.

    Args:
        file: What `turnout backup` wrote.
        folder: The data directory to make; it must not be there yet.
    """
    data = path_of(folder.target(), make=True)
    if data.exists() and any(data.iterdir()):
        raise BackupError(f"{data} is there already and not empty; move it away, or name another with --data")
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".turnout-restore-", dir=data.parent) as room:
        whole = Path(room) / "data"
        whole.mkdir(mode=0o700)
        names = _unpack(file, whole)
        logs = [name for name in names if name.endswith(".log")]
        with bar("checking", len(logs)) as show:
            for done, name in enumerate(logs, 1):
                anyio.run(_check, whole / name)
                show.to(done)
        with DataDir.open(whole, holder="turnout restore"):
            pass
        if data.exists():
            data.rmdir()
        whole.rename(data)
        sync_directory(data.parent)
    note(f"{len(logs) - 1} spaces restored to {data}")
    return 0


def _add(archive: tarfile.TarFile, log_path: Path, name: str, copy: Path) -> None:
    """Add a log as it is at this moment, once it was found good."""
    anyio.run(_copy_checked, log_path, copy)
    archive.add(copy, name)
    copy.unlink()


async def _copy_checked(log_path: Path, copy: Path) -> None:
    log = await SqliteLog.open(log_path, read_only=True)
    try:
        await log.backup(copy)
    finally:
        await log.close()
    await _check(copy)


async def _check(log_path: Path) -> None:
    log = await SqliteLog.open(log_path, read_only=True)
    try:
        await log.check()
    finally:
        await log.close()


@contextmanager
def _writing(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("wb") as raw:
        with zstandard.ZstdCompressor(level=LEVEL).stream_writer(raw, closefd=False) as packed:
            with tarfile.open(fileobj=packed, mode="w|", bufsize=CHUNK_BYTES) as archive:
                yield archive
        raw.flush()
        os.fsync(raw.fileno())


def _unpack(file: Path, to: Path) -> list[str]:
    """Write a backup's files below a folder and return their names. Refuses whatever else an archive may hold."""
    names: list[str] = []
    try:
        with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as plain:
            with tarfile.open(fileobj=plain, mode="r|", bufsize=CHUNK_BYTES) as archive:
                for member in archive:
                    if not member.isfile() or not _is_ours(member.name):
                        raise BackupError(f"{file}: holds {member.name!r}, which no backup does")
                    content = archive.extractfile(member) or io.BytesIO()
                    path = to / member.name
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    path.touch(mode=0o600)
                    with path.open("wb") as out:
                        while chunk := content.read(CHUNK_BYTES):
                            out.write(chunk)
                        out.flush()
                        os.fsync(out.fileno())
                    names.append(member.name)
    except (OSError, zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        raise BackupError(f"{file}: is no backup, or torn: {error}") from error
    if CONTROL not in names or FORMAT_FILE not in names:
        raise BackupError(f"{file}: is no backup, or torn: the control log is missing")
    return names


def _is_ours(name: str) -> bool:
    parts = name.split("/")
    return name in (CONTROL, FORMAT_FILE, KEY_FILE) or (
        len(parts) == 2 and parts[0] == SPACES and parts[1].endswith(".log")
    )
