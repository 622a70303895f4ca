"""What a browser does with the console: keeps the cookie, sends forms with their token and an Origin."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from adapters.daemon import Daemon


class Browser:
    """A browser that is signed in."""

    def __init__(self, client: httpx.AsyncClient, origin: str) -> None:
        self.client = client
        self.origin = origin
        self.form_token = ""

    async def see(self, path: str, status: int = 200) -> str:
        """Return a page that answers with a status."""
        answer = await self.client.get(path, follow_redirects=True)
        assert answer.status_code == status, (answer.status_code, answer.text)
        if match := re.search(r'name="form_token" value="([^"]+)"', answer.text):
            self.form_token = match[1]
        return answer.text

    async def send(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of the page seen last."""
        form = {"form_token": self.form_token, **fields}
        return await self.client.post(path, data=form, headers={"origin": self.origin})


@asynccontextmanager
async def signed_in(daemon: Daemon, token: str) -> AsyncIterator[Browser]:
    """Sign in with a token, and see the first page if there is one to see."""
    async with httpx.AsyncClient(base_url=daemon.url, timeout=20) as client:
        answer = await client.post("/console/sign-in", data={"token": token}, headers={"origin": daemon.url})
        assert answer.status_code == 303, answer.text
        browser = Browser(client, daemon.url)
        page = await client.get("/console", follow_redirects=True)
        if match := re.search(r'name="form_token" value="([^"]+)"', page.text):
            browser.form_token = match[1]
        yield browser
