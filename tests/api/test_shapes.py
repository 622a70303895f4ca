"""What is answered has the fields that clients read, in every media type, and is what the OpenAPI document says."""

from typing import Any

import anyio
import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from adapters.http.access import ROUTE_SCOPES
from adapters.http.edge import MEDIA_TYPES
from tests.api.public_shapes import ANSWERS, SHAPES, wrong
from tests.api.room import BUYERS, Room, data_of, refusal_of
from tests.api.walk import BODIES, STREAMS, Walk, ask

UNDESCRIBED = {"GET /schema", "GET /schema/openapi.json", *STREAMS}
JSON_ROUTES = sorted(route for route in set(ROUTE_SCOPES) - UNDESCRIBED if not route.endswith("/download"))


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    """The OpenAPI document."""
    answer = await client.get("/schema/openapi.json")
    found: dict[str, Any] = answer.json()
    return found


def errors_of(document: dict[str, Any], value: Any, *path: str) -> list[str]:
    """Return what of a value is not as the schema at a path of the document says."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:api", resource)
    pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)
    validator = Draft202012Validator({"$ref": f"urn:api#/{pointer}"}, registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


async def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


async def test_the_document_describes_every_route(document: dict[str, Any]) -> None:
    methods = ("get", "post", "patch", "delete", "put")
    described = {f"{one.upper()} {path}" for path, item in document["paths"].items() for one in item if one in methods}
    assert described == set(ROUTE_SCOPES) - (UNDESCRIBED - set(STREAMS))


async def test_answers_have_the_public_fields(walked: Walk) -> None:
    for route, shape in ANSWERS.items():
        data = walked.answers[route].json().get("data")
        assert wrong(data, shape) == [], route
        empty = [name for name, value in data.items() if value == [] and name in shape]
        assert empty in ([], ["idSyncConfiguration"]), route  # a list with nothing in it would prove nothing


async def test_supported_destinations_are_described_in_full(walked: Walk) -> None:
    route = "GET /spaces/{space_id}/audienceType/{audience_type}/supported-destinations"
    types = walked.answers[route].json()["data"]["destinations"]
    assert {"webhook", "segment", "braze", "customerio", "hubspot", "mailchimp", "postgres", "csv"} <= set(types)
    assert [one for name, kind in types.items() for one in wrong(kind, SHAPES["Metadata"], name)] == []


async def test_requests_and_answers_are_what_the_document_says(walked: Walk, document: dict[str, Any]) -> None:
    for route in JSON_ROUTES:
        method, _, path = route.partition(" ")
        answer = walked.answers[route]
        at, json = ("paths", path, method.lower()), ("content", "application/json", "schema")
        assert errors_of(document, answer.json(), *at, "responses", str(answer.status_code), *json) == [], route
        if route in BODIES:
            assert errors_of(document, walked.asked[route].body, *at, "requestBody", *json) == [], route


@pytest.mark.parametrize("accept", MEDIA_TYPES)
async def test_every_read_is_answered_in_the_type_asked_for(walked: Walk, accept: str) -> None:
    for route in JSON_ROUTES:
        if route.startswith("GET ") and "/v1/" not in route:
            answer = await ask(walked.room.client, walked.asked[route], headers={"accept": accept})
            assert (answer.status_code, answer.headers["content-type"]) == (200, accept), route
            assert wrong(answer.json()["data"], ANSWERS.get(route, "")) == []


@pytest.mark.parametrize("sent_as", MEDIA_TYPES)
async def test_bodies_come_as_any_of_the_types(room: Room, sent_as: str) -> None:
    body = b'{"name": "A", "audienceType": "USERS", "definition": {"query": "event(\'x\').count() >= 1"}, "new": 1}'
    headers = {"content-type": sent_as, "accept": sent_as}
    answer = await room.client.post(f"{room.at}/audiences", content=body, headers=headers)
    assert wrong(data_of(answer), ANSWERS["POST /spaces/{space_id}/audiences"]) == []
    assert answer.headers["content-type"] == sent_as


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b'{"name": 1, "enabled": "x"}'])
async def test_a_bad_body_is_refused_in_the_envelope(walked: Walk, document: dict[str, Any], body: bytes) -> None:
    for route in BODIES:
        asked = walked.asked[route]
        answer = await walked.room.client.request(
            asked.method, asked.path, content=body, headers={"content-type": "application/json"}
        )
        if route.endswith("/exports") and b"name" in body:
            assert answer.status_code == 200  # fields that are not known there
            continue
        assert answer.status_code == 400, (route, answer.text)
        assert errors_of(document, answer.json(), "components", "schemas", "Errors") == []
        assert [one for error in answer.json()["errors"] for one in wrong(error, SHAPES["Error"])] == []
        assert all(error["status"] == 400 and error["message"] for error in answer.json()["errors"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/spaces/none", 404), ("PUT", "/spaces", 405), ("POST", "/suppressions", 405)],
)
async def test_what_is_not_served_is_refused_in_the_envelope(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path, headers={"accept": MEDIA_TYPES[0]})
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPES[0]
    assert [one for error in answer.json()["errors"] for one in wrong(error, SHAPES["Error"])] == []


async def test_a_head_is_that_of_the_answer_and_no_more(walked: Walk) -> None:
    for route, asked in walked.asked.items():
        if asked.method != "GET":
            continue
        whole = walked.answers[route]
        with anyio.fail_after(10):
            answer = await walked.room.client.head(asked.path, params=asked.params)
        assert (answer.status_code, answer.content) == (whole.status_code, b""), route
        assert answer.headers["content-type"] == whole.headers["content-type"], route


@pytest.mark.parametrize("body", [b'{"a":' * 5_000, b"[" * 100_000])
async def test_a_body_that_is_too_deep_is_the_callers_fault(room: Room, body: bytes) -> None:
    answer = await room.client.post(f"{room.at}/audiences", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert refusal_of(answer)["type"] == "malformed_json"


async def test_a_long_value_that_is_wrong_is_not_repeated_whole(room: Room) -> None:
    body = {"name": "a", "audienceType": "x" * 100_000, "definition": {"query": BUYERS}}
    answer = await room.client.post(f"{room.at}/audiences", json=body)
    assert answer.status_code == 400
    assert len(answer.content) < 2_000
    assert refusal_of(answer)["message"].startswith("audienceType: found 'xxx")
    assert refusal_of(answer)["message"].endswith("expected ACCOUNTS or LINKED or USERS")
