"""CSV files: the documented samples, quoting, formulas, hashes."""

import csv
import hashlib
import io
import tempfile
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from actors.bulk_ids import packed
from actors.identity_rows import EntityRecord, GivenId
from adapters.export_format import ExportSpec, Format, Hash
from adapters.export_job import Frame, Order, encode_frame, write_csv
from tests.export import plain
from tests.export.plain import Row

LUKE = Row("use_00000001", [("email", "luke@force.com"), ("email", "chosen_one@force.com"), ("anonymous_id", "anon_1")])
LEIA = Row("use_00000002", [("user_id", "leia")])


def text_of(
    spec: ExportSpec, rows: list[Row], *, with_value: bool = False, batch: int = 2, folder: Path | None = None
) -> str:
    """Return the file of some people, who are given batch by batch as a space gives them."""
    out = io.BytesIO()
    frames = []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        ids = [tuple(GivenId(kind, value, 1, 1, 1, 1) for kind, value in row.ids) for row in some]
        records = packed([msgpack.encode(EntityRecord("users", mine)) for mine in ids])
        entities = array("q", [int(row.key[4:], 36) for row in some])
        values = [row.value for row in some] if with_value else None
        frames.append(encode_frame(Frame(entities.tobytes(), records, values)))
    write_csv(Order(str((folder or Path(tempfile.gettempdir())) / "out.csv"), spec, 1, with_value), frames, out)
    return out.getvalue().decode()


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_unformatted_is_the_documented_sample() -> None:
    assert text_of(ExportSpec("unformatted"), [LUKE]) == (
        "key,external_ids\n"
        'use_00000001,"{""anonymous_id"":[""anon_1""],""email"":[""luke@force.com"",""chosen_one@force.com""]}"\n'
    )


def test_formatted_adds_a_column_for_each_id_of_the_widest_profile() -> None:
    head, luke, leia = read(text_of(ExportSpec("formatted"), [LUKE, LEIA]))
    assert head == ["key", "external_ids", "anonymous_id", "email", "email_1", "user_id"]
    assert luke[2:] == ["anon_1", "luke@force.com", "chosen_one@force.com", ""]
    assert leia == ["use_00000002", '{"user_id":["leia"]}', "", "", "", "leia"]


def test_single_column_holds_the_documented_hash_in_lower_case_one_row_a_value() -> None:
    lines = text_of(ExportSpec("single_column"), [LUKE, LEIA]).splitlines()
    assert lines[:2] == ["email", "A111F4879EC86CA6DE45B23732CB9CC5DA7EB381196377BC4933E4E1F50C7275".lower()]
    assert len(lines) == 3


def test_values_are_trimmed_and_lower_cased_before_hashing() -> None:
    rows = [Row("use_00000001", [("phone", "  ABC ")])]
    expected = hashlib.sha256(b"abc").hexdigest()
    assert text_of(ExportSpec("single_column", "phone"), rows) == f"phone\n{expected}\n"


def test_single_column_unhashed_holds_the_values_as_they_are() -> None:
    assert text_of(ExportSpec("single_column", hash="none"), [LUKE]).splitlines()[1:] == [
        value for kind, value in LUKE.ids if kind == "email"
    ]


def test_hashing_the_other_formats_leaves_no_id_readable() -> None:
    for name in ("unformatted", "formatted"):
        text = text_of(ExportSpec(name, hash="sha256"), [LUKE, LEIA])
        assert not any(value in text for value in ("luke@force.com", "chosen_one", "anon_1", "leia"))
        assert hashlib.sha256(b"leia").hexdigest() in text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (450.5, "450.5"),
        (-3, "-3"),  # a number is no formula
        (True, "true"),
        ("gold", "gold"),
        ("=1+1", "'=1+1"),
        (["a", "b"], '["a","b"]'),
        ("a,b", "a,b"),
    ],
)
def test_a_computed_trait_has_its_value_as_the_second_column(value: Any, cell: str) -> None:
    rows = [Row("use_00000001", [("email", "a@x.io")], value)]
    for spec in (ExportSpec("unformatted"), ExportSpec("formatted"), ExportSpec("single_column", hash="none")):
        head, row = read(text_of(spec, rows, with_value=True))
        assert head[1] == "value"
        assert row[1] == cell


