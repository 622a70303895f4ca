"""A webhook: each change as a signed POST to an address of your own.

The body is the change as a tracking-API message (identify, track or group). It is signed as the Standard Webhooks
specification says (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, read
2026-11-24): `webhook-id` is the message id, the same on every attempt, `webhook-timestamp` the attempt's time in
seconds, `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. A secret that begins with
`whsec_` is base64 behind that; any other is taken as its bytes. Limits are the receiver's: 50 requests a second by
default.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, json

from actors.delivery import Adapter, Call, CommonSettings, Context, Conversation, Done, HttpAsk
from actors.delivery_payloads import payload
from actors.delivery_retry import judge
from actors.delivery_settings import Secret

PREFIX = "whsec_"
HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[str, Meta(pattern=r"^[\x20-\x7e\t]{0,2000}$")]
Headers = Annotated[dict[HeaderName, HeaderValue], Meta(max_length=50, extra={"secret": True})]  # tokens, often


class WebhookSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Where to post, and how to sign."""

    url: Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)]
    secret: Secret | UnsetType = UNSET
    headers: Headers | UnsetType = UNSET  # sent along


class Signed(Struct, frozen=True):
    """The headers that prove a message's origin."""

    id: str
    timestamp: str
    signature: str


def key_of(secret: str) -> bytes:
    """Return a secret's key."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret[len(PREFIX) :], validate=True)
        except (binascii.Error, ValueError):
            return secret.encode()
    return secret.encode()


def sign(secret: str, message_id: str, now_ms: int, body: bytes) -> Signed:
    """Return a message's signature at a time."""
    timestamp = str(now_ms // 1000)
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return Signed(message_id, timestamp, f"v1,{base64.b64encode(digest).decode()}")


def request(context: Context, message_id: str, message: dict[str, Any]) -> HttpAsk:
    """Return the request that carries a message."""
    settings: WebhookSettings = context.settings
    body = json.encode(message)
    headers = [("Content-Type", "application/json")]
    if settings.headers:
        headers += settings.headers.items()
    if settings.secret:
        signed = sign(settings.secret, message_id, context.now_ms, body)
        headers += [("webhook-signature", signed.signature)]
    headers += [("webhook-id", message_id), ("webhook-timestamp", str(context.now_ms // 1000))]
    return HttpAsk(method="POST", url=settings.url, headers=tuple(headers), body=body, timeout_s=context.timeout_s)


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Post one call."""
    (call,) = calls
    answer = yield request(context, call.id, payload(call))
    return Done((judge(answer, context.now_ms),))


def ping(context: Context) -> Conversation:
    """Post a message of a type of its own."""
    message = {"type": "ping", "messageId": f"ping-{context.now_ms}"}
    answer = yield request(context, message["messageId"], dict(message))
    return Done((judge(answer, context.now_ms),))


WEBHOOK = Adapter(
    type="webhook",
    title="Webhook",
    page="https://www.standardwebhooks.com/",
    settings=WebhookSettings,
    deliver=deliver,
    ping=ping,
    kinds=("identify", "track", "group"),
    rate_per_s=50.0,  # contract, section 5
)
