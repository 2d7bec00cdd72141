"""Cuts off a client that stops reading its answer: it would hold its lease, and what the engine keeps, for ever."""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger("heliosd.api")

STALLED_S = 120.0
"""One write that waits so long has no reader. Longer than any pause of a laptop's Wi-Fi; a reader who takes even a few
hundred bytes a second lets a write go on sooner."""


class StallWatch:
    """Watches the writes of one answer, and calls `cut` when one of them waits for too long.

    One timer for the whole answer, set anew when it fires: a write that does not wait costs two assignments.
    """

    def __init__(self, cut: Callable[[], None], limit_s: float = STALLED_S) -> None:
        self._cut = cut
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer = self._loop.call_later(limit_s, self._look)

    def __enter__(self) -> None:
        """A write begins."""
        self._since = self._loop.time()

    def __exit__(self, *error: object) -> None:
        self._since = None

    def close(self) -> None:
        """The answer is over."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        due = self._limit_s + (now if self._since is None else self._since)
        if now >= due:
            log.warning("client cut off", extra={"reason": f"it took nothing for {self._limit_s:.0f} s"})
            self._cut()
        else:
            self._timer = self._loop.call_at(due, self._look)
