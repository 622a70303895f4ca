"""The transport against real servers and hostile answers; which addresses it refuses."""

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from actors.delivery import Answer, Destination, HttpAsk
from actors.delivery_retry import judge
from adapters.net import (
    BODY_BYTES_MAX,
    GuardedResolver,
    HttpTransport,
    PrivateAddressError,
    check_addresses,
    checked_url,
    failure,
    is_public,
    private_allowed,
)
from eventlog.errors import InvalidError
from tests.destinations.wire import DRIP, ENDLESS, SILENCE, receiver

CRM = Destination(id="dst_1", type="webhook", name="crm", source_id="src", settings={})


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport(allow_private=True)
    yield made
    await made.close()


def post(url: str, timeout_s: float = 5.0) -> HttpAsk:
    return HttpAsk(method="POST", url=url, headers=(("X-One", "1"),), body=b"{}", timeout_s=timeout_s)


async def test_an_answer_comes_back_with_its_status_headers_and_body(transport: HttpTransport) -> None:
    raw = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nwait"
    async with receiver([raw]) as server:
        answer = await transport(CRM, post(server.url), ())
        assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "7", b"wait")
        (request,) = server.requests
        assert request.line == "POST /hook HTTP/1.1"
        assert request.headers["x-one"] == "1"
        assert request.body == b"{}"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (ENDLESS, 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", 200),
        (b"HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nhalf", 500),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz", 200),
        (b"\x00\xff" * 400 + b"\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, 0),
        (b"", 0),
    ],
)
async def test_a_strange_answer_is_cut_off_or_becomes_a_failure_and_never_raises(
    transport: HttpTransport, raw: bytes, status: int
) -> None:
    async with receiver([raw]) as server:
        answer = await transport(CRM, post(server.url), ())
        assert answer.status == status
        assert len(answer.body) <= BODY_BYTES_MAX
        if status == 0:
            assert answer.error
            assert answer.again


@pytest.mark.parametrize("raw", [SILENCE, DRIP])
async def test_an_answer_that_takes_for_ever_is_given_up_in_time(transport: HttpTransport, raw: bytes) -> None:
    async with receiver([raw]) as server:
        answer = await transport(CRM, post(server.url, timeout_s=0.3), ())
        assert answer.status in {0, 200}  # a body that drips: its status counts
        assert raw is DRIP or (answer.error == "no answer in time" and judge(answer, 0).unsure)


async def test_a_closed_port_and_an_unknown_name_may_be_tried_again(transport: HttpTransport) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = await transport(CRM, post(f"http://127.0.0.1:{port}/"), ())
    assert answer.status == 0
    assert answer.again
    answer = await transport(CRM, post("http://no-such-host.invalid/"), ())
    assert answer.status == 0
    assert answer.again


async def test_a_redirect_is_not_followed_and_says_where_it_leads(transport: HttpTransport) -> None:
    raw = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    async with receiver([raw]) as server:
        answer = await transport(CRM, post(server.url), ())
        verdict = judge(answer, 0)
        assert (verdict.how, verdict.status) == ("dead", 302)
        assert "169.254.169.254" in verdict.reason
        assert len(server.requests) == 1


async def test_private_addresses_are_refused_unless_allowed_also_behind_a_name() -> None:
    strict = HttpTransport(allow_private=False)
    async with receiver() as server:
        for url in (server.url, f"http://localhost:{server.port}/", f"http://[::ffff:127.0.0.1]:{server.port}/"):
            answer = await strict(CRM, post(url), ())
            assert (answer.status, answer.again) == (0, False), url
            assert "TURNOUT_ALLOW_PRIVATE_DESTINATIONS" in answer.error
        assert server.requests == []
    await strict.close()


class Turncoat(AbstractResolver):
    """Says a public address first, a private one afterwards."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(  # noqa: D102 - see the interface
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        address = "203.0.113.7" if self.asked == 1 else "127.0.0.1"
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


async def test_a_name_that_turns_private_is_refused_when_it_does() -> None:
    resolver = GuardedResolver(allow_private=False, inner=Turncoat())
    with pytest.raises(PrivateAddressError):  # a documentation address is not public either
        await resolver.resolve("crm.example.com", 80)
    with pytest.raises(PrivateAddressError):
        await resolver.resolve("crm.example.com", 80)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - refused, not bound
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "nonsense",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url", ["ftp://x.org/", "http://", "crm", "http://user:pw@x.org/", "http://x.org:99999/", "file:///etc/passwd"]
)
def test_what_is_no_address_is_refused_with_the_field(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        checked_url(url)
    assert caught.value.field == "url"


def test_a_private_address_in_settings_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidError) as caught:
        check_addresses({"url": "http://10.0.0.1/x"}, allow_private=False)
    assert caught.value.field == "url"
    check_addresses({"url": "http://10.0.0.1/x"}, allow_private=True)
    check_addresses({"url": "https://crm.example.com/", "rate": 5}, allow_private=False)


def test_private_addresses_are_allowed_by_the_environment_alone() -> None:
    assert private_allowed({"TURNOUT_ALLOW_PRIVATE_DESTINATIONS": "1"})
    assert not private_allowed({"TURNOUT_ALLOW_PRIVATE_DESTINATIONS": "0"})
    assert not private_allowed({})


def every_error(base: type[BaseException]) -> list[type[BaseException]]:
    """Return a class of errors and all that derive from it."""
    return [base, *(found for sub in base.__subclasses__() for found in every_error(sub))]


FINAL = {
    "InvalidURL",
    "InvalidUrlClientError",
    "InvalidUrlRedirectClientError",
    "NonHttpUrlClientError",
    "NonHttpUrlRedirectClientError",
    "RedirectClientError",
    "TooManyRedirects",
    "ServerFingerprintMismatch",
}
AGAIN = {
    "ClientConnectionError",
    "ClientConnectionResetError",
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientConnectorSSLError",
    "ClientError",
    "ClientHttpProxyError",
    "ClientOSError",
    "ClientPayloadError",
    "ClientProxyConnectionError",
    "ClientResponseError",
    "ClientSSLError",
    "ConnectionTimeoutError",
    "ContentTypeError",
    "ServerConnectionError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
    "SocketTimeoutError",
    "UnixClientConnectorError",
    "UploadAbortedError",
    "WSServerHandshakeError",
}


def test_every_error_of_the_client_library_is_either_tried_again_or_final() -> None:
    names = {error.__name__ for error in every_error(aiohttp.ClientError)}
    assert names == FINAL | AGAIN


@pytest.mark.parametrize("error", sorted(set(every_error(aiohttp.ClientError)), key=repr))
def test_an_error_becomes_an_answer_that_says_what_happened(error: type[BaseException]) -> None:
    answer = failure(error.__new__(error))
    assert isinstance(answer, Answer)
    assert (answer.status, answer.again) == (0, error.__name__ in AGAIN)
    assert answer.error
