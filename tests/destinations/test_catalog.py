"""Every destination type: what it asks for, what it makes of answers, and what no answer may do to it."""

import hashlib
from typing import Any

import pytest
from msgspec import json

from actors.delivery import Adapter, Answer, Ask, Call, Context, Done, HttpAsk
from actors.delivery_settings import limits, masked, parse, schema, sealed, secret_names
from adapters.destinations import DESTINATIONS
from adapters.destinations.customerio import ulid
from adapters.destinations.google_customer_match import hashed
from adapters.destinations.sealing import new_seal

SETTINGS: dict[str, dict[str, Any]] = {
    "webhook": {"url": "https://crm.example.com/hook", "secret": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="},
    "segment": {"writeKey": "wk-secret"},
    "braze": {"endpoint": "https://rest.iad-01.braze.com/", "apiKey": "braze-secret"},
    "customerio": {"siteId": "site", "apiKey": "cio-secret"},
    "hubspot": {"accessToken": "pat-secret"},
    "mailchimp": {"apiKey": "abcdef-us21", "listId": "L1"},
    "facebook_custom_audiences": {"accessToken": "fb-secret", "adAccountId": "act_17"},
    "google_customer_match": {
        "clientId": "cid",
        "clientSecret": "g-secret",
        "refreshToken": "r-secret",
        "customerId": "123-456-7890",
        "acceptCustomerMatchTerms": True,
    },
    "marketo_static_lists": {
        "endpoint": "https://123-ABC-456.mktorest.com",
        "clientId": "cid",
        "clientSecret": "m-secret",
        "folderId": 7,
    },
    "postgres": {"url": "postgres://user:pg-secret@db.example.com/crm"},
    "csv": {},
}
AT_MS = 1_772_323_200_000
TYPES = sorted(DESTINATIONS)


def call(kind: Any, user: str | None = "ann", email: str | None = "Ann@X.org", value: Any = True, **more: Any) -> Call:
    """Return a call for one profile."""
    ids = tuple((name, given) for name, given in (("email", email), ("userId", user)) if given)
    fields = {
        "id": f"con_1-7-{kind}-{user}-{email}",
        "kind": kind,
        "connection": "con_1",
        "space": "spa_1",
        "definition": "aud_1",
        "key": "big_spenders",
        "computation_class": "audience",
        "entity": 1,
        "profile": "use_1",
        "ids": ids,
        "value": value,
        "event": "Audience Entered" if value else "Audience Exited",
        "at_ms": AT_MS,
        "seq": 7,
        **more,
    }
    return Call(**fields)


def context(adapter: Adapter, memory: dict[str, Any] | None = None, **more: Any) -> Context:
    """Return what an adapter may know."""
    settings = parse(adapter, {**SETTINGS[adapter.type], **more})
    return Context(settings, memory or {}, AT_MS + 5_000, "dst_1")


def talk(adapter: Adapter, calls: tuple[Call, ...], *answers: Answer, **more: Any) -> tuple[list[Any], Done]:
    """Hold a conversation; return the asks and its end."""
    conversation = adapter.deliver(context(adapter, **more), calls)
    asks: list[Ask] = []
    left = list(answers)
    try:
        ask = next(conversation)
        while True:
            asks.append(ask)
            ask = conversation.send(left.pop(0) if left else ok())
    except StopIteration as end:
        return asks, end.value


def ok(body: Any = None, status: int = 200) -> Answer:
    """Return an answer."""
    return Answer(status=status, body=b"" if body is None else json.encode(body))


def body_of(ask: HttpAsk) -> Any:
    """Return a request's JSON."""
    return json.decode(ask.body)


def kinds_of(adapter: Adapter) -> Any:
    return "member" if "member" in adapter.kinds else adapter.kinds[0]


# -- what holds for all ----------------------------------------------------------------------------------------------


def test_the_catalog_is_the_contracts_with_its_limits() -> None:
    rates = {name: one.rate_per_s for name, one in DESTINATIONS.items()}
    assert set(rates) == {
        "webhook", "segment", "braze", "customerio", "hubspot", "mailchimp", "facebook_custom_audiences",
        "google_customer_match", "marketo_static_lists", "postgres", "csv",
    }  # fmt: skip
    named = {"braze": 100, "customerio": 30, "hubspot": 10, "mailchimp": 10, "marketo_static_lists": 5, "webhook": 50}
    assert {name: rates[name] for name in named} == named
    hours = {name: one.interval_ms / 3_600_000 for name, one in DESTINATIONS.items() if one.interval_ms >= 3_600_000}
    assert hours == {"facebook_custom_audiences": 1, "google_customer_match": 6, "marketo_static_lists": 1}


@pytest.mark.parametrize("name", TYPES)
def test_every_limit_is_a_setting(name: str) -> None:
    adapter = DESTINATIONS[name]
    given = {"rate": 7.5, "burst": 9, "concurrency": 2, "syncIntervalSeconds": 60, "retryFirstSeconds": 2}
    found = limits(adapter, parse(adapter, {**SETTINGS[name], **given}))
    assert (found.rate_per_s, found.burst, found.concurrency) == (7.5, 9, 2)
    assert (found.interval_ms, found.retry_first_ms) == (60_000, 2_000)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("webhook", {}, 16),
        ("webhook", {"rate": 160}, 16),
        ("webhook", {"rate": 161}, 17),
        ("webhook", {"rate": 100_000}, 100),
        ("webhook", {"rate": 100_000, "concurrency": 3}, 3),
        ("hubspot", {"rate": 1_000}, 4),
        ("csv", {"rate": 1_000}, 1),
    ],
)
def test_a_higher_rate_has_more_requests_under_way_unless_that_is_said(
    name: str, given: dict[str, Any], expected: int
) -> None:
    adapter = DESTINATIONS[name]
    assert limits(adapter, parse(adapter, {**SETTINGS[name], **given})).concurrency == expected


