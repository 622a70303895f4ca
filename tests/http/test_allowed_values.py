"""What a field may be is said to whoever sends something else, for every field that takes but some values."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.stand import Stand
from tests.http.test_scopes import filled

Path = tuple[str | int, ...]


def choices(schema: dict[str, Any], parts: dict[str, Any]) -> Iterator[tuple[Path, list[str]]]:
    """Yield where in a body there is a choice between texts, and which they are."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    if texts := [one for one in schema.get("enum", ()) if isinstance(one, str)]:
        yield (), texts
    for one in (*schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from choices(one, parts)
    for name, inner in schema.get("properties", {}).items():
        yield from (((name, *path), texts) for path, texts in choices(inner, parts))
    if "items" in schema:
        yield from (((0, *path), texts) for path, texts in choices(schema["items"], parts))


def body_of(path: Path, value: Any) -> Any:
    """Return the smallest body with a value at a path."""
    if not path:
        return value
    first, *rest = path
    inner = body_of(tuple(rest), value)
    return [inner] if isinstance(first, int) else {first: inner}


def spelt(path: Path) -> str:
    """Return a path as errors name it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


async def test_a_value_that_is_none_of_those_allowed_is_told_which_are(stand: Stand) -> None:
    document = (await stand.admin.get("/schema/openapi.json")).json()
    seen: list[str] = []
    for place, item in document["paths"].items():
        for method in item.keys() & {"post", "patch", "put"}:
            content = item[method].get("requestBody", {}).get("content", {})
            for path, texts in choices(
                content.get("application/json", {}).get("schema", {}), document["components"]["schemas"]
            ):
                _, url = filled(f"{method.upper()} {place}", stand.space.id)
                field = spelt(path)
                for wrong in ("nope", texts[0].swapcase(), 7):
                    error = await stand.admin.refusal(method.upper(), url, 400, json=body_of(path, wrong))
                    assert error["field"] == field, (url, error)
                    found = f"`{type(wrong).__name__}`" if wrong == 7 else repr(wrong)
                    assert error["message"] == f"{field}: found {found}, expected {' or '.join(sorted(texts))}"
                seen.append(field)
    assert {"audienceType", "definition.type", "format", "hash", "regulationType", "subjectType"} <= set(seen), seen
    assert "idSyncConfiguration[0].strategy" in seen


@pytest.mark.parametrize(
    ("kind", "setting", "allowed"),
    [
        ("customerio", "region", "eu or us"),
        ("mailchimp", "statusIfNew", "pending or subscribed or transactional or unsubscribed"),
    ],
)
async def test_settings_of_destinations_tell_what_is_allowed_too(
    stand: Stand, kind: str, setting: str, allowed: str
) -> None:
    [source] = (await stand.admin.data("GET", "/sources"))["sources"]
    body = {"sourceId": source["id"], "metadataId": kind, "settings": {setting: "nope"}}
    error = await stand.admin.refusal("POST", "/destinations", 400, json=body)
    assert f"settings.{setting}: found 'nope', expected {allowed} " in error["message"]
