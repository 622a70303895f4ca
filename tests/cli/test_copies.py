"""`turnout backup` and `turnout restore`: what comes back is what was there, and a torn backup is none."""

import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from tests.cli.conftest import Served, Turnout


def test_a_restored_backup_holds_what_was_there(turnout: Turnout, shop: Path, tmp_path: Path) -> None:
    file, there = tmp_path / "b.tar.zst", tmp_path / "restored"
    assert turnout("backup", file, "--data", shop).status == 0
    assert turnout("restore", file, "--data", there).status == 0
    members = turnout("members", "big_spenders", "--data", shop, "--format", "json").out
    assert turnout("members", "big_spenders", "--data", there, "--format", "json").out == members
    assert turnout("tokens", "list", "--data", there).out == turnout("tokens", "list", "--data", shop).out
    assert turnout("replay", "--check", "--data", there).status == 0


def test_the_key_of_destinations_secrets_goes_along_and_only_the_owner_reads_a_backup(
    turnout: Turnout, shop: Path, tmp_path: Path
) -> None:
    (shop / "destinations.key").write_bytes(b"key")
    file, there = tmp_path / "b.tar.zst", tmp_path / "restored"
    turnout("backup", file, "--data", shop)
    turnout("restore", file, "--data", there)
    assert (there / "destinations.key").read_bytes() == b"key"
    assert [path.stat().st_mode & 0o077 for path in (file, there / "destinations.key", there)] == [0, 0, 0]


def test_a_backup_is_taken_while_a_daemon_has_the_data(turnout: Turnout, served: Served, tmp_path: Path) -> None:
    file, there = tmp_path / "b.tar.zst", tmp_path / "restored"
    assert turnout("backup", file, "--data", served.data).status == 0
    assert turnout("restore", file, "--data", there).status == 0
    of_daemon = turnout("members", "big_spenders", "--url", served.url, "--format", "json").out
    assert turnout("members", "big_spenders", "--data", there, "--format", "json").out == of_daemon


def test_neither_a_file_nor_a_directory_is_ever_overwritten(turnout: Turnout, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.zst"
    turnout("backup", file, "--data", shop)
    content = file.read_bytes()
    ran = turnout("backup", file, "--data", shop)
    assert ran.status == 1
    assert "is there already; name a new file" in ran.err
    assert file.read_bytes() == content
    ran = turnout("restore", file, "--data", shop)
    assert ran.status == 1
    assert "is there already and not empty" in ran.err


@pytest.mark.parametrize("part", [0.0, 0.2, 0.9, 0.999])
def test_a_torn_backup_is_refused_and_leaves_nothing_behind(
    turnout: Turnout, shop: Path, tmp_path: Path, part: float
) -> None:
    file, there = tmp_path / "b.tar.zst", tmp_path / "place" / "restored"
    turnout("backup", file, "--data", shop)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    ran = turnout("restore", file, "--data", there)
    assert ran.status == 1
    assert "is no backup, or torn" in ran.err
    assert list(there.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "spaces/../../outside.log", "spaces/a/b.log"])
def test_an_archive_that_reaches_outside_is_refused(turnout: Turnout, tmp_path: Path, name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    file = tmp_path / "evil.tar.zst"
    file.write_bytes(zstandard.ZstdCompressor().compress(packed.getvalue()))
    ran = turnout("restore", file, "--data", tmp_path / "place" / "restored")
    assert ran.status == 1
    assert "which no backup does" in ran.err
    assert not (tmp_path / "outside").exists()
