"""Braze's REST API.

- https://www.braze.com/docs/api/endpoints/user_data/post_user_track: `POST /users/track`, a bearer key, JSON with
  `attributes`, `events` and `purchases`, at most 75 objects; each names its user by external_id, user_alias, braze_id,
  email or phone, and an alias needs `_update_existing_only: false`. An event has a name and a time (ISO 8601).
- https://www.braze.com/docs/user_guide/message_building_by_channel/sms_mms_rcs/user_phone_numbers: a phone number is
  best E.164; this server takes no other, for Braze would guess that it is one of the US.
- https://www.braze.com/docs/api/errors: success is `{"message": "success"}`, with `errors` for objects left out; a
  fatal error is a 4xx with its message; 401 for a key that is not valid; 5xx: try again with exponential backoff.
- https://www.braze.com/docs/api/api_limits: 3,000 requests in three seconds, of everyone in the workspace together; 429
  beyond, the headers `X-RateLimit-Limit`, `-Remaining` and `-Reset` (UTC epoch seconds).

Read 2026-11-24.
"""

import re
from datetime import datetime
from typing import Any, Final

from eventlog.clock import Clock
from tests.destinations.vendors.service import Asked, Refusal, Said, Service, Window

KEY: Final = "0123abcd-braze-rest-key"
OBJECTS: Final = 75
REQUESTS: Final = 3_000
WINDOW_MS: Final = 3_000
E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")


class Braze(Service):
    """A workspace: its users' attributes, and the events it took."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.window = Window(REQUESTS, WINDOW_MS)
        self.users: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[str, str, str]] = []  # (user, name, message_id)

    def answer(self, asked: Asked) -> Said:
        """Take a request as Braze does: who asks, how often, what."""
        wait_ms = self.window.take(self.now_ms)
        if wait_ms is not None:
            headers = {
                "X-RateLimit-Limit": str(self.window.requests_max),
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(-(-(self.now_ms + wait_ms) // 1000)),
            }
            raise Refusal(Said(429, {"message": "API rate limit exceeded"}, headers))
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            raise Refusal(Said(401, {"message": "Invalid API key"}))
        match asked.method, asked.path:
            case "POST", "/users/track":
                return self._track(asked.message)
            case "GET", "/events/list":
                return Said(200, {"message": "success", "events": sorted({name for _, name, _ in self.events})})
            case _:
                raise Refusal(Said(404, {"message": "Invalid URL"}))

    def _track(self, message: Any) -> Said:
        if not isinstance(message, dict):
            raise Refusal(Said(400, {"message": "Invalid JSON"}))
        known = {"attributes", "events", "purchases"}
        if not message or message.keys() - known or not all(isinstance(part, list) for part in message.values()):
            raise Refusal(Said(400, {"message": "'attributes', 'events' or 'purchases' are required, as arrays"}))
        if sum(len(part) for part in message.values()) > OBJECTS:
            raise Refusal(Said(400, {"message": f"Cannot send more than {OBJECTS} objects"}))
        errors: list[dict[str, Any]] = []
        for name, take in (("attributes", self._attribute), ("events", self._event)):
            for index, one in enumerate(message.get(name, [])):
                problem = take(one)
                if problem:
                    errors.append({"type": problem, "input_array": name, "index": index})
        counts = {f"{name}_processed": len(part) for name, part in message.items()}
        return Said(201, {"message": "success", **counts, **({"errors": errors} if errors else {})})

    def _attribute(self, one: dict[str, Any]) -> str:
        user = _user(one)
        given = {name: value for name, value in one.items() if not name.startswith("_")}
        if user is None:
            return "'external_id', 'braze_id', 'user_alias', 'email' or 'phone' is required"
        if "@" not in given.get("email", "@"):
            return "The 'email' is not valid"
        self.users.setdefault(user, {}).update(given)
        return ""

    def _event(self, one: dict[str, Any]) -> str:
        user = _user(one)
        if user is None:
            return "'external_id', 'braze_id', 'user_alias', 'email' or 'phone' is required"
        if not isinstance(one.get("name"), str) or not one["name"]:
            return "'name' is required"
        try:
            datetime.fromisoformat(one.get("time", ""))
        except (TypeError, ValueError):
            return "'time' is required, as ISO 8601"
        self.events.append((user, one["name"], one.get("properties", {}).get("message_id", "")))
        return ""


def _user(one: dict[str, Any]) -> str | None:
    if isinstance(one.get("external_id"), str) and one["external_id"]:
        return str(one["external_id"])
    alias = one.get("user_alias")
    if isinstance(alias, dict) and alias.keys() == {"alias_name", "alias_label"}:
        return f"{alias['alias_label']}:{alias['alias_name']}" if one.get("_update_existing_only") is False else None
    if isinstance(one.get("email"), str):
        return str(one["email"])
    phone = one.get("phone")
    return phone if isinstance(phone, str) and E164.fullmatch(phone) else None
