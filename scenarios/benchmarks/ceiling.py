"""The ceiling of ingest on this machine: the same requests decoded and made durable, with nothing behind.

A bare ASGI app on the same server as the daemon's, the same commits in the same log with the same group commit; no
validation, no identity, no audiences.

    python -m scenarios.benchmarks.ceiling FILE PORT
"""

import sys
import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
import uvicorn

from eventlog.entries import KINDS, Commit, Event
from eventlog.sqlite import SqliteLog


class _Call(msgspec.Struct, rename="camel", gc=False):
    """What is looked at: the least that makes an event."""

    type: str
    message_id: str
    user_id: str | None = None
    anonymous_id: str | None = None
    event: str | None = None
    name: str | None = None
    timestamp: str | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None


class _Batch(msgspec.Struct):
    batch: list[msgspec.Raw]


_decode_batch = msgspec.json.Decoder(_Batch).decode
_decode = msgspec.json.Decoder(_Call).decode


class Bare:
    """The app: decode, append, answer."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log
        self._open: list[Event] = []
        self._wake = anyio.Event()
        self._done = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        raws = _decode_batch(body).batch if scope["path"] == "/v1/batch" else [body]
        now_ms = int(time.time() * 1000)
        first = self._log.last_seq + 1
        for raw in raws:
            call = _decode(raw)
            name = call.event or call.name or ""
            seq = first + len(self._open)
            self._open.append(
                Event(seq, now_ms, now_ms, 1, 0, KINDS[call.type], name, "src", call.message_id, bytes(raw))
            )
        done = self._done
        self._wake.set()
        await done.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"16")]})
        await send({"type": "http.response.body", "body": b'{"success":true}'})

    async def write(self) -> None:
        """Append what came in, again and again."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._open:
                events, self._open = self._open, []
                done, self._done = self._done, anyio.Event()
                first = self._log.last_seq + 1
                renumbered = tuple(
                    event if event.seq == first + n else msgspec.structs.replace(event, seq=first + n)
                    for n, event in enumerate(events)
                )
                await self._log.append([Commit(first, events[-1].received_ms, renumbered)])
                done.set()


async def _serve(path: Path, port: int) -> None:
    log = await SqliteLog.open(path)
    app = Bare(log)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", http="httptools", lifespan="off"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app.write)
        await server.serve()
        tasks.cancel_scope.cancel()
    await log.close()


if __name__ == "__main__":
    anyio.run(_serve, Path(sys.argv[1]), int(sys.argv[2]), backend_options={"use_uvloop": True})