@pytest.mark.parametrize("name", TYPES)
def test_secrets_are_sealed_where_stored_and_masked_where_shown(name: str) -> None:
    adapter, seal = DESTINATIONS[name], new_seal()
    stored = sealed(adapter, SETTINGS[name], seal, {})
    for secret in secret_names(adapter.settings) & SETTINGS[name].keys():
        text = SETTINGS[name][secret]
        assert text not in str(stored)
        assert masked(stored)[secret] == "********"
        assert sealed(adapter, {**SETTINGS[name], secret: "********"}, seal, stored)[secret] == stored[secret]
    assert schema(adapter)["type"] == "object"


WEIRD = [
    ok({}),
    ok([]),
    ok("text"),
    ok(None),
    ok({"errors": "no list", "result": 5, "results": None, "error": "text"}),
    ok({"errors": [1, None, {}], "result": [{}], "success": "maybe"}),
    Answer(status=200, body=b"<html>"),
    Answer(status=200, body=b"\xff\xfe{"),
    ok({"error": {"code": "x", "message": None}}, 400),
    ok({"errors": [{"batch_index": "one"}]}, 207),
    ok(None, 301),
    ok(None, 401),
    ok(None, 404),
    ok(None, 429),
    ok(None, 500),
    Answer(status=0, error="no connection"),
]


@pytest.mark.parametrize("name", TYPES)
def test_no_answer_makes_an_adapter_raise_and_every_call_gets_a_verdict(name: str) -> None:
    adapter = DESTINATIONS[name]
    kind = kinds_of(adapter)
    calls = (
        (call(kind),)
        if adapter.batch_max == 1
        else (call(kind), call(kind, "bob", "bob@x.org"), call(kind, "cat", None))
    )
    for weird in WEIRD:
        for place in range(adapter.asks_max):
            before = [
                ok({"access_token": "t", "expires_in": 3600, "id": "5", "success": True, "result": [{"id": 1}]})
            ] * place
            asks, done = talk(adapter, calls, *before, weird)
            assert len(asks) <= adapter.asks_max
            assert len(done.verdicts) == len(calls)
            assert {one.how for one in done.verdicts} <= {"delivered", "retry", "dead"}
            if weird.status in {0, 429, 500} and len(asks) == place + 1:
                assert done.verdicts[0].how == "retry"


@pytest.mark.parametrize("name", TYPES)
def test_a_throttled_request_holds_everyone(name: str) -> None:
    adapter = DESTINATIONS[name]
    _, done = talk(adapter, (call(kinds_of(adapter)),), Answer(status=429, headers={"retry-after": "3"}))
    assert (done.verdicts[0].how, done.verdicts[0].slow, done.verdicts[0].retry_after_ms) == ("retry", True, 3000)


