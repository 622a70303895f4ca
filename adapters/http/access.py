"""Which scope each route of the HTTP APIs takes: the one table, read by the guard and walked over by a test.

A route that is not here cannot be served: `build_api` refuses to start with it. Tracking routes take a write key,
`/health` and the console's log-in page nothing; they are served beside this API. A token bound to one space is let into
routes of that space alone; routes above spaces show and touch only what lies in its space, or, marked so, take a token
of no single space.
"""

from typing import Final

from actors.control import ADMIN, AUDIENCES_READ, AUDIENCES_WRITE, PROFILES_READ, Control
from adapters.http.auth import authorize
from eventlog.entries import TokenRecord
from eventlog.errors import ForbiddenError, NotFoundError

ANY: Final = ""
"""Any valid token will do."""

_AUDIENCE: Final = "/spaces/{space_id}/audiences/{audience_id}"
_TRAIT: Final = "/spaces/{space_id}/computed-traits/{trait_id}"
_DESTINATION: Final = "/spaces/{space_id}/destinations/{destination_id}"
_PROFILE: Final = "/v1/spaces/{space_id}/collections/{collection}/profiles/{profile}"

ROUTE_SCOPES: Final[dict[str, str]] = {
    "GET /schema": ANY,
    "GET /schema/openapi.json": ANY,
    # spaces, sources, tokens, the audit trail
    "GET /spaces": AUDIENCES_READ,
    "POST /spaces": ADMIN,
    "GET /spaces/{space_id}": AUDIENCES_READ,
    "GET /spaces/{space_id}/settings": AUDIENCES_READ,
    "PATCH /spaces/{space_id}/settings": ADMIN,
    "GET /sources": ADMIN,
    "POST /sources": ADMIN,
    "GET /sources/{source_id}": ADMIN,
    "PATCH /sources/{source_id}": ADMIN,
    "POST /sources/{source_id}/write-keys": ADMIN,
    "DELETE /sources/{source_id}/write-keys/{hint}": ADMIN,
    "POST /sources/{source_id}/writekey": ADMIN,
    "DELETE /sources/{source_id}/writekey/{write_key}": ADMIN,
    "GET /tokens": ADMIN,
    "POST /tokens": ADMIN,
    "POST /tokens/{token_id}/rotate": ADMIN,
    "DELETE /tokens/{token_id}": ADMIN,
    "GET /audit-events": ADMIN,
    # deletion and suppression
    "POST /regulations": ADMIN,
    "GET /regulations": ADMIN,
    "GET /regulations/{regulate_id}": ADMIN,
    "GET /suppressions": ADMIN,
    # audiences
    "GET /spaces/{space_id}/audiences": AUDIENCES_READ,
    "POST /spaces/{space_id}/audiences": AUDIENCES_WRITE,
    f"GET {_AUDIENCE}": AUDIENCES_READ,
    f"PATCH {_AUDIENCE}": AUDIENCES_WRITE,
    f"DELETE {_AUDIENCE}": AUDIENCES_WRITE,
    "POST /spaces/{space_id}/audiences/previews": AUDIENCES_READ,
    "GET /spaces/{space_id}/audiences/previews/{preview_id}": AUDIENCES_READ,
    "DELETE /spaces/{space_id}/audiences/previews/{preview_id}": AUDIENCES_READ,
    f"POST {_AUDIENCE}/runs": AUDIENCES_WRITE,
    f"GET {_AUDIENCE}/audience-references": AUDIENCES_READ,
    f"GET {_AUDIENCE}/members": AUDIENCES_READ,
    f"GET {_AUDIENCE}/history": AUDIENCES_READ,
    f"GET {_AUDIENCE}/explain": AUDIENCES_READ,
    f"GET {_AUDIENCE}/overlap": AUDIENCES_READ,
    f"POST {_AUDIENCE}/exports": AUDIENCES_READ,
    f"GET {_AUDIENCE}/exports": AUDIENCES_READ,
    f"GET {_AUDIENCE}/exports/{{export_id}}": AUDIENCES_READ,
    f"GET {_AUDIENCE}/exports/{{export_id}}/download": AUDIENCES_READ,
    # computed traits
    "GET /spaces/{space_id}/computed-traits": AUDIENCES_READ,
    "POST /spaces/{space_id}/computed-traits": AUDIENCES_WRITE,
    f"GET {_TRAIT}": AUDIENCES_READ,
    f"PATCH {_TRAIT}": AUDIENCES_WRITE,
    f"DELETE {_TRAIT}": AUDIENCES_WRITE,
    f"GET {_TRAIT}/audience-references": AUDIENCES_READ,
    f"GET {_TRAIT}/explain": AUDIENCES_READ,
    f"POST {_TRAIT}/exports": AUDIENCES_READ,
    f"GET {_TRAIT}/exports": AUDIENCES_READ,
    f"GET {_TRAIT}/exports/{{export_id}}": AUDIENCES_READ,
    f"GET {_TRAIT}/exports/{{export_id}}/download": AUDIENCES_READ,
    # a space's own
    "POST /spaces/{space_id}/definitions/check": AUDIENCES_READ,
    "GET /spaces/{space_id}/changes": AUDIENCES_READ,
    "GET /spaces/{space_id}/rejected-events": AUDIENCES_READ,
    # destinations
    "GET /destinations": AUDIENCES_READ,
    "POST /destinations": ADMIN,
    "POST /destinations/{destination_id}/copies": ADMIN,
    "GET /destinations/{destination_id}": AUDIENCES_READ,
    "PATCH /destinations/{destination_id}": ADMIN,
    "DELETE /destinations/{destination_id}": ADMIN,
    "GET /spaces/{space_id}/audienceType/{audience_type}/supported-destinations": AUDIENCES_READ,
    **{f"GET {of}/destination-connections": AUDIENCES_READ for of in (_AUDIENCE, _TRAIT)},
    **{f"POST {of}/destination-connections": AUDIENCES_WRITE for of in (_AUDIENCE, _TRAIT)},
    **{f"PATCH {of}/destination-connections/{{destination_id}}": AUDIENCES_WRITE for of in (_AUDIENCE, _TRAIT)},
    **{f"DELETE {of}/destination-connections/{{destination_id}}": AUDIENCES_WRITE for of in (_AUDIENCE, _TRAIT)},
    f"POST {_AUDIENCE}/destination-connections/{{connection_id}}/activations": AUDIENCES_WRITE,
    f"GET {_AUDIENCE}/activations": AUDIENCES_READ,
    f"GET {_DESTINATION}/deliveries": AUDIENCES_READ,
    f"GET {_DESTINATION}/dead-letters": AUDIENCES_READ,
    f"POST {_DESTINATION}/dead-letters/resend": AUDIENCES_WRITE,
    f"POST {_DESTINATION}/dead-letters/{{delivery_id}}/resend": AUDIENCES_WRITE,
    f"DELETE {_DESTINATION}/dead-letters": AUDIENCES_WRITE,
    f"DELETE {_DESTINATION}/dead-letters/{{delivery_id}}": AUDIENCES_WRITE,
    f"POST {_DESTINATION}/ping": AUDIENCES_WRITE,
    # the Profile API
    **{f"GET {_PROFILE}/{part}": PROFILES_READ for part in ("traits", "external_ids", "events", "metadata", "links")},
}

SPACELESS_ROUTES: Final = ("POST /spaces",)
"""Routes above spaces: a token bound to one space is not let in, whatever its scopes."""

assert set(SPACELESS_ROUTES) <= set(ROUTE_SCOPES)


def authorize_route(control: Control, token: TokenRecord, route: str, space: str | None) -> None:
    """Check that a token has a route's scope, and is let into the space that the path names. Raises ForbiddenError."""
    authorize(token, ROUTE_SCOPES[route])
    if token.space_id and route in SPACELESS_ROUTES:
        raise ForbiddenError("forbidden", f"the token is for the space {token.space_id} alone; this is above spaces")
    if space is not None and token.space_id:
        try:
            space_id = control.space(space).id
        except NotFoundError:
            space_id = space  # not told from a space of others
        authorize(token, ROUTE_SCOPES[route], space_id)
