"""Every form of the language (contract, section 3), a row each: as written, as a tree, as printed."""

from typing import Any

import pytest

from actors.language import count_primaries, parse, print_query, references
from actors.language.tree import (
    And,
    Audience,
    Comparison,
    Context,
    Definition,
    Duration,
    Event,
    Literal,
    Not,
    Or,
    Property,
    Reducer,
    Trait,
    Users,
    Window,
)

DAY_MS = 86_400_000
COUNT = Reducer("count")
X = Property(("x",))


def _event(reducer: Reducer = COUNT, **filters: Any) -> Event:
    fields: dict[str, Any] = {"call": "track", "name": "A", "reducer": reducer, **filters}
    return Event(**fields)


def _once(**filters: Any) -> Comparison:
    return Comparison(_event(**filters), "at_least", (Literal(1),))


def _inside(condition: str) -> str:
    return f"event('A').where({condition}).count() >= 1"


EXTRACTORS: list[tuple[str, Definition]] = [
    ("event('A').count() >= 1", _once()),
    ('event("A").count() >= 1', _once()),
    ("event().count() >= 1", _once(call="any", name=None)),
    ("page('A').count() >= 1", _once(call="page")),
    ("page().count() >= 1", _once(call="page", name=None)),
    ("screen('A').count() >= 1", _once(call="screen")),
    ("screen().count() >= 1", _once(call="screen", name=None)),
    ("trait('a.b') = 1", Comparison(Trait(("a", "b")), "equals", (Literal(1),))),
    (r"trait('a\\.b') = 1", Comparison(Trait(("a.b",)), "equals", (Literal(1),))),
    (r"trait('a\.b.c') = 1", Comparison(Trait(("a.b", "c")), "equals", (Literal(1),))),
    ("audience('k')", Audience("k")),
    ("audience('k') = true", Audience("k")),
    ("audience('k') != true", Not(Audience("k"))),
    ("audience('k').equals(false)", Not(Audience("k"))),
    ("literal('a') = trait('x')", Comparison(Literal("a"), "equals", (Trait(("x",)),))),
    ("'a' = trait('x')", Comparison(Literal("a"), "equals", (Trait(("x",)),))),
    ("trait('x') = literal(5)", Comparison(Trait(("x",)), "equals", (Literal(5),))),
    (_inside("property('x').exists()"), _once(where=Comparison(X, "exists"))),
    (_inside("context('page.url').exists()"), _once(where=Comparison(Context(("page", "url")), "exists"))),
    (
        _inside("event('B').where(property('x') = property(parent: 'y')).count() >= 1"),
        _once(
            where=Comparison(
                Event("track", COUNT, "B", Comparison(X, "equals", (Property(("y",), parent=True),))),
                "at_least",
                (Literal(1),),
            )
        ),
    ),
    (
        _inside("event('B').sum(context(parent: 'y')) >= 1"),
        _once(
            where=Comparison(
                Event("track", Reducer("sum", Context(("y",), parent=True)), "B"), "at_least", (Literal(1),)
            )
        ),
    ),
]

