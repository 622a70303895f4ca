"""What the log holds: customer events, and facts about everything else.

One totally ordered log per space. A *commit* is what was written at once: first its events, then its facts; entry i has
sequence first_seq + i. An event is a tracking call as it came, with what was decided at the door: its time, and the
profile and account it was resolved to *then* (a later merge is a fact of its own, events are never rewritten but for
erasure). A fact is a frozen Struct named in the past tense. Facts that an event caused carry `cause_seq`, its sequence.
Effects (`Entered`, `Exited`, `TraitComputed`) are facts too: dated `at_ms`, when they became true; the commit's own
`at_ms` says when that was recorded.

Users and accounts are *entities*: integers from 1, one numbering for both in a space. Times are milliseconds since the
epoch, UTC. New fields have defaults and go last: old bytes decode for ever.
"""

from typing import Any, Final
from typing import Literal as OneOf

from msgspec import Struct

TRACK: Final = 1
PAGE: Final = 2
SCREEN: Final = 3
IDENTIFY: Final = 4
GROUP: Final = 5
ALIAS: Final = 6
KINDS: Final = {"track": TRACK, "page": PAGE, "screen": SCREEN, "identify": IDENTIFY, "group": GROUP, "alias": ALIAS}
ERASED: Final = 0  # an erased event keeps its place and its received_ms, and nothing else
KIND_NAMES: Final = {number: name for name, number in KINDS.items()}


class Event(Struct, frozen=True, gc=False):
    """A tracking call, as accepted."""

    seq: int
    event_ms: int  # when it happened: corrected for skew, never after received_ms
    received_ms: int
    profile: int  # the user it was resolved to, 0 for none
    account: int  # the account of a group call, 0 for none
    kind: int  # TRACK, PAGE, …, or ERASED
    name: str  # track: the event; page and screen: the call's name or ""; else ""
    source: str  # the id of the source it came by
    message_id: str
    body: bytes  # the call as JSON, as it came


class Fact(Struct, frozen=True, tag_field="fact", omit_defaults=True):
    """The base of all facts."""


class Ticked(Fact, frozen=True, tag="ticked"):
    """Time reached `at_ms` with no event: every timer due by then has fired."""

    at_ms: int


# -- who is who ------------------------------------------------------------------------------------------------------


class IdAdded(Fact, frozen=True, tag="id_added"):
    """An external id was given to an entity (made with its first id)."""

    entity: int
    collection: OneOf["users", "accounts"]
    id_type: str
    value: str
    event_ms: int
    cause_seq: int
    source: str = ""
    encoding: str = "none"


class IdSeenEarlier(Fact, frozen=True, tag="id_seen_earlier"):
    """A late event carried an id that an entity has: it is now known to have had it from `event_ms` on."""

    entity: int
    collection: OneOf["users", "accounts"]
    id_type: str
    value: str
    event_ms: int
    cause_seq: int


class Merged(Fact, frozen=True, tag="merged"):
    """Profiles became one: `absorbed` and all their ids lead to `survivor` from now on."""

    survivor: int
    absorbed: tuple[int, ...]
    cause_seq: int


class IdRefused(Fact, frozen=True, tag="id_refused"):
    """An external id of an event was not used to identify; `code` is one of the contract's names."""

    entity: int  # the profile the event went to, 0 for none
    id_type: str
    value: str
    code: str
    cause_seq: int


class IdentityRulesChanged(Fact, frozen=True, tag="identity_rules_changed"):
    """The space's identity rules are these from now on (their JSON form)."""

    rules: dict[str, Any]
    actor: str = ""


class Rejected(Fact, frozen=True, tag="rejected"):
    """An event was refused at the door; kept for the list of rejected events."""

    index: int
    message_id: str
    code: str
    message: str
    source: str
    body: bytes = b""  # as it came, at most 32 KB


class Erased(Fact, frozen=True, tag="erased"):
    """A profile and its events were erased; nothing of it is kept but its number."""

    entity: int
    regulation: str = ""


