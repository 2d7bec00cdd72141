"""How many sequences a replica may work on, so that its KV cache does not run over.

The engine's own figures decide: what share of its KV cache is used, how many sequences run and wait in it, and how
many it had to put back. The limit is cut to four fifths of what runs when the cache is about to run over, and grows by
a tenth when there was room for a while and the limit was in the way. Between the two marks nothing changes, and after a
cut nothing grows for `CALM_S`: so it does not swing.
"""

from dataclasses import dataclass

from heliosd.core.messages import ReplicaPressed

HIGH_RATIO = 0.92
LOW_RATIO = 0.75
CUT = 0.8
GROW = 0.1
CALM_S = 5.0
FORESIGHT_S = 10.0
"""A cache that will be full so soon, at the speed it fills now, counts as about to run over."""


@dataclass
class Pressure:
    """Of one replica. `most` is what its engine was started for."""

    most: int
    limit: int
    at: float = 0.0
    used_ratio: float = 0.0
    slope_per_s: float = 0.0
    """Change of the used share; smoothed over some seconds."""
    running: int = 0
    waiting: int = 0
    preemptions: int = 0
    changed_at: float = float("-inf")
    limited_since: float | None = None
    """Since when the KV cache holds the limit down; None: it does not."""

    @property
    def overflow_s(self) -> float:
        """Seconds until the cache is full, at the speed it fills now; infinite when it does not."""
        if self.slope_per_s <= 0:
            return float("inf")
        return max(0.0, 1.0 - self.used_ratio) / self.slope_per_s

    def bound(self, most: int) -> None:
        """An operator wants at most so many."""
        self.most = most
        self.limit, self.limited_since = (most, None) if self.limited_since is None else (min(self.limit, most), None)

    def told(self, event: ReplicaPressed, leases: int) -> str | None:
        """Take in what the engine says. Returns why, when the limit changed."""
        passed_s = event.at - self.at
        if self.at and passed_s > 0:
            now = (event.kv_used_ratio - self.used_ratio) / passed_s
            weight = min(1.0, passed_s / 3.0)
            self.slope_per_s += (now - self.slope_per_s) * weight
        put_back = event.preemptions - self.preemptions
        self.at, self.used_ratio, self.preemptions = event.at, event.kv_used_ratio, event.preemptions
        self.running, self.waiting = event.running, event.waiting
        return self._judge(event.at, put_back, leases)

    def _judge(self, at: float, put_back: int, leases: int) -> str | None:
        soon = self.used_ratio >= LOW_RATIO and self.overflow_s <= FORESIGHT_S
        if (put_back > 0 or self.used_ratio >= HIGH_RATIO or soon) and at - self.changed_at >= 1.0:
            return self._cut(at, put_back)
        calm = at - self.changed_at >= CALM_S and self.used_ratio < LOW_RATIO
        if calm and self.limit < self.most and leases >= self.limit:
            self.limit = min(self.most, self.limit + max(1, int(self.limit * GROW)))
            self.changed_at = at
            if self.limit == self.most:
                self.limited_since = None
            return f"works on up to {self.limit} sequences again: {self.used_ratio:.0%} of its KV cache is used"
        if calm and leases < self.limit and self.used_ratio < LOW_RATIO / 2:
            self.limit, self.limited_since = self.most, None
        return None

    def _cut(self, at: float, put_back: int) -> str | None:
        busy = max(1, self.running)
        if busy == 1 and self.limit == 1:
            return None
        target = max(1, int(min(busy, self.limit) * CUT))
        if target >= self.limit:
            return None
        self.limit, self.changed_at = target, at
        if self.limited_since is None:
            self.limited_since = at
        why = f"{put_back} sequences were put back" if put_back else f"full in {self.overflow_s:.0f} s"
        return f"works on at most {self.limit} sequences: {self.used_ratio:.0%} of its KV cache is used, {why}"
