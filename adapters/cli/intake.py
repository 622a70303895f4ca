"""Where `turnout import` puts lines: into a space of this process, or to a daemon in batches."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec

from actors.door import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, Incoming, accept
from actors.space_api import SpaceApi
from adapters.cli.importing import Intake, Line, Taken, message_id_of, refused_for_length
from adapters.cli.lines import LINE_BYTES_MAX
from adapters.cli.opened import opened
from adapters.cli.options import MisusedError, Target
from adapters.cli.remote import Daemon, DaemonError, reach, unreachable
from eventlog.entries import Rejected

ENVELOPE: Final = b'{"batch":[%b]}'


@asynccontextmanager
async def intake_of(target: Target, source: str | None) -> AsyncIterator[Intake]:
    """Open what lines are imported into."""
    if target.url is None:
        async with opened(target, "turnout import", make=True, moving=True) as found:
            yield LocalIntake(found.space, found.source(source).id)
    elif source is not None:
        raise MisusedError("--source goes with --data; a daemon takes the source from the write key in TURNOUT_TOKEN")
    else:
        async with reach(target) as daemon:
            yield RemoteIntake(daemon)


def judged(line: Line, received_ms: int, source: str) -> Incoming | Rejected:
    """Judge a line as a call over HTTP would be; its number is the index."""
    if len(line.text) > LINE_BYTES_MAX:
        return refused_for_length(line, source)
    return accept(
        line.text,
        kind=None,
        received_ms=received_ms,
        sent_at=None,
        index=line.number,
        source=source,
        new_id=lambda: message_id_of(line),
    )


class LocalIntake:
    """Into a space that this process has opened."""

    def __init__(self, space: SpaceApi, source: str) -> None:
        self._space = space
        self._source = source

    async def take(self, lines: list[Line]) -> Taken:
        """See `Intake`."""
        now_ms = self._space.clock.now_ms()
        found = [judged(line, now_ms, self._source) for line in lines]
        accepted = [one for one in found if isinstance(one, Incoming)]
        rejected = [one for one in found if isinstance(one, Rejected)]
        known_before = self._space.duplicates
        refused = await self._space.ingest(accepted, rejected, self._source)
        known = self._space.duplicates - known_before
        return Taken(len(lines) - len(refused) - known, known, refused)


class RemoteIntake:
    """To a daemon, a batch at a time, in order: events of one moment keep the file's order.

    A daemon takes what it knows already in silence, so those lines count as taken.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def take(self, lines: list[Line]) -> Taken:
        """See `Intake`."""
        refused: list[Rejected] = []
        sent: list[tuple[Line, bytes]] = []
        for line in lines:
            found = judged(line, 0, "")
            if isinstance(found, Rejected) and (found.code == "invalid_json" or len(line.text) > EVENT_BYTES_MAX):
                refused.append(found)  # it would spoil the batch that it came in
            else:
                sent.append((line, with_message_id(line, found)))
        for batch in batches(sent):
            refused += await self._send(batch)
        return Taken(len(lines) - len(refused), 0, refused)

    async def _send(self, batch: list[tuple[Line, bytes]]) -> list[Rejected]:
        daemon = self._daemon
        body = ENVELOPE % b",".join(text for _, text in batch)
        head = {"Content-Type": "application/json", "Authorization": aiohttp.encode_basic_auth(daemon.token, "")}
        try:
            async with daemon.session.post(f"{daemon.url}/v1/batch", data=body, headers=head) as answer:
                content, status = await answer.read(), answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable(daemon.url, error) from error
        told = _decoded(content)
        if status != 200 and not told.get("rejected"):
            raise DaemonError(daemon.url, str(told.get("message") or f"status {status}"), status=status)
        return [
            Rejected(batch[row["index"]][0].number, row["messageId"], row["code"], row["message"], "")
            for row in told.get("rejected", [])
        ]


def with_message_id(line: Line, found: Incoming | Rejected) -> bytes:
    """Return a line as it is sent: one without a message id gets the id that is made for it."""
    made = message_id_of(line)
    text = line.text.strip()
    if not isinstance(found, Incoming) or found.message_id != made:
        return text
    return b'{"messageId":"%b",%b' % (made.encode(), text[1:])


def batches(lines: list[tuple[Line, bytes]]) -> Iterator[list[tuple[Line, bytes]]]:
    """Yield the lines in batches that the tracking API takes."""
    batch: list[tuple[Line, bytes]] = []
    size = len(ENVELOPE)
    for line in lines:
        if batch and (len(batch) == BATCH_EVENTS_MAX or size + len(line[1]) + 1 > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], len(ENVELOPE)
        batch.append(line)
        size += len(line[1]) + 1
    if batch:
        yield batch


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return {}
    return told if isinstance(told, dict) else {}
