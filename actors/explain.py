"""Why somebody is, or is not, in an audience: the definition's tree with each part's truth and what it rests on.

Answers for now and for any time in the past are made the same way, from the log: a profile's own events, and where a
part looks at accounts those of its users. Every comparison tells its value, the events behind it with their message
ids, what is missing, and when it will change by itself.
"""

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from actors import questions
from actors.conditions.funnels import Funnel
from actors.conditions.handlers import generate
from actors.conditions.program import USER, Bounds, Scope, evidence_question, identity_of
from actors.conditions.queries import Record, Records
from actors.definitions import spec_of, tree_of
from actors.entities import Account, Entity, User
from actors.history import Hindsight
from actors.language import print_query
from actors.language.tree import And, Audience, Comparison, Condition, Event, Literal, Not, Or, Trait, Users
from eventlog.entries import KIND_NAMES
from eventlog.entries import Event as Entry
from eventlog.instants import iso
from eventlog.messages import decode_data

if TYPE_CHECKING:
    from actors.space_core import SpaceCore

EVENTS_SHOWN_MAX: Final = 20  # of those a part rests on; how many there are is told besides
NESTED_SHOWN_MAX: Final = 5  # of those that followed one of them; likewise
USERS_SHOWN_MAX: Final = 10  # of an account


class _Case(Struct, frozen=True):
    """What one explanation looks at."""

    space: "SpaceCore"
    world: Hindsight
    bounds: Bounds
    at_ms: int
    known_seq: int | None


async def explain(
    space: "SpaceCore", id_or_key: str, entity: int, *, at_ms: int | None, known_ms: int | None
) -> dict[str, Any]:
    """Return why an entity is or is not in an audience, or has the value it has of a computed trait."""
    time_ms, known_seq = questions.moment(space, at_ms, known_ms)
    held = await questions.definitions_at(space, known_seq)
    one = held.of(id_or_key)
    definition = one.active or one.latest
    world = await questions.hindsight_of(space, [definition], held, entity, time_ms, known_seq)
    who = space.identity if known_seq is None else space.identity.as_of(known_seq)
    then = who.canonical(entity)
    found = world.entity(then)
    if found is None:
        found = Account(then, world.program) if definition.entity_type == "ACCOUNTS" else User(then, world.program)
    spec = spec_of(definition, definition.number)
    case = _Case(space, world, spec.bounds, time_ms, known_seq)
    tree = tree_of(definition.query, definition.entity_type, definition.kind)
    answer: dict[str, Any] = {
        "definition": definition.key,
        "query": definition.query,
        "profile": questions.name_of(space, then),
        "id": questions.public_id(space, then),
        "at": iso(time_ms),
        "known": space.log.last_seq if known_seq is None else known_seq,
    }
    if isinstance(tree, Event):
        answer["value"] = found.values.get(definition.number)
        answer["tree"] = {"text": print_query(tree), **_evidence(case, found, tree, spec.scope)}
        return answer
    answer["member"] = definition.number in found.inside
    answer["tree"] = _part(case, found, tree, spec.scope)
    if spec.id_types is not None and not who.has_any_id_type(then, spec.id_types, time_ms):
        answer["missing"] = f"counts only profiles with one of {', '.join(sorted(spec.id_types))}"
    changes = [when for when in _changes(answer["tree"]) if when is not None]
    answer["changes_at"] = min(changes, default=None)
    return answer


def _changes(part: dict[str, Any]) -> list[str | None]:
    inner = [when for one in part.get("parts", ()) for when in _changes(one)]
    return [part.get("changes_at"), *inner]


def _part(case: _Case, entity: Entity, tree: Condition, scope: Scope) -> dict[str, Any]:
    text = print_query(tree)
    if isinstance(tree, And | Or):
        parts = [_part(case, entity, one, scope) for one in tree.of]
        truths = [part["truth"] for part in parts]
        truth = all(truths) if isinstance(tree, And) else any(truths)
        return {"kind": "and" if isinstance(tree, And) else "or", "text": text, "truth": truth, "parts": parts}
    if isinstance(tree, Not):
        part = _part(case, entity, tree.of, scope)
        return {"kind": "not", "text": text, "truth": not part["truth"], "parts": [part]}
    if isinstance(tree, Users):
        return _users(case, entity, tree, text)
    leaf = case.world.program.leaves.get(identity_of(scope, case.bounds, tree))
    truth = leaf is not None and leaf.holds(entity, case.at_ms)
    answer: dict[str, Any] = {"kind": "comparison", "text": text, "truth": truth}
    if isinstance(tree, Audience):
        answer["kind"] = "audience"
        return answer
    answer |= _sides(case, entity, tree, scope)
    due_ms = leaf.due(entity, case.at_ms) if leaf is not None and leaf.due is not None else None
    answer["changes_at"] = None if due_ms is None else iso(due_ms)
    return answer


