"""How a command's coroutine is run: on the event loop that the daemon runs on."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

import anyio


def waits(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Make a command of a coroutine function."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> int:
        return anyio.run(functools.partial(command, *args, **kwargs), backend_options={"use_uvloop": True})

    return run
