"""A daemon for each test of the HTTP APIs."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.http.stand import Stand, standing


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """Return a daemon with its clients."""
    async with standing(tmp_path) as started:
        yield started
