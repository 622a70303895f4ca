"""`turnout demo`: a real daemon on real data, moved in time to end now, with its last invoices played as live traffic.

What is seen is what happens: the daemon listens on HTTP, most of the data is imported, the rest is posted to its
tracking API an invoice at a time, and a webhook destination posts what changes to a receiver that checks signatures.
Everything lies in a temporary directory, which is gone at the end.
"""

import base64
import os
import signal
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.live import Live

from actors.space_api import EntityType, SpaceApi
from adapters.cli.importing import Line
from adapters.cli.intake import LocalIntake
from adapters.config import Settings
from adapters.daemon import Daemon, running
from adapters.logs import configure_logs
from eventlog.entries import KIND_NAMES, Commit, Entered, Exited
from eventlog.errors import TurnoutError
from eventlog.instants import instant_ms
from scenarios.demo_receiver import SECRET_PREFIX, receiver
from scenarios.demo_view import AudienceRow, Call, Change, Shown, call_line, change_line
from scenarios.retail import dated, invoices, messages, moved

LIVE_INVOICES: Final = 120  # the last of 2,181; the other 2,061 are history
PLAY_S: Final = 240.0  # over which they are played, unless the demo is to end sooner
PLAYED_SHARE: Final = 0.8  # of a demo that ends by itself; the rest shows members leave as their windows close
IMPORT_LINES: Final = 5_000
SIZES_S: Final = 0.25
CAUSES_KEPT: Final = 5_000
SECRET_BYTES: Final = 24


class DemoAudience(Struct, frozen=True):
    """An audience of the demo."""

    name: str
    what: str
    query: str
    entity_type: EntityType = "USERS"
    is_sent: bool = False  # to the webhook


AUDIENCES: Final = (
    DemoAudience(
        "Just bought",
        "ordered in the last 20 seconds: leaves on time, with no event",
        "event('Order Completed').within(20 seconds).count() >= 1",
        is_sent=True,
    ),
    DemoAudience(
        "Big spenders",
        "orders of 1,000 GBP or more, ever",
        "event('Order Completed').sum(property('total')) >= 1000",
        is_sent=True,
    ),
    DemoAudience(
        "Regulars",
        "two orders or more in 14 days",
        "event('Order Completed').within(14 days).count() >= 2",
    ),
    DemoAudience(
        "Lapsing",
        "ordered 14 to 35 days ago, not since",
        "event('Order Completed').between(14 days, 35 days).count() >= 1 "
        "AND NOT event('Order Completed').within(14 days).count() >= 1",
    ),
    DemoAudience(
        "Bought and sent back",
        "a funnel: returned the very product within 7 days of buying it",
        "event('Product Purchased').where(event('Product Returned').where(property('product_id') = "
        "property(parent: 'product_id')).within(parent: 7 days).count() >= 1).within(30 days).count() >= 1",
    ),
    DemoAudience(
        "Dear tastes abroad",
        "outside the United Kingdom, bought something above 10 GBP",
        "trait('country') != 'United Kingdom' AND "
        "event('Product Purchased').where(property('price') > 10).count() >= 1",
    ),
    DemoAudience(
        "Markets awake",
        "accounts: countries where some customer ordered in the last hour",
        "ANY event('Order Completed').within(1 hours).count() >= 1",
        "ACCOUNTS",
    ),
)


