"""HubSpot: membership as a property of the contact, made if it is not there.

https://developers.hubspot.com/docs/api-reference/2026-03/crm/objects/contacts/batch/upsert-contacts (read 2026-11-24):
`POST /crm/objects/2026-03/contacts/batch/upsert`, at most 100 contacts, known by email or another unique property;
`207` tells of those it could not take, and one contact that is malformed can have the whole batch refused with `400`.
A private app may ask 100 to 190 times in ten seconds, by plan. Properties are made by `POST
/crm/v3/properties/contacts`, `409` where there is one. HubSpot's events need definitions of their own, so entries and
exits are told by the property alone: workflows start on it.
"""

from typing import Any

from msgspec import json

from actors.delivery import DELIVERED, Adapter, Answer, Call, CommonSettings, Context, Conversation, Done, Verdict
from actors.delivery_retry import judge
from actors.delivery_settings import Secret, Text
from adapters.destinations.answers import ask_json, bearer, ended, json_of, objects, pinged, text_of, unfit

CONTACTS_MAX = 100  # a request


class HubspotSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A private app's token (scopes: contacts read and write, contact schemas write), and how contacts are known."""

    access_token: Secret
    id_property: Text = "email"  # or a unique property that holds the userId
    property_group: Text = "contactinformation"
    endpoint: Text = "https://api.hubapi.com"


def who(context: Context, call: Call) -> str | None:
    """Return the value that a contact is known by."""
    return call.email if context.settings.id_property == "email" else call.user_id


def written(value: Any) -> str:
    """Return a value as HubSpot takes it: booleans as words, lists with semicolons, nothing to clear."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(written(one) for one in value)
    return value if isinstance(value, str) else json.encode(value).decode()


def new_property(context: Context, call: Call) -> dict[str, Any]:
    """Return the property that holds an audience or a trait."""
    made: dict[str, Any] = {"groupName": context.settings.property_group, "name": call.key, "label": call.key}
    if call.computation_class == "audience":
        options = [{"label": label, "value": label.lower()} for label in ("True", "False")]
        return {**made, "type": "enumeration", "fieldType": "booleancheckbox", "options": options}
    is_number = isinstance(call.value, int | float) and not isinstance(call.value, bool)
    return (
        {**made, "type": "number", "fieldType": "number"}
        if is_number
        else {**made, "type": "string", "fieldType": "text"}
    )


def contact(context: Context, call: Call) -> dict[str, Any]:
    """Return a call as a contact to write."""
    properties = {call.key: written(call.value)}
    if call.email is not None:
        properties["email"] = call.email
    return {"idProperty": context.settings.id_property, "id": who(context, call), "properties": properties}


def verdicts(context: Context, calls: tuple[Call, ...], answer: Answer) -> tuple[Verdict, ...]:
    """Return what an answer says of each call: those that are not among its results were not taken."""
    errors = objects(json_of(answer).get("errors"))
    if answer.status != 207 or not errors:
        return (DELIVERED,) * len(calls)
    reason = "; ".join(dict.fromkeys(text_of(one.get("message")) for one in errors))
    named = {text_of(one).lower() for error in errors for one in _ids(error)}
    return tuple(
        Verdict(how="dead", reason=f"refused: {reason}", status=207)
        if not named or (who(context, call) or "").lower() in named
        else DELIVERED
        for call in calls
    )


def _ids(error: dict[str, Any]) -> list[object]:
    context = error.get("context")
    ids = context.get("id", context.get("ids")) if isinstance(context, dict) else None
    return ids if isinstance(ids, list) else []


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Make the property once, then write contacts."""
    settings: HubspotSettings = context.settings
    known = f"{calls[0].connection}.property"
    remember: dict[str, Any] = {}
    headers = bearer(settings.access_token)
    if known not in context.memory:
        url = f"{settings.endpoint}/crm/v3/properties/contacts"
        answer = yield ask_json(context, "POST", url, new_property(context, calls[0]), headers)
        if not 200 <= answer.status < 300 and answer.status != 409:
            return Done((judge(answer, context.now_ms),) * len(calls))
        remember = {known: calls[0].key}
    by_contact = {who(context, call): call for call in calls if who(context, call)}  # one contact once a request
    fit = tuple(by_contact.values())
    found: dict[str, Verdict] = {}
    if fit:
        url = f"{settings.endpoint}/crm/objects/2026-03/contacts/batch/upsert"
        answer = yield ask_json(context, "POST", url, {"inputs": [contact(context, one) for one in fit]}, headers)
        taken = 200 <= answer.status < 300
        said = verdicts(context, fit, answer) if taken else ended(answer, context, fit).verdicts
        found = {call.id: verdict for call, verdict in zip(fit, said, strict=True)}
    missing = unfit(f"a HubSpot contact is known by its {settings.id_property}, and this profile has none")
    later = Verdict(how="retry", alone=True)
    return Done(
        tuple(found.get(call.id, later if who(context, call) else missing) for call in calls), remember=remember
    )


def ping(context: Context) -> Conversation:
    """Ask for the account's details."""
    settings: HubspotSettings = context.settings
    url = f"{settings.endpoint}/account-info/v3/details"
    return pinged((yield ask_json(context, "GET", url, None, bearer(settings.access_token))), context)


HUBSPOT = Adapter(
    type="hubspot",
    title="HubSpot",
    page="https://developers.hubspot.com/docs/api-reference/2026-03/crm/objects/contacts/batch/upsert-contacts",
    settings=HubspotSettings,
    deliver=deliver,
    ping=ping,
    kinds=("identify",),
    rate_per_s=10.0,  # contract, section 5
    burst=2,
    window_s=10.0,
    batch_max=CONTACTS_MAX,
    asks_max=2,
    concurrency=4,
    group_by=lambda call: call.connection,
)
