"""Requests out: an HTTP transport that is in no hurry to trust what is at the other end.

Whoever configures a destination chooses an address that this machine then talks to, so addresses are looked at after
they are resolved, and the connection goes to what was looked at (a name that answers differently the second time gains
nothing). Private, loopback and other special addresses are refused unless they are allowed. Redirects are not
followed. Answers are read up to a bound and then cut off, uncompressed, and everything has a time limit. No failure of
the network raises: it becomes an answer with status 0 that says what happened, and whether trying again may help.
"""

import asyncio
import io
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from actors.delivery import Answer, Ask, Call, Destination, HttpAsk, Transport
from eventlog.errors import InvalidError

BODY_BYTES_MAX: Final = 64 * 1024  # of an answer: more is not read
PIECE_BYTES: Final = 256 * 1024  # of a request that go out at once: beyond 1 MB the client library warns
CONNECT_TIMEOUT_S: Final = 10.0
CONNECTIONS_MAX: Final = 256  # of all destinations together
CONNECTIONS_HOST_MAX: Final = 64
ALLOW_PRIVATE: Final = "TURNOUT_ALLOW_PRIVATE_DESTINATIONS"
USER_AGENT: Final = "Turnout"

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last four bytes
_SIX_TO_FOUR: Final = ipaddress.ip_network("2002::/16")  # RFC 3056: one in the four bytes after the prefix

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PrivateAddressError(OSError):
    """A destination's address is not on the public internet."""

    def __init__(self, host: str, address: str) -> None:
        at = host if host == address else f"{host} ({address})"
        super().__init__(f"{at} is not a public address; set {ALLOW_PRIVATE}=1 to allow private destinations")


def private_allowed(environment: dict[str, str] | None = None) -> bool:
    """Tell whether the environment allows private addresses."""
    value = (os.environ if environment is None else environment).get(ALLOW_PRIVATE, "")
    return value.strip().lower() in {"1", "true", "yes", "on"}


def is_public(address: str) -> bool:
    """Tell whether an IP address is on the public internet, whatever it is wrapped in."""
    try:
        ip: Address = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.teredo is not None or ip in _SIX_TO_FOUR:
            return False
    return ip.is_global and not ip.is_multicast


def checked_url(url: str) -> URL:
    """Return an address that requests can be sent to. Raises InvalidError, saying what is wrong with it."""
    try:
        parsed = URL(url)
        host = parsed.host
        parsed.port  # noqa: B018 - raises where the port is none
    except (ValueError, UnicodeError) as error:
        raise InvalidError("invalid_url", f"{url!r} is not an address: {error}", field="url") from None
    if parsed.scheme not in {"http", "https"} or not host:
        raise InvalidError("invalid_url", f"{url!r} is not an http:// or https:// address", field="url")
    if parsed.user is not None:
        raise InvalidError("invalid_url", "an address with a user name in it; use a header instead", field="url")
    return parsed


def check_addresses(settings: Mapping[str, Any], *, allow_private: bool) -> None:
    """Look at the addresses in a destination's settings. Raises InvalidError where requests would be refused anyway."""
    for name, value in settings.items():
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            host = checked_url(value).host or ""
            if not allow_private and (host == "localhost" or (_is_literal(host) and not is_public(host))):
                raise InvalidError("private_address", f"{name}: {PrivateAddressError(host, host)}", field=name)


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses those that lead to an address that is not public."""

    def __init__(self, *, allow_private: bool, inner: AbstractResolver | None = None) -> None:
        self._allow_private = allow_private
        self._inner = inner if inner is not None else ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host, all of them public. Raises PrivateAddressError if one is not."""
        found = await self._inner.resolve(host, port, family)
        if not self._allow_private:
            for result in found:
                if not is_public(result["host"]):
                    raise PrivateAddressError(host, result["host"])
        return found

    async def close(self) -> None:
        """Release what is held."""
        await self._inner.close()


