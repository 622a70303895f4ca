"""The scenario file (contract, section 10) as frozen values, and the checks that a type cannot express.

Durations and times stay text in the Structs, as they stand in the file; `offset_ms`, `Scenario.start_ms` and
`Scenario.at_ms` read them. Times are milliseconds since the epoch, UTC. Beyond the contract a scenario may ask
`expect` about the past (`at`, `known`), and connections may carry their settings.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar
from typing import Literal as OneOf

import msgspec
import yaml
from msgspec import Struct

from actors.identity_rules import settings_from_json
from eventlog.errors import InvalidError
from eventlog.instants import instant_ms, iso
from scenarios.document import Document, read_file, read_text

STEPS_MAX: Final = 10_000  # ours: a year of hours
WRITES_MAX: Final = 1_000_000  # ours: later than that no scenario ends
DEFAULT_START: Final = "2026-01-01T00:00:00Z"
UNITS_MS: Final = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_OFFSET: Final = re.compile(r"\+(?:\d{1,9}[wdhms])+", re.ASCII)
_DURATION: Final = re.compile(r"(?:\d{1,9}[wdhms])+", re.ASCII)
_PIECE: Final = re.compile(r"(\d+)([wdhms])", re.ASCII)

T = TypeVar("T")


class _Part(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """The base of all parts of a scenario."""


class OptionsSpec(_Part, frozen=True):
    """What a definition looks at, as in the management API."""

    include_historical_data: bool = True
    filter_by_external_ids: tuple[str, ...] | None = None
    backfill_event_data_days: int | None = None
    include_anonymous_users: bool = True
    backfill_duration_days: int | None = None  # what the API calls it for computed traits

    def __post_init__(self) -> None:
        """Refuse both names of one thing."""
        if None not in (self.backfill_event_data_days, self.backfill_duration_days):
            raise ValueError("expected either `backfillEventDataDays` or `backfillDurationDays`")

    @property
    def backfill_days(self) -> int | None:
        """Return how many days back events count."""
        return self.backfill_duration_days if self.backfill_event_data_days is None else self.backfill_event_data_days


class AudienceSpec(_Part, frozen=True):
    """An audience; without a key it gets the one its name gives."""

    name: str
    query: str
    key: str | None = None
    type: OneOf["USERS", "ACCOUNTS"] = "USERS"
    description: str | None = None
    options: OptionsSpec | None = None
    enabled: bool = True


class TraitSpec(AudienceSpec, frozen=True):
    """A computed trait; without a key it gets the one its name gives."""


class EditSpec(_Part, frozen=True):
    """A change of the definition with this key; what is not named stays."""

    key: str
    name: str | None = None
    query: str | None = None
    description: str | None = None
    options: OptionsSpec | None = None
    enabled: bool | None = None


class DeleteSpec(_Part, frozen=True):
    """A deletion; with `sendExits` the members leave first."""

    key: str
    send_exits: bool = False


class _One(_Part, frozen=True):
    """About an audience or a computed trait, one of the two."""

    def __post_init__(self) -> None:
        """Refuse none and both."""
        given = [getattr(self, name, None) for name in ("audience", "trait")]
        if sum(one is not None for one in given) != 1:
            raise ValueError("expected either `audience` or `trait`")


class Define(_One, frozen=True):
    """Create a definition."""

    audience: AudienceSpec | None = None
    trait: TraitSpec | None = None


class Edit(_One, frozen=True):
    """Change a definition."""

    audience: EditSpec | None = None
    trait: EditSpec | None = None


class Delete(_One, frozen=True):
    """Delete a definition: by its key alone, or with `sendExits`."""

    audience: str | DeleteSpec | None = None
    trait: str | DeleteSpec | None = None


class IdSync(_Part, frozen=True):
    """Which values of an external id a destination is sent, as in the management API."""

    external_id: str
    strategy: OneOf["first", "last", "all"] = "last"
    map_to: str | None = None


class Connect(_One, frozen=True):
    """Connect a definition to a destination."""

    destination: str
    audience: str | None = None
    trait: str | None = None
    send_identify: bool | None = None
    send_track: bool | None = None
    send_group: bool | None = None
    id_sync_configuration: tuple[IdSync, ...] | None = None
    connection_settings: dict[str, Any] | None = None


class Disconnect(_One, frozen=True):
    """Pause a connection; its settings are kept."""

    destination: str
    audience: str | None = None
    trait: str | None = None


class DestinationSpec(_Part, frozen=True):
    """A destination, with what is connected to it from the start. What it receives is kept for `delivered`."""

    name: str
    type: str = "webhook"
    rate: float | None = None  # requests a second
    burst: int | None = None
    interval: str | None = None  # of list destinations, as 1h
    settings: dict[str, Any] = {}
    audiences: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    send_identify: bool | None = None
    send_track: bool | None = None
    send_group: bool | None = None
    id_sync_configuration: tuple[IdSync, ...] | None = None


class Delay(_Part, frozen=True):
    """Each message is late with probability `p`; it arrives `by` later, dated when it was sent."""

    p: float
    by: str

    def __post_init__(self) -> None:
        """Refuse what is no probability or no duration."""
        _probability("p", self.p)
        duration_ms(self.by)


_FAULTS: Final = (
    *("crash", "crash_after", "crash_in", "crash_in_backfill", "restart", "down", "checkpoint", "full_in"),
    *("status", "lost", "slow", "duplicate", "delay", "disk_full"),
)


class Fault(_Part, frozen=True, rename={"for_": "for"}):
    """Something that goes wrong from this step on."""

    crash: bool = False  # the process dies here and starts again from the log
    crash_after: int | None = None  # it dies right after its nth write from here, before anybody is told
    crash_in: int | None = None  # it dies in the middle of its nth write from here: the write is torn
    crash_in_backfill: int | None = None  # it dies while its nth backfill from here gathers, right after a checkpoint
    restart: bool = False  # it stops in order and starts again
    down: str | None = None  # it dies here, and starts again only after so long
    checkpoint: bool = False  # what stands is stored, and leaves memory until it is needed again
    full_in: int | None = None  # the disk has no room for its nth write from here; whoever asked does it again
    destination: str | None = None  # answers every request with `status`
    status: int | None = None
    lost: OneOf["requests", "answers"] | None = None  # on the way to the destination, or on the way back: a time-out
    slow: str | None = None  # how long the destination takes to answer; after the time-out nobody listens any more
    for_: str | None = None  # how long it does
    duplicate: float | None = None  # each message is sent twice with this probability
    delay: Delay | None = None
    disk_full: str | None = None  # how long nothing can be written; clients send again when it is over

    def __post_init__(self) -> None:
        """Refuse what is none or more than one fault."""
        values = {name: getattr(self, name) for name in _FAULTS}
        given = [name for name, value in values.items() if value is not None and value is not False]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(_FAULTS)} (status with destination), found {given or 'none'}")
        failing = given[0] in ("status", "lost", "slow")
        if (self.destination is not None) != failing or (not failing and self.for_ is not None):
            raise ValueError("`destination` goes with `status`, `lost` or `slow`, and `for` with them")
        for name in ("crash_after", "crash_in", "crash_in_backfill", "full_in"):
            number, what = getattr(self, name), "backfill" if name == "crash_in_backfill" else "write"
            if number is not None and not 1 <= number <= WRITES_MAX:
                raise ValueError(f"{name} is {number}, expected the number of a {what}, from 1 to {WRITES_MAX:,}")
        if self.status is not None and not 100 <= self.status <= 599:
            raise ValueError(f"status {self.status}: expected an HTTP status from 100 to 599")
        if self.duplicate is not None:
            _probability("duplicate", self.duplicate)
        for text in (self.for_, self.down, self.slow, self.disk_full):
            if text is not None:
                duration_ms(text)


class Refused(_Part, frozen=True):
    """Something that must be refused, with a part of the reason if wanted. A bare audience or trait is a creation."""

    audience: AudienceSpec | None = None
    trait: TraitSpec | None = None
    edit: Edit | None = None
    delete: Delete | None = None
    connect: Connect | None = None
    because: str | None = None  # must occur in the reason

    def __post_init__(self) -> None:
        """Refuse none and several."""
        given = [name for name in ("audience", "trait", "edit", "delete", "connect") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of audience, trait, edit, delete, connect, found {given or 'none'}")


class Expect(_Part, frozen=True):
    """What must be true at this point: now, or as of `at` and with what was `known` by then."""

    members: dict[str, tuple[str, ...]] = {}
    traits: dict[str, dict[str, Any]] = {}
    delivered: dict[str, tuple[dict[str, Any], ...]] = {}
    refused: Refused | tuple[Refused, ...] = ()
    rejected: int | None = None
    at: str | None = None
    known: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be asked about the past, and members given twice."""
        if (self.at or self.known) and (self.delivered or self.refused or self.rejected is not None):
            raise ValueError("`at` and `known` ask about members and traits only")
        for key, names in self.members.items():
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"members.{key}: {twice[0]!r} is given twice")


