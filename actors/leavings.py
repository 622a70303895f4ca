"""What deleted definitions left behind, found again in the log: the last value of each, as a custom trait.

Facts count in the order of their causes. What followed from an event may stand behind a deletion that came in
meanwhile, and was true before it all the same.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from actors.conditions.program import Left
from actors.history import LeftBehind
from eventlog.entries import (
    Definition,
    DefinitionDeleted,
    DefinitionSaved,
    DefinitionSwitched,
    Entered,
    Exited,
    IdAdded,
    Merged,
    TraitComputed,
)
from eventlog.log import Log

_Past = DefinitionSaved | DefinitionSwitched | DefinitionDeleted | Merged | Entered | Exited | TraitComputed


def left_behind(log: Log, keys: set[str], until_seq: int, canonical: Sequence[int]) -> list[LeftBehind]:
    """Return the last values of deleted definitions with these keys, by who is who."""
    if not keys:
        return []
    numbers: dict[int, Definition] = {}
    values: dict[int, dict[int, Any]] = {}
    lived: set[int] = set()  # those that ever had values
    absorbed: set[int] = set()  # whatever they had, the survivor has all that is to be said
    gone: list[LeftBehind] = []
    for seq, at_ms, last_entity, fact in _in_order_of_cause(log, keys, until_seq):
        if isinstance(fact, DefinitionSaved):
            numbers[fact.definition.number] = fact.definition
            values.setdefault(fact.definition.number, {})
        elif isinstance(fact, Merged):
            absorbed.update(fact.absorbed)
        elif isinstance(fact, DefinitionSwitched):
            lived.add(fact.number)
        elif isinstance(fact, DefinitionDeleted):
            if fact.number in values and fact.number in lived:
                said = {one: value for one, value in values[fact.number].items() if one not in absorbed}
                gone.append(_left(numbers[fact.number], merged(said, canonical), at_ms, seq, last_entity))
        elif fact.definition in values:
            value = fact.value if isinstance(fact, TraitComputed) else isinstance(fact, Entered) or None
            values[fact.definition][fact.entity] = value
    return gone


def _in_order_of_cause(log: Log, keys: set[str], until_seq: int) -> list[tuple[int, int, int, _Past]]:
    """Return what happened to definitions with these keys: sequence, time, last entity by then, fact.

    What followed from an entry stands behind others in the log that came in meanwhile, as a deletion may have.
    """
    found: list[tuple[tuple[int, int, int], tuple[int, int, int, _Past]]] = []
    wanted: set[int] = set()
    last_entity = 0
    for at_ms, facts in log.read_facts(0, until_seq):
        # What a commit's events made known comes first in its fold.
        last_entity = max([last_entity, *(fact.entity for _, fact in facts if isinstance(fact, IdAdded))])
        for seq, fact in facts:
            if isinstance(fact, DefinitionSaved) and fact.definition.key in keys:
                wanted.add(fact.definition.number)
            if isinstance(fact, DefinitionSaved):
                order = (seq, 0, seq) if fact.definition.number in wanted else None
            elif isinstance(fact, DefinitionSwitched | DefinitionDeleted):
                order = (seq, 0, seq) if fact.number in wanted else None
            elif isinstance(fact, Merged):
                order = (fact.cause_seq, 0, seq)
            elif isinstance(fact, Entered | Exited | TraitComputed):
                order = (fact.cause_seq, 1, seq) if fact.definition in wanted else None
            else:
                continue
            if order is not None:
                found.append((order, (seq, at_ms, last_entity, fact)))
    found.sort(key=itemgetter(0))
    return [one for _, one in found]


def merged(values: dict[int, Any], canonical: Sequence[int]) -> dict[int, Any]:
    """Return values by who is who: true if either half was a member, else the older half's."""
    by_survivor: dict[int, Any] = {}
    for entity, value in sorted(values.items()):
        if value is not None:
            by_survivor.setdefault(canonical[entity], value)
    return by_survivor


def _left(definition: Definition, values: dict[int, Any], at_ms: int, seq: int, last_entity: int) -> LeftBehind:
    left = None
    if definition.kind == "audience":
        left = Left(definition.entity_type == "ACCOUNTS", at_ms, seq, last_entity)
    return LeftBehind(definition.key, at_ms, seq, values, definition.entity_type == "ACCOUNTS", left)
