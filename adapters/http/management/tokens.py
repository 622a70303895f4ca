"""Access tokens: issue, list, rotate, revoke. A token's secret is told once; only its hash is kept."""

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from adapters.http.context import ApiRequest, actor_of, api_of, caller_of, reaches
from adapters.http.envelopes import (
    SUCCESS,
    Data,
    PageQuery,
    PaginationOutput,
    Shape,
    Status,
    optional_time_ms,
    paginate,
)
from adapters.http.management.definitions import checked_name
from eventlog.entries import TokenRecord
from eventlog.errors import ForbiddenError
from eventlog.instants import iso


class CreateToken(Shape, frozen=True):
    """A token to issue; without `spaceId` it is let into every space."""

    name: str
    scopes: list[str]
    space_id: str | None = None
    expires_at: str | None = None


class TokenOut(Shape, frozen=True):
    """A token; `token` is its secret, told when it is made or rotated and never again."""

    id: str
    name: str
    scopes: list[str]
    hint: str
    created_at: str
    space_id: str | None = None
    expires_at: str | None = None
    revoked_at: str | None = None
    token: str | None = None


class OneToken(Shape, frozen=True):
    """A token."""

    token: TokenOut


class Tokens(Shape, frozen=True):
    """A page of tokens, revoked ones too."""

    tokens: list[TokenOut]
    pagination: PaginationOutput


def _token_out(record: TokenRecord, secret: str | None = None) -> TokenOut:
    return TokenOut(
        id=record.id,
        name=record.name,
        scopes=list(record.scopes),
        hint=record.hint,
        created_at=iso(record.created_ms),
        space_id=record.space_id or None,
        expires_at=None if record.expires_ms is None else iso(record.expires_ms),
        revoked_at=None if record.revoked_ms is None else iso(record.revoked_ms),
        token=secret,
    )


def _token(request: ApiRequest, token_id: str) -> TokenRecord:
    """Return a token that the caller may act on: one bound to a space must not touch those above it."""
    record = api_of(request).daemon.control.token(token_id)
    if not reaches(request, record.space_id):
        raise ForbiddenError("forbidden", f"the token is for the space {caller_of(request).space_id} alone")
    return record


@get("/tokens", summary="List tokens")
async def list_tokens(request: ApiRequest, page: PageQuery) -> Data[Tokens]:
    """List tokens without their secrets."""
    records = [record for record in api_of(request).daemon.control.tokens() if reaches(request, record.space_id)]
    shown, pagination = paginate(records, lambda record: f"{record.created_ms:015d}{record.id}", page, kind="tokens")
    return Data(Tokens(tokens=[_token_out(record) for record in shown], pagination=pagination))


@post("/tokens", status_code=HTTP_200_OK, summary="Issue a token")
async def create_token(request: ApiRequest, data: JSONBody[CreateToken]) -> Data[OneToken]:
    """Issue a token and tell its secret, this once. A token of one space issues only tokens of that space."""
    bound = caller_of(request).space_id
    control = api_of(request).daemon.control
    wanted = bound if data.space_id is None else control.space(data.space_id).id
    if bound and wanted != bound:
        raise ForbiddenError("forbidden", f"the token is for the space {bound} alone", field="spaceId")
    record, secret = await control.issue_token(
        checked_name(data.name),
        data.scopes,
        space_id=wanted,
        expires_ms=optional_time_ms(data.expires_at, "expiresAt"),
        actor=actor_of(request),
    )
    return Data(OneToken(token=_token_out(record, secret)))


@post("/tokens/{token_id:str}/rotate", status_code=HTTP_200_OK, summary="Rotate a token")
async def rotate_token(request: ApiRequest, token_id: FromPath[str]) -> Data[OneToken]:
    """Give a token a new secret and tell it, this once; the old one is refused from now on."""
    record = _token(request, token_id)
    changed, secret = await api_of(request).daemon.control.rotate_token(record.id, actor=actor_of(request))
    return Data(OneToken(token=_token_out(changed, secret)))


@delete("/tokens/{token_id:str}", status_code=HTTP_200_OK, summary="Revoke a token")
async def delete_token(request: ApiRequest, token_id: FromPath[str]) -> Data[Status]:
    """Revoke a token; it is refused from now on."""
    record = _token(request, token_id)
    await api_of(request).daemon.control.revoke_token(record.id, actor=actor_of(request))
    return SUCCESS


ROUTES = [list_tokens, create_token, rotate_token, delete_token]
