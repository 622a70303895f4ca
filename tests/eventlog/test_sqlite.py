"""The log's file under attack: torn, cut short, replaced, full, locked, killed, its power lost."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest

from eventlog import sqlite as sqlite_module
from eventlog import sqlite_file
from eventlog.entries import Commit
from eventlog.erasure import erase_entities
from eventlog.errors import LogCorruptError, LogError, LogFullError
from eventlog.log import META, Changes
from eventlog.sqlite import SqliteLog
from eventlog.sqlite_errors import log_error
from tests.eventlog.worlds import chance, commit, commits, event


@asynccontextmanager
async def opened(path: Path, *, read_only: bool = False) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(path, read_only)
    try:
        yield log
    finally:
        await log.close()


async def written(path: Path, *made: Commit) -> None:
    async with opened(path) as log:
        for one in made:
            await log.append([one], [Changes("p", one.last_seq, puts=((META, [(("a",), b"x")]),))])


async def test_a_table_of_before_a_release_goes_when_its_log_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    await written(path, *commits(3))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE t_history (k0 INTEGER, k1 INTEGER, value BLOB, PRIMARY KEY (k0, k1)) WITHOUT ROWID"
        )
        connection.commit()
    async with opened(path) as log:
        assert log.last_seq == commits(3)[-1].last_seq
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "t_history" not in tables
    assert "t_history_runs" in tables


# -- damage ----------------------------------------------------------------------------------------------------------


async def test_a_torn_byte_is_an_error_and_never_an_answer(tmp_path: Path) -> None:
    """Wherever a byte is turned over: the log reads as it was, or it is known to be corrupt."""
    made = commits(3, 0, 300, 1, 40)
    path = tmp_path / "space.log"
    await written(path, *made)
    whole = path.read_bytes()
    dice = chance(7)
    tried = found = 0
    for at in sorted({*range(120), *(dice.randrange(len(whole)) for _ in range(250))}):
        tried += 1
        torn = bytearray(whole)
        torn[at] ^= 1 << dice.randrange(8)
        path.write_bytes(torn)
        try:
            async with opened(path) as log:
                assert list(log.read()) == made, at
                tried -= 1
        except LogError as error:
            found += str(path) in str(error)  # every message says which file
        for rest in ("-wal", "-shm"):
            path.with_name(path.name + rest).unlink(missing_ok=True)
    assert found == tried > 40


async def test_a_torn_body_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    await written(path, commit(1, 3), commit(4, 1), commit(5, 1))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE packs SET body = zeroblob(length(body)) WHERE first_seq = 4")
        connection.commit()
    async with opened(path) as log:
        with pytest.raises(LogCorruptError, match=r"space\.log: the pack at entry 4 has a wrong checksum"):
            list(log.read())
        with pytest.raises(LogCorruptError, match="entry 4"):
            list(log.scan(None))
        assert [c.first_seq for c in log.read(4)] == [5]


@pytest.mark.parametrize("gone", [1, 4, 5, 9])
async def test_a_missing_commit_is_an_error(tmp_path: Path, gone: int) -> None:
    path = tmp_path / "space.log"
    await written(path, commit(1, 3), commit(4, 1), commit(5, 4), commit(9, 2))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM packs WHERE first_seq = ?", (gone,))
        connection.commit()
    with pytest.raises(LogCorruptError, match=r"space\.log: .*(missing|ends at entry 8)"):
        async with opened(path) as log:
            list(log.read())
    with pytest.raises(LogCorruptError):
        async with opened(path) as log:
            list(log.scan_columns(None))


async def test_a_commit_without_its_last_pack_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    async with opened(path) as log:
        await log.append([commit(1, 1600)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM packs WHERE first_seq > 1500")
        connection.commit()
    with pytest.raises(LogCorruptError, match="not whole"):
        await SqliteLog.open(path)


async def test_a_file_cut_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    await written(path, *commits(3, 600, 1, 700, 2))
    whole = path.read_bytes()
    dice = chance(3)
    for size in sorted({0, 1, 99, 100, 8191, 8192, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(20))}):
        path.write_bytes(whole[:size])
        with pytest.raises(LogCorruptError, match=r"space\.log"):
            await SqliteLog.open(path)


@pytest.mark.parametrize("content", [b"Dear diary", b"\x00" * 5000, b""])
async def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "space.log"
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(LogCorruptError, match=r"space\.log"):
            await SqliteLog.open(path, read_only)
        assert path.read_bytes() == content


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(LogCorruptError, match="not a Turnout log"):
        await SqliteLog.open(path)
    assert path.read_bytes() == before


async def test_a_log_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    await written(path, commit(1, 1))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LogError, match="format 99"):
        await SqliteLog.open(path)


async def test_a_log_whose_file_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    (tmp_path / "space.log-wal").write_bytes(b"x" * 100)
    with pytest.raises(LogCorruptError, match="is gone"):
        await SqliteLog.open(path)
    assert not path.exists()


async def test_a_half_made_file_of_a_crash_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    (tmp_path / "space.log.partial").write_bytes(b"half")
    await written(path, commit(1, 1))
    async with opened(path) as log:
        await log.check()


async def test_a_check_reads_everything(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    await written(path, commit(1, 3), commit(4, 1), commit(5, 1))
    async with opened(path) as log:
        await log.check()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE packs SET body = zeroblob(length(body)) WHERE first_seq = 4")
        connection.commit()
    async with opened(path) as log:
        with pytest.raises(LogCorruptError, match="entry 4"):
            await log.check()


# -- power and processes ---------------------------------------------------------------------------------------------


async def test_every_append_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    async with opened(tmp_path / "space.log") as log:
        assert log._writer is not None
        async with log._writer.execute("PRAGMA synchronous") as cursor:
            assert await cursor.fetchone() == (2,)  # FULL: the WAL is synced at each commit
        async with log._writer.execute("PRAGMA journal_mode") as cursor:
            assert await cursor.fetchone() == ("wal",)


#  WAL  [ack 1][ack 2][ack 3][...not synced...]   lost, cut or garbled behind any acknowledgement
@pytest.mark.parametrize("checkpoint_pages", [4096, 6])
async def test_power_lost_after_an_acknowledgement_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_pages: int
) -> None:
    """At each acknowledgement the file is synced up to its WAL's end; what follows may be lost, cut or garbled."""
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_PAGES", checkpoint_pages)
    made = commits(1, 3, 0, 200, 1, 600, 2, 0, 40, 1)
    path = tmp_path / "space.log"
    wal = tmp_path / "space.log-wal"
    moments: list[tuple[bytes, bytes, int]] = []
    async with opened(path) as log:
        for one in made:
            await log.append([one], [Changes("p", one.last_seq, puts=((META, [(("a",), b"%d" % one.last_seq)]),))])
            moments.append((path.read_bytes(), wal.read_bytes(), one.last_seq))
    dice = chance(11)
    for number, (database, synced, acknowledged) in enumerate(moments):
        later = moments[min(number + 1, len(moments) - 1)][1]
        tail = later[len(synced) :] if later[: len(synced)] == synced else b""
        tails = [b"", tail[: dice.randrange(len(tail) + 1)], dice.randbytes(dice.randrange(9000))]
        for number_of_tail, unsynced in enumerate(tails):
            after = tmp_path / f"after-{number}-{number_of_tail}" / "space.log"
            after.parent.mkdir()
            after.write_bytes(database)
            after.with_name("space.log-wal").write_bytes(synced + unsynced)
            async with opened(after) as log:
                assert log.last_seq >= acknowledged
                assert list(log.read()) == made[: len(list(log.read()))]
                assert log.cursor("p") == log.last_seq
                assert log.get(META, ("a",)) == b"%d" % log.last_seq
                await log.append([commit(log.last_seq + 1, 1)])
            shutil.rmtree(after.parent)


