"""Single calls, the short way: those that arrive in one turn of the loop are judged and taken together.

One event a request is what browsers and phones send, and for one event a framework's message passing, a task and an
event cost several times what is done with it. So the server (`server.py`) hands plain calls over as they are: a POST of
no more JSON than an event may have, its size and a write key in its head. Whatever is odd about a request
goes through `TrackingApp`, which says the same about it; `tests/http/test_tracking.py` holds both ways to one contract.
Each call is judged and answered for itself, 200 only once it is durable.
"""

import asyncio
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Final, Protocol

from actors.door import EVENT_BYTES_MAX, Incoming
from adapters.http.tracking import PATHS, Headers, TrackingApp, answer_to, refused_call
from eventlog.entries import Rejected, SourceRecord

TOGETHER_MAX: Final = 256  # calls judged in one piece; more of the same turn of the loop come with its next one
_KINDS: Final[Mapping[bytes, str]] = {path.encode(): kind for path, kind in PATHS.items() if kind is not None}
_JSON_TYPES: Final = frozenset(
    (b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
)
_ODD: Final = frozenset((b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"))


class Call(Protocol):
    """A call on its connection: what came, and how it is answered."""

    kind: str
    source: SourceRecord
    body: bytes
    begun_s: float

    def succeed(self) -> None:
        """Answer that the call was taken, with 200."""

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer something else."""


class Singles:
    """Takes single calls as they come and answers them in groups."""

    def __init__(self, app: TrackingApp, tasks: set["asyncio.Task[None]"]) -> None:
        """Take calls.

        Args:
            app: what takes them the long way; its counts count these, too.
            tasks: where the server keeps what it waits for, for a while, when it stops.
        """
        self._app = app
        self._tasks = tasks
        self._waiting: list[Call] = []

    def admits(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> tuple[str, SourceRecord] | None:
        """Return the kind and the source of a POST that may come this way; None: `TrackingApp` has to look at it.

        One that is let in counts as being worked on until it is answered or `gave_up`.
        """
        kind = _KINDS.get(url)
        if kind is None:
            return None
        source, size, app = None, b"", self._app
        for name, value in headers:
            if name == b"authorization":
                source = app.source_of_key(value)
            elif name == b"content-length":
                size = value
            elif name in _ODD or (name == b"content-type" and value not in _JSON_TYPES):
                return None
        if source is None or not source.enabled or not size.isdigit() or int(size) > EVENT_BYTES_MAX:
            return None
        if app.counts.in_flight >= app.requests_max:
            return None
        app.counts.in_flight += 1
        return kind, source

    def gave_up(self) -> None:
        """Take note that a client went away before its call was whole."""
        self._app.counts.in_flight -= 1

    def put(self, call: Call) -> None:
        """Take a call that is whole; it is answered later."""
        self._waiting.append(call)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Hand on what has arrived in this turn of the loop."""
        loop = asyncio.get_running_loop()
        calls, self._waiting = self._waiting[:TOGETHER_MAX], self._waiting[TOGETHER_MAX:]
        if self._waiting:
            loop.call_soon(self._turn)
        by_source: dict[str, list[Call]] = {}
        for call in calls:
            by_source.setdefault(call.source.id, []).append(call)
        for some in by_source.values():
            task = loop.create_task(self._take(some))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _take(self, calls: list[Call]) -> None:
        """Judge the calls of a source, hand them to its space, and answer each."""
        app, source = self._app, calls[0].source
        taken: list[Call] = []
        accepted: list[Incoming] = []
        refused: list[tuple[Call, Rejected]] = []
        for call in calls:
            app.counts.bytes_in += len(call.body)
            try:
                judged = app.judge(call.body.removeprefix(BOM_UTF8), call.kind, source)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is answered, and its neighbours are taken
                self._tell(call, error)
                continue
            if isinstance(judged, Incoming):
                taken.append(call)
                accepted.append(judged)
            else:
                refused.append((call, judged))
        try:
            found = await app.take(accepted, [one for _, one in refused], source)
        except Exception as error:  # noqa: BLE001 - as above
            for call in (*taken, *(call for call, _ in refused)):
                self._tell(call, error)
            return
        now_s, counts = perf_counter(), app.counts
        for place, call in enumerate(taken):
            if found and place in found:
                refused.append((call, found[place]))
            else:
                counts.in_flight -= 1
                counts.answered(200, now_s - call.begun_s)
                call.succeed()
        for call, one in refused:
            self._answer(call, *refused_call(one))

    def _tell(self, call: Call, error: Exception) -> None:
        self._answer(call, *answer_to(error, f"/v1/{call.kind}"))

    def _answer(self, call: Call, status: int, headers: Headers, body: bytes) -> None:
        counts = self._app.counts
        counts.in_flight -= 1
        counts.answered(status, perf_counter() - call.begun_s)
        call.answer(status, headers, body)
