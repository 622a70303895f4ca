"""Customer.io: membership as an attribute of the person, entries and exits as events.

https://docs.customer.io/integrations/api/track/ (read 2026-11-24), Track API v2: `POST /api/v2/batch`, Basic auth with
site id and API key, at most 500 KB a request and 32 KB an item, 3,000 requests in three seconds by fair use; another
host for accounts in the EU. `200` takes all, `207` lists refused items under `errors` by `batch_index`. A person is
known by id or email; events alone may go to an anonymous_id. An attribute set to null or "" is removed. An event with a
ULID that was seen before is not taken again (https://docs.customer.io/journeys/events/#deduplicating-events).
"""

import hashlib
from collections.abc import Iterator
from typing import Any
from typing import Literal as OneOf

from actors.delivery import DELIVERED, Adapter, Call, CommonSettings, Context, Conversation, Done, Verdict
from actors.delivery_settings import Secret, Text
from adapters.destinations.answers import ask_json, basic, ended, json_of, objects, pinged, text_of, unfit

ITEMS_MAX = 15  # a request: so many of the largest items fit in 500 KB
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # the digits of a ULID
HOSTS = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}


class CustomerioSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The workspace's Track API credentials, and where its data lies."""

    site_id: Text
    api_key: Secret
    region: OneOf["us", "eu"] = "us"
    endpoint: Text | None = None  # in place of the region's address


def who(call: Call) -> dict[str, str]:
    """Return the identifier that a person is found by; nothing if the call has none that fits."""
    if call.user_id is not None:
        return {"id": call.user_id}
    if call.email is not None:
        return {"email": call.email}
    if call.anonymous is not None and call.kind == "track":
        return {"anonymous_id": call.anonymous}
    return {}


def ulid(call: Call) -> str:
    """Return a ULID that is the same whenever this call is sent: its time, then a hash of its message id."""
    number = (call.at_ms % 2**48) << 80 | int.from_bytes(hashlib.sha256(call.id.encode()).digest()[:10])
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def item(call: Call) -> dict[str, Any]:
    """Return a call as an item of a batch."""
    built: dict[str, Any] = {"type": "person", "identifiers": who(call)}
    if call.kind == "track":
        attributes = {f"{call.computation_class}_key": call.key, call.key: call.value, "message_id": call.id}
        return {
            **built,
            "action": "event",
            "id": ulid(call),
            "name": call.event,
            "timestamp": call.at_ms // 1000,
            "attributes": attributes,
        }
    known = {"email": call.email} if call.email is not None else {}
    return {**built, "action": "identify", "attributes": {**known, call.key: call.value}}


def verdicts(calls: tuple[Call, ...], answer: dict[str, Any]) -> tuple[Verdict, ...]:
    """Return what an answer says of each call."""
    refused = {
        one.get("batch_index"): f"{text_of(one.get('reason'))} {text_of(one.get('message'))}".strip()
        for one in objects(answer.get("errors"))
    }
    return tuple(
        Verdict(how="dead", reason=f"refused: {refused[index]}", status=207) if index in refused else DELIVERED
        for index in range(len(calls))
    )


def _host(settings: CustomerioSettings) -> str:
    return (settings.endpoint or HOSTS[settings.region]).rstrip("/")


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Send calls of many people in one request."""
    settings: CustomerioSettings = context.settings
    fit = tuple(call for call in calls if who(call))
    known: Iterator[Verdict] = iter(())
    if fit:
        batch = {"batch": [item(call) for call in fit]}
        headers = basic(settings.site_id, settings.api_key)
        answer = yield ask_json(context, "POST", f"{_host(settings)}/api/v2/batch", batch, headers)
        taken = 200 <= answer.status < 300
        known = iter(verdicts(fit, json_of(answer)) if taken else ended(answer, context, fit).verdicts)
    return Done(tuple(next(known) if who(call) else unfit("neither userId nor email") for call in calls))


def ping(context: Context) -> Conversation:
    """Ask for the account's region: it needs the credentials, and changes nothing."""
    settings: CustomerioSettings = context.settings
    headers = basic(settings.site_id, settings.api_key)
    return pinged((yield ask_json(context, "GET", f"{_host(settings)}/api/v1/accounts/region", None, headers)), context)


CUSTOMERIO = Adapter(
    type="customerio",
    title="Customer.io",
    page="https://docs.customer.io/integrations/api/track/",
    settings=CustomerioSettings,
    deliver=deliver,
    ping=ping,
    kinds=("identify", "track"),
    rate_per_s=30.0,  # contract, section 5
    batch_max=ITEMS_MAX,
    together=True,
)
