"""The stream of changes of a space as Server-Sent Events, and the list of events refused at the door.

Each change is an event `entered`, `exited` or `trait_computed` whose `id` is its sequence in the log, so a client that
reconnects (browsers do by themselves, with `Last-Event-ID`) goes on exactly behind what it last saw. While nothing
happens a heartbeat comes with the sequence reached, so that going on never reads the log anew.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from litestar import get
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from actors.space_api import SpaceApi
from adapters.http.context import ApiRequest, api_of, space_of
from adapters.http.envelopes import Data, PageQuery, PaginationOutput, Shape
from eventlog.entries import Commit, Definition, DefinitionSaved, Entered, Exited, TraitComputed
from eventlog.errors import InvalidError
from eventlog.instants import iso

HEARTBEAT_S: Final = 15.0  # below the 30-60 s after which proxies drop a silent connection
END_POLL_S: Final = 0.5  # a server that stops waits for every answer to end: streams look so often whether it does
SEQ_DIGITS_MAX: Final = 19  # of 2^63, which no sequence reaches

_encode = msgspec.json.Encoder().encode


class Change(Shape, frozen=True):
    """An entry, an exit or a new value; `at` is when it became true, `recordedAt` when that was written down."""

    seq: int
    type: str
    key: str
    definition_id: str
    profile_id: str
    profile: str
    at: str
    recorded_at: str
    cause_seq: int
    value: Any = None


class RejectedEvent(Shape, frozen=True):
    """An event that was refused, with its reason and itself as it came."""

    seq: int
    received_at: str
    code: str
    message: str
    message_id: str
    index: int
    source_id: str
    event: Any


class RejectedEvents(Shape, frozen=True):
    """A page of refused events, newest first."""

    rejected_events: list[RejectedEvent]
    pagination: PaginationOutput


@get(
    "/spaces/{space_id:str}/changes",
    summary="Follow changes",
    media_type="text/event-stream",
)
async def follow_changes(
    request: ApiRequest,
    space_id: FromPath[str],
    from_seq: Annotated[
        str | None, QueryParameter(name="from", description="start at this sequence; left out: at what comes next")
    ] = None,
    last_event_id: Annotated[
        str | None, HeaderParameter(name="Last-Event-ID", description="go on behind this one")
    ] = None,
) -> Stream:
    """Stream entries, exits and new values of computed traits, each once, in order, with its cause."""
    space = space_of(request, space_id)
    after_seq = last_seq = space.log.last_seq
    if last_event_id:
        after_seq = _seq(last_event_id, "Last-Event-ID", last_seq)
    elif from_seq is not None:
        after_seq = max(0, _seq(from_seq, "from", last_seq + 1) - 1)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    daemon = api_of(request).daemon
    stream = event_stream(space, after_seq, lambda: daemon.condition == "stopping")
    return Stream(stream, media_type="text/event-stream", headers=headers)


def _seq(text: str, field: str, most: int) -> int:
    """Return a sequence that was given, or is the next to be: behind a later one nothing would come for long."""
    if not (text.isascii() and text.isdigit()) or len(text) > SEQ_DIGITS_MAX or int(text) > most:
        raise InvalidError(
            "invalid", f"{field}: found {text[:32]!r}, expected a sequence from 0 to {most}", field=field
        )
    return int(text)


async def event_stream(
    space: SpaceApi, after_seq: int, ended: Callable[[], bool], *, heartbeat_s: float = HEARTBEAT_S
) -> AsyncIterator[bytes]:
    """Yield the text of the stream: changes behind `after_seq` as they are recorded, heartbeats in between."""
    names = {view.definition.number: view.definition for view in space.definitions()}
    reached = after_seq
    yield b": changes follow\n\n"
    commits = aiter(space.changes(after_seq))
    waiting: asyncio.Task[Commit] | None = None
    silent_s = 0.0
    try:
        while not ended():
            if waiting is None:
                waiting = asyncio.ensure_future(_next(commits))
            await asyncio.wait({waiting}, timeout=min(heartbeat_s, END_POLL_S))
            if not waiting.done():
                silent_s += min(heartbeat_s, END_POLL_S)
                if silent_s >= heartbeat_s:
                    silent_s = 0.0
                    yield f"id: {reached}\n: heartbeat\n\n".encode()
                continue
            commit, waiting = waiting.result(), None
            events = b"".join(_spell(space, commit, names, reached))
            reached = max(reached, commit.last_seq)
            if events:
                yield events
    finally:
        if waiting is not None:
            waiting.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await waiting


async def _next(commits: AsyncIterator[Commit]) -> Commit:
    return await anext(commits)


def _spell(space: SpaceApi, commit: Commit, names: dict[int, Definition], after_seq: int) -> list[bytes]:
    """Return the changes of a commit as events; definitions are learned on the way, also ones that are gone by now."""
    spelled = []
    for seq, fact in enumerate(commit.facts, commit.first_seq + len(commit.events)):
        if isinstance(fact, DefinitionSaved):
            names[fact.definition.number] = fact.definition
        elif isinstance(fact, Entered | Exited | TraitComputed) and seq > after_seq:
            change = _change(space, commit, seq, fact, names.get(fact.definition))
            spelled.append(b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, change.type.encode(), _encode(change)))
    return spelled


def _change(
    space: SpaceApi, commit: Commit, seq: int, fact: Entered | Exited | TraitComputed, definition: Definition | None
) -> Change:
    kinds = {Entered: "entered", Exited: "exited", TraitComputed: "trait_computed"}
    return Change(
        seq=seq,
        type=kinds[type(fact)],
        key="" if definition is None else definition.key,
        definition_id="" if definition is None else definition.id,
        profile_id=space.public_id(fact.entity),
        profile=space.name_of(fact.entity),
        at=iso(fact.at_ms),
        recorded_at=iso(commit.at_ms),
        cause_seq=fact.cause_seq,
        value=fact.value if isinstance(fact, TraitComputed) else None,
    )


@get("/spaces/{space_id:str}/rejected-events", summary="List refused events")
async def list_rejected(request: ApiRequest, space_id: FromPath[str], page: PageQuery) -> Data[RejectedEvents]:
    """List the events refused at the door, newest first, each with its reason."""
    space = space_of(request, space_id)
    before = None if page.cursor is None else page.cursors.decode(page.cursor, "rejected", tuple[int | None])[0]
    found = list(space.rejected(before_seq=before, limit=page.count + 1))
    rows = [
        RejectedEvent(
            seq=seq,
            received_at=iso(at_ms),
            code=refusal.code,
            message=refusal.message,
            message_id=refusal.message_id,
            index=refusal.index,
            source_id=refusal.source,
            event=_body(refusal.body),
        )
        for seq, at_ms, refusal in found[: page.count]
    ]
    more = len(found) > page.count
    pagination = PaginationOutput(
        current=page.cursor or page.cursors.encode("rejected", None),
        next=page.cursors.encode("rejected", rows[-1].seq) if more else None,
    )
    return Data(RejectedEvents(rejected_events=rows, pagination=pagination))


def _body(body: bytes) -> Any:
    """Return a refused event as JSON where it is JSON, else as text."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace")


ROUTES = [follow_changes, list_rejected]