class AccountsErased(Fact, frozen=True, tag="accounts_erased"):
    """Accounts that erased profiles had belonged to: what the log says of them until here rests on more than it holds.

    Traits that the profiles had written and that held their ids are gone with them.
    """

    accounts: tuple[int, ...]
    traits: tuple[tuple[int, str, int], ...] = ()  # account, key, the sequence of the group call
    regulation: str = ""


class EventsForgotten(Fact, frozen=True, tag="events_forgotten"):
    """What profiles did before this time is no longer kept (setting `eventRetentionDays`)."""

    before_ms: int


class Suppressed(Fact, frozen=True, tag="suppressed"):
    """Events with this user id are refused from now on. Only a keyed hash of the id is kept."""

    id_hash: str
    regulation: str = ""


class Unsuppressed(Fact, frozen=True, tag="unsuppressed"):
    """Events with this user id are taken again."""

    id_hash: str
    regulation: str = ""


class RegulationSaved(Fact, frozen=True, tag="regulation_saved"):
    """A regulation was taken or went on: its state in full (without the subjects' ids)."""

    regulation: dict[str, Any]


# -- definitions -----------------------------------------------------------------------------------------------------


class Options(Struct, frozen=True, omit_defaults=True):
    """What an audience or computed trait looks at."""

    include_historical_data: bool = True
    filter_by_external_ids: tuple[str, ...] | None = None  # audiences; None: the default four
    backfill_event_data_days: int | None = None
    include_anonymous_users: bool = True  # computed traits


class Definition(Struct, frozen=True, omit_defaults=True):
    """An audience or computed trait, as it is from some entry of the log on."""

    number: int  # from 1, never reused in a space
    id: str  # public: "aud_…" or "tra_…"
    kind: OneOf["audience", "trait"]
    key: str
    name: str
    entity_type: OneOf["USERS", "ACCOUNTS"]
    query: str
    version: int = 1  # raised by every edit of query or options
    description: str | None = None
    options: Options = Options()
    enabled: bool = True
    created_ms: int = 0
    updated_ms: int = 0
    created_by: str = ""
    updated_by: str = ""
    created_seq: int = 0  # only events after it count when historical data is off


class DefinitionSaved(Fact, frozen=True, tag="definition_saved"):
    """A definition was created or changed. A raised version starts a backfill; `DefinitionSwitched` ends it."""

    definition: Definition


class DefinitionSwitched(Fact, frozen=True, tag="definition_switched"):
    """The version's state is complete: from here on it decides membership. Its differences follow as effects."""

    number: int
    version: int


class DefinitionFailed(Fact, frozen=True, tag="definition_failed"):
    """The version's backfill failed for good."""

    number: int
    version: int
    reason: str


class DefinitionDeleted(Fact, frozen=True, tag="definition_deleted"):
    """A definition is gone; its key stays taken, its last values stay behind as custom traits."""

    number: int
    send_exits: bool = False
    actor: str = ""


# -- effects ---------------------------------------------------------------------------------------------------------


class Entered(Fact, frozen=True, tag="entered"):
    """An entity became a member of an audience."""

    entity: int
    definition: int
    at_ms: int
    cause_seq: int  # the entry that tipped it


class Exited(Fact, frozen=True, tag="exited"):
    """An entity is no longer a member of an audience."""

    entity: int
    definition: int
    at_ms: int
    cause_seq: int
    merged_into: int = 0  # it was absorbed by this one, which is a member: nothing to tell anybody


class TraitComputed(Fact, frozen=True, tag="trait_computed"):
    """A computed trait has a new value; None: it is absent or null."""

    entity: int
    definition: int
    value: Any  # a JSON value: first and last may give an object
    at_ms: int
    cause_seq: int


# -- destinations ----------------------------------------------------------------------------------------------------


class DestinationSaved(Fact, frozen=True, tag="destination_saved"):
    """A destination was created or changed: its settings in full, secrets sealed (see `adapters`)."""

    destination: dict[str, Any]


class DestinationDeleted(Fact, frozen=True, tag="destination_deleted"):
    """A destination is gone with its connections."""

    destination: str
    actor: str = ""


