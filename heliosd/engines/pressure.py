"""How hard an engine is pressed, told to whoever listens when it has changed enough to matter."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from heliosd.engines.engine import Pressure

INTERVAL_S = 0.25
"""Between one telling and the next; what changes meanwhile is told at its end."""
KV_STEP = 0.05
"""The KV cache's use is told when it has moved by so much since it was told last."""


class Timer(Protocol):
    def cancel(self) -> None: ...


def _later(span_s: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(span_s, call)


class Gauge:
    """The last pressure of one engine. Used on the event loop only.

    The first change is told at once, further ones at most every `INTERVAL_S`; the last one is never lost.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], Timer] = _later) -> None:
        self.now = Pressure(0, 0, 0.0, 0)
        self._later = later
        self._told = self.now
        self._tell: Callable[[Pressure], None] | None = None
        self._quiet: Timer | None = None

    def listen(self, tell: Callable[[Pressure], None]) -> None:
        """From now on, call `tell`."""
        self._tell = tell

    def note(self, pressure: Pressure) -> None:
        """The engine gave new numbers."""
        self.now = pressure
        if self._quiet is None:
            self._tell_if_changed()

    def close(self) -> None:
        """Tell nothing any more: the engine has ended."""
        self._tell = None
        if self._quiet is not None:
            self._quiet.cancel()

    def _tell_if_changed(self) -> None:
        self._quiet = None
        if self._tell is not None and _worth_telling(self._told, self.now):
            self._told = self.now
            self._quiet = self._later(INTERVAL_S, self._tell_if_changed)
            self._tell(self.now)


def _worth_telling(told: Pressure, now: Pressure) -> bool:
    counts = (told.running, told.waiting, told.preemptions) != (now.running, now.waiting, now.preemptions)
    return counts or abs(now.kv_used_ratio - told.kv_used_ratio) >= KV_STEP
