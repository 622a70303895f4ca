"""Audiences to look at: the list, one with its size, changes and members, and why a profile is in it or is not."""

from functools import partial
from typing import Annotated, Any, Final

import anyio.to_thread
from litestar import Response, get
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER

from adapters.console.calls import ask
from adapters.console.picture import draw
from adapters.console.rendering import ROOT, answer
from adapters.http.context import ApiRequest, audience_of, space_of
from adapters.http.envelopes import PAGE_COUNT_MAX, Page
from eventlog.entries import AnyFact, Entered, Exited
from eventlog.instants import instant_ms, iso
from eventlog.log import Log

AUDIENCES: Final = f"{ROOT}/spaces/{{space_id:str}}/audiences"
AUDIENCE: Final = f"{AUDIENCES}/{{audience_id:str}}"
MEMBERS_SHOWN: Final = 50
CHANGES_SHOWN: Final = 15
ENTRIES_LOOKED_AT: Final = 20_000  # of the log, the newest; reading their facts takes some milliseconds
EVENTS_SHOWN: Final = 5  # behind one part of an explanation

CursorQuery = Annotated[str | None, QueryParameter(name="cursor")]

_API: Final = "/spaces/{space_id}/audiences"
_ONE: Final = f"{_API}/{{audience_id}}"


@get([ROOT, f"{ROOT}/"])
async def show_start(request: ApiRequest) -> Response[Any]:
    """Go to the audiences of the first space that the token is let into."""
    spaces = (await ask(request, "GET /spaces", page=Page(1))).spaces
    if not spaces:
        return answer(request, "empty.html")
    return Redirect(f"{ROOT}/spaces/{spaces[0].id}/audiences", status_code=HTTP_303_SEE_OTHER)


@get(AUDIENCES)
async def show_audiences(request: ApiRequest, space_id: FromPath[str], cursor: CursorQuery = None) -> Response[str]:
    """List the audiences of a space."""
    listed = await ask(request, f"GET {_API}", page=Page(PAGE_COUNT_MAX, cursor))
    template = "_audiences.html" if "hx-request" in request.headers else "audiences.html"
    return answer(request, template, audiences=listed.audiences, following=listed.pagination.next)


@get(AUDIENCE)
async def show_audience(request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str]) -> Response[str]:
    """Show an audience; its changes and its size over time are loaded by the page."""
    audience = (await ask(request, f"GET {_ONE}")).audience
    connections = (await ask(request, f"GET {_ONE}/destination-connections", page=Page())).connections
    return answer(request, "audience.html", audience=audience, connections=connections)


@get(f"{AUDIENCE}/now")
async def show_now(request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str]) -> Response[str]:
    """Show an audience's size and status."""
    return answer(request, "_now.html", audience=(await ask(request, f"GET {_ONE}")).audience)


@get(f"{AUDIENCE}/size")
async def show_size(request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str]) -> Response[str]:
    """Show an audience's size over time."""
    days = (await ask(request, f"GET {_ONE}/history")).history
    now_ms, _ = space_of(request, space_id).now()
    picture = draw([(instant_ms(day.date) or 0, day.size) for day in days], now_ms)
    ends = None if picture is None else (iso(picture.first_ms)[:10], iso(picture.last_ms)[:10])
    return answer(request, "_size.html", days=days, picture=picture, ends=ends)


@get(f"{AUDIENCE}/changes")
async def show_changes(request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str]) -> Response[str]:
    """Show who entered and left lately."""
    await ask(request, f"GET {_ONE}")  # whoever may see the audience
    space = space_of(request, space_id)
    await space.settle()
    number = audience_of(space, audience_id).definition.number
    found = await anyio.to_thread.run_sync(partial(latest_changes, space.log, number))
    changes = [
        {
            "entered": isinstance(fact, Entered),
            "at": iso(fact.at_ms),
            "name": space.name_of(fact.entity),
            "profile": next((f"{row.id_type}:{row.value}" for row in space.ids_of(fact.entity)), None),
        }
        for fact in found
    ]
    return answer(request, "_changes.html", changes=changes, looked_at=ENTRIES_LOOKED_AT, audience_id=audience_id)


def latest_changes(log: Log, number: int) -> list[Entered | Exited]:
    """Return the latest entries and exits of a definition, the newest first, from the end of the log."""
    found: list[Entered | Exited] = []
    for _, facts in log.read_facts(max(0, log.last_seq - ENTRIES_LOOKED_AT)):
        found += [fact for _, fact in facts if _is_change(fact, number)]  # type: ignore[misc] # told by `_is_change`
    return found[: -CHANGES_SHOWN - 1 : -1]


def _is_change(fact: AnyFact, number: int) -> bool:
    return isinstance(fact, Entered | Exited) and fact.definition == number


@get(f"{AUDIENCE}/members")
async def show_members(
    request: ApiRequest, space_id: FromPath[str], audience_id: FromPath[str], cursor: CursorQuery = None
) -> Response[str]:
    """List the members of an audience."""
    audience = (await ask(request, f"GET {_ONE}")).audience
    found = await ask(request, f"GET {_ONE}/members", page=Page(MEMBERS_SHOWN, cursor))
    return answer(request, "members.html", audience=audience, members=found.members, following=found.pagination.next)


@get(f"{AUDIENCE}/explain")
async def show_explanation(
    request: ApiRequest,
    space_id: FromPath[str],
    audience_id: FromPath[str],
    profile: FromQuery[str] = "",
    at: FromQuery[str] = "",
    known: FromQuery[str] = "",
) -> Response[str]:
    """Tell why a profile is, or is not, in an audience, now or at any time."""
    audience = (await ask(request, f"GET {_ONE}")).audience
    explained = None
    if named := profile.strip():
        if ":" not in named:
            named = f"{'group_id' if audience.audience_type == 'ACCOUNTS' else 'user_id'}:{named}"
        explained = await ask(
            request, f"GET {_ONE}/explain", profile=named, at=at.strip() or None, known=known.strip() or None
        )
    return answer(
        request,
        "explain.html",
        audience=audience,
        profile=profile,
        at_given=at,
        known_given=known,
        explained=explained,
        events_shown=EVENTS_SHOWN,
    )


ROUTES: Final = [
    show_start,
    show_audiences,
    show_audience,
    show_now,
    show_size,
    show_changes,
    show_members,
    show_explanation,
]
