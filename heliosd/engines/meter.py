"""What one request makes an engine do, by the engine's own count.

An engine that works on a request adds where it counts; the counts are read when somebody wants to know, so the token
path has nothing to do for it.
"""

from collections.abc import Callable
from contextvars import ContextVar

from heliosd.core.metering import Tokens

Count = Callable[[], tuple[Tokens, bool]]
"""Tokens so far, and whether more may come."""


class Meter:
    """Of one request; it may be several sequences of its engine, one after the other or at once."""

    def __init__(self) -> None:
        self._counts: list[Count] = []
        self._done = Tokens()

    def add(self, count: Count) -> None:
        """Another sequence begins."""
        self._counts.append(count)

    def read(self) -> Tokens:
        """Tokens so far."""
        total, going = self._done, []
        for count in self._counts:
            tokens, more = count()
            total = total.plus(tokens)
            if more:
                going.append(count)
            else:
                self._done = self._done.plus(tokens)
        self._counts = going
        return total

    @property
    def over(self) -> bool:
        """As of the last `read` the engine works on nothing of it."""
        return not self._counts


METER: ContextVar[Meter | None] = ContextVar("helios_meter", default=None)
"""Of the request that the current task works on."""
