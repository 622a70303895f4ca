"""Braze: membership as a custom attribute of the user, entries and exits as custom events.

https://www.braze.com/docs/api/endpoints/user_data/post_user_track (read 2026-11-24): `POST /users/track`, at most 75
objects a request (attributes and events together), 3,000 requests in three seconds; a `201` may list objects that were
left out under `errors`, by array and index. Braze takes a user by external_id, by alias, by email or by phone number,
which is best E.164 with its plus sign
(https://www.braze.com/docs/user_guide/message_building_by_channel/sms_mms_rcs/user_phone_numbers; `phones.py`); ours
with none but an anonymousId are aliased by it. An attribute set to null is removed. A `429` tells by
`X-RateLimit-Reset`, in seconds since the epoch, when requests are taken again
(https://www.braze.com/docs/api/api_limits).
"""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta

from actors.delivery import DELIVERED, Adapter, Answer, Call, CommonSettings, Context, Conversation, Done, Verdict
from actors.delivery_settings import Secret
from adapters.destinations.answers import (
    ask_json,
    bearer,
    ended,
    json_of,
    number_of,
    objects,
    patient,
    pinged,
    text_of,
    unfit,
)
from adapters.destinations.phones import phone_of
from eventlog.instants import iso

OBJECTS_MAX = 75  # a request
ALIAS_LABEL = "anonymous_id"


class BrazeSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The instance's REST address and a key with the permission users.track."""

    endpoint: Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)]  # https://rest.iad-01.braze.com
    api_key: Secret


def who(call: Call) -> dict[str, Any]:
    """Return the identifier that Braze finds a user by; nothing if the call has none that it knows."""
    if call.user_id is not None:
        return {"external_id": call.user_id}
    if call.email is not None:
        return {"email": call.email}
    phone = phone_of(call)
    if phone is not None:
        return {"phone": f"+{phone}"}
    if call.anonymous is not None:
        return {"user_alias": {"alias_name": call.anonymous, "alias_label": ALIAS_LABEL}}
    return {}


def body(calls: tuple[Call, ...]) -> dict[str, Any]:
    """Return the request that carries some calls."""
    attributes: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for call in calls:
        user = {**who(call), "_update_existing_only": False}
        if call.kind == "track":
            properties = {f"{call.computation_class}_key": call.key, call.key: call.value, "message_id": call.id}
            events.append({**user, "name": call.event, "time": iso(call.at_ms), "properties": properties})
        else:
            known = {"email": call.email} if call.email is not None else {}
            attributes.append({**user, **known, call.key: call.value})
    return {name: part for name, part in (("attributes", attributes), ("events", events)) if part}


def verdicts(calls: tuple[Call, ...], answer: dict[str, Any]) -> tuple[Verdict, ...]:
    """Return what a successful answer says of each call."""
    refused = {
        (one.get("input_array"), one.get("index")): text_of(one.get("type")) for one in objects(answer.get("errors"))
    }
    count = {"attributes": 0, "events": 0}
    found: list[Verdict] = []
    for call in calls:
        part = "events" if call.kind == "track" else "attributes"
        reason = refused.get((part, count[part]))
        count[part] += 1
        found.append(DELIVERED if reason is None else Verdict(how="dead", reason=f"left out: {reason}", status=201))
    return tuple(found)


def waiting(answer: Answer, now_ms: int) -> Answer:
    """Return an answer with the end of Braze's window read."""
    reset_s = number_of(answer.headers.get("x-ratelimit-reset")) if answer.status == 429 else None
    return answer if reset_s is None else patient(answer, reset_s - now_ms / 1000)


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Send calls of many users in one request."""
    settings: BrazeSettings = context.settings
    fit = tuple(call for call in calls if who(call))
    known: Iterator[Verdict] = iter(())
    if fit:
        url = f"{settings.endpoint.rstrip('/')}/users/track"
        answer = yield ask_json(context, "POST", url, body(fit), bearer(settings.api_key))
        answer = waiting(answer, context.now_ms)
        if not 200 <= answer.status < 300:
            done = ended(answer, context, fit)
            known = iter(done.verdicts)
        else:
            known = iter(verdicts(fit, json_of(answer)))
    return Done(
        tuple(next(known) if who(call) else unfit("neither userId, email, phone nor anonymousId") for call in calls)
    )


def ping(context: Context) -> Conversation:
    """Ask for the names of custom events: it needs the key, and changes nothing."""
    settings: BrazeSettings = context.settings
    url = f"{settings.endpoint.rstrip('/')}/events/list?page=0"
    return pinged((yield ask_json(context, "GET", url, None, bearer(settings.api_key))), context)


BRAZE = Adapter(
    type="braze",
    title="Braze",
    page="https://www.braze.com/docs/api/endpoints/user_data/post_user_track",
    settings=BrazeSettings,
    deliver=deliver,
    ping=ping,
    kinds=("identify", "track"),
    rate_per_s=100.0,  # contract, section 5
    batch_max=OBJECTS_MAX,
    together=True,
)
