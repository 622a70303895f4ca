"""CSV files: a file per audience or computed trait that always holds the current members.

The files lie in `destination-files/<destination>/` of the data directory. A sync takes the net change since the last
one, and writes the file anew in one pass beside the old one, which it then replaces: whoever reads sees one or the
other. What is held in memory is the change, not the file. Cells that a spreadsheet would run as a formula get a
leading `'` (contract, section 7).
"""

import csv
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import anyio.to_thread
from msgspec import json

from actors.delivery import (
    Adapter,
    Answer,
    Ask,
    Call,
    CommonSettings,
    Context,
    Conversation,
    Destination,
    Done,
    Shown,
)
from actors.delivery_ids import ids_key
from actors.delivery_retry import judge
from adapters.destinations.answers import pinged
from eventlog.instants import iso

FOLDER: Final = "destination-files"
HEADER: Final = ("profile", "user_id", "email", "anonymous_id", "group_id", "ids", "value", "since")
CHANGES_MAX: Final = 50_000  # rows of one pass
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
PLAIN: Final = re.compile(r"[a-z0-9_]{1,100}\Z")


class CsvSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Nothing but what every destination has: the interval, for one."""


class FileAsk(Ask, frozen=True, kw_only=True):
    """Rows to put in a file and to take out of it; a row is known by its profile and ids."""

    name: str
    puts: tuple[tuple[str, ...], ...] = ()
    takes: tuple[tuple[str, str], ...] = ()

    def shown(self) -> Shown:
        """Return it as it may be shown."""
        return Shown("WRITE", self.name, body=f"{len(self.puts)} rows to write, {len(self.takes)} to take out".encode())


def file_name(key: str) -> str:
    """Return the name of a key's file: the key where that is a plain one, else made from it."""
    return f"{key}.csv" if PLAIN.match(key) else f"key_{sha256(key.encode()).hexdigest()[:24]}.csv"


def cell(text: str) -> str:
    """Return text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def row(call: Call) -> tuple[str, ...]:
    """Return a call as a row."""
    texts = (call.profile, call.user_id, call.email, call.anonymous, call.group_id)
    value = "" if call.computation_class == "audience" else json.encode(call.value).decode()
    return (*(cell(text or "") for text in texts), ids_key(call.ids), cell(value), iso(call.at_ms))


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Put members in and take them out."""
    puts = tuple(row(call) for call in calls if call.value is not None and call.value is not False)
    takes = tuple(
        (cell(call.profile), ids_key(call.ids)) for call in calls if call.value is None or call.value is False
    )
    answer = yield FileAsk(name=file_name(calls[0].key), puts=puts, takes=takes)
    return Done((judge(answer, context.now_ms),) * len(calls))


def ping(context: Context) -> Conversation:
    """Change nothing: the folder is made where it is missing."""
    return pinged((yield FileAsk(name=file_name("ping"))), context)


class FileTransport:
    """Writes the files."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / FOLDER

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Write a file anew with what is asked."""
        assert isinstance(ask, FileAsk), ask
        try:
            await anyio.to_thread.run_sync(self._write, self._root / destination.id, ask)
        except OSError as error:
            return Answer(status=0, error=f"{error.strerror or error}", again=True)
        return Answer(status=200)

    async def close(self) -> None:
        """Release nothing: no file stays open."""

    def _write(self, folder: Path, ask: FileAsk) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not ask.puts and not ask.takes:
            return
        path, beside = folder / ask.name, folder / f"{ask.name}.new"
        dropped = {(one[0], one[5]) for one in ask.puts} | set(ask.takes)
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(_kept(path, dropped))
            writer.writerows(ask.puts)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)


def _kept(path: Path, dropped: set[tuple[str, str]]) -> Iterator[list[str]]:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        for found in rows:
            if len(found) == len(HEADER) and (found[0], found[5]) not in dropped:
                yield found


CSV = Adapter(
    type="csv",
    title="CSV files",
    page="https://www.rfc-editor.org/rfc/rfc4180",
    settings=CsvSettings,
    deliver=deliver,
    ping=ping,
    kinds=("member", "group"),
    rate_per_s=10.0,  # ours: files written anew a second
    concurrency=1,
    batch_max=CHANGES_MAX,
    together=True,
    group_by=lambda call: call.connection,
    interval_ms=300_000,  # 5 minutes: each sync writes the whole file
)
