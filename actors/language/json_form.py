"""The JSON form of a definition: its tree, field by field, as msgspec encodes it (tree.py says what each field means).

`from_json` holds JSON to the same rules and bounds as text, by the same code: the checker first, which knows the path
of what is wrong, then the text that the tree spells is parsed again.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from msgspec import ValidationError, convert, json

from actors.language.checker import EntityType, Kind, check
from actors.language.parser import parse
from actors.language.printer import print_query
from actors.language.rules import Flaw
from actors.language.tree import Definition
from actors.language.vocabulary import DEFINITION_CHARS_MAX, DEPTH_MAX
from eventlog.errors import InvalidError, QueryError

JSON_DEPTH_MAX: Final = 4 * DEPTH_MAX + 10  # a bracket of the text is at most four objects and lists inside one another
JSON_VALUES_MAX: Final = DEFINITION_CHARS_MAX  # a value is at least a character of the text that it spells

CODE: Final = "invalid_definition"

_END: Final = object()
_PLACE = re.compile(r" - at `\$\.?(?P<path>.*?)`\Z", re.DOTALL)

_SHOWN_CHARS_MAX: Final = 300  # of a sentence about what was found


def to_json(tree: Definition) -> dict[str, Any]:
    """Return the JSON form of a definition: objects, lists, text, numbers and booleans."""
    form: dict[str, Any] = json.decode(json.encode(tree))
    return form


def from_json(form: Any, entity_type: EntityType = "USERS", kind: Kind = "audience") -> Definition:
    """Return the checked tree of a JSON form. Raises InvalidError, whose field is the path of what is wrong."""
    _refuse_boundless(form)
    try:
        tree: Definition = convert(form, Definition)
    except ValidationError as error:
        raise _worded(str(error)) from None
    try:
        check(tree, entity_type=entity_type, kind=kind)
    except Flaw as flaw:
        where = f"{flaw.path}: " if flaw.path else ""
        expected = f", expected {' or '.join(flaw.accepted)}" if flaw.accepted else ""
        hint = f" ({flaw.hint})" if flaw.hint else ""
        raise InvalidError(CODE, f"{where}found {_shown(flaw.found)}{expected}{hint}", field=flaw.path) from None
    try:
        return parse(print_query(tree), entity_type=entity_type, kind=kind)
    except QueryError as error:
        raise InvalidError(CODE, f"as text, {error}", field="") from None


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…"


def _worded(message: str) -> InvalidError:
    found = _PLACE.search(message)
    path = found["path"] if found else ""
    plain = message[: found.start()] if found else message
    plain = _shown(plain)  # it repeats what was found, however long
    return InvalidError(CODE, f"{path}: {plain}" if path else plain, field=path)


def _refuse_boundless(form: Any) -> None:
    """Refuse what is nested deeper, or has more values, than any text could spell: before anything recurses into it."""
    stack: list[Iterator[Any]] = [iter((form,))]
    values = 0
    while stack:
        value = next(stack[-1], _END)
        if value is _END:
            stack.pop()
            continue
        values += 1
        if values > JSON_VALUES_MAX:
            raise InvalidError(CODE, f"more than {JSON_VALUES_MAX} values", field="")
        if isinstance(value, dict):
            stack.append(iter(value.values()))
        elif isinstance(value, list | tuple):
            stack.append(iter(value))
        if len(stack) > JSON_DEPTH_MAX:
            raise InvalidError(CODE, f"nested more than {JSON_DEPTH_MAX} deep", field="")
