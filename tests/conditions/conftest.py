"""States are pruned at every other record here, so that small examples meet what is dropped."""

from collections.abc import Iterator

import pytest

from actors.conditions import funnels, queries


@pytest.fixture(autouse=True, scope="module")
def prune_often() -> Iterator[None]:
    """Look for old records at every other one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "PRUNE_EVERY", 2)
        patch.setattr(funnels, "PRUNE_AT", 2)
        yield
