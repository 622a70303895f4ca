"""From a job to its work: which calls a change, a new id, a merge or a change passed over now owes.

A job is looked at when it is its turn, not when it was read: the ids are those of that moment, and everything told
before is known. What a job finds already told owes nothing, so a job can be repeated without harm.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from typing import Literal as OneOf

import msgspec

from actors.delivery import Adapter, Call, CallKind, Connection, ConnectionSettings, Verdict
from actors.delivery_ids import IdValue, newest_anonymous, select
from actors.delivery_lanes import Debt, Job, Work
from actors.delivery_ledger import Ledger
from actors.delivery_payloads import event_name, message_id
from actors.delivery_plan import State, Target, begun, owed, settled


class Profiles(Protocol):
    """What deliveries ask about profiles; a space answers it."""

    @property
    def space_id(self) -> str:
        """Return the id of the space."""

    def ids(self, entity: int) -> Sequence[IdValue]:
        """Return the ids of a profile or account, oldest first; none when it is gone."""

    def public_id(self, entity: int) -> str:
        """Return the public id of a profile or account."""

    def users(self, account: int) -> Sequence[int]:
        """Return the users of an account."""

    def accounts(self, user: int) -> Sequence[int]:
        """Return the accounts of a user."""

    def current(self, entity: int) -> Mapping[str, Any]:
        """Return a profile's audiences and traits by key, as far as is folded; what is not live yet is left out."""

    def folded_seq(self) -> int:
        """Return up to where that is."""


