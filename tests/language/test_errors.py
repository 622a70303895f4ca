"""What is refused, where, and with which advice."""

import time

import pytest

from actors.language import EntityType, Kind, parse
from actors.language.vocabulary import DEFINITION_CHARS_MAX, DEPTH_MAX, NAME_CHARS_MAX
from eventlog.errors import QueryError

SLOWEST_S = 1.0  # any refusal takes milliseconds; a shared machine may stutter


def _error(text: str, entity_type: EntityType = "USERS", kind: Kind = "audience") -> QueryError:
    began = time.perf_counter()
    with pytest.raises(QueryError) as caught:
        parse(text, entity_type=entity_type, kind=kind)
    assert time.perf_counter() - began < SLOWEST_S
    return caught.value


# text, column, part of what was found, part of what would be accepted or of the hint
TABLE = [
    # the shape
    ("", 1, "the end", "event('…')"),
    ("   -- nothing", 14, "the end", "event('…')"),
    ("event('A'", 10, "the end", "still open"),
    ("(audience('k')", 15, "the end", "still open"),
    ("audience('k'))", 14, "')'", "never opened"),
    ("trait('x') >", 13, "the end", "a value"),
    ("trait('x') < 5 < 6", 16, "'<'", "join two with AND"),
    ("trait('x) = 5", 7, "never closed", "a closing '"),
    ('trait("x) = 5', 7, "never closed", 'a closing "'),
    ("trait(\u2018x\u2019) = 5", 7, "'\u2018'", "straight quotes"),
    ("audience('a') && audience('b')", 15, "'&'", "AND"),
    ("audience('a') || audience('b')", 15, "'|'", "OR"),
    ("!audience('a')", 1, "'!'", "NOT"),
    ("trait('x') <> 5", 13, "'>'", "!="),
    ("audience('a') audience('b')", 15, "'audience'", "AND"),
    ("audience('a') AND", 18, "the end", "a value or function"),
    ("AND audience('a')", 1, "'AND'", "a value or function"),
    ("trait('x') one_of 5", 12, "'one_of'", ".one_of("),
    ("trait.x = 5", 6, "'.'", "trait('a.b')"),
    ("trait('x')..exists()", 12, "'.'", "a function"),
    ("event('A').count >= 1", 18, "'>='", "'('"),
    ("trait('x') = #5", 14, "'#'", "--"),
    ("trait('x') = \x00", 14, "U+0000", "quotes"),
    # names of functions, units and types
    ("evnt('A').count() >= 1", 1, "'evnt'", "did you mean event?"),
    ("count(event('A')) >= 1", 1, "'count'", "event('…').count(…)"),
    ("contains('A')", 1, "'contains'", "trait('…').contains(…)"),
    ("event('A').cuont() >= 1", 12, "'cuont'", "did you mean count?"),
    ("event('A').average(property('x')) >= 1", 12, "'average'", "did you mean avg?"),
    ("trait('x').is_set()", 12, "'is_set'", "did you mean exists?"),
    ("trait('x').foo()", 12, "'foo'", "starts_with"),
    (
        "event('A').within(7 fortnights).count() >= 1",
        21,
        "'fortnights'",
        "seconds or minutes or hours or days or weeks",
    ),
    ("event('A').within(7 dys).count() >= 1", 21, "'dys'", "did you mean days?"),
    ("event('A').within(2 months).count() >= 1", 21, "'months'", "did you mean days?"),
    ("event('A').max(property('x') as strng) >= 1", 33, "'strng'", "did you mean string?"),
    ("event('A').sum(property('x') as number) >= 1", 33, "'number'", "sum takes no type"),
    ("event('A').where(property('x') as string).count() >= 1", 35, "'as string'", "min, max and mode"),
    # what a function takes
    ("event(A).count() >= 1", 7, "'A'", "put quotes around it: 'A'"),
    ("event(5).count() >= 1", 7, "'5'", "a name in quotes"),
    ("event('').count() >= 1", 7, "nothing", "event() is any event"),
    ("trait() = 5", 1, "'trait()' without an argument", "a name in quotes"),
    ("trait('a', 'b') = 5", 12, "a second argument", "only a name"),
    ("trait(parent: 'a') = 5", 7, "'parent'", "property and context"),
    ("trait('a..b') = 5", 7, "an empty name", r"\\."),
    ("trait('') = 5", 7, "an empty name", "a name"),
    ("event('A').count(property('x')) >= 1", 18, "an argument of count", "unique(property('…')).count()"),
    ("event('A').sum() >= 1", 12, "'sum()' without an argument", "property('…')"),
    ("event('A').sum(trait('x')) >= 1", 16, "'trait'", "the events themselves"),
    ("event('A').sum('x') >= 1", 16, "'x'", "say property('x')"),
    ("event('A').sum(property('x'), 2) >= 1", 31, "argument 2 of sum", "at most 1"),
    ("event('A').mode(property('x'), 1.5) >= 1", 32, "'1.5'", "a whole number"),
    ("event('A').mode(property('x'), 0) >= 1", 12, "0", "from 1 to"),
    ("event('A').within(7).count() >= 1", 19, "'7'", "did you mean 7 days?"),
    ("event('A').within(1.5 days).count() >= 1", 19, "'1.5'", "36 hours"),
    ("event('A').within(-7 days).count() >= 1", 19, "-7 days", "0 to 36500 days"),
    ("event('A').within(99999999999 days).count() >= 1", 19, "99999999999 days", "0 to 36500 days"),
    ("event('A').within().count() >= 1", 12, "'within()'", "7 days"),
    ("event('A').between(7 days).count() >= 1", 12, "'between' with 1", "two durations"),
    ("event('A').since(2026-02-30).count() >= 1", 18, "2026-02-30", "must exist"),
    ("event('A').since(2026-13-01T00:00:00Z).count() >= 1", 18, "2026-13-01", "must exist"),
    ("event('A').until('soon').count() >= 1", 18, "'soon'", "ISO 8601"),
    ("event('A').since(2026-01-01).since(2026-01-02).count() >= 1", 30, "a second 'since'", "only one"),
    ("event('A').sources(['s']).count() >= 1", 12, "without exclude:", "exclude: ['source id']"),
    ("event('A').sources(exclude: []).count() >= 1", 12, "no source ids", "exclude: ['source id']"),
    ("event('A').sources(include: ['s']).count() >= 1", 20, "'include'", "exclude:"),
    ("event('A').where().count() >= 1", 12, "'where()'", "a condition"),
    ("event('A').where(property('x')).count() >= 1", 18, "a value", "a condition"),
    ("trait('x').exists(5)", 12, "1 argument", "none"),
    ("trait('x').equals()", 12, "no arguments", "one"),
    ("trait('x').within_last(7)", 24, "the number 7", "a duration"),
    ("trait('x') > 7 days", 14, "'7 days'", "within_last"),
    ("trait('x').equals(7 days)", 19, "a duration", "within_last"),
    ("trait('x') = [1, 2]", 14, "a list", "one_of"),
    ("trait('x') = null", 14, "'null'", ".absent()"),
    ("trait('x') = pro", 14, "'pro'", "'pro'"),
    ("literal(trait('x')) = 5", 9, "'trait'", "leave literal() out"),
    ("trait('x') = 1e999", 14, "not finite", "1e308"),
    ("trait('x') = 2026-02-30", 14, "2026-02-30", "must exist"),
    ("trait('x') = " + "9" * 5000, 14, "not finite", "1e308"),
    # what may follow what
    ("event('A') >= 1", 12, "'>='", "event('…').count() >= 1"),
    ("event('A').at_least(1)", 12, "'at_least'", "event('…').count() >= 1"),
    ("event('A')", 1, "without a reducer", ".count"),
    ("trait('x') > event('A')", 14, "without a reducer", ".count"),
    ("event('A').count()", 1, "a value", "compare it"),
    ("event('A').count().within(7 days) >= 1", 20, "'within'", "before the reducer"),
    ("event('A').count().sum(property('x')) >= 1", 20, "'sum'", "one reducer"),
    ("event('A').count().count() >= 1", 20, "'count'", "one reducer"),
    ("trait('x').count() >= 1", 12, "'count'", "only events"),
    ("trait('x').within(7 days) = 1", 12, "'within'", "only events"),
    ("trait('x').exists().count()", 21, "'count'", "ends its chain"),
    ("trait('x').exists() = true", 1, "a condition", "one value on each side"),
    ("trait('x') = (trait('y') = 5)", 15, "a condition", "a value"),
    ("trait('x')", 1, "a value", "= true"),
    ("5", 1, "a value", "a condition"),
    ("audience('k').exists()", 15, "'exists'", "a condition by itself"),
    ("audience('k') > 5", 15, "'>'", "NOT before it"),
    # types
    ("event('A').unique(property('x')) > 1", 34, "on a list", ".unique(…).count()"),
    ("trait('x') = event('A').unique(property('x'))", 14, "a list", ".count()"),
    ("event('A').count().before_date('2026-01-01')", 20, "on a number", ".since(2026-01-01)"),
    ("event('A').sum(property('x')).within_last(7 days)", 31, "on a number", "a date on the left"),
    ("trait('x').before_date(5)", 24, "the number 5", "a date"),
    ("trait('x').before_date('2026-02-30')", 24, "2026-02-30", "must exist"),
    ("trait('x').after_date(event('A').count())", 23, "the count of events", "a date"),
    ("literal('x').within_last(7 days)", 14, "no date", "a date on the left"),
    ("trait('x').matches('a(')", 20, "missing )", "RE2"),
    ("trait('x').matches('(?=a)')", 20, "invalid perl operator", "look-around"),
    (r"trait('x').matches('(a)\\1')", 20, "invalid escape", "back-references"),
    ("trait('x').matches('((a{100}){10})b{1000}c{1000}(\\p{L}{100})')", 20, "too large", "RE2"),
    ("trait('x').matches(trait('y'))", 20, "a trait", "in quotes"),
    ("trait('x').matches(5)", 20, "the number 5", "in quotes"),
    # where it stands
    ("property('x') = 5", 1, "outside of an event", "trait('…')"),
    ("context('ip') = 5", 1, "outside of an event", "trait('…')"),
    ("trait('x') = property('y')", 14, "outside of an event", "trait('…')"),
    (
        "event('A').where(property(parent: 'x') = 5).count() >= 1",
        18,
        "where no event is nested",
        "means this event's",
    ),
    ("event('A').sum(property(parent: 'x')) >= 1", 16, "where no event is nested", "property('…')"),
    ("event('A').within(parent: 1 day).count() >= 1", 19, "where no event is nested", "another's where"),
    ("event('A').between(parent: 1 day, 2 days).count() >= 1", 20, "where no event is nested", "another's where"),
    ("ANY event('A').count() >= 1", 1, "'ANY' in a definition of USERS", "ACCOUNTS"),
]