class Step(_Part, frozen=True):
    """What happens at one time: fault, then definitions, then messages, then expectations."""

    at: str
    fault: Fault | tuple[Fault, ...] = ()
    define: Define | tuple[Define, ...] = ()
    edit: Edit | tuple[Edit, ...] = ()
    delete: Delete | tuple[Delete, ...] = ()
    connect: Connect | tuple[Connect, ...] = ()
    disconnect: Disconnect | tuple[Disconnect, ...] = ()
    send: dict[str, Any] | tuple[dict[str, Any], ...] = ()
    expect: Expect | tuple[Expect, ...] = ()


class Scenario(_Part, frozen=True):
    """A scenario: a world on a simulated clock, and what must be true in it."""

    scenario: str
    seed: int = 0
    start: str = DEFAULT_START
    description: str | None = None
    settings: dict[str, Any] = {}
    audiences: tuple[AudienceSpec, ...] = ()
    traits: tuple[TraitSpec, ...] = ()
    destinations: tuple[DestinationSpec, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def start_ms(self) -> int:
        """Return when it begins."""
        instant = instant_ms(self.start)
        assert instant is not None, self.start
        return instant

    def at_ms(self, text: str) -> int:
        """Return the time that an offset from the start or an ISO time names. Raises ValueError."""
        if text.startswith("+"):
            return self.start_ms + offset_ms(text)
        instant = instant_ms(text)
        if instant is None:
            raise ValueError(f"found {text!r}, expected an offset such as +1d12h or a time such as {DEFAULT_START}")
        return instant


class Loaded(Struct, frozen=True):
    """A scenario with the file it came from and the line of each of its steps."""

    file: str
    scenario: Scenario
    step_lines: tuple[int, ...]


def listed(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """Return one or several as several."""
    return value if isinstance(value, tuple) else (value,)


def offset_ms(text: str) -> int:
    """Return the milliseconds of an offset such as `+1d12h`. Raises ValueError."""
    if _OFFSET.fullmatch(text) is None:
        raise ValueError(f"found {text!r}, expected an offset: + and pieces of w d h m s, such as +1d12h")
    return duration_ms(text[1:])


def duration_ms(text: str) -> int:
    """Return the milliseconds of a duration such as `10m`. Raises ValueError."""
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"found {text!r}, expected a duration: pieces of w d h m s, such as 10m")
    return sum(int(number) * UNITS_MS[unit] for number, unit in _PIECE.findall(text))


def offset_text(offset: int) -> str:
    """Return an offset in milliseconds as text, or raise ValueError if it is no whole number of seconds."""
    if offset < 0 or offset % UNITS_MS["s"]:
        raise ValueError(f"{offset} ms is no offset of whole seconds")
    pieces = []
    for unit in ("d", "h", "m", "s"):
        number, offset = divmod(offset, UNITS_MS[unit])
        if number:
            pieces.append(f"{number}{unit}")
    return f"+{''.join(pieces) or '0s'}"


def key_of(spec: AudienceSpec) -> str:
    """Return a definition's key: its own, or its name in snake_case (contract, section 4)."""
    if spec.key is not None:
        return spec.key
    plain = "".join(char for char in unicodedata.normalize("NFKD", spec.name) if not unicodedata.combining(char))
    return re.sub("[^a-z0-9]+", "_", plain.lower()).strip("_")


def load(path: Path) -> Loaded:
    """Return the scenario in a file. Raises InvalidError saying where what is wrong."""
    return _checked(*read_file(path, Scenario))


def loads(text: str, *, file: str = "<text>") -> Loaded:
    """Return the scenario in a text. Raises InvalidError saying where what is wrong."""
    return _checked(*read_text(text, Scenario, file=file))


def dumps(scenario: Scenario, *, comment: str = "") -> str:
    """Return a scenario as YAML that `loads` reads back to an equal one."""
    data = msgspec.to_builtins(scenario)
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def json_schema() -> bytes:
    """Return the JSON schema of scenario files, for editors; `python -m scenarios.format` writes it."""
    schema = msgspec.json.schema(Scenario)
    schema["title"] = "Turnout scenario"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2) + b"\n"


