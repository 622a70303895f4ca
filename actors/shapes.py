"""What was wrong with data of a shape, worded so that it says what would be right; msgspec names only what it found."""

import re
from functools import lru_cache
from typing import Any, Final

from msgspec import inspect

_NOT_ONE_OF: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_NOT_TEXT: Final = re.compile(r"Expected `[^`]*`, got (`[^`]*`)")
_PART: Final = re.compile(r"[^.\[\]]+|\[[^\]]*\]")  # of a path: a name, or the place in a list or an object


def worded(message: str, shape: Any, path: str) -> str:
    """Return msgspec's message about what lies at a path of a shape, such as `kinds[0].name`, with what is allowed."""
    allowed = allowed_at(shape, path)
    found = _NOT_ONE_OF.fullmatch(message) or _NOT_TEXT.fullmatch(message)
    return f"found {found[1]}, expected {' or '.join(allowed)}" if allowed and found else message


@lru_cache(maxsize=1_000)  # a path holds the number of an item
def allowed_at(shape: Any, path: str) -> tuple[str, ...]:
    """Return which texts may stand at a path of a shape; nothing where any may, or none, or the path leads nowhere."""
    places = [inspect.type_info(shape)]
    for part in _PART.findall(path):
        places = [inner for place in places for inner in _inner(_bare(place), part)]
    found = {value: None for place in places for one in _choices(_bare(place)) for value in _texts(one)}
    return tuple(found)


def _bare(place: inspect.Type) -> inspect.Type:
    return _bare(place.type) if isinstance(place, inspect.Metadata) else place


def _choices(place: inspect.Type) -> tuple[inspect.Type, ...]:
    return place.types if isinstance(place, inspect.UnionType) else (place,)


def _texts(place: inspect.Type) -> tuple[str, ...]:
    values = place.values if isinstance(place, inspect.LiteralType) else ()
    return tuple(value for value in values if isinstance(value, str))


def _inner(place: inspect.Type, part: str) -> list[inspect.Type]:
    """Return what may stand within a place: under a name, or anywhere in a list or an object."""
    found: list[inspect.Type] = []
    for one in map(_bare, _choices(place)):
        if isinstance(one, inspect.StructType):
            found += [field.type for field in one.fields if field.encode_name == part]
        elif isinstance(one, inspect.CollectionType):
            found.append(one.item_type)
        elif isinstance(one, inspect.DictType):
            found.append(one.value_type)
    return found
