"""Google Customer Match, by the Data Manager API: adds and removes of hashed emails and phone numbers, in batches.

https://developers.google.com/data-manager/api/devguides/audiences/send-audience-members (read 2026-11-24): `POST
/v1/audienceMembers:ingest` and `:remove` with destinations and members, at most 10,000 members a request; an email
loses all white space, is lower-cased, and at gmail.com and googlemail.com loses its dots before the @ and what follows
a plus sign; a phone number is E.164 with its plus sign (`phones.py`); each is hashed with SHA-256 in hexadecimal
(https://developers.google.com/data-manager/api/devguides/concepts/formatting). An email and a phone number of one call
are two identifiers of one member. The list is made by `POST /v1/accountTypes/GOOGLE_ADS/accounts/{id}/userLists` (v1.5,
February 2026). Access tokens come from https://oauth2.googleapis.com/token by refresh token and last an hour. A list
wants 100 members before it can be used, and its members have to have agreed: the terms must be accepted, consent is
yours to state. One member that is not valid has a request refused, and `fieldViolations` names it; a `429` may say in
`RetryInfo` for how long to wait
(https://developers.google.com/data-manager/api/devguides/concepts/understand-errors).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from typing import Literal as OneOf
from urllib.parse import urlencode

from msgspec import Meta

from actors.delivery import (
    DELIVERED,
    Adapter,
    Answer,
    Call,
    CommonSettings,
    Context,
    Conversation,
    Done,
    HttpAsk,
    Verdict,
    overall,
)
from actors.delivery_retry import judge
from actors.delivery_settings import Secret, Text
from adapters.destinations.answers import (
    ask_json,
    bearer,
    gone,
    json_of,
    number_of,
    objects,
    patient,
    text_of,
    unfit,
)
from adapters.destinations.phones import phone_of

MEMBERS_MAX: Final = 10_000  # a request
OWN_MAIL: Final = frozenset({"gmail.com", "googlemail.com"})  # dots in a name there, and what is behind +, mean nothing
DAY_S: Final = 86_400
TOKEN_MARGIN_S: Final = 60  # a token is renewed so long before it ends
MEMBER: Final = re.compile(r"audience_?[mM]embers\[(\d+)\]")
STALE: Final = Verdict(how="retry", reason="the access token was revoked", status=401)
Account = Annotated[str, Meta(pattern=r"^[0-9-]{10,12}$")]
Identifiers = tuple[tuple[str, str], ...]  # field, hash
Consent = OneOf["CONSENT_GRANTED", "CONSENT_DENIED"]


class GoogleSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An OAuth client with a refresh token (scope datamanager), and the account."""

    client_id: Text
    client_secret: Secret
    refresh_token: Secret
    customer_id: Account
    login_customer_id: Account | None = None  # the manager account that the credentials are for
    list_id: Annotated[str, Meta(pattern=r"^[0-9]+$")] | None = None  # a list that is there; None: made anew
    membership_days: Annotated[int, Meta(ge=1, le=540)] = 540
    accept_customer_match_terms: bool = False
    ad_user_data_consent: Consent | None = None
    ad_personalization_consent: Consent | None = None
    endpoint: Text = "https://datamanager.googleapis.com"
    oauth_url: Text = "https://oauth2.googleapis.com/token"


def hashed(email: str) -> str:
    """Return an email as Google wants it."""
    name, at, domain = "".join(email.split()).lower().rpartition("@")
    if domain in OWN_MAIL:
        name = name.partition("+")[0].replace(".", "")
    return hashlib.sha256(f"{name}{at}{domain}".encode()).hexdigest()


def identifiers(call: Call) -> Identifiers:
    """Return what Google finds a person by: the hashes of its email and of its phone number, as far as there are."""
    phone = phone_of(call)
    email = (("emailAddress", hashed(call.email)),) if call.email else ()
    return (*email, ("phoneNumber", hashlib.sha256(f"+{phone}".encode()).hexdigest())) if phone else email