@pytest.mark.parametrize(("text", "column", "found", "advice"), TABLE)
def test_an_error_names_its_place_what_was_found_and_what_would_be_right(
    text: str, column: int, found: str, advice: str
) -> None:
    error = _error(text)
    assert (error.line, error.column) == (1, column), str(error)
    assert found in error.found
    assert advice in f"{' or '.join(error.accepted)} {error.hint}"
    assert str(error).startswith(f"line 1, column {column}: found ")


@pytest.mark.parametrize(
    ("text", "column", "found"),
    [
        ("ANY ALL event('A').count() >= 1", 5, "'ALL' inside another quantifier"),
        ("ANY (audience('k') AND NONE audience('l'))", 24, "'NONE' inside another quantifier"),
        ("event('A').where(ANY audience('k')).count() >= 1", 18, "'ANY' inside where"),
    ],
)
def test_quantifiers_do_not_nest_nor_stand_inside_where(text: str, column: int, found: str) -> None:
    error = _error(text, "ACCOUNTS")
    assert (error.column, error.found) == (column, found)


@pytest.mark.parametrize(
    "text", ["event('A')", "event('A').count() >= 1", "trait('x')", "audience('k')", "'x'", "event('A').within(1 day)"]
)
def test_a_computed_trait_that_does_not_end_in_a_reducer_says_so(text: str) -> None:
    error = _error(text, kind="trait")
    assert (error.line, error.column) == (1, 1)
    assert "a computed trait ends in a reducer such as .count()" in error.hint


