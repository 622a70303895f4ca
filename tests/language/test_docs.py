"""The page about the language names every word of it, and its examples are what they say."""

import re
from pathlib import Path

import pytest
from msgspec import json

from actors.language import EntityType, Kind, lint, parse, to_json
from actors.language.tree import SYMBOLS
from actors.language.vocabulary import (
    COMPARISONS,
    DEFINITION_CHARS_MAX,
    DEPTH_MAX,
    EXTRACTORS,
    FILTERS,
    NAME_CHARS_MAX,
    PATTERN_CHARS_MAX,
    PRIMARIES_MAX,
    REDUCERS,
    UNITS_MS,
)
from eventlog.errors import QueryError

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text("utf-8")


def _examples() -> list[tuple[str, str]]:
    """Return each example with its label; a definition begins at the left margin."""
    found: list[tuple[str, str]] = []
    for label, block in re.findall(r"^```turnout ?(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        lines = [line for line in block.splitlines() if line and not line.startswith("--")]
        for line in lines:
            if line.startswith(" "):
                found[-1] = (label, f"{found[-1][1]}\n{line}")
            else:
                found.append((label, line))
    return found


@pytest.mark.parametrize(("label", "text"), _examples())
def test_every_example_of_the_page_is_a_definition_without_a_mistake(label: str, text: str) -> None:
    entity_type: EntityType = "ACCOUNTS" if label == "accounts" else "USERS"
    kind: Kind = "trait" if label == "trait" else "audience"
    assert lint(parse(text, entity_type=entity_type, kind=kind)) == []


def test_the_page_names_every_word_of_the_language() -> None:
    assert len(_examples()) > 8
    for name in EXTRACTORS:
        assert f"`{name}(" in PAGE
    for name in (*FILTERS, *REDUCERS, *COMPARISONS):
        assert f".{name}(" in PAGE
    for symbol in SYMBOLS:
        assert f"`{symbol} 5`" in PAGE
    for unit in UNITS_MS:
        assert f"`{unit}`" in PAGE


def test_the_page_states_the_bounds() -> None:
    for bound in (DEFINITION_CHARS_MAX, PRIMARIES_MAX, DEPTH_MAX, NAME_CHARS_MAX, PATTERN_CHARS_MAX):
        assert f" {bound:,} " in PAGE


def test_the_json_of_the_page_is_that_of_its_text() -> None:
    found = re.search(r"<!-- json of: (.*?) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    assert to_json(parse(found[1])) == json.decode(found[2])


def test_the_errors_of_the_page_are_the_real_ones() -> None:
    shown = re.search(r"^line 1, column 21: .*$", PAGE, re.MULTILINE)
    assert shown is not None
    with pytest.raises(QueryError, match=f"^{re.escape(shown[0])}$"):
        parse("event('A').within(7 fortnights).count() >= 1")
