"""What the command line asks of data, wherever that lies: `local.py` opens a directory, `remote.py` asks a daemon."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from msgspec import Struct

from actors.space_api import EntityType
from adapters.cli.options import Target


class PreviewAnswer(Struct, frozen=True):
    """Who a definition would give."""

    size: int
    names: tuple[str, ...]  # a sample, or all if all were asked for
    at_ms: int


class Member(Struct, frozen=True):
    """A member of an audience."""

    name: str
    since_ms: int


class Answers(Protocol):
    """Questions about one space; every one raises TurnoutError with a sentence for a person."""

    async def preview(
        self,
        query: str,
        entity_type: EntityType,
        *,
        trait: bool,
        at_ms: int | None,
        known_ms: int | None,
        everyone: bool,
    ) -> PreviewAnswer:
        """Evaluate a definition on history without creating it; `everyone` asks for all names, not a sample."""

    async def members(self, key: str, *, at_ms: int | None, known_ms: int | None) -> list[Member]:
        """Return the members of an audience."""

    async def explain(self, key: str, profile: str, *, at_ms: int | None, known_ms: int | None) -> dict[str, Any]:
        """Return why a profile (TYPE:VALUE, or a user_id alone) is or is not a member."""


@asynccontextmanager
async def asked(target: Target, what: str) -> AsyncIterator[Answers]:
    """Open what a command (`what`, for others who find the data held) is about."""
    if target.url is not None:
        from adapters.cli.remote import ask_daemon

        async with ask_daemon(target) as answers:
            yield answers
    else:
        from adapters.cli.local import LocalAnswers
        from adapters.cli.opened import opened

        async with opened(target, what) as found:
            yield LocalAnswers(found.space)
