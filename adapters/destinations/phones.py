"""Phone numbers as vendors know people by them: the digits of an international number, country code first.

Numbers come as people write them, in an external id of the type `phone`. Vendors want the digits of E.164 and leave it
to the sender that the country code is there: Meta without symbols, letters and leading zeros, Google and Braze with a
plus sign in front. What is left out here would be somebody else's number, or nobody's:

- A number begins with its country code behind `+` or `00` (Meta's own client drops these alike:
  `PHONE_NUMBER_DROP_PREFIX_ZEROS` in its business SDK), or with neither: then it wants eleven digits, as in Meta's
  examples, for one with fewer may be national, as North America's ten are.
- One zero in front is a national number of who knows which country: no country code begins with a zero
  (https://www.twilio.com/docs/glossary/what-e164, read 2026-11-24).
- `(0)` behind a country code is dialled within the country alone, so it goes.
- An extension is no part of the number: what comes behind it from a letter, `;`, `,` or `#` on goes.
- Digits of other scripts are digits.
"""

import re
import unicodedata
from typing import Final

from actors.delivery import Call

PHONE: Final = "phone"  # the external id type
DIGITS_MIN: Final = 7  # the shortest in use: Niue's, +683 and four digits (ITU-T E.164's national numbering plans)
BARE_DIGITS_MIN: Final = 11  # with neither + nor 00 in front: one more than a national number of North America has
DIGITS_MAX: Final = 15  # ITU-T E.164
PLUS: Final = "+\uff0b"  # as Unicode's full-width form, too
EXTENSION: Final = re.compile(r"[^\W\d_]|[;,#]")
TRUNK: Final = "(0)"


def international(text: str) -> str | None:
    """Return the digits of a number with its country code first; None for what cannot be one."""
    begin = next((at for at, one in enumerate(text) if one.isdecimal() or one in PLUS), len(text))
    number = EXTENSION.split(text[begin:], maxsplit=1)[0]
    head, trunk, tail = number.partition(TRUNK)
    if trunk and _digits(head):
        number = head + tail
    dialled = _digits(number)
    digits = dialled.removeprefix("00")
    fewest = DIGITS_MIN if number[:1] in PLUS or digits != dialled else BARE_DIGITS_MIN
    return None if digits.startswith("0") or not fewest <= len(digits) <= DIGITS_MAX else digits


def phone_of(call: Call) -> str | None:
    """Return the digits of the first number of a call that can be one."""
    found = (international(value) for name, value in call.others if name == PHONE)
    return next((digits for digits in found if digits is not None), None)


def _digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(one)) for one in text if one.isdecimal())
