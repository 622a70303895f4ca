"""The data directory: what lies where, who holds it, and which version wrote it.

    turnout-data/
    ├── format          the version of this layout
    ├── turnout.lock    locked by the process that has the directory open; says who that is
    ├── control.log     spaces, sources, tokens
    ├── spaces/ID.log   a log each
    └── exports/

One process at a time: the lock is the operating system's (flock), so it goes with its process, however that ends. The
file's contents only tell people whom to ask.
"""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from eventlog.errors import LogCorruptError, LogError, LogHeldError
from eventlog.sqlite_errors import our_errors
from eventlog.sqlite_file import sync_directory

FORMAT: Final = 1
FORMAT_FILE: Final = "format"
FORMAT_PARTIAL: Final = "format.partial"
FORMAT_DIGITS_MAX: Final = 9
CONTROL_FILE: Final = "control.log"
SCRATCH_PREFIX: Final = "turnout-replay-"  # data directories with copies of logs, each held by a process at it
LOCK_BYTES_MAX: Final = 4096
LOCK_TRIES: Final = 3
LOCK_PAUSE_S: Final = 0.01
_OF_A_FIRST_START: Final = ("turnout.lock", FORMAT_PARTIAL)  # all that one may leave that was cut short
_SPACE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")  # a file's name, and nothing that climbs out of the directory


class Holder(Struct, frozen=True, omit_defaults=True):
    """The process that has a data directory open."""

    pid: int
    url: str = ""  # where it can be asked; empty for a command that serves nothing
    what: str = ""  # "turnout serve"
    host: str = ""

    def __str__(self) -> str:
        """Say who it is, for people."""
        return f"{self.what or 'a process'} (pid {self.pid}{f', {self.url}' if self.url else ''})"


class DataDir:
    """An open data directory: while it is, nobody else has it. Make one with `open`; it is a context manager."""

    def __init__(self, path: Path, lock: int, holder: Holder) -> None:
        """Take a locked file's descriptor; callers use `DataDir.open`."""
        self.path = path
        self._lock: int | None = lock
        self._holder = holder

    @classmethod
    def open(cls, path: str | Path, *, holder: str, url: str = "") -> "DataDir":
        """Open a data directory for this process, made if it is not there.

        Args:
            path: The directory.
            holder: What this process is, for others to read ("turnout serve").
            url: Where it can be asked, if it serves.

        Raises:
            LogHeldError: Another process has it open.
            LogError: It was written by another version of Turnout, or is no data directory.
        """
        path = Path(path)
        with our_errors(path):
            if path.exists() and not path.is_dir():
                raise LogError(f"{path} is a file; name a directory to keep data in")
            path.mkdir(parents=True, exist_ok=True, mode=0o700)  # events are personal data
            _refuse_strangers(path)  # before anything is written: it may be another program's
            lock = os.open(path / "turnout.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _locked(lock):
                    raise LogHeldError(str(path), str(_read_holder(lock) or "another process"))
                opened = cls(path, lock, Holder(os.getpid(), url, holder, socket.gethostname()))
                opened._write_holder()
                _settle_format(path)
                for scratch in path.glob(f"{SCRATCH_PREFIX}*"):
                    if holder_of(scratch) is None:  # of a process that was killed
                        shutil.rmtree(scratch)
                for directory in (path / "spaces", opened.exports_path):
                    directory.mkdir(exist_ok=True, mode=0o700)
                sync_directory(path)
            except BaseException:
                os.close(lock)
                raise
        return opened

    def announce(self, url: str) -> None:
        """Say where this process can be asked, once it serves."""
        self._holder = msgspec.structs.replace(self._holder, url=url)
        with our_errors(self.path):
            self._write_holder()

    @property
    def control_path(self) -> Path:
        """Return the file of the control log."""
        return self.path / CONTROL_FILE

    @property
    def exports_path(self) -> Path:
        """Return the directory of exports."""
        return self.path / "exports"

    def space_path(self, space_id: str) -> Path:
        """Return the file of a space's log."""
        if not _SPACE_ID.fullmatch(space_id):
            raise LogError(f"{space_id!r} cannot be a space's id: 1 to 100 letters, digits, '_' and '-'")
        return self.path / "spaces" / f"{space_id}.log"

    def space_ids(self) -> list[str]:
        """Return the ids of the spaces that have a log."""
        return sorted(path.stem for path in (self.path / "spaces").glob("*.log"))

    def close(self) -> None:
        """Let others have the directory."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # for people only; the lock itself is what counts
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "DataDir":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _write_holder(self) -> None:
        assert self._lock is not None, "the data directory is closed"
        text = msgspec.json.encode(self._holder)
        os.pwrite(self._lock, text, 0)
        os.ftruncate(self._lock, len(text))


def holder_of(path: str | Path) -> Holder | None:
    """Return who has a data directory open, without opening it; None when nobody has, or it is not there."""
    lock_path = Path(path) / "turnout.lock"
    with our_errors(Path(path)):
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(lock) or Holder(0)
        else:
            return None
        finally:
            os.close(lock)


def _locked(lock: int) -> bool:
    """Take the lock; not at once given up, since `holder_of` in some other process takes it for an instant."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
        else:
            return True
    return False


def _read_holder(lock: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(lock, LOCK_BYTES_MAX, 0), type=Holder)
    except msgspec.MsgspecError:  # just being written
        return None


def _refuse_strangers(path: Path) -> None:
    """Refuse a directory that holds things and says no format: it is another program's, or it has lost its own."""
    if (path / FORMAT_FILE).exists():
        return
    strangers = sorted(one.name for one in path.iterdir() if one.name not in _OF_A_FIRST_START)
    if any(name.endswith(".log") or name == "spaces" for name in strangers):
        raise LogCorruptError(
            str(path / FORMAT_FILE),
            f"the file is gone, but there are logs; if no newer Turnout wrote them, it held {FORMAT}",
        )
    if strangers:
        raise LogError(f"{path} is no data directory: it holds {', '.join(strangers[:3])}; name an empty or a new one")


def _settle_format(path: Path) -> None:
    """Write the format of a new directory, refuse one that we do not read. A format 2 will migrate from here."""
    file = path / FORMAT_FILE
    try:
        text = file.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        partial = path / FORMAT_PARTIAL
        with partial.open("w") as written:
            written.write(f"{FORMAT}\n")
            written.flush()
            os.fsync(written.fileno())
        partial.rename(file)
        return
    if not text.isdigit() or len(text) > FORMAT_DIGITS_MAX:
        raise LogCorruptError(str(file), f"not a version number: {text[:20]!r}; this Turnout writes {FORMAT}")
    version = int(text)
    if version > FORMAT:
        raise LogError(f"{path} has format {version}, from a newer Turnout; this one reads {FORMAT}: upgrade it")
    if version < FORMAT:
        raise LogError(f"{path} has format {version}, which no release of Turnout has written; this one reads {FORMAT}")
    if not (path / CONTROL_FILE).exists() and any((path / "spaces").glob("*.log")):
        raise LogCorruptError(str(path / CONTROL_FILE), "the file is gone, but there are logs of spaces; put it back")
