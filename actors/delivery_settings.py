"""A destination's settings: checked against its type, secrets sealed where they are stored, masked where shown."""

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

import msgspec
from msgspec import UNSET, Meta, inspect

from actors.bucket import BURST_MAX, RATE_MAX_PER_S, RATE_MIN_PER_S
from actors.delivery import (
    RETRY_FIRST_S_DEFAULT,
    RETRY_FOR_S_DEFAULT,
    RETRY_MAX_S_DEFAULT,
    TIMEOUT_S_DEFAULT,
    Adapter,
    CommonSettings,
    ConnectionSettings,
    IdSync,
    Limits,
    Seal,
)
from actors.shapes import worded
from eventlog.entries import Definition
from eventlog.errors import InvalidError

Secret = Annotated[str, Meta(min_length=1, max_length=10_000, extra={"secret": True})]
Text = Annotated[str, Meta(min_length=1, max_length=2_000)]

NAME_CHARS_MAX: Final = 200
ID_SYNC_MAX: Final = 50  # external id types of one connection
SETTINGS_BYTES_MAX: Final = 32 * 1024
MASK: Final = "********"  # stands for a secret in answers; sent back, it means: as before
SECRET_CHARS_MIN: Final = 4  # shorter ones hide nothing, and would blot out other words
CREDENTIALS: Final = re.compile(  # whoever's they are: no answer's are kept
    r"""(?i)(\b(?:basic|bearer)\s+|["']?(?:access_token|refresh_token|id_token|client_secret)["']?\s*[=:]\s*["']?)"""
    r"""[A-Za-z0-9+/=._~%-]{4,}"""
)
SEALED: Final = "sealed"  # {"sealed": …} stands for a secret in the log
CONCURRENCY_MAX: Final = 100  # requests in flight to one destination
MANY_AT_ONCE: Final = 16  # in flight: types that take so many take more where their rate is raised
COMMIT_S: Final = 0.1  # from a request's end until its outcome is stored, on a daemon that has no time to spare
SPAN_MAX_S: Final = 31_536_000.0  # a year: longer pauses are mistakes
TIMEOUT_MAX_S: Final = 300.0
BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "rate": (RATE_MIN_PER_S, RATE_MAX_PER_S),
    "burst": (1, BURST_MAX),
    "concurrency": (1, CONCURRENCY_MAX),
    "sync_interval_seconds": (1, SPAN_MAX_S),
    "timeout_seconds": (0.1, TIMEOUT_MAX_S),
    "retry_first_seconds": (0.01, SPAN_MAX_S),
    "retry_max_seconds": (0.01, SPAN_MAX_S),
    "retry_for_seconds": (0, SPAN_MAX_S),
}


def secret_names(settings: type[CommonSettings]) -> frozenset[str]:
    """Return the names of the settings that are secret."""
    described = inspect.type_info(settings)
    assert isinstance(described, inspect.StructType)
    return frozenset(field.encode_name for field in described.fields if _is_secret(field.type))


def _is_secret(described: inspect.Type) -> bool:
    if isinstance(described, inspect.Metadata):
        return bool((described.extra or {}).get("secret"))
    if isinstance(described, inspect.UnionType):
        return any(_is_secret(part) for part in described.types)
    return False


def schema(adapter: Adapter) -> dict[str, Any]:
    """Return the JSON schema of a type's settings, secrets marked `writeOnly`."""
    _, parts = msgspec.json.schema_components([adapter.settings], ref_template="#/{name}")
    described: dict[str, Any] = dict(parts[adapter.settings.__name__])
    described["properties"] = {
        name: {**part, "writeOnly": True} if name in secret_names(adapter.settings) else part
        for name, part in described["properties"].items()
    }
    return described


def parse(adapter: Adapter, settings: Mapping[str, Any]) -> CommonSettings:
    """Return a type's settings as its Struct. Raises InvalidError naming the setting."""
    try:
        parsed = msgspec.convert(dict(settings), adapter.settings)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        field = place.strip("`.") or None
        where = f"settings.{field}: " if field else ""
        message = worded(message, adapter.settings, field or "")
        raise InvalidError(
            "invalid_settings", f"{where}{message} (destination type {adapter.type})", field=field
        ) from None
    for name, (least, most) in BOUNDS.items():
        value = getattr(parsed, name)
        if value is not UNSET and value is not None and not least <= value <= most:
            shown = msgspec.structs.fields(type(parsed))
            field = next(part.encode_name for part in shown if part.name == name)
            raise InvalidError(
                "invalid_settings", f"settings.{field}: {value:g} is not between {least:g} and {most:g}", field=field
            )
    return parsed


def limits(adapter: Adapter, settings: CommonSettings) -> Limits:
    """Return a destination's limits: its settings, else its type's defaults."""

    def pick(value: object, default: float) -> float:
        return float(value) if isinstance(value, int | float) else default

    rate = pick(settings.rate, adapter.rate_per_s)
    burst = pick(settings.burst, adapter.burst or max(1, round(rate)))
    return Limits(
        rate_per_s=rate,
        burst=max(round(burst), adapter.asks_max),
        concurrency=round(pick(settings.concurrency, _concurrency(adapter, rate))),
        interval_ms=round(pick(settings.sync_interval_seconds, adapter.interval_ms / 1000) * 1000),
        retry_first_ms=round(pick(settings.retry_first_seconds, RETRY_FIRST_S_DEFAULT) * 1000),
        retry_max_ms=round(pick(settings.retry_max_seconds, RETRY_MAX_S_DEFAULT) * 1000),
        retry_for_ms=round(pick(settings.retry_for_seconds, RETRY_FOR_S_DEFAULT) * 1000),
        window_s=adapter.window_s,
    )


