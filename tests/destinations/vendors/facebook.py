"""Meta's Marketing API: custom audiences.

- https://developers.facebook.com/documentation/ads-commerce/marketing-api/audiences/guides/custom-audiences: `POST
  /v25.0/act_{account}/customaudiences` with name, subtype CUSTOM and customer_file_source answers `{"id": …}`.
- https://developers.facebook.com/docs/marketing-api/reference/custom-audience/users: `POST` and `DELETE
  /v25.0/{audience}/users` with `payload`: `schema`, an array of keys, and `data`, as many values a row; at most 10,000
  rows; EMAIL is the SHA-256 of the trimmed, lower-cased address in hexadecimal, PHONE that of the digits without
  leading zeros and with the country code; neither is taken unhashed. EXTERN_ID and MADID are not hashed, what is
  unknown is left blank, and nobody is found by an EXTERN_ID alone. The answer counts num_received and
  num_invalid_entries.
- https://developers.facebook.com/docs/graph-api/overview/rate-limiting: of custom audiences 5,000 calls in an hour for
  an app with standard access; error 80003 beyond, with the header `X-Business-Use-Case-Usage`, whose
  estimated_time_to_regain_access is in minutes.
- https://developers.facebook.com/docs/graph-api/guides/error-handling: errors are `{"error": {message, type, code,
  error_subcode, fbtrace_id}}`; 190 an access token that is no good, 100 a parameter, 100/33 an object that is not
  there.

Read 2026-11-24.
"""

import re
from typing import Any, Final

from msgspec import json

from eventlog.clock import Clock
from tests.destinations.vendors.service import Asked, Refusal, Said, Service, Window

TOKEN: Final = "EAAB-system-user"
ACCOUNT: Final = "17"
ROWS: Final = 10_000
KEYS: Final = {"EMAIL", "PHONE", "EXTERN_ID", "MADID", "FN", "LN", "ZIP", "COUNTRY"}
HASH: Final = re.compile(r"[0-9a-f]{64}")
HASHED: Final = ("EMAIL", "PHONE")
FINDS: Final = (*HASHED, "MADID")
SOURCES: Final = ("USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED")
USERS: Final = re.compile(r"/v25\.0/(\d+)/users")


def error(code: int, message: str, subcode: int | None = None, **headers: str) -> Refusal:
    """Return a refusal in the Graph API's form."""
    body: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A8TIxWu"}
    if subcode is not None:
        body["error_subcode"] = subcode
    return Refusal(Said(400, {"error": body}, {name.replace("_", "-"): value for name, value in headers.items()}))


class Facebook(Service):
    """An ad account: its audiences by id, and the rows in each."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.window = Window(5_000, 3_600_000)
        self.token = TOKEN
        self.names: dict[str, str] = {}
        self.rows: dict[str, set[tuple[str, ...]]] = {}

    def answer(self, asked: Asked) -> Said:
        """Take a request as Meta does."""
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            raise error(190, "Error validating access token: Session has expired", 463)
        wait_ms = self.window.take(self.now_ms)
        if wait_ms is not None:
            usage = {"type": "custom_audience", "call_count": 100, "total_cputime": 20, "total_time": 20}
            told = {**usage, "estimated_time_to_regain_access": -(-wait_ms // 60_000)}
            header = json.encode({ACCOUNT: [told]}).decode()
            raise error(80_003, "There have been too many calls to this ad-account.", x_business_use_case_usage=header)
        found = USERS.fullmatch(asked.path)
        match asked.method, asked.path:
            case "POST", "/v25.0/act_17/customaudiences":
                return self._create(asked.message)
            case "GET", "/v25.0/act_17":
                return Said(200, {"name": "Shop", "id": "act_17"})
            case (("POST" | "DELETE"), _) if found:
                return self._users(asked.method, found[1], asked.message)
            case _:
                raise error(2500, "Unknown path components")

    def _create(self, message: Any) -> Said:
        if not isinstance(message, dict) or not message.get("name"):
            raise error(100, "(#100) The parameter name is required")
        if message.get("subtype") != "CUSTOM" or message.get("customer_file_source") not in SOURCES:
            raise error(100, "(#100) customer_file_source is required for subtype CUSTOM", 1870247)
        made = str(23_840_000_000 + len(self.names))
        self.names[made], self.rows[made] = message["name"], set()
        return Said(200, {"id": made})

    def _users(self, method: str, audience: str, message: Any) -> Said:
        if audience not in self.rows:
            what = f"Object with ID '{audience}' does not exist"
            raise error(100, f"Unsupported {method.lower()} request. {what}, or cannot be loaded", 33)
        payload = message.get("payload") if isinstance(message, dict) else None
        if not isinstance(payload, dict) or not isinstance(payload.get("data"), list) or not payload["data"]:
            raise error(100, "(#100) The parameter payload is required")
        schema, rows = payload.get("schema"), payload["data"]
        if not isinstance(schema, list) or not set(schema) <= KEYS:
            raise error(100, "(#100) Invalid schema")
        if len(rows) > ROWS:
            raise error(100, f"(#100) At most {ROWS} users can be sent in a request")
        good = {tuple(row) for row in rows if _is_valid(schema, row)}
        if method == "POST":
            self.rows[audience] |= good
        else:
            self.rows[audience] -= good
        bad = [row for row in rows if not _is_valid(schema, row)]
        counts = {"num_received": len(rows), "num_invalid_entries": len(bad), "invalid_entry_samples": {}}
        return Said(200, {"audience_id": audience, "session_id": "1", **counts})


def _is_valid(schema: list[str], row: list[str]) -> bool:
    if len(row) != len(schema) or not all(isinstance(value, str) for value in row):
        return False
    given = dict(zip(schema, row, strict=True))
    hashes = [given[key] for key in HASHED if given.get(key)]
    return all(HASH.fullmatch(one) for one in hashes) and any(given.get(key) for key in FINDS)