FILTERS: list[tuple[str, Definition]] = [
    ("event('A').within(7 days).count() >= 1", _once(windows=(Window(0, 7 * DAY_MS),))),
    ("event('A').within(1 day).count() >= 1", _once(windows=(Window(0, DAY_MS),))),
    ("event('A').between(30 days, 90 days).count() >= 1", _once(windows=(Window(30 * DAY_MS, 90 * DAY_MS),))),
    (
        "event('A').within(7 days).between(1 hour, 2 weeks).count() >= 1",
        _once(windows=(Window(0, 7 * DAY_MS), Window(3_600_000, 14 * DAY_MS))),
    ),
    ("event('A').sources(exclude: ['s', 't']).count() >= 1", _once(exclude_sources=("s", "t"))),
    ("event('A').sources(exclude: 's', 't').count() >= 1", _once(exclude_sources=("s", "t"))),
    ("event('A').sources({exclude: ['s']}).count() >= 1", _once(exclude_sources=("s",))),
    ("event('A').since(2026-01-01T00:00:00Z).count() >= 1", _once(since_ms=1_767_225_600_000)),
    ("event('A').since(2026-01-01).count() >= 1", _once(since_ms=1_767_225_600_000)),
    ("event('A').since('2026-01-01T00:00:00').count() >= 1", _once(since_ms=1_767_225_600_000)),
    ("event('A').until(2026-01-01T02:00:00.5+02:00).count() >= 1", _once(until_ms=1_767_225_600_500)),
    ("event('A').expires_after(1 hour).count() >= 1", _once(expires_after_ms=3_600_000)),
    (
        "event('A').where(event('B').expires_after(1 hour).count() >= 1).count() >= 1",
        _once(where=Comparison(_event(name="B", expires_after_ms=3_600_000), "at_least", (Literal(1),))),
    ),
    ("event('A').where(trait('t') = 1).count() >= 1", _once(where=Comparison(Trait(("t",)), "equals", (Literal(1),)))),
    ("event('A').where(audience('k')).count() >= 1", _once(where=Audience("k"))),
    (
        "event('A').where(audience('k')).within(1 day).where(audience('l') OR audience('m')).count() >= 1",
        _once(
            where=And((Audience("k"), Or((Audience("l"), Audience("m"))))),
            windows=(Window(0, DAY_MS),),
        ),
    ),
    (
        _inside("event('B').within(parent: 1 days).between(parent: 1 hour, 2 hours).within(3 days).count() = 0"),
        _once(
            where=Comparison(
                Event(
                    "track",
                    COUNT,
                    "B",
                    windows=(
                        Window(0, DAY_MS, parent=True),
                        Window(3_600_000, 7_200_000, parent=True),
                        Window(0, 3 * DAY_MS),
                    ),
                ),
                "equals",
                (Literal(0),),
            )
        ),
    ),
]


@pytest.mark.parametrize(("text", "tree"), EXTRACTORS + FILTERS)
def test_a_form_makes_its_tree(text: str, tree: Definition) -> None:
    assert parse(text) == tree
    assert parse(print_query(tree)) == tree


@pytest.mark.parametrize(
    ("text", "reducer"),
    [
        ("count()", COUNT),
        ("sum(property('x'))", Reducer("sum", X)),
        ("sum(context('ip'))", Reducer("sum", Context(("ip",)))),
        ("avg(property('x'))", Reducer("avg", X)),
        ("min(property('x'))", Reducer("min", X)),
        ("min(property('x') as number)", Reducer("min", X)),
        ("min(property('x') as string)", Reducer("min", X, "string")),
        ("max(property('x'))", Reducer("max", X)),
        ("max(property('x') AS string)", Reducer("max", X, "string")),
        ("mode(property('x'))", Reducer("mode", X, None, 2)),
        ("mode(property('x'), 3)", Reducer("mode", X, None, 3)),
        ("mode(property('x') as string, 3)", Reducer("mode", X, None, 3)),
        ("mode(property('x') as array, 1)", Reducer("mode", X, "array", 1)),
        ("first(property('x'))", Reducer("first", X)),
        ("last(property('x'))", Reducer("last", X)),
        ("unique(property('x'))", Reducer("unique", X)),
        ("unique(property('x')).count()", Reducer("unique", X, counted=True)),
    ],
)
@pytest.mark.parametrize("entity_type", ["USERS", "ACCOUNTS"])
def test_a_reducer_ends_a_computed_trait(text: str, reducer: Reducer, entity_type: str) -> None:
    tree = parse(f"event('A').{text}", kind="trait", entity_type="USERS" if entity_type == "USERS" else "ACCOUNTS")
    assert tree == _event(reducer)
    assert parse(print_query(tree), kind="trait") == tree


