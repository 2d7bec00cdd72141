"""How fast everything together may be fetched."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from heliosd.core.units import MiB

TELLING_BYTES = 1 * MiB
BURST_S = 0.1
"""So much of what was not used a moment ago may be made up for."""


class Bandwidth:
    """A token bucket that all connections draw from."""

    def __init__(
        self,
        bytes_per_s: int = 0,
        *,
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`bytes_per_s` 0: without a limit; it may be changed at any time."""
        self.bytes_per_s = bytes_per_s
        self._now = now
        self._sleep = sleep
        self._paid_until = 0.0
        self.taken: Counter[str] = Counter()
        """Bytes so far, by what kind of source they came from."""
        self.measured: dict[str, float] = {}
        """Bytes a second of one file from each kind of source, of late."""

    @property
    def taken_bytes(self) -> int:
        """By all connections so far."""
        return self.taken.total()

    def note(self, source: str, n_bytes: int, took_s: float) -> None:
        """A transfer that is long enough to tell is over."""
        if n_bytes >= TELLING_BYTES and took_s > 0:
            rate = n_bytes / took_s
            self.measured[source] = (self.measured.get(source, rate) + rate) / 2

    async def take(self, n_bytes: int, source: str = "hub") -> None:
        """Return when so many bytes more may have come. A connection that is not read meanwhile slows its sender."""
        self.taken[source] += n_bytes
        if not self.bytes_per_s:
            return
        now = self._now() if self._now else asyncio.get_running_loop().time()
        self._paid_until = max(self._paid_until, now - BURST_S) + n_bytes / self.bytes_per_s
        if self._paid_until > now:
            await self._sleep(self._paid_until - now)
