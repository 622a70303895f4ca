"""Marketo static lists: people are made by email, then added to or removed from a list.

https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/error-codes and …/rest/assets/static-lists
(read 2026-11-24): a token from `GET /identity/oauth/token` lasts an hour; `POST /rest/v1/leads.json` makes or finds at
most 300 people, `POST` and `DELETE /rest/v1/lists/{id}/leads.json` take at most 300; 100 calls in 20 seconds (5 a
second) and 10 at once. The list is made by `POST /rest/asset/v1/staticLists.json`, and found by its name where error
709 says that there is one. Nearly all failures come as `200`
with `success: false` and a code: 601 and 602 a token that is no good any more, 606 and 615 too fast, 604, 608, 611,
713 and 502 try again later, 607 the day's quota. Single records fail by a `status` of `skipped` with `reasons`.
"""

from collections.abc import Generator
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from msgspec import Meta, json

from actors.delivery import (
    DELIVERED,
    Adapter,
    Answer,
    Ask,
    Call,
    CommonSettings,
    Context,
    Conversation,
    Done,
    HttpAsk,
    Verdict,
)
from actors.delivery_retry import judge
from actors.delivery_settings import Secret, Text
from adapters.destinations.answers import ask_json, bearer, gone, json_of, objects, text_of, unfit

PEOPLE_MAX: Final = 300  # a request
TOKEN_MARGIN_S: Final = 60  # a token is renewed so long before it ends
STALE_TOKEN: Final = frozenset({"600", "601", "602"})
TOO_FAST: Final = frozenset({"606", "607", "615"})
NO_SUCH_LIST: Final = frozenset({"610", "1013"})
NAME_TAKEN: Final = frozenset({"709"})
PASSING: Final = frozenset({"502", "604", "608", "611", "713"})
QUOTA_PAUSE_MS: Final = 3_600_000  # 607: the day's quota; asked again each hour


class MarketoSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The instance's REST address, an API-only user's credentials, and where the list is to be."""

    endpoint: Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)]  # https://123-ABC-456.mktorest.com
    client_id: Text
    client_secret: Secret
    folder_id: Annotated[int, Meta(ge=1)]
    list_id: Annotated[int, Meta(ge=1)] | None = None  # a list that is there; None: made anew


def verdict(answer: Answer, now_ms: int) -> Verdict:
    """Return what an answer means: its status, and where that is 200 the codes in it."""
    said, got = judge(answer, now_ms), json_of(answer)
    if said.how != "delivered" or got.get("success") is True:
        return said
    errors = objects(got.get("errors"))
    codes = {text_of(one.get("code")) for one in errors}
    reason = "; ".join(f"error {text_of(one.get('code'))}: {text_of(one.get('message'))}" for one in errors)
    if codes & TOO_FAST:
        pause_ms = QUOTA_PAUSE_MS if "607" in codes else None
        return Verdict(how="retry", reason=reason, status=200, slow=True, retry_after_ms=pause_ms)
    if codes & (STALE_TOKEN | PASSING) or not errors:
        return Verdict(how="retry", reason=reason or "an answer without success", status=200, unsure=True)
    final = Verdict(how="dead", reason=reason, status=200)
    return gone(final) if codes & NO_SUCH_LIST else final


def codes_of(answer: Answer) -> set[str]:
    """Return the codes of the errors in an answer."""
    return {text_of(one.get("code")) for one in objects(json_of(answer).get("errors"))}


def token_ask(context: Context) -> HttpAsk:
    """Return the request for an access token."""
    settings: MarketoSettings = context.settings
    query = urlencode(
        {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
        }
    )
    url = f"{settings.endpoint.rstrip('/')}/identity/oauth/token?{query}"
    return HttpAsk(method="GET", url=url, timeout_s=context.timeout_s)


def list_ask(context: Context, call: Call, headers: dict[str, str]) -> HttpAsk:
    """Return the request that makes the list."""
    settings: MarketoSettings = context.settings
    folder = json.encode({"id": settings.folder_id, "type": "Folder"}).decode()
    form = {"name": call.key, "folder": folder, "description": f"Kept by Turnout: {call.definition}"}
    return HttpAsk(
        method="POST",
        url=f"{settings.endpoint.rstrip('/')}/rest/asset/v1/staticLists.json",
        headers=(("Content-Type", "application/x-www-form-urlencoded"), *headers.items()),
        body=urlencode(form).encode(),
        timeout_s=context.timeout_s,
    )


def people_ask(context: Context, emails: list[str], headers: dict[str, str]) -> HttpAsk:
    """Return the request that makes or finds people."""
    settings: MarketoSettings = context.settings
    body = {"action": "createOrUpdate", "lookupField": "email", "input": [{"email": email} for email in emails]}
    return ask_json(context, "POST", f"{settings.endpoint.rstrip('/')}/rest/v1/leads.json", body, headers)


def members_ask(
    context: Context, list_id: object, ids: list[object], headers: dict[str, str], *, adds: bool
) -> HttpAsk:
    """Return the request that adds people to the list or removes them."""
    settings: MarketoSettings = context.settings
    url = f"{settings.endpoint.rstrip('/')}/rest/v1/lists/{list_id}/leads.json"
    return ask_json(context, "POST" if adds else "DELETE", url, {"input": [{"id": one} for one in ids]}, headers)


def by_name_ask(context: Context, call: Call, headers: dict[str, str]) -> HttpAsk:
    """Return the request for a list by its name."""
    settings: MarketoSettings = context.settings
    url = f"{settings.endpoint.rstrip('/')}/rest/asset/v1/staticList/byName.json?{urlencode({'name': call.key})}"
    return HttpAsk(method="GET", url=url, headers=tuple(headers.items()), timeout_s=context.timeout_s)


def token_of(context: Context, hold: dict[str, Any]) -> Generator[Ask, Answer, str | Verdict]:
    """Return an access token, a new one (then put in `hold`) if there is none or it ends; else why there is none."""
    known: str | None = context.memory.get("token")
    if known is not None and context.memory["token_until_ms"] > context.now_ms:
        return known
    answer = yield token_ask(context)
    said, got = judge(answer, context.now_ms), json_of(answer)
    token, lasts_s = got.get("access_token"), got.get("expires_in")
    if said.how != "delivered":
        return said
    if not isinstance(token, str):
        return unfit("no access token in the answer")
    lasts_s = lasts_s if isinstance(lasts_s, int) else 0
    hold["token"] = token
    hold["token_until_ms"] = context.now_ms + max(0, lasts_s - TOKEN_MARGIN_S) * 1000
    return token


def made_list(
    context: Context, call: Call, headers: dict[str, str], hold: dict[str, Any]
) -> Generator[Ask, Answer, int | Verdict]:
    """Make the list and return its id; one that is there by its name was made by a request whose answer was lost."""
    answer = yield list_ask(context, call, headers)
    if NAME_TAKEN & codes_of(answer):
        answer = yield by_name_ask(context, call, headers)
    said, made = verdict(answer, context.now_ms), objects(json_of(answer).get("result"))
    forget_stale(answer, hold)
    if said.how != "delivered":
        return said
    found = made[0].get("id") if made else None
    return found if isinstance(found, int) else unfit("no id of the new list in the answer")


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Get a token and make the list, each if there is none; make or find the people; add or remove them."""
    settings: MarketoSettings = context.settings
    name, adds = f"{calls[0].connection}.list", calls[0].value is True
    absent = unfit("Marketo needs an email") if adds else DELIVERED
    emails = list(dict.fromkeys(call.email for call in calls if call.email))
    remember: dict[str, Any] = {}
    hold: dict[str, Any] = {}

    def end(said: Verdict, by_email: dict[str, Verdict] | None = None) -> Done:
        known = by_email or {}
        verdicts = tuple(known.get(call.email, said) if call.email else absent for call in calls)
        return Done(verdicts, remember=remember, hold=hold)

    if not emails:
        return end(absent)
    token = yield from token_of(context, hold)
    if isinstance(token, Verdict):
        return end(token)
    headers = bearer(token)
    list_id: int | Verdict | None = settings.list_id or context.memory.get(name)
    if list_id is None:
        list_id = yield from made_list(context, calls[0], headers, hold)
        if isinstance(list_id, Verdict):
            return end(list_id)
        remember[name] = list_id
    answer = yield people_ask(context, emails, headers)
    said = verdict(answer, context.now_ms)
    forget_stale(answer, hold)
    if said.how != "delivered":
        return end(said)
    ids, refused = sorted_out(emails, objects(json_of(answer).get("result")))
    if ids:
        answer = yield members_ask(context, list_id, list(ids.values()), headers, adds=adds)
        said = verdict(answer, context.now_ms)
        forget_stale(answer, hold)
        if said.how == "delivered" and adds:
            refused |= left_out(ids, objects(json_of(answer).get("result")))
    return end(said, refused)