@pytest.mark.parametrize("name", TYPES)
def test_a_ping_tells_whether_the_settings_work(name: str) -> None:
    adapter = DESTINATIONS[name]
    for answer, how in ((ok({"access_token": "t"}), "delivered"), (ok(None, 401), "dead"), (ok(None, 503), "retry")):
        conversation = adapter.ping(context(adapter))
        next(conversation)
        with pytest.raises(StopIteration) as end:
            conversation.send(answer)
        assert end.value.value.verdicts[0].how == how


# -- each by itself --------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_as_standard_webhooks_says() -> None:
    import base64
    import hmac

    (ask,), _ = talk(DESTINATIONS["webhook"], (call("track"),))
    headers = dict(ask.headers)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + ask.body
    key = base64.b64decode("c2VjcmV0LXNlY3JldC1zZWNyZXQ=")
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-timestamp"] == str((AT_MS + 5_000) // 1000)
    assert headers["webhook-id"] == body_of(ask)["messageId"]


def test_a_tracking_api_gets_basic_auth_and_an_id_in_any_case() -> None:
    (ask,), _ = talk(DESTINATIONS["segment"], (call("identify", None),))
    assert ask.url == "https://api.segment.io/v1/identify"
    assert dict(ask.headers)["Authorization"] == "Basic d2stc2VjcmV0Og=="
    assert body_of(ask)["anonymousId"] == "use_1"
    assert body_of(ask)["traits"] == {"email": "Ann@X.org", "big_spenders": True}


def test_braze_gets_attributes_and_events_in_one_request_and_says_which_it_left_out() -> None:
    calls = (
        call("identify"),
        call("track"),
        call("identify", "bob", None),
        call("track", "bob", None),
        call("track", None, None),
    )
    answer = ok({"message": "success", "errors": [{"type": "bad", "input_array": "events", "index": 1}]}, 201)
    (ask,), done = talk(DESTINATIONS["braze"], calls, answer)
    body = body_of(ask)
    assert ask.url == "https://rest.iad-01.braze.com/users/track"
    assert body["attributes"][0] == {
        "external_id": "ann",
        "_update_existing_only": False,
        "email": "Ann@X.org",
        "big_spenders": True,
    }
    assert body["events"][0]["name"] == "Audience Entered"
    assert body["events"][0]["time"] == "2026-03-01T00:00:00.000Z"
    assert [one.how for one in done.verdicts] == ["delivered", "delivered", "delivered", "dead", "dead"]


def test_customerio_gets_a_batch_and_says_which_items_it_refused() -> None:
    calls = (call("identify"), call("track", "bob", None), call("identify", None, None))
    (ask,), done = talk(DESTINATIONS["customerio"], calls, ok({"errors": [{"batch_index": 1, "reason": "bad"}]}, 207))
    assert body_of(ask)["batch"] == [
        {
            "type": "person",
            "identifiers": {"id": "ann"},
            "action": "identify",
            "attributes": {"email": "Ann@X.org", "big_spenders": True},
        },
        {
            "type": "person",
            "identifiers": {"id": "bob"},
            "action": "event",
            "id": ulid(calls[1]),
            "name": "Audience Entered",
            "timestamp": AT_MS // 1000,
            "attributes": {"audience_key": "big_spenders", "big_spenders": True, "message_id": calls[1].id},
        },
    ]
    assert [one.how for one in done.verdicts] == ["delivered", "dead", "dead"]


def test_hubspot_makes_the_property_once_and_writes_contacts_by_email() -> None:
    hubspot = DESTINATIONS["hubspot"]
    calls = (call("identify"), call("identify", "bob", None))
    asks, done = talk(hubspot, calls, ok(None, 409), ok({"results": []}))
    assert [ask.url.split("hubapi.com")[1] for ask in asks] == [
        "/crm/v3/properties/contacts",
        "/crm/objects/2026-03/contacts/batch/upsert",
    ]
    properties = {"big_spenders": "true", "email": "Ann@X.org"}
    assert body_of(asks[1])["inputs"] == [{"idProperty": "email", "id": "Ann@X.org", "properties": properties}]
    assert [one.how for one in done.verdicts] == ["delivered", "dead"]
    asks, _ = talk(hubspot, calls, memory=dict(done.remember))
    assert len(asks) == 1
    error = {"status": "error", "message": "invalid email", "context": {"id": ["Ann@X.org"]}}
    _, done = talk(
        hubspot, (call("identify"), call("identify", "cat", "c@x.org")), ok(None, 409), ok({"errors": [error]}, 207)
    )
    assert [one.how for one in done.verdicts] == ["dead", "delivered"]