class Planner:
    """Plans the jobs of one destination against its ledger."""

    def __init__(self, adapter: Adapter, ledger: Ledger, profiles: Profiles) -> None:
        self._adapter = adapter
        self._ledger = ledger
        self._profiles = profiles
        self.connections: Mapping[str, Connection] = {}
        self.quiet: frozenset[str] = frozenset()  # connections that send nothing now

    def work(self, job: Job, settled_ids: frozenset[str], *, change_seq: int = 0) -> Work:
        """Return what a job owes now; a change by entry `change_seq` waits behind it, and is left what it says."""
        state: State | None = None
        match job.what:
            case "change":
                debts = self._change(job)
            case "reconcile":
                state = self._ledger.true(job.connection, job.entity)
                overtaken = state is not None and change_seq > max(state.seq, state.basis_seq)
                debts = [] if overtaken else self._reconcile(job, state)
            case "renew":
                debts = self._renew(job)
            case "merge":
                debts = self._merge(job)
            case "resend":
                debts = self._resend(job)
            case "erase":
                debts = []
                self._erase(job)
        for debt in debts:
            for call in debt.calls:
                if call.id not in settled_ids:
                    break
                debt.verdicts.append(Verdict(how="delivered"))
        work = Work(job, [debt for debt in debts if debt.calls], state)
        self._skip(work)
        return work

    def _skip(self, work: Work) -> None:
        """Settle the debts that were paid before a restart."""
        while not work.done and len(work.debts[work.at].verdicts) == len(work.debts[work.at].calls):
            self.settle_debt(work.job.entity, work.debts[work.at])
            work.at += 1

    # -- jobs --------------------------------------------------------------------------------------------------------

    def _sending(self, connection_id: str) -> Connection | None:
        return None if connection_id in self.quiet else self.connections.get(connection_id)

    def _change(self, job: Job) -> list[Debt]:
        connection = self._sending(job.connection)
        if connection is None:
            if job.connection in self.connections:
                self.note(self.connections[job.connection], job)
            return []
        state = self._ledger.true(job.connection, job.entity)
        if state is not None and max(state.seq, state.basis_seq) >= job.seq:
            return []
        value = self._value(connection, job)
        return self._debts(connection, job.entity, State(value, job.seq, job.at_ms), again=False)

    def _value(self, connection: Connection, job: Job) -> Any:
        """A user is in an account audience while any of its accounts is; a trait's value is the last one computed."""
        if not job.account or connection.kind == "trait" or job.value:
            return job.value
        accounts = self._profiles.accounts(job.entity)
        return any(self._is_in(connection.id, account) for account in accounts)

    def _is_in(self, connection: str, account: int) -> bool:
        state = self._ledger.said(connection, account)
        return state is not None and bool(state.value)

    def _reconcile(self, job: Job, state: State | None) -> list[Debt]:
        connection = self._sending(job.connection)
        if connection is None or state is None:
            return []
        return self._debts(connection, job.entity, state, again=True)

    def _renew(self, job: Job) -> list[Debt]:
        """A profile has another id: tell it what is true, unless that is about to change."""
        debts: list[Debt] = []
        for connection in self.connections.values():
            state = self._ledger.true(connection.id, job.entity)
            if state is None or not _says(connection, state.value):
                continue
            if connection.id in self.quiet:
                self._ledger.unsettle(connection.id, job.entity)
                continue
            new = self._debts(connection, job.entity, state, again=False)
            if new and self._stands(connection, job, state):
                debts += new
        return debts

    def _stands(self, connection: Connection, job: Job, state: State) -> bool:
        """Tell whether what is known of a profile is still so (the job is not read before its cause is folded)."""
        if connection.entity_type == "ACCOUNTS" and not any(t == "group_id" for t, _ in self._profiles.ids(job.entity)):
            return True
        current = self._profiles.current(job.entity)
        return bool(connection.key not in current or current[connection.key] == state.value)

    def _merge(self, job: Job) -> list[Debt]:
        """Let the survivor take over what the absorbed were told; what a change still to come sends is left to it."""
        debts: list[Debt] = []
        current = self._profiles.current(job.entity)
        for connection in self.connections.values():
            inherited = self._inherit(connection, job)
            own = self._ledger.true(connection.id, job.entity)
            state = self._joined(connection, job, own, inherited, current)
            if state is None:
                continue
            self._ledger.write_true(connection.id, job.entity, state)
            if connection.id in self.quiet:
                self._ledger.unsettle(connection.id, job.entity)
            else:
                debts += self._debts(connection, job.entity, state, again=False)
        return debts

    def _joined(
        self, connection: Connection, job: Job, own: State | None, inherited: State | None, current: Mapping[str, Any]
    ) -> State | None:
        """Return what is true of the survivor as of the merge, None where a change will say it or there is nothing."""
        if own is not None and own.seq >= job.seq:
            return own  # the merge was under way when the process stopped, or more is known by now
        if own is not None and _says(connection, own.value):
            known = State(own.value, job.seq, own.at_ms, own.basis_seq)
        elif inherited is not None:
            known = State(inherited.value, job.seq, inherited.at_ms)
        else:
            return None
        if connection.entity_type == "ACCOUNTS" or connection.key not in current:
            return known
        value = current[connection.key]
        if value == known.value:
            return known
        if connection.kind == "audience" and not (own is not None and own.value):
            return State(
                False, job.seq, job.at_ms
            )  # only the absorbed was a member, and no exit of the survivor follows
        return None

    def _inherit(self, connection: Connection, job: Job) -> State | None:
        """Move the rows of the absorbed to the survivor; return the newest state of theirs that says something."""
        newest: State | None = None
        own = self._ledger.told(connection.id, job.entity)
        for absorbed in job.absorbed:
            state = self._ledger.true(connection.id, absorbed)
            if state is not None and _says(connection, state.value) and (newest is None or newest.seq < state.seq):
                newest = state
            for ids, told in self._ledger.told(connection.id, absorbed).items():
                if ids not in own or own[ids].seq < told.seq:
                    own[ids] = told
                    self._ledger.write_told(connection.id, job.entity, ids, told)
            self._ledger.forget(connection.id, absorbed)
        return newest

    def _erase(self, job: Job) -> None:
        """Withdraw a deleted profile and then forget it; a paused connection, and an internal deletion, only forget."""
        self._ledger.erase(job.entity)
        for connection in self.connections.values():
            told = self._ledger.told(connection.id, job.entity)
            owes = any(
                row.value is True if connection.kind == "audience" else row.value is not None for row in told.values()
            )
            if not owes or job.value or connection.id in self.quiet:
                self._ledger.forget(connection.id, job.entity)
                continue
            value = False if connection.kind == "audience" else None
            state = State(value, job.seq, job.at_ms, erased=True)
            self._ledger.write_true(connection.id, job.entity, state)
            self._ledger.unsettle(connection.id, job.entity)

    def _resend(self, job: Job) -> list[Debt]:
        call = job.call
        if call is None:
            return []
        connection = self.connections.get(call.connection)
        if connection is None:
            return []
        state = self._ledger.true(call.connection, job.entity)
        if state is not None and state.seq > call.seq:  # the world has moved on: what is true now is owed instead
            return self._debts(connection, job.entity, state, again=True)
        return [Debt(connection, Target(call.ids, call.value, (call.ids,)), call.seq, (call,))]

    # -- what a state owes -------------------------------------------------------------------------------------------

    def _debts(self, connection: Connection, entity: int, state: State, *, again: bool) -> list[Debt]:
        ids = self._profiles.ids(entity)
        collection: OneOf["users", "accounts"] = "accounts" if self._is_account(connection, entity, ids) else "users"
        targets = owed(
            value=state.value,
            kind=connection.kind,
            seq=state.seq,
            told=self._ledger.told(connection.id, entity),
            selected=select(ids, connection.id_sync, collection),
            again=again,
        )
        settings = msgspec.convert(connection.settings, ConnectionSettings)
        kinds = [kind for kind in self._kinds(collection) if settings.sends(kind)]
        if not kinds:
            return []
        profile = self._profiles.public_id(entity) if targets else ""
        extra = newest_anonymous(ids)
        return [
            Debt(
                connection,
                target,
                state.seq,
                tuple(self._call(connection, settings, kind, entity, profile, target, state, extra) for kind in kinds),
            )
            for target in targets
        ]

    def _is_account(self, connection: Connection, entity: int, ids: Sequence[IdValue]) -> bool:
        if connection.entity_type != "ACCOUNTS":
            return False
        if ids:
            return any(id_type == "group_id" for id_type, _ in ids)
        return any(dict(row).get("groupId") for row in self._ledger.told(connection.id, entity))

    def _kinds(self, collection: OneOf["users", "accounts"]) -> Iterable[CallKind]:
        if collection == "accounts":
            return [kind for kind in self._adapter.kinds if kind == "group"]
        return [kind for kind in self._adapter.kinds if kind != "group"]

    def _call(
        self,
        connection: Connection,
        settings: ConnectionSettings,
        kind: CallKind,
        entity: int,
        profile: str,
        target: Target,
        state: State,
        extra: str | None,
    ) -> Call:
        bare = target.ids and not any(name in {"userId", "anonymousId", "groupId"} for name, _ in target.ids)
        return Call(
            id=message_id(connection.id, connection.refill, state.seq, kind, entity, target.ids),
            kind=kind,
            connection=connection.id,
            space=self._profiles.space_id,
            definition=connection.definition_id,
            key=connection.key,
            computation_class=connection.kind,
            entity=entity,
            profile=profile,
            ids=target.ids,
            value=target.value,
            event=event_name(settings, connection.kind, target.value),
            at_ms=state.at_ms,
            seq=state.seq,
            anonymous_id=extra if bare else None,
        )

    # -- what is written ---------------------------------------------------------------------------------------------

    def note(self, connection: Connection, job: Job) -> None:
        """Take a change in without sending it: its net is owed later."""
        state = self._ledger.true(connection.id, job.entity)
        if state is None or max(state.seq, state.basis_seq) < job.seq:
            value = self._value(connection, job)
            gone = not self._profiles.ids(job.entity)  # deleted: nothing may be kept of it
            if gone and state is None and self._is_news_to_nobody(connection, job.entity, value):
                return
            erased = state is not None and state.erased
            self._ledger.write_true(connection.id, job.entity, State(value, job.seq, job.at_ms, erased=erased))
            self._ledger.unsettle(connection.id, job.entity)

    def _is_news_to_nobody(self, connection: Connection, entity: int, value: Any) -> bool:
        """Tell whether one leaves of whom nothing was ever told: there is nothing to remember (it may be deleted)."""
        return not _says(connection, value) and not self._ledger.told(connection.id, entity)

    def begin_debt(self, entity: int, debt: Debt) -> None:
        """Write that a part of a target's calls arrived."""
        told = self._ledger.told(debt.connection.id, entity)
        for ids, row in begun(debt.target, seq=debt.seq, told=told).items():
            before = told.get(ids)
            if before is None or before.seq <= row.seq:
                self._ledger.write_told(debt.connection.id, entity, ids, row)

    def settle_debt(self, entity: int, debt: Debt) -> None:
        """Write what was told, now that all calls of a target are settled."""
        told = self._ledger.told(debt.connection.id, entity)
        rows = settled(debt.target, debt.verdicts, kind=debt.connection.kind, seq=debt.seq, told=told)
        for ids, row in rows.items():
            before = told.get(ids)
            if before is None or before.seq <= row.seq:
                self._ledger.write_told(debt.connection.id, entity, ids, row)

    def finish(self, work: Work) -> None:
        """Write what a finished job leaves."""
        job, ledger = work.job, self._ledger
        match job.what:
            case "change":
                connection = self._sending(job.connection)
                state = ledger.true(job.connection, job.entity)
                if connection is None or (state is not None and max(state.seq, state.basis_seq) >= job.seq):
                    return
                value = self._value(connection, job)
                if state is None and self._is_news_to_nobody(connection, job.entity, value):
                    return
                erased = state is not None and state.erased
                ledger.write_true(job.connection, job.entity, State(value, job.seq, job.at_ms, erased=erased))
            case "reconcile":
                if job.connection in self.quiet:
                    return
                if ledger.true(job.connection, job.entity) == work.state:
                    ledger.settle(job.connection, job.entity)
                    if work.state is not None and work.state.erased:
                        ledger.forget(job.connection, job.entity)
                        ledger.erase(job.entity)
                else:
                    ledger.touched.add(job.connection)  # it has changed since: once more
            case "renew" | "merge" | "resend" | "erase":
                pass


def _says(connection: Connection, value: Any) -> bool:
    return value is not None if connection.kind == "trait" else bool(value)