async def test_a_wal_cut_anywhere_leaves_the_commits_before_the_cut(tmp_path: Path) -> None:
    made = commits(1, 3, 0, 200, 1, 2)
    path = tmp_path / "space.log"
    wal = tmp_path / "space.log-wal"
    ends: list[tuple[int, int]] = []
    async with opened(path) as log:
        for one in made:
            await log.append([one])
            ends.append((wal.stat().st_size, one.last_seq))
        database, whole = path.read_bytes(), wal.read_bytes()
    dice = chance(5)
    for cut in sorted({end for end, _ in ends} | {dice.randrange(len(whole)) for _ in range(40)}):
        path.write_bytes(database)
        wal.write_bytes(whole[:cut])
        async with opened(path) as log:
            expected = max((seq for end, seq in ends if end <= cut), default=0)
            assert log.last_seq == expected
            assert list(log.read()) == [one for one in made if one.last_seq <= expected]


WRITE = """
import sys, anyio
from eventlog.sqlite import SqliteLog
from tests.eventlog.worlds import commit
async def main():
    log = await SqliteLog.open(sys.argv[1])
    while True:
        await log.append([commit(log.last_seq + 1, 5)])
        print(log.last_seq, flush=True)
anyio.run(main)
"""


def killable(path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE)


async def test_a_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    for enough in (5, 60):
        process = killable(path)
        assert process.stdout is not None
        acknowledged = 0
        for line in process.stdout:
            acknowledged = int(line)
            enough -= 1
            if not enough:
                break
        process.kill()
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        acknowledged = int(rest[-1]) if rest else acknowledged
        async with opened(path) as log:
            assert log.last_seq >= acknowledged
            assert [e.seq for c in log.read() for e in c.events] == list(range(1, log.last_seq + 1))


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a file system of 1 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


