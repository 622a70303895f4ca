"""Reading NDJSON files: every packing gives the same lines, and bad files say what is wrong with them."""

import gzip
import io
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis.strategies import lists, sampled_from

from adapters.cli import lines as subject
from adapters.cli.lines import LINE_BYTES_MAX, UnreadableFileError, blocks

LINES = [b'{"n":1}', b"", b'{"n":2}', "{'æ'}".encode()]


def lines_of(name: str) -> list[bytes]:
    return [line for block in blocks(name) for line in block.lines]


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress], ids=["plain", "gz", "zst"]
)
def test_every_packing_gives_the_same_lines_whatever_the_name(tmp_path: Path, pack: type[bytes]) -> None:
    file = tmp_path / "events"
    file.write_bytes(pack(b"\n".join(LINES)))
    assert lines_of(str(file)) == LINES


def test_packed_parts_that_were_put_one_behind_the_other_are_all_read(tmp_path: Path) -> None:
    for name, pack in (("a.gz", gzip.compress), ("a.zst", zstandard.ZstdCompressor().compress)):
        (tmp_path / name).write_bytes(pack(b"one\n") + pack(b"two\n"))
        assert lines_of(str(tmp_path / name)) == [b"one", b"two"]


def test_standard_input_is_read_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"one\r\ntwo"))))
    assert lines_of("-") == [b"one", b"two"]


@given(lists(sampled_from([b"", b"a", b"bc", b"defgh"]), max_size=12), sampled_from([1, 2, 3, 7]))
def test_lines_are_whole_wherever_a_block_ends(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[bytes], block: int
) -> None:
    file = tmp_path_factory.mktemp("lines") / "events"
    file.write_bytes(b"".join(line + b"\n" for line in wanted))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "BLOCK_BYTES", block)
        read = list(blocks(str(file)))
    assert [line for block in read for line in block.lines] == wanted
    assert [block.first_line for block in read] == [1 + sum(len(b.lines) for b in read[:i]) for i in range(len(read))]


def test_a_line_above_the_bound_is_cut_just_above_it_and_its_neighbours_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "events"
    file.write_bytes(b"a\n" + b"x" * (3 * LINE_BYTES_MAX) + b"\nb\n")
    first, long, last = lines_of(str(file))
    assert (first, last) == (b"a", b"b")
    assert len(long) == LINE_BYTES_MAX + 1


def test_progress_counts_the_bytes_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "events.gz"
    file.write_bytes(gzip.compress(b'{"n":1}\n' * 500_000))
    progress = [block.read_bytes for block in blocks(str(file))]
    assert progress == sorted(progress)
    assert progress[-1] == file.stat().st_size == subject.size_bytes(str(file))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gz", "zst"])
def test_a_torn_file_gives_what_can_be_read_and_says_where_it_ends(tmp_path: Path, pack: type[bytes]) -> None:
    file = tmp_path / "events"
    wanted = [b'{"n":%d}' % n for n in range(500_000)]
    file.write_bytes(pack(b"\n".join(wanted))[:-1000])
    read: list[bytes] = []
    with pytest.raises(UnreadableFileError, match=r"events: cannot be read after [\d,]+ bytes: Compressed file ended"):
        read.extend(line for block in blocks(str(file)) for line in block.lines)
    assert len(read) > 300_000
    assert read == wanted[: len(read)]


def test_a_file_packed_by_no_known_means_of_its_first_bytes_is_read_as_plain_lines(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"\x1f")
    assert lines_of(str(tmp_path / "short")) == [b"\x1f"]


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"nowhere: cannot be read after 0 bytes: No such file"):
        lines_of(str(tmp_path / "nowhere"))
    with pytest.raises(UnreadableFileError, match="Is a directory"):
        lines_of(str(tmp_path))