def test_mailchimp_makes_the_member_and_tags_it_and_only_untags_one_who_leaves() -> None:
    mailchimp = DESTINATIONS["mailchimp"]
    digest = hashlib.md5(b"ann@x.org").hexdigest()  # noqa: S324 - what Mailchimp knows members by
    asks, _ = talk(mailchimp, (call("identify"),))
    url = f"https://us21.api.mailchimp.com/3.0/lists/L1/members/{digest}"
    assert [(ask.method, ask.url) for ask in asks] == [("PUT", url), ("POST", f"{url}/tags")]
    assert body_of(asks[0]) == {"email_address": "Ann@X.org", "status_if_new": "transactional"}
    asks, done = talk(mailchimp, (call("identify", value=False),), ok(None, 404))
    assert body_of(asks[0]) == {"tags": [{"name": "big_spenders", "status": "inactive"}]}
    assert done.verdicts[0].how == "delivered"
    asks, _ = talk(mailchimp, (call("identify", computation_class="trait", key="ltv", value=4.5),))
    assert body_of(asks[0])["merge_fields"] == {"LTV": "4.5"}
    _, done = talk(mailchimp, (call("identify", email=None),))
    assert done.verdicts[0].how == "dead"


def test_facebook_gets_hashed_rows_and_its_error_codes_are_read() -> None:
    facebook = DESTINATIONS["facebook_custom_audiences"]
    calls = (call("member"), call("member", "bob", None))
    asks, done = talk(facebook, calls, ok({"id": "9"}), ok({"num_received": 1}))
    assert asks[1].url == "https://graph.facebook.com/v25.0/9/users"
    hashed = hashlib.sha256(b"ann@x.org").hexdigest()
    schema = ["EMAIL", "PHONE", "EXTERN_ID", "MADID"]
    assert body_of(asks[1])["payload"] == {"schema": schema, "data": [[hashed, "", "ann", ""]]}
    assert done.remember == {"con_1.list": "9"}
    assert [one.how for one in done.verdicts] == ["delivered", "dead"]
    memory = {"con_1.list": "9"}
    for code, how, slow in ((17, "retry", True), (80_003, "retry", True), (2, "retry", False), (190, "dead", False)):
        _, done = talk(facebook, (call("member"),), ok({"error": {"code": code, "message": "m"}}, 400), memory=memory)
        assert (done.verdicts[0].how, done.verdicts[0].slow) == (how, slow), code
    lost = ok({"error": {"code": 100, "error_subcode": 33, "message": "gone"}}, 400)
    _, done = talk(facebook, (call("member"),), lost, memory=memory)
    assert "resync" in done.verdicts[0].reason
    (ask,), _ = talk(facebook, (call("member", value=False),), ok(), memory=memory)
    assert ask.method == "DELETE"


