"""Facebook custom audiences: adds and removes of hashed ids, in batches.

https://developers.facebook.com/docs/marketing-api/audiences/guides/custom-audiences/v25.0 (read 2026-11-24): `POST`
and `DELETE /v25.0/{audience}/users` with a schema and rows, at most 10,000 rows a request; an email is trimmed,
lower-cased and hashed with SHA-256, a phone number loses symbols, letters and leading zeros, has its country code in
front and is hashed (`phones.py`), EXTERN_ID and MADID go as they are. The audience is made by `POST
/v25.0/act_{account}/customaudiences`. Changes show within 24 hours, and an audience wants 100 members or more before
ads can use it. Throttling comes as a `400` with an error code of its own (4, 17, 32, 613, 80000 to 80014), and for how
many minutes it will last in the header `X-Business-Use-Case-Usage`
(https://developers.facebook.com/docs/graph-api/overview/rate-limiting); `is_transient` says that trying again helps.
Rows that are not valid are counted in an answer.
"""

from typing import Annotated, Final

from msgspec import DecodeError, Meta, json

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
from actors.delivery_retry import RETRY_AFTER_MAX_MS, judge
from actors.delivery_settings import Secret, Text
from adapters.destinations.answers import (
    ask_json,
    bearer,
    gone,
    json_of,
    number_of,
    objects,
    pinged,
    sha256,
    text_of,
    unfit,
)
from adapters.destinations.phones import phone_of

ROWS_MAX: Final = 10_000  # a request
SCHEMA: Final = ("EMAIL", "PHONE", "EXTERN_ID", "MADID")
MOBILE_IDS: Final = ("ios.idfa", "android.idfa")
THROTTLED: Final = frozenset({4, 17, 32, 613, *range(80_000, 80_015)})
NO_SUCH_OBJECT: Final = (100, 33)  # code and subcode
PASSING: Final = frozenset({1, 2})  # "unknown" and "service" errors


class FacebookSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A system user's token (ads_management) and the ad account."""

    access_token: Secret
    ad_account_id: Annotated[str, Meta(pattern=r"^(act_)?[0-9]+$")]
    audience_id: Annotated[str, Meta(pattern=r"^[0-9]+$")] | None = None  # an audience that is there; None: made anew
    endpoint: Text = "https://graph.facebook.com/v25.0"


def row(call: Call) -> list[str]:
    """Return a call as a row of the schema."""
    mobile = next((value for name, value in call.others if name in MOBILE_IDS), "")
    phone = phone_of(call)
    email = sha256(call.email) if call.email else ""
    return [email, sha256(phone) if phone else "", call.user_id or "", mobile]


def fits(call: Call) -> bool:
    """Tell whether Facebook can find a person by what a call carries: a userId alone says nothing to it."""
    email, phone, _, mobile = row(call)
    return bool(email or phone or mobile)


def users(context: Context, list_id: str, calls: tuple[Call, ...], *, adds: bool) -> HttpAsk:
    """Return the request that adds or removes rows."""
    settings: FacebookSettings = context.settings
    rows = {"payload": {"schema": list(SCHEMA), "data": [row(call) for call in calls]}}
    url = f"{settings.endpoint}/{list_id}/users"
    return ask_json(context, "POST" if adds else "DELETE", url, rows, bearer(settings.access_token))


def creation(context: Context, call: Call) -> HttpAsk:
    """Return the request that makes the audience."""
    settings: FacebookSettings = context.settings
    account = settings.ad_account_id.removeprefix("act_")
    made = {
        "name": call.key,
        "subtype": "CUSTOM",
        "description": f"Kept by Turnout: {call.definition}",
        "customer_file_source": "USER_PROVIDED_ONLY",
    }
    url = f"{settings.endpoint}/act_{account}/customaudiences"
    return ask_json(context, "POST", url, made, bearer(settings.access_token))


