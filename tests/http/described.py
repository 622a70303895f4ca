"""A client of the HTTP APIs that holds every answer to the OpenAPI document that the daemon itself serves.

The document's objects are closed first: a field that an answer has and the document does not tell of fails as well.
"""

import re
import ssl
from functools import lru_cache
from typing import Any, Final, Self

import httpx
import jsonschema
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from adapters.http.edge import MEDIA_TYPES
from adapters.http.refusals import PROFILE_PREFIX

ROOT: Final = "urn:document"
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; the default one takes long to make
BINARY: Final = ("text/csv", "text/event-stream")


class Document:
    """An OpenAPI document, ready to judge answers by."""

    def __init__(self, served: dict[str, Any]) -> None:
        self.served = served
        closed = _closed(served)
        self._closed = closed
        self._registry: Registry[Any] = Registry().with_resource(ROOT, DRAFT202012.create_resource(closed))
        self._paths = [
            (re.compile("".join(_pattern(part) for part in re.split(r"(\{[^}]+\})", path))), path)
            for path in closed["paths"]
        ]

    def operation(self, method: str, raw_path: str) -> dict[str, Any] | None:
        """Return what the document says of a call, None for nothing; a path without a parameter goes first."""
        found = [path for pattern, path in self._paths if pattern.fullmatch(raw_path)]
        for path in sorted(found, key=lambda path: path.count("{")):
            operation: dict[str, Any] | None = self._closed["paths"][path].get(method.lower())
            if operation is not None:
                return operation
        return None

    def check(self, answer: httpx.Response) -> None:
        """Fail where an answer is not as the document says."""
        method, raw_path = answer.request.method, answer.request.url.raw_path.decode().split("?")[0]
        where = f"{method} {raw_path} -> {answer.status_code} {answer.text[:500]}"
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["request-id"]), where
        kind = answer.headers["content-type"].split(";")[0]
        operation = self.operation(method, raw_path)
        if raw_path in ("/schema", "/schema/openapi.json") and answer.status_code == 200:
            return  # the document itself
        if operation is None:  # nothing of ours: the refusals still are
            assert answer.status_code in (401, 403, 404, 405, 429), where
            self._check_refusal(answer, where)
            return
        described = operation["responses"].get(str(answer.status_code))
        if described is None:
            self._check_refusal(answer, where)
            return
        assert answer.status_code < 300 or answer.status_code == 416, where
        if kind in BINARY:
            assert kind in described["content"], where
            return
        assert kind in MEDIA_TYPES, where
        self.validate(answer.json(), described["content"]["application/json"]["schema"], where)

    def _check_refusal(self, answer: httpx.Response, where: str) -> None:
        assert answer.status_code >= 400, where
        assert answer.status_code not in (422, 500), where
        is_profile = answer.request.url.raw_path.decode().startswith(PROFILE_PREFIX)
        name = "ProfileError" if is_profile else "Errors"
        self.validate(answer.json(), {"$ref": f"#/components/schemas/{name}"}, where)
        if not is_profile:
            assert {error["status"] for error in answer.json()["errors"]} == {answer.status_code}, where

    def validate(self, value: Any, schema: dict[str, Any], where: str) -> None:
        """Fail where a value does not fit a schema of the document."""
        whole = {"$id": "urn:answer", **_based(schema)}
        judge = jsonschema.Draft202012Validator(whole, registry=self._registry)
        errors = [f"{'.'.join(map(str, one.absolute_path))}: {one.message[:300]}" for one in judge.iter_errors(value)]
        assert not errors, f"{where}\n{errors}"


def _pattern(part: str) -> str:
    return "[^/]+" if part.startswith("{") else re.escape(part)


def _closed(value: Any) -> Any:
    """Return the document with every object that has properties closed to others."""
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {name: _closed(item) for name, item in value.items()}
    if isinstance(closed.get("properties"), dict) and "type" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


def _based(value: Any) -> Any:
    """Return a schema whose references lead into the document."""
    if isinstance(value, list):
        return [_based(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: ROOT + item if name == "$ref" else _based(item) for name, item in value.items()}


@lru_cache(maxsize=4)
def _document(served: bytes) -> Document:
    return Document(httpx.Response(200, content=served).json())


class Client(httpx.AsyncClient):
    """An HTTP client with a token; every answer but a streamed one is held to the document."""

    document: Document | None = None

    @classmethod
    def of(cls, url: str, token: str | None, **more: Any) -> Self:
        """Return a client that sends a token as clients of the public API do; None: no token."""
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        return cls(base_url=url, headers={**headers, **more.pop("headers", {})}, timeout=20, verify=NO_TLS, **more)

    async def learn(self) -> Self:
        """Fetch the document to judge by."""
        answer = await super().request("GET", "/schema/openapi.json")
        assert answer.status_code == 200, answer.text
        self.document = _document(answer.content)
        return self

    async def request(self, method: str, url: Any, **more: Any) -> httpx.Response:
        """Send a request, and judge its answer."""
        answer = await super().request(method, url, **more)
        assert self.document is not None
        self.document.check(answer)
        return answer

    async def data(self, method: str, url: str, **more: Any) -> Any:
        """Send a request that is granted, and return its `data` (the Profile API's answers whole)."""
        answer = await self.request(method, url, **more)
        assert answer.status_code == (201 if (method, url) == ("POST", "/sources") else 200), answer.text
        found = answer.json()
        return found if url.startswith(PROFILE_PREFIX) else found["data"]

    async def refusal(self, method: str, url: str, status: int, **more: Any) -> dict[str, Any]:
        """Send a request that is refused so, and return its first error (the Profile API's only one)."""
        answer = await self.request(method, url, **more)
        assert answer.status_code == status, (answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()["error"] if url.startswith(PROFILE_PREFIX) else answer.json()["errors"][0]
        return found