def forget_stale(answer: Answer, hold: dict[str, Any]) -> None:
    """Have the next conversation get another token, if an answer says that this one is no good any more."""
    if STALE_TOKEN & codes_of(answer):
        hold["token"] = None


def sorted_out(emails: list[str], people: list[dict[str, Any]]) -> tuple[dict[str, object], dict[str, Verdict]]:
    """Return the ids of those who were made or found, and verdicts on the others."""
    ids: dict[str, object] = {}
    refused: dict[str, Verdict] = {}
    for index, email in enumerate(emails):
        person = people[index] if index < len(people) else {}
        if person.get("id") is not None:
            ids[email] = person["id"]
        else:
            refused[email] = skipped(person)
    return ids, refused


def left_out(ids: dict[str, object], result: list[dict[str, Any]]) -> dict[str, Verdict]:
    """Return verdicts on those who are people, and were not added to the list."""
    refused = {text_of(one.get("id")): skipped(one) for one in result if one.get("status") == "skipped"}
    return {email: refused[text_of(found)] for email, found in ids.items() if text_of(found) in refused}


def skipped(record: dict[str, Any]) -> Verdict:
    """Return the verdict on a record that was not taken."""
    reasons = "; ".join(text_of(one.get("message")) for one in objects(record.get("reasons")))
    return Verdict(how="dead", reason=f"skipped: {reasons or 'no reason given'}", status=200)


def ping(context: Context) -> Conversation:
    """Get an access token: the credentials work."""
    answer = yield token_ask(context)
    return Done((judge(answer, context.now_ms),))


MARKETO = Adapter(
    type="marketo_static_lists",
    title="Marketo Static Lists",
    page="https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/assets/static-lists",
    settings=MarketoSettings,
    deliver=deliver,
    ping=ping,
    kinds=("member",),
    rate_per_s=5.0,  # contract, section 5
    burst=5,
    window_s=20.0,
    concurrency=1,
    batch_max=PEOPLE_MAX,
    asks_max=5,
    together=True,
    group_by=lambda call: f"{call.connection}:{call.value}",
    interval_ms=3_600_000,  # contract, section 5
    traits=False,
)