def _account(number: str) -> dict[str, str]:
    return {"accountType": "GOOGLE_ADS", "accountId": number.replace("-", "")}


def token_ask(context: Context) -> HttpAsk:
    """Return the request for an access token."""
    settings: GoogleSettings = context.settings
    form = {
        "grant_type": "refresh_token",
        "client_id": settings.client_id,
        "client_secret": settings.client_secret,
        "refresh_token": settings.refresh_token,
    }
    headers = (("Content-Type", "application/x-www-form-urlencoded"),)
    return HttpAsk(
        method="POST",
        url=settings.oauth_url,
        headers=headers,
        body=urlencode(form).encode(),
        timeout_s=context.timeout_s,
    )


def list_ask(context: Context, call: Call, headers: dict[str, str]) -> HttpAsk:
    """Return the request that makes the list."""
    settings: GoogleSettings = context.settings
    made = {
        "displayName": call.key,
        "description": f"Kept by Turnout: {call.definition}",
        "membershipDuration": f"{settings.membership_days * DAY_S}s",
        "ingestedUserListInfo": {
            "uploadKeyTypes": ["CONTACT_ID"],
            "contactIdInfo": {"dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY"},
        },
    }
    account = settings.customer_id.replace("-", "")
    url = f"{settings.endpoint}/v1/accountTypes/GOOGLE_ADS/accounts/{account}/userLists"
    return ask_json(context, "POST", url, made, headers)


def members_ask(context: Context, list_id: str, calls: tuple[Call, ...], headers: dict[str, str]) -> HttpAsk:
    """Return the request that adds or removes members."""
    settings: GoogleSettings = context.settings
    destination: dict[str, Any] = {
        "operatingAccount": _account(settings.customer_id),
        "productDestinationId": list_id,
    }
    if settings.login_customer_id is not None:
        destination["loginAccount"] = _account(settings.login_customer_id)
    members = [[{field: value} for field, value in one] for one in distinct(calls)]
    body: dict[str, Any] = {
        "destinations": [destination],
        "audienceMembers": [{"userData": {"userIdentifiers": one}} for one in members],
        "encoding": "HEX",
    }
    adds = calls[0].value is True
    if adds:
        consent = {
            "adUserData": settings.ad_user_data_consent,
            "adPersonalization": settings.ad_personalization_consent,
        }
        stated = {name: value for name, value in consent.items() if value is not None}
        if stated:
            body["consent"] = stated
        if settings.accept_customer_match_terms:
            body["termsOfService"] = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
    url = f"{settings.endpoint}/v1/audienceMembers:{'ingest' if adds else 'remove'}"
    return ask_json(context, "POST", url, body, headers)


def is_stale(answer: Answer, hold: Mapping[str, Any]) -> bool:
    """Tell whether an answer means that the token from an earlier conversation was revoked."""
    return answer.status == 401 and not hold


def details(answer: Answer) -> list[dict[str, Any]]:
    """Return the details of a refusal."""
    error = json_of(answer).get("error")
    return objects(error.get("details")) if isinstance(error, dict) else []


def waiting(answer: Answer) -> Answer:
    """Return an answer with Google's own word on how long to wait read."""
    if answer.status != 429:
        return answer
    told = (text_of(one.get("retryDelay")).removesuffix("s") for one in details(answer))
    delays_s = [found for found in map(number_of, told) if found is not None]
    return patient(answer, max(delays_s)) if delays_s else answer


def members_named(answer: Answer) -> dict[int, str]:
    """Return what a refusal says of single members, by their place in the request."""
    found: dict[int, str] = {}
    for violation in (one for detail in details(answer) for one in objects(detail.get("fieldViolations"))):
        place = MEMBER.search(text_of(violation.get("field")))
        if place is not None:
            reason = text_of(violation.get("reason") or violation.get("description"))
            found[int(place[1])] = f"refused: {reason} at {place[0]}"
    return found