def regained_ms(answer: Answer) -> int | None:
    """Return after how long access is regained, as far as that is told: the longest wait of any account."""
    try:
        told = json.decode(answer.headers.get("x-business-use-case-usage", "{}"))
    except DecodeError:
        return None
    accounts = told.values() if isinstance(told, dict) else ()
    minutes = [number_of(one.get("estimated_time_to_regain_access")) for all_of in accounts for one in objects(all_of)]
    longest_min = max((one for one in minutes if one is not None), default=0.0)
    return min(round(longest_min * 60_000), RETRY_AFTER_MAX_MS) if longest_min > 0 else None


def verdict(answer: Answer, now_ms: int) -> Verdict:
    """Return what an answer means, reading the error code that a 400 may carry."""
    said = judge(answer, now_ms)
    error = json_of(answer).get("error")
    if said.how != "dead" or not isinstance(error, dict):
        return said
    code, message = error.get("code"), text_of(error.get("message"))
    reason = f"error {code}: {message}"
    if code in THROTTLED:
        pause_ms = regained_ms(answer)
        return Verdict(how="retry", reason=reason, status=answer.status, slow=True, retry_after_ms=pause_ms)
    if code in PASSING or error.get("is_transient") is True:
        return Verdict(how="retry", reason=reason, status=answer.status, unsure=True)
    final = Verdict(how="dead", reason=reason, status=answer.status)
    return gone(final) if (code, error.get("error_subcode")) == NO_SUCH_OBJECT else final


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Make the audience if there is none yet, then add or remove."""
    settings: FacebookSettings = context.settings
    name, remember = f"{calls[0].connection}.list", {}
    list_id = settings.audience_id or context.memory.get(name)
    fit = tuple(call for call in calls if fits(call))
    found: dict[str, Verdict] = {}
    if fit and list_id is None:
        answer = yield creation(context, calls[0])
        said, list_id = verdict(answer, context.now_ms), json_of(answer).get("id")
        if said.how != "delivered" or list_id is None:
            return Done((said if said.how != "delivered" else unfit("no id of the new audience"),) * len(calls))
        remember = {name: str(list_id)}
    if fit:
        answer = yield users(context, str(list_id), fit, adds=calls[0].value is True)
        said = verdict(answer, context.now_ms)
        found = dict(zip((call.id for call in fit), _each(fit, answer, said), strict=True))
    missing = unfit("Facebook needs an email, a phone number with its country code or a mobile advertising id")
    return Done(tuple(found.get(call.id, _absent(call, missing)) for call in calls), remember=remember)


def _each(calls: tuple[Call, ...], answer: Answer, said: Verdict) -> tuple[Verdict, ...]:
    """Return what an answer says of each row: it counts those that are not valid, and does not say which they are."""
    if said.how == "delivered" and number_of(json_of(answer).get("num_invalid_entries")) == len(calls):
        said = Verdict(how="dead", reason="no row was valid", status=answer.status)
    return overall(said, len(calls))


def _absent(call: Call, missing: Verdict) -> Verdict:
    return missing if call.value is True else DELIVERED


def ping(context: Context) -> Conversation:
    """Ask for the ad account's name."""
    settings: FacebookSettings = context.settings
    url = f"{settings.endpoint}/act_{settings.ad_account_id.removeprefix('act_')}?fields=name"
    return pinged((yield ask_json(context, "GET", url, None, bearer(settings.access_token))), context)


FACEBOOK = Adapter(
    type="facebook_custom_audiences",
    title="Facebook Custom Audiences",
    page="https://developers.facebook.com/docs/marketing-api/audiences/guides/custom-audiences",
    settings=FacebookSettings,
    deliver=deliver,
    ping=ping,
    kinds=("member",),
    rate_per_s=1.0,  # ours: Facebook counts by points of the ad account, and says when there are none left
    burst=5,  # a first sync: the audience, members added and removed
    concurrency=1,
    batch_max=ROWS_MAX,
    asks_max=2,
    together=True,
    group_by=lambda call: f"{call.connection}:{call.value}",
    interval_ms=3_600_000,  # contract, section 5
    traits=False,
)
