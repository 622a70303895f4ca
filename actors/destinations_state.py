"""Which destinations a space has, and what is connected to them: a fold of facts, kept in rows beside the log.

Every change is a fact, stored in one transaction with its row (`DELIVERIES`, destination ""). Secrets in settings are
sealed before they get into either.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType, msgpack
from msgspec.structs import replace

from actors.delivery import Adapter, Connection, Destination, IdSync, Seal
from actors.delivery_settings import (
    check_fit,
    check_size,
    checked_connection_settings,
    checked_id_sync,
    checked_name,
    masked,
    opened,
    parse,
    schema,
    sealed,
)
from actors.space_api import SpaceApi
from eventlog.entries import (
    AnyFact,
    ConnectionRemoved,
    ConnectionSaved,
    DestinationDeleted,
    DestinationSaved,
)
from eventlog.errors import ConflictError, InvalidError, LogFullError, NotFoundError
from eventlog.log import DELIVERIES, Changes, Key

DESTINATIONS_MAX: Final = 1_000  # of a space
CONNECTIONS_MAX: Final = 10_000  # of a space
PROJECTION: Final = "destinations"
GONE: Final = "g:"  # a row that says: of this destination, rows are still to be deleted


class DestinationType(Struct, frozen=True):
    """A destination type, as it is listed."""

    type: str
    title: str
    page: str
    is_list: bool
    rate_per_s: float
    interval_ms: int
    settings_schema: dict[str, Any]


class Destinations:
    """The destinations and connections of a space."""

    def __init__(
        self,
        space: SpaceApi,
        adapters: Mapping[str, Adapter],
        seal: Seal,
        random: Random,
        *,
        check: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> None:
        self._check = check  # refuses settings that the transport would not follow; raises InvalidError
        self._space = space
        self._seal = seal
        self._random = random
        self.adapters = adapters
        self._destinations: dict[str, Destination] = {}
        self._connections: dict[str, Connection] = {}
        self._gone: set[str] = set()
        self.version = 0  # raised by every change
        self.changed: Callable[[], None] = lambda: None

    # -- the fold ----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the rows, or, where they were thrown away, the log."""
        log = self._space.log
        if log.cursor(PROJECTION) == 0:
            for _, placed in log.read_facts():
                for _, fact in placed:
                    self.fold(fact)
        after: Key | None = None
        while rows := log.range(DELIVERIES, ("",), after):
            for key, value in rows:
                if str(key[1]).startswith("d:"):
                    self._destinations[str(key[1])[2:]] = msgpack.decode(value, type=Destination)
                elif str(key[1]).startswith(GONE):
                    self._gone.add(str(key[1])[2:])
                elif str(key[1]).startswith("c:"):
                    self._connections[str(key[1])[2:]] = msgpack.decode(value, type=Connection)
            after = rows[-1][0]

    async def open(self) -> None:
        """Load, and keep as rows what the log alone told: a start without destinations need not read it again."""
        self.load()
        log = self._space.log
        if log.last_seq and log.cursor(PROJECTION) == 0:  # rows may not know more than the log
            rows = [(("", f"d:{one.id}"), msgpack.encode(one)) for one in self._destinations.values()]
            rows += [(("", f"c:{one.id}"), msgpack.encode(one)) for one in self._connections.values()]
            with suppress(LogFullError):  # the next start reads it again
                await log.store([Changes(PROJECTION, log.last_seq, puts=((DELIVERIES, rows),))])

    def fold(self, fact: AnyFact) -> None:
        """Take a fact in."""
        match fact:
            case DestinationSaved():
                saved = msgspec.convert(fact.destination, Destination)
                self._destinations[saved.id] = saved
            case DestinationDeleted():
                self._destinations.pop(fact.destination, None)
                gone = [one.id for one in self._connections.values() if one.destination == fact.destination]
                for connection_id in gone:
                    del self._connections[connection_id]
            case ConnectionSaved():
                connection = msgspec.convert(fact.connection, Connection)
                self._connections[connection.id] = connection
            case ConnectionRemoved():
                self._connections.pop(fact.connection, None)
            case _:
                return
        self.version += 1

    async def _record(self, fact: AnyFact, puts: Mapping[str, Struct | None], deletes: Sequence[str] = ()) -> None:
        rows = [(("", name), b"" if value is None else msgpack.encode(value)) for name, value in puts.items()]
        changes = Changes(
            projection=PROJECTION,
            cursor_seq=max(1, self._space.log.last_seq),
            puts=((DELIVERIES, rows),) if rows else (),
            deletes=((DELIVERIES, [("", name) for name in deletes]),) if deletes else (),
        )
        await self._space.record([fact], [changes])
        self.fold(fact)
        self.changed()

    async def _save_destination(self, saved: Destination) -> Destination:
        await self._record(DestinationSaved(destination=msgspec.to_builtins(saved)), {f"d:{saved.id}": saved})
        return saved

    async def _save_connection(self, saved: Connection) -> Connection:
        await self._record(ConnectionSaved(connection=msgspec.to_builtins(saved)), {f"c:{saved.id}": saved})
        return saved

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{self._random.getrandbits(64):016x}"

    # -- reading -----------------------------------------------------------------------------------------------------

    def types(self) -> list[DestinationType]:
        """Return the destination types."""
        return [
            DestinationType(
                type=one.type,
                title=one.title,
                page=one.page,
                is_list=one.is_list,
                rate_per_s=one.rate_per_s,
                interval_ms=one.interval_ms,
                settings_schema=schema(one),
            )
            for one in self.adapters.values()
        ]

    def adapter(self, destination_type: str) -> Adapter:
        """Return a type's adapter. Raises InvalidError naming the types there are."""
        if destination_type not in self.adapters:
            raise InvalidError(
                "unknown_destination_type",
                f"there is no destination type {destination_type!r}; there are {', '.join(self.adapters)}",
                field="type",
            )
        return self.adapters[destination_type]

    def destination(self, destination_id: str) -> Destination:
        """Return a destination, secrets sealed. Raises NotFoundError."""
        if destination_id not in self._destinations:
            raise NotFoundError("destination_not_found", f"there is no destination {destination_id!r}")
        return self._destinations[destination_id]

    def destinations(self) -> list[Destination]:
        """Return the destinations in order of creation."""
        return sorted(self._destinations.values(), key=lambda one: (one.created_ms, one.id))

    def shown(self, destination: Destination) -> dict[str, Any]:
        """Return a destination's settings as they may be shown: secrets masked."""
        return masked(destination.settings)

    def readable(self, destination: Destination) -> dict[str, Any]:
        """Return a destination's settings with its secrets readable, for its adapter alone."""
        return opened(self.adapter(destination.type), destination.settings, self._seal)

    def connection(self, connection_id: str) -> Connection:
        """Return a connection. Raises NotFoundError."""
        if connection_id not in self._connections:
            raise NotFoundError("connection_not_found", f"there is no connection {connection_id!r}")
        return self._connections[connection_id]

    def connections(self, *, destination: str | None = None, definition: int | None = None) -> list[Connection]:
        """Return the connections (of a destination, of a definition) in order of creation."""
        found = [
            one
            for one in self._connections.values()
            if destination in (None, one.destination) and definition in (None, one.definition)
        ]
        return sorted(found, key=lambda one: (one.created_ms, one.id))

    def connection_of(self, definition: int, destination_id: str) -> Connection:
        """Return the connection of a definition to a destination. Raises NotFoundError."""
        for one in self.connections(destination=destination_id, definition=definition):
            return one
        raise NotFoundError("connection_not_found", f"it is not connected to destination {destination_id!r}")

    # -- destinations ------------------------------------------------------------------------------------------------

    async def create_destination(
        self, *, type: str, name: str, source_id: str, settings: Mapping[str, Any], enabled: bool = True
    ) -> Destination:
        """Create a destination. Raises InvalidError naming the setting."""
        if len(self._destinations) >= DESTINATIONS_MAX:
            raise InvalidError("too_many_destinations", f"a space has at most {DESTINATIONS_MAX} destinations")
        now_ms = self._space.clock.now_ms()
        return await self._save_destination(
            Destination(
                id=self._new_id("dst"),
                type=self.adapter(type).type,
                name=checked_name(name or type),
                source_id=source_id,
                settings=self._sealed(type, settings, {}),
                enabled=enabled,
                created_ms=now_ms,
                updated_ms=now_ms,
                quiet_seq=0,
            )
        )

    def _sealed(self, destination_type: str, settings: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        check_size(settings, "settings")
        adapter = self.adapter(destination_type)
        stored = sealed(adapter, settings, self._seal, before)
        readable = opened(adapter, stored, self._seal)
        parse(adapter, readable)
        self._check(readable)
        return stored

    async def update_destination(
        self,
        destination_id: str,
        *,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        enabled: bool | None = None,
    ) -> Destination:
        """Change a destination; settings are replaced whole, a masked secret stays. Raises NotFoundError, InvalidError.

        While it is off nothing is sent and the log is not read; when it is on again the net change is sent.
        """
        before = self.destination(destination_id)
        changed = replace(before, updated_ms=self._space.clock.now_ms())
        if name is not None:
            changed = replace(changed, name=checked_name(name))
        if settings is not None:
            changed = replace(changed, settings=self._sealed(before.type, settings, before.settings))
        if enabled is not None:
            changed = replace(changed, enabled=enabled)
            if enabled and not before.enabled:
                changed = replace(changed, quiet_seq=self._space.log.last_seq, epoch=before.epoch + 1)
        return await self._save_destination(changed)

    async def delete_destination(self, destination_id: str) -> None:
        """Forget a destination and its connections. Raises NotFoundError."""
        self.destination(destination_id)
        gone = [f"c:{one.id}" for one in self.connections(destination=destination_id)]
        fact = DestinationDeleted(destination=destination_id)
        self._gone.add(destination_id)
        await self._record(fact, {f"{GONE}{destination_id}": None}, [f"d:{destination_id}", *gone])

    def gone(self) -> list[str]:
        """Return deleted destinations that rows are left of."""
        return sorted(self._gone)

    def cleaned(self, destination_id: str) -> None:
        """Take note that no rows are left of a deleted destination."""
        self._gone.discard(destination_id)

    async def copy_destination(
        self, destination_id: str, *, source_id: str | None = None, name: str | None = None, enabled: bool = True
    ) -> Destination:
        """Import an existing destination's configuration, its secrets too, into a new one.

        Nothing is connected to the new one, and it knows none of the lists that the other has made. Raises
        NotFoundError, InvalidError.
        """
        original = self.destination(destination_id)
        now_ms = self._space.clock.now_ms()
        return await self._save_destination(
            Destination(
                id=self._new_id("dst"),
                type=original.type,
                name=checked_name(original.name if name is None else name),
                source_id=source_id if source_id is not None else original.source_id,
                settings=original.settings,
                enabled=enabled,
                created_ms=now_ms,
                updated_ms=now_ms,
            )
        )

    # -- connections -------------------------------------------------------------------------------------------------

    async def connect(
        self,
        definition_id: str,
        destination_id: str,
        *,
        id_sync: Sequence[IdSync] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Connection:
        """Connect an audience or computed trait, or resume its paused connection.

        A resumed one keeps its settings where none are given; a new one is filled with the current members, if the
        definition includes historical data. Raises NotFoundError, InvalidError, and ConflictError: one configuration
        per destination type and audience.
        """
        definition = self._space.definition(definition_id).definition
        destination = self.destination(destination_id)
        adapter = self.adapter(destination.type)
        check_fit(adapter, definition)
        for other in self.connections(definition=definition.number):
            if other.destination == destination_id:
                if other.enabled:
                    raise ConflictError(
                        "already_connected", f"{definition.key} is connected to {destination.name!r} already"
                    )
                return await self.update_connection(
                    other.id,
                    id_sync=UNSET if id_sync is None else id_sync,
                    settings=UNSET if settings is None else settings,
                    enabled=True,
                )
            if self.destination(other.destination).type == destination.type:
                name = self.destination(other.destination).name
                raise ConflictError(
                    "type_connected",
                    f"{definition.key} is connected to {name!r}, another {destination.type} destination: "
                    "one configuration per destination type and audience",
                )
        if len(self._connections) >= CONNECTIONS_MAX:
            raise InvalidError("too_many_connections", f"a space has at most {CONNECTIONS_MAX} connections")
        now_ms = self._space.clock.now_ms()
        return await self._save_connection(
            Connection(
                id=self._new_id("con"),
                destination=destination_id,
                definition=definition.number,
                definition_id=definition.id,
                key=definition.key,
                kind=definition.kind,
                entity_type=definition.entity_type,
                settings=checked_connection_settings(settings or {}),
                id_sync=checked_id_sync(id_sync),
                created_ms=now_ms,
                updated_ms=now_ms,
                since_seq=self._space.log.last_seq,
                fill=definition.options.include_historical_data,
            )
        )

    async def update_connection(
        self,
        connection_id: str,
        *,
        id_sync: Sequence[IdSync] | UnsetType | None = UNSET,
        settings: Mapping[str, Any] | UnsetType = UNSET,
        enabled: bool | None = None,
    ) -> Connection:
        """Change a connection; what changes counts for what is sent from now on. Raises NotFoundError, InvalidError."""
        before = self.connection(connection_id)
        changed = replace(before, updated_ms=self._space.clock.now_ms())
        if id_sync is not UNSET:
            changed = replace(changed, id_sync=checked_id_sync(id_sync))
        if settings is not UNSET:
            changed = replace(changed, settings=checked_connection_settings(settings))
        if enabled is not None:
            changed = replace(changed, enabled=enabled)
            if enabled and not before.enabled:
                changed = replace(changed, quiet_seq=self._space.log.last_seq, epoch=before.epoch + 1)
        return await self._save_connection(changed)

    async def disconnect(self, connection_id: str) -> Connection:
        """Pause a connection, its settings kept; resumed, it sends only the net change. Raises NotFoundError."""
        return await self.update_connection(connection_id, enabled=False)

    async def remove(self, connection_id: str) -> None:
        """Forget a connection and its settings. Raises NotFoundError."""
        self.connection(connection_id)
        await self._record(ConnectionRemoved(connection=connection_id), {}, [f"c:{connection_id}"])

    async def resync(self, connection_id: str) -> Connection:
        """Send every current member (or value) again, and make a lost remote list anew. Raises NotFoundError."""
        before = self.connection(connection_id)
        return await self._save_connection(
            replace(
                before,
                refill=before.refill + 1,
                updated_ms=self._space.clock.now_ms(),
            )
        )