@pytest.mark.parametrize(
    ("op", "symbols"),
    [
        ("equals", ("=", "==")),
        ("differs", ("!=",)),
        ("greater_than", (">",)),
        ("at_least", (">=",)),
        ("less_than", ("<",)),
        ("at_most", ("<=",)),
    ],
)
@pytest.mark.parametrize(
    "left",
    [
        "trait('x')",
        "literal(5)",
        "event('A').count()",
        "event('A').max(property('x'))",
        "event('A').unique(property('x')).count()",
    ],
)
def test_a_symbol_stands_for_its_function(op: str, symbols: tuple[str, ...], left: str) -> None:
    tree = parse(f"{left}.{op}(5)")
    assert isinstance(tree, Comparison)
    assert tree.op == op
    for symbol in symbols:
        assert parse(f"{left} {symbol} 5") == tree
        assert parse(f"{left}{symbol}5") == tree


@pytest.mark.parametrize(
    ("text", "op", "right"),
    [
        ("exists()", "exists", ()),
        ("absent()", "absent", ()),
        ("contains('BAG', 'BOX')", "contains", (Literal("BAG"), Literal("BOX"))),
        ("contains(['BAG', 'BOX'])", "contains", (Literal("BAG"), Literal("BOX"))),
        ("omits('BAG')", "omits", (Literal("BAG"),)),
        ("omits('BAG', 'BOX')", "omits", (Literal("BAG"), Literal("BOX"))),
        ("starts_with('a')", "starts_with", (Literal("a"),)),
        ("ends_with('a', 'b')", "ends_with", (Literal("a"), Literal("b"))),
        ("one_of('a', 5, true)", "one_of", (Literal("a"), Literal(5), Literal(value=True))),
        ("one_of(['a', 'b'])", "one_of", (Literal("a"), Literal("b"))),
        ("none_of('a', trait('y'))", "none_of", (Literal("a"), Trait(("y",)))),
        ("before_date('2023-12-07T18:50:00Z')", "before_date", (Literal("2023-12-07T18:50:00Z"),)),
        ("before_date(2023-12-07)", "before_date", (Literal("2023-12-07"),)),
        ("after_date(trait('y'))", "after_date", (Trait(("y",)),)),
        ("within_last(7 days)", "within_last", (Duration(7 * DAY_MS),)),
        ("within_next(1 week)", "within_next", (Duration(7 * DAY_MS),)),
        ("before_last(90 seconds)", "before_last", (Duration(90_000),)),
        ("after_next(5 minutes)", "after_next", (Duration(300_000),)),
        (r"matches('^\d+$')", "matches", (Literal(r"^\d+$"),)),
        (r"matches('^\\d+$')", "matches", (Literal(r"^\d+$"),)),
    ],
)
def test_a_comparison_is_a_function_of_its_arguments(text: str, op: str, right: tuple[Literal, ...]) -> None:
    tree = parse(f"trait('x').{text}")
    assert tree == Comparison(Trait(("x",)), op, right)
    assert parse(print_query(tree)) == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("5.0", 5),
        ("-0.0", 0),
        ("0.25", 0.25),
        (".5", 0.5),
        ("1e3", 1000),
        ("2.5E-1", 0.25),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775809", 9223372036854775808.0),
        ("1e300", 1e300),
        ("true", True),
        ("FALSE", False),
        ("'5'", "5"),
        ("''", ""),
        ('"say \\"hi\\""', 'say "hi"'),
        (r"'it\'s'", "it's"),
        (r"'a\\b'", r"a\b"),
        ("'two\nlines'", "two\nlines"),
        ("'—🎉'", "—🎉"),
        ("2026-01-31", "2026-01-31"),
    ],
)
def test_a_constant_has_one_value_and_type(text: str, value: str | float | bool) -> None:
    tree = parse(f"trait('x') = {text}")
    assert isinstance(tree, Comparison)
    constant = tree.right[0]
    assert isinstance(constant, Literal)
    assert (type(constant.value), constant.value) == (type(value), value)
    assert repr(parse(print_query(tree))) == repr(tree)


@pytest.mark.parametrize(
    "right",
    [
        "property('y')",
        "context('ip')",
        "trait('y')",
        "event('B').count()",
        "event('B').within(parent: 1 day).max(property('y'))",
        "literal('a')",
        "'a'",
    ],
)
def test_any_single_value_may_stand_on_the_right(right: str) -> None:
    text = _inside(f"property('x') = {right}")
    assert print_query(parse(text)) == text.replace("literal('a')", "'a'")
    assert parse(_inside(f"property('x').equals({right})")) == parse(text)


