"""The console as one ASGI app: signing in and out, and the pages of the modules beside this one."""

from ipaddress import ip_address
from typing import Any, Final

import structlog
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromQuery
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER

from adapters.console import audiences
from adapters.console.calls import form_of
from adapters.console.door import COOKIE, Door
from adapters.console.rendering import (
    CSS_PATH,
    HTML,
    JS_PATH,
    ROOT,
    SIGN_IN,
    SIGN_OUT,
    around,
    problem_page,
    sign_in_page,
    static,
)
from adapters.console.sessions import SESSION_MS, Sessions
from adapters.http.api import problem_met
from adapters.http.context import Api, ApiRequest
from eventlog.errors import UnauthorizedError

FORM_BYTES_MAX: Final = 256 * 1024  # the longest field is a definition
ONWARD_CHARS_MAX: Final = 1_000
STATIC_CACHE: Final = "private, max-age=86400"  # the address changes with the content

log = structlog.get_logger(__name__)


def build_console(api: Api, sessions: Sessions) -> Door:
    """Return the app, over the same parts as the API's."""
    app = Litestar(
        [show_sign_in, take_sign_in, sign_out, stylesheet, script, *audiences.ROUTES],
        exception_handlers={Exception: _answer_error},
        logging_config=None,
        openapi_config=None,
        request_max_body_size=FORM_BYTES_MAX,
        state=State({"api": api, "sessions": sessions}),
    )
    return Door(app, lambda: api.daemon.gate, sessions)


@get(SIGN_IN)
async def show_sign_in(request: ApiRequest, code: FromQuery[str] = "") -> Response[Any]:
    """Show the log-in page; from this machine, a one-time code signs in."""
    sessions = _sessions_of(request)
    if not code:
        return Response(sign_in_page(ROOT), media_type=HTML)
    token = sessions.redeem(code) if _is_local(request) else None
    if token is None:
        failure = "That link has been used, is too old, or is not from this machine. Sign in with a token."
        return Response(sign_in_page(ROOT, failure), status_code=401, media_type=HTML)
    return _signed_in(request, token, ROOT)


@post(SIGN_IN)
async def take_sign_in(request: ApiRequest) -> Response[Any]:
    """Sign in with a token."""
    form = await request.form()
    token, onward = str(form.get("token", "")).strip(), _onward(str(form.get("onward", "")))
    try:
        _gate_of(request).authenticate(f"Bearer {token}")
    except UnauthorizedError:
        failure = "No such token; it may have been revoked or have expired."
        return Response(sign_in_page(onward, failure), status_code=401, media_type=HTML)
    return _signed_in(request, token, onward)


@post(SIGN_OUT)
async def sign_out(request: ApiRequest) -> Response[Any]:
    """Sign out."""
    await form_of(request)
    _sessions_of(request).end(request.scope["session_id"])  # type: ignore[typeddict-item] # the door put it there
    answered = Redirect(SIGN_IN, status_code=HTTP_303_SEE_OTHER)
    answered.delete_cookie(COOKIE, path=ROOT)
    return answered


@get(CSS_PATH)
async def stylesheet() -> Response[bytes]:
    """Return the stylesheet."""
    return Response(static("console.css"), media_type="text/css", headers={"Cache-Control": STATIC_CACHE})


@get(JS_PATH)
async def script() -> Response[bytes]:
    """Return htmx."""
    return Response(static("htmx.min.js"), media_type="text/javascript", headers={"Cache-Control": STATIC_CACHE})


def _signed_in(request: ApiRequest, token: str, onward: str) -> Response[Any]:
    answered = Redirect(onward, status_code=HTTP_303_SEE_OTHER)
    answered.set_cookie(
        COOKIE,
        _sessions_of(request).start(token),
        max_age=SESSION_MS // 1000,
        path=ROOT,
        httponly=True,
        samesite="strict",
        secure=request.headers.get("origin", "").startswith("https://"),  # behind a proxy that ends TLS
    )
    return answered


def _sessions_of(request: ApiRequest) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _gate_of(request: ApiRequest) -> Any:
    return request.app.state.api.daemon.gate


def _is_local(request: ApiRequest) -> bool:
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _onward(path: str) -> str:
    """Return where to go after signing in: a page of the console, whatever was asked for."""
    is_ours = path.startswith(f"{ROOT}/") and path.isascii() and path.isprintable() and len(path) <= ONWARD_CHARS_MAX
    return path if is_ours and "\\" not in path and "//" not in path else ROOT


def _answer_error(request: Request[Any, Any, State], error: Exception) -> Response[Any]:
    """Answer what a page raised, as a page; to htmx as a part of one."""
    problem = problem_met(error)
    if problem.status >= 500:
        log.error("console_failed", path=request.scope["path"], exc_info=error)
    message = "; ".join(one.message or one.type for one in problem.errors)
    frame = around(request) if request.scope.get("auth") is not None else None
    body = problem_page(problem.status, message, is_part="hx-request" in request.headers, frame=frame)
    headers = {name: value for name, value in problem.headers.items() if name != "WWW-Authenticate"}
    return Response(body, status_code=problem.status, headers=headers, media_type=HTML)
