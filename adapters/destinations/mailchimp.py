"""Mailchimp: an audience as a tag of the list's members, a computed trait as a merge field.

https://mailchimp.com/developer/marketing/api/list-members/ (as described by its clients, read 2026-11-24): `PUT
/3.0/lists/{list}/members/{hash}` makes or changes a member, the hash being the MD5 of the lower-cased address; `POST
…/{hash}/tags` sets tags active or inactive. At most 10 connections at once. A member that is new gets the status of
`statusIfNew`: `transactional` by default, since being in an audience is no consent to mail. Merge field tags are at
most 10 capitals; `mergeFields` names those that differ.
"""

import hashlib
from typing import Annotated, Any
from typing import Literal as OneOf

from msgspec import UNSET, Meta, UnsetType

from actors.delivery import DELIVERED, Adapter, Call, CommonSettings, Context, Conversation, Done
from actors.delivery_retry import judge
from actors.delivery_settings import Secret, Text
from adapters.destinations.answers import ask_json, basic, pinged, unfit
from adapters.destinations.hubspot import written

MERGE_TAG_MAX = 10  # characters


class MailchimpSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An API key (its end names the data center), and the list."""

    api_key: Annotated[Secret, Meta(pattern=r"-[a-z]+[0-9]+$")]
    list_id: Text
    status_if_new: OneOf["transactional", "subscribed", "pending", "unsubscribed"] = "transactional"
    merge_fields: dict[str, Text] | UnsetType = UNSET  # computed trait's key -> merge field
    endpoint: Text | None = None  # in place of https://<data center>.api.mailchimp.com


def _base(settings: MailchimpSettings) -> str:
    host = settings.endpoint or f"https://{settings.api_key.rpartition('-')[2]}.api.mailchimp.com"
    return f"{host.rstrip('/')}/3.0"


def member_url(settings: MailchimpSettings, email: str) -> str:
    """Return the address of a list's member."""
    digest = hashlib.md5(email.lower().encode(), usedforsecurity=False).hexdigest()
    return f"{_base(settings)}/lists/{settings.list_id}/members/{digest}"


def member(settings: MailchimpSettings, call: Call) -> dict[str, Any]:
    """Return a member to make or change."""
    built: dict[str, Any] = {"email_address": call.email, "status_if_new": settings.status_if_new}
    if call.computation_class == "trait":
        named = settings.merge_fields or {}
        field = named.get(call.key, call.key.upper()[:MERGE_TAG_MAX])
        built["merge_fields"] = {field: written(call.value)}
    return built


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Make or change the member, then tag it."""
    settings: MailchimpSettings = context.settings
    (call,) = calls
    if call.email is None:
        return Done((unfit("a Mailchimp member is known by its email, and this profile has none"),))
    url, headers = member_url(settings, call.email), basic("turnout", settings.api_key)
    leaves = call.computation_class == "audience" and not call.value
    if not leaves:
        answer = yield ask_json(context, "PUT", url, member(settings, call), headers)
        if call.computation_class == "trait" or not 200 <= answer.status < 300:
            return Done((judge(answer, context.now_ms),))
    tags = {"tags": [{"name": call.key, "status": "inactive" if leaves else "active"}]}
    answer = yield ask_json(context, "POST", f"{url}/tags", tags, headers)
    verdict = judge(answer, context.now_ms)
    if leaves and answer.status == 404:  # it is not a member any more: nothing to take off
        return Done((DELIVERED,))
    return Done((verdict,))


def ping(context: Context) -> Conversation:
    """Ask for the list's name."""
    settings: MailchimpSettings = context.settings
    url = f"{_base(settings)}/lists/{settings.list_id}?fields=name"
    return pinged((yield ask_json(context, "GET", url, None, basic("turnout", settings.api_key))), context)


MAILCHIMP = Adapter(
    type="mailchimp",
    title="Mailchimp",
    page="https://mailchimp.com/developer/marketing/api/list-members/",
    settings=MailchimpSettings,
    deliver=deliver,
    ping=ping,
    kinds=("identify",),
    rate_per_s=10.0,  # contract, section 5
    asks_max=2,
    concurrency=5,
)
