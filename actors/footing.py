"""Which of the log's effects still follow from its entries, once people were erased from it or old events forgotten.

What was decided at the time stands in the log for ever; what it was decided on may be gone since. Effects of erased
profiles, and those of accounts they belonged to until they were taken out, rest on events that are not there any more;
so do effects older than the events that a space keeps allow. A fold of the log anew cannot, and need not, give these.
"""

from collections.abc import Iterable

from actors.definitions import tree_of
from actors.language import references
from actors.retention import lookback_of
from eventlog.entries import (
    AccountsErased,
    AnyFact,
    Definition,
    DefinitionSaved,
    Entered,
    Erased,
    EventsForgotten,
    Exited,
    Merged,
    TraitComputed,
)


class Footing:
    """What the effects of a log rest on; read off its facts."""

    def __init__(self, facts: Iterable[tuple[int, list[tuple[int, AnyFact]]]]) -> None:
        """Take a log's facts as `Log.read_facts` gives them."""
        self._versions: dict[int, list[Definition]] = {}
        self._into: dict[int, int] = {}  # absorbed -> survivor
        self._erased: set[int] = set()
        self._accounts: dict[int, int] = {}  # account -> up to which entry it rests on more than there is
        self.forgotten_ms: int | None = None
        for _, some in facts:
            for seq, fact in some:
                self._take(fact, seq)
        self._shaken_seq = max(self._accounts.values(), default=-1)
        self._lookbacks: dict[int, int | None] = {}
        self._on_accounts: dict[int, bool] = {}

    def _take(self, fact: AnyFact, seq: int) -> None:
        match fact:
            case DefinitionSaved(definition=definition):
                self._versions.setdefault(definition.number, []).append(definition)
            case Merged(survivor=survivor, absorbed=absorbed):
                self._into.update(dict.fromkeys(absorbed, survivor))
            case Erased(entity=entity):
                self._erased.add(entity)
            case AccountsErased(accounts=accounts):
                self._accounts.update(dict.fromkeys(accounts, seq))
            case EventsForgotten(before_ms=before_ms):
                self.forgotten_ms = max(before_ms, self.forgotten_ms or before_ms)
            case _:
                pass

    def keeps_state(self, entity: int) -> bool:
        """Tell whether all that is kept of an entity follows from what the log holds today."""
        return self.forgotten_ms is None and entity not in self._accounts and not self.is_erased(entity)

    def is_erased(self, entity: int) -> bool:
        """Tell whether an entity was erased, or absorbed by one that was."""
        while entity not in self._erased and entity in self._into:
            entity = self._into[entity]
        return entity in self._erased

    def follows(self, effect: AnyFact) -> bool:
        """Tell whether an effect follows from what the log holds today."""
        if not isinstance(effect, Entered | Exited | TraitComputed):
            return True
        if self.is_erased(effect.entity):
            return False
        return self.is_dated(effect.definition, effect.at_ms, effect.entity, effect.cause_seq)

    def is_dated(self, number: int, at_ms: int, entity: int, cause_seq: int = 0) -> bool:
        """Tell whether the log still says when something became true of an entity (by which entry: 0 if unknown)."""
        if cause_seq <= self._accounts.get(entity, -1):
            return False
        if cause_seq <= self._shaken_seq and self._rests_on_accounts(number, set()):
            return False
        if self.forgotten_ms is None:
            return True
        lookback = self._lookback(number, set())
        return lookback is not None and at_ms > self.forgotten_ms + lookback

    def is_computable(self, number: int) -> bool:
        """Tell whether who is a member now follows from what the log holds today."""
        return self.forgotten_ms is None or self._lookback(number, set()) is not None

    def _related(self, number: int) -> list[int]:
        """Return the definitions that a definition refers to, in any of its versions."""
        keys = {
            key
            for one in self._versions.get(number, ())
            for key in references(tree_of(one.query, one.entity_type, one.kind))
        }
        return [other for other, versions in self._versions.items() if versions[0].key in keys]

    def _lookback(self, number: int, asked: set[int]) -> int | None:
        if number not in self._lookbacks:
            asked.add(number)
            looks = [lookback_of(one) for one in self._versions.get(number, ())]
            looks += [self._lookback(one, asked) for one in self._related(number) if one not in asked]
            known = [one for one in looks if one is not None]
            self._lookbacks[number] = max(known, default=0) if len(known) == len(looks) else None
        return self._lookbacks[number]

    def _rests_on_accounts(self, number: int, asked: set[int]) -> bool:
        if number not in self._on_accounts:
            asked.add(number)
            own = any(one.entity_type == "ACCOUNTS" for one in self._versions.get(number, ()))
            others = [one for one in self._related(number) if one not in asked]
            self._on_accounts[number] = own or any(self._rests_on_accounts(one, asked) for one in others)
        return self._on_accounts[number]