@pytest.mark.parametrize("lead", ["=", "+", "-", "@", "\t", "\r"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(lead: str) -> None:
    attack = lead + "cmd|' /C calc'!A0"
    rows = [Row("use_00000001", [("email", attack), ("email", "plain@x.io"), (attack, "x")])]
    head, row = read(text_of(ExportSpec("formatted"), rows))
    assert "'" + attack in head
    assert row[head.index("email")] == "'" + attack
    assert row[head.index("email_1")] == "plain@x.io"
    assert read(text_of(ExportSpec("single_column", hash="none"), rows))[1] == ["'" + attack]


def test_one_cell_in_need_of_care_does_not_change_its_neighbours() -> None:
    rows = [Row(f"use_{n:08}", [("email", f"a{n}@x.io")]) for n in range(5)]
    rows[2] = Row("use_00000002", [("email", 'say "hi", you')])
    parsed = read(text_of(ExportSpec("formatted"), rows, batch=5))
    assert [row[2] for row in parsed[1:]] == ["a0@x.io", "a1@x.io", 'say "hi", you', "a3@x.io", "a4@x.io"]


NAMES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\n\r\t=+-@%{}\\\x7f\u2028'), min_size=1, max_size=6
)
PLAIN = st.text("abc@.19é\u00a0%", min_size=1, max_size=5)
TYPES = st.sampled_from(["email", "user_id", "a%s", "-x"]) | NAMES
IDS = st.lists(st.tuples(st.sampled_from(["email", "user_id"]), PLAIN) | st.tuples(TYPES, NAMES), max_size=5)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([-1.5, 0.0, 450.5])
    | NAMES
    | st.lists(NAMES, max_size=2)
)


@given(
    st.lists(IDS | st.just([("user_id", "u"), ("email", "e@x")]), max_size=8),
    st.sampled_from(["unformatted", "formatted", "single_column"]),
    st.sampled_from([None, "sha256", "none"]),
    st.integers(1, 4),
)
@settings(max_examples=300)
def test_every_byte_is_what_writing_row_by_row_gives(
    ids: list[list[tuple[str, str]]],
    form: Format,
    hashing: Hash | None,
    batch: int,
) -> None:
    rows = [Row(f"use_{n:08}", mine) for n, mine in enumerate(ids)]
    spec = ExportSpec(form, "email", hashing)
    assert text_of(spec, rows, batch=batch) == plain.text_of(spec, rows)


@given(st.lists(st.tuples(IDS, VALUES), max_size=5), st.sampled_from(["unformatted", "formatted", "single_column"]))
def test_every_byte_of_a_computed_trait_is_what_writing_row_by_row_gives(
    found: list[tuple[list[tuple[str, str]], Any]], form: Format
) -> None:
    rows = [Row(f"use_{n:08}", mine, value) for n, (mine, value) in enumerate(found)]
    spec = ExportSpec(form, "email", "none")
    assert text_of(spec, rows, with_value=True) == plain.text_of(spec, rows, with_value=True)


def test_the_widest_profile_may_come_last(tmp_path: Path) -> None:
    rows = [Row(f"use_{n:08}", [("email", f"{n}_{k}@x.io") for k in range(n)]) for n in range(7)]
    rows.append(Row("use_00000007", [("zip", "8000")]))
    spec = ExportSpec("formatted")
    text = text_of(spec, rows, folder=tmp_path)
    assert text == plain.text_of(spec, rows)
    assert [line.count(",") for line in text.splitlines()[1:2]] == [8]
    assert list(tmp_path.iterdir()) == []
