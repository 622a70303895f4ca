"""The destination types, one file each: their settings, their limits, and how they talk."""

from collections.abc import Mapping
from typing import Final

from actors.delivery import Adapter
from adapters.destinations.segment import SEGMENT
from adapters.destinations.webhook import WEBHOOK

DESTINATIONS: Final[Mapping[str, Adapter]] = {one.type: one for one in (WEBHOOK, SEGMENT)}
