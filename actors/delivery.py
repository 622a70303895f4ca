"""What deliveries are made of: destinations, connections, calls, asks, answers and verdicts.

A *call* is one message for one profile (an identify, a track, a group, or a change of a list). An adapter turns calls
into *asks* (an HTTP request, SQL, a file to write); a transport performs an ask and brings back an *answer*, also when
the network failed; the adapter turns answers into a *verdict* on each call. An adapter does it as a conversation: a
generator that yields asks, is sent answers, and returns `Done`. So it decides without any I/O, and is tested by hand.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, Protocol
from typing import Literal as OneOf

from msgspec import UNSET, Struct, UnsetType

Strategy = OneOf["first", "last", "all"]
CallKind = OneOf["identify", "track", "group", "member"]
Slot = str  # where an id value goes in a payload: userId, anonymousId, email, groupId, or a name of the user's own
Ids = tuple[tuple[Slot, str], ...]

RATE_DEFAULT_PER_S: Final = 50.0  # contract, section 5: webhook
RETRY_FIRST_S_DEFAULT: Final = 1.0  # contract, section 5
RETRY_MAX_S_DEFAULT: Final = 300.0  # contract, section 5
RETRY_FOR_S_DEFAULT: Final = 86_400.0  # contract, section 5
TIMEOUT_S_DEFAULT: Final = 15.0  # longer than the slowest vendor promises (Marketo: 10 s on average for lists)


class IdSync(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Which values of an external id type are sent, and under which name."""

    external_id: str
    strategy: Strategy = "last"
    map_to: str | None = None


class Destination(Struct, frozen=True, omit_defaults=True):
    """A configured destination; secrets in `settings` are sealed."""

    id: str
    type: str
    name: str
    source_id: str
    settings: dict[str, Any]
    enabled: bool = True
    created_ms: int = 0
    updated_ms: int = 0
    quiet_seq: int = 0  # changes up to it were made while it was off: only their net is sent
    epoch: int = 1  # raised whenever it is switched on again


class Connection(Struct, frozen=True, omit_defaults=True):
    """An audience or computed trait connected to a destination."""

    id: str
    destination: str
    definition: int
    definition_id: str
    key: str
    kind: OneOf["audience", "trait"]
    entity_type: OneOf["USERS", "ACCOUNTS"]
    settings: dict[str, Any] = {}  # as given, see `ConnectionSettings`
    id_sync: tuple[IdSync, ...] | None = None  # None: last email and last user_id
    enabled: bool = True
    created_ms: int = 0
    updated_ms: int = 0
    since_seq: int = 0  # changes up to it are not looked at: they are covered by the fill, or not wanted
    quiet_seq: int = 0  # changes up to it were made while it was paused: only their net is sent
    epoch: int = 1  # raised whenever it is resumed
    fill: bool = True  # whether those who were members before it was connected are sent
    refill: int = 0  # raised by each full resync


class ConnectionSettings(Struct, frozen=True, rename="camel"):
    """What of a connection's settings Turnout reads; the rest is kept for the client as it was."""

    send_identify: bool | None = None
    send_track: bool | None = None
    send_group: bool | None = None
    entered_event_name: str | None = None
    exited_event_name: str | None = None
    computed_event_name: str | None = None

    def sends(self, kind: CallKind) -> bool:
        """Tell whether calls of this kind are wanted: yes unless told otherwise."""
        wanted = {"identify": self.send_identify, "track": self.send_track, "group": self.send_group}.get(kind)
        return wanted is not False


class Call(Struct, frozen=True, omit_defaults=True):
    """One message for one profile: what an adapter gets, what is listed, what a dead letter keeps."""

    id: str  # the message id: the same whenever this very call is sent again
    kind: CallKind
    connection: str
    space: str
    definition: str  # public id
    key: str
    computation_class: OneOf["audience", "trait"]
    entity: int
    profile: str  # public id of the profile or account
    ids: Ids
    value: Any  # true or false for an audience, a computed trait's value
    event: str  # the name of a track call
    at_ms: int  # when it became true
    seq: int  # the entry that made it so
    anonymous_id: str | None = None  # added where a call would else carry neither userId nor anonymousId

    def id_in(self, slot: Slot) -> str | None:
        """Return the id value that goes in a slot."""
        return next((value for name, value in self.ids if name == slot), None)

    @property
    def user_id(self) -> str | None:
        """Return the userId it carries."""
        return self.id_in("userId")

    @property
    def email(self) -> str | None:
        """Return the email it carries."""
        return self.id_in("email")

    @property
    def anonymous(self) -> str | None:
        """Return the anonymousId it carries."""
        return self.id_in("anonymousId") or self.anonymous_id

    @property
    def group_id(self) -> str | None:
        """Return the groupId it carries."""
        return self.id_in("groupId")

    @property
    def others(self) -> Ids:
        """Return the ids that have a name of their own."""
        return tuple((name, value) for name, value in self.ids if name not in PLAIN_SLOTS)


PLAIN_SLOTS: Final = frozenset({"userId", "anonymousId", "email", "groupId"})


class Shown(Struct, frozen=True):
    """An ask as a person may look at it; whatever is secret in it is taken out before it is kept."""

    method: str
    address: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Ask(Struct, frozen=True):
    """What an adapter wants done; each transport performs its own kinds."""

    def shown(self) -> Shown:
        """Return it as it may be shown."""
        return Shown(method=type(self).__name__, address="")


