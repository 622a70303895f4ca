"""The life of audiences and computed traits: which definitions there are, and how each is doing.

A fold of the definition facts. Of every definition the *latest* version is what its owner asked for, the *active* one
what decides membership. A new version gathers state beside the active one, under a shadow number and no key, until
`DefinitionSwitched`. A key, once used in a space, is never free again. Times are milliseconds since the epoch, UTC.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Any, Final
from typing import Literal as OneOf

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from actors.conditions.program import ACCOUNT, USER, Bounds, Spec, cycle_of
from actors.language import parse, references
from actors.language.tree import Definition as Tree
from actors.partition import KNOWN_ID_TYPES
from eventlog.entries import (
    AnyFact,
    Definition,
    DefinitionDeleted,
    DefinitionFailed,
    DefinitionSaved,
    DefinitionSwitched,
)
from eventlog.errors import ConflictError, InvalidError, NotFoundError

DAY_MS: Final = 86_400_000
SHADOW: Final = 1 << 40  # added to a definition's number for the version that is not active yet
NAME_CHARS_MAX: Final = 500
DEFINITIONS_MAX: Final = 20_000  # of a space

Kind = OneOf["audience", "trait"]


class Held(Struct):
    """A definition as it is held: what was asked for last, and what decides."""

    latest: Definition
    active: Definition | None = None
    failure: str | None = None
    disabled_seq: int = 0  # the entry that disabled what decides; 0: it was not
    disabled_ms: int = 0

    @property
    def pending(self) -> bool:
        """Tell whether the latest version still waits for its past."""
        return self.failure is None and (self.active is None or self.active.version != self.latest.version)


class Saved(Struct, frozen=True):
    """What a snapshot keeps of the definitions."""

    held: tuple[Held, ...]
    keys: tuple[str, ...]
    last_number: int


@lru_cache(maxsize=4096)
def tree_of(query: str, entity_type: str, kind: str) -> Tree:
    """Return a definition's tree. Raises QueryError."""
    return parse(query, entity_type=entity_type, kind=kind)  # type: ignore[arg-type]


