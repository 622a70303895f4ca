"""Exports as jobs: queued, run one at a time, kept as files until they expire. They survive a restart.

An export is a snapshot as of its request: who is in it is taken before the request is answered, ids added later are
left out. Until it is finished its snapshot lies beside it, so that one that a restart cut short goes on with the very
same people (where a power cut took that file, they are found again as of the moment of the request). Beside each file
lies its record as JSON; the folder holds personal data and is closed to other users of the machine.
"""

import asyncio
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from typing import Literal as OneOf

import anyio.to_thread
import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from actors.space_api import DefinitionView, SpaceApi
from adapters.export import ExportSpec, Snapshot, take_snapshot, write_export
from eventlog.clock import Clock
from eventlog.errors import NotFoundError, TooManyError

KEEP_MS: Final = 7 * 24 * 3600 * 1000  # how long a finished file stays; setting exports_keep_days
PURGE_EVERY_S: Final = 60.0  # expired files go within a minute, also while nobody asks
WAITING_MAX: Final = 20  # each holds its snapshot in memory, 8 MB a million members
ROWS_PER_S_GUESS: Final = 150_000  # until an export has been measured
WAIT_MS: Final = 10_000  # what a client that meets a full queue is told to wait
SPEED_ROWS_MIN: Final = 10_000  # fewer rows say nothing about speed

log = structlog.get_logger(__name__)

Status = OneOf["PENDING", "RUNNING", "READY", "FAILED"]
UNFINISHED: Final = ("PENDING", "RUNNING")


class ExportRecord(Struct, frozen=True, omit_defaults=True):
    """An export and how far it is."""

    id: str  # "exp_…"
    space_id: str
    definition_id: str
    spec: ExportSpec
    created_ms: int
    at_ms: int
    known_seq: int
    requested_by: str = ""
    file_name: str = ""
    status: Status = "PENDING"
    progress: float = 0.0  # 0-1
    estimated_s: float | None = None  # seconds left
    rows: int | None = None  # lines after the header, once it is known
    size_bytes: int | None = None
    finished_ms: int | None = None
    expires_ms: int | None = None
    failure: str | None = None


