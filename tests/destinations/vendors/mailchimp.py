"""Mailchimp's Marketing API, version 3.0.

- https://mailchimp.com/developer/marketing/api/list-members/add-or-update-list-member/: `PUT
  /3.0/lists/{list}/members/{hash}`, the hash being the MD5 of the lower-cased address; `email_address` and
  `status_if_new` are required; `merge_fields` by their tags. Of an address that was deleted for good nothing is taken
  (`400`, "Forgotten Email Not Subscribed").
- https://mailchimp.com/developer/marketing/api/list-member-tags/add-or-remove-member-tags/: `POST …/{hash}/tags` with
  names and statuses, answered by `204`; `404` where there is no such member.
- https://mailchimp.com/developer/marketing/docs/errors/: errors are `application/problem+json` with type, title,
  status, detail and instance; 401 "API Key Invalid", 404 "Resource Not Found", 429 "TooManyRequests".
- https://mailchimp.com/developer/marketing/docs/fundamentals/#throttling: ten connections at once of one user; 429
  beyond. Basic auth with any user name and the API key.

Read 2026-11-24.
"""

import base64
import hashlib
import re
from typing import Any, Final

from eventlog.clock import Clock
from tests.destinations.vendors.service import Asked, Refusal, Said, Service

KEY: Final = "0123456789abcdef0123456789abcdef-us21"
LIST: Final = "abc123def4"
CONNECTIONS: Final = 10
STATUSES: Final = ("subscribed", "unsubscribed", "cleaned", "pending", "transactional")
MEMBER: Final = re.compile(rf"/3\.0/lists/{LIST}/members/([0-9a-f]{{32}})(/tags)?")


def problem(status: int, title: str, detail: str, **more: Any) -> Refusal:
    """Return a refusal in Mailchimp's form."""
    body = {"type": "https://mailchimp.com/developer/marketing/docs/errors/", "title": title, "status": status}
    headers = {"Content-Type": "application/problem+json; charset=utf-8"}
    return Refusal(Said(status, {**body, "detail": detail, "instance": "995c5cb0-3280-4a6e-808b", **more}, headers))


class Mailchimp(Service):
    """A list: its members by address, and the tags each has."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.members: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, set[str]] = {}
        self.merge_fields = {"FNAME", "LTV"}
        self.forgotten: set[str] = set()
        self.connections_max = CONNECTIONS

    def answer(self, asked: Asked) -> Said:
        """Take a request as Mailchimp does."""
        if self.busy > self.connections_max:
            detail = "You have exceeded the limit of 10 simultaneous connections."
            raise problem(429, "TooManyRequests", detail)
        scheme, _, given = asked.headers.get("authorization", "").partition(" ")
        if scheme != "Basic" or base64.b64decode(given).decode().partition(":")[2] != KEY:
            raise problem(
                401,
                "API Key Invalid",
                "Your API key may be invalid, or you've attempted to access the wrong datacenter.",
            )
        if (asked.method, asked.path) == ("GET", f"/3.0/lists/{LIST}"):
            return Said(200, {"name": "Customers"})
        found = MEMBER.fullmatch(asked.path)
        match asked.method, found:
            case "PUT", re.Match() if not found[2]:
                return self._put(found[1], asked.message)
            case "POST", re.Match() if found[2]:
                return self._tag(found[1], asked.message)
            case _:
                raise problem(404, "Resource Not Found", "The requested resource could not be found.")

    def _put(self, digest: str, message: Any) -> Said:
        email = message.get("email_address") if isinstance(message, dict) else None
        if not isinstance(email, str) or re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", email) is None:
            raise problem(400, "Invalid Resource", "Please provide a valid email address.")
        if hashlib.md5(email.lower().encode(), usedforsecurity=False).hexdigest() != digest:
            raise problem(400, "Invalid Resource", "The address is not that of the member.")
        if email.lower() in self.forgotten:
            raise problem(
                400, "Forgotten Email Not Subscribed", f"{email} was permanently deleted and cannot be re-imported."
            )
        if digest not in self.members and message.get("status_if_new") not in STATUSES:
            raise problem(400, "Invalid Resource", "status_if_new is required.")
        merged = message.get("merge_fields", {})
        if not merged.keys() <= self.merge_fields:
            unknown = [{"field": name, "message": "Merge field does not exist"} for name in merged]
            raise problem(400, "Invalid Resource", "Your merge fields were invalid.", errors=unknown)
        known = self.members.setdefault(digest, {"status": message["status_if_new"], "merge_fields": {}})
        known["email_address"] = email
        known["merge_fields"].update(merged)
        self.tags.setdefault(email.lower(), set())
        return Said(200, {"id": digest, **known})

    def _tag(self, digest: str, message: Any) -> Said:
        if digest not in self.members:
            raise problem(404, "Resource Not Found", "The requested resource could not be found.")
        tags = self.tags[self.members[digest]["email_address"].lower()]
        for one in message["tags"]:
            if one.get("status") not in {"active", "inactive"} or not one.get("name"):
                raise problem(400, "Invalid Resource", "a tag has a name and a status, active or inactive")
            (tags.add if one["status"] == "active" else tags.discard)(one["name"])
        return Said(204)
