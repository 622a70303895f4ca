"""What SQLite says went wrong, in the words of `eventlog.errors`: full, corrupt, or just not possible now."""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from eventlog.errors import LogCorruptError, LogError, LogFullError

FREE_BYTES_MIN: Final = 16 * 1024 * 1024  # with less free, an I/O error while writing means a full disk

_CORRUPT: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_CORRUPT_IO: Final = {sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
_WRITE_IO: Final = {  # the WAL's index cannot grow, or a write was cut short
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_TRUNCATE,
}
_UNKNOWN_OUTCOME: Final = {
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_CLOSE,
}


def log_error(error: Exception, path: Path) -> LogError:
    """Return our error for one of sqlite3's, or of the operating system's."""
    if isinstance(error, OSError):
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return LogFullError(f"{path}: the disk is full ({error.strerror}); nothing was stored, try again later")
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            where = error.filename or path
            return LogError(
                f"{where}: {error.strerror}; let the user that runs Turnout write there, or name another place"
            )
        return LogError(f"{path}: {error}")
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code is None:
        return LogError(f"{path}: {error} ({name})")
    if code & 0xFF == sqlite3.SQLITE_FULL or (code in _WRITE_IO and _nearly_full(path)):
        return LogFullError(f"{path}: the disk is full ({name}); nothing was stored, try again later")
    if code & 0xFF in _CORRUPT or code in _CORRUPT_IO:
        return LogCorruptError(str(path), f"{error} ({name})")
    if code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LogError(f"{path}: another process is using it ({name}); stop it first")
    if code & 0xFF in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}:
        return LogError(f"{path}: {error} ({name}); look at the permissions of the file and its directory")
    return LogError(f"{path}: {error} ({name})")


def leaves_outcome_unknown(error: Exception) -> bool:
    """Tell whether nobody knows what such an error left on the disk, so that the log must be opened anew."""
    return getattr(error, "sqlite_errorcode", None) in _UNKNOWN_OUTCOME


@contextmanager
def our_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's and the operating system's errors as ours."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OSError) as error:
        raise log_error(error, path) from error


def _nearly_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < FREE_BYTES_MIN
    except OSError:
        return False
