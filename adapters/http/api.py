"""The HTTP APIs other than tracking, as one ASGI app: management, Turnout's own routes, the Profile API, OpenAPI.

Litestar routes, decodes and describes. Around it lies a thin layer (`Edge`) that lets a request in by its token before
it is routed, so that without one every path answers 401, also one that is not there; keeps `/` and `%` inside an id of
the path apart from the path's own; answers in the media type that `Accept` asks for; and gives each answer its
`Request-Id`. What a route takes beside a token stands in one table, `access.ROUTE_SCOPES`.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import anyio.to_thread
import structlog
from litestar import Litestar, Request, Response, get
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import ClientException, HTTPException, SerializationException, ValidationException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler

from actors.shapes import worded
from adapters.export_jobs import Exports
from adapters.http import profiles
from adapters.http.access import ROUTE_SCOPES, authorize_route
from adapters.http.context import Api, Parts, provide_page
from adapters.http.edge import Edge
from adapters.http.management import (
    audiences,
    audit_events,
    changes,
    definitions,
    deliveries,
    destinations,
    exports,
    members,
    regulations,
    sources,
    spaces,
    tokens,
    traits,
)
from adapters.http.management import previews as preview_routes
from adapters.http.openapi import document_of
from adapters.http.previews import Previews
from adapters.http.refusals import Problem, answer_to, problem_of
from eventlog.entries import TokenRecord

BODY_BYTES_MAX: Final = 2 * 1024 * 1024  # the largest is a regulation of 5,000 ids; ours
NOTHING_HERE: Final = "there is nothing here; the API is described at /schema/openapi.json"

ROUTES: Final[list[ControllerRouterHandler]] = [
    *spaces.ROUTES,
    *sources.ROUTES,
    *tokens.ROUTES,
    *audit_events.ROUTES,
    *regulations.ROUTES,
    *audiences.ROUTES,
    *preview_routes.ROUTES,
    *members.ROUTES,
    *exports.ROUTES,
    *traits.ROUTES,
    *definitions.ROUTES,
    *changes.ROUTES,
    *destinations.ROUTES,
    *deliveries.ROUTES,
    *profiles.ROUTES,
]
DEPENDENCIES: Final = {"page": Provide(provide_page, sync_to_thread=False)}

log = structlog.get_logger(__name__)


def build_api(daemon: Parts) -> Edge:
    """Return the app. Its lifespan takes up the exports that are unfinished, and in the end stops what is running."""
    exports = Exports(daemon.data_dir / "exports", daemon.clock, daemon.space, keep_ms=daemon.exports_keep_ms)
    api = Api(daemon, exports, Previews())
    app = Litestar(
        [*ROUTES, get_document],
        dependencies=DEPENDENCIES,
        exception_handlers={Exception: _answer_error},
        guards=[_guard],
        lifespan=[lambda _: api.running()],
        logging_config=None,
        openapi_config=None,  # the document is served by `get_document`
        request_max_body_size=BODY_BYTES_MAX,
        state=State({"api": api}),
    )
    _check_table(app)
    return Edge(app, lambda: daemon.gate)


@cache
def api_document() -> bytes:
    """Return the OpenAPI document; made once, it takes some tenths of a second."""
    app = Litestar(ROUTES, dependencies=DEPENDENCIES, logging_config=None, openapi_config=_openapi())
    return document_of(app.openapi_schema)


@get(["/schema", "/schema/openapi.json"], include_in_schema=False)
async def get_document() -> Response[bytes]:
    """Return the API as an OpenAPI document."""
    return Response(await anyio.to_thread.run_sync(api_document), media_type="application/json")


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Turnout",
        version=version("turnout"),
        description="Audiences and computed traits in real time: the management API and the Profile API.",
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer"),
                "basic": SecurityScheme(type="http", scheme="basic", description="the token as user name"),
            }
        ),
        security=[{"bearer": []}, {"basic": []}],
        use_handler_docstrings=True,
    )


def served_routes(app: Litestar) -> set[str]:
    """Return every `METHOD /path` that an app serves, those that Litestar answers by itself left out."""
    return {
        f"{method} {route.path_format}"
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }


def _check_table(app: Litestar) -> None:
    """Refuse to start with a route that the table does not know, or a line of it that no route serves."""
    differing = served_routes(app) ^ set(ROUTE_SCOPES)
    assert not differing, f"routes and the table of their scopes differ: {sorted(differing)}"


def _guard(connection: ASGIConnection[Any, Any, TokenRecord, State], _: BaseRouteHandler) -> None:
    """Check the route's scope, and that the token is let into the space that the path names."""
    scope: Mapping[str, Any] = connection.scope
    api: Api = connection.app.state.api
    route = f"{scope['method']} {scope['path_template']}"
    authorize_route(api.daemon.control, connection.auth, route, connection.path_params.get("space_id"))


def _answer_error(request: Request[Any, Any, State], error: Exception) -> Response[Any]:
    """Answer what a handler, or Litestar before it, raised, in the envelope of the API that was asked."""
    problem = problem_met(error, _body_shape(request))
    if problem.status >= 500:
        log.error(
            "request_failed", path=request.scope["path"], request_id=request.scope.get("request_id"), exc_info=error
        )
    body, headers = answer_to(problem, request.scope["path"])
    return Response(body, status_code=problem.status, headers=headers, media_type="application/json")


def _body_shape(request: Request[Any, Any, State]) -> Any:
    """Return the type of the bodies that the route of a request takes, None where it takes none."""
    handler = request.scope.get("route_handler")
    field = handler.parsed_data_field if isinstance(handler, HTTPRouteHandler) else None
    return None if field is None else field.annotation


def problem_met(error: Exception, body_shape: Any = None) -> Problem:
    """Return how an error is answered, Litestar's own ones too; `body_shape` is the type of what was expected."""
    if isinstance(error, RecursionError):  # of the decoder: our own code does not go deep
        return Problem.of_fields(400, "malformed_json", [(None, "the body is too deep; nothing is nested like that")])
    return _of_litestar(error, body_shape) if isinstance(error, HTTPException) else problem_of(error)


def _wrong(item: Mapping[str, Any], body_shape: Any) -> tuple[str | None, str]:
    """Return the field and the message of one thing that Litestar found wrong."""
    key, message = str(item.get("key") or ""), str(item.get("message", ""))
    if key != "data":
        return key or None, message if body_shape is None else worded(message, body_shape, key)
    return None, "the body is empty, expected JSON" if message == "'data'" else f"the body: {message}"


def _of_litestar(error: HTTPException, body_shape: Any) -> Problem:
    """Word what Litestar found wrong with a request."""
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        return Problem.of_fields(400, "invalid", [_wrong(item, body_shape) for item in error.extra])
    if isinstance(error, ClientException) and isinstance(error.__cause__, SerializationException):
        return Problem.of_fields(400, "malformed_json", [(None, f"the body is not JSON: {error.__cause__.detail}")])
    status = 400 if error.status_code == 422 else error.status_code
    code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "invalid")
    message = {
        404: NOTHING_HERE,
        405: "this path does not take this method",
        413: f"the body has more than {BODY_BYTES_MAX} bytes",
    }.get(status, error.detail)
    return Problem.of_fields(status, code if status < 500 else "internal_error", [(None, message)])
