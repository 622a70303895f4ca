"""CSV files and a PostgreSQL table, really written: by a file system and by a server of its own."""

import csv
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import asyncpg  # type: ignore[import-untyped]
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.delivery import Answer, Call, Destination
from adapters.destinations.csv_files import FOLDER, FileAsk, FileTransport, file_name
from adapters.destinations.postgres import POSTGRES, PostgresTransport, SqlAsk
from tests.destinations.test_catalog import call, talk

NAME = "db.turnout.test"
FILES = Destination(id="dst_1", type="csv", name="files", source_id="src", settings={})


def member(user: str, value: bool = True, **more: object) -> Call:
    return call("member", user, f"{user}@x.org", value, profile=f"use_{user}", **more)


def asked(*calls: Call) -> FileAsk:
    from adapters.destinations import DESTINATIONS

    (ask,), _ = talk(DESTINATIONS["csv"], calls)
    assert isinstance(ask, FileAsk)
    return ask


async def test_a_file_holds_the_current_members_after_each_sync(tmp_path: Path) -> None:
    write = FileTransport(tmp_path)
    path = tmp_path / FOLDER / "dst_1" / "big_spenders.csv"
    assert (await write(FILES, asked(member("ann"), member("bob"), member("=cmd")), ())).status == 200
    assert (await write(FILES, asked(member("ann", False), member("cat")), ())).status == 200
    assert (
        await write(FILES, asked(member("cat"), member("=cmd", False)), ())
    ).status == 200  # once more: no second row
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user_id"] for row in rows] == ["bob", "cat"]
    assert rows[0]["email"] == "bob@x.org"
    assert rows[0]["since"] == "2026-03-01T00:00:00.000Z"
    assert [one.name for one in path.parent.iterdir()] == ["big_spenders.csv"]


async def test_a_cell_that_a_spreadsheet_would_run_is_made_harmless(tmp_path: Path) -> None:
    write = FileTransport(tmp_path)
    await write(FILES, asked(member("=1+1"), call("member", "x", None, "=2", computation_class="trait")), ())
    text = (tmp_path / FOLDER / "dst_1" / "big_spenders.csv").read_text()
    assert "'=1+1" in text
    assert ",=" not in text


async def test_a_key_that_is_no_file_name_stays_in_its_folder() -> None:
    assert file_name("big_spenders") == "big_spenders.csv"
    for key in ("../../etc/passwd", "a/b", "", "ä" * 300, "con\x00"):
        name = file_name(key)
        assert "/" not in name
        assert len(name) < 100


async def test_a_full_or_forbidden_folder_is_tried_again(tmp_path: Path) -> None:
    blocked = tmp_path / "data"
    blocked.write_text("a file where a folder should be")
    answer = await FileTransport(blocked)(FILES, asked(member("ann")), ())
    assert (answer.status, answer.again) == (0, True)


# -- PostgreSQL ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a server of our own while the tests last."""
    debian = [str(one) for one in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = os.pathsep.join([os.environ.get("PATH", ""), *debian])  # Debian's package puts them where no PATH leads
    initdb, server = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    if initdb is None or server is None:
        pytest.skip("no initdb and postgres in PATH or /usr/lib/postgresql: install the package postgresql")
    folder = tmp_path_factory.mktemp("postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = None
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        folder.parent.chmod(0o755)
        for parent in folder.parents:
            if parent.is_relative_to("/tmp") and parent != Path("/tmp"):  # noqa: S108 - pytest's own folders
                parent.chmod(0o755)
        user = "nobody"
    data = folder / "data"
    certified(folder, user)
    made = subprocess.run(
        [initdb, "-D", str(data), "-U", "crm", "-A", "trust", "--no-sync"], capture_output=True, check=False, user=user
    )
    if made.returncode:
        pytest.skip(f"initdb failed: {made.stderr.decode()[:200]}")
    tls = [f"-cssl_{name}_file={folder / name}.pem" for name in ("cert", "key")]
    options = [
        "-c",
        "ssl=on",
        *tls,
        "-c",
        "fsync=off",
        "-c",
        f"port={port}",
        "-c",
        "listen_addresses=127.0.0.1",
        "-k",
        str(folder),
    ]
    running = subprocess.Popen(
        [server, "-D", str(data), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"postgres://crm@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
def root(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the certificate of the authority that vouches for the server."""
    return next(tmp_path_factory.getbasetemp().glob("postgres*/root.pem"))


def certified(folder: Path, owner: str | None) -> None:
    """Write an authority's certificate, and a key with a certificate for the name of the database."""
    year = timedelta(days=365)
    now = datetime.now(UTC)

    def issued(name: str, key: ec.EllipticCurvePrivateKey, by: tuple[str, ec.EllipticCurvePrivateKey]) -> bytes:
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, by[0]))
        made = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now, now + year)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=name == by[0], path_length=None), critical=True)
        return made.sign(by[1], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "root.pem").write_bytes(issued("authority", authority, ("authority", authority)))
    (folder / "cert.pem").write_bytes(issued(NAME, own, ("authority", authority)))
    plain = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(own.private_bytes(serialization.Encoding.PEM, plain[1], plain[0]))
    (folder / "key.pem").chmod(0o600)
    if owner is not None:
        shutil.chown(folder / "key.pem", owner)


