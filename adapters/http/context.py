"""What a request finds around it: the daemon's parts, the space that its path names, who sent it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.params import QueryParameter

from actors.control import Control
from actors.space_api import DefinitionView, SpaceApi
from actors.supervisor import Deliveries
from adapters.export_jobs import Exports
from adapters.http.auth import Gate
from adapters.http.cursors import Cursors
from adapters.http.envelopes import Page, parse_page
from adapters.http.previews import Previews
from eventlog.clock import Clock
from eventlog.entries import Audited, SpaceRecord, TokenRecord
from eventlog.errors import NotFoundError

ApiRequest = Request[TokenRecord, TokenRecord, State]


class Parts(Protocol):
    """What the API needs of the daemon."""

    @property
    def control(self) -> Control:
        """Return spaces, sources and tokens."""

    @property
    def clock(self) -> Clock:
        """Return what tells the time."""

    @property
    def data_dir(self) -> Path:
        """Return where the daemon's files lie."""

    @property
    def cursor_key(self) -> bytes:
        """Return the key that cursors of pages are made with."""

    @property
    def exports_keep_ms(self) -> int:
        """Return how long the file of an export is kept once it is finished."""

    @property
    def gate(self) -> Gate:
        """Return what lets requests in."""

    @property
    def condition(self) -> str:
        """Return `starting`, `ready`, `stopping` or `failed`."""

    def space(self, space_id: str) -> SpaceApi:
        """Return an open space. Raises NotFoundError."""

    def deliveries(self, space_id: str) -> Deliveries:
        """Return the destinations of an open space at work. Raises NotFoundError."""

    async def create_space(self, name: str, *, slug: str | None = None, actor: str = "") -> SpaceRecord:
        """Create a space and open it."""


class Api:
    """The daemon's parts and the API's own: exports and previews."""

    def __init__(self, daemon: Parts, exports: Exports, previews: Previews) -> None:
        self.daemon = daemon
        self.exports = exports
        self.previews = previews
        self.cursors = Cursors(daemon.cursor_key)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take up the exports that an earlier process left unfinished; at the end stop what is running."""
        self.exports.start()
        try:
            yield
        finally:
            await self.previews.close()
            await self.exports.close()


def api_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Api:
    """Return the API that serves this request."""
    api: Api = connection.app.state.api
    return api


def provide_page(
    request: ApiRequest,
    page_count: Annotated[
        str | None, QueryParameter(name="pagination[count]", description="1-1000, default 100")
    ] = None,
    page_cursor: Annotated[
        str | None, QueryParameter(name="pagination[cursor]", description="`next` of the page before")
    ] = None,
    pagination: Annotated[
        str | None, QueryParameter(name="pagination", description="both in one value, as some clients send it")
    ] = None,
) -> Page:
    """Read the page from a request's query."""
    return parse_page(page_count, page_cursor, pagination, api_of(request).cursors)


def space_of(connection: ASGIConnection[Any, Any, Any, Any], id_or_slug: str) -> SpaceApi:
    """Return the space that the path names. Raises NotFoundError."""
    daemon = api_of(connection).daemon
    return daemon.space(daemon.control.space(id_or_slug).id)


def caller_of(request: ApiRequest) -> TokenRecord:
    """Return the token that the request came with."""
    return request.auth


def actor_of(request: ApiRequest) -> str:
    """Return who is named in `createdBy` and in the audit trail."""
    return caller_of(request).id


def reaches(request: ApiRequest, space_id: str) -> bool:
    """Tell whether the request's token is let into a space."""
    return caller_of(request).space_id in ("", space_id)


async def audit(
    request: ApiRequest, act: str, resource_type: str, resource_id: str, name: str, *, space_id: str
) -> None:
    """Write an administrative act of a space down in the audit trail."""
    fact = Audited(act, actor_of(request), resource_id, resource_type, name, space_id)
    await api_of(request).daemon.control.record(fact)


def audience_of(space: SpaceApi, audience_id: str) -> DefinitionView:
    """Return an audience by id or key. Raises NotFoundError, for a computed trait too."""
    view = space.definition(audience_id)
    if view.definition.kind != "audience":
        raise NotFoundError("not_found", f"{audience_id[:64]!r} is a computed trait, not an audience", field="id")
    return view


def trait_of(space: SpaceApi, trait_id: str) -> DefinitionView:
    """Return a computed trait by id or key. Raises NotFoundError, for an audience too."""
    view = space.definition(trait_id)
    if view.definition.kind != "trait":
        raise NotFoundError("not_found", f"{trait_id[:64]!r} is an audience, not a computed trait", field="id")
    return view


def definition_of(request: ApiRequest, space: SpaceApi) -> DefinitionView:
    """Return the audience or computed trait that the path names. Raises NotFoundError."""
    audience_id: str | None = request.path_params.get("audience_id")
    return trait_of(space, request.path_params["trait_id"]) if audience_id is None else audience_of(space, audience_id)