class HttpAsk(Ask, frozen=True, kw_only=True):
    """An HTTP request."""

    method: OneOf["GET", "POST", "PUT", "PATCH", "DELETE"]
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    timeout_s: float = TIMEOUT_S_DEFAULT

    def shown(self) -> Shown:
        """Return it as it may be shown."""
        return Shown(self.method, self.url, self.headers, self.body)


class Answer(Struct, frozen=True):
    """What came back; status 0 with the reason when nothing did."""

    status: int
    headers: Mapping[str, str] = {}  # names in lower case
    body: bytes = b""  # the beginning of it, see the transport's bound
    error: str = ""  # what failed, where nothing came back
    again: bool = True  # where nothing came back: whether trying again may help


class Verdict(Struct, frozen=True):
    """What became of a call."""

    how: OneOf["delivered", "retry", "dead"]
    reason: str = ""
    status: int = 0
    retry_after_ms: int | None = None  # as the destination asked
    slow: bool = False  # the destination asked everyone to wait
    unsure: bool = False  # it may have been taken all the same
    alone: bool = False  # retry at once, in a conversation of its own: one of its batch may have spoiled it


DELIVERED: Final = Verdict(how="delivered")


def overall(verdict: Verdict, count: int) -> tuple[Verdict, ...]:
    """Return a batch's verdict for each of its calls; where it was refused whole, each is to be tried alone."""
    if verdict.how == "dead" and verdict.status in SPOILED and count > 1:
        return (Verdict(how="retry", status=verdict.status, reason=verdict.reason, alone=True),) * count
    return (verdict,) * count


SPOILED: Final = frozenset({400, 413, 422})  # answers that one bad call can bring on its whole batch


class Done(Struct, frozen=True):
    """The end of a conversation: a verdict on each call, in order, and what to remember."""

    verdicts: tuple[Verdict, ...]
    remember: Mapping[str, Any] = {}  # kept with the destination: the id of a remote list
    hold: Mapping[str, Any] = {}  # kept in memory alone: access tokens


Conversation = Generator[Ask, Answer, Done]
Memory = Mapping[str, Any]


class CommonSettings(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What every destination can be told. An adapter's settings extend it."""

    rate: float | UnsetType | None = UNSET  # requests a second
    burst: int | UnsetType | None = UNSET  # requests at once after a pause
    concurrency: int | UnsetType | None = UNSET  # requests in flight
    sync_interval_seconds: float | UnsetType | None = UNSET  # list destinations
    timeout_seconds: float | UnsetType | None = UNSET
    retry_first_seconds: float | UnsetType | None = UNSET
    retry_max_seconds: float | UnsetType | None = UNSET
    retry_for_seconds: float | UnsetType | None = UNSET


SettingsType = type[CommonSettings]


class Limits(Struct, frozen=True):
    """A destination's limits: its type's defaults where its settings say nothing."""

    rate_per_s: float
    burst: int
    concurrency: int
    interval_ms: int
    retry_first_ms: int
    retry_max_ms: int
    retry_for_ms: int
    window_s: float = 0.0


class Context(Struct, frozen=True):
    """What an adapter may know beside the calls."""

    settings: Any  # the adapter's own settings Struct, secrets readable
    memory: Memory
    now_ms: int
    destination: str = ""

    @property
    def timeout_s(self) -> float:
        """Return how long an answer is waited for."""
        wanted: object = getattr(self.settings, "timeout_seconds", UNSET)
        return float(wanted) if isinstance(wanted, int | float) else TIMEOUT_S_DEFAULT


class Adapter(Struct, frozen=True, kw_only=True):
    """A destination type: its settings, its limits, and how it talks."""

    type: str
    title: str
    page: str  # the vendor's documentation
    settings: SettingsType
    deliver: Callable[[Context, tuple[Call, ...]], Conversation]
    ping: Callable[[Context], Conversation]  # a harmless question that shows whether the settings work
    kinds: tuple[CallKind, ...]  # the calls it takes, in the order they are sent
    rate_per_s: float = RATE_DEFAULT_PER_S
    burst: int | None = None  # None: as many as the rate
    window_s: float = 0  # above 0: in any stretch of so many seconds no more than the rate, the burst included
    concurrency: int = 16
    batch_max: int = 1  # calls in one conversation
    asks_max: int = 1  # requests that one conversation takes at most
    together: bool = False  # whether a batch may hold several calls of one profile
    group_by: Callable[[Call], str] | None = None  # calls that differ here do not go in one batch
    interval_ms: int = 0  # above 0: a list, kept in step at this interval
    traits: bool = True  # whether computed traits can be sent there
    entity_types: tuple[str, ...] = ("USERS", "ACCOUNTS")

    @property
    def is_list(self) -> bool:
        """Tell whether it takes the net change at an interval."""
        return self.interval_ms > 0


class Seal(Protocol):
    """Makes secrets unreadable where they are stored."""

    def seal(self, text: str) -> str:
        """Return the text sealed."""

    def open(self, sealed: str) -> str:
        """Return the text that was sealed. Raises ConfigError when the key is another."""


class Transport(Protocol):
    """Performs asks: the world, a local server in tests, or a simulated receiver."""

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Perform an ask for these calls (none for a ping) and return what came back; never raises for the network."""
