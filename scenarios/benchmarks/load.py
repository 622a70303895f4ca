"""A load that costs little: requests built beforehand, sent over keep-alive connections, answers only counted.

Runs as a process of its own (`python -m scenarios.benchmarks.load`), on the other core than what it measures.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct


class Loaded(Struct, frozen=True):
    """What a load met."""

    requests: int
    events: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int


def requests_of(messages: Sequence[bytes], per_request: int, authorization: str) -> list[bytes]:
    """Return ready HTTP requests of so many events each; one an event goes to its own path."""
    found = []
    for start in range(0, len(messages), per_request):
        if per_request == 1:
            path, body = "/v1/track", messages[start]
            kind = body[9 : body.index(b'"', 9)].decode()
            path = f"/v1/{kind}"
        else:
            path, body = "/v1/batch", b'{"batch":[' + b",".join(messages[start : start + per_request]) + b"]}"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        found.append(head.encode() + body)
    return found


class _Connection(asyncio.Protocol):
    """One connection: the next request as soon as the last is answered."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._began = 0.0
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._next()

    def _next(self) -> None:
        request = self._load.take()
        if request is None:
            self._transport.close()
            self._load.one_done()
            return
        wait_s = self._load.wait_s()
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._send, request)
        else:
            self._send(request)

    def _send(self, request: bytes) -> None:
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head = self._seen.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = self._seen[:head].lower()
        at = lower.find(b"content-length:")
        length = (
            int(lower[at + 15 : lower.find(b"\r\n", at) if lower.find(b"\r\n", at) > 0 else head]) if at >= 0 else 0
        )
        if len(self._seen) < head + 4 + length:
            return
        self._load.answered(time.perf_counter() - self._began, self._seen[9:12] == b"200")
        self._seen = b""
        self._next()


class _Load:
    def __init__(self, requests: Sequence[bytes], connections: int, every_s: float) -> None:
        self._requests = iter(requests)
        self._connections = connections
        self._every_s = every_s  # between two requests, all connections together; 0 for as fast as they are answered
        self._taken = 0
        self._start_s = 0.0
        self._done = asyncio.Event()
        self._left = connections
        self.times: list[float] = []
        self.refused = 0

    def take(self) -> bytes | None:
        self._taken += 1
        return next(self._requests, None)

    def wait_s(self) -> float:
        return self._start_s + self._taken * self._every_s - time.perf_counter() if self._every_s else 0

    def answered(self, seconds: float, taken: bool) -> None:
        self.times.append(seconds)
        self.refused += not taken

    def one_done(self) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()

    async def run(self, port: int) -> float:
        loop = asyncio.get_running_loop()
        began = self._start_s = time.perf_counter()
        for _ in range(self._connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
        await self._done.wait()
        return time.perf_counter() - began


def send(
    requests: Sequence[bytes], *, port: int, per_request: int, connections: int, events_per_s: float = 0
) -> Loaded:
    """Send all requests, as fast as they are answered or so many events a second."""
    load = _Load(requests, connections, per_request / events_per_s if events_per_s else 0)
    seconds = uvloop.run(load.run(port))
    times = sorted(load.times)
    return Loaded(
        len(times),
        len(times) * per_request,
        seconds,
        times[len(times) // 2] * 1000,
        times[int(len(times) * 0.99)] * 1000,
        load.refused,
    )


def main() -> int:
    """Send the messages of a file; print what was met as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--authorization", required=True)
    parser.add_argument("--per-request", type=int, default=100)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--events-per-s", type=float, default=0)
    asked = parser.parse_args()
    requests = requests_of(asked.file.read_bytes().splitlines(), asked.per_request, asked.authorization)
    loaded = send(
        requests,
        port=asked.port,
        per_request=asked.per_request,
        connections=asked.connections,
        events_per_s=asked.events_per_s,
    )
    sys.stdout.buffer.write(msgspec.json.encode(loaded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
