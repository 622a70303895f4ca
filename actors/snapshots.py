"""Snapshots: an entity as bytes and back, so that it can leave memory and a start need not fold the whole log.

States are named by what they answer, not by where they lie in memory; of an entity's leaves nothing is kept, they are
asked anew. A snapshot of another STATE_VERSION is ignored: the log is folded instead.
"""

from typing import Any

from actors.conditions.program import Program
from actors.entities import STATE_VERSION, Account, Entity, User, decode, encode, shared


def dump_entity(entity: Entity) -> bytes:
    """Return an entity as bytes."""
    states = [_dump_states(entity.program, of) for of in (entity.s, entity.a)]
    own: Any
    if isinstance(entity, Account):
        own = [list(entity.users), entity.counts]
    else:
        assert isinstance(entity, User)
        own = {number: [*said[:3], sorted(said[3])] for number, said in entity.accounts.items()}
    return encode(
        [
            STATE_VERSION,
            entity.is_account,
            entity.first_ms,
            sorted(entity.ids),
            entity.traits,
            states,
            sorted(entity.inside),
            entity.values,
            own,
        ]
    )


def _dump_states(program: Program, states: dict[int, Any]) -> dict[int, Any]:
    """Return the states of what is still asked, by stable number. None is one that has only heard what is too old."""
    asked, by_stable = program.asked_by_index, program.by_stable
    return {
        asked[index].stable: asked[index].query.dump(state)
        for index, state in states.items()
        if state is not None and asked[index].stable in by_stable
    }


def load_entity(number: int, data: bytes, program: Program) -> Entity | None:
    """Return the entity that `dump_entity` gave; its leaves are yet to be asked. None for another STATE_VERSION."""
    version, is_account, first_ms, ids, traits, states, inside, values, own = decode(data)
    if version != STATE_VERSION:
        return None
    entity: Entity
    if is_account:
        entity = Account(number, program)
        entity.users = dict.fromkeys(own[0])
        entity.counts = {n: count for n, count in own[1].items() if n in program.nodes}
    else:
        entity = User(number, program)
        entity.accounts = {account: [*said[:3], set(said[3])] for account, said in own.items()}
    entity.first_ms = first_ms
    entity.ids = shared(frozenset(ids))
    entity.traits = traits
    for mine, dumped in zip((entity.s, entity.a), states, strict=True):
        for stable, state in dumped.items():
            asked = program.by_stable.get(stable)
            if asked is not None:
                mine[asked.index] = asked.query.load(state)
    for number in inside:
        if number in program.nodes:
            entity.enter(number)
    entity.values = {n: value for n, value in values.items() if n in program.nodes}
    return entity


def values_of(data: bytes) -> dict[int, Any]:
    """Return the values of computed traits that a snapshot holds; none for another STATE_VERSION."""
    version, *_, values, _own = decode(data)
    return values if version == STATE_VERSION else {}