def _concurrency(adapter: Adapter, rate_per_s: float) -> int:
    """Return how many requests may be under way, where nobody said: more where the rate is set too high for the type's.

    What became of requests is stored before the next ones go, a commit for as many as are under way: under load that
    takes a tenth of a second. Types that bear only a few at once are not asked more.
    """
    if adapter.concurrency < MANY_AT_ONCE:
        return adapter.concurrency
    return max(adapter.concurrency, min(CONCURRENCY_MAX, math.ceil(rate_per_s * COMMIT_S)))


def timeout_s(settings: CommonSettings) -> float:
    """Return how long an answer is waited for."""
    wanted: object = settings.timeout_seconds
    return float(wanted) if isinstance(wanted, int | float) else TIMEOUT_S_DEFAULT


def sealed(adapter: Adapter, settings: Mapping[str, Any], seal: Seal, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are stored; a mask keeps what was stored before."""
    secrets = secret_names(adapter.settings)
    stored = {name: value for name, value in settings.items() if value is not None}
    for name in secrets & stored.keys():
        if stored[name] == MASK and name in before:
            stored[name] = before[name]
        else:
            stored[name] = {SEALED: seal.seal(msgspec.json.encode(stored[name]).decode())}
    return stored


def _is_sealed(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {SEALED} and isinstance(value[SEALED], str)


def opened(adapter: Adapter, settings: Mapping[str, Any], seal: Seal) -> dict[str, Any]:
    """Return stored settings with their secrets readable. Raises ConfigError when the key is another."""
    secrets = secret_names(adapter.settings)
    return {
        name: msgspec.json.decode(seal.open(value[SEALED])) if name in secrets and _is_sealed(value) else value
        for name, value in settings.items()
    }


def masked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings as they may be shown."""
    return {name: MASK if _is_sealed(value) else value for name, value in settings.items()}


def secret_texts(adapter: Adapter, settings: CommonSettings) -> tuple[str, ...]:
    """Return the secrets of settings in every spelling that a request or an answer may have them in, longest first."""
    secrets = secret_names(adapter.settings)
    found: set[str] = set()
    for field in msgspec.structs.fields(type(settings)):
        value = getattr(settings, field.name)
        if field.encode_name in secrets:
            for part in value.values() if isinstance(value, dict) else [value]:
                if isinstance(part, str):
                    found |= spellings(part)
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def spellings(secret: str) -> set[str]:
    """Return a secret as it is, in JSON, in a query, in base64, and the password alone where it is an address."""
    parts = {secret}
    address = urlsplit(secret) if "://" in secret else None
    if address is not None and address.password:
        parts |= {address.password, unquote(address.password)}
    spelt: set[str] = set()
    for part in parts:
        coded = base64.b64encode(part.encode()).decode().rstrip("=")
        spelt |= {part, msgspec.json.encode(part).decode()[1:-1], quote(part, safe=""), quote_plus(part), coded}
    return {text for text in spelt if len(text) >= SECRET_CHARS_MIN}


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """Return text (an answer, an error) without any secret that it repeats, nor a piece of one where it was cut off."""
    text = CREDENTIALS.sub(rf"\1{MASK}", text)
    for secret in secrets:
        text = text.replace(secret, MASK)
    for secret in secrets:
        for size in range(min(len(secret), len(text)), SECRET_CHARS_MIN - 1, -1):
            if text.endswith(secret[:size]):
                return text[:-size] + MASK
    return text


# -- what a connection is told ---------------------------------------------------------------------------------------


def checked_name(name: str) -> str:
    """Return a name without white space around it. Raises InvalidError."""
    text = name.strip()
    if not text or len(text) > NAME_CHARS_MAX:
        raise InvalidError("invalid_name", f"a name has 1 to {NAME_CHARS_MAX} characters", field="name")
    return text


def check_size(settings: Mapping[str, Any], field: str) -> None:
    """Raise InvalidError where settings are too large."""
    size = len(msgspec.json.encode(settings))
    if size > SETTINGS_BYTES_MAX:
        raise InvalidError("settings_too_large", f"{field}: {size} bytes, at most {SETTINGS_BYTES_MAX}", field=field)


def checked_connection_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection's settings as they are kept. Raises InvalidError."""
    check_size(settings, "connectionSettings")
    kept = dict(settings)
    try:
        msgspec.convert(kept, ConnectionSettings)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        field = f"connectionSettings{place.strip('`')}"
        message = worded(message, ConnectionSettings, place.strip("`."))
        raise InvalidError("invalid_settings", f"{field}: {message}", field=field) from None
    return kept


def checked_id_sync(id_sync: Sequence[IdSync] | None) -> tuple[IdSync, ...] | None:
    """Return which ids are sent, None for the default: an empty list is no choice. Raises InvalidError."""
    if not id_sync:
        return None
    if len(id_sync) > ID_SYNC_MAX:
        raise InvalidError(
            "invalid_id_sync",
            f"idSyncConfiguration: {len(id_sync)} ids, at most {ID_SYNC_MAX}",
            field="idSyncConfiguration",
        )
    for sync in id_sync:
        if not sync.external_id or sync.map_to == "":
            raise InvalidError(
                "invalid_id_sync",
                "idSyncConfiguration: externalId and mapTo must not be empty",
                field="idSyncConfiguration",
            )
    return tuple(id_sync)


def check_fit(adapter: Adapter, definition: Definition) -> None:
    """Raise InvalidError where a destination type has no place for a definition."""
    if definition.kind == "trait" and not adapter.traits:
        raise InvalidError(
            "traits_not_supported", f"{adapter.title} takes audiences only: it keeps lists, which have no values"
        )
