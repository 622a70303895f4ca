"""What stays of the log's entries when people are erased from it: pure functions from entries to entries.

Of their events nothing stays but the place, with one exception: a group call also says something of an account, so it
stays as a call about the account alone, without traits that hold one of the people's ids. Facts keep their numbers and
lose their values: ids, computed values, refused calls. What other people's events say of them is other people's.

An erased person's part in an account is taken out of what is computed of the account too: of the values once computed
there (they may be the person's) only the last one stays, computed again without the person.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from actors.conditions.values import text_of
from actors.external_ids import normal_value
from actors.partition import LEFT_TRAIT
from eventlog.columns import EventColumns
from eventlog.entries import (
    ERASED,
    GROUP,
    AnyFact,
    Commit,
    Event,
    IdAdded,
    IdRefused,
    IdSeenEarlier,
    Rejected,
    TraitComputed,
)
from eventlog.erasure import erased
from eventlog.log import Log

ID_CHARS_MIN: Final = 4  # of an id that is looked for everywhere; a shorter one only where a call names an id
_ID_FIELDS: Final = frozenset({"userId", "anonymousId", "previousId", "email", "id"})
_BETWEEN_WORDS: Final = re.compile(r"[\s<>,;()\[\]{}\"'|=&?]+")

Id = tuple[str, str]  # id type, value
Computed = tuple[int, int]  # entity, definition


class Gone(Struct, frozen=True):
    """Who is erased. Make one with `gone_of`."""

    entities: frozenset[int]  # profiles, those that they had absorbed too
    ids: frozenset[Id]
    values: frozenset[str]  # of these ids

    def names(self, value: Any, field: str = "") -> bool:
        """Tell whether a value out of a call holds one of their ids."""
        if isinstance(value, dict):
            return any(self.names(part, key) for key, part in value.items())
        if isinstance(value, list):
            return any(self.names(part, field) for part in value)
        if value is None or isinstance(value, bool):
            return False
        text = text_of(value) or ""
        words = [text] if field in _ID_FIELDS else []
        if isinstance(value, str):
            words += [word for word in (text, *_BETWEEN_WORDS.split(text)) if len(word) >= ID_CHARS_MIN]
        return any(word in self.values or normal_value("email", word) in self.values for word in words)


def gone_of(entities: Iterable[int], ids: Iterable[Id]) -> Gone:
    """Return who is erased: profiles with all that they had absorbed, and their ids."""
    known = frozenset(ids)
    return Gone(frozenset(entities), known, frozenset(value for _, value in known))


# -- looking ---------------------------------------------------------------------------------------------------------


def group_traces(log: Log, gone: Gone) -> tuple[frozenset[int], frozenset[tuple[int, str, int]]]:
    """Return the accounts that the erased ever belonged to, and the traits with their ids that they wrote there.

    Reads all of the log's group calls; safe in another thread.
    """
    accounts: set[int] = set()
    traits: set[tuple[int, str, int]] = set()
    wanted = np.array(sorted(gone.entities), np.int64)
    for columns in log.scan_columns([(GROUP, None)]):
        theirs = columns.select(np.flatnonzero(np.isin(columns.profile, wanted) & (columns.account > 0)))
        for seq, account, body in zip(theirs.seq.tolist(), theirs.account.tolist(), theirs.bodies(), strict=True):
            accounts.add(account)
            traits.update((account, key, seq) for key in _traits_naming(body, gone))
    return frozenset(accounts), frozenset(traits)


def _traits_naming(body: bytes, gone: Gone) -> list[str]:
    return [key for key, value in _traits_of(body).items() if gone.names(value, key)]


def _traits_of(body: bytes) -> dict[str, Any]:
    traits = _call(body).get("traits")
    return traits if isinstance(traits, dict) else {}


def _call(body: bytes) -> dict[str, Any]:
    try:
        call = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return call if isinstance(call, dict) else {}


class Search:
    """Looks for facts that mention the erased, without changing any: hand `mentioning` to a rewrite."""

    def __init__(self, gone: Gone, accounts: frozenset[int]) -> None:
        self._gone = gone
        self._accounts = accounts
        self.refusing: set[int] = set()
        self.computed: dict[Computed, int] = {}

    def mentioning(self, facts: Sequence[AnyFact]) -> bool:
        """Look at a commit's facts; nothing of it is to be rewritten."""
        for fact in facts:
            if isinstance(fact, TraitComputed):
                if fact.entity in self._accounts:
                    key = (fact.entity, fact.definition)
                    self.computed[key] = self.computed.get(key, 0) + 1
            elif isinstance(fact, IdRefused) and _is_of_others(fact, self._gone):
                self.refusing.add(fact.entity)
        return False


