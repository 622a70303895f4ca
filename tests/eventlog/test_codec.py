"""Commits through bytes: everything comes back, and no torn byte goes unnoticed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog import codec
from eventlog.codec import decode_commit, encode_commit
from eventlog.entries import AnyFact, Commit, Event, IdAdded, Rejected, Ticked, TraitComputed
from eventlog.errors import LogCorruptError, LogError
from tests.eventlog.worlds import START_MS, commit

int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

facts = st.one_of(
    st.builds(Ticked, int64),
    st.builds(IdAdded, int64, st.sampled_from(["users", "accounts"]), text, text, int64, int64, text),
    st.builds(Rejected, st.integers(0, 2500), text, text, text, text, st.binary(max_size=20)),
    st.builds(
        TraitComputed,
        int64,
        int64,
        st.none() | st.booleans() | st.floats(allow_nan=False) | text | st.lists(text),
        int64,
        int64,
    ),
)


@st.composite
def made_commits(draw: st.DrawFn) -> Commit:
    first_seq = draw(st.integers(1, 2**40))
    count = draw(st.integers(0, 12))
    events = tuple(
        Event(
            first_seq + i,
            draw(int64),
            draw(int64),
            draw(int64),
            draw(int64),
            draw(st.integers(0, 6)),
            draw(text),
            draw(text),
            draw(text),
            draw(st.binary(max_size=700)),
        )
        for i in range(count)
    )
    some = draw(st.lists(facts, min_size=0 if events else 1, max_size=10))
    return Commit(first_seq, draw(int64), events, tuple(some))


@given(made_commits(), st.sampled_from([1, 3, 512]), st.sampled_from([1, 100, 2**20]), st.sampled_from([1, 4096]))
def test_a_commit_comes_back_however_it_is_cut_into_packs(
    one: Commit, events_max: int, bytes_max: int, facts_max: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "PACK_EVENTS_MAX", events_max)
        patch.setattr(codec, "PACK_BODY_BYTES_MAX", bytes_max)
        patch.setattr(codec, "PACK_FACTS_MAX", facts_max)
        data = encode_commit(one)
    assert decode_commit(data) == one


def some_commit() -> Commit:
    many: Sequence[AnyFact] = (Ticked(START_MS), TraitComputed(1, 2, "x" * 600, START_MS, 3))
    return commit(41, 20, many)


def test_any_torn_byte_is_found() -> None:
    data = encode_commit(some_commit())
    for at in range(len(data)):
        torn = bytearray(data)
        torn[at] ^= 0x10
        with pytest.raises(LogCorruptError):
            decode_commit(bytes(torn))


def test_a_commit_cut_short_anywhere_is_found() -> None:
    data = encode_commit(some_commit())
    for size in range(len(data)):
        with pytest.raises(LogCorruptError):
            decode_commit(data[:size])
    with pytest.raises(LogCorruptError, match="behind the end"):
        decode_commit(data + b"x")


def test_a_pack_of_a_later_format_is_refused_by_its_number() -> None:
    data = bytearray(encode_commit(some_commit()))
    data[0] = codec.FORMAT + 1
    with pytest.raises(LogCorruptError, match=f"format {codec.FORMAT + 1}"):
        decode_commit(bytes(data))


def test_a_missing_pack_in_the_middle_is_found() -> None:
    data = [codec.seal(raw) for raw in codec.pack(commit(1, 1600))]
    joined = b"".join(part for sealed in (data[0], *data[2:]) for part in (sealed.head, sealed.body))
    with pytest.raises(LogCorruptError, match="513 expected"):
        decode_commit(joined)


def test_an_empty_commit_is_refused() -> None:
    with pytest.raises(LogError, match="no entries"):
        encode_commit(Commit(1, START_MS))


@settings(max_examples=20)
@given(st.binary(max_size=200))
def test_noise_is_never_taken_for_a_commit(noise: bytes) -> None:
    with pytest.raises(LogCorruptError):
        decode_commit(noise)


def test_bytes_that_errors_speak_of_are_named_by_their_file(tmp_path: Path) -> None:
    with pytest.raises(LogCorruptError, match=r"space\.log"):
        decode_commit(b"", str(tmp_path / "space.log"))
