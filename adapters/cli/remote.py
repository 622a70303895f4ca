"""Answers from a running daemon, over its HTTP API, with the token in TURNOUT_TOKEN."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from actors.space_api import EntityType
from adapters.cli.answers import Member, PreviewAnswer
from adapters.cli.options import MisusedError, Target
from eventlog.errors import QueryError, TurnoutError
from eventlog.instants import instant_ms, iso

PAGE_COUNT: Final = 1000  # the most that the API gives at once
POLL_S: Final = 0.1  # between questions whether a preview or export is done
ANSWER_S_MAX: Final = 120.0  # that one request may take; explaining or counting long histories takes seconds
SAMPLE: Final = 10
CHUNK_BYTES: Final = 1 << 18
DOWNLOAD: Final = aiohttp.ClientTimeout(total=None, sock_read=ANSWER_S_MAX)


class DaemonError(TurnoutError):
    """The daemon cannot be reached, or says no. Says which daemon, and what it said."""

    def __init__(self, url: str, what: str, *, status: int = 0) -> None:
        super().__init__(f"{url}: {what}")
        self.status = status


class Daemon:
    """A daemon's HTTP API, seen from one space."""

    def __init__(self, url: str, session: aiohttp.ClientSession, token: str) -> None:
        self.url = url
        self.session = session
        self.token = token
        self.space = ""

    async def ask(
        self, method: str, path: str, *, query: dict[str, str | None] | None = None, body: Any = None
    ) -> dict[str, Any]:
        """Send a request and return its `data`. Raises DaemonError; QueryError for a wrong definition."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            async with self.session.request(
                method, f"{self.url}{path}", params=given, json=body, headers={"Authorization": f"Bearer {self.token}"}
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable(self.url, error) from error
        if answer.status >= 300:
            raise refused(self.url, answer.status, content)
        try:
            data: dict[str, Any] = msgspec.json.decode(content)["data"]
        except (msgspec.DecodeError, KeyError, TypeError):
            raise DaemonError(self.url, f"{method} {path} was answered by something that is no Turnout") from None
        return data

    async def pages(
        self, path: str, name: str, query: dict[str, str | None] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield every row of a list, page after page."""
        cursor: str | None = None
        while True:
            page = {**(query or {}), "pagination[count]": str(PAGE_COUNT), "pagination[cursor]": cursor}
            answer = await self.ask("GET", path, query=page)
            for row in answer[name]:
                yield row
            cursor = answer["pagination"].get("next")
            if cursor is None:
                return

    async def download(self, path: str, to: Path) -> None:
        """Write what a path answers to a file."""
        try:
            async with self.session.get(
                f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}, timeout=DOWNLOAD
            ) as answer:
                if answer.status >= 300:
                    raise refused(self.url, answer.status, await answer.read())
                with to.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                        file.write(chunk)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise unreachable(self.url, error) from error

    def path(self, *parts: str) -> str:
        """Return a path within the space."""
        return "/" + "/".join(quote(part, safe="") for part in ("spaces", self.space, *parts))

    async def definition(self, key: str) -> tuple[str, bool]:
        """Return `audiences` or `computed-traits`, whichever a definition is one of, and whether it is of accounts."""
        try:
            audience = (await self.ask("GET", self.path("audiences", key)))["audience"]
        except DaemonError as error:
            if error.status != 404:
                raise
            trait = (await self.ask("GET", self.path("computed-traits", key)))["computedTrait"]
            return "computed-traits", trait["definition"]["type"] == "ACCOUNTS"
        return "audiences", audience["audienceType"] == "ACCOUNTS"


def unreachable(url: str, error: Exception) -> DaemonError:
    """Return the error of a daemon that does not answer."""
    why = str(error) or type(error).__name__
    return DaemonError(url, f"no answer ({why}); is a daemon listening there?")