class ConnectionSaved(Fact, frozen=True, tag="connection_saved"):
    """An audience or trait was connected to a destination, or the connection changed (paused, settings)."""

    connection: dict[str, Any]


class ConnectionRemoved(Fact, frozen=True, tag="connection_removed"):
    """A connection was removed and its settings forgotten."""

    connection: str
    actor: str = ""


class Delivered(Fact, frozen=True, tag="delivered"):
    """Requests of a destination were answered; the deliveries' ids, and up to where its cursor is settled."""

    destination: str
    cursor_seq: int
    ids: tuple[str, ...] = ()


class DeadLettered(Fact, frozen=True, tag="dead_lettered"):
    """A delivery was given up; kept with its request (secrets masked) until re-sent or dropped."""

    destination: str
    delivery: dict[str, Any]


class DeadLetterSettled(Fact, frozen=True, tag="dead_letter_settled"):
    """A dead letter was re-sent or dropped."""

    destination: str
    delivery_id: str
    how: OneOf["resent", "dropped"]


class Audited(Fact, frozen=True, tag="audited"):
    """An administrative act: who did what to which resource."""

    type: str
    actor: str
    resource_id: str
    resource_type: str
    resource_name: str = ""
    space_id: str = ""  # in the control log: the space it was done in, "" for none


# -- the control plane: spaces, sources, tokens (a log of its own) ----------------------------------------------------


class SpaceRecord(Struct, frozen=True, omit_defaults=True):
    """A space, as it is from some entry of the control log on."""

    id: str  # "spa_…"
    slug: str
    name: str
    created_ms: int = 0


class SourceRecord(Struct, frozen=True, omit_defaults=True):
    """Where events come from. Its write keys are kept as hashes, with the few letters that tell them apart."""

    id: str  # "src_…"
    slug: str
    name: str
    space_id: str
    key_hashes: tuple[str, ...] = ()
    key_hints: tuple[str, ...] = ()
    enabled: bool = True
    metadata_id: str = ""
    settings: dict[str, Any] = {}
    created_ms: int = 0


class TokenRecord(Struct, frozen=True, omit_defaults=True):
    """An access token: what it may do and where. Only its hash is kept."""

    id: str  # "tok_…"
    name: str
    token_hash: str
    hint: str
    scopes: tuple[str, ...]
    space_id: str = ""  # "": every space
    created_ms: int = 0
    expires_ms: int | None = None
    revoked_ms: int | None = None


class SpaceSaved(Fact, frozen=True, tag="space_saved"):
    """A space was created or renamed."""

    space: SpaceRecord


class SourceSaved(Fact, frozen=True, tag="source_saved"):
    """A source was created or changed."""

    source: SourceRecord


class TokenSaved(Fact, frozen=True, tag="token_saved"):
    """A token was issued, rotated or revoked."""

    token: TokenRecord


AnyFact = (
    Ticked
    | IdAdded
    | IdSeenEarlier
    | Merged
    | IdRefused
    | IdentityRulesChanged
    | Rejected
    | Erased
    | AccountsErased
    | EventsForgotten
    | Suppressed
    | Unsuppressed
    | RegulationSaved
    | DefinitionSaved
    | DefinitionSwitched
    | DefinitionFailed
    | DefinitionDeleted
    | Entered
    | Exited
    | TraitComputed
    | DestinationSaved
    | DestinationDeleted
    | ConnectionSaved
    | ConnectionRemoved
    | Delivered
    | DeadLettered
    | DeadLetterSettled
    | Audited
    | SpaceSaved
    | SourceSaved
    | TokenSaved
)


class Commit(Struct, frozen=True):
    """What was written at once: events first, then facts, numbered on from first_seq."""

    first_seq: int
    at_ms: int  # when it was recorded
    events: tuple[Event, ...] = ()
    facts: tuple[AnyFact, ...] = ()

    @property
    def last_seq(self) -> int:
        """Return the sequence of the last entry."""
        return self.first_seq + len(self.events) + len(self.facts) - 1
