"""The table of scopes: what the docs say of it is so."""

import re
from pathlib import Path

from actors.control import SCOPES
from adapters.http.access import ANY, ROUTE_SCOPES

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_docs_list_every_route_with_its_scope() -> None:
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (?:`([^`]+)`|any) \| \S.* \|$", PAGE.read_text(), re.MULTILINE)
    assert {route: scope or ANY for route, scope in rows} == ROUTE_SCOPES


def test_every_scope_of_the_table_is_one_that_tokens_have() -> None:
    assert set(ROUTE_SCOPES.values()) <= {ANY, *SCOPES}