# -- what types cannot say ---------------------------------------------------------------------------------------------


def _probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, expected a probability from 0 to 1")


def _checked(scenario: Scenario, document: Document) -> Loaded:
    if not scenario.scenario.strip():
        document.problem("scenario", "empty, expected what the scenario is about")
    if len(scenario.steps) > STEPS_MAX:
        document.problem("steps", f"{len(scenario.steps)} steps, at most {STEPS_MAX}")
    if instant_ms(scenario.start) is None:
        document.problem("start", f"found {scenario.start!r}, expected a time such as {DEFAULT_START}")
        document.check()
    try:
        settings_from_json(scenario.settings)
    except InvalidError as error:
        document.problem(f"settings.{error.field}" if error.field else "settings", error.message)
    _check_keys(scenario, document)
    _check_destinations(scenario, document)
    _check_times(scenario, document)
    document.check()
    lines = tuple(document.places[f"steps[{index}]"][0] for index in range(len(scenario.steps)))
    return Loaded(document.file, scenario, lines)


def _check_keys(scenario: Scenario, document: Document) -> None:
    seen: set[str] = set()
    named: list[tuple[str, Iterable[AudienceSpec]]] = [
        ("audiences", scenario.audiences),
        ("traits", scenario.traits),
    ]
    for part, specs in named:
        for index, spec in enumerate(specs):
            key = key_of(spec)
            if not key:
                document.problem(f"{part}[{index}].name", f"{spec.name!r} gives no key, add one: `key: …`")
            elif key in seen:
                document.problem(f"{part}[{index}]", f"the key {key!r} is taken")
            seen.add(key)


