"""HubSpot's CRM API.

- https://developers.hubspot.com/docs/api-reference/2026-03/crm/objects/contacts/batch/upsert-contacts: `POST
  /crm/objects/2026-03/contacts/batch/upsert`, at most 100 inputs of id, idProperty and properties (text), each id once;
  `200` takes all, `207` lists those not taken under `errors`, with category, message and context; a property that is
  not there or an email that is none has the whole batch refused with `400` and category VALIDATION_ERROR.
- https://developers.hubspot.com/docs/api-reference/crm-properties-v3: `POST /crm/v3/properties/contacts` with name,
  label, type, fieldType and groupName; `409` where there is one. A boolean is an enumeration with the options true and
  false.
- https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines: a private app of a free account may
  ask 100 times in ten seconds; `429` beyond, with policyName TEN_SECONDLY_ROLLING; the headers `X-HubSpot-RateLimit-…`.

Read 2026-11-24.
"""

from typing import Any, Final

from eventlog.clock import Clock
from tests.destinations.vendors.service import Asked, Refusal, Said, Service, Window

TOKEN: Final = "pat-na1-0123"
INPUTS: Final = 100
REQUESTS: Final = 100
WINDOW_MS: Final = 10_000
BUILT_IN: Final = ("email", "firstname", "lastname")


def error(status: int, category: str, message: str, **more: Any) -> Refusal:
    """Return a refusal in HubSpot's form."""
    body = {"status": "error", "message": message, "correlationId": "aeb5f871-7f07-4993-9211-075dc63e7cbf"}
    return Refusal(Said(status, {**body, "category": category, **more}))


class Hubspot(Service):
    """An account: its contacts by email, and the properties they have."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.window = Window(REQUESTS, WINDOW_MS)
        self.properties: dict[str, dict[str, Any]] = {name: {"type": "string"} for name in BUILT_IN}
        self.contacts: dict[str, dict[str, str]] = {}
        self.archived: set[str] = set()  # emails of contacts that cannot be written

    def answer(self, asked: Asked) -> Said:
        """Take a request as HubSpot does."""
        if self.window.take(self.now_ms) is not None:
            policy = {"policyName": "TEN_SECONDLY_ROLLING", "errorType": "RATE_LIMIT"}
            refused = error(429, "RATE_LIMITS", "You have reached your ten_secondly_rolling limit.", **policy).said
            headers = {"X-HubSpot-RateLimit-Max": str(self.window.requests_max), "X-HubSpot-RateLimit-Remaining": "0"}
            raise Refusal(Said(429, refused.body, headers))
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            raise error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
        match asked.method, asked.path:
            case "POST", "/crm/v3/properties/contacts":
                return self._property(asked.message)
            case "POST", "/crm/objects/2026-03/contacts/batch/upsert":
                return self._upsert(asked.message)
            case "GET", "/account-info/v3/details":
                return Said(200, {"portalId": 62515, "timeZone": "UTC"})
            case _:
                raise error(404, "OBJECT_NOT_FOUND", "Not found")

    def _property(self, message: Any) -> Said:
        for field in ("name", "label", "type", "fieldType", "groupName"):
            if not isinstance(message, dict) or not isinstance(message.get(field), str):
                raise error(400, "VALIDATION_ERROR", f"{field} is required")
        if message["name"] in self.properties:
            raise error(409, "OBJECT_ALREADY_EXISTS", f"Property named {message['name']} already exists.")
        fields = {"enumeration": {"booleancheckbox", "select"}, "number": {"number"}, "string": {"text", "textarea"}}
        if message["fieldType"] not in fields.get(message["type"], ()):
            raise error(400, "VALIDATION_ERROR", f"fieldType {message['fieldType']} is not valid for {message['type']}")
        values = {option.get("value") for option in message.get("options", [])}
        if message["fieldType"] == "booleancheckbox" and values != {"true", "false"}:
            raise error(400, "VALIDATION_ERROR", "a boolean property has exactly the options true and false")
        self.properties[message["name"]] = {**message, "values": values}
        return Said(201, message)

    def _upsert(self, message: Any) -> Said:
        inputs = message.get("inputs") if isinstance(message, dict) else None
        if not isinstance(inputs, list) or not 0 < len(inputs) <= INPUTS:
            raise error(
                400, "VALIDATION_ERROR", f"The maximum number of inputs supported in a batch request is {INPUTS}."
            )
        for one in inputs:
            self._check(one)
        if len({one["id"].lower() for one in inputs}) < len(inputs):
            raise error(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input.")
        errors, results = [], []
        for one in inputs:
            if one["id"].lower() in self.archived:
                why = {"status": "error", "category": "CONFLICT", "message": "The contact cannot be written."}
                errors.append({**why, "context": {"id": [one["id"].lower()]}})
                continue
            self.contacts.setdefault(one["id"].lower(), {}).update(one["properties"])
            results.append({"id": str(len(self.contacts)), "properties": one["properties"], "new": True})
        body = {"status": "COMPLETE", "results": results}
        if errors:
            return Said(207, {**body, "numErrors": len(errors), "errors": errors})
        return Said(200, body)

    def _check(self, one: dict[str, Any]) -> None:
        if one.get("idProperty") != "email" or not isinstance(one.get("id"), str):
            raise error(400, "VALIDATION_ERROR", "idProperty must be a unique property, id its value")
        if "@" not in one["id"]:
            raise error(400, "VALIDATION_ERROR", f"Email address {one['id']} is invalid")
        for name, value in one.get("properties", {}).items():
            known = self.properties.get(name)
            if known is None:
                raise error(
                    400, "VALIDATION_ERROR", f'Property values were not valid: Property "{name}" does not exist'
                )
            if not isinstance(value, str):
                raise error(400, "VALIDATION_ERROR", f"{name} must be a string")
            if value and known["type"] == "enumeration" and value not in known["values"]:
                raise error(400, "VALIDATION_ERROR", f"{value} was not one of the allowed options")