class Demo:
    """The demo while it runs."""

    def __init__(self, daemon: Daemon, space: SpaceApi, shown: Shown, say: Callable[[str], None]) -> None:
        self.daemon = daemon
        self.space = space
        self.shown = shown
        self.say = say  # for a pipe: a line for each change
        self._causes: OrderedDict[int, tuple[int, str]] = OrderedDict()  # sequence -> profile, what happened
        self._keys: dict[int, str] = {}
        self._connected_ms = 0

    # -- before ------------------------------------------------------------------------------------------------------

    async def load(self, lines: list[bytes], source: str) -> str:
        """Import history and return in words how fast that went."""
        intake, started = LocalIntake(self.space, source), time.perf_counter()
        for start in range(0, len(lines), IMPORT_LINES):
            await intake.take([Line(start + n, text) for n, text in enumerate(lines[start : start + IMPORT_LINES], 1)])
        await self.space.settle()
        seconds = time.perf_counter() - started
        return f"{len(lines):,} events imported in {seconds:.1f} s ({len(lines) / seconds:,.0f} events/s)"

    async def define(self) -> None:
        """Create the audiences and wait until history is in them."""
        for one in AUDIENCES:
            await self.space.create_definition(
                kind="audience", name=one.name, entity_type=one.entity_type, query=one.query, actor="demo"
            )
        await self.space.backfilled()
        what = {one.name: one.what for one in AUDIENCES}
        for view in self.space.definitions("audience"):
            definition = view.definition
            self._keys[definition.number] = definition.name
            self.shown.audiences[definition.key] = AudienceRow(
                definition.name, what[definition.name], view.size, view.size
            )

    async def connect(self, url: str, secret: str, source: str) -> None:
        """Send what enters and leaves two of the audiences to the receiver."""
        destinations = self.daemon.deliveries(self.space.id).destinations
        webhook = await destinations.create_destination(
            type="webhook", name="Demo receiver", source_id=source, settings={"url": url, "secret": secret}
        )
        self._connected_ms = self.space.clock.now_ms()
        sent = {one.name for one in AUDIENCES if one.is_sent}
        for view in self.space.definitions("audience"):
            if view.definition.name in sent:
                await destinations.connect(view.definition.id, webhook.id, settings={"sendIdentify": False})

    # -- while it runs -----------------------------------------------------------------------------------------------

    async def play(self, live: list[list[bytes]], write_key: str, seconds: float) -> None:
        """Post the live invoices to the tracking API, evenly over so many seconds."""
        head = {"Authorization": aiohttp.encode_basic_auth(write_key, ""), "Content-Type": "application/json"}
        started = time.monotonic()
        async with aiohttp.ClientSession(headers=head) as client:
            for n, invoice in enumerate(live):
                await anyio.sleep(max(0.0, started + n * seconds / len(live) - time.monotonic()))
                body = b'{"batch":[%b]}' % b",".join(dated(invoice, self.space.clock.now_ms()))
                async with client.post(f"{self.daemon.url}/v1/batch", data=body) as answer:
                    if answer.status != 200:
                        raise TurnoutError(f"the daemon refused live traffic: {answer.status} {await answer.text()}")
                self.shown.events_played += len(invoice)

    async def follow(self, after_seq: int) -> None:
        """Show every change as it comes into the log."""
        async for commit in self.space.changes(after_seq):
            self._note_causes(commit)
            for fact in commit.facts:
                if isinstance(fact, Entered | Exited) and fact.definition in self._keys:
                    entered = isinstance(fact, Entered)
                    who, why = self.space.name_of(fact.entity), await self._why(fact.entity, fact.cause_seq)
                    change = Change(fact.at_ms, who, self._keys[fact.definition], entered=entered, why=why)
                    self.shown.changes.append(change)
                    self.say(change_line(change))

    def _note_causes(self, commit: Commit) -> None:
        for event in commit.events:
            self._causes[event.seq] = (event.profile, event.name or KIND_NAMES.get(event.kind, ""))
        while len(self._causes) > CAUSES_KEPT:
            self._causes.popitem(last=False)

    async def _why(self, entity: int, cause_seq: int) -> str:
        """Return in words what tipped a change: an event of the profile, or of a customer of the account, or time."""
        profile, name = self._causes.get(cause_seq, (0, ""))
        if profile == entity or (profile and entity in await self.space.accounts_of(profile)):
            return name
        return "its window closed, with no event"

    async def measure(self) -> None:
        """Keep the sizes on the picture up to date."""
        while True:
            for view in self.space.definitions("audience"):
                self.shown.audiences[view.definition.key].size = view.size
            await anyio.sleep(SIZES_S)

    def received(self, body: dict[str, Any], is_signed: bool) -> None:
        """Show what the destination received; those who were members when it was connected are only counted."""
        self.shown.calls_received += 1
        at_ms = instant_ms(body.get("timestamp", "")) or 0
        if at_ms <= self._connected_ms and is_signed:
            return
        who = body.get("userId") or body.get("anonymousId") or ""
        key = body.get("properties", {}).get("audience_key", "")
        call = Call(at_ms, body.get("event", body.get("type", "")), who, key, is_signed)
        self.shown.calls.append(call)
        self.say(call_line(call))


