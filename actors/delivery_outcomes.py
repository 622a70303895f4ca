"""What became of requests, written down: delivered, tried again, given up; the circuit, the hold, the dead letters.

A verdict moves three things: the ledger (what was told, what is dead), the lane of the profile (on, or set aside until
its next attempt, its jobs parked so that the cursor can pass them), and the destination as a whole (its circuit, a
hold).
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final
from typing import Literal as OneOf

import structlog
from msgspec.structs import replace

from actors.delivery import Adapter, Call, CommonSettings, Destination, Limits, Verdict
from actors.delivery_failures import Exchange, failure_of
from actors.delivery_jobs import Planner
from actors.delivery_lanes import Job, Lane, Lanes, Parked
from actors.delivery_ledger import DeadLetter, Ledger, Record
from actors.delivery_retry import backoff_ms, failed, gives_up, succeeded
from actors.delivery_settings import scrubbed, secret_texts, spellings
from eventlog.entries import AnyFact, DeadLettered, DeadLetterSettled, Delivered

SAME_FAILURE_MS: Final = 1_000

Picked = list[tuple[Lane, tuple[Call, ...]]]
Observer = Callable[[Destination, Call, int], None]

log = structlog.get_logger()


class Outcomes:
    """Writes down what became of a destination's requests."""

    def __init__(
        self,
        *,
        adapter: Adapter,
        ledger: Ledger,
        lanes: Lanes,
        planner: Planner,
        random: Random,
        observer: Observer | None,
        finished: Callable[[Job], None],
        throttled: Callable[[int], None],
    ) -> None:
        self._adapter = adapter
        self._ledger = ledger
        self._lanes = lanes
        self._planner = planner
        self._random = random
        self._observer = observer
        self._finished = finished
        self._throttled = throttled
        self._facts: list[AnyFact] = []
        self._delivered: list[str] = []
        self._destination: Destination | None = None
        self._secrets: tuple[str, ...] = ()
        self._held: tuple[str, ...] = ()  # what else is secret: access tokens
        self._limits: Limits

    def configure(self, destination: Destination, settings: CommonSettings, limits: Limits) -> None:
        """Take another configuration in."""
        self._destination, self._limits = destination, limits
        self._secrets = secret_texts(self._adapter, settings)

    def hold(self, held: Mapping[str, Any]) -> None:
        """Take note of what is kept in memory alone: it is secret too."""
        self._held = tuple(
            spelt for value in held.values() if isinstance(value, str) for spelt in sorted(spellings(value))
        )

    @property
    def unrecorded(self) -> bool:
        """Tell whether there is something that the log does not know."""
        return bool(self._facts or self._delivered)

    def facts(self, cursor_seq: int) -> tuple[AnyFact, ...]:
        """Return what the log does not know; `recorded` has to follow."""
        if not self._delivered:
            return tuple(self._facts)
        delivered = Delivered(destination=self._ledger.destination, cursor_seq=cursor_seq, ids=tuple(self._delivered))
        return (delivered, *self._facts)

    def recorded(self) -> None:
        """Take note that the log knows everything."""
        self._facts, self._delivered = [], []

    def settle(
        self, picked: Picked, verdicts: tuple[Verdict, ...], now_ms: int, *, last: Exchange | None = None
    ) -> None:
        """Write down the verdicts on a conversation's calls; `last` is how it ended."""
        self._note_failure(picked, verdicts, last, now_ms)
        self._gauge(picked[0][0], verdicts, now_ms)
        pauses: dict[int, int] = {}
        at = 0
        for lane, calls in picked:
            lane.in_flight = 0
            self._settle_lane(lane, calls, verdicts[at : at + len(calls)], pauses, now_ms)
            at += len(calls)

    def _note_failure(self, picked: Picked, verdicts: tuple[Verdict, ...], last: Exchange | None, now_ms: int) -> None:
        """Keep what was asked and answered, where it went wrong; of the same trouble once a second is enough."""
        bad = next((one for one in verdicts if one.how != "delivered" and one.reason), None)
        if bad is None or last is None:
            return
        reason, state = self._clean(bad.reason), self._ledger.state
        if reason == state.last_error and now_ms - state.last_error_ms < SAME_FAILURE_MS:
            return
        calls = tuple(call for _, calls in picked for call in calls)
        self._ledger.fail(failure_of(last, calls, reason, now_ms, (*self._secrets, *self._held)))

    def _gauge(self, first: Lane, verdicts: tuple[Verdict, ...], now_ms: int) -> None:
        """Move the circuit and the hold by how a conversation went."""
        state = self._ledger.state
        slow = next((one for one in verdicts if one.slow), None)
        is_held = now_ms < state.held_until_ms  # it was under way when the hold began, and says nothing new
        if slow is not None and (slow.retry_after_ms is not None or not is_held):
            state.slowed += not is_held
            pause_ms = slow.retry_after_ms
            if pause_ms is None:
                pause_ms = backoff_ms(state.slowed, self._limits, self._random)
            state.held_until_ms = max(state.held_until_ms, now_ms + pause_ms)
            state.held_reason = self._clean(slow.reason)
            self._throttled(now_ms)
            log.info("destination_throttled", destination=self._ledger.destination, retry_after_ms=pause_ms)
        elif slow is None and not is_held and any(one.how == "delivered" for one in verdicts):
            state.slowed = 0
        answered = any(one.how != "retry" or one.slow or one.alone for one in verdicts)
        before = state.breaker
        if answered:
            state.breaker = succeeded(before)
            if before.state != "closed":
                self._lanes.wake_all()
                log.info("circuit_closed", destination=self._ledger.destination)
        else:
            state.breaker = failed(before, first.entity, now_ms, self._limits, self._random)
            if state.breaker.state == "open" and before.state != "open":
                log.warning("circuit_open", destination=self._ledger.destination, until_ms=state.breaker.until_ms)

    def _settle_lane(
        self,
        lane: Lane,
        calls: tuple[Call, ...],
        verdicts: tuple[Verdict, ...],
        pauses: dict[int, int],
        now_ms: int,
    ) -> None:
        work = lane.work
        assert work is not None
        for call, verdict in zip(calls, verdicts, strict=True):
            if verdict.alone and not lane.alone:
                lane.alone = True
                break
            if verdict.how == "retry":
                self._retry(lane, call, verdict, pauses, now_ms)
                break
            self._settle_call(lane, call, verdict, now_ms)
        if work.done:
            self.finish(lane)
        else:
            self._lanes.enlist(lane)

    def _settle_call(self, lane: Lane, call: Call, verdict: Verdict, now_ms: int) -> None:
        work, state = lane.work, self._ledger.state
        assert work is not None
        debt = work.debts[work.at]
        assert debt.calls[len(debt.verdicts)].id == call.id
        debt.verdicts.append(verdict)
        if len(debt.verdicts) == len(debt.calls):
            self._planner.settle_debt(work.job.entity, debt)
            work.at += 1
        elif verdict.how == "delivered" and len(debt.verdicts) == 1:
            self._planner.begin_debt(work.job.entity, debt)
        lane.settled_ids |= {call.id}
        lane.alone = False
        queued = lane.jobs[0]
        attempts = lane.attempts + 1
        reason = self._clean(verdict.reason)
        if verdict.how == "delivered":
            state.delivered += 1
            state.last_delivered_ms = now_ms
            self._delivered.append(call.id)
            if self._observer is not None and self._destination is not None:
                self._observer(self._destination, call, now_ms)
        else:
            state.last_error, state.last_error_ms = reason, now_ms
            letter = DeadLetter(call, reason, verdict.status, attempts, queued.queued_ms, now_ms)
            self._ledger.bury(letter)
            self._facts.append(DeadLettered(destination=self._ledger.destination, delivery=_buried(letter)))
            log.warning("delivery_dead", destination=self._ledger.destination, delivery=call.id, status=verdict.status)
        how: OneOf["delivered", "dead"] = "delivered" if verdict.how == "delivered" else "dead"
        self._ledger.record(Record(call, how, verdict.status, attempts, queued.queued_ms, now_ms, reason))
        if lane.attempts:
            self._lanes.recovered(lane)
            if queued.parked:
                self._ledger.park(Parked(queued.job, queued.queued_ms, done=tuple(sorted(lane.settled_ids))))

    def _retry(self, lane: Lane, call: Call, verdict: Verdict, pauses: dict[int, int], now_ms: int) -> None:
        """Set a lane aside until its next attempt, or give up what has been tried for long enough."""
        state, queued = self._ledger.state, lane.jobs[0]
        reason = self._clean(verdict.reason)
        state.last_error, state.last_error_ms = reason, now_ms
        state.retried += 1
        attempts = lane.attempts + 1
        if verdict.slow:
            next_ms = state.held_until_ms
        else:
            pause_ms = pauses.get(attempts)
            if pause_ms is None:
                pause_ms = pauses[attempts] = backoff_ms(attempts, self._limits, self._random)
            next_ms = now_ms + pause_ms
            if gives_up(queued.queued_ms, next_ms, self._limits):
                self._give_up(lane, call, verdict, now_ms)
                return
        self._lanes.failed(lane, next_ms, reason)
        for one in self._lanes.park(lane):
            self._ledger.park(Parked(one.job, one.queued_ms))
        self._ledger.park(
            Parked(queued.job, queued.queued_ms, attempts, next_ms, reason, tuple(sorted(lane.settled_ids)))
        )

    def _give_up(self, lane: Lane, call: Call, verdict: Verdict, now_ms: int) -> None:
        """All that a job still owes goes: it would only wait as long again."""
        work = lane.work
        assert work is not None
        reason = f"given up after {lane.attempts + 1} attempts: {verdict.reason}"
        final = replace(verdict, how="dead", reason=reason)
        while not work.done:
            debt = work.debts[work.at]
            self._settle_call(lane, debt.calls[len(debt.verdicts)], final, now_ms)

    def finish(self, lane: Lane) -> None:
        """Take a job off its lane that owes nothing any more."""
        work = lane.work
        assert work is not None
        self._planner.finish(work)
        queued = self._lanes.finish(lane)
        if queued.parked:
            self._ledger.unpark(queued.job)
        self._finished(queued.job)
        if lane.jobs:
            self._lanes.enlist(lane)

    def _clean(self, text: str) -> str:
        return scrubbed(text, (*self._secrets, *self._held)) if text else text

    # -- dead letters ------------------------------------------------------------------------------------------------

    def resend(self, call_ids: list[str], now_ms: int) -> int:
        """Queue dead letters again, with the message ids they had; return how many there were."""
        count = 0
        for call_id in call_ids:
            letter = self._ledger.letter(call_id)
            if letter is None or not self._ledger.unbury(call_id):
                continue
            count += 1
            job = Job("resend", letter.call.seq, letter.call.entity, call=letter.call)
            parked = Parked(job, now_ms)
            self._lanes.add(job, now_ms, parked=parked)
            self._ledger.park(parked)
            self._settled(call_id, "resent")
        return count

    def drop(self, call_ids: list[str]) -> int:
        """Delete dead letters; return how many there were."""
        dropped = [call_id for call_id in call_ids if self._ledger.unbury(call_id)]
        for call_id in dropped:
            self._settled(call_id, "dropped")
        return len(dropped)

    def _settled(self, call_id: str, how: OneOf["resent", "dropped"]) -> None:
        self._facts.append(DeadLetterSettled(destination=self._ledger.destination, delivery_id=call_id, how=how))


def _buried(letter: DeadLetter) -> dict[str, Any]:
    """Return what the log keeps of a dead letter: nothing personal, that is in its row, which can be erased."""
    call = letter.call
    return {
        "id": call.id,
        "connection": call.connection,
        "entity": call.entity,
        "key": call.key,
        "kind": call.kind,
        "status": letter.status,
        "attempts": letter.attempts,
    }
