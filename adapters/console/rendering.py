"""Templates to answers. Everything that is filled in is escaped; a name that is not given is an error, not a blank."""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response

from actors.control import ADMIN, AUDIENCES_READ, AUDIENCES_WRITE, PROFILES_READ, grants
from adapters.console.sessions import Session
from adapters.http.context import ApiRequest, api_of, reaches
from eventlog.errors import NotFoundError

ROOT: Final = "/console"
SIGN_IN: Final = f"{ROOT}/sign-in"
SIGN_OUT: Final = f"{ROOT}/sign-out"
CSS_PATH: Final = f"{ROOT}/static/console.css"
JS_PATH: Final = f"{ROOT}/static/htmx.min.js"
HTML: Final = "text/html; charset=utf-8"
VERSION_CHARS: Final = 12

TITLES: Final = {400: "That did not work", 401: "Sign in", 403: "Not allowed", 404: "Not found", 429: "Too fast"}


@cache
def static(name: str) -> bytes:
    """Return a file that browsers load."""
    return files("adapters.console.static").joinpath(name).read_bytes()


def _versioned(path: str) -> str:
    """Return the address of a static file: another one for other content, so that caches may keep it."""
    return f"{path}?v={sha256(static(path.rpartition('/')[2])).hexdigest()[:VERSION_CHARS]}"


def when(iso_time: str) -> str:
    """Return an ISO 8601 time for people, to the second."""
    return iso_time[:19].replace("T", " ") + " UTC"


def worded(value: Any) -> str:
    """Return a value for people."""
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("adapters.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(when=when, worded=worded)
    made.globals.update(root=ROOT, sign_in=SIGN_IN, sign_out=SIGN_OUT, css=_versioned(CSS_PATH), js=_versioned(JS_PATH))
    return made


_TEMPLATES: Final = _environment()


def render(template: str, **values: Any) -> str:
    """Return a filled-in template."""
    return _TEMPLATES.get_template(template).render(values)


def answer(request: ApiRequest, template: str, *, status: int = 200, **values: Any) -> Response[str]:
    """Return a page, or a part of one, with what every page shows around it."""
    return Response(render(template, **around(request), **values), status_code=status, media_type=HTML)


def around(request: ApiRequest) -> dict[str, Any]:
    """Return what the frame of a page needs: the space, the form token, what the token may do."""
    session: Session = request.scope["user"]
    control, scopes = api_of(request).daemon.control, request.auth.scopes
    spaces = [one for one in control.spaces() if reaches(request, one.id)]
    named = request.path_params.get("space_id")
    try:
        space = None if named is None else control.space(named)
    except NotFoundError:
        space = None
    if space is not None and not reaches(request, space.id):
        space = None
    return {
        "form_token": session.form_token,
        "spaces": spaces,
        "space": space,
        "at": "" if space is None else f"{ROOT}/spaces/{space.id}",
        "may_read": grants(scopes, AUDIENCES_READ),
        "may_write": grants(scopes, AUDIENCES_WRITE),
        "may_look_up": grants(scopes, PROFILES_READ),
        "is_admin": grants(scopes, ADMIN),
    }


def sign_in_page(onward: str, failure: str = "") -> str:
    """Return the log-in page; who signs in goes onward."""
    return render("sign_in.html", onward=onward, failure=failure)


def problem_page(status: int, message: str, *, is_part: bool, frame: dict[str, Any] | None = None) -> str:
    """Return a page that says what was wrong; for a part of a page, the part that says so."""
    title = TITLES.get(status, "Something went wrong")
    if is_part:
        return render("_problem.html", message=message)
    return render("problem.html", title=title, message=message, frame=frame is not None, **(frame or {}))