class Exports:
    """The exports of all spaces of a data directory."""

    def __init__(self, folder: Path, clock: Clock, space: Callable[[str], SpaceApi], *, keep_ms: int = KEEP_MS) -> None:
        self._folder = folder
        self._clock = clock
        self._space = space
        self._keep_ms = keep_ms
        self._records: dict[str, ExportRecord] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drops: dict[str, int] = {}  # how often a space's exports were deleted
        self._asking = 0  # requests whose snapshot is being taken
        self._one_at_a_time = asyncio.Lock()
        self._rows_per_s: float = ROWS_PER_S_GUESS
        self._purging: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load what an earlier process left and go on with what it had not finished."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for pattern in ("*.spool", "*.partial", "*.new"):  # the first an earlier version left
            for leftover in self._folder.glob(pattern):
                leftover.unlink()
        for path in self._folder.glob("*.json"):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=ExportRecord)
            except msgspec.MsgspecError as error:
                log.warning("export_unreadable", file=path.name, error=str(error))
                continue
            self._records[record.id] = record
        self._purge()
        self._forget_people()
        for path in self._folder.glob("*.snapshot"):
            known = self._records.get(path.stem)
            if known is None or known.status not in UNFINISHED:
                path.unlink()
        for record in sorted(self._records.values(), key=lambda record: record.created_ms):
            if record.status in UNFINISHED:
                self._launch(record, self._kept_snapshot(record))
            elif record.status == "READY" and not self.path(record).exists():
                self._save(replace(record, status="FAILED", failure="its file is gone from the data directory"))
        self._purging = asyncio.create_task(self._purge_on_time(), name="expired exports")

    async def close(self) -> None:
        """Stop what is running; the next `start` takes it up again."""
        tasks = [*self._tasks.values(), *([] if self._purging is None else [self._purging])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, space: SpaceApi, view: DefinitionView, spec: ExportSpec, *, actor: str = "") -> ExportRecord:
        """Take the snapshot, queue the export and return it. Raises TooManyError when too many are waiting."""
        self._purge()
        if len(self._tasks) + self._asking >= WAITING_MAX:
            raise TooManyError(
                "too_many_exports",
                f"{WAITING_MAX} exports are waiting; try again when one has finished",
                retry_after_ms=WAIT_MS,
            )
        self._asking += 1
        try:
            return await self._create(space, view, spec, actor)
        finally:
            self._asking -= 1

    async def _create(self, space: SpaceApi, view: DefinitionView, spec: ExportSpec, actor: str) -> ExportRecord:
        drops = self._drops.get(space.id, 0)
        snapshot = await take_snapshot(space, view)
        snapshot = replace(snapshot, entities=array("q", snapshot.entities))
        record = ExportRecord(
            id=f"exp_{token_hex(12)}",
            space_id=space.id,
            definition_id=view.definition.id,
            spec=spec,
            created_ms=self._clock.now_ms(),
            at_ms=snapshot.at_ms,
            known_seq=snapshot.known_seq,
            requested_by=actor,
            file_name=f"{view.definition.key}-{spec.format}.csv",
            estimated_s=round(len(snapshot.entities) / self._rows_per_s, 1),
        )
        await anyio.to_thread.run_sync(self._snapshot_path(record).write_bytes, _encode_snapshot(snapshot))
        if self._drops.get(space.id, 0) != drops:  # somebody was deleted meanwhile and may be in it
            self._forget(record)
            return await self._create(space, view, spec, actor)
        self._save(record)
        self._launch(record, snapshot)
        return record

    def get(self, space_id: str, definition_id: str, export_id: str) -> ExportRecord:
        """Return an export of this audience or trait. Raises NotFoundError, once it has expired too."""
        self._purge()
        record = self._records.get(export_id)
        if record is None or (record.space_id, record.definition_id) != (space_id, definition_id):
            raise NotFoundError("not_found", f"no export {export_id[:64]!r} here; they expire, ask for another")
        return record

    def all(self, space_id: str, definition_id: str) -> list[ExportRecord]:
        """Return the exports of an audience or trait, oldest first."""
        self._purge()
        mine = [r for r in self._records.values() if (r.space_id, r.definition_id) == (space_id, definition_id)]
        return sorted(mine, key=lambda record: (record.created_ms, record.id))

    def path(self, record: ExportRecord) -> Path:
        """Return where the file of an export lies once it is READY."""
        return self._folder / f"{record.id}.csv"

    async def drop_space(self, space_id: str) -> int:
        """Delete every export of a space (a person was erased from it) and return how many there were."""
        self._drops[space_id] = self._drops.get(space_id, 0) + 1
        mine = [record for record in self._records.values() if record.space_id == space_id]
        for record in mine:
            if task := self._tasks.get(record.id):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            self._forget(record)
        return len(mine)

    async def finished(self, export_id: str) -> None:
        """Return once the export is READY or FAILED."""
        if task := self._tasks.get(export_id):
            await asyncio.gather(task, return_exceptions=True)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _snapshot_path(self, record: ExportRecord) -> Path:
        return self._folder / f"{record.id}.snapshot"

    def _kept_snapshot(self, record: ExportRecord) -> Snapshot | None:
        """Return the snapshot that an earlier process took; None where it is not there, or not whole."""
        try:
            return _decode_snapshot(self._snapshot_path(record).read_bytes())
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    def _launch(self, record: ExportRecord, snapshot: Snapshot | None) -> None:
        task = asyncio.create_task(self._run(record, snapshot), name=f"export {record.id}")
        self._tasks[record.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(record.id, None))

    async def _run(self, record: ExportRecord, snapshot: Snapshot | None) -> None:
        async with self._one_at_a_time:
            record = self._save(replace(record, status="RUNNING", progress=0.0))
            began_s = time.perf_counter()
            try:
                space = self._space(record.space_id)
                view = space.definition(record.definition_id)
                if snapshot is None:
                    snapshot = await take_snapshot(space, view, at_ms=record.at_ms, known_ms=record.at_ms)
                path = self.path(record)
                rows = await write_export(
                    space, view, record.spec, path, snapshot=snapshot, progress=lambda share: self._tell(record, share)
                )
                path.chmod(0o600)
            except Exception as error:
                log.exception("export_failed", export=record.id)
                self._finish(replace(record, status="FAILED", failure=f"{type(error).__name__}: {error}"))
                return
            if len(snapshot.entities) > SPEED_ROWS_MIN:
                self._rows_per_s = len(snapshot.entities) / (time.perf_counter() - began_s)
            self._finish(replace(record, status="READY", progress=1.0, rows=rows, size_bytes=path.stat().st_size))

    def _tell(self, record: ExportRecord, share: float) -> None:
        """Note the share done. Called from the formatting thread too: it replaces one value of a dict."""
        total_s = record.estimated_s or 0.0
        self._records[record.id] = replace(record, progress=share, estimated_s=round(total_s * (1 - share), 1))

    def _finish(self, record: ExportRecord) -> None:
        now_ms = self._clock.now_ms()
        self._save(replace(record, finished_ms=now_ms, expires_ms=now_ms + self._keep_ms, estimated_s=0.0))
        self._snapshot_path(record).unlink(missing_ok=True)

    def _save(self, record: ExportRecord) -> ExportRecord:
        self._records[record.id] = record
        path = self._folder / f"{record.id}.json"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(record))
        fresh.replace(path)
        return record

    async def _purge_on_time(self) -> None:
        while True:
            await asyncio.sleep(PURGE_EVERY_S)
            try:
                self._purge()
            except OSError as error:
                log.warning("exports_not_purged", error=str(error), retry_s=PURGE_EVERY_S)

    def _purge(self) -> None:
        now_ms = self._clock.now_ms()
        for record in list(self._records.values()):
            if record.expires_ms is not None and record.expires_ms <= now_ms:
                self._forget(record)

    def _forget_people(self) -> None:
        """Delete what was exported before people were deleted: a kill may have come between."""
        for space_id in {record.space_id for record in self._records.values()}:
            try:
                regulations = self._space(space_id).regulations()
            except NotFoundError:
                continue
            deleted_ms = max((one["created_ms"] for one in regulations if "DELETE" in one["type"]), default=None)
            for record in list(self._records.values()):
                if record.space_id == space_id and deleted_ms is not None and record.created_ms <= deleted_ms:
                    self._forget(record)

    def _forget(self, record: ExportRecord) -> None:
        self._records.pop(record.id, None)
        for path in (self.path(record), self._snapshot_path(record), self._folder / f"{record.id}.json"):
            path.unlink(missing_ok=True)


class _KeptSnapshot(Struct, frozen=True, array_like=True):
    """A snapshot as it lies on disk; the entities as 64-bit integers of this machine."""

    at_ms: int
    known_seq: int
    entities: bytes
    values: list[Any] | None


def _encode_snapshot(snapshot: Snapshot) -> bytes:
    values = None if snapshot.values is None else list(snapshot.values)
    kept = _KeptSnapshot(snapshot.at_ms, snapshot.known_seq, array("q", snapshot.entities).tobytes(), values)
    return msgspec.json.encode(kept)


def _decode_snapshot(raw: bytes) -> Snapshot:
    kept = msgspec.json.decode(raw, type=_KeptSnapshot)
    return Snapshot(kept.at_ms, kept.known_seq, array("q", kept.entities), kept.values)