def key_of(name: str) -> str:
    """Return a name in snake_case: accents dropped, every other run of characters one `_` (contract, section 4)."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")


class Definitions:
    """All definitions of a space."""

    def __init__(self, saved: bytes | None = None) -> None:
        self.held: dict[int, Held] = {}
        self.keys: dict[str, None] = {}  # ever used
        self._specs: dict[int, tuple[Definition, Spec]] = {}  # by number, as long as the definition is the same
        self.last_number = 0
        if saved is not None:
            state = msgspec.msgpack.decode(saved, type=Saved)
            self.held = {one.latest.number: one for one in state.held}
            self.keys = dict.fromkeys(state.keys)
            self.last_number = state.last_number

    def dump(self) -> bytes:
        """Return what `__init__` takes."""
        return msgspec.msgpack.encode(Saved(tuple(self.held.values()), tuple(self.keys), self.last_number))

    # -- the fold ----------------------------------------------------------------------------------------------------

    def apply(self, fact: AnyFact, seq: int) -> bool:
        """Take a fact into account; tell whether what has to be compiled changed."""
        if isinstance(fact, DefinitionSaved):
            definition = fact.definition
            if not definition.created_seq:
                definition = replace(definition, created_seq=seq)
            self.keys[definition.key] = None
            self.last_number = max(self.last_number, definition.number)
            held = self.held.get(definition.number)
            if held is None:
                self.held[definition.number] = Held(definition)
                return True
            return self._change(held, definition, seq)
        if isinstance(fact, DefinitionSwitched):
            held = self.held.get(fact.number)
            if held is not None and held.latest.version == fact.version:
                held.active = held.latest
                held.failure = None
                held.disabled_seq = 0
                return True
        elif isinstance(fact, DefinitionFailed):
            held = self.held.get(fact.number)
            if held is not None and held.latest.version == fact.version:
                held.failure = fact.reason
                return True
        elif isinstance(fact, DefinitionDeleted):
            return self.held.pop(fact.number, None) is not None
        return False

    def _change(self, held: Held, definition: Definition, seq: int) -> bool:
        moved = definition.version != held.latest.version
        enabled = definition.enabled != held.latest.enabled
        held.latest = definition
        if moved:
            held.failure = None
        active = held.active
        if active is None:
            return moved or enabled
        if active.enabled and not definition.enabled:
            held.disabled_seq, held.disabled_ms = seq, definition.updated_ms
        if active.version == definition.version or not definition.enabled:
            # Frozen, what decides is no text: that of now counts for what it refers to.
            held.active = replace(definition, version=active.version)
        return moved or enabled

    # -- what follows from it ----------------------------------------------------------------------------------------

    def specs(self) -> list[Spec]:
        """Return what to compile: every active version, and beside it the one that is to follow."""
        specs = []
        for number, held in self.held.items():
            specs.append(self._spec_of(held.active or held.latest, number))
            if held.active is not None and held.pending and held.latest.enabled:
                specs.append(replace(self._spec_of(held.latest, number + SHADOW), key=""))
        self._specs = {spec.number: self._specs[spec.number] for spec in specs}
        return specs

    def _spec_of(self, definition: Definition, number: int) -> Spec:
        known = self._specs.get(number)
        if known is None or known[0] is not definition:
            known = self._specs[number] = (definition, spec_of(definition, number))
        return known[1]

    def live(self) -> set[int]:
        """Return the numbers of the definitions whose changes are announced."""
        return {n for n, held in self.held.items() if held.active is not None and held.active.enabled}

    def waiting(self) -> list[Held]:
        """Return those whose latest version waits for its past, in order of creation."""
        return [held for held in self.held.values() if held.pending and held.latest.enabled]

    def of(self, id_or_key: str) -> Held:
        """Return a living definition by id or key. Raises NotFoundError."""
        for held in self.held.values():
            if id_or_key in (held.latest.id, held.latest.key):
                return held
        raise NotFoundError("not_found", f"no audience or computed trait {id_or_key!r} in this space")

    def referring_to(self, key: str) -> list[Definition]:
        """Return the living definitions that refer to a key."""
        return [held.latest for held in self.held.values() if key in self._keys_of(held)]

    @staticmethod
    def _keys_of(held: Held) -> set[str]:
        versions = [held.latest] if held.active is None else [held.latest, held.active]
        return {key for v in versions for key in references(tree_of(v.query, v.entity_type, v.kind))}

    # -- what is refused ---------------------------------------------------------------------------------------------

    def check_new(self, *, kind: Kind, name: str, key: str | None, entity_type: str, query: str) -> str:
        """Check a definition to be created; return its key. Raises QueryError, InvalidError, ConflictError."""
        if not name.strip() or len(name) > NAME_CHARS_MAX:
            raise InvalidError("invalid_name", f"name: needs 1 to {NAME_CHARS_MAX} characters", field="name")
        if len(self.held) >= DEFINITIONS_MAX:
            raise ConflictError("too_many_definitions", f"a space holds at most {DEFINITIONS_MAX} definitions")
        chosen = key_of(name) if key is None else key
        if not chosen:
            raise InvalidError("invalid_key", f"no key can be made of the name {name!r}: give a `key`", field="key")
        if key_of(chosen) != chosen:
            raise InvalidError("invalid_key", f"key {chosen!r}: a-z, 0-9 and single _ between them", field="key")
        if chosen in self.keys:
            raise ConflictError(
                "key_taken", f"key {chosen!r} is or was used in this space and is never used again", field="name"
            )
        self.check_query(chosen, query, entity_type, kind)
        return chosen

    def check_query(self, key: str, query: str, entity_type: str, kind: str) -> None:
        """Check a definition's text, and that none then refers to itself. Raises QueryError, InvalidError."""
        found = references(tree_of(query, entity_type, kind))
        if not found:  # what refers to nothing is in no cycle, however many there are to look through
            return
        refers: dict[str, Any] = {held.latest.key: sorted(self._keys_of(held)) for held in self.held.values()}
        refers[key] = found
        cycle = cycle_of(key, refers)
        if cycle is not None:
            raise InvalidError("cycle", f"this would create a cycle: {' -> '.join(cycle)}", field="definition.query")


def bounds_of(definition: Definition) -> Bounds:
    """Return which part of history a definition counts: by its creation, whatever was edited since."""
    options = definition.options
    since_ms = None
    if options.backfill_event_data_days is not None:
        # As `within`: what is exactly so many days old no longer counts.
        since_ms = definition.created_ms - options.backfill_event_data_days * DAY_MS + 1
    return Bounds(0 if options.include_historical_data else definition.created_seq, since_ms)


def spec_of(definition: Definition, number: int) -> Spec:
    """Return a definition as it is compiled."""
    options = definition.options
    id_types = None
    if definition.kind == "audience" and definition.entity_type == "USERS":
        chosen = options.filter_by_external_ids
        id_types = KNOWN_ID_TYPES if chosen is None else frozenset(chosen)
    return Spec(
        number=number,
        key=definition.key,
        kind=definition.kind,
        scope=ACCOUNT if definition.entity_type == "ACCOUNTS" else USER,
        tree=tree_of(definition.query, definition.entity_type, definition.kind),
        bounds=bounds_of(definition),
        id_types=id_types,
        anonymous=options.include_anonymous_users,
    )
