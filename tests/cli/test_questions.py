"""preview, members and explain: right on real data, and the same whether asked of the files or of a daemon."""

import json
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from adapters.opening import open_data
from eventlog.clock import SimulatedClock
from eventlog.entries import Audited
from eventlog.instants import instant_ms
from tests.cli.conftest import AT, BIG, LAPSING, MARKETS, SPEND, Served, Turnout

RETURNED = (
    "event('Product Purchased').where(event('Product Returned').where(property('product_id') = "
    "property(parent: 'product_id')).within(parent: 7 days).count() >= 1).within(30 days).count() >= 1"
)
DEAR_ABROAD = (
    "trait('country') != 'United Kingdom' AND event('Product Purchased').where(property('price') > 10).count() >= 1"
)


@pytest.mark.parametrize(
    ("query", "size"),
    [
        (BIG, 145),
        ("event('Order Completed').within(14 days).count() >= 2", 15),
        (LAPSING, 607),
        (RETURNED, 55),
        (DEAR_ABROAD, 61),
    ],
)
def test_previews_of_the_sample_data_have_the_sizes_of_the_contract(
    turnout: Turnout, shop_original: Path, query: str, size: int
) -> None:
    ran = turnout("preview", query, "--at", AT, "--data", shop_original, "--format", "json")
    answer = json.loads(ran.out)
    assert (ran.status, answer["size"], answer["at"]) == (0, size, "2011-01-09T16:00:00.000Z")
    assert len(answer["sample"]) == 10


def test_a_preview_tells_its_size_and_a_sample_and_with_ids_every_member(turnout: Turnout, shop_original: Path) -> None:
    told = turnout("preview", BIG, "--at", AT, "--data", shop_original).out.splitlines()
    assert told[0] == "145 users at 2011-01-09T16:00:00.000Z"
    assert told[-1] == "  … and 135 more (--ids lists all)"
    every = turnout("preview", BIG, "--at", AT, "--data", shop_original, "--ids").out.splitlines()
    assert len(set(every)) == 145
    assert [f"  {name}" for name in every[:10]] == told[1:-1]
    as_json = json.loads(turnout("preview", BIG, "--at", AT, "--data", shop_original, "--ids", "--format", "json").out)
    assert as_json == {"size": 145, "ids": every, "at": "2011-01-09T16:00:00.000Z"}


def test_known_leaves_out_what_was_received_later(turnout: Turnout, shop_original: Path) -> None:
    ran = turnout("preview", BIG, "--at", AT, "--known", "2020-01-01", "--data", shop_original)
    assert ran.out.startswith("0 users at ")


QUESTIONS = [
    ("preview", BIG, "--at", AT),
    ("preview", BIG, "--at", AT, "--ids"),
    ("preview", MARKETS, "--type", "accounts", "--at", AT, "--ids"),
    ("preview", SPEND, "--trait", "--at", AT, "--ids", "--format", "json"),
    ("members", "big_spenders"),
    ("members", "lapsing", "--at", AT, "--format", "json"),
    ("explain", "lapsing", "15311", "--at", AT),
    ("explain", "lapsing", "user_id:15311", "--at", AT, "--format", "json"),
    ("explain", "markets", "germany", "--at", AT),
    ("explain", "spend", "12583", "--at", AT),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_daemon_answers_what_the_files_answer(
    turnout: Turnout, shop_original: Path, served: Served, question: tuple[str, ...]
) -> None:
    of_files = turnout(*question, "--data", shop_original)
    of_daemon = turnout(*question, "--url", served.url)
    assert (of_files.status, of_files.err, of_daemon.status, of_daemon.err) == (0, "", 0, "")
    assert without_known(of_files.out) == without_known(of_daemon.out) != ""


def without_known(told: str) -> str:
    """Return an answer without up to where the log was known: other tests send the daemon more."""
    return re.sub(r'"known":\d+,', "", told)


def test_an_explanation_is_read_at_a_glance(turnout: Turnout, shop_original: Path) -> None:
    told = turnout("explain", "lapsing", "15311", "--at", AT, "--data", shop_original).out.splitlines()
    assert told[0].startswith("15311 is not in lapsing at 2011-01-09T16:00:00.000Z")
    assert told[1] == "└── ✗ all of"
    assert "✓ event('Order Completed').between(14 days, 35 days).count() >= 1  is 7" in told[2]
    assert told[-1].endswith("2011-01-07T14:43:00.000Z  Order Completed  540475-9")
    value = turnout("explain", "spend", "12583", "--at", AT, "--data", shop_original).out
    assert value.startswith("12583 has spend = 1,586.02 at")


@pytest.mark.parametrize("where", ["files", "daemon"])
@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        (("members", "nobody"), "no audience or computed trait 'nobody'"),
        (("explain", "lapsing", "user_id:nobody"), "nobody"),
        (("preview", "event('A').within(3 fortnights).count() >= 1"), "line 1, column 21: found 'fortnights'"),
    ],
)
def test_a_question_that_has_no_answer_says_why_and_fails(
    turnout: Turnout, shop_original: Path, served: Served, where: str, question: tuple[str, ...], complaint: str
) -> None:
    place = ("--data", shop_original) if where == "files" else ("--url", served.url)
    ran = turnout(*question, *place)
    assert (ran.status, ran.out) == (1, "")
    assert complaint in ran.err
    assert ("^" in ran.err) == ("fortnights" in complaint)


def test_an_answer_may_be_cut_short_by_its_reader(shop_original: Path) -> None:
    command = f"{sys.executable} -m scenarios.cli members big_spenders --data {shop_original} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "17850\n", "")


def test_the_log_of_a_staging_daemon_that_ends_in_the_future_is_asked_as_of_its_end(
    turnout: Turnout, tmp_path: Path
) -> None:
    end_ms = instant_ms("2100-01-01")
    assert end_ms is not None

    async def write() -> None:
        async with open_data(tmp_path / "data", SimulatedClock(end_ms), holder="a test") as data:
            await data.spaces()[0].record([Audited("Tried", "tests", "", "")])

    anyio.run(write)
    ran = turnout("preview", "event('A').count() = 0", "--data", tmp_path / "data")
    assert ran.out == "0 users at 2100-01-01T00:00:00.000Z\n"
