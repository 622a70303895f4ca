"""Old bytes decode for ever."""

import typing

import pytest

from eventlog.codec import decode_commit, encode_commit
from eventlog.entries import AnyFact
from tests.conformance.golden import ENTRIES, GOLDEN


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes_of_a_former_day_decode_to_what_they_were(name: str) -> None:
    data = (ENTRIES / f"{name}.bin").read_bytes()
    assert decode_commit(data, name) == GOLDEN[name]
    assert decode_commit(encode_commit(GOLDEN[name])) == GOLDEN[name]


def test_every_file_is_looked_at() -> None:
    assert {path.stem for path in ENTRIES.glob("*.bin")} == set(GOLDEN)


def test_every_kind_of_fact_has_old_bytes() -> None:
    """A new fact joins golden.py before it is released."""
    assert {type(fact) for commit in GOLDEN.values() for fact in commit.facts} == set(typing.get_args(AnyFact))
