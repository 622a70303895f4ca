"""Previews: size and a sample of any definition on history, worked out in the background and kept for a while.

Nothing is created by one. A preview of an edit also tells who would stay, enter and leave; with `sizes` it tells how
large the audience was at moments of the past (each the truth in hindsight, see contract section 3).

A preview runs for somebody. It ends when that one says so (`cancel`), when the last who waited for it in a request goes
away (`waited`), and when nobody has asked for it for a while: a builder that was closed leaves no scan behind.
"""

import asyncio
from collections import Counter, OrderedDict
from heapq import nsmallest
from secrets import token_hex
from typing import Final
from typing import Literal as OneOf

import anyio
import anyio.lowlevel
import structlog
from msgspec import Struct
from msgspec.structs import replace

from actors.space_api import EntityType, SpaceApi
from eventlog.entries import Options
from eventlog.errors import NotFoundError, TurnoutError

KEPT_MAX: Final = 500  # finished previews in memory, the oldest forgotten first
RUNNING_MAX: Final = 2  # each is a scan of history in a thread; more would only share two cores
WAITING_MAX: Final = 100
SAMPLE_MAX: Final = 100
WHOLE_KEPT_MAX: Final = 2  # finished previews that name everyone: 100 MB each at a million
NAMED_SLICE: Final = 500  # people named, before others get a turn
SIZES_MAX: Final = 60  # each moment is a scan
UNASKED_S_MAX: Final = 60.0  # that one goes on without being asked for; clients ask every second or two

log = structlog.get_logger(__name__)

Status = OneOf["RUNNING", "COMPLETED", "FAILED"]
Named = tuple[str, str]  # an entity's own id, its name


class PreviewSpec(Struct, frozen=True):
    """What to preview."""

    query: str
    entity_type: EntityType
    options: Options = Options()
    trait: bool = False
    at_ms: int | None = None
    known_ms: int | None = None
    edit_of: str | None = None  # the id of an audience that this would replace
    sample: int | None = 10  # None: everyone
    sizes_at_ms: tuple[int, ...] = ()


class Side(Struct, frozen=True):
    """Some of those an edit would keep, add or remove, and how many they are."""

    count: int
    sample: tuple[Named, ...]


class Difference(Struct, frozen=True):
    """What an edit would change."""

    stay: Side
    enter: Side
    leave: Side


class PreviewRecord(Struct, frozen=True):
    """A preview and, once it is there, its answer."""

    id: str
    space_id: str
    spec: PreviewSpec
    status: Status = "RUNNING"
    size: int | None = None
    sample: tuple[Named, ...] = ()
    at_ms: int | None = None
    known_seq: int | None = None
    difference: Difference | None = None
    sizes: tuple[tuple[int, int], ...] = ()  # (moment, size then)
    failure: str | None = None


