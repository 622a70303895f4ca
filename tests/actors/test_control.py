"""The control plane: spaces, sources, tokens, who did what; the same after a restart."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import pytest

from actors import control as control_module
from actors.control import ADMIN, AUDIENCES_READ, AUDIENCES_WRITE, EXPORTS_RAW, PROFILES_READ, Control, grants, hash_of
from eventlog.clock import SimulatedClock
from eventlog.entries import Audited
from eventlog.errors import ConflictError, InvalidError, LogFullError, NotFoundError
from eventlog.memory import MemoryLog
from eventlog.sqlite import SqliteLog

START_MS = 1_772_323_200_000  # 2026-03-01


def drawn() -> Callable[[int], bytes]:
    """Return a source of bytes that are all different and the same in every run."""
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def stored_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START_MS)


@pytest.fixture
async def control(clock: SimulatedClock) -> Control:
    return await Control.open(MemoryLog(), clock, drawn())


@pytest.fixture
async def started(control: Control) -> AsyncIterator[Control]:
    await control.start()
    yield control
    await control.close()


async def test_a_first_start_makes_a_space_a_source_and_an_admin_token(control: Control) -> None:
    first = await control.start()
    assert first is not None
    assert [space.slug for space in control.spaces()] == ["default"]
    source = control.source_of_write_key(first.write_key)
    assert source is not None
    assert (source.id, source.space_id) == (first.source.id, first.space.id)
    token = control.token_of(first.admin_token)
    assert token is not None
    assert (token.scopes, token.space_id) == ((ADMIN,), "")


async def test_a_second_start_makes_nothing(started: Control) -> None:
    assert await started.start() is None
    assert (len(started.spaces()), len(started.sources()), len(started.tokens())) == (1, 1, 1)


async def test_all_is_there_after_a_restart_and_no_secret_is_stored(tmp_path: Path, clock: SimulatedClock) -> None:
    path = tmp_path / "control.db"
    control = await Control.open(await SqliteLog.open(path), clock, drawn())
    first = await control.start()
    assert first is not None
    _, write_key = await control.create_source("Web", actor="tok_1")
    _, kept = await control.issue_token("kept", [PROFILES_READ])
    lost, revoked = await control.issue_token("revoked", [PROFILES_READ])
    await control.revoke_token(lost.id)
    before = (control.spaces(), control.sources(), control.tokens(), control.acts())
    await control.close()
    secrets = [first.admin_token, first.write_key, write_key, kept, revoked]
    assert [secret for secret in secrets if secret.encode() in stored_in(tmp_path)] == []

    again = await Control.open(await SqliteLog.open(path), clock, drawn())
    assert (again.spaces(), again.sources(), again.tokens(), again.acts()) == before
    assert again.source_of_write_key(write_key) is not None
    assert again.token_of(kept) is not None
    assert again.token_of(revoked) is None
    await again.close()


# -- spaces and sources ----------------------------------------------------------------------------------------------


async def test_a_space_is_found_by_id_and_by_slug(started: Control) -> None:
    space = await started.create_space("Crème & Co", slug="creme")
    assert started.space(space.id) == started.space("creme") == space
    with pytest.raises(NotFoundError, match="no space 'nowhere'"):
        started.space("nowhere")


async def test_a_slug_is_made_from_the_name_where_none_is_given(started: Control) -> None:
    assert (await started.create_space("North America 2")).slug == "north-america-2"
    with pytest.raises(InvalidError, match="give one"):
        await started.create_space("日本")


@pytest.mark.parametrize(
    ("name", "slug", "error"),
    [
        ("", "a", InvalidError),
        ("n" * 201, "a", InvalidError),
        ("A", "not a slug", InvalidError),
        ("A", "", InvalidError),
        ("A", "s" * 101, InvalidError),
        ("A", "default", ConflictError),
    ],
)
async def test_a_space_that_will_not_do_is_refused(
    started: Control, name: str, slug: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await started.create_space(name, slug=slug)
    assert len(started.spaces()) == 1


async def test_a_source_belongs_to_the_space_that_it_names_or_to_the_first(started: Control) -> None:
    other = await started.create_space("Other")
    by_settings, _ = await started.create_source("A", settings={"spaceId": other.id, "kept": 1})
    by_slug, _ = await started.create_source("B", settings={"spaceId": "other"})
    by_argument, _ = await started.create_source("C", space_id=other.id)
    by_default, _ = await started.create_source("D")
    assert [source.space_id for source in (by_settings, by_slug, by_argument)] == [other.id] * 3
    assert by_default.space_id == started.space("default").id
    assert by_settings.settings == {"spaceId": other.id, "kept": 1}
    assert started.sources(other.id) == [by_settings, by_slug, by_argument]
    with pytest.raises(NotFoundError):
        await started.create_source("E", settings={"spaceId": "nowhere"})
    with pytest.raises(InvalidError, match="spaceId"):
        await started.create_source("E", settings={"spaceId": 5})


async def test_write_keys_can_be_added_and_taken_away(started: Control) -> None:
    source, first = await started.create_source("Web")
    _, second = await started.add_write_key(source.id)
    assert [started.source_of_write_key(key) is not None for key in (first, second)] == [True, True]
    changed = await started.remove_write_key(source.id, first[-4:])
    assert [started.source_of_write_key(key) is not None for key in (first, second)] == [False, True]
    assert changed.key_hints == (second[-4:],)
    with pytest.raises(NotFoundError, match="no write key that ends in"):
        await started.remove_write_key(source.id, "zzzz")


async def test_a_source_can_be_disabled_and_enabled(started: Control) -> None:
    source, key = await started.create_source("Web", slug="web")
    await started.change_source("web", enabled=False)
    found = started.source_of_write_key(key)
    assert found is not None
    assert not found.enabled
    assert (await started.change_source(source.id, enabled=True)).enabled


@pytest.mark.parametrize("key", ["", "wrong", "x" * 10_000, "\ud800", "tt_1"])
async def test_an_unknown_write_key_opens_nothing(started: Control, key: str) -> None:
    assert started.source_of_write_key(key) is None
    assert started.token_of(key) is None


# -- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_told_once_and_opens_until_it_is_revoked(started: Control) -> None:
    token, secret = await started.issue_token("reader", [PROFILES_READ, PROFILES_READ], space_id="default")
    assert started.token_of(secret) == token
    assert token.scopes == (PROFILES_READ,)
    assert token.space_id == started.space("default").id
    assert (token.token_hash, token.hint) == (hash_of(secret), secret[-4:])
    await started.revoke_token(token.id)
    assert started.token_of(secret) is None
    revoked = started.token(token.id)
    assert revoked.revoked_ms == START_MS
    assert await started.revoke_token(token.id) == revoked


async def test_a_token_expires_at_its_time(started: Control, clock: SimulatedClock) -> None:
    _, secret = await started.issue_token("short", [PROFILES_READ], expires_ms=START_MS + 1_000)
    clock.set_ms(START_MS + 999)
    assert started.token_of(secret) is not None
    clock.set_ms(START_MS + 1_000)
    assert started.token_of(secret) is None
    with pytest.raises(InvalidError, match="past"):
        await started.issue_token("late", [PROFILES_READ], expires_ms=START_MS)


async def test_a_rotated_token_has_a_new_secret_and_the_old_one_opens_nothing(started: Control) -> None:
    token, old = await started.issue_token("reader", [PROFILES_READ])
    _, new = await started.rotate_token(token.id)
    assert started.token_of(old) is None
    opened = started.token_of(new)
    assert opened is not None
    assert opened.id == token.id
    await started.revoke_token(token.id)
    with pytest.raises(ConflictError, match="revoked"):
        await started.rotate_token(token.id)


async def test_the_last_admin_token_cannot_be_revoked(started: Control, clock: SimulatedClock) -> None:
    [first] = started.tokens()
    await started.issue_token("admin of one space", [ADMIN], space_id="default")
    await started.issue_token("admin for a second", [ADMIN], expires_ms=START_MS + 1_000)
    clock.set_ms(START_MS + 1_000)
    with pytest.raises(ConflictError, match="last admin"):
        await started.revoke_token(first.id)
    await started.issue_token("another", [ADMIN])
    assert (await started.revoke_token(first.id)).revoked_ms is not None


@pytest.mark.parametrize("scopes", [[], ["everything"], [PROFILES_READ, "admin "]])
async def test_unknown_scopes_are_refused(started: Control, scopes: list[str]) -> None:
    with pytest.raises(InvalidError, match="scopes: found"):
        await started.issue_token("x", scopes)
    assert len(started.tokens()) == 1


async def test_tokens_of_a_space_are_those_that_reach_it(started: Control) -> None:
    other = await started.create_space("Other")
    here, _ = await started.issue_token("here", [PROFILES_READ], space_id="default")
    await started.issue_token("there", [PROFILES_READ], space_id=other.id)
    [admin, *_] = started.tokens()
    assert started.tokens(started.space("default").id) == [admin, here]


def test_what_scopes_grant() -> None:
    assert grants((ADMIN,), EXPORTS_RAW)
    assert grants((AUDIENCES_WRITE,), AUDIENCES_READ)
    assert not grants((AUDIENCES_READ,), AUDIENCES_WRITE)
    assert not grants((AUDIENCES_WRITE,), EXPORTS_RAW)
    assert not grants((), PROFILES_READ)


# -- the audit trail, bounds, failures -------------------------------------------------------------------------------


async def test_every_act_is_in_the_audit_trail_newest_first(started: Control, clock: SimulatedClock) -> None:
    clock.set_ms(START_MS + 5)
    await started.create_space("Other", actor="tok_1")
    await started.record(Audited("Audience Created", "tok_2", "aud_1", "audience", "Buyers"))
    acts = started.acts()
    assert [(row.act.type, row.act.actor) for row in acts] == [
        ("Audience Created", "tok_2"),
        ("Space Created", "tok_1"),
        ("Space Created", "first start"),
    ]
    assert [row.at_ms for row in acts] == [START_MS + 5, START_MS + 5, START_MS]
    assert started.acts(before_seq=acts[0].seq, limit=1) == [acts[1]]


async def test_the_number_of_things_is_bounded(started: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "SPACES_MAX", 1)
    monkeypatch.setattr(control_module, "SOURCES_MAX", 1)
    monkeypatch.setattr(control_module, "TOKENS_MAX", 1)
    monkeypatch.setattr(control_module, "WRITE_KEYS_MAX", 1)
    with pytest.raises(ConflictError, match="1 spaces, at most 1"):
        await started.create_space("Other")
    with pytest.raises(ConflictError, match="sources"):
        await started.create_source("Web")
    with pytest.raises(ConflictError, match="tokens"):
        await started.issue_token("x", [PROFILES_READ])
    with pytest.raises(ConflictError, match="write keys"):
        await started.add_write_key("default")


async def test_what_could_not_be_stored_did_not_happen(clock: SimulatedClock) -> None:
    log = MemoryLog()
    control = await Control.open(log, clock, drawn())
    await control.start()
    log.fail_with = LogFullError("the disk is full")
    with pytest.raises(LogFullError):
        await control.create_space("Other")
    assert len(control.spaces()) == 1
    log.fail_with = None
    assert (await control.create_space("Other")).slug == "other"
