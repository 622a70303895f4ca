"""The wire's other end at its worst: TLS that is not to be trusted, names that turn, secrets said back."""

import base64
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from adapters import net
from adapters.destinations import DESTINATIONS
from adapters.net import HttpTransport
from tests.destinations.stage import Stage, stage, track
from tests.destinations.test_net import CRM, post
from tests.destinations.wire import receiver

NOW = datetime.datetime.now(datetime.UTC)


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Return a server's side of TLS with a certificate that nobody but itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def listening(
    context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[int, list[str]]]:
    """Listen, and say everything back with 400: headers, address and body."""
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        seen.append(str(request.url))
        return web.Response(status=400, text=f"{dict(request.headers)} {request.raw_path} {body}")

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=context)
    await site.start()
    try:
        yield int(runner.addresses[0][1]), seen
    finally:
        await runner.cleanup()


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted_and_nothing_is_sent(tmp_path: Path) -> None:
    transport = HttpTransport(allow_private=True)
    async with listening(certificate(tmp_path, "crm")) as (port, seen):
        answer = await transport(CRM, post(f"https://127.0.0.1:{port}/hook"), ())
        assert (answer.status, answer.again) == (0, True)
        assert "TLS failed" in answer.error
        assert seen == []
    await transport.close()


async def test_https_to_a_port_that_speaks_no_tls_is_a_failure_that_may_pass() -> None:
    transport = HttpTransport(allow_private=True)
    async with receiver() as server:
        answer = await transport(CRM, post(f"https://127.0.0.1:{server.port}/hook"), ())
        assert (answer.status, answer.again) == (0, True)
        assert server.requests == []
    await transport.close()


class Turning(AbstractResolver):
    """Says one address, and another the next time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(  # noqa: D102 - see the interface
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        address = "127.0.0.1" if self.asked == 1 else "127.0.0.2"
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


async def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for a public address here, 127.0.0.2 for a private one: a name that turns gains nothing."""
    monkeypatch.setattr(net, "is_public", lambda address: address == "127.0.0.1")
    turning = Turning()
    transport = HttpTransport(allow_private=False, resolver=turning)
    async with receiver([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]) as server:
        assert (await transport(CRM, post(f"http://crm.example.com:{server.port}/"), ())).status == 200
        assert turning.asked == 1  # looked at once, and connected to that
        assert len(server.requests) == 1
    await transport.close()
    fresh = HttpTransport(allow_private=False, resolver=turning)
    async with listening(host="127.0.0.2") as (port, seen):
        answer = await fresh(CRM, post(f"http://crm.example.com:{port}/"), ())
        assert (answer.status, answer.again, seen) == (0, False, [])
        assert "127.0.0.2" in answer.error
    await fresh.close()


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:7f00:1]", "localhost.", "LOCALHOST"]
)
async def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    strict = HttpTransport(allow_private=False)
    async with receiver() as server:
        answer = await strict(CRM, post(f"http://{host}:{server.port}/"), ())
        assert answer.status == 0
        assert server.requests == []
    await strict.close()


SECRET = 's3cret/+=&: "quoted" and long'  # spelt differently in JSON, in a query and in base64
TELLING = {
    "webhook": {"url": "{url}/hook", "secret": SECRET, "headers": {"X-Api-Key": SECRET}},
    "segment": {"url": "{url}", "writeKey": SECRET},
    "braze": {"endpoint": "{url}", "apiKey": "s3cret-braze-key"},
    "customerio": {"endpoint": "{url}", "siteId": "site", "apiKey": SECRET},
    "hubspot": {"endpoint": "{url}", "accessToken": "s3cret-pat"},
    "mailchimp": {"endpoint": "{url}", "apiKey": "s3cret-us21", "listId": "L1"},
    "facebook_custom_audiences": {"endpoint": "{url}", "accessToken": "s3cret-fb", "adAccountId": "1"},
    "google_customer_match": {
        "endpoint": "{url}",
        "oauthUrl": "{url}/token",
        "clientId": "c",
        "clientSecret": SECRET,
        "refreshToken": SECRET[::-1],
        "customerId": "1234567890",
    },
    "marketo_static_lists": {"endpoint": "{url}", "clientId": "c", "clientSecret": SECRET, "folderId": 1},
}


async def everything_kept(it: Stage, destination: str) -> str:
    """Return all that anybody may read of a destination, and all that is in its rows."""
    deliveries = it.deliveries
    rows = it.deliveries._ledger(destination).rows.range
    from eventlog.log import DELIVERIES

    parts = [deliveries.status(destination), *deliveries.failures(destination), *deliveries.dead_letters(destination)]
    parts += deliveries.deliveries(destination)
    return repr(parts) + repr([row.value for row in rows(DELIVERIES, (destination,))])


@pytest.mark.parametrize("kind", sorted(TELLING))
async def test_a_receiver_that_says_everything_back_gets_no_secret_into_what_is_kept(kind: str) -> None:
    async with listening() as (port, seen), stage() as it:
        http = HttpTransport(allow_private=True)
        it.deliveries._transport = http
        url = f"http://127.0.0.1:{port}"
        settings = {
            name: value.format(url=url) if isinstance(value, str) and "{url}" in value else value
            for name, value in TELLING[kind].items()  # type: ignore[attr-defined] # each is a mapping
        }
        destination = await it.destination(kind, settings)
        buyers = await it.audience("Buyers", "event('Bought').count() >= 1")
        await it.connect(buyers, destination, step=False)
        with capture_logs() as said:
            await it.send(
                {"type": "identify", "userId": "ann", "traits": {"email": "ann@x.org"}}, track("ann", "Bought")
            )
            await it.until(10_000)
        assert seen
        kept = await everything_kept(it, destination) + repr(said)
        assert it.deliveries.failures(destination), "what failed is kept"
        secrets = [value for name, value in TELLING[kind].items() if name in SECRET_NAMES]  # type: ignore[attr-defined]
        for secret in secrets:
            for spelt in (secret, base64.b64encode(secret.encode()).decode()[:16], "s3cret", SECRET[::-1][:10]):
                assert spelt not in kept, spelt
        await http.close()


SECRET_NAMES = {"secret", "writeKey", "apiKey", "accessToken", "clientSecret", "refreshToken"}


def test_every_type_that_speaks_http_is_among_those_that_are_said_back() -> None:
    assert TELLING.keys() == DESTINATIONS.keys() - {"postgres", "csv"}
