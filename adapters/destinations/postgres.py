"""PostgreSQL: a table kept in step, a row per member (or value) and set of ids.

The table is made if it is not there: `key, profile, ids, user_id, anonymous_id, email, group_id, value, since,
message_id`, its primary key `(key, profile, ids)`. An entry or a new value writes the row, an exit or a value gone
deletes it; a batch is one transaction. Needs asyncpg (https://magicstack.github.io/asyncpg/current/, read 2026-11-24),
installed by `pip install turnout[postgres]`. Errors of the connection, and those that the server calls passing
(classes 08, 40, 53, 57 of https://www.postgresql.org/docs/current/errcodes-appendix.html), are tried again; a batch
that is refused otherwise is tried row by row. Connections go to the address that was looked at. A certificate
(`sslmode=verify-full`) is checked against the name all the same, by the authorities in `PGSSLROOTCERT` or
`~/.postgresql/root.crt`, else by those that this machine knows.
"""

import importlib
import os
import socket
import ssl
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp.abc import AbstractResolver
from msgspec import Meta, json

from actors.delivery import (
    Adapter,
    Answer,
    Ask,
    Call,
    CommonSettings,
    Context,
    Conversation,
    Destination,
    Done,
    Shown,
    overall,
)
from actors.delivery_ids import ids_key
from actors.delivery_retry import judge
from actors.delivery_settings import Secret
from adapters.net import GuardedResolver, PrivateAddressError

ROWS_MAX: Final = 500  # a transaction
POOL_MAX: Final = 4  # connections to one database
PORT: Final = 5432
MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
CHECKED: Final = ("verify-ca", "verify-full")
OPTIONS: Final = frozenset({"sslmode"})  # others name files and sockets of this machine
PASSING: Final = ("08", "40", "53", "57")  # error classes
COLUMNS: Final = "key, profile, ids, user_id, anonymous_id, email, group_id, value, since, message_id"

TableName = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$")]


