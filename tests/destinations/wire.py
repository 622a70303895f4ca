"""A real server at the other end: it answers as scripted, also with what no server should."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

Reply = int | bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], "asyncio.Future[None]"]


class Request(Struct, frozen=True):
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


class Server:
    """What was received, and what is answered next."""

    def __init__(self, answers: Sequence[int | bytes]) -> None:
        self._answers = list(answers)
        self.requests: list[Request] = []
        self.url = ""
        self.port = 0
        self.hold = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, RuntimeError):
            pass  # the client is gone; uvloop says so by a RuntimeError where its handle is closed already
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rows = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(line, headers, body))
        given = self._answers.pop(0) if self._answers else 200
        if isinstance(given, int):
            given = f"HTTP/1.1 {given} X\r\nContent-Length: 2\r\n\r\nok".encode()
        if given == SILENCE:
            await self.hold.wait()
            return False
        if given == ENDLESS:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            while True:
                writer.write(piece)
                await writer.drain()
        if given == DRIP:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.write(given)
        await writer.drain()
        return b"Content-Length: 2\r\n" in given


SILENCE = b"<silence>"
ENDLESS = b"<endless>"
DRIP = b"<drip>"


@asynccontextmanager
async def receiver(answers: Sequence[int | bytes] = ()) -> AsyncIterator[Server]:
    """Serve while the block lasts: status codes or raw bytes, then 200."""
    server = Server(answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{server.port}/hook"
    try:
        yield server
    finally:
        server.hold.set()
        listening.close()
        listening.abort_clients() if hasattr(listening, "abort_clients") else None
