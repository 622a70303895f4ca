"""The demo's destination: a webhook receiver that checks each request's signature as a real one should.

Signatures are those of the Standard Webhooks specification: base64(HMAC-SHA256(secret, "id.timestamp.body")).
"""

import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Final

from aiohttp import web

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix that the specification gives to secrets


def signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    """Return what `webhook-signature` should hold."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, sha256)).decode()


@asynccontextmanager
async def receiver(secret: str, received: Callable[[dict[str, Any], bool], None]) -> AsyncIterator[str]:
    """Run a receiver on a free port of this machine and yield its address.

    Args:
        secret: what requests are signed with.
        received: told each request's body and whether its signature is good.
    """

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        expected = signature(
            secret, request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", ""), body
        )
        given = request.headers.get("webhook-signature", "").split(" ")
        received(json.loads(body), any(hmac.compare_digest(expected, one) for one in given))
        return web.Response(status=200)

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()
