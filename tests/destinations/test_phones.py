"""Phone numbers as vendors want them: what is one, and what is left out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, text

from actors.delivery import Call
from adapters.destinations.phones import international, phone_of
from tests.destinations.test_catalog import call

NUMBERS = [
    # the vendors' own examples: Meta's help page "How to format a customer list", Google's and Braze's format pages
    ("1-234-567-8910", "12345678910"),
    ("12345678910", "12345678910"),
    ("+44 844 412 4653", "448444124653"),
    ("+1 (800)555-0100", "18005550100"),
    ("+1 (724) 123-4567", "17241234567"),
    # how people write them
    ("0044 20 7946 0958", "442079460958"),
    ("+0044 20 7946 0958", "442079460958"),
    ("(+44) 20.7946/0958", "442079460958"),
    ("+44 (0)20 7946 0958", "442079460958"),
    ("0044(0)2079460958", "442079460958"),
    (
        "  \u202a+49\u00a030\u2011901820\u202c ",
        "4930901820",
    ),  # as copied from a contact: marks, hard spaces and hyphens
    ("tel:+1-555-123-4567;ext=3", "15551234567"),
    ("Tel. +1 555 123 4567 ext. 12", "15551234567"),
    ("+1 555 123 4567 x12", "15551234567"),
    ("+1 555 123 4567 poste 12", "15551234567"),
    ("+1 555 123 4567 #12", "15551234567"),
    ("+1 555 123 4567,,12", "15551234567"),
    ("mobile +1 555 123 4567 (home)", "15551234567"),
    ("\uff0b\uff14\uff14 \uff12\uff10\uff17\uff19\uff14\uff16\uff10\uff19\uff15\uff18", "442079460958"),
    ("+\u0664\u0664 \u0662\u0660\u0667\u0669\u0664\u0666\u0660\u0669\u0665\u0668", "442079460958"),
    ("+683 4123", "6834123"),  # seven digits, the fewest
    ("+123456789012345", "123456789012345"),  # fifteen, the most
]
NONE = [
    "",
    "+",
    "none",
    "ann@x.org",
    "020 7946 0958",  # national: of which country?
    "(0)20 7946 0958",
    "+(0)20 7946 0958",
    "+0 20 7946 0958",
    "000 44 20 7946 0958",
    "+683 412",
    "001 23456",
    "+1 800 FLOWERS",
    "+1234567890123456",
    "555-0100",  # local
    "(800) 555-0100",  # national, of North America: not +80
    "800 555 0100",
    "\u00b2\u00b3\u00b2\u00b3\u00b2\u00b3\u00b2\u00b3",  # digits to look at, no digits of a number
]


@pytest.mark.parametrize(("written", "digits"), NUMBERS)
def test_a_number_is_its_digits_with_the_country_code_first(written: str, digits: str) -> None:
    assert international(written) == digits
    assert international(f"+{digits}") == international(f"00{digits}") == digits
    assert international(digits) == (digits if len(digits) >= 11 else None)


@pytest.mark.parametrize("written", NONE)
def test_what_cannot_be_a_number_with_a_country_code_is_none(written: str) -> None:
    assert international(written) is None


@given(
    integers(1_000_000, 999_999_999_999_999), lists(sampled_from(" -.()/\u00a0\u200e"), max_size=12), integers(0, 14)
)
def test_symbols_anywhere_make_no_other_number(number: int, symbols: list[str], at: int) -> None:
    digits = str(number)
    written = f"+{digits[:at]}{''.join(symbols)}{digits[at:]}"
    assert international(written) == digits


@given(text(alphabet=sampled_from("+0123456789 ()-ax;\u0664"), max_size=24))
def test_whatever_is_written_comes_out_as_seven_to_fifteen_plain_digits_or_not_at_all(written: str) -> None:
    digits = international(written)
    assert digits is None or (digits.isascii() and digits.isdigit() and 7 <= len(digits) <= 15 and digits[0] != "0")


def phoning(*ids: tuple[str, str]) -> Call:
    more: dict[str, Any] = {"ids": ids}
    return call("member", **more)


def test_a_call_has_the_first_of_its_phones_that_can_be_one_and_no_other_id() -> None:
    assert phone_of(phoning(("fax", "+1 555 123 4567"), ("userId", "15551234567"), ("email", "15551234567"))) is None
    assert phone_of(phoning(("phone", "call me"), ("phone", "+1 555 123 4567"), ("phone", "+1 555 123 4568"))) == (
        "15551234567"
    )
