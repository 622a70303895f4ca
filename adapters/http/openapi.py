"""The OpenAPI document as it is served: what Litestar makes of the routes, put right.

Litestar describes its own validation errors, which are never sent: they give way to one `default` answer a route, in
its API's envelope. It names an envelope's schema after Python modules: `Data_adapters.….OneAudience_` is called
`DataOfOneAudience`.
"""

import re
from typing import Final

import msgspec
from litestar.openapi.spec import (
    OpenAPI,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Reference,
    Schema,
)

from adapters.http.refusals import PROFILE_PREFIX

_TEXT = Schema(type=OpenAPIType.STRING)
_ERRORS = Schema(
    type=OpenAPIType.OBJECT,
    required=["errors"],
    properties={
        "errors": Schema(
            type=OpenAPIType.ARRAY,
            min_items=1,
            items=Schema(
                type=OpenAPIType.OBJECT,
                required=["type"],
                properties={
                    "type": _TEXT,
                    "message": _TEXT,
                    "field": _TEXT,
                    "data": Schema(),
                    "status": Schema(type=OpenAPIType.INTEGER),
                },
            ),
        )
    },
)
_PROFILE_ERROR = Schema(
    type=OpenAPIType.OBJECT,
    required=["error"],
    properties={
        "error": Schema(
            type=OpenAPIType.OBJECT, required=["code", "message"], properties={"code": _TEXT, "message": _TEXT}
        )
    },
)


_ENVELOPE: Final = re.compile(rb"Data_adapters\.[a-z_.]+\.([A-Za-z]+)_(?=\")")


def document_of(described: OpenAPI) -> bytes:
    """Return the document as JSON."""
    _describe_errors(described)
    return _ENVELOPE.sub(rb"DataOf\1", msgspec.json.encode(described.to_schema()))


def _describe_errors(document: OpenAPI) -> None:
    """Give every route its refusal."""
    assert document.components is not None
    assert document.components.schemas is not None
    document.components.schemas["Errors"] = _ERRORS
    document.components.schemas["ProfileError"] = _PROFILE_ERROR
    for path, item in (document.paths or {}).items():
        name = "ProfileError" if path.startswith(PROFILE_PREFIX) else "Errors"
        for operation in (item.get, item.post, item.patch, item.delete, item.put):
            if operation is not None:
                _describe(operation, name)


def _describe(operation: Operation, name: str) -> None:
    responses = operation.responses or {}
    responses.pop("400", None)
    responses["default"] = OpenAPIResponse(
        description="Refused: 400 what was sent is wrong, 401 no valid token, 403 it may not, 404, 409, 429 and so on.",
        content={"application/json": OpenAPIMediaType(schema=Reference(ref=f"#/components/schemas/{name}"))},
    )
    operation.responses = responses
