"""Customer.io's Track API, version 2.

- https://docs.customer.io/integrations/api/track/: `POST /api/v2/batch` with `{"batch": [...]}`, Basic auth by site id
  and API key; less than 500 KB a request and 32 KB an item; each item has a type, an action and identifiers: of a
  person one of id, email, cio_id. `200` takes all, `207` lists what was refused as `{"batch_index", "reason", "field",
  "message"}`. 3,000 requests in three seconds; 429 beyond.
- https://docs.customer.io/journeys/invalid-api-requests: a `400` says `{"meta": {"error": …}}`; an event's name has at
  most 100 bytes, an attribute's value at most 1,000.
- https://docs.customer.io/journeys/events/#deduplicating-events: an event's id is a ULID; one that is known is not
  taken again.

Read 2026-11-24.
"""

import base64
import re
from typing import Any, Final

from msgspec import json

from eventlog.clock import Clock
from tests.destinations.vendors.service import Asked, Refusal, Said, Service, Window

SITE: Final = "9d1a31d2f1ebd6ea9ffe"
KEY: Final = "7d97de2e5ecf33b9d5d6"
BATCH_BYTES: Final = 500_000
ITEM_BYTES: Final = 32_768
NAME_BYTES: Final = 100
VALUE_BYTES: Final = 1_000
ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class Customerio(Service):
    """A workspace: its people's attributes, and the events it took."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.window = Window(3_000, 3_000)
        self.people: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[str, str]] = []  # (person, name)
        self._known: set[str] = set()

    def answer(self, asked: Asked) -> Said:
        """Take a request as Customer.io does."""
        if self.window.take(self.now_ms) is not None:
            raise Refusal(Said(429, {"meta": {"error": "too many requests"}}))
        given = base64.b64encode(f"{SITE}:{KEY}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {given}":
            raise Refusal(Said(401, {"meta": {"error": "Unauthorized request"}}))
        match asked.method, asked.path:
            case "POST", "/api/v2/batch":
                return self._batch(asked)
            case "GET", "/api/v1/accounts/region":
                return Said(200, {"url": "track.customer.io", "data_center": "us", "environment_id": 1})
            case _:
                raise Refusal(Said(404, {"meta": {"error": "not found"}}))

    def _batch(self, asked: Asked) -> Said:
        if len(asked.body) >= BATCH_BYTES:
            raise Refusal(Said(413, {"meta": {"error": "request is too large"}}))
        message = asked.message
        if not isinstance(message, dict) or not isinstance(message.get("batch"), list) or not message["batch"]:
            raise Refusal(Said(400, {"meta": {"error": "batch must be an array of at least one operation"}}))
        errors: list[dict[str, Any]] = []
        for index, one in enumerate(message["batch"]):
            problem = self._item(one)
            if problem is not None:
                reason, field, text = problem
                errors.append({"batch_index": index, "reason": reason, "field": field, "message": text})
        return Said(207, {"errors": errors}) if errors else Said(200, {})

    def _item(self, one: dict[str, Any]) -> tuple[str, str, str] | None:
        """Take an operation; return what is wrong with it."""
        if len(json.encode(one)) > ITEM_BYTES:
            return "invalid", "", "the operation is too large"
        if one.get("type") != "person":
            return "invalid", "type", "unknown type"
        identifiers = one.get("identifiers")
        known = {"id", "email", "cio_id"} | ({"anonymous_id"} if one.get("action") == "event" else set())
        if not isinstance(identifiers, dict) or len(identifiers) != 1 or not identifiers.keys() <= known:
            return "required", "identifiers", "exactly one identifier is required"
        (person,) = identifiers.values()
        if not isinstance(person, str) or not person:
            return "invalid", "identifiers", "must be a string value"
        attributes = one.get("attributes", {})
        for name, value in attributes.items():
            if len(str(value).encode()) > VALUE_BYTES:
                return "invalid", f"attributes.{name}", "value cannot be longer than 1000 bytes"
        match one.get("action"):
            case "identify":
                self.people.setdefault(person, {}).update(attributes)
            case "event":
                return self._event(person, one)
            case _:
                return "invalid", "action", "unknown action"
        return None

    def _event(self, person: str, one: dict[str, Any]) -> tuple[str, str, str] | None:
        name, at_s = one.get("name"), one.get("timestamp")
        if not isinstance(name, str) or not name or len(name.encode()) > NAME_BYTES:
            return "invalid", "name", "must have 1 to 100 bytes"
        if not isinstance(at_s, int) or not 0 < at_s < 10_000_000_000:
            return "invalid", "timestamp", "must be a Unix timestamp in seconds"
        if "id" in one:
            if ULID.fullmatch(one["id"]) is None:
                return "invalid", "id", "must be a ULID"
            if one["id"] in self._known:
                return None
            self._known.add(one["id"])
        self.events.append((person, name))
        return None
