"""`turnout import`: idempotent, bad lines apart, the same into files as through a daemon."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from actors.door import BATCH_BYTES_MAX, BATCH_EVENTS_MAX
from adapters.cli.importing import Line
from adapters.cli.intake import ENVELOPE, batches
from adapters.opening import open_data
from eventlog.clock import WallClock
from scenarios.retail import FILE
from tests.cli.conftest import Served, Turnout

GOOD = '{"type":"track","userId":"ann","event":"A","messageId":"m-%d","timestamp":"2026-03-01T12:00:00Z"}'
MIXED = [
    GOOD % 1,
    "not json",
    "",
    '{"type":"track","userId":"ann"}',
    '{"type":"track","userId":"-1","event":"A"}',
    GOOD % 2,
]


def written(tmp_path: Path, lines: list[str]) -> Path:
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(lines) + "\n")
    return file


def outcome(told: str) -> dict[str, Any]:
    answer = json.loads(told)
    file: dict[str, Any] = answer["files"][0]
    return file


def rejected_in(data: Path) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        async with open_data(data, WallClock(), holder="a test") as opened:
            return [(one.code, one.message_id) for _, _, one in opened.spaces()[0].rejected()]

    return anyio.run(read)


def test_importing_a_file_twice_changes_nothing(turnout: Turnout, shop: Path) -> None:
    before = turnout("replay", "--check", "--data", shop, "--format", "json").out
    ran = turnout("import", FILE, "--data", shop, "--format", "json")
    assert ran.status == 0
    told = outcome(ran.out)
    assert (told["taken"], told["known"], told["refused"]) == (0, 54_010, 0)
    assert turnout("replay", "--check", "--data", shop, "--format", "json").out == before


def test_bad_lines_are_told_with_their_numbers_and_recorded_and_do_not_sink_the_rest(
    turnout: Turnout, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    ran = turnout("import", written(tmp_path, MIXED), "--data", data)
    assert ran.status == 0
    assert "2 taken, 0 known already, 3 refused" in ran.err
    assert "line 2: invalid_json: " in ran.err
    assert "line 4: missing_event: " in ran.err
    assert "line 5: no_matching_identifiers: " in ran.err or "line 5: value_blocked: " in ran.err
    assert len(rejected_in(data)) == 3


def test_a_daemon_is_told_the_same_lines_and_refuses_the_same(turnout: Turnout, served: Served, tmp_path: Path) -> None:
    ran = turnout("import", written(tmp_path, MIXED), "--url", served.url, "--format", "json")
    assert ran.status == 0
    told = outcome(ran.out)
    assert (told["taken"], told["refused"]) == (2, 3)
    assert sorted(reason["line"] for reason in told["reasons"]) == [2, 4, 5]


def test_a_line_without_a_message_id_is_taken_once_too(turnout: Turnout, served: Served, tmp_path: Path) -> None:
    file = written(tmp_path, ['{"type":"track","userId":"ann","event":"Unnamed"}'] * 2)
    data = tmp_path / "data"
    first = outcome(turnout("import", file, "--data", data, "--format", "json").out)
    again = outcome(turnout("import", file, "--data", data, "--format", "json").out)
    assert (first["taken"], first["known"]) == (2, 0), "two lines alike are two events"
    assert (again["taken"], again["known"]) == (0, 2)
    for _ in range(2):
        turnout("import", file, "--url", served.url)
    asked = ("preview", "event('Unnamed').count() = 2", "--url", served.url, "--format", "json")
    assert json.loads(turnout(*asked).out)["size"] == 1


def test_a_file_of_nothing_but_bad_lines_fails_and_so_does_a_torn_one(turnout: Turnout, tmp_path: Path) -> None:
    assert turnout("import", written(tmp_path, MIXED[1:5]), "--data", tmp_path / "data").status == 1
    torn = tmp_path / "torn.ndjson.gz"
    torn.write_bytes(FILE.read_bytes()[:-50_000])
    ran = turnout("import", torn, "--data", tmp_path / "data")
    assert ran.status == 1
    assert "torn.ndjson.gz: cannot be read after" in ran.err
    assert " 0 taken" not in ran.err, "what could be read is kept"


def test_an_unreadable_file_does_not_sink_the_other(turnout: Turnout, tmp_path: Path) -> None:
    good = written(tmp_path, [GOOD % 1])
    ran = turnout("import", tmp_path / "missing", good, "--data", tmp_path / "data")
    assert ran.status == 1
    assert "missing: cannot be read after 0 bytes: No such file" in ran.err
    assert f"{good}: 1 taken" in ran.err


def test_a_file_that_is_not_there_makes_no_data_directory(turnout: Turnout, tmp_path: Path) -> None:
    ran = turnout("import", tmp_path / "missing", "--data", tmp_path / "data")
    assert ran.status == 1
    assert "missing: cannot be read after 0 bytes: No such file" in ran.err
    assert not (tmp_path / "data").exists()


def test_the_secrets_of_a_new_data_directory_are_told_once(turnout: Turnout, tmp_path: Path) -> None:
    file = written(tmp_path, [GOOD % 1])
    assert "admin token  tt_" in turnout("import", file, "--data", tmp_path / "data").err
    assert "admin token" not in turnout("import", file, "--data", tmp_path / "data").err


def test_a_source_that_is_not_there_is_refused_naming_those_that_are(turnout: Turnout, shop: Path) -> None:
    ran = turnout("import", FILE, "--data", shop, "--source", "src_nobody")
    assert ran.status == 1
    assert "no source 'src_nobody'" in ran.err
    assert "it has src_" in ran.err


@given(lists(integers(1, 40_000), max_size=60))
def test_batches_keep_to_the_bounds_and_lose_nothing(sizes: list[int]) -> None:
    lines = [(Line(n, b""), b"x" * size) for n, size in enumerate(sizes)]
    made = list(batches(lines))
    assert [line for batch in made for line in batch] == lines
    for batch in made:
        assert 1 <= len(batch) <= BATCH_EVENTS_MAX
        assert len(ENVELOPE % b",".join(text for _, text in batch)) <= BATCH_BYTES_MAX


def test_small_lines_go_in_batches_as_large_as_the_api_takes() -> None:
    lines = [(Line(n, b""), b"{}") for n in range(2 * BATCH_EVENTS_MAX + 1)]
    assert [len(batch) for batch in batches(lines)] == [BATCH_EVENTS_MAX, BATCH_EVENTS_MAX, 1]


@pytest.mark.parametrize("flag", ["--data", "--url"])
def test_standard_input_is_named_by_a_dash(
    turnout: Turnout, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    with written(tmp_path, [GOOD % 77]).open() as lines:
        monkeypatch.setattr("sys.stdin", lines)
        ran = turnout("import", "-", flag, tmp_path / "data" if flag == "--data" else served.url)
    assert ran.status == 0
    assert "-: 1 taken" in ran.err
