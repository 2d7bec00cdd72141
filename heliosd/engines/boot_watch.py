"""Ends vLLM's wait for a process that has ended, while an engine starts.

vLLM looks at its processes only in the first of two waits: in the second, for the engine's last word, it would hear
nothing of a death for ten minutes. Found by killing engines at random moments of their starts.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from heliosd.engines.sentinels import Sentinels
from heliosd.engines.zygote import ForkContext, ForkedProcess


class BootWatch:
    """Made on the event loop before the start, and closed there once vLLM's thread is done."""

    def __init__(self, context: ForkContext, interrupt: Callable[[], Callable[[], None]]) -> None:
        """`interrupt` has vLLM's thread fail; what it returns is called at the close."""
        loop = asyncio.get_running_loop()
        self._interrupt = interrupt
        self._sentinels = Sentinels(self._ended)
        self._closed = False
        self._afterwards: Callable[[], None] | None = None
        context.begun = lambda process: loop.call_soon_threadsafe(self._follow, process)

    def _follow(self, process: ForkedProcess) -> None:
        if not self._closed:
            with suppress(ValueError):  # vLLM knows
                self._sentinels.watch(process)

    def _ended(self) -> None:
        if self._afterwards is None:
            self._afterwards = self._interrupt()

    def close(self) -> None:
        """Harmless when repeated."""
        self._closed = True
        self._sentinels.close()
        if self._afterwards is not None:
            self._afterwards()
            self._afterwards = None
