"""Pages ask what programs ask: the API's own handlers, under the same scopes. The console knows nothing by itself."""

from collections.abc import Mapping
from hmac import compare_digest
from inspect import signature
from typing import Any, Final

from litestar import Response
from litestar.handlers import HTTPRouteHandler
from msgspec.structs import replace

from adapters.console.sessions import Session
from adapters.http.access import authorize_route
from adapters.http.api import ROUTES
from adapters.http.context import ApiRequest, api_of
from adapters.http.envelopes import Page
from eventlog.errors import ForbiddenError, InvalidError

FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field
FORM_TOKEN_HEADER: Final = "x-form-token"  # noqa: S105 - the name of a header

_HANDLERS: Final[Mapping[str, HTTPRouteHandler]] = {
    f"{method} {path.replace(':str}', '}')}": handler
    for handler in ROUTES
    if isinstance(handler, HTTPRouteHandler)
    for path in handler.paths
    for method in handler.http_methods
}


async def ask(request: ApiRequest, route: str, **given: Any) -> Any:
    """Return what the API answers to `METHOD /path`, parts of the path taken from the request's own.

    Raises ForbiddenError where the token's scopes fall short, and what the API raises.
    """
    authorize_route(api_of(request).daemon.control, request.auth, route, request.path_params.get("space_id"))
    fn = _HANDLERS[route].fn
    own = {name: value for name, value in request.path_params.items() if name in signature(fn).parameters}
    if isinstance(page := given.get("page"), Page):
        given["page"] = replace(page, cursors=api_of(request).cursors)
    answered = await fn(request, **{**own, **given})
    return getattr(answered, "data", answered) if not isinstance(answered, Response) else answered


async def form_of(request: ApiRequest) -> dict[str, str]:
    """Return the fields of a form of this session. Raises ForbiddenError for any other."""
    form = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    session: Session = request.scope["user"]
    sent = request.headers.get(FORM_TOKEN_HEADER) or form.pop(FORM_TOKEN, "")
    if not compare_digest(sent.encode(), session.form_token.encode()):
        raise ForbiddenError("forbidden", "The form is not of this session. Load its page again and repeat it.")
    return form


def field(form: Mapping[str, str], name: str) -> str:
    """Return a field that has to be there. Raises InvalidError."""
    if not (value := form.get(name, "").strip()):
        raise InvalidError("invalid", f"{name}: expected a value", field=name)
    return value
