"""The demo's parts: its destination checks signatures as the specification says, its picture shows what happened."""

import io
import json
import re
import subprocess
import sys
from typing import Any

import aiohttp
from rich.console import Console

from scenarios.demo_receiver import receiver, signature
from scenarios.demo_view import AudienceRow, Call, Change, Shown, call_line, change_line

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the specification's own example


def test_signatures_are_those_of_the_standard_webhooks_specification() -> None:
    signed = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_the_receiver_tells_a_good_signature_from_a_wrong_one() -> None:
    told: list[tuple[dict[str, Any], bool]] = []
    body = json.dumps({"event": "Audience Entered"}).encode()
    head = {"webhook-id": "m1", "webhook-timestamp": "1"}
    good, wrong = signature(SECRET, "m1", "1", body), signature(SECRET, "m1", "2", body)
    async with (
        receiver(SECRET, lambda received, is_signed: told.append((received, is_signed))) as url,
        aiohttp.ClientSession() as client,
    ):
        for signatures in (f"v1,other {good}", wrong, ""):
            async with client.post(url, data=body, headers={**head, "webhook-signature": signatures}) as answer:
                assert answer.status == 200
    assert [is_signed for _, is_signed in told] == [True, False, False]
    assert told[0][0] == {"event": "Audience Entered"}


def test_the_picture_shows_sizes_with_how_they_moved_and_the_latest_changes_first() -> None:
    shown = Shown("Turnout demo")
    shown.audiences["big_spenders"] = AudienceRow("Big spenders", "spent 1000 or more", 1_145, 1_140)
    first = Change(1_772_366_400_250, "17850", "Big spenders", entered=True, why="Order Completed")
    shown.changes.append(first)
    shown.changes.append(Change(1_772_366_401_000, "12345", "Just bought", entered=False, why="time"))
    call = Call(1_772_366_400_300, "Audience Entered", "17850", "big_spenders", is_signed=True)
    shown.calls.append(call)
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(shown.picture())
    text = console.export_text()
    assert "1,145" in text
    assert "+5" in text
    assert text.index("12345") < text.index("17850")
    assert "signature good" in text
    assert change_line(first) == "12:00:00.250  17850 enters Big spenders (Order Completed)"
    assert call_line(call) == "12:00:00.300  webhook got Audience Entered: 17850, big_spenders (signature good)"


def test_the_picture_fits_a_small_terminal() -> None:
    shown = Shown("Turnout demo")
    shown.address = "daemon http://127.0.0.1:1"
    shown.audiences = {f"{n}": AudienceRow(f"Audience {n}", "whoever", n, n) for n in range(7)}
    for n in range(20):
        shown.changes.append(Change(n, "ann", "Audience 1", entered=True, why="Order Completed"))
        shown.calls.append(Call(n, "Audience Entered", "ann", "audience_1", is_signed=True))
    for height in (20, 24, 30, 60):
        console = Console(width=80, height=height, file=io.StringIO())
        lines = console.render_lines(shown.picture(height))
        assert len(lines) < max(height, 19), height
    assert len(lines) == 9 + 7 + 9 + 6


def test_the_demo_shows_live_changes_and_deliveries_and_ends_by_itself() -> None:
    command = [sys.executable, "-m", "scenarios.cli", "demo", "--for", "2s", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert told[0] == "Turnout demo: six weeks of a real online shop, moved to end today"
    assert told[1].startswith("50,890 events imported in ")
    assert any(re.fullmatch(r"Big spenders: 134 \(.*\)", line) for line in told)
    assert any(re.search(r" enters Just bought \(Order Completed\)$", line) for line in told)
    assert any(re.search(r"webhook got Audience Entered: .*, just_bought \(signature good\)$", line) for line in told)
    assert "WRONG" not in done.stdout
    assert told[-1].startswith("The demo is over")
