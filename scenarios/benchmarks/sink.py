"""A sink for deliveries: answers 200 at once, reads nothing of what comes.

python -m scenarios.benchmarks.sink PORT
"""

import asyncio
import sys

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment] # TCP gives one

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (head := self._held.find(b"\r\n\r\n")) >= 0:
            lower = self._held[:head].lower()
            at = lower.find(b"content-length:")
            end = lower.find(b"\r\n", at)
            length = int(lower[at + 15 : end if end > 0 else head]) if at >= 0 else 0
            if len(self._held) < head + 4 + length:
                return
            self._held = self._held[head + 4 + length :]
            self._transport.write(ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
