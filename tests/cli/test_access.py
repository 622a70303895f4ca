"""`turnout tokens`: a token made at the command line opens the daemon, until it is revoked."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Served, Turnout


def test_a_token_made_through_a_daemon_may_do_what_its_scopes_say_until_it_is_revoked(
    turnout: Turnout, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = turnout("tokens", "create", "reader", "--scope", "audiences:read", "--url", served.url, "--format", "json")
    row = json.loads(made.out)
    monkeypatch.setenv("TURNOUT_TOKEN", row["token"])
    assert turnout("members", "big_spenders", "--url", served.url).status == 0
    ran = turnout("tokens", "list", "--url", served.url)
    assert (ran.status, ran.out) == (1, "")
    monkeypatch.setenv("TURNOUT_TOKEN", served.token)
    assert turnout("tokens", "revoke", row["id"], "--url", served.url).status == 0
    listed = json.loads(turnout("tokens", "list", "--url", served.url, "--format", "json").out)
    assert {one["id"]: bool(one.get("revokedAt")) for one in listed}[row["id"]] is True
    monkeypatch.setenv("TURNOUT_TOKEN", row["token"])
    assert turnout("members", "big_spenders", "--url", served.url).status == 1


def test_tokens_of_a_directory_are_told_once_and_listed_without_their_secrets(turnout: Turnout, shop: Path) -> None:
    made = turnout("tokens", "create", "ci", "--scope", "audiences:read", "--scope", "profiles:read", "--data", shop)
    secret = made.out.strip()
    assert secret.startswith("tt_")
    told = turnout("tokens", "list", "--data", shop)
    assert "audiences:read, profiles:read" in told.out
    assert secret not in told.out
    assert secret[-4:] in told.out


def test_the_last_admin_token_is_not_revoked(turnout: Turnout, shop: Path) -> None:
    (row,) = json.loads(turnout("tokens", "list", "--data", shop, "--format", "json").out)
    ran = turnout("tokens", "revoke", row["id"], "--data", shop)
    assert ran.status == 1
    assert "last admin token" in ran.err