def test_lines_are_counted_from_the_first() -> None:
    error = _error("trait('x') = 'two\nlines'\n  AND trait('y').exist()")
    assert (error.line, error.column) == (3, 18)
    error = _error("audience('k') AND\r\n\t-- note\r\n\t")
    assert (error.line, error.column) == (3, 2)


def test_a_refusal_in_the_middle_of_a_name_in_use_keeps_the_message_short() -> None:
    assert len(str(_error(f"trait('x').{'y' * 10_000}()"))) < 600


def test_fifty_primary_expressions_are_taken_and_fifty_one_refused() -> None:
    fifty = " AND ".join(f"trait('x{index}') = {index}" for index in range(50))
    parse(fifty)
    error = _error(f"{fifty} AND audience('one_more')")
    assert (error.line, error.column) == (1, len(fifty) + len(" AND ") + 1)
    assert "number 51" in error.found


def test_nested_expressions_count_towards_the_fifty() -> None:
    inner = " OR ".join(f"property('x') = {index}" for index in range(49))
    parse(f"event('A').where({inner}).count() >= 1")
    assert "number 51" in _error(f"event('A').where({inner} OR audience('k')).count() >= 1").found


@pytest.mark.parametrize(
    "form", ["event('{}').count() >= 1", "trait('{}') = 1", "audience('{}')", "page('{}').count() = 1"]
)
def test_a_name_is_bounded(form: str) -> None:
    parse(form.format("x" * NAME_CHARS_MAX))
    for characters in (NAME_CHARS_MAX + 1, 10_000):
        error = _error(form.format("x" * characters))
        assert error.column == form.index("'") + 1
        assert str(characters) in error.found


