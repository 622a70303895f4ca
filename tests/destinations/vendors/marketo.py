"""Marketo's REST API.

- https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/authentication: `GET /identity/oauth/token`
  with grant_type client_credentials; a token lives 3,600 seconds, asked for again it is the same one with what is left
  of it; it goes in a header. https://developer.adobe.com/marketo-apis/api/identity: these calls do not count.
- https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/marketo-integration-best-practices: 100
  calls in 20 seconds, ten at once, 300 records and 1 MB a request.
- https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/error-codes: `200` with success false and
  errors of code and message: 601 a token that is none, 602 one that expired, 606 too many calls, 607 the day's quota,
  610 not found, 709 a rule of the business (a name that is taken), 1006 and others of single records, by status skipped
  with reasons.
- https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/assets/static-lists: `POST
  /rest/asset/v1/staticLists.json`, a form with name and folder; `GET /rest/asset/v1/staticList/byName.json?name=`.
- https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/rest/lead-database/leads and …/list-membership:
  `POST /rest/v1/leads.json` with action, lookupField and input; `POST` and `DELETE /rest/v1/lists/{id}/leads.json`; a
  status for each record: created, updated, added, removed, or skipped with reasons.

Read 2026-11-24.
"""

import re
from typing import Any, Final

from msgspec import DecodeError, json

from eventlog.clock import Clock
from tests.destinations.vendors.service import Asked, Refusal, Said, Service, Window

CLIENT: Final = "a1b2-client"
SECRET: Final = "s3cr3t-of-marketo"
FOLDER: Final = 13
TOKEN_S: Final = 3_600
CALLS: Final = 100
WINDOW_MS: Final = 20_000
RECORDS: Final = 300
BODY_BYTES: Final = 1_000_000
MEMBERS: Final = re.compile(r"/rest/v1/lists/(\d+)/leads\.json")


def failed(code: str, message: str) -> Refusal:
    """Return a refusal in Marketo's form."""
    return Refusal(
        Said(200, {"requestId": "185d6#14b5", "success": False, "errors": [{"code": code, "message": message}]})
    )


def done(result: list[dict[str, Any]]) -> Said:
    """Return what succeeded in Marketo's form."""
    return Said(200, {"requestId": "e42b#14272d07d78", "success": True, "errors": [], "result": result})


class Marketo(Service):
    """An instance: its people by email, its lists by id, and who is in each."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.window = Window(CALLS, WINDOW_MS)
        self.quota = 50_000
        self.token = ""
        self.token_until_ms = 0
        self.people: dict[str, int] = {}
        self.lists: dict[int, str] = {}
        self.members: dict[int, set[str]] = {}
        self.merging: set[str] = set()  # emails of people who cannot be added to lists just now

    def answer(self, asked: Asked) -> Said:
        """Take a request as Marketo does."""
        if asked.path == "/identity/oauth/token":
            return self._token(asked.query)
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            raise failed("600", "Empty access token")
        if token != self.token:
            raise failed("601", "Access token invalid")
        if self.now_ms >= self.token_until_ms:
            raise failed("602", "Access token expired")
        if self.window.take(self.now_ms) is not None:
            raise failed("606", f"Max rate limit '{self.window.requests_max}' exceeded with in '20' secs")
        self.quota -= 1
        if self.quota < 0:
            raise failed("607", "Daily API request limit of 50000 reached")
        if len(asked.body) > BODY_BYTES:
            raise Refusal(Said(413))
        found = MEMBERS.fullmatch(asked.path)
        match asked.method, asked.path:
            case "POST", "/rest/asset/v1/staticLists.json":
                return self._list(asked.form)
            case "GET", "/rest/asset/v1/staticList/byName.json":
                return done([self._shown(one) for one, name in self.lists.items() if name == asked.query.get("name")])
            case "POST", "/rest/v1/leads.json":
                return self._leads(asked.message)
            case (("POST" | "DELETE"), _) if found:
                return self._change(asked.method, int(found[1]), asked.message)
            case _:
                raise failed("610", "Requested resource not found")

    def _token(self, query: dict[str, str]) -> Said:
        if (query.get("client_id"), query.get("client_secret")) != (CLIENT, SECRET):
            text = "Bad client credentials"
            raise Refusal(Said(401, {"error": "invalid_client", "error_description": text}))
        if query.get("grant_type") != "client_credentials":
            raise Refusal(Said(400, {"error": "unsupported_grant_type"}))
        if self.now_ms >= self.token_until_ms:
            self.token, self.token_until_ms = f"cdf01657-{self.now_ms}:int", self.now_ms + TOKEN_S * 1000
        left_s = (self.token_until_ms - self.now_ms) // 1000
        told = {"token_type": "bearer", "expires_in": left_s, "scope": "apis@acmeinc.com"}
        return Said(200, {"access_token": self.token, **told})

    def _list(self, form: dict[str, str]) -> Said:
        try:
            folder = json.decode(form.get("folder", ""))
        except DecodeError:
            folder = None
        if not form.get("name") or folder != {"id": FOLDER, "type": "Folder"}:
            raise failed("702", "Folder not found" if form.get("name") else "name cannot be blank")
        if form["name"] in self.lists.values():
            raise failed("709", "Static list with the same name already exists")
        made = 1_021 + len(self.lists)
        self.lists[made], self.members[made] = form["name"], set()
        return done([self._shown(made)])

    def _shown(self, made: int) -> dict[str, Any]:
        return {"id": made, "name": self.lists[made], "folder": {"id": FOLDER, "type": "Folder"}}

    def _records(self, message: Any) -> list[dict[str, Any]]:
        given = message.get("input") if isinstance(message, dict) else None
        if not isinstance(given, list) or not given:
            raise failed("1003", "'input' is required")
        if len(given) > RECORDS:
            raise failed("1080", f"Too many records: at most {RECORDS}")
        return given

    def _leads(self, message: Any) -> Said:
        given = self._records(message)
        if message.get("action") != "createOrUpdate" or message.get("lookupField") != "email":
            raise failed("1001", "Invalid value for action or lookupField")
        result: list[dict[str, Any]] = []
        for one in given:
            email = one.get("email")
            if not isinstance(email, str) or re.fullmatch(r"[^@\s]+@[^@\s]+", email) is None:
                why = {"code": "1003", "message": f"Invalid email address '{email}'"}
                result.append({"status": "skipped", "reasons": [why]})
                continue
            how = "updated" if email.lower() in self.people else "created"
            result.append({"id": self.people.setdefault(email.lower(), len(self.people) + 1), "status": how})
        return done(result)

    def _change(self, method: str, made: int, message: Any) -> Said:
        if made not in self.members:
            raise failed("1013", "Object not found")
        known = {number: email for email, number in self.people.items()}
        result: list[dict[str, Any]] = []
        for one in self._records(message):
            email = known.get(one.get("id", 0))
            if email is None or email in self.merging:
                why = {"code": "1004", "message": "Lead not found"}
                result.append({"id": one.get("id"), "status": "skipped", "reasons": [why]})
            elif method == "POST":
                self.members[made].add(email)
                result.append({"id": one["id"], "status": "added"})
            else:
                self.members[made].discard(email)
                result.append({"id": one["id"], "status": "removed"})
        return done(result)
