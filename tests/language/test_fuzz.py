"""Whatever the text, the answer is a tree or a QueryError, at once."""

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.language import EntityType, Kind, parse, print_query
from actors.language.tree import Definition
from actors.language.vocabulary import COMPARISONS, EXTRACTORS, FILTERS, REDUCERS
from eventlog.errors import QueryError
from tests.language.strategies import definitions

FUZZED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORDS = (
    *EXTRACTORS,
    *FILTERS,
    *REDUCERS,
    *COMPARISONS,
    *("AND", "or", "NOT", "ANY", "all", "none", "as", "parent:", "exclude:", "true", "null", "days", "hour", "string"),
    *(
        "(",
        ")",
        "()",
        ".",
        ",",
        "'A'",
        '"b"',
        "5",
        "-1",
        "1e9",
        "2026-01-31",
        "[",
        "]",
        "{",
        "}",
        "=",
        ">=",
        "--",
        "\n",
    ),
)


def _refusal(text: str, entity_type: EntityType, kind: Kind) -> QueryError | None:
    try:
        tree = parse(text, entity_type=entity_type, kind=kind)
    except QueryError as error:
        return error
    assert parse(print_query(tree), entity_type=entity_type, kind=kind) == tree
    return None


def _answers(text: str) -> None:
    lines = text.split("\n")
    for error in (
        _refusal(text, "USERS", "audience"),
        _refusal(text, "ACCOUNTS", "audience"),
        _refusal(text, "USERS", "trait"),
    ):
        if error is not None:
            assert 1 <= error.line <= len(lines)
            assert 1 <= error.column <= len(lines[error.line - 1]) + 1
            assert len(str(error)) < 2_000


@FUZZED
@given(st.text(max_size=60))
@example("\ud800")
@example("'\\")
@example("2026-01-31T")
def test_any_text_is_answered(text: str) -> None:
    _answers(text)


@FUZZED
@given(st.lists(st.sampled_from(WORDS), max_size=25), st.sampled_from(("", " ")))
def test_any_heap_of_words_is_answered(words: list[str], between: str) -> None:
    _answers(between.join(words))


@FUZZED
@given(definitions("ACCOUNTS", "audience", wild=True), st.data())
def test_a_spoilt_definition_is_answered(tree: Definition, data: st.DataObject) -> None:
    text = print_query(tree)
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 8))
    insert = data.draw(st.sampled_from(("", *WORDS)) | st.text(max_size=3))
    _answers(text[:start] + insert + text[start + length :])
