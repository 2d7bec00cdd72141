"""Tells the event loop when a process of an engine ends. Of several the first counts; then none is watched any more."""

import asyncio
import os
from collections.abc import Callable

from heliosd.engines.zygote import ForkedProcess


class Sentinels:
    """Lives on the event loop, which calls `ended`."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._watched: list[int] = []

    def __bool__(self) -> bool:
        """Whether anybody is watched."""
        return bool(self._watched)

    def watch(self, process: ForkedProcess) -> None:
        """Raises ValueError when vLLM has noticed its end already."""
        sentinel = os.dup(process.sentinel)  # vLLM closes its own when it notices first
        self._watched.append(sentinel)
        asyncio.get_running_loop().add_reader(sentinel, self._one_ended)

    def _one_ended(self) -> None:
        self.close()
        self._ended()

    def close(self) -> None:
        """Watch nobody. Harmless when repeated."""
        for sentinel in self._watched:
            asyncio.get_running_loop().remove_reader(sentinel)
            os.close(sentinel)
        self._watched.clear()