A, B, C = (Audience(key) for key in "abc")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("audience('a') AND audience('b') AND audience('c')", And((A, B, C))),
        ("audience('a') and audience('b') Or audience('c')", Or((And((A, B)), C))),
        ("audience('a') OR audience('b') AND audience('c')", Or((A, And((B, C))))),
        ("(audience('a') OR audience('b')) AND audience('c')", And((Or((A, B)), C))),
        ("(audience('a') AND audience('b')) AND audience('c')", And((And((A, B)), C))),
        ("NOT audience('a') AND audience('b')", And((Not(A), B))),
        ("not(audience('a') AND audience('b'))", Not(And((A, B)))),
        ("NOT NOT audience('a')", Not(Not(A))),
        ("((audience('a')))", A),
        ("NOT trait('x') = 5", Not(Comparison(Trait(("x",)), "equals", (Literal(5),)))),
        ("(trait('x')) = (5)", Comparison(Trait(("x",)), "equals", (Literal(5),))),
    ],
)
def test_junctions_bind_as_written(text: str, tree: Definition) -> None:
    assert parse(text) == tree
    assert parse(print_query(tree)) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("ANY event('A').count() >= 1", Users("ANY", _once())),
        ("any(event('A').count() >= 1)", Users("ANY", _once())),
        ("ALL NOT event('A').count() >= 1", Users("ALL", Not(_once()))),
        ("NONE audience('a') AND audience('b')", And((Users("NONE", A), B))),
        ("NOT ANY (audience('a') OR audience('b'))", Not(Users("ANY", Or((A, B))))),
    ],
)
def test_quantifiers_ask_about_the_users_of_an_account(text: str, tree: Definition) -> None:
    assert parse(text, entity_type="ACCOUNTS") == tree
    assert parse(print_query(tree), entity_type="ACCOUNTS") == tree


@pytest.mark.parametrize(
    "text",
    [
        "event('Order Completed').sum(property('total')) >= 1000",
        "event('Order Completed').within(14 days).count() >= 2",
        "event('Order Completed').between(14 days, 35 days).count() >= 1 AND NOT event('Order Completed')"
        ".within(14 days).count() >= 1",
        "event('Product Purchased').where(event('Product Returned').where(property('product_id') = "
        "property(parent: 'product_id')).within(parent: 7 days).count() >= 1).within(30 days).count() >= 1",
        "trait('country') != 'United Kingdom' AND event('Product Purchased').where(property('price') > 10)"
        ".count() >= 1",
        "event('Return').count() > event('Buy').count()",
        "event('Buy').unique(property('brand')).absent()",
        "event('Shoes Bought').where(property('price') >= trait('avg_spend') AND event('Shoes Returned')"
        ".within(parent: 5 days).count() >= 1).within(30 days).count() >= 1",
    ],
)
def test_a_canonical_text_is_printed_as_it_was_written(text: str) -> None:
    assert print_query(parse(text)) == text


def test_white_space_and_comments_are_free() -> None:
    spread = """
        -- who bought lately, 'quotes' and (brackets aside
        event ( 'A' )   -- the event
          . within(7days)
          . count ( ) >=1 --"""
    assert parse(spread) == _once(windows=(Window(0, 7 * DAY_MS),))
    assert parse("trait('x') = '-- no comment'") == Comparison(Trait(("x",)), "equals", (Literal("-- no comment"),))


def test_references_are_listed_once_in_order_of_appearance() -> None:
    tree = parse(_inside("trait('plan.name') = 'a' AND audience('k') AND property('x') > trait('m') OR audience('k')"))
    assert references(tree) == ("plan", "k", "m")


def test_nested_expressions_count_as_primary_ones() -> None:
    assert count_primaries(parse(_inside("audience('k') AND trait('x') = event('B').count()"))) == 3
    assert count_primaries(parse("event('A').count()", kind="trait")) == 0
