"""That something changed, for those who wait until it did."""

import asyncio


class Changes:
    """Counted, so that who was busy meanwhile misses none."""

    def __init__(self) -> None:
        self.version = 0
        self._next = asyncio.Event()

    def note(self) -> None:
        """Something changed."""
        self.version += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, since: int) -> int:
        """Wait until something changed after version `since` (start with -1); returns the version then."""
        while self.version == since:
            await self._next.wait()
        return self.version
