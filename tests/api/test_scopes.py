"""Who is let in: every route of the table of scopes, asked without a token, with wrong ones and with the right one."""

import httpx
import pytest

from actors.control import IMPLIED, SCOPES
from adapters.http.access import ANY, ROUTE_SCOPES, SPACELESS_ROUTES
from tests.api.walk import Walk, ask

ROUTES = sorted(ROUTE_SCOPES)
PROFILE = "/v1/"


def code_of(answer: httpx.Response) -> str:
    """Return the code of a refusal, in either API's envelope."""
    said = answer.json()
    return str(said["error"]["code"] if "error" in said else said["errors"][0]["type"])


@pytest.fixture
async def elsewhere(walked: Walk) -> str:
    """An admin's token of another space, which may see nothing of this one."""
    return await walked.room.token("admin", "exports:raw", "profiles:read", space_id=walked.other.space_id)


async def test_without_a_valid_token_every_route_answers_401(walked: Walk, stranger: httpx.AsyncClient) -> None:
    headers = (None, "Bearer wrong", "Basic d3Jvbmc6", "Bearer", "Digest x", "Bearer " + "x" * 5000)
    for place, route in enumerate(ROUTES):
        asked = walked.asked[route]
        for header in (None, "Bearer wrong", headers[place % len(headers)]):
            answer = await ask(stranger, asked, headers={} if header is None else {"authorization": header})
            assert answer.status_code == 401, (route, header)
            assert code_of(answer) == ("authentication_error" if asked.path.startswith(PROFILE) else "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Basic")
            assert len(answer.headers["request-id"]) == 32


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_token_is_answered_403_by_every_route_of_other_scopes(walked: Walk, scope: str) -> None:
    headers = {"authorization": f"Bearer {await walked.room.token(scope)}"}
    held = (ANY, scope, *IMPLIED.get(scope, ()))
    for route in [route for route in ROUTES if ROUTE_SCOPES[route] not in held]:
        answer = await ask(walked.room.client, walked.asked[route], headers=headers)
        is_profile = walked.asked[route].path.startswith(PROFILE)
        assert answer.status_code == 403, route
        assert code_of(answer) == ("authorization_error" if is_profile else "forbidden")
        assert ROUTE_SCOPES[route] in answer.text


async def test_a_token_of_another_space_gets_nothing_of_this_one(walked: Walk, elsewhere: str) -> None:
    headers = {"authorization": f"Bearer {elsewhere}"}
    for route in [route for route in ROUTES if "{" in route]:
        answer = await ask(walked.room.client, walked.asked[route], headers=headers)
        assert answer.status_code in ((403,) if "{space_id}" in route else (403, 404)), route


@pytest.mark.parametrize(
    "route", ["GET /spaces", "GET /sources", "GET /tokens", "GET /destinations", "GET /regulations"]
)
async def test_lists_above_spaces_show_a_token_its_own_space_alone(walked: Walk, route: str, elsewhere: str) -> None:
    headers = {"authorization": f"Bearer {elsewhere}"}
    answer = await ask(walked.room.client, walked.asked[route], headers=headers)
    assert answer.status_code == 200
    assert walked.room.space_id not in answer.text
    for place in ("source_id", "destination_id", "token_id", "regulate_id"):
        assert walked.places[place] not in answer.text


async def test_a_token_of_one_space_cannot_act_above_it(walked: Walk, elsewhere: str) -> None:
    headers, client = {"authorization": f"Bearer {elsewhere}"}, walked.room.client
    for route in SPACELESS_ROUTES:
        assert (await ask(client, walked.asked[route], headers=headers)).status_code == 403
    here = walked.room.space_id
    for path, body in (
        ("/tokens", {"name": "x", "scopes": ["admin"], "spaceId": here}),
        ("/sources", {"slug": "x", "enabled": True, "metadataId": "x", "settings": {"spaceId": here}}),
        (
            "/regulations",
            {"regulationType": "UNSUPPRESS", "subjectType": "USER_ID", "subjectIds": ["x"], "spaceId": here},
        ),
        ("/destinations", {"sourceId": walked.room.source_id, "metadataId": "webhook", "settings": {}}),
    ):
        assert (await client.post(path, json=body, headers=headers)).status_code == 403, path
    made = await client.post("/tokens", json={"name": "x", "scopes": ["admin"]}, headers=headers)
    assert made.json()["data"]["token"]["spaceId"] == walked.other.space_id


async def test_a_token_with_just_the_scope_is_let_in(walked: Walk) -> None:
    unlike = {route: answer.status_code for route, answer in walked.answers.items() if answer.status_code != 200}
    assert unlike == {"POST /sources": 201}, [walked.answers[one].text for one in unlike]
    assert all(len(answer.headers["request-id"]) == 32 for answer in walked.answers.values())
