"""Segment's own client of its Public API (for Node; there is none for Python on PyPI), asking a daemon.

What this library does not have yet, creating audiences, previews and connections, is asked as the newer, generated ones
ask: `test_walkthrough`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from tests.destinations.wire import receiver
from tests.http import public_fields as fields
from tests.http.public_fields import wrong_in
from tests.http.stand import SPEND, ordered, standing

HERE: Final = Path(__file__).with_name("official")
INSTALL_S: Final = 120
ASKING_S: Final = 60


@pytest.fixture(scope="module")
def node() -> str:
    """Return Node, with the library installed beside the script."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        pytest.skip("there is no Node here")
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        try:
            subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund", "--fetch-retries=0"],
                cwd=HERE,
                capture_output=True,
                timeout=INSTALL_S,
                check=True,
            )
        except subprocess.SubprocessError as error:
            pytest.skip(f"the library cannot be had: {error}")
    return found


async def test_segments_own_client_works_with_its_host_changed(node: str, tmp_path: Path) -> None:
    async with standing(tmp_path, simulated_clock="", allow_private_destinations=True) as real, receiver() as server:
        await real.send(ordered("ann", 120), ordered("bob", 30))
        audience, trait = await real.audience("Buyers"), await real.trait("Spend", SPEND)
        await real.audience("Others", "event('Other').count() >= 1")
        with anyio.fail_after(ASKING_S):
            done = await anyio.run_process(
                [node, "life.cjs", audience["id"], trait["id"], server.url],
                cwd=HERE,
                env={**os.environ, "TURNOUT_URL": real.daemon.url, "TURNOUT_TOKEN": real.admin_token},
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
        check(json.loads(done.stdout), real.space.id)


def check(met: dict[str, Any], space_id: str) -> None:
    """Look at what the library has met: what it knows of the answers, with the types that it gives them."""
    assert wrong_in(met["space"], fields.SPACE) == []
    assert met["space"]["id"] == space_id
    assert (met["source"]["slug"], met["source"]["settings"]["spaceId"], met["paused"]) == ("shop", space_id, False)
    assert met["source"]["id"] in met["sources"]
    assert (len(met["sources"]), met["writeKeys"], met["keyRemoved"], met["keysLeft"]) == (2, 2, "SUCCESS", 1)
    assert met["destination"]["metadata"]["slug"] == "webhook"
    assert (met["destinations"], met["renamed"]) == ([met["destination"]["id"]], "Sales")
    assert met["audiences"] == ["buyers", "others"]
    assert (met["audience"]["key"], met["audience"]["status"], met["audience"]["enabled"]) == ("buyers", "Live", True)
    assert (met["disabled"], met["live"], met["left"]) == (False, "Live", 1)
    assert (met["trait"]["key"], met["traits"], met["traitStatus"]) == ("spend", 1, "Disabled")
    assert (met["regulation"]["overallStatus"], met["regulations"], met["suppressed"]) == ("FINISHED", 1, 1)
    [missing], [forged] = met["missing"]["errors"], met["forged"]["errors"]
    assert (met["missing"]["status"], missing["type"]) == (404, "not_found")
    assert (met["forged"]["status"], forged["field"]) == (400, "pagination[cursor]")
    assert met["acts"][:4] == [
        "Destination Deleted",
        "Audience Deleted",
        "Computed Trait Deleted",
        "Regulation SUPPRESS_WITH_DELETE",
    ]