def test_google_gets_a_token_a_list_and_hashed_emails() -> None:
    google = DESTINATIONS["google_customer_match"]
    token, made = ok({"access_token": "t", "expires_in": 3600}), ok({"id": "77"})
    asks, done = talk(google, (call("member", email=" A nn@X.org"),), token, made, ok({"requestId": "r"}))
    assert [ask.url for ask in asks] == [
        "https://oauth2.googleapis.com/token",
        "https://datamanager.googleapis.com/v1/accountTypes/GOOGLE_ADS/accounts/1234567890/userLists",
        "https://datamanager.googleapis.com/v1/audienceMembers:ingest",
    ]
    body = body_of(asks[2])
    assert body["destinations"] == [
        {
            "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
            "productDestinationId": "77",
        }
    ]
    hashed = hashlib.sha256(b"ann@x.org").hexdigest()
    assert body["audienceMembers"] == [{"userData": {"userIdentifiers": [{"emailAddress": hashed}]}}]
    assert body["termsOfService"] == {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
    assert done.remember == {"con_1.list": "77"}
    assert done.hold["token"] == "t"
    memory = {**done.remember, **done.hold}
    (ask,), done = talk(google, (call("member", value=False),), ok(None, 401), memory=memory)
    assert ask.url.endswith(":remove")
    assert (done.verdicts[0].how, done.hold) == ("retry", {"token": None})


def test_a_list_has_who_can_be_found_by_a_phone_or_a_mobile_id_alone() -> None:
    mobile = "aece52e7-03ee-455a-b3c4-e57283966239"
    ids: tuple[Any, ...] = (
        (("phone", "+1 (234) 567-8910"),),
        (("phone", "567-8910"),),
        (("ios.idfa", mobile), ("phone", "567-8910")),
    )
    calls = tuple(call("member", value=False, id=str(n), ids=one) for n, one in enumerate(ids))
    digits = hashlib.sha256(b"12345678910").hexdigest()
    (ask,), done = talk(DESTINATIONS["facebook_custom_audiences"], calls, ok(), memory={"con_1.list": "9"})
    assert body_of(ask)["payload"]["data"] == [["", digits, "", ""], ["", "", "", mobile]]
    assert [one.how for one in done.verdicts] == ["delivered"] * 3  # who never was in has nothing to leave
    memory = {"con_1.list": "9", "token": "t", "token_until_ms": AT_MS * 2}
    (ask,), done = talk(DESTINATIONS["google_customer_match"], calls[:2], ok({}), memory=memory)
    e164 = hashlib.sha256(b"+12345678910").hexdigest()
    assert body_of(ask)["audienceMembers"] == [{"userData": {"userIdentifiers": [{"phoneNumber": e164}]}}]
    assert [one.how for one in done.verdicts] == ["delivered"] * 2


def test_google_wants_no_dots_and_no_plus_in_the_names_of_its_own_mail() -> None:
    plain = hashlib.sha256(b"annbee@gmail.com").hexdigest()
    assert hashed(" Ann.Bee@GMail.com ") == hashed("ann.bee+shop@gmail.com") == hashed("annbee@gmail.com") == plain
    assert hashed("ann.bee+shop@googlemail.com") == hashlib.sha256(b"annbee@googlemail.com").hexdigest()
    assert hashed("ann.bee+NYC@X.org") == hashlib.sha256(b"ann.bee+nyc@x.org").hexdigest()


def test_marketo_reads_the_codes_behind_a_200() -> None:
    marketo = DESTINATIONS["marketo_static_lists"]
    token = ok({"access_token": "t", "expires_in": 3600})
    made = ok({"success": True, "result": [{"id": 1021}]})
    people = ok(
        {
            "success": True,
            "result": [{"id": 5, "status": "created"}, {"status": "skipped", "reasons": [{"message": "no"}]}],
        }
    )
    calls = (call("member"), call("member", "bob", "bob@x.org"))
    asks, done = talk(marketo, calls, token, made, people, ok({"success": True, "result": []}))
    assert [ask.url.split("mktorest.com")[1].split("?")[0] for ask in asks] == [
        "/identity/oauth/token",
        "/rest/asset/v1/staticLists.json",
        "/rest/v1/leads.json",
        "/rest/v1/lists/1021/leads.json",
    ]
    assert body_of(asks[3]) == {"input": [{"id": 5}]}
    assert [one.how for one in done.verdicts] == ["delivered", "dead"]
    memory = {**done.remember, **done.hold}
    for code, how, slow in (
        ("606", "retry", True),
        ("602", "retry", False),
        ("713", "retry", False),
        ("603", "dead", False),
    ):
        refusal = ok({"success": False, "errors": [{"code": code, "message": "m"}]})
        _, done = talk(marketo, (call("member"),), refusal, memory=memory)
        assert (done.verdicts[0].how, done.verdicts[0].slow) == (how, slow), code
    refusal = ok({"success": False, "errors": [{"code": "602", "message": "expired"}]})
    _, done = talk(marketo, (call("member"),), refusal, memory=memory)
    assert done.hold == {"token": None}
