"""Google's Data Manager API, and the token endpoint of its OAuth server.

- https://developers.google.com/identity/protocols/oauth2/web-server#offline: `POST /token`, a form with grant_type
  refresh_token, client_id, client_secret and refresh_token; answers access_token, expires_in, scope, token_type; `400`
  `invalid_grant` for a refresh token that was revoked, `401` `invalid_client` for a client that is not known.
- https://developers.google.com/data-manager/api/reference/rest/v1/audienceMembers/ingest and …/remove: destinations of
  an operatingAccount and a productDestinationId, audienceMembers of userData with userIdentifiers, `encoding` HEX; an
  ingest into a customer list needs its terms accepted, a remove knows neither terms nor consent. The answer is a
  requestId.
- https://developers.google.com/data-manager/api/limits: 300 requests a minute and 100,000 a day of a project; 10,000
  members a request, 10 identifiers a member; `429` RESOURCE_EXHAUSTED beyond.
- https://developers.google.com/data-manager/api/devguides/concepts/understand-errors: it fails fast: one member that is
  not valid has the whole request refused; `{"error": {code, message, status, details}}` with ErrorInfo, BadRequest
  (whose fieldViolations name the place) and RetryInfo as https://google.aip.dev/193 describes them.
- https://developers.google.com/data-manager/api/devguides/concepts/formatting: how an address and a phone number are
  normalised and hashed; an identifier holds exactly one of them.

Read 2026-11-24.
"""

import re
from typing import Any, Final

from eventlog.clock import Clock
from tests.destinations.vendors.service import Asked, Refusal, Said, Service, Window

CLIENT: Final = "123-abc.apps.googleusercontent.com"
SECRET: Final = "GOCSPX-0123"
REFRESH: Final = "1//0refresh"
ACCOUNT: Final = "1234567890"
MEMBERS: Final = 10_000
IDENTIFIERS: Final = 10  # a member
TOKEN_S: Final = 3_599
HASH: Final = re.compile(r"[0-9a-f]{64}")
ERRORS: Final = "type.googleapis.com/google.rpc."
INGEST: Final = {"destinations", "audienceMembers", "encoding", "consent", "termsOfService", "validateOnly"}
REMOVE: Final = {"destinations", "audienceMembers", "encoding", "validateOnly"}
FIELDS: Final = {"emailAddress": "email_address", "phoneNumber": "phone_number"}
Member = frozenset[tuple[str, str]]  # (field, hash)
LISTS: Final = f"/v1/accountTypes/GOOGLE_ADS/accounts/{ACCOUNT}/userLists"


def error(code: int, status: str, message: str, *details: dict[str, Any]) -> Refusal:
    """Return a refusal in the form of Google's APIs."""
    info = {"@type": f"{ERRORS}ErrorInfo", "reason": status, "domain": "datamanager.googleapis.com"}
    body = {"code": code, "message": message, "status": status, "details": [info, *details]}
    return Refusal(Said(code, {"error": body}))


def invalid(reason: str, *fields: str) -> Refusal:
    """Return the refusal of a request that is not valid at some places."""
    violations = [{"field": field, "description": reason, "reason": reason} for field in fields]
    detail = {"@type": f"{ERRORS}BadRequest", "fieldViolations": violations}
    return error(400, "INVALID_ARGUMENT", "There was a problem with the request.", detail)


