"""The wish that a replica end: it interrupts whatever its task waits for, without a second task."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Asked for once, by anybody; obeyed by one task."""

    def __init__(self) -> None:
        self.asked = False
        self._scope: asyncio.Timeout | None = None

    def ask(self) -> None:
        """Interrupt the task now, or at its next wait. Harmless when repeated."""
        if self.asked:
            return
        self.asked = True
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def unless(self, work: Awaitable[T]) -> T | None:
        """Await `work`; once the stop is asked for it is cancelled, and None returned."""
        try:
            async with asyncio.timeout(0 if self.asked else None) as self._scope:
                return await work
        except TimeoutError:
            if not self.asked:
                raise
            return None
        finally:
            self._scope = None