class Previews:
    """The previews asked for lately."""

    def __init__(self, unasked_s_max: float = UNASKED_S_MAX) -> None:
        """Let one that nobody asks for go on for so long."""
        self._unasked_s_max = unasked_s_max
        self._records: OrderedDict[str, PreviewRecord] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked_s: dict[str, float] = {}  # when those that run were last asked for
        self._waiting: Counter[str] = Counter()  # requests that wait for one
        self._running = asyncio.Semaphore(RUNNING_MAX)

    @property
    def is_full(self) -> bool:
        """Tell whether no more are taken for now."""
        return len(self._tasks) >= WAITING_MAX

    @property
    def waiting(self) -> int:
        """Return how many requests wait for a preview."""
        return self._waiting.total()

    def start(self, space: SpaceApi, spec: PreviewSpec) -> PreviewRecord:
        """Start a preview and return it."""
        record = PreviewRecord(f"pre_{token_hex(9)}", space.id, spec)
        self._records[record.id] = record
        while len(self._records) > KEPT_MAX + WAITING_MAX:
            self._records.popitem(last=False)
        task = asyncio.create_task(self._run(space, record), name=f"preview {record.id}")
        self._tasks[record.id] = task
        self._asked_s[record.id] = asyncio.get_running_loop().time()
        task.add_done_callback(lambda _: self._ended(record.id))
        return record

    def _ended(self, preview_id: str) -> None:
        del self._tasks[preview_id]
        del self._asked_s[preview_id]

    def get(self, space_id: str, preview_id: str) -> PreviewRecord:
        """Return a preview. Raises NotFoundError, once it is forgotten too."""
        record = self._records.get(preview_id)
        if record is None or record.space_id != space_id:
            raise NotFoundError("not_found", f"no preview {preview_id[:64]!r}; previews are kept for a while only")
        if preview_id in self._asked_s:
            self._asked_s[preview_id] = asyncio.get_running_loop().time()
        return record

    async def waited(self, space_id: str, preview_id: str, seconds: float) -> PreviewRecord:
        """Return a preview once it is COMPLETED or FAILED, or after so many seconds as it is then.

        Who is cancelled meanwhile, as the last who waited for it, cancels it. Raises NotFoundError.
        """
        self.get(space_id, preview_id)
        task = self._tasks.get(preview_id)
        if seconds > 0 and task is not None:
            self._waiting[preview_id] += 1
            try:
                await asyncio.wait({task}, timeout=seconds)
            except asyncio.CancelledError:
                if self._waiting[preview_id] == 1:
                    task.cancel()
                raise
            finally:
                self._waiting[preview_id] -= 1
                self._waiting += Counter()  # drops those nobody waits for
        return self.get(space_id, preview_id)

    async def cancel(self, space_id: str, preview_id: str) -> None:
        """End a preview, and forget it. Raises NotFoundError."""
        self.get(space_id, preview_id)
        if task := self._tasks.get(preview_id):
            task.cancel()
            await asyncio.wait({task})
        self._records.pop(preview_id, None)

    async def close(self) -> None:
        """Stop what is running."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, space: SpaceApi, record: PreviewRecord) -> None:
        done = replace(record, status="FAILED", failure="who waited for it went away")
        try:
            with anyio.CancelScope() as wanted:
                watching = asyncio.create_task(self._watch(record.id, wanted))
                try:
                    async with self._running:
                        done = await _evaluated(space, record)
                finally:
                    watching.cancel()
            if wanted.cancelled_caught:
                failure = f"nobody asked for it for {self._unasked_s_max:g} seconds"
                done = replace(record, status="FAILED", failure=failure)
        finally:
            if record.id in self._records:
                self._records[record.id] = done
            self._forget_whole()

    async def _watch(self, preview_id: str, wanted: anyio.CancelScope) -> None:
        """End a preview once nobody has asked for it, nor waits for it, for too long."""
        loop = asyncio.get_running_loop()
        while True:
            left_s = self._asked_s[preview_id] + self._unasked_s_max - loop.time()
            if self._waiting[preview_id]:
                left_s = self._unasked_s_max
            elif left_s <= 0:
                wanted.cancel()
                return
            await asyncio.sleep(left_s)

    def _forget_whole(self) -> None:
        """Forget the oldest finished previews that name everyone."""
        whole = [one.id for one in self._records.values() if one.spec.sample is None and one.status == "COMPLETED"]
        for preview_id in whole[:-WHOLE_KEPT_MAX]:
            del self._records[preview_id]


async def _evaluated(space: SpaceApi, record: PreviewRecord) -> PreviewRecord:
    """Return the preview with its answer, or with what became of it."""
    try:
        return await evaluate(space, record)
    except TurnoutError as error:
        return replace(record, status="FAILED", failure=str(error))
    except Exception as error:
        log.exception("preview_failed", preview=record.id)
        return replace(record, status="FAILED", failure=f"it could not be worked out: {type(error).__name__}")


async def evaluate(space: SpaceApi, record: PreviewRecord) -> PreviewRecord:
    """Return the preview with its answer."""
    spec = record.spec
    await space.settle()
    whole = spec.edit_of is not None or spec.sample is None
    found = await space.preview(
        spec.query,
        spec.entity_type,
        options=spec.options,
        trait=spec.trait,
        at_ms=spec.at_ms,
        known_ms=spec.known_ms,
        sample=None if whole else spec.sample,
        edit_of=spec.edit_of,
    )
    entities = [entity for entity, _ in found.sample]
    difference = None
    if spec.edit_of is not None:
        now = await space.members(spec.edit_of, at_ms=spec.at_ms, known_ms=spec.known_ms)
        difference = await compare(space, {entity for entity, _ in now}, set(entities), spec.sample)
    sizes = []
    for moment_ms in spec.sizes_at_ms:
        then = await space.preview(
            spec.query,
            spec.entity_type,
            options=spec.options,
            trait=spec.trait,
            at_ms=moment_ms,
            known_ms=spec.known_ms,
            sample=0,
            edit_of=spec.edit_of,
        )
        sizes.append((moment_ms, then.size))
    return replace(
        record,
        status="COMPLETED",
        size=found.size,
        sample=await named(space, entities[: spec.sample]),
        at_ms=found.at_ms,
        known_seq=found.known_seq,
        difference=difference,
        sizes=tuple(sizes),
    )


async def compare(space: SpaceApi, before: set[int], after: set[int], sample: int | None) -> Difference:
    """Return who stays, enters and leaves, with samples in order of entity."""

    async def side(entities: set[int]) -> Side:
        shown = sorted(entities) if sample is None else nsmallest(sample, entities)
        return Side(len(entities), await named(space, shown))

    return Difference(
        stay=await side(before & after), enter=await side(after - before), leave=await side(before - after)
    )


async def named(space: SpaceApi, entities: list[int]) -> tuple[Named, ...]:
    """Return entities with their own ids and names, in slices between which others get a turn."""
    found: list[Named] = []
    for start in range(0, len(entities), NAMED_SLICE):
        found += [(space.public_id(entity), space.name_of(entity)) for entity in entities[start : start + NAMED_SLICE]]
        await anyio.lowlevel.checkpoint()
    return tuple(found)
