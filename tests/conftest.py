"""What every test shares: the event loop, and where random choices come from.

The examples of property tests are the same in every run, so that a failure is the change's. `make test-all` draws them
from a seed that it prints (profile `draw`).
"""

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("draw", deadline=None, print_blob=True, max_examples=500)
settings.load_profile("fixed")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Run every async test on asyncio with uvloop, as the daemon does."""
    return ("asyncio", {"use_uvloop": True})
