"""The file of `turnout replay --with`: audiences and computed traits, as in a scenario, and what is wrong with it."""

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from actors.definitions import Definitions, Kind, tree_of
from actors.definitions import key_of as key_from
from eventlog.entries import Definition
from eventlog.errors import QueryError
from scenarios.document import read_file
from scenarios.format import AudienceSpec, TraitSpec, key_of
from scenarios.world import options_of


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """Definitions to try: new ones, or existing ones (by their key) as they might be."""

    audiences: tuple[AudienceSpec, ...] = ()
    traits: tuple[TraitSpec, ...] = ()


def definitions_in(path: Path, held: Definitions) -> list[Definition]:
    """Return the definitions of a file beside those that stand. Raises InvalidError with file, line and reason."""
    file, document = read_file(path, File)
    standing = {one.latest.key: one.latest for one in held.held.values()}
    found: dict[str, Definition] = {}
    if not file.audiences and not file.traits:
        document.problem("", "no definition, expected some under `audiences` or `traits`")
    specs = [(f"audiences[{n}]", one) for n, one in enumerate(file.audiences)]
    specs += [(f"traits[{n}]", one) for n, one in enumerate(file.traits)]
    for place, spec in specs:
        kind: Kind = "trait" if isinstance(spec, TraitSpec) else "audience"
        key = key_of(spec)
        was = standing.get(key)
        if not key or key_from(key) != key:
            document.problem(place, f"the key {key!r}: expected a-z, 0-9 and single _ between them, as `key: …`")
        elif key in found:
            document.problem(place, f"the key {key!r} is given twice")
        elif was is not None and (was.kind, was.entity_type) != (kind, spec.type):
            document.problem(place, f"{key!r} is {was.kind} of {was.entity_type} here; give the same, or another key")
        try:
            tree_of(spec.query, spec.type, kind)
        except QueryError as error:
            document.problem(f"{place}.query", str(error))
        made = Definition(0, "", kind, key, spec.name, spec.type, spec.query)
        if was is not None:
            made = replace(made, options=was.options, created_ms=was.created_ms, created_seq=was.created_seq)
        found[key] = made if spec.options is None else replace(made, options=options_of(spec.options))
    document.check()
    return list(found.values())
