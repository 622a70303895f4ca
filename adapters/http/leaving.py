"""Reading requests end with their caller: who closes the connection needs no answer, and its scan of history stops.

A server tells an app that a client is gone only if the app asks. Handlers that fold a long log for somebody do not, so
it is asked here, beside them, and the handler is cancelled; so is whatever it waits for, and the process of a scan dies
with that. Only for requests that change nothing: what writes goes on to its end.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import anyio

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Receive, Send], Awaitable[None]]

READING: Final = ("GET", "HEAD")


async def while_wanted(app: App, receive: Receive, send: Send) -> None:
    """Run an app that answers a reading request until it is done, or its client is gone."""
    first = await receive()
    if first["type"] == "http.disconnect":  # gone already
        return
    if first.get("more_body"):  # a body that nobody expects, and that the app may want to refuse
        await app(_beginning_with(first, receive), send)
        return
    gone = anyio.Event()

    async def receive_rest() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    listening = anyio.CancelScope()

    async def send_on(message: Message) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        if is_last:
            listening.cancel()
        await send(message)
        if is_last:
            gone.set()  # a server says so too once an answer is complete, and apps that stream wait for it

    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            with listening:
                while (await receive())["type"] != "http.disconnect":
                    pass
                if not listening.cancel_called:  # else what was heard is that the answer is complete
                    gone.set()
                    tasks.cancel_scope.cancel()

        tasks.start_soon(listen)
        await app(_beginning_with(first, receive_rest), send_on)
        listening.cancel()


def _beginning_with(first: Message, rest: Receive) -> Receive:
    """Return what gives a message that was received already, then the rest."""
    waiting = [first]

    async def receive() -> Message:
        return waiting.pop() if waiting else await rest()

    return receive
