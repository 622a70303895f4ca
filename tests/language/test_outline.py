"""The outline of a definition, as `turnout check` shows it."""

from actors.language import describe, parse


def test_an_outline_shows_each_part_below_what_it_is_a_part_of() -> None:
    tree = parse(
        "event('Checkout Started').where(NOT event('Order Completed').within(parent: 1 day).count() >= 1)"
        ".between(1 day, 7 days).count() >= 1 AND (trait('plan').one_of('pro', 'team') OR audience('vip'))"
    )
    assert describe(tree) == (
        "all of:\n"
        "  count of event('Checkout Started') >= 1\n"
        "    between 1 day and 7 days ago\n"
        "    where:\n"
        "      not:\n"
        "        count of event('Order Completed') >= 1\n"
        "          within 1 day after event('Checkout Started')\n"
        "  any of:\n"
        "    trait('plan') one of 'pro', 'team'\n"
        "    member of vip"
    )


def test_every_filter_has_its_line() -> None:
    tree = parse(
        "page('Home').since(2026-01-01).until(2026-02-01).sources(exclude: ['web', 'app']).within(7 days)"
        ".expires_after(30 minutes).where(property('x').exists()).mode(property('y') as array, 3)",
        kind="trait",
    )
    assert describe(tree) == (
        "mode(property('y') as array, 3) of page('Home')\n"
        "  within the last 7 days\n"
        "  since 2026-01-01T00:00:00Z\n"
        "  until 2026-02-01T00:00:00Z\n"
        "  not from web, app\n"
        "  in the latest session, which ends after 30 minutes without one\n"
        "  where:\n"
        "    property('x') exists"
    )


def test_two_events_in_one_comparison_keep_their_filters_apart() -> None:
    tree = parse(
        "event('A').within(1 day).unique(property('x')).count() > event('B').sum(property('y'))", entity_type="ACCOUNTS"
    )
    assert describe(tree) == (
        "count of unique property('x') of event('A') > sum property('y') of event('B')\n"
        "  count of unique property('x') of event('A'):\n"
        "    within the last 1 day"
    )


def test_quantifiers_are_spelled_out() -> None:
    tree = parse("ANY audience('k') OR ALL audience('k') OR NONE audience('k')", entity_type="ACCOUNTS")
    assert describe(tree) == (
        "any of:\n"
        "  any user:\n"
        "    member of k\n"
        "  all users, at least one:\n"
        "    member of k\n"
        "  no user:\n"
        "    member of k"
    )
