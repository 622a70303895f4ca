"""What audiences and computed traits share over HTTP: options, bounds, the tree beside the text, checking one."""

from functools import lru_cache
from typing import Any, Final
from typing import Literal as OneOf

from litestar import post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from actors.definitions import tree_of as parsed
from actors.language.json_form import from_json, to_json
from actors.language.lint import lint
from actors.language.outline import describe
from actors.language.parser import parse
from actors.language.printer import print_query
from actors.space_api import DefinitionView, EntityType
from adapters.http.context import ApiRequest, space_of
from adapters.http.envelopes import Data, DetailedError, Shape
from eventlog.entries import Definition, Options
from eventlog.errors import ConflictError, InvalidError, RefusedError

NAME_CHARS_MAX: Final = 200  # a name is shown in lists; its key is a trait's name
DESCRIPTION_CHARS_MAX: Final = 10_000
ID_TYPES_MAX: Final = 100  # in filterByExternalIds; a profile has fewer types
ID_TYPE_CHARS_MAX: Final = 100
DAYS_MAX: Final = 36_500  # a hundred years
DEFAULT_ID_TYPES: Final = ("user_id", "email", "android.idfa", "ios.idfa")  # contract, section 3
TREES_KEPT_MAX: Final = 1_000  # parsed definitions, for lists

Kind = OneOf["audience", "trait"]


class DefinitionCheck(Shape, frozen=True):
    """A definition to check, as text or as a tree: `type` USERS or ACCOUNTS; `trait` for a computed trait."""

    query: str | None = None
    tree: Any = None
    type: str = "USERS"
    trait: bool = False


class Checked(Shape, frozen=True):
    """A definition that stands: its tree, the text printed from it, an outline in words, and likely mistakes."""

    tree: Any
    query: str
    outline: str
    warnings: list[str]


def checked_text(value: str | None, field: str, chars_max: int, *, empty: bool = False) -> str | None:
    """Return a text within its bounds, None for none given."""
    if value is None:
        return None
    text = value if empty else value.strip()
    if len(text) > chars_max or not (empty or text):
        raise InvalidError(
            "invalid", f"{field}: {len(text)} characters, expected {0 if empty else 1} to {chars_max}", field=field
        )
    return text


def checked_name(name: str) -> str:
    """Return a name within its bounds."""
    return checked_text(name, "name", NAME_CHARS_MAX) or ""


def checked_id_types(given: list[str]) -> tuple[str, ...]:
    """Return the external id types of which a member needs one."""
    field = "options.filterByExternalIds"
    if not 1 <= len(given) <= ID_TYPES_MAX:
        raise InvalidError("invalid", f"{field}: {len(given)} id types, expected 1 to {ID_TYPES_MAX}", field=field)
    return tuple(dict.fromkeys(checked_text(id_type, field, ID_TYPE_CHARS_MAX) or "" for id_type in given))


def whole_days(days: float | None, field: str) -> int | None:
    """Return a number of days as a whole one within its bounds."""
    if days is None:
        return None
    if not 1 <= days <= DAYS_MAX or days != int(days):
        raise InvalidError(
            "invalid", f"{field}: {days} days, expected a whole number from 1 to {DAYS_MAX}", field=field
        )
    return int(days)


def id_types(options: Options) -> tuple[str, ...]:
    """Return the external id types of which a member needs one, the default spelled out."""
    return DEFAULT_ID_TYPES if options.filter_by_external_ids is None else options.filter_by_external_ids


def entity_type_of(given: str, field: str) -> EntityType:
    """Return USERS or ACCOUNTS, however it is spelled."""
    spelled = given.strip().upper()
    if spelled in ("USERS", "USER"):
        return "USERS"
    if spelled in ("ACCOUNTS", "ACCOUNT"):
        return "ACCOUNTS"
    raise InvalidError("invalid", f"{field}: found {given[:64]!r}, expected USERS or ACCOUNTS", field=field)


@lru_cache(maxsize=TREES_KEPT_MAX)
def tree_of(query: str, entity_type: EntityType, kind: Kind) -> Any:
    """Return the JSON form of a definition's tree."""
    return to_json(parsed(query, entity_type, kind))


def refuse_locked(error: ConflictError, view: DefinitionView) -> RefusedError:
    """Return the refusal of an edit, saying until when where a running backfill locks the definition."""
    if not view.locked:
        return error
    return DetailedError(
        409,
        error.code,
        error.message,
        data={"locked": True, "progress": view.progress, "secondsLeft": view.seconds_left},
        retry_after_s=max(1, round(view.seconds_left or 1)),
    )


def edit_act(what: str, enabled: bool | None, before: Definition) -> str:
    """Return the name of an edit in the audit trail."""
    if enabled is None or enabled == before.enabled:
        return f"{what} Modified"
    return f"{what} Enabled" if enabled else f"{what} Disabled"


@post("/spaces/{space_id:str}/definitions/check", status_code=HTTP_200_OK, summary="Check a definition")
async def check_definition(
    request: ApiRequest, space_id: FromPath[str], data: JSONBody[DefinitionCheck]
) -> Data[Checked]:
    """Return the tree of a definition; a wrong one is refused with the line and column of what is wrong."""
    space_of(request, space_id)
    kind: Kind = "trait" if data.trait else "audience"
    entity_type = entity_type_of(data.type, "type")
    if (data.query is None) == (data.tree is None):
        raise InvalidError("invalid", "query: expected either a query or a tree", field="query")
    if data.query is not None:
        tree = parse(data.query, entity_type=entity_type, kind=kind)
    else:
        tree = from_json(data.tree, entity_type, kind)
    checked = Checked(tree=to_json(tree), query=print_query(tree), outline=describe(tree), warnings=lint(tree))
    return Data(checked)


ROUTES = [check_definition]