def failure(error: BaseException) -> Answer:
    """Return what a failed request means: again where the same request may work later, not where it never will."""
    final = (
        PrivateAddressError,
        aiohttp.InvalidURL,
        aiohttp.NonHttpUrlClientError,
        aiohttp.RedirectClientError,
        aiohttp.TooManyRedirects,
        aiohttp.ServerFingerprintMismatch,
        UnicodeError,
    )
    inner = getattr(error, "os_error", None)
    for cause in (error, inner, error.__cause__, getattr(error.__cause__, "os_error", None)):
        if isinstance(cause, PrivateAddressError):
            return Answer(status=0, error=str(cause), again=False)
    return Answer(status=0, error=_wording(error), again=not isinstance(error, final))


def _wording(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLError():
            return f"TLS failed: {_said(error)}"
        case aiohttp.ClientConnectorDNSError():
            return f"the name cannot be resolved: {_said(error)}"
        case aiohttp.ClientConnectorError():
            return f"no connection: {_said(error)}"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "the connection was closed before an answer came"
        case aiohttp.InvalidURL():
            return f"not an address: {_said(error)}"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ClientResponseError():
            return f"not an HTTP answer: {getattr(error, 'message', '')}"
        case _:
            return f"{type(error).__name__}: {_said(error)}"


def _said(error: BaseException) -> str:
    """Some errors of the client library cannot be printed before they were connected to anything."""
    try:
        return str(error)
    except AttributeError:
        return type(error).__name__


class HttpTransport:
    """Performs HTTP asks for all destinations of a process."""

    def __init__(self, *, allow_private: bool = False, resolver: AbstractResolver | None = None) -> None:
        self._allow_private = allow_private
        self._resolver = GuardedResolver(allow_private=allow_private, inner=resolver)
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=self._resolver, limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_HOST_MAX
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                trust_env=False,
            )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Perform an HTTP ask."""
        assert isinstance(ask, HttpAsk), ask
        try:
            url = checked_url(ask.url)
        except InvalidError as error:
            return Answer(status=0, error=str(error), again=False)
        if not self._allow_private and url.host is not None and _is_literal(url.host) and not is_public(url.host):
            return Answer(status=0, error=str(PrivateAddressError(url.host, url.host)), again=False)
        timeout = aiohttp.ClientTimeout(total=ask.timeout_s, connect=min(CONNECT_TIMEOUT_S, ask.timeout_s))
        try:
            async with self._opened().request(
                ask.method,
                url,
                headers=ask.headers,
                data=_payload(ask.body),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                return await _read(response)
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError, ValueError) as error:
            return failure(error)
        except asyncio.IncompleteReadError as error:
            return failure(error)


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """Return a body as the client library sends it without holding others up: a large one in pieces."""
    return io.BytesIO(body) if len(body) > PIECE_BYTES else body or None


async def _read(response: aiohttp.ClientResponse) -> Answer:
    """Read an answer's beginning. Its status counts once it is there, whatever becomes of the rest."""
    parts: list[bytes] = []
    left = BODY_BYTES_MAX
    try:
        while left > 0:
            part = await response.content.read(left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
    except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError):
        response.close()
    if left <= 0:
        response.close()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(status=response.status, headers=headers, body=b"".join(parts))


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return True


class AskTransport(Transport, Protocol):
    """A transport for some kinds of asks."""

    async def close(self) -> None:
        """Release what is held."""


class Transports:
    """Performs every kind of ask: HTTP by one transport, the others by those that were handed in for them."""

    def __init__(self, http: HttpTransport, others: Mapping[type[Ask], AskTransport]) -> None:
        self.http = http
        self._others = others

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Perform an ask."""
        other = self._others.get(type(ask))
        return await (self.http if other is None else other)(destination, ask, calls)

    async def close(self) -> None:
        """Release what is held."""
        await self.http.close()
        for other in self._others.values():
            await other.close()