async def demo(console: Console, *, port: int, for_s: float | None, play_s: float | None = None) -> Shown:
    """Run the demo until it is interrupted, or for so many seconds, and return what its picture showed last.

    Args:
        console: where the picture goes; lines where it is no terminal.
        port: where the daemon listens, 0 takes a free port.
        for_s: how long the live part lasts, None: until it is interrupted.
        play_s: over how long the live traffic is spread, None: so that it fits.
    """
    configure_logs("console", "warning")
    shown = Shown("Turnout demo: six weeks of a real online shop, moved to end today")
    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder:
        settings = Settings(data=str(Path(folder) / "data"), port=port, allow_private_destinations=True)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with running(settings) as daemon, anyio.create_task_group() as tasks:
                tasks.start_soon(_until_interrupted, signals, tasks.cancel_scope)
                live = await _prepare(console, daemon, shown)
                with anyio.move_on_after(for_s):
                    await live(play_s or (PLAY_S if for_s is None else for_s * PLAYED_SHARE))
                tasks.cancel_scope.cancel()
    console.print("The demo is over; its data is gone. Your own: turnout serve, turnout import FILE.", soft_wrap=True)
    return shown


async def _until_interrupted(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
        return


async def _prepare(console: Console, daemon: Daemon, shown: Shown) -> Callable[[float], Awaitable[None]]:
    """Load history and define the audiences; return the live part, which is told how long its traffic should last."""
    first = daemon.first
    assert first is not None, "a new directory has a first start"
    space = daemon.space(first.space.id)
    demo_ = Demo(daemon, space, shown, partial(_say, console))
    all_invoices = invoices(messages())
    history = [line for invoice in all_invoices[:-LIVE_INVOICES] for line in invoice]
    live = all_invoices[-LIVE_INVOICES:]
    shown.events_to_play = sum(map(len, live))
    with console.status("importing six weeks of events ..."):
        speed = await demo_.load(list(moved(history, space.clock.now_ms() - _time_ms(history[-1]))), first.source.id)
    with console.status("computing audiences on history ..."):
        await demo_.define()
    shown.news = f"{speed}, {len(AUDIENCES)} audiences computed"
    shown.address = f"daemon {daemon.url}  admin token {first.admin_token}"
    shown.console = f"console {daemon.console_address(first.admin_token)}  (signs in once, from this machine)"

    async def run(play_s: float) -> None:
        after_seq = space.log.last_seq
        secret = SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()
        async with receiver(secret, demo_.received) as url, anyio.create_task_group() as tasks:
            await demo_.connect(url, secret, first.source.id)
            tasks.start_soon(demo_.follow, after_seq)
            tasks.start_soon(demo_.measure)
            tasks.start_soon(demo_.play, live, first.write_key, play_s)
            await _look(console, shown)

    return run


async def _look(console: Console, shown: Shown) -> None:
    """Show the picture, or the first lines, for ever."""
    if console.is_terminal:
        with Live(get_renderable=lambda: shown.picture(console.height), console=console, refresh_per_second=4):
            await anyio.sleep_forever()
    for line in (shown.title, shown.news, shown.address, shown.console):
        _say(console, line)
    for row in shown.audiences.values():
        _say(console, f"{row.name}: {row.size:,} ({row.what})")
    await anyio.sleep_forever()


def _say(console: Console, line: str) -> None:
    """Write a line where nobody sees the picture."""
    if not console.is_terminal:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _time_ms(line: bytes) -> int:
    at_ms = instant_ms(msgspec.json.decode(line)["timestamp"])
    assert at_ms is not None, line
    return at_ms
