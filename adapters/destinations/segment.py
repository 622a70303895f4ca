"""Any endpoint that speaks the tracking API: Segment, RudderStack, Jitsu, another Turnout.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/ (read 2026-11-24): `POST
/v1/{identify|track|group}`, Basic auth with the write key as user name, one of userId and anonymousId required. Segment
recommends at most 1,000 requests a second a workspace; answers are 200 also for messages it drops later, 400 for
what is too large or malformed. A call that has neither id (a profile known by its email alone) gets the profile's own
id as anonymousId: the same one each time.
"""

import base64
from typing import Annotated, Any

from msgspec import Meta, json

from actors.delivery import Adapter, Call, CommonSettings, Context, Conversation, Done, HttpAsk
from actors.delivery_payloads import payload
from actors.delivery_retry import judge
from actors.delivery_settings import Secret


class SegmentSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Where the tracking API is, and the key to write there."""

    write_key: Secret
    url: Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)] = "https://api.segment.io"


def message(call: Call) -> dict[str, Any]:
    """Return a call as the endpoint takes it."""
    built = payload(call)
    if call.kind != "group" and "userId" not in built and "anonymousId" not in built:
        built["anonymousId"] = call.profile
    return built


def request(context: Context, path: str, body: dict[str, Any]) -> HttpAsk:
    """Return the request that carries a message."""
    settings: SegmentSettings = context.settings
    credentials = base64.b64encode(f"{settings.write_key}:".encode()).decode()
    return HttpAsk(
        method="POST",
        url=f"{settings.url.rstrip('/')}/v1/{path}",
        headers=(("Content-Type", "application/json"), ("Authorization", f"Basic {credentials}")),
        body=json.encode(body),
        timeout_s=context.timeout_s,
    )


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Send one call."""
    (call,) = calls
    answer = yield request(context, call.kind, message(call))
    return Done((judge(answer, context.now_ms),))


def ping(context: Context) -> Conversation:
    """Send an empty batch: the key is looked at, nothing is written."""
    answer = yield request(context, "batch", {"batch": []})
    return Done((judge(answer, context.now_ms),))


SEGMENT = Adapter(
    type="segment",
    title="Segment or any tracking API",
    page="https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/",
    settings=SegmentSettings,
    deliver=deliver,
    ping=ping,
    kinds=("identify", "track", "group"),
    rate_per_s=500.0,  # half of what Segment recommends at most: the workspace has other sources
    burst=100,
    concurrency=32,
)