def _is_of_others(fact: IdRefused, gone: Gone) -> bool:
    return fact.entity not in gone.entities and (fact.id_type, fact.value) in gone.ids


# -- rewriting -------------------------------------------------------------------------------------------------------


class Rewriting:
    """One pass over the log that leaves nothing of the erased: hand its methods to `Log.rewrite`."""

    def __init__(self, gone: Gone, accounts: frozenset[int], computed: Mapping[Computed, int]) -> None:
        """Take who is erased, the accounts they belonged to, and how often a value was computed of those."""
        self._gone = gone
        self._accounts = accounts
        self._all_computed = computed
        self._wanted = np.array(sorted(gone.entities), np.int64)
        self._computed: dict[Computed, int] = {}  # met so far

    def touching(self, columns: EventColumns) -> bool:
        """Tell whether some of these events are theirs."""
        return bool(np.isin(columns.profile, self._wanted).any())

    def mentioning(self, facts: Sequence[AnyFact]) -> bool:
        """Tell whether some of these facts are to be replaced, or have to be counted."""
        return any(self._is_meant(fact) for fact in facts)

    def _is_meant(self, fact: AnyFact) -> bool:
        if isinstance(fact, TraitComputed):
            return fact.entity in self._gone.entities or fact.entity in self._accounts
        return _is_named_in(fact, self._gone)

    def edit(self, commit: Commit) -> Commit:
        """Return what stays of a commit; the same where all of it does."""
        events = tuple(self._event(event) for event in commit.events)
        facts = tuple(self._fact(fact) for fact in commit.facts)
        if all(map(_is, events, commit.events)) and all(map(_is, facts, commit.facts)):
            return commit
        return Commit(commit.first_seq, commit.at_ms, events, facts)

    def _event(self, event: Event) -> Event:
        if event.kind == ERASED or event.profile not in self._gone.entities:
            return event
        return _about_account(event, self._gone) if event.kind == GROUP and event.account else erased(event)

    def _fact(self, fact: AnyFact) -> AnyFact:
        if isinstance(fact, TraitComputed):
            return self._computed_fact(fact)
        if isinstance(fact, Rejected):
            return replace(fact, message_id="", message="erased", body=b"") if _is_named_in(fact, self._gone) else fact
        if isinstance(fact, IdAdded | IdSeenEarlier | IdRefused) and _is_named_in(fact, self._gone):
            return replace(fact, value="")
        return fact

    def _computed_fact(self, fact: TraitComputed) -> TraitComputed:
        key = (fact.entity, fact.definition)
        if fact.entity in self._accounts:
            met = self._computed[key] = self._computed.get(key, 0) + 1
            is_theirs = met < self._all_computed.get(key, 0)
        else:
            is_theirs = fact.entity in self._gone.entities
        return replace(fact, value=None) if is_theirs and fact.value is not None else fact


def _is(one: object, other: object) -> bool:
    return one is other


def _about_account(event: Event, gone: Gone) -> Event:
    """Return a group call as one about the account alone; a trait that holds one of their ids is removed there."""
    traits = {
        key: None if gone.names(value, key) else value
        for key, value in _traits_of(event.body).items()
        if key != LEFT_TRAIT
    }
    if not traits:
        return erased(event)
    body = {"type": "group", "groupId": _call(event.body).get("groupId"), "traits": traits}
    return replace(event, profile=0, message_id="", body=msgspec.json.encode(body))


def _is_named_in(fact: AnyFact, gone: Gone) -> bool:
    """Tell whether a fact holds something of the erased that goes."""
    if isinstance(fact, IdAdded | IdSeenEarlier):
        return fact.entity in gone.entities and bool(fact.value)
    if isinstance(fact, IdRefused):
        return bool(fact.value) and (fact.entity in gone.entities or (fact.id_type, fact.value) in gone.ids)
    return isinstance(fact, Rejected) and bool(fact.body) and _is_call_of(fact.body, gone)


def _is_call_of(body: bytes, gone: Gone) -> bool:
    """Tell whether a refused call names one of the erased; one that is no JSON is looked through word by word."""
    call = _call(body)
    if call:
        return gone.names(call)
    return gone.names(_BETWEEN_WORDS.split(body.decode(errors="replace").replace(":", " ")), "id")