def each(calls: tuple[Call, ...], answer: Answer, said: Verdict) -> tuple[Verdict, ...]:
    """Return what an answer says of each call: where it names members, the others go again without them."""
    named = members_named(answer) if said.how == "dead" else {}
    if not named:
        return overall(said, len(calls))
    places = {member: place for place, member in enumerate(distinct(calls))}
    reasons = [named.get(places[identifiers(call)]) for call in calls]
    if not any(reasons):
        return overall(said, len(calls))
    again = Verdict(how="retry", reason="others of its batch were refused", status=said.status)
    return tuple(again if why is None else Verdict(how="dead", reason=why, status=said.status) for why in reasons)


def distinct(calls: tuple[Call, ...]) -> list[Identifiers]:
    """Return the members that go in a request, each once."""
    return list(dict.fromkeys(identifiers(call) for call in calls))


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Get a token and make the list, each if there is none, then add or remove."""
    settings: GoogleSettings = context.settings
    count, name = len(calls), f"{calls[0].connection}.list"
    fit = tuple(call for call in calls if call.email or phone_of(call))
    remember: dict[str, Any] = {}
    hold: dict[str, Any] = {}
    found: dict[str, Verdict] = {}
    if fit:
        token = context.memory.get("token")
        if token is None or context.memory["token_until_ms"] <= context.now_ms:
            answer = yield token_ask(context)
            said, got = judge(answer, context.now_ms), json_of(answer)
            token = got.get("access_token")
            if said.how != "delivered" or not isinstance(token, str):
                return Done((said if said.how != "delivered" else unfit("no access token in the answer"),) * count)
            lasts_s = got.get("expires_in")
            lasts_s = lasts_s if isinstance(lasts_s, int) else 0
            until_ms = context.now_ms + max(0, lasts_s - TOKEN_MARGIN_S) * 1000
            hold = {"token": token, "token_until_ms": until_ms}
        headers = bearer(token)
        list_id = settings.list_id or context.memory.get(name)
        if list_id is None:
            answer = waiting((yield list_ask(context, calls[0], headers)))
            if is_stale(answer, hold):
                return Done((STALE,) * count, hold={"token": None})
            said, list_id = judge(answer, context.now_ms), json_of(answer).get("id")
            if said.how != "delivered" or list_id is None:
                verdict = said if said.how != "delivered" else unfit("no id of the new list in the answer")
                return Done((verdict,) * count, hold=hold)
            remember = {name: str(list_id)}
        answer = waiting((yield members_ask(context, str(list_id), fit, headers)))
        said = judge(answer, context.now_ms)
        if is_stale(answer, hold):
            hold, said = {"token": None}, STALE
        elif answer.status == 404:
            said = gone(said)
        found = dict(zip((call.id for call in fit), each(fit, answer, said), strict=True))
    missing = unfit("Google needs an email or a phone number with its country code")
    absent = missing if calls[0].value is True else DELIVERED
    return Done(tuple(found.get(call.id, absent) for call in calls), remember=remember, hold=hold)


def ping(context: Context) -> Conversation:
    """Get an access token: the credentials work."""
    answer = yield token_ask(context)
    return Done((judge(answer, context.now_ms),))


GOOGLE = Adapter(
    type="google_customer_match",
    title="Google Customer Match",
    page="https://developers.google.com/data-manager/api/devguides/audiences/send-audience-members",
    settings=GoogleSettings,
    deliver=deliver,
    ping=ping,
    kinds=("member",),
    rate_per_s=1.0,  # ours: a sync of 10,000 members a second is fast enough
    burst=5,  # a first sync: a token, a list, members added and removed
    concurrency=1,
    batch_max=MEMBERS_MAX,
    asks_max=3,
    together=True,
    group_by=lambda call: f"{call.connection}:{call.value}",
    interval_ms=6 * 3_600_000,  # contract, section 5
    traits=False,
)
