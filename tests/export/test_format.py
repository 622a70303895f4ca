"""CSV files: the documented samples, quoting, formulas, hashes."""

import csv
import hashlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.export import ExportSpec, Row, Widths, write_csv

LUKE = Row("use_1", {"email": ["luke@force.com", "chosen_one@force.com"], "anonymous_id": ["anon_1"]})
LEIA = Row("use_2", {"user_id": ["leia"]})


def widths_of(rows: list[Row]) -> Widths:
    most: dict[str, int] = {}
    for row in rows:
        for id_type, values in row.ids.items():
            most[id_type] = max(most.get(id_type, 0), len(values))
    return Widths(len(rows), most)


def text_of(spec: ExportSpec, rows: list[Row], *, with_value: bool = False, batch: int = 2) -> str:
    out = io.BytesIO()
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    write_csv(spec, batches, widths_of(rows), out, with_value=with_value)
    return out.getvalue().decode()


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_unformatted_is_the_documented_sample() -> None:
    assert text_of(ExportSpec("unformatted"), [LUKE]) == (
        "key,external_ids\n"
        'use_1,"{""anonymous_id"":[""anon_1""],""email"":[""luke@force.com"",""chosen_one@force.com""]}"\n'
    )


def test_formatted_adds_a_column_for_each_id_of_the_widest_profile() -> None:
    head, luke, leia = read(text_of(ExportSpec("formatted"), [LUKE, LEIA]))
    assert head == ["key", "external_ids", "anonymous_id", "email", "email_1", "user_id"]
    assert luke[2:] == ["anon_1", "luke@force.com", "chosen_one@force.com", ""]
    assert leia == ["use_2", '{"user_id":["leia"]}', "", "", "", "leia"]


def test_single_column_holds_the_documented_hash_in_lower_case_one_row_a_value() -> None:
    lines = text_of(ExportSpec("single_column"), [LUKE, LEIA]).splitlines()
    assert lines[:2] == ["email", "A111F4879EC86CA6DE45B23732CB9CC5DA7EB381196377BC4933E4E1F50C7275".lower()]
    assert len(lines) == 3


def test_values_are_trimmed_and_lower_cased_before_hashing() -> None:
    rows = [Row("use_1", {"phone": ["  ABC "]})]
    expected = hashlib.sha256(b"abc").hexdigest()
    assert text_of(ExportSpec("single_column", "phone"), rows) == f"phone\n{expected}\n"


def test_single_column_unhashed_holds_the_values_as_they_are() -> None:
    assert text_of(ExportSpec("single_column", hash="none"), [LUKE]).splitlines()[1:] == LUKE.ids["email"]


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
    rows = [Row("use_1", {"email": ["a@x.io"]}, value)]
    for spec in (ExportSpec("unformatted"), ExportSpec("formatted"), ExportSpec("single_column", hash="none")):
        head, row = read(text_of(spec, rows, with_value=True))
        assert head[1] == "value"
        assert row[1] == cell


@pytest.mark.parametrize("lead", ["=", "+", "-", "@", "\t", "\r"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(lead: str) -> None:
    attack = lead + "cmd|' /C calc'!A0"
    rows = [Row("use_1", {"email": [attack, "plain@x.io"], attack: ["x"]})]
    head, row = read(text_of(ExportSpec("formatted"), rows))
    assert "'" + attack in head
    assert row[head.index("email")] == "'" + attack
    assert row[head.index("email_1")] == "plain@x.io"
    assert read(text_of(ExportSpec("single_column", hash="none"), rows))[1] == ["'" + attack]


def test_one_cell_in_need_of_care_does_not_change_its_neighbours() -> None:
    rows = [Row(f"use_{n}", {"email": [f"a{n}@x.io"]}) for n in range(5)]
    rows[2] = Row("use_2", {"email": ['say "hi", you']})
    parsed = read(text_of(ExportSpec("formatted"), rows, batch=5))
    assert [row[2] for row in parsed[1:]] == ["a0@x.io", "a1@x.io", 'say "hi", you', "a3@x.io", "a4@x.io"]


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('",\n\r\t=+-@'), min_size=1, max_size=6
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["email", "user_id"]), st.lists(NAMES, min_size=1, max_size=3)), max_size=5
    ),
    st.integers(1, 3),
)
def test_a_csv_reader_finds_what_was_written_whatever_the_ids_hold(ids: list[dict[str, list[str]]], batch: int) -> None:
    rows = [Row(f"use_{n}", found) for n, found in enumerate(ids)]

    def neutral(value: str) -> str:
        return "'" + value if value[0] in "=+-@\t\r\n" else value

    head, *parsed = read(text_of(ExportSpec("formatted"), rows, batch=batch))
    assert len(parsed) == len(rows)
    for row, line in zip(rows, parsed, strict=True):
        found: dict[str, list[str]] = {}
        for name, cell in zip(head[2:], line[2:], strict=True):
            if cell:
                found.setdefault(name.removesuffix("_1").removesuffix("_2"), []).append(cell)
        assert found == {id_type: [neutral(value) for value in values] for id_type, values in row.ids.items()}