async def test_a_full_disk_stores_nothing_and_works_again_when_there_is_space(small_disk: Path) -> None:
    path = small_disk / "space.log"
    ballast = small_disk / "ballast"
    dice = chance(1)
    async with opened(path) as log:
        await log.append([commit(1, 3)])
        ballast.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 64 * 1024))
        large = tuple(event(4 + i, body=dice.randbytes(30_000)) for i in range(20))
        for _ in range(3):
            with pytest.raises(LogFullError, match="full"):
                await log.append([Commit(4, 0, large)], [Changes("p", 4, puts=((META, [(("a",), b"x")]),))])
            assert log.last_seq == 3
            assert log.get(META, ("a",)) is None
            assert [c.last_seq for c in log.read()] == [3]
        with pytest.raises(LogFullError):
            await log.store([Changes("p", 3, puts=((META, [(("a",), dice.randbytes(600_000))]),))])
        ballast.unlink()
        await log.append([commit(4, 2)])
    async with opened(path) as log:
        assert [e.seq for c in log.read() for e in c.events] == [1, 2, 3, 4, 5]
        await log.check()


async def test_a_log_at_its_largest_size_is_full(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    async with opened(path) as log:
        await log.append([commit(1, 3)])
        assert log._writer is not None
        await log._writer.execute("PRAGMA max_page_count = 20")

        async def fill() -> None:
            for _ in range(50):
                await log.append([commit(log.last_seq + 1, 400)])

        with pytest.raises(LogFullError):
            await fill()
        reached = log.last_seq
        await log._writer.execute("PRAGMA max_page_count = 1000000")
        await log.append([commit(reached + 1, 400)])
        assert [e.seq for c in log.read() for e in c.events] == list(range(1, reached + 401))


# -- errors ----------------------------------------------------------------------------------------------------------

RESULT_CODES = {
    getattr(sqlite3, name): name
    for name in dir(sqlite3)
    if name.startswith("SQLITE_")
    and name.removeprefix("SQLITE_")
    in (
        "ERROR INTERNAL PERM ABORT BUSY LOCKED NOMEM READONLY INTERRUPT IOERR CORRUPT NOTFOUND FULL CANTOPEN PROTOCOL "
        "EMPTY SCHEMA TOOBIG CONSTRAINT MISMATCH MISUSE NOLFS AUTH FORMAT RANGE NOTADB"
    ).split()
}
MEANT = {"FULL": LogFullError, "CORRUPT": LogCorruptError, "NOTADB": LogCorruptError, "FORMAT": LogCorruptError}


def all_subclasses(cls: type[Exception]) -> set[type[Exception]]:
    return {cls}.union(*(all_subclasses(one) for one in cls.__subclasses__()))


def test_every_error_class_of_sqlite_becomes_ours(tmp_path: Path) -> None:
    classes = all_subclasses(sqlite3.Error) | all_subclasses(sqlite3.Warning)
    assert len(classes) >= 10
    for cls in classes:
        ours = log_error(cls("what it says"), tmp_path / "space.log")
        assert type(ours) is LogError
        assert "space.log" in str(ours)
        assert "what it says" in str(ours)


@pytest.mark.parametrize("code", sorted(RESULT_CODES), ids=RESULT_CODES.get)
@pytest.mark.parametrize("extended", [0, 1 << 8, 3 << 8])
def test_every_result_code_of_sqlite_becomes_the_error_that_is_meant(tmp_path: Path, code: int, extended: int) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code | extended
    error.sqlite_errorname = RESULT_CODES[code]
    assert len(RESULT_CODES) == 26
    assert type(log_error(error, tmp_path / "space.log")) is MEANT.get(RESULT_CODES[code][7:], LogError)


async def test_an_append_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    async with opened(path) as log:
        await log.append([commit(1, 1)])
        broken = Changes("p", 2, puts=((META, [(("a",), b"x"), (("b",), None)]),))  # type: ignore[list-item]
        with pytest.raises(LogError, match="NOT NULL"):
            await log.append([commit(2, 1)], [broken])
        assert log.last_seq == 1
        assert log.get(META, ("a",)) is None
        await log.append([commit(2, 3)])
    async with opened(path) as log:
        assert [c.last_seq for c in log.read()] == [1, 4]
        assert log.cursor("p") == 0


async def test_a_locked_file_is_an_error_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "space.log"
    async with opened(path) as log:
        await log.append([commit(1, 1)])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogError, match="another process is using it"):
                await log.append([commit(2, 1)])
        await log.append([commit(2, 1)])