def _check_destinations(scenario: Scenario, document: Document) -> None:
    names = [destination.name for destination in scenario.destinations]
    for index, destination in enumerate(scenario.destinations):
        path = f"destinations[{index}]"
        if destination.name in names[:index]:
            document.problem(f"{path}.name", f"there is another destination {destination.name!r}")
        if destination.interval is not None:
            _try(document, f"{path}.interval", duration_ms, destination.interval)
    for index, step in enumerate(scenario.steps):
        for part, wanted in (
            ("fault", [fault.destination for fault in listed(step.fault)]),
            ("connect", [connect.destination for connect in listed(step.connect)]),
            ("disconnect", [disconnect.destination for disconnect in listed(step.disconnect)]),
            ("expect", [name for expect in listed(step.expect) for name in expect.delivered]),
        ):
            for name in wanted:
                if name is not None and name not in names:
                    there = ", ".join(names) or "none"
                    document.problem(f"steps[{index}].{part}", f"no destination {name!r}; there are: {there}")


def _check_times(scenario: Scenario, document: Document) -> None:
    last_ms = scenario.start_ms
    for index, step in enumerate(scenario.steps):
        path = f"steps[{index}]"
        at_ms = _try(document, f"{path}.at", scenario.at_ms, step.at)
        if at_ms is not None and at_ms < last_ms:
            document.problem(f"{path}.at", f"{step.at} goes back, expected {iso(last_ms)} or later")
        last_ms = max(last_ms, at_ms or last_ms)
        for expect in listed(step.expect):
            for name in ("at", "known"):
                text = getattr(expect, name)
                if text is not None:
                    _try(document, f"{path}.expect.{name}", scenario.at_ms, text)
        for place, message in enumerate(listed(step.send)):
            if not isinstance(message.get("writeKey", ""), str):
                document.problem(f"{path}.send[{place}].writeKey", "expected text, the id of a source")


def _try(document: Document, path: str, read: "Any", text: str) -> int | None:
    try:
        return int(read(text))
    except ValueError as error:
        document.problem(path, str(error))
        return None


if __name__ == "__main__":
    Path(__file__).with_name("schema.json").write_bytes(json_schema())
