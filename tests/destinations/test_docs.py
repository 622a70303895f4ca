"""The page about destinations names every type, every setting and every limit."""

import re
from pathlib import Path

import msgspec
import pytest

from actors.delivery import ConnectionSettings
from adapters.destinations import DESTINATIONS
from tests.destinations.trail import printed

PAGE = (Path(__file__).parents[2] / "docs" / "destinations.md").read_text()


@pytest.mark.parametrize("name", sorted(DESTINATIONS))
def test_a_type_is_in_the_table_with_its_settings_and_its_rate(name: str) -> None:
    adapter = DESTINATIONS[name]
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))  # others name its tests
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert float(cells[3]) == adapter.rate_per_s
    assert int(cells[4]) == adapter.concurrency
    named = set(re.findall(r"`(\w+)`", PAGE))
    for field in msgspec.structs.fields(adapter.settings):
        assert field.encode_name in named, field.encode_name


def test_a_connections_settings_are_named() -> None:
    for field in msgspec.structs.fields(ConnectionSettings):
        assert f"`{field.encode_name}`" in PAGE


def test_every_type_says_which_page_was_read_and_when() -> None:
    for path in (Path(__file__).parents[2] / "adapters" / "destinations").glob("*.py"):
        text = path.read_text()
        if "Adapter(" in text and path.name not in {"csv_files.py"}:
            assert "read 2026-11-24" in " ".join(text.split()), path.name


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    files = (Path(__file__).parents[2] / "tests").rglob("test_*.py")
    written = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    assert len(named) > 30
    assert named - written == set()


def test_every_test_against_a_vendors_server_is_on_the_page_in_the_row_of_its_type() -> None:
    rows = [re.findall(r"`([^`]+)`", line) for line in PAGE.splitlines() if line.startswith("| `")]
    named = {kind: {name for row in rows if row[0] == kind for name in row[1:]} for kind in DESTINATIONS}
    files = sorted((Path(__file__).parent / "vendors").glob("test_*.py"))
    assert len(files) == 7
    for file in files:
        kind = next(kind for kind in DESTINATIONS if f'"{kind}"' in file.read_text())
        written = set(re.findall(r"def (test_\w+)\(", file.read_text()))
        assert written - named[kind] == set(), kind


def test_the_trail_on_the_page_is_what_the_command_prints() -> None:
    assert f"```text\n{printed()}\n```" in PAGE
