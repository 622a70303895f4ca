"""A backup taken while events come in holds every event acknowledged before it began, and is sound."""

from itertools import count
from pathlib import Path

import anyio
import anyio.to_thread

from adapters.cli.copies import backup, restore
from adapters.cli.options import Folder
from adapters.cli.replaying import replayed
from adapters.cli.terminal import bar
from adapters.config import Settings
from adapters.daemon import running
from adapters.opening import open_data
from eventlog.clock import WallClock
from tests.privacy.test_daemon import ANN, Console, console, entries_with

EVENTS_BEFORE = 400


async def test_a_backup_under_load_restores_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    is_full = anyio.Event()
    file = tmp_path / "backup.tar.zst"
    async with running(Settings(data=str(tmp_path / "data"), port=0)) as daemon, console(daemon) as admin:
        await admin.lived()

        async def pour(source: int) -> None:
            for number in count():
                ids = [f"m-{source}-{number}-{n}" for n in range(20)]
                calls = [
                    {"type": "track", "userId": f"u{n % 7}", "event": "Order Completed", "messageId": one}
                    for n, one in enumerate(ids)
                ]
                answer = await admin.send(*calls)
                assert answer.json() == {"success": True}
                acknowledged.extend(ids)
                if len(acknowledged) >= EVENTS_BEFORE:
                    is_full.set()

        async with anyio.create_task_group() as tasks:
            for source in range(2):
                tasks.start_soon(pour, source)
            await is_full.wait()
            before = list(acknowledged)
            folder = Folder(data=tmp_path / "data")
            assert await anyio.to_thread.run_sync(lambda: backup(file, folder=folder)) == 0
            during = len(acknowledged) - len(before)
            tasks.cancel_scope.cancel()
        assert during > 0
    assert await anyio.to_thread.run_sync(lambda: restore(file, folder=Folder(data=tmp_path / "restored"))) == 0
    async with open_data(tmp_path / "restored", WallClock(), holder="a test") as opened:
        space = opened.spaces()[0]
        await space.settle()
        ids = {event.message_id for commit in space.log.read() for event in commit.events}
        assert set(before) <= ids
        with bar("replaying") as show:
            assert (await replayed(space, show)).differences == []
        members = {space.name_of(one) for one, _ in await space.members("buyers")}
        assert members == {"ann-7f3a", "bob", *(f"u{n}" for n in range(7))}


async def test_a_deletion_that_was_under_way_goes_on_in_a_restored_backup(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.zst"
    data = tmp_path / "data"
    async with running(Settings(data=str(data), port=0)) as daemon, console(daemon) as admin:
        await admin.lived()
        assert daemon.first is not None
        first = daemon.first
    async with open_data(data, WallClock(), holder="a test") as opened:  # nothing keeps it up: it stays half done
        await opened.spaces()[0].regulate("reg_1", "DELETE_ONLY", ["ann-7f3a"])
    await anyio.to_thread.run_sync(lambda: backup(file, folder=Folder(data=data)))
    await anyio.to_thread.run_sync(lambda: restore(file, folder=Folder(data=tmp_path / "restored")))
    assert await entries_with(tmp_path / "restored", *ANN) > 0
    async with running(Settings(data=str(tmp_path / "restored"), port=0)) as daemon:
        admin = Console(daemon.url, first.admin_token, first.write_key)
        async with admin.client:
            assert (await admin.over("reg_1"))["overallStatus"] == "FINISHED"
    assert await entries_with(tmp_path / "restored", *ANN) == 0
