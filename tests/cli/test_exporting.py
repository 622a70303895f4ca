"""`turnout export`: the same file from the data directory as from a daemon."""

import csv
import hashlib
from pathlib import Path

import pytest

from tests.cli.conftest import AT, Served, Turnout


@pytest.mark.parametrize(
    "options",
    [("big_spenders",), ("big_spenders", "--format", "formatted"), ("spend",), ("markets",)],
    ids=" ".join,
)
def test_a_daemon_exports_what_the_files_give(
    turnout: Turnout, shop_original: Path, served: Served, options: tuple[str, ...]
) -> None:
    of_files = turnout("export", *options, "--data", shop_original)
    of_daemon = turnout("export", *options, "--url", served.url)
    assert (of_files.status, of_daemon.status) == (0, 0)
    assert of_files.out == of_daemon.out
    assert len(of_files.out.splitlines()) > 10


def test_a_single_column_holds_hashes_unless_asked_otherwise(turnout: Turnout, shop_original: Path) -> None:
    asked = ("export", "big_spenders", "--format", "single_column", "--external-id", "user_id", "--data", shop_original)
    hashed = turnout(*asked).out.splitlines()
    plain = turnout(*asked, "--hash", "none").out.splitlines()
    assert hashed[0] == plain[0] == "user_id"
    assert hashed[1:] == [hashlib.sha256(value.encode()).hexdigest() for value in plain[1:]]


def test_the_past_is_exported_to_a_file_that_appears_whole(
    turnout: Turnout, shop_original: Path, tmp_path: Path
) -> None:
    file = tmp_path / "lapsing.csv"
    ran = turnout("export", "lapsing", "--at", AT, "--out", file, "--data", shop_original)
    assert (ran.status, ran.out) == (0, "")
    assert "607 rows in " in ran.err
    with file.open() as lines:
        assert len(list(csv.DictReader(lines))) == 607
    assert list(tmp_path.iterdir()) == [file]


def test_a_daemon_is_not_asked_for_the_past(turnout: Turnout, served: Served) -> None:
    ran = turnout("export", "lapsing", "--at", AT, "--url", served.url)
    assert ran.status == 2
    assert "--at and --known go with --data" in ran.err