def test_the_text_is_bounded() -> None:
    padded = f"audience('k') --{'x' * DEFINITION_CHARS_MAX}"
    parse(padded[:DEFINITION_CHARS_MAX])
    error = _error(padded[: DEFINITION_CHARS_MAX + 1])
    assert (error.line, error.column) == (1, DEFINITION_CHARS_MAX + 1)


def test_a_text_that_would_grow_over_the_bound_when_spelled_out_is_refused() -> None:
    quotes = "'" * (DEFINITION_CHARS_MAX // 2)
    assert "too long" in _error(f'trait("x") = "{quotes}"').found


@pytest.mark.parametrize(
    ("opening", "closing", "cost"),
    [("(", ")", 1), ("NOT ", "", 1), ("event('A').where(", ").count() >= 1", 1), ("NOT (", ")", 2)],
)
def test_deep_nesting_is_refused_before_anything_recurses(opening: str, closing: str, cost: int) -> None:
    deepest = (DEPTH_MAX - 1) // cost  # the brackets of audience() are one
    parse(f"{opening * deepest}audience('k'){closing * deepest}")
    for depth in (deepest + 1, 3_000):
        error = _error(f"{opening * depth}audience('k'){closing * depth}"[:DEFINITION_CHARS_MAX])
        assert "inside one another" in error.found
        assert f"number {DEPTH_MAX + 1} " in error.found


def test_prefixes_side_by_side_are_not_deep() -> None:
    parse(" AND ".join(["NOT NOT audience('k')"] * 50))
    parse(f"trait('x').one_of({', '.join(['(1)'] * 200)})")
    parse(" AND ".join(["(NOT NOT audience('k'))"] * 50))


def test_half_a_surrogate_pair_is_refused() -> None:
    error = _error("trait('x') =\n '\ud83c'")
    assert (error.line, error.column) == (2, 3)


@pytest.mark.parametrize(
    "text",
    [
        "'" * 30_000,
        "\\" * 30_000,
        "trait('" + "\\'" * 15_000,
        "-" * 30_000,
        "1" * 30_000,
        "1e" * 15_000,
        "trait('x')" + ".exists()" * 3_000,
        "a" * 30_000,
        "[" * 30_000,
        "trait('x') = 5 AND " * 1_500,
        "trait('x').matches('" + "(a*)*" * 5_000 + "')",
        "event('A').where(" * 1_500,
    ],
)
def test_hostile_text_is_refused_at_once(text: str) -> None:
    assert _error(text).line == 1


def test_fifty_expressions_parse_quickly() -> None:
    text = " AND ".join(["event('Product Purchased').where(property('price') > 10).within(7 days).count() >= 1"] * 25)
    parse(text)
    fastest_s = min(_elapsed_s(text) for _ in range(5))
    assert fastest_s < 0.05


def _elapsed_s(text: str) -> float:
    began = time.perf_counter()
    parse(text)
    return time.perf_counter() - began