async def test_after_a_failed_sync_the_log_has_to_be_opened_anew(tmp_path: Path) -> None:
    """Nobody knows what such a write left on the disk."""
    path = tmp_path / "space.log"

    def fail(_: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    async with opened(path) as log:
        await log.append([commit(1, 1)])
        with pytest.raises(LogError):
            await log._write(fail)
        with pytest.raises(LogError, match="open the log anew"):
            await log.append([commit(2, 1)])
    async with opened(path) as log:
        await log.append([commit(2, 1)])


async def test_a_closed_log_and_a_read_only_one_say_so(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    with pytest.raises(LogError, match="no such log"):
        await SqliteLog.open(path, read_only=True)
    await written(path, commit(1, 2))
    async with opened(path, read_only=True) as log:
        assert log.last_seq == 2
        assert len(list(log.read())) == 1
        with pytest.raises(LogError, match="reading only"):
            await log.append([commit(3, 1)])
    log = await SqliteLog.open(path)
    await log.close()
    await log.close()
    with pytest.raises(LogError, match="closed"):
        await log.append([commit(3, 1)])
    with pytest.raises(LogError, match="closed"):
        log.get(META, ("a",))


# -- erasure, compaction, backup -------------------------------------------------------------------------------------


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def bytes_in(directory: Path, secret: bytes) -> bool:
    return any(secret in path.read_bytes() for path in directory.iterdir())


async def test_erased_bytes_are_gone_from_the_files(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    secret = b"ann@example.com"
    async with opened(path) as log:
        for _ in range(30):
            seq = log.last_seq + 1
            body = b'{"email":"%s"}' % secret
            events = (event(seq, profile=7, name=secret.decode(), body=body), event(seq + 1, profile=8))
            await log.append([Commit(seq, seq, events)])
        await log.store([Changes("p", 1, puts=((META, [((f"k{i}",), secret) for i in range(100)]),))])
        assert bytes_in(tmp_path, secret)
        await log.store([Changes("p", 1, deletes=((META, [(f"k{i}",) for i in range(100)]),))])
        assert await erase_entities(log, {7}) == 30
        assert not bytes_in(tmp_path, secret)
        assert sum(len(some) for some in log.scan(None)) == 30
    assert not bytes_in(tmp_path, secret)


async def test_deleted_rows_are_gone_from_the_files_once_scrubbed(tmp_path: Path) -> None:
    secret = b"ann@example.com"
    async with opened(tmp_path / "space.log") as log:
        await log.append([commit(1, 1)])
        await log.store([Changes("p", 1, puts=((META, [((f"k{i}",), secret * 50) for i in range(500)]),))])
        await log.store([Changes("p", 1, deletes=((META, [(f"k{i}",) for i in range(500)]),))])
        assert bytes_in(tmp_path, secret)
        await log.scrub()
        assert not bytes_in(tmp_path, secret)


async def test_compaction_gives_space_back(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    dice = chance(2)
    async with opened(path) as log:
        await log.append(
            [Commit(1, 0, tuple(event(1 + i, profile=7, body=dice.randbytes(20_000)) for i in range(100)))]
        )
        await log.append([commit(101, 20)])
        await erase_entities(log, {7})
        before = path.stat().st_size
        await log.compact()
        assert path.stat().st_size < before / 4
        assert (tmp_path / "space.log-wal").stat().st_size == 0
        await log.check()
        await log.append([commit(121, 1)])


async def test_a_backup_is_whole_while_the_log_is_written(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    async with opened(path) as log:
        await log.append(commits(400, 3, 0, 700))
        before = log.last_seq
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.backup, tmp_path / "copy.log")
            for _ in range(20):
                await log.append([commit(log.last_seq + 1, 20)])
        with pytest.raises(LogError, match="there already"):
            await log.backup(tmp_path / "copy.log")
        async with opened(tmp_path / "copy.log") as copy:
            assert copy.last_seq >= before
            assert list(copy.read()) == list(log.read(0, copy.last_seq))
            await copy.check()
    assert not [name for name in names_in(tmp_path) if ".partial" in name]


async def test_a_backup_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "space.log"
    async with opened(path) as log:
        await log.append([commit(1, 2)])
        with pytest.raises(LogError):
            await log.backup(tmp_path / "none" / "copy.log")
    assert names_in(tmp_path) == ["space.log"]


async def test_a_follower_that_lags_far_behind_reads_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "RECENT_ENTRIES_MAX", 10)
    made = commits(*([3] * 20))
    async with opened(tmp_path / "space.log") as log:
        await log.append(made)
        got = []
        with anyio.fail_after(5):
            async for one in log.follow():
                got.append(one)
                if len(got) == 10:
                    made += commits(4, first_seq=log.last_seq + 1)
                    await log.append(made[-1:])
                if len(got) == len(made):
                    break
        assert got == made