DATABASE = Destination(id="dst_2", type="postgres", name="db", source_id="src", settings={})


async def write(url: str, *calls: Call, table: str = "members") -> Answer:
    """Send calls to a database."""
    transport = PostgresTransport(allow_private=True)
    try:
        (ask,), _ = talk(POSTGRES, calls, url=url, table=table)
        for _ in range(50):
            answer = await transport(DATABASE, ask, calls)
            if not (answer.status == 503 or (answer.status == 0 and answer.again)):
                return answer
            time.sleep(0.05)  # noqa: ASYNC251 - the server is still starting
        return answer
    finally:
        await transport.close()


async def rows_of(url: str, table: str = "members") -> list[tuple[str, str]]:
    """Return (user_id, value) of a table, in order."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(f"SELECT user_id, value::text FROM {table} ORDER BY 1")]
    finally:
        await connection.close()


async def test_a_table_is_made_and_kept_in_step(postgres: str) -> None:
    assert (await write(postgres, member("ann"), member("bob"), member("cat"))).status == 200
    assert await rows_of(postgres) == [("ann", "true"), ("bob", "true"), ("cat", "true")]
    assert (await write(postgres, member("bob", False), member("ann"))).status == 200
    assert await rows_of(postgres) == [("ann", "true"), ("cat", "true")]
    trait = call("member", "ann", None, 4.5, computation_class="trait", key="ltv")
    gone = call("member", "cat", "cat@x.org", False, profile="use_cat")
    assert (await write(postgres, trait, gone)).status == 200
    assert await rows_of(postgres) == [("ann", "true"), ("ann", "4.5")] or await rows_of(postgres) == [
        ("ann", "4.5"),
        ("ann", "true"),
    ]


async def test_an_error_of_the_server_is_final_and_its_absence_is_not(postgres: str) -> None:
    connection = await asyncpg.connect(postgres)
    await connection.execute("CREATE TABLE odd (key int)")
    await connection.close()
    answer = await write(postgres, member("ann"), table="odd")
    assert answer.status == 400
    assert b"42703" in answer.body  # undefined column
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    transport = PostgresTransport(allow_private=True)
    nobody = await transport(DATABASE, SqlAsk(url=f"postgres://crm@127.0.0.1:{port}/x", table="t"), ())
    assert (nobody.status, nobody.again) == (0, True)
    await transport.close()


class Names(AbstractResolver):
    """Knows the database's name, and another that leads to it; nobody else does."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the address."""
        assert host in {NAME, f"not-{NAME}"}, host
        at = {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [cast(ResolveResult, at)]

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("mode", "name", "trusts", "works"),
    [
        ("verify-full", NAME, True, True),
        ("verify-full", f"not-{NAME}", True, False),
        ("verify-full", NAME, False, False),
        ("verify-ca", f"not-{NAME}", True, True),
        ("verify-ca", NAME, False, False),
        ("require", f"not-{NAME}", False, True),
    ],
)
async def test_a_certificate_is_checked_by_its_name_and_the_address_connected_to_is_the_one_looked_at(
    postgres: str, root: Path, monkeypatch: pytest.MonkeyPatch, mode: str, name: str, trusts: bool, works: bool
) -> None:
    await write(postgres, member("ann"), table="guarded")  # the server has started
    monkeypatch.setenv("PGSSLROOTCERT", str(root) if trusts else "")
    monkeypatch.setenv("HOME", str(root.parent / "nowhere"))
    url = f"{postgres.replace('127.0.0.1', name)}?sslmode={mode}"  # a name that the system cannot resolve
    transport = PostgresTransport(allow_private=True, resolver=Names())
    answer = await transport(DATABASE, SqlAsk(url=url, table="guarded"), ())
    await transport.close()
    assert (answer.status == 200) == works, answer
    assert works or "CERTIFICATE_VERIFY_FAILED" in answer.error


async def test_a_name_with_a_good_certificate_that_leads_to_a_private_address_is_refused(
    postgres: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(root))
    url = f"{postgres.replace('127.0.0.1', NAME)}?sslmode=verify-full"
    transport = PostgresTransport(allow_private=False, resolver=Names())
    answer = await transport(DATABASE, SqlAsk(url=url, table="guarded"), ())
    assert (answer.status, answer.again) == (0, False)
    assert "is not a public address" in answer.error
    await transport.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgres://db.example.com/x?sslmode=verify-none",
        "postgres://crm@127.0.0.1/x",
        "postgres:///x?host=/var/run/postgresql",
        "postgres://db.example.com/x?passfile=/etc/passwd",
        "postgres://db.example.com/x?host=10.0.0.1",
    ],
)
async def test_a_private_database_and_options_that_name_files_are_refused(url: str) -> None:
    transport = PostgresTransport(allow_private=False)
    answer = await transport(DATABASE, SqlAsk(url=url, table="t"), ())
    assert (answer.status, answer.again) == (0, False)
    await transport.close()
