"""What a command line that makes no sense is told, and the three exit statuses."""

import socket
from pathlib import Path

import pytest

from adapters.opening import open_data
from eventlog.clock import WallClock
from tests.cli.conftest import BIG, Served, Turnout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("prevue", BIG), 'Unknown command "prevue". Did you mean "preview"?'),
        (("preview",), "QUERY requires an argument"),
        (("preview", BIG, "--at", "noon"), "'noon' is not an ISO 8601 time, as in 2026-03-01T12:00:00Z"),
        (("preview", BIG, "--type", "people"), 'Choose from: "users", "accounts"'),
        (("preview", BIG, "--idz"), "Did you mean --ids?"),
        (("preview", BIG, "--data", "a", "--url", "http://b"), "either --data or --url"),
        (("preview", BIG, "--url", "localhost"), "--url: found 'localhost', expected an address such as http://"),
        (("tokens", "create", "x", "--scope", "everything"), "--scope: found 'everything', expected events:write"),
        (("import", "a", "a"), "a file is named twice"),
        (("serve", "--port", "eighty"), 'unable to convert "eighty" into int'),
        (("serve", "--port", "65536"), "port: found 65536, expected a whole number from 0 to 65535"),
        (("serve", "--simulated-clock", "noon"), "simulated_clock: found 'noon', expected an ISO 8601 time"),
        (("replay", "--space", "x"), "--space goes with --check and --as-of"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_misused_command_line_is_told_what_would_be_right(
    turnout: Turnout, arguments: tuple[str, ...], complaint: str
) -> None:
    ran = turnout(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert complaint in " ".join(ran.err.split())


def test_help_is_good_and_lists_every_command(turnout: Turnout) -> None:
    ran = turnout()
    assert ran.status == 0
    assert turnout("--help").out == ran.out
    for name in ("serve", "import", "preview", "members", "check", "explain", "export", "replay", "backup", "restore"):
        assert f"│ {name} " in ran.out


def test_a_directory_that_is_not_there_is_not_made_by_a_question(turnout: Turnout, tmp_path: Path) -> None:
    ran = turnout("members", "big_spenders", "--data", tmp_path / "nowhere")
    assert ran.status == 1
    assert "nowhere: no data directory is there" in ran.err
    assert not (tmp_path / "nowhere").exists()


def test_data_that_a_daemon_holds_is_refused_saying_which_daemon(turnout: Turnout, served: Served) -> None:
    ran = turnout("members", "big_spenders", "--data", served.data)
    assert ran.status == 1
    assert "is held by turnout serve (pid " in ran.err
    assert served.url in ran.err


async def test_data_that_a_command_holds_is_refused_saying_which_command(
    turnout: Turnout, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anyio.to_thread

    async with open_data(shop, WallClock(), holder="turnout import"):
        ran = await anyio.to_thread.run_sync(turnout, "members", "big_spenders", "--data", shop)
    assert ran.status == 1
    assert "is held by turnout import (pid " in ran.err


def test_a_daemon_that_does_not_answer_or_lets_nobody_in_is_named(
    turnout: Turnout, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
    ran = turnout("members", "big_spenders", "--url", closed)
    assert ran.status == 1
    assert f"{closed}: no answer" in ran.err
    monkeypatch.setenv("TURNOUT_TOKEN", "wrong")
    ran = turnout("members", "big_spenders", "--url", served.url)
    assert ran.status == 1
    assert "TURNOUT_TOKEN" in ran.err
    monkeypatch.delenv("TURNOUT_TOKEN")
    ran = turnout("members", "big_spenders", "--url", served.url)
    assert ran.status == 2
    assert "TURNOUT_TOKEN" in ran.err


def test_a_space_whose_log_is_gone_is_damage_and_not_begun_anew(turnout: Turnout, tmp_path: Path) -> None:
    line = tmp_path / "one.ndjson"
    line.write_text('{"type": "track", "userId": "ann", "event": "A", "timestamp": "2026-03-01T00:00:00Z"}\n')
    data = tmp_path / "data"
    assert turnout("import", line, "--data", data).status == 0
    (gone,) = (data / "spaces").glob("*.log")
    gone.unlink()
    ran = turnout("preview", "event('A').count() >= 1", "--data", data)
    assert ran.status == 1
    assert "the file is gone, but the space has had one" in ran.err
    assert not gone.exists()