def _users(case: _Case, entity: Entity, tree: Users, text: str) -> dict[str, Any]:
    """Explain a quantifier by the account's users."""
    assert isinstance(entity, Account)
    node = case.world.program.hidden[identity_of(USER, case.bounds, tree.of)]
    count = entity.counts.get(node.number, 0)
    total = len(entity.users)
    truth = {"ANY": count > 0, "NONE": count == 0, "ALL": 0 < count == total}[tree.quantifier]
    users = [case.world.users[number] for number in sorted(entity.users)]
    shown = sorted(users, key=lambda user: (node.number in user.inside) is (tree.quantifier == "ALL"))
    return {
        "kind": tree.quantifier.lower(),
        "text": text,
        "truth": truth,
        "holds_for": count,
        "users": total,
        "sample": [
            {"profile": questions.name_of(case.space, user.number), "truth": node.number in user.inside}
            for user in shown[:USERS_SHOWN_MAX]
        ],
    }


def _sides(case: _Case, entity: Entity, tree: Comparison, scope: Scope) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if isinstance(tree.left, Trait):
        answer["value"] = entity.trait(tree.left.path)
    elif isinstance(tree.left, Event):
        answer |= _evidence(case, entity, tree.left, scope)
    right = tree.right[0] if tree.right else None
    if isinstance(right, Trait):
        answer["right"] = entity.trait(right.path)
    elif isinstance(right, Event):
        answer["right"] = _evidence(case, entity, right, scope)["value"]
    elif isinstance(right, Literal):
        answer["missing"] = missing(tree.op, answer.get("value"), right.value)
    return answer


def missing(op: str, value: Any, right: Any) -> str | None:
    """Return in words how far a number is from satisfying a comparison; None where it does, or none fits."""
    if type(right) not in (int, float) or type(value) not in (int, float):
        return None
    short = {"at_least": right - value, "greater_than": right - value, "equals": right - value}.get(op)
    over = {"at_most": value - right, "less_than": value - right, "equals": value - right}.get(op)
    strict = op in ("greater_than", "less_than")
    if short is not None and (short > 0 or (strict and short == 0)):
        return f"more than {short:g} more" if strict else f"{short:g} more"
    if over is not None and (over > 0 or (strict and over == 0)):
        return f"more than {over:g} less" if strict else f"{over:g} less"
    return None


def _evidence(case: _Case, entity: Entity, tree: Event, scope: Scope) -> dict[str, Any]:
    """Return a question's value, and the events that it rests on."""
    asked = evidence_question(tree, scope, case.bounds)
    handlers = generate(asked.subscriptions)
    states: dict[int, Any] = {}
    entries = _events(case, entity)
    for entry in entries:
        handler = handlers.get((entry.kind, entry.name)) or handlers.get((entry.kind, None))
        if handler is not None:
            handler.run(states, entry.event_ms, entry.seq, decode_data(entry.body), entry.source, case.at_ms)
    query = asked.query
    assert isinstance(query, Funnel | Records)
    counted = query.counted(states.get(0), case.at_ms, entity)
    by_seq = {entry.seq: entry for entry in entries}
    return {
        "value": query.value(states.get(0), case.at_ms, entity),
        "events_count": len(counted),
        "events": [
            _shown(by_seq[record[1]], record[2])
            | (_followed(query, states.get(0), record, case.at_ms, entity, by_seq) if isinstance(query, Funnel) else {})
            for record in counted[-EVENTS_SHOWN_MAX:]
        ],
    }


def _followed(
    query: Funnel, state: Any, record: Record, at_ms: int, entity: Entity, by_seq: dict[int, Entry]
) -> dict[str, Any]:
    """Return the nested events that an outer one rests on."""
    nested = query.nested(state, record, at_ms, entity)
    shown = [_shown(by_seq[one[1]], one[2]) for one in nested[:NESTED_SHOWN_MAX]]
    return {"followed_by": shown, "followed_by_count": len(nested)} if nested else {}


def _shown(entry: Entry, value: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "messageId": entry.message_id,
        "timestamp": iso(entry.event_ms),
        "type": KIND_NAMES.get(entry.kind, ""),
        "event": entry.name,
    }
    if value is not None:
        shown["value"] = value
    return shown


def _events(case: _Case, entity: Entity) -> list[Entry]:
    """Return the events of an entity up to the moment; of an account those of its users."""
    who = case.space.identity if case.known_seq is None else case.space.identity.as_of(case.known_seq)
    users = list(entity.users) if isinstance(entity, Account) else [entity.number]
    numbers = [number for user in users for number in (user, *who.absorbed_by(user))]
    events = case.space.events.events_of(numbers, until_seq=case.known_seq)
    return [event for event in events if event.event_ms <= case.at_ms]