class Google(Service):
    """An account: its lists by id, and who is in each."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.window = Window(300, 60_000)
        self.tokens: dict[str, int] = {}  # access token -> until
        self.names: dict[str, str] = {}
        self.members: dict[str, set[Member]] = {}
        self.refused_hashes: set[str] = set()
        self.refresh = REFRESH

    def answer(self, asked: Asked) -> Said:
        """Take a request as Google does."""
        if (asked.method, asked.path) == ("POST", "/token"):
            return self._token(asked.form)
        wait_ms = self.window.take(self.now_ms)
        if wait_ms is not None:
            retry = {"@type": f"{ERRORS}RetryInfo", "retryDelay": f"{wait_ms / 1000:.3f}s"}
            raise error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Requests'", retry)
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.tokens.get(token, 0) <= self.now_ms:
            raise error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        match asked.method, asked.path:
            case "POST", path if path == LISTS:
                return self._create(asked.message)
            case "POST", "/v1/audienceMembers:ingest":
                return self._change(asked.message, adds=True)
            case "POST", "/v1/audienceMembers:remove":
                return self._change(asked.message, adds=False)
            case _:
                raise Refusal(Said(404))

    def _token(self, form: dict[str, str]) -> Said:
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            raise Refusal(
                Said(401, {"error": "invalid_client", "error_description": "The OAuth client was not found."})
            )
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != self.refresh:
            text = "Token has been expired or revoked."
            raise Refusal(Said(400, {"error": "invalid_grant", "error_description": text}))
        token = f"ya29.{len(self.tokens)}"
        self.tokens[token] = self.now_ms + TOKEN_S * 1000
        scope = "https://www.googleapis.com/auth/datamanager"
        return Said(200, {"access_token": token, "expires_in": TOKEN_S, "scope": scope, "token_type": "Bearer"})

    def _create(self, message: Any) -> Said:
        if not isinstance(message, dict) or not message.get("displayName"):
            raise invalid("REQUIRED_FIELD_MISSING", "user_list.display_name")
        if re.fullmatch(r"\d+s", message.get("membershipDuration", "")) is None:
            raise invalid("INVALID_FORMAT", "user_list.membership_duration")
        if message.get("ingestedUserListInfo", {}).get("uploadKeyTypes") != ["CONTACT_ID"]:
            raise invalid("INVALID_USER_LIST_TYPE", "user_list.ingested_user_list_info")
        made = str(9_000_000 + len(self.names))
        self.names[made], self.members[made] = message["displayName"], set()
        return Said(
            200, {"name": f"accountTypes/GOOGLE_ADS/accounts/{ACCOUNT}/userLists/{made}", "id": made, **message}
        )

    def _change(self, message: Any, *, adds: bool) -> Said:
        if not isinstance(message, dict) or not message.keys() <= (INGEST if adds else REMOVE):
            raise invalid("INVALID_ARGUMENT", "request")
        given = message.get("destinations")
        if not isinstance(given, list) or len(given) != 1:
            raise invalid("REQUIRED_FIELD_MISSING", "destinations")
        destination: dict[str, Any] = given[0]
        if destination.get("operatingAccount") != {"accountType": "GOOGLE_ADS", "accountId": ACCOUNT}:
            raise invalid("INVALID_DESTINATION", "destinations[0].operating_account")
        made, members = destination.get("productDestinationId"), message.get("audienceMembers")
        if made not in self.members:
            raise error(404, "NOT_FOUND", "Resource not found.")
        if not isinstance(members, list) or not members:
            raise invalid("REQUIRED_FIELD_MISSING", "audience_members")
        if len(members) > MEMBERS:
            raise invalid("TOO_MANY_AUDIENCE_MEMBERS", "audience_members")
        if message.get("encoding") != "HEX":
            raise invalid("REQUIRED_FIELD_MISSING", "encoding")
        accepted = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
        if adds and message.get("termsOfService") != accepted:
            raise invalid("TERMS_AND_CONDITIONS_NOT_SIGNED", "terms_of_service")
        bad = [f"audience_members[{at}].{place}" for at, one in enumerate(members) for place in self._wrong(one)]
        if bad:
            raise invalid("INVALID_SHA256_FORMAT", *bad)
        known = {frozenset(one for given in _identifiers(member) for one in given.items()) for member in members}
        self.members[made] = self.members[made] | known if adds else self.members[made] - known
        return Said(200, {"requestId": f"126365e1-16d0-4c81-9de9-{len(self.seen)}"})

    def _wrong(self, member: dict[str, Any]) -> list[str]:
        """Return the places in a member that are not valid."""
        given = _identifiers(member)
        if not 1 <= len(given) <= IDENTIFIERS:
            return ["user_data.user_identifiers"]
        places = [f"user_data.user_identifiers[{at}]" for at in range(len(given))]
        return [
            f"{place}.{FIELDS.get(next(iter(one), ''), 'identifier')}"
            for place, one in zip(places, given, strict=True)
            if not self._is_valid(one)
        ]

    def _is_valid(self, identifier: dict[str, Any]) -> bool:
        if len(identifier) != 1 or not identifier.keys() <= FIELDS.keys():
            return False
        (value,) = identifier.values()
        return isinstance(value, str) and HASH.fullmatch(value) is not None and value not in self.refused_hashes


def _identifiers(member: dict[str, Any]) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = member.get("userData", {}).get("userIdentifiers", [])
    return given
