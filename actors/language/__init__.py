"""The definition language: text and JSON to a checked tree, and back.

`parse` reads text, `print_query` writes it; `to_json` and `from_json` do the same for the JSON form; `check` holds the
rules; `lint` tells what is allowed but surely a mistake; `describe` is an outline for people.
"""

from actors.language.parser import parse
from actors.language.printer import print_query

__all__ = [
    "parse",
    "print_query",
]
