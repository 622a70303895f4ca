"""A space in a file, with destinations, that can be searched for what should be gone from it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from msgspec import json, msgpack

from actors.door import accept
from actors.space import Space, open_space
from adapters.destinations.sealing import new_seal
from eventlog.clock import SimulatedClock
from eventlog.entries import AnyFact, Event, Rejected
from eventlog.log import TABLES
from eventlog.memory import MemoryLog
from eventlog.sqlite import SqliteLog
from tests.destinations.stage import START_MS, Stage

KEY = b"k" * 32
ZSTD = b"\x28\xb5\x2f\xfd"
SLICE = 24


class Room(Stage):
    """A stage whose log is a file; `restart` closes and opens the file too."""

    log_type = SqliteLog

    def __init__(self, path: Path) -> None:
        super().__init__(MemoryLog(), SimulatedClock(START_MS), new_seal())
        self.path = path

    async def open(self) -> None:
        """Start, or start again from the file."""
        self.log = await self.log_type.open(self.path, durability="normal")  # type: ignore[assignment]
        await super().open()
        await self._stack.enter_async_context(kept_up(self.space))

    async def close(self) -> None:
        """Stop."""
        await super().close()
        await self.log.close()

    async def batch(self, *messages: dict[str, Any]) -> None:
        """Take tracking calls in at once."""
        judged = []
        for index, message in enumerate(messages):
            raw = json.encode({"messageId": f"b{next(self._ids)}", **message})
            now_ms = self.clock.now_ms()
            one = accept(
                raw, kind=None, received_ms=now_ms, sent_at=None, index=index, source="src", new_id=lambda: "x"
            )
            assert not isinstance(one, Rejected), one
            judged.append(one)
        assert not await self.space.ingest(judged, [], "src")

    async def refuse(self, message: dict[str, Any]) -> None:
        """Record a call as refused, body and all."""
        await self.space.ingest([], [Rejected(0, "m-r", "invalid", "no", "src", json.encode(message))], "src")

    async def regulated(self, *user_ids: str, kind: str = "DELETE_ONLY", name: str = "reg_1") -> dict[str, Any]:
        """Take a regulation, let it run to its end, and return what it says then."""
        await self.space.regulate(name, kind, user_ids, actor="tok_1")
        await self.over(name)
        return self.regulation(name)

    async def over(self, name: str = "reg_1") -> None:
        """Let destinations and a regulation do what is to do."""
        while self.regulation(name)["status"] in ("INITIALIZED", "RUNNING"):
            await self.step()
            self.space.regulating.look()
            await self.space.regulating.moved()

    def regulation(self, name: str = "reg_1") -> dict[str, Any]:
        """Return a regulation."""
        return next(one for one in self.space.regulations() if one["id"] == name)

    # -- searching ---------------------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Return all events of the log."""
        return [event for commit in self.log.read() for event in commit.events]

    def facts(self) -> list[AnyFact]:
        """Return all facts of the log."""
        return [fact for commit in self.log.read() for fact in commit.facts]

    def holders(self, *texts: str) -> set[str]:
        """Return where any of these texts is: in an entry or a row as decoded, or in the bytes of a file."""
        wanted = [text.encode() for text in texts]
        found: set[str] = set()
        for commit in self.log.read():
            for entry in (*commit.events, *commit.facts):
                if any(text in _bytes(entry) for text in wanted):
                    found.add(f"entry {type(entry).__name__}")
        for table in TABLES:
            after = None
            while rows := self.log.range(table, (), after):
                for key, value in rows:
                    if any(text in repr(key).encode() or text in value for text in wanted):
                        found.add(f"table {table.name}")
                after = rows[-1][0]
        return found | self.files_with(wanted)

    def files_with(self, wanted: Iterable[bytes]) -> set[str]:
        """Return the files of the log whose bytes hold any of these."""
        wanted = list(wanted)
        files = self.path.parent.iterdir()
        return {path.name for path in files if any(one in path.read_bytes() for one in wanted)}

    def bodies(self, entities: Iterable[int] | None = None) -> list[bytes]:
        """Return the stored bytes of the packs (that hold events of these entities)."""
        wanted = set(entities or ())
        seqs = [event.seq for event in self.events() if event.profile in wanted]
        rows = self.log._fetch("SELECT first_seq, last_seq, body FROM packs")  # type: ignore[attr-defined]
        return [bytes(row[2]) for row in rows if entities is None or any(row[0] <= seq <= row[1] for seq in seqs)]


def sliced(compressed: bytes) -> list[bytes]:
    """Return slices of compressed bytes that nothing else has by chance."""
    assert compressed.startswith(ZSTD)
    return [compressed[at : at + SLICE] for at in range(0, len(compressed) - SLICE, SLICE)]


def _bytes(entry: Any) -> bytes:
    if isinstance(entry, Event):
        return b"|".join((entry.body, entry.name.encode(), entry.message_id.encode()))
    if isinstance(entry, Rejected):
        return entry.body + entry.message.encode()
    return bytes(msgpack.encode(entry))


@asynccontextmanager
async def kept_up(space: Space) -> AsyncIterator[None]:
    """Do beside a space what a daemon does, while the block lasts."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(space.upkeep)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    """Set up a space in a file."""
    folder = tmp_path / "space"
    folder.mkdir()
    opened = Room(folder / "space.log")
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def folded_anew(current: Room) -> AsyncIterator[Any]:
    """Fold the log's entries anew, with nothing beside them."""
    copy = MemoryLog()
    commits = list(current.log.read())
    await copy.append(commits)
    clock = SimulatedClock(max(commit.at_ms for commit in commits))
    async with open_space("spa_1", copy, clock, suppression_key=KEY) as space:
        await space.settle()
        yield space
