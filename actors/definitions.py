"""The life of audiences and computed traits: which definitions there are, and how each is doing.

A fold of the definition facts. Of every definition the *latest* version is what its owner asked for, the *active* one
what decides membership. A new version gathers state beside the active one, under a shadow number and no key, until
`DefinitionSwitched`. A key, once used in a space, is never free again. Times are milliseconds since the epoch, UTC.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final
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


@lru_cache(maxsize=DEFINITIONS_MAX)
def tree_of(query: str, entity_type: str, kind: str) -> Tree:
    """Return a definition's tree. Raises QueryError."""
    return parse(query, entity_type=entity_type, kind=kind)  # type: ignore[arg-type]


def key_of(name: str) -> str:
    """Return a name in snake_case: accents dropped, every other run of characters one `_` (contract, section 4)."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")


class Definitions:
    """All definitions of a space, by number, in order of creation. What is asked of them costs one, not all."""

    def __init__(self, saved: bytes | None = None) -> None:
        self.held: dict[int, Held] = {}
        self.keys: dict[str, None] = {}  # ever used
        self.last_number = 0
        self._by_id: dict[str, int] = {}
        self._by_key: dict[str, int] = {}
        self._waiting: dict[int, None] = {}  # whose latest version waits for its past, the longest first
        self._refers: dict[int, frozenset[str]] = {}  # to which keys a definition refers, its active version too
        self._referring: dict[str, dict[int, None]] = {}  # and the other way round
        if saved is not None:
            state = msgspec.msgpack.decode(saved, type=Saved)
            self.held = {one.latest.number: one for one in state.held}
            self.keys = dict.fromkeys(state.keys)
            self.last_number = state.last_number
            for one in sorted(state.held, key=lambda held: held.latest.updated_ms):
                self._note(one)

    def dump(self) -> bytes:
        """Return what `__init__` takes."""
        return msgspec.msgpack.encode(Saved(tuple(self.held.values()), tuple(self.keys), self.last_number))

    # -- the fold ----------------------------------------------------------------------------------------------------

    def apply(self, fact: AnyFact, seq: int) -> int:
        """Take a fact into account; return the definition of which something else is to be compiled, or 0."""
        if isinstance(fact, DefinitionSaved):
            return self._save(fact.definition, seq)
        if isinstance(fact, DefinitionDeleted):
            held = self.held.pop(fact.number, None)
            if held is not None:
                self._forget(held.latest)
        elif isinstance(fact, DefinitionSwitched | DefinitionFailed):
            held = self.held.get(fact.number)
            if held is None or held.latest.version != fact.version:
                return 0
            if isinstance(fact, DefinitionFailed):
                held.failure = fact.reason
            else:
                held.active = held.latest
                held.failure = None
                held.disabled_seq = 0
            self._note(held)
        else:
            return 0
        return 0 if held is None else fact.number

    def _save(self, definition: Definition, seq: int) -> int:
        if not definition.created_seq:
            definition = replace(definition, created_seq=seq)
        number = definition.number
        self.keys[definition.key] = None
        self.last_number = max(self.last_number, number)
        held = self.held.get(number)
        if held is None:
            held = self.held[number] = Held(definition)
            is_other = True
        else:
            is_other = self._change(held, definition, seq)
        self._note(held)
        return number if is_other else 0

    def _note(self, held: Held) -> None:
        """Note where a definition is found, whether it waits, and what it refers to."""
        latest = held.latest
        number = latest.number
        self._by_id[latest.id] = self._by_key[latest.key] = number
        if held.pending and latest.enabled:
            self._waiting.setdefault(number)
        else:
            self._waiting.pop(number, None)
        self._refer(number, frozenset(_keys_of(held)))

    def _forget(self, latest: Definition) -> None:
        self._by_id.pop(latest.id, None)
        self._by_key.pop(latest.key, None)
        self._waiting.pop(latest.number, None)
        self._refer(latest.number, frozenset())
        del self._refers[latest.number]

    def _refer(self, number: int, keys: frozenset[str]) -> None:
        was = self._refers.get(number, frozenset())
        for key in was - keys:
            del self._referring[key][number]
            if not self._referring[key]:
                del self._referring[key]
        for key in keys - was:
            self._referring.setdefault(key, {})[number] = None
        self._refers[number] = keys

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
        return [spec for number in self.held for spec in self.specs_of(number).values() if spec is not None]

    def specs_of(self, number: int) -> dict[int, Spec | None]:
        """Return what to compile of one definition, by number; None where there is nothing, or nothing any more."""
        held = self.held.get(number)
        specs: dict[int, Spec | None] = {number: None, number + SHADOW: None}
        if held is not None:
            specs[number] = spec_of(held.active or held.latest, number)
            if held.active is not None and held.pending and held.latest.enabled:
                specs[number + SHADOW] = replace(spec_of(held.latest, number + SHADOW), key="")
        return specs

    def live(self) -> set[int]:
        """Return the numbers of the definitions whose changes are announced."""
        return {number for number in self.held if self.is_live(number)}

    def is_live(self, number: int) -> bool:
        """Tell whether a definition's changes are announced."""
        held = self.held.get(number)
        return held is not None and held.active is not None and held.active.enabled

    def waiting(self) -> Iterator[Held]:
        """Yield those whose latest version waits for its past, the longest first."""
        return (self.held[number] for number in self._waiting)

    def is_waiting(self, number: int | None = None) -> bool:
        """Tell whether a definition's latest version, or that of any, waits for its past."""
        return bool(self._waiting) if number is None else number in self._waiting

    def of(self, id_or_key: str) -> Held:
        """Return a living definition by id or key. Raises NotFoundError."""
        number = self._by_id.get(id_or_key) or self._by_key.get(id_or_key)
        if number is None:
            raise NotFoundError("not_found", f"no audience or computed trait {id_or_key!r} in this space")
        return self.held[number]

    def referring_to(self, key: str) -> list[Definition]:
        """Return the living definitions that refer to a key, in order of creation."""
        return [self.held[number].latest for number in sorted(self._referring.get(key, ()))]

    def _refers_to(self, key: str) -> list[str]:
        number = self._by_key.get(key)
        return [] if number is None else sorted(self._refers[number])

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
                "key_taken",
                f"key {chosen!r} is or was used in this space and is never used again: give another",
                field="name" if key is None else "key",
            )
        self.check_query(chosen, query, entity_type, kind)
        return chosen

    def check_query(self, key: str, query: str, entity_type: str, kind: str) -> None:
        """Check a definition's text, and that none then refers to itself. Raises QueryError, InvalidError."""
        found = references(tree_of(query, entity_type, kind))
        if not found:  # what refers to nothing is in no cycle, however many there are to look through
            return
        cycle = cycle_of(key, lambda one: found if one == key else self._refers_to(one))
        if cycle is not None:
            raise InvalidError("cycle", f"this would create a cycle: {' -> '.join(cycle)}", field="definition.query")


def _keys_of(held: Held) -> set[str]:
    versions = [held.latest] if held.active is None else [held.latest, held.active]
    return {key for one in versions for key in references(tree_of(one.query, one.entity_type, one.kind))}


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
