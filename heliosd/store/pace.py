"""How fast something goes of late, and how long the rest will take. Pure."""

from collections import deque

WINDOW_S = 10.0
"""Long enough to be calm, short enough to tell of a line that became slow."""


class Pace:
    def __init__(self, began: float) -> None:
        """`began` and every `now`: seconds of one clock."""
        self._began = began
        self._done: deque[tuple[float, int]] = deque()
        self._window_bytes = 0

    def add(self, now: float, n_bytes: int) -> None:
        """So many more bytes are done; those of one moment count together."""
        if self._done and now - self._done[-1][0] < WINDOW_S / 100:
            at, before = self._done.pop()
            self._done.append((at, before + n_bytes))
        else:
            self._done.append((now, n_bytes))
        self._window_bytes += n_bytes
        while self._done[0][0] < now - WINDOW_S:
            self._window_bytes -= self._done.popleft()[1]

    def bytes_per_s(self, now: float) -> float | None:
        """None when nothing can be said yet."""
        span_s = now - max(self._began, now - WINDOW_S)
        return self._window_bytes / span_s if span_s > 0 and self._window_bytes > 0 else None