class PostgresSettings(CommonSettings, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The database's address, password and all, and the table."""

    url: Annotated[Secret, Meta(pattern=r"^postgres(ql)?://")]
    table: TableName = "turnout_members"


class SqlAsk(Ask, frozen=True, kw_only=True):
    """Rows to write and to delete, in one transaction."""

    url: str
    table: str
    puts: tuple[tuple[Any, ...], ...] = ()
    takes: tuple[tuple[str, str, str], ...] = ()
    timeout_s: float = 15.0

    def shown(self) -> Shown:
        """Return it as it may be shown: the address is secret, a password is in it."""
        return Shown("SQL", self.table, body=f"{len(self.puts)} rows to write, {len(self.takes)} to delete".encode())


def row(call: Call) -> tuple[Any, ...]:
    """Return a call as a row."""
    return (
        call.key,
        call.profile,
        ids_key(call.ids),
        call.user_id,
        call.anonymous,
        call.email,
        call.group_id,
        json.encode(call.value).decode(),
        call.at_ms / 1000,
        call.id,
    )


def deliver(context: Context, calls: tuple[Call, ...]) -> Conversation:
    """Write and delete rows; of calls for the same row the last one counts."""
    settings: PostgresSettings = context.settings
    newest = {(call.key, call.profile, ids_key(call.ids)): call for call in calls}
    gone = {place for place, call in newest.items() if call.value is None or call.value is False}
    ask = SqlAsk(
        url=settings.url,
        table=settings.table,
        puts=tuple(row(call) for place, call in newest.items() if place not in gone),
        takes=tuple(sorted(gone)),
        timeout_s=context.timeout_s,
    )
    answer = yield ask
    return Done(overall(judge(answer, context.now_ms), len(calls)))


def ping(context: Context) -> Conversation:
    """Make the table if it is not there."""
    settings: PostgresSettings = context.settings
    answer = yield SqlAsk(url=settings.url, table=settings.table, timeout_s=context.timeout_s)
    return Done((judge(answer, context.now_ms),))


class NamedContext(ssl.SSLContext):
    """Checks a certificate against a name, whichever address is connected to: as `hostaddr` does beside `host`."""

    name: str

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin TLS: the name that is given here is the address."""
        return super().wrap_bio(incoming, outgoing, server_side, self.name, session)


def checking(name: str, *, is_full: bool) -> NamedContext:
    """Return what TLS certificates are checked by; raises OSError where the authorities' file cannot be read.

    Args:
        name: the name in the database's address.
        is_full: whether the certificate has to be for that name.
    """
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.check_hostname = is_full
    own = Path(os.environ.get("PGSSLROOTCERT", "") or Path("~/.postgresql/root.crt").expanduser())
    if own.exists():
        context.load_verify_locations(cafile=own)
    else:
        context.load_default_certs()
    return context


class PostgresTransport:
    """Performs SQL, with a few connections to each database."""

    def __init__(self, *, allow_private: bool, resolver: AbstractResolver | None = None) -> None:
        self._resolver = GuardedResolver(allow_private=allow_private, inner=resolver)
        self._pools: dict[str, Any] = {}
        self._made: set[tuple[str, str]] = set()

    async def __call__(self, destination: Destination, ask: Ask, calls: tuple[Call, ...]) -> Answer:
        """Perform one transaction."""
        assert isinstance(ask, SqlAsk), ask
        try:
            asyncpg = importlib.import_module("asyncpg")
        except ImportError:
            return Answer(status=0, error="asyncpg is not installed: pip install turnout[postgres]", again=False)
        try:
            pool = await self._pool(asyncpg, ask)
            async with pool.acquire(timeout=ask.timeout_s) as connection, connection.transaction():
                await self._perform(connection, ask)
            self._made.add((ask.url, ask.table))
        except PrivateAddressError as error:
            return Answer(status=0, error=str(error), again=False)
        except asyncpg.PostgresError as error:
            code = error.sqlstate or ""
            status = 503 if code[:2] in PASSING else 400
            return Answer(status=status, body=f"{code} {error}".encode())
        except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
            self._drop(ask.url)
            return Answer(status=0, error=f"{type(error).__name__}: {error}", again=True)
        except ValueError as error:
            return Answer(status=0, error=f"not a database's address: {error}", again=False)
        return Answer(status=200)

    async def _pool(self, asyncpg: Any, ask: SqlAsk) -> Any:
        """Connect to the address that was looked at; its certificate, where that is to be checked, is for its name."""
        if ask.url in self._pools:
            return self._pools[ask.url]
        parts = urlsplit(ask.url)
        options = dict(parse_qsl(parts.query))
        if not parts.hostname or not options.keys() <= OPTIONS:
            raise ValueError("a database's address names a host, and no option but sslmode")
        mode = options.get("sslmode", "prefer")
        if mode not in MODES:
            raise ValueError(f"sslmode is {mode[:20]!r}, not one of {', '.join(MODES)}")
        port = parts.port or PORT
        found = await self._resolver.resolve(parts.hostname, port, socket.AF_UNSPEC)
        hosts = list(dict.fromkeys(one["host"] for one in found))
        pinned: dict[str, Any] = {"host": hosts, "port": [port] * len(hosts)}
        if mode in CHECKED:
            pinned["ssl"] = checking(parts.hostname, is_full=mode == "verify-full")
        self._pools[ask.url] = await asyncpg.create_pool(
            ask.url, min_size=0, max_size=POOL_MAX, timeout=ask.timeout_s, command_timeout=ask.timeout_s, **pinned
        )
        return self._pools[ask.url]

    def _drop(self, url: str) -> None:
        """Let go of a pool whose connections failed: the name may lead elsewhere by now."""
        pool = self._pools.pop(url, None)
        if pool is not None:
            pool.terminate()

    async def _perform(self, connection: Any, ask: SqlAsk) -> None:
        if (ask.url, ask.table) not in self._made:
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {ask.table} (key text NOT NULL, profile text NOT NULL, ids text NOT NULL, "
                "user_id text, anonymous_id text, email text, group_id text, value jsonb NOT NULL, "
                "since timestamptz NOT NULL, message_id text NOT NULL, PRIMARY KEY (key, profile, ids))"
            )
        if ask.takes:
            await connection.executemany(
                f"DELETE FROM {ask.table} WHERE key = $1 AND profile = $2 AND ids = $3",  # noqa: S608 - checked name
                ask.takes,
            )
        if ask.puts:
            await connection.executemany(
                f"INSERT INTO {ask.table} ({COLUMNS}) "  # noqa: S608 - the table's name is checked by its pattern
                "VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, to_timestamp($9), $10) "
                "ON CONFLICT (key, profile, ids) DO UPDATE SET user_id = EXCLUDED.user_id, "
                "anonymous_id = EXCLUDED.anonymous_id, email = EXCLUDED.email, group_id = EXCLUDED.group_id, "
                "value = EXCLUDED.value, since = EXCLUDED.since, message_id = EXCLUDED.message_id",
                ask.puts,
            )

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.terminate()
        self._pools.clear()


POSTGRES = Adapter(
    type="postgres",
    title="PostgreSQL",
    page="https://magicstack.github.io/asyncpg/current/",
    settings=PostgresSettings,
    deliver=deliver,
    ping=ping,
    kinds=("member", "group"),
    rate_per_s=50.0,  # ours: transactions of at most 500 rows
    concurrency=POOL_MAX,
    batch_max=ROWS_MAX,
    together=True,
)