def refused(url: str, status: int, content: bytes) -> TurnoutError:
    """Return what a daemon's refusal means: a wrong definition as it would be told here, else its own words."""
    try:
        first = msgspec.json.decode(content)["errors"][0]
        message = str(first["message"])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return DaemonError(url, f"status {status}: {content[:200].decode(errors='replace')!r}", status=status)
    if first.get("type") == "invalid_query" and isinstance(first.get("data"), dict):
        data = first["data"]
        return QueryError(
            line=data["line"],
            column=data["column"],
            found=data["found"],
            accepted=tuple(data["accepted"]),
            hint=data["hint"],
        )
    if status == 401:
        message += " (the token is taken from TURNOUT_TOKEN)"
    return DaemonError(url, message, status=status)


@asynccontextmanager
async def reach(target: Target) -> AsyncIterator[Daemon]:
    """Reach the daemon that a command line names."""
    url = checked_url(target)
    token = os.environ.get("TURNOUT_TOKEN", "")
    if not token:
        raise MisusedError("--url needs an access token in the environment variable TURNOUT_TOKEN")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S_MAX)) as session:
        daemon = Daemon(url, session, token)
        yield daemon


async def choose_space(daemon: Daemon, wanted: str | None) -> None:
    """Find the space that a command is about: the one named, or the daemon's first."""
    if wanted is not None:
        daemon.space = (await daemon.ask("GET", f"/spaces/{quote(wanted, safe='')}"))["space"]["id"]
    else:
        daemon.space = (await daemon.ask("GET", "/spaces"))["spaces"][0]["id"]


def checked_url(target: Target) -> str:
    """Return the daemon's address without a slash at its end."""
    if target.data is not None:
        raise MisusedError("say either --data or --url: a data directory or a daemon")
    parts = urlsplit(target.url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise MisusedError(f"--url: found {target.url!r}, expected an address such as http://localhost:8765")
    return (target.url or "").rstrip("/")


@asynccontextmanager
async def ask_daemon(target: Target) -> AsyncIterator["RemoteAnswers"]:
    """Open the daemon of a command line for questions."""
    async with reach(target) as daemon:
        await choose_space(daemon, target.space)
        yield RemoteAnswers(daemon)


class RemoteAnswers:
    """Asks a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def preview(
        self,
        query: str,
        entity_type: EntityType,
        *,
        trait: bool,
        at_ms: int | None,
        known_ms: int | None,
        everyone: bool,
    ) -> PreviewAnswer:
        """See `Answers`."""
        daemon = self._daemon
        body = {
            "definition": {"query": query},
            "audienceType": entity_type,
            "at": _iso(at_ms),
            "known": _iso(known_ms),
            "trait": trait,
            "sampleSize": None if everyone else SAMPLE,
            "everyone": everyone,
        }
        started = await daemon.ask("POST", daemon.path("audiences", "previews"), body=body)
        path = daemon.path("audiences", "previews", started["audiencePreview"]["id"])
        while True:
            found = (await daemon.ask("GET", path))["audiencePreview"]
            if found["status"] != "RUNNING":
                break
            await asyncio.sleep(POLL_S)
        if found["status"] == "FAILED":
            raise DaemonError(daemon.url, found["failureReason"])
        names = tuple(row["name"] for row in found["results"])
        return PreviewAnswer(int(found["size"]["count"]), names, instant_ms(found["at"]) or 0)

    async def members(self, key: str, *, at_ms: int | None, known_ms: int | None) -> list[Member]:
        """See `Answers`."""
        path, query = self._daemon.path("audiences", key, "members"), {"at": _iso(at_ms), "known": _iso(known_ms)}
        rows = self._daemon.pages(path, "members", query)
        return [Member(row["name"], instant_ms(row["since"]) or 0) async for row in rows]

    async def explain(self, key: str, profile: str, *, at_ms: int | None, known_ms: int | None) -> dict[str, Any]:
        """See `Answers`."""
        daemon = self._daemon
        kind, is_of_accounts = await daemon.definition(key)
        if ":" not in profile:
            profile = f"{'group_id' if is_of_accounts else 'user_id'}:{profile}"
        query = {"profile": profile, "at": _iso(at_ms), "known": _iso(known_ms)}
        answer = await daemon.ask("GET", daemon.path(kind, key, "explain"), query=query)
        explanation: dict[str, Any] = answer["explanation"]
        return explanation


def _iso(instant: int | None) -> str | None:
    return None if instant is None else iso(instant)
