"""Batches: calls taken off the lanes that may go together, and the conversation that carries them."""

from functools import partial
from itertools import takewhile
from traceback import format_exception
from typing import Final

import structlog
from msgspec import Struct

from actors.delivery import Adapter, Answer, Call, Context, Destination, Done, Transport, Verdict
from actors.delivery_failures import Exchange
from actors.delivery_jobs import Planner
from actors.delivery_lanes import Lane, Lanes
from actors.delivery_outcomes import Outcomes, Picked

SCAN_FACTOR: Final = 4  # lanes looked at to fill a batch, at most so many batches' worth

log = structlog.get_logger()


class Batch(Struct):
    """Calls that go in one conversation, and the lanes they are of."""

    picked: Picked
    calls: tuple[Call, ...]
    context: Context
    destination: Destination


class Settled(Struct):
    """A conversation that ended."""

    batch: Batch
    done: Done
    asks: int
    last: Exchange | None = None


class Batches:
    """Makes a destination's batches, and carries them out."""

    def __init__(
        self, *, adapter: Adapter, lanes: Lanes, planner: Planner, outcomes: Outcomes, transport: Transport
    ) -> None:
        self._adapter = adapter
        self._lanes = lanes
        self._planner = planner
        self._outcomes = outcomes
        self._transport = transport

    def pick(self, most: int, *, affordable: bool) -> tuple[Picked, bool]:
        """Take calls off the lanes that may start, all of one group; finish jobs on the way that owe nothing."""
        picked: Picked = []
        passed: list[Lane] = []
        count, group, moved = 0, None, False
        of: str | None = None  # where a batch is of one group: the connection it began with
        while count < most and len(passed) < SCAN_FACTOR * most:
            lane = self._lanes.pop(of)
            if lane is None:
                break
            if lane.work is None:
                lane.work = self._planner.work(lane.jobs[0].job, lane.settled_ids, change_seq=lane.change_seq)
            if lane.work.done:
                self._outcomes.finish(lane)
                moved = True
                continue
            if not affordable:
                passed.append(lane)
                break
            if lane.alone and picked:
                passed.append(lane)
                continue
            calls = lane.work.calls(most - count if self._adapter.together and not lane.alone else 1)
            theirs = self._adapter.group_by(calls[0]) if self._adapter.group_by else ""
            if self._adapter.group_by:
                calls = list(takewhile(partial(self._is_of, theirs), calls))
            if group is not None and theirs != group:
                passed.append(lane)
                continue
            group = theirs
            of = lane.turn_of if self._adapter.group_by else None
            lane.in_flight = len(calls)
            count += len(calls)
            picked.append((lane, tuple(calls)))
            if lane.alone:
                break
        for lane in reversed(passed):
            self._lanes.unpop(lane)
        return picked, moved

    def _is_of(self, group: str, call: Call) -> bool:
        return self._adapter.group_by is None or self._adapter.group_by(call) == group

    async def converse(self, batch: Batch) -> Settled:
        """Hold a conversation: perform each ask, until its verdicts are in."""
        talk = self._adapter.deliver(batch.context, batch.calls)
        asks = 0
        last: Exchange | None = None
        try:
            ask = next(talk)
            while True:
                asks += 1
                answer: Answer = await self._transport(batch.destination, ask, batch.calls)
                last = Exchange(ask, answer)
                ask = talk.send(answer)
        except StopIteration as end:
            done: Done = end.value
            if len(done.verdicts) != len(batch.calls):
                return self._broken(batch, asks, f"{len(done.verdicts)} verdicts on {len(batch.calls)} calls")
            return Settled(batch, done, asks, last)
        except Exception as error:  # noqa: BLE001 - whatever an adapter does wrong is these calls' trouble alone
            where = "".join(format_exception(error))  # without locals: they hold settings
            log.error("adapter_failed", destination=batch.destination.id, type=self._adapter.type, error=where)
            return self._broken(batch, asks, repr(error))

    def _broken(self, batch: Batch, asks: int, what: str) -> Settled:
        verdict = Verdict(how="dead", reason=f"the {self._adapter.type} adapter failed: {what}", unsure=True)
        return Settled(batch, Done((verdict,) * len(batch.calls)), asks)
