"""CSV files and a PostgreSQL table, really written: by a file system and by a server of its own."""

import csv
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from actors.delivery import Answer, Call, Destination
from adapters.destinations.csv_files import FOLDER, FileAsk, FileTransport, file_name
from adapters.destinations.postgres import POSTGRES, PostgresTransport, SqlAsk
from tests.destinations.test_catalog import call, talk

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
    made = subprocess.run(
        [initdb, "-D", str(data), "-U", "crm", "-A", "trust", "--no-sync"], capture_output=True, check=False, user=user
    )
    if made.returncode:
        pytest.skip(f"initdb failed: {made.stderr.decode()[:200]}")
    options = ["-c", "fsync=off", "-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-k", str(folder)]
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


@pytest.mark.parametrize(
    "url",
    [
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
