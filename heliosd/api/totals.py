"""How many models the store has and how large they are, told also while its database does not answer."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heliosd.api.parts import TheStore

LONGEST_S = 0.5
"""Metrics are wanted most when something is stuck, and a scrape waits a second to ten."""


@dataclass(slots=True)
class Totals:
    """As last known."""

    models: int = 0
    logical_bytes: int = 0
    """Of all models' files as if nothing was shared."""
    physical_bytes: int = 0

    async def look(self, store: "TheStore") -> None:
        """Ask the store. Where it takes longer than `LONGEST_S`, what was known before stays."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_S):
                models, (logical_bytes, physical_bytes) = len(await store.models()), await store.sizes()
                self.models, self.logical_bytes, self.physical_bytes = models, logical_bytes, physical_bytes
