"""The definition language: text and JSON to a checked tree, and back.

`parse` reads text, `print_query` writes it; `to_json` and `from_json` do the same for the JSON form; `lint` tells what
is allowed but surely a mistake; `describe` is an outline for people; `walk`, `references` and `count_primaries` look
over a tree.
"""

from actors.language.checker import EntityType, Kind
from actors.language.json_form import from_json, to_json
from actors.language.lint import lint
from actors.language.outline import describe
from actors.language.parser import parse
from actors.language.printer import print_query
from actors.language.walk import count_primaries, references, walk

__all__ = [
    "EntityType",
    "Kind",
    "count_primaries",
    "describe",
    "from_json",
    "lint",
    "parse",
    "print_query",
    "references",
    "to_json",
    "walk",
]
