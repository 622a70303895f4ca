"""Destinations of every open space, at work beside it: what a daemon does and a command that opens the data does not.

All spaces share one transport, hence one bound on connections out, and one seal for the secrets in settings.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import anyio

from actors.destinations_state import Destinations
from actors.space_api import SpaceApi
from actors.supervisor import Deliveries
from adapters.destinations import DESTINATIONS, transports
from adapters.destinations.sealing import FernetSeal, load_seal
from adapters.net import check_addresses
from eventlog.errors import NotFoundError


class Delivering:
    """The deliveries of a daemon's spaces."""

    def __init__(self, data_dir: Path, *, allow_private: bool) -> None:
        """Deliver for the spaces of a data directory.

        Args:
            data_dir: where the key of destinations' secrets lies.
            allow_private: whether private and loopback addresses may be called.
        """
        self._data_dir = data_dir
        self._allow_private = allow_private
        self._transport = transports(data_dir, allow_private=allow_private)
        self._random = Random()  # noqa: S311 - spreads retries; nothing secret comes from it
        self._seal: FernetSeal | None = None
        self._by_space: dict[str, Deliveries] = {}

    def of(self, space_id: str) -> Deliveries:
        """Return a space's deliveries. Raises NotFoundError."""
        found = self._by_space.get(space_id)
        if found is None:
            raise NotFoundError("not_found", f"there is no open space {space_id!r}", field="spaceId")
        return found

    @asynccontextmanager
    async def beside(self, space: SpaceApi) -> AsyncIterator[None]:
        """Deliver what a space's destinations are owed, and keep the space up, while the block lasts."""
        if self._seal is None:
            self._seal = load_seal(self._data_dir)
        check = partial(check_addresses, allow_private=self._allow_private)
        destinations = Destinations(space, DESTINATIONS, self._seal, self._random, check=check)
        await destinations.open()
        deliveries = Deliveries(space, destinations, transport=self._transport, random=self._random)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliveries.run, name=f"deliveries {space.id}")
            tasks.start_soon(space.upkeep, name=f"upkeep {space.id}")
            self._by_space[space.id] = deliveries
            try:
                yield
            finally:
                self._by_space.pop(space.id, None)
                tasks.cancel_scope.cancel()

    def open(self) -> dict[str, Deliveries]:
        """Return the deliveries of every open space."""
        return dict(self._by_space)

    def wake(self) -> None:
        """Tell all destinations that a simulated clock was moved."""
        for deliveries in self._by_space.values():
            deliveries.wake()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()
