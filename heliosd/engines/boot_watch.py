"""Ends vLLM's wait for a process that has ended, while an engine starts.

vLLM looks at its processes only in the first of two waits: in the second, for the engine's last word, it would hear
nothing of a death for ten minutes. Found by killing engines at random moments of their starts.
"""

import asyncio
import os
from collections.abc import Callable

from heliosd.engines.zygote import ForkContext, ForkedProcess


class BootWatch:
    """Made on the event loop before the start, and closed there once vLLM's thread is done."""

    def __init__(self, context: ForkContext, interrupt: Callable[[], Callable[[], None]]) -> None:
        """`interrupt` has vLLM's thread fail; what it returns is called at the close."""
        self._loop = asyncio.get_running_loop()
        self._interrupt = interrupt
        self._sentinels: list[int] = []
        self._closed = False
        self._afterwards: Callable[[], None] | None = None
        context.begun = lambda process: self._loop.call_soon_threadsafe(self._follow, process)

    def _follow(self, process: ForkedProcess) -> None:
        if self._closed:
            return
        try:
            sentinel = os.dup(process.sentinel)  # vLLM closes its own when it notices first
        except ValueError:
            return  # it has
        self._sentinels.append(sentinel)
        self._loop.add_reader(sentinel, self._ended)

    def _ended(self) -> None:
        self._unwatch()
        if self._afterwards is None:
            self._afterwards = self._interrupt()

    def _unwatch(self) -> None:
        for sentinel in self._sentinels:
            self._loop.remove_reader(sentinel)
            os.close(sentinel)
        self._sentinels.clear()

    def close(self) -> None:
        """Harmless when repeated."""
        self._closed = True
        self._unwatch()
        if self._afterwards is not None:
            self._afterwards()
            self._afterwards = None
