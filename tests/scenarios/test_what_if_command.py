"""`turnout replay --with` on a data directory that is held open meanwhile, and what it says of a bad file."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from adapters.cli.app import run
from adapters.opening import open_data
from eventlog.clock import SimulatedClock
from scenarios.benchmarks.subjects import incoming
from scenarios.cli import program
from scenarios.what_if import DAY_MS

START_MS = 1_772_323_200_000  # 2026-03-01
GOOD = """
audiences:
  - name: Buyers
    query: "event('Order Completed').count() >= 2"
  - name: All buyers
    query: "event('Order Completed').count() >= 1"
"""


async def with_a_daemon_on_it(folder: Path, arguments: list[str], others: Sequence[str] = ()) -> int:
    """Run the command while the directory is open and held."""
    clock = SimulatedClock(START_MS)
    async with open_data(folder / "data", clock, holder="a daemon") as data:
        space = data.spaces()[0]
        for name in others:
            await data.create_space(name)
        await space.create_definition(
            kind="audience", name="Buyers", entity_type="USERS", query="event('Order Completed').count() >= 1"
        )
        await space.backfilled()
        for day, who in enumerate(["ann", "ben", "ann"]):
            clock.set_ms(START_MS + day * DAY_MS)
            body = f'{{"type":"track","userId":"{who}","event":"Order Completed","messageId":"m{day}"}}'
            await space.ingest(incoming(iter([body.encode()]), clock.now_ms()), [], "src")
        await space.settle()
        command = ["replay", "--data", str(folder / "data"), *arguments]
        return await anyio.to_thread.run_sync(lambda: run(program(), command))


async def test_days_people_and_picture_are_written_while_a_daemon_holds_the_data(tmp_path: Path) -> None:
    """The changed audience beside what happened, the new one beside nothing."""
    (tmp_path / "d.yaml").write_text(GOOD)
    out = {name: tmp_path / name for name in ("csv", "who", "svg")}
    options = [part for name, path in out.items() for part in (f"--{name}", str(path))]
    assert await with_a_daemon_on_it(tmp_path, ["--with", str(tmp_path / "d.yaml"), *options]) == 0
    rows = list(csv.DictReader(out["csv"].read_text().splitlines()))
    buyers = [(row["day_ms"], row["size"], row["actual_size"]) for row in rows if row["key"] == "buyers"]
    assert buyers == [("2026-03-01", "0", "1"), ("2026-03-02", "0", "2"), ("2026-03-03", "1", "2")]
    assert [(row["size"], row["actual_size"]) for row in rows if row["key"] == "all_buyers"] == [
        ("1", ""),
        ("2", ""),
        ("2", ""),
    ]
    people = [
        tuple(row.values()) for row in csv.DictReader(out["who"].read_text().splitlines()) if row["key"] == "buyers"
    ]
    assert ("2026-03-03", "buyers", "user_id", "ann", "entered", "True", "False") in people
    assert ("2026-03-02", "buyers", "user_id", "ben", "entered", "False", "True") in people
    assert "what happened" in out["svg"].read_text()


async def test_as_json_it_names_who_in_a_space_that_is_named_by_its_slug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Days and people, as in the files."""
    (tmp_path / "d.yaml").write_text(GOOD)
    arguments = ["--with", str(tmp_path / "d.yaml"), "--report", "json", "--since", "2026-03-03"]
    assert await with_a_daemon_on_it(tmp_path, [*arguments, "--space", "default"], ["Other shop"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["day_ms"], one["key"], one["size"]) for one in told["days"]] == [
        ("2026-03-03", "buyers", 1),
        ("2026-03-03", "all_buyers", 2),
    ]
    assert told["people"] == [
        {
            "day": "2026-03-03", "key": "buyers", "id_type": "user_id", "id": "ann", "change": "entered",
            "would": True, "did": False,
        }
    ]  # fmt: skip
    assert not list((tmp_path / "data").glob("turnout-replay-*"))


@pytest.mark.parametrize(
    ("options", "told"),
    [([], "there are several spaces; name one with --space: "), (["--space", "nowhere"], "nowhere")],
)
async def test_which_space_is_meant_has_to_be_clear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    """Nothing is folded."""
    (tmp_path / "d.yaml").write_text(GOOD)
    arguments = ["--with", str(tmp_path / "d.yaml"), *options]
    assert await with_a_daemon_on_it(tmp_path, arguments, ["Other shop"]) != 0
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("audiences:\n  - name: A\n    qery: x\n", "d.yaml:3:5: audiences[0].qery: there is no 'qery' here"),
        ("audiences:\n  - name: A\n    query: \"event('x').within(2 fortnights).count() > 1\"\n", "d.yaml:3:"),
        ("traits:\n  - name: Buyers\n    query: \"event('x').count()\"\n", "'buyers' is audience of USERS here"),
        ("audiences: []\n", "no definition, expected some"),
    ],
)
async def test_a_bad_file_is_told_with_line_and_what_would_be_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    """Nothing is folded; the exit status is 1."""
    (tmp_path / "d.yaml").write_text(text)
    assert await with_a_daemon_on_it(tmp_path, ["--with", str(tmp_path / "d.yaml")]) == 1
    assert told in capsys.readouterr().err.replace("\n", " ")
