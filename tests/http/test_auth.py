"""Who asks, and whether they may."""

import base64
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.control import ADMIN, AUDIENCES_READ, AUDIENCES_WRITE, EXPORTS_RAW, PROFILES_READ, Control
from adapters.http.auth import Gate, authorize, management_refusal, refusal_headers, secret_of, tracking_refusal
from eventlog.clock import SimulatedClock
from eventlog.entries import TokenRecord
from eventlog.errors import ForbiddenError, InvalidError, TooManyError, UnauthorizedError
from eventlog.memory import MemoryLog

START_MS = 1_772_323_200_000


def basic(user: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START_MS)


@pytest.fixture
async def control(clock: SimulatedClock) -> Control:
    numbers = count(1)
    control = await Control.open(MemoryLog(), clock, lambda size: next(numbers).to_bytes(size, "big"))
    await control.start()
    return control


@pytest.fixture
def gate(control: Control, clock: SimulatedClock) -> Gate:
    return Gate(control, clock, rate_per_s=10, burst=3)


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        ("Bearer tt_1", "tt_1"),
        ("bearer  tt_1 ", "tt_1"),
        (basic("tt_1"), "tt_1"),
        (basic("tt_1", "ignored:too"), "tt_1"),
        ("Basic " + base64.b64encode(b"tt_1").decode(), "tt_1"),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        (basic(""), None),
        ("Basic !!!", None),
        ("Basic " + base64.b64encode(b"\xff:").decode(), None),
        ("Digest username=tt_1", None),
        ("tt_1", None),
        ("Bearer " + "x" * 5_000, None),
    ],
)
def test_a_secret_is_found_in_either_form_of_the_header(header: str | None, secret: str | None) -> None:
    assert secret_of(header) == secret


@given(st.text(max_size=40))
def test_no_header_crashes_its_reading(header: str) -> None:
    for value in (header, f"Basic {header}", f"Bearer {header}"):
        secret = secret_of(value)
        assert secret is None or secret


async def test_a_known_token_is_let_in(control: Control, gate: Gate) -> None:
    token, secret = await control.issue_token("reader", [PROFILES_READ])
    assert gate.authenticate(f"Bearer {secret}") == token
    assert gate.authenticate(basic(secret)) == token


@pytest.mark.parametrize(
    ("header", "found"), [(None, "no token"), ("Bearer nobody", "a token that is unknown, revoked or expired")]
)
async def test_nobody_known_is_turned_away(gate: Gate, header: str | None, found: str) -> None:
    with pytest.raises(UnauthorizedError, match=found) as caught:
        gate.authenticate(header)
    assert caught.value.status == 401
    assert refusal_headers(caught.value) == {"WWW-Authenticate": 'Basic realm="turnout", charset="UTF-8"'}


async def test_a_write_key_is_no_token(control: Control, gate: Gate) -> None:
    _, write_key = await control.create_source("Web")
    with pytest.raises(UnauthorizedError):
        gate.authenticate(basic(write_key))


async def test_a_revoked_token_is_turned_away(control: Control, gate: Gate) -> None:
    token, secret = await control.issue_token("reader", [PROFILES_READ])
    await control.revoke_token(token.id)
    with pytest.raises(UnauthorizedError):
        gate.authenticate(f"Bearer {secret}")


@pytest.mark.parametrize(
    ("scopes", "space", "wanted", "where", "allowed"),
    [
        ((PROFILES_READ,), "", PROFILES_READ, "spa_1", True),
        ((PROFILES_READ,), "", AUDIENCES_READ, "spa_1", False),
        ((AUDIENCES_WRITE,), "", AUDIENCES_READ, "spa_1", True),
        ((AUDIENCES_READ,), "", AUDIENCES_WRITE, "spa_1", False),
        ((AUDIENCES_WRITE,), "", EXPORTS_RAW, "spa_1", False),
        ((ADMIN,), "", EXPORTS_RAW, "spa_1", True),
        ((ADMIN,), "spa_1", EXPORTS_RAW, "spa_1", True),
        ((ADMIN,), "spa_1", EXPORTS_RAW, "spa_2", False),
        ((PROFILES_READ,), "", "", None, True),
    ],
)
def test_scopes_and_spaces_decide(
    scopes: tuple[str, ...], space: str, wanted: str, where: str | None, allowed: bool
) -> None:
    token = TokenRecord("tok_1", "t", "", "", scopes, space_id=space)
    if allowed:
        authorize(token, wanted, where)
    else:
        with pytest.raises(ForbiddenError) as caught:
            authorize(token, wanted, where)
        assert caught.value.status == 403


async def test_a_token_may_make_so_many_requests_and_then_has_to_wait(
    control: Control, gate: Gate, clock: SimulatedClock
) -> None:
    _, secret = await control.issue_token("busy", [PROFILES_READ])
    _, other = await control.issue_token("other", [PROFILES_READ])
    header = f"Bearer {secret}"
    for _ in range(3):
        gate.authenticate(header)
    with pytest.raises(TooManyError, match="more than 10 requests a second with the token 'busy'") as caught:
        gate.authenticate(header)
    assert caught.value.status == 429
    assert caught.value.retry_after_ms == 100
    assert refusal_headers(caught.value) == {"Retry-After": "1"}
    gate.authenticate(f"Bearer {other}")  # others are not held up
    clock.set_ms(START_MS + 99)
    with pytest.raises(TooManyError):
        gate.authenticate(header)
    clock.set_ms(START_MS + 100)
    gate.authenticate(header)


def test_a_refusal_is_worded_for_each_api() -> None:
    error = InvalidError("invalid", "name: too long", field="name")
    assert management_refusal(error) == {
        "errors": [{"type": "invalid", "message": "name: too long", "status": 400, "field": "name"}]
    }
    assert tracking_refusal(error) == b'{"success":false,"code":"invalid","message":"name: too long"}'
