"""Walking a tree: every node in the order of the text, what it refers to, how much it counts."""

from collections.abc import Iterator

from actors.language.tree import (
    And,
    Audience,
    Comparison,
    Condition,
    Context,
    Definition,
    Duration,
    Event,
    Literal,
    Not,
    Or,
    Property,
    Trait,
    Users,
    Value,
)

Node = Condition | Value | Duration


def walk(tree: Definition) -> Iterator[Node]:
    """Yield every condition and value of a tree, each before its parts, from left to right."""
    stack: list[Node] = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(parts_of(node)))


def parts_of(node: Node) -> tuple[Node, ...]:
    """Return the conditions and values that a node is made of."""
    match node:
        case And(of=parts) | Or(of=parts):
            return parts
        case Not(of=part) | Users(of=part):
            return (part,)
        case Comparison(left=left, right=right):
            return (left, *right)
        case Event(where=where, reducer=reducer):
            return tuple(part for part in (where, reducer.of) if part is not None)
        case Literal() | Property() | Context() | Trait() | Audience() | Duration():
            return ()


def references(tree: Definition) -> tuple[str, ...]:
    """Return the keys that a definition refers to by audience() and trait(), each once, in order of appearance.

    A trait's key may be an audience, a computed trait or a custom trait: only the space knows which.
    """
    keys: dict[str, None] = {}
    for node in walk(tree):
        if isinstance(node, Audience):
            keys[node.key] = None
        elif isinstance(node, Trait):
            keys[node.path[0]] = None
    return tuple(keys)


def count_primaries(tree: Definition) -> int:
    """Return the number of primary expressions: comparisons and audience() calls, nested ones too."""
    return sum(isinstance(node, Comparison | Audience) for node in walk(tree))
