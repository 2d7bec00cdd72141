"""When a device or a volume will be full: from how fast it fills, and from what is expected to be asked for.

Sees ahead no further than `HORIZON_S`; what is later is not in sight.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from heliosd.core.trend import trend

WINDOW_S = 900.0
"""A trend is looked for in so much of the past."""
READINGS = 45
HORIZON_S = 7 * 86400.0
AHEAD_S = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0)
"""How far ahead the forecast is asked."""
_Z_90 = 1.645


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """When there will be nothing left. All infinite: not in sight."""

    after_s: float = math.inf
    low_s: float = math.inf
    """Not before, with 99 % certainty (trend) or 95 % (forecast)."""
    high_s: float = math.inf
    basis: str = ""
    """`full`, `trend` or `forecast`; empty: not in sight."""

    @property
    def in_sight(self) -> bool:
        return math.isfinite(self.after_s)


NOT_IN_SIGHT = Exhaustion()


@dataclass
class Filling:
    """How one device or volume fills: at most `READINGS` readings of the last `WINDOW_S`."""

    used: list[tuple[float, float]] = field(default_factory=list)

    def read(self, at: float, used_bytes: int) -> bool:
        """Take a reading in, where the last one kept is old enough; says whether it did."""
        if self.used and at - self.used[-1][0] < WINDOW_S / READINGS:
            return False
        self.used = [each for each in self.used if each[0] > at - WINDOW_S][-(READINGS - 1) :]
        self.used.append((at, float(used_bytes)))
        return True

    def exhaustion(self, left_bytes: int) -> Exhaustion:
        """When the `left_bytes` are gone, if it goes on as it did."""
        if left_bytes <= 0:
            return Exhaustion(0.0, 0.0, 0.0, "full")
        found = trend(self.used)
        if found is None or not found.rises:
            return NOT_IN_SIGHT
        after_s = left_bytes / found.slope
        if after_s > HORIZON_S:
            return NOT_IN_SIGHT
        return Exhaustion(after_s, left_bytes / max(found.high, found.slope), left_bytes / found.low, "trend")


def by_forecast(left_bytes: int, wants: Callable[[float], Iterable[tuple[float, int]]]) -> Exhaustion:
    """When what is asked for will not fit into `left_bytes`: `wants` gives, for each model that is not there and so
    many seconds, how likely it is asked for and its bytes.

    What is expected is the sum of probability times bytes; its interval takes the models as independent. Between the
    times that are asked for, it grows evenly.
    """
    before = (0.0, 0.0, 0.0, 0.0)
    crossed = [math.inf, math.inf, math.inf]
    for ahead_s in AHEAD_S:
        each = list(wants(ahead_s))
        mean = sum(chance * n_bytes for chance, n_bytes in each)
        spread = _Z_90 * math.sqrt(sum(chance * (1 - chance) * n_bytes**2 for chance, n_bytes in each))
        now = (ahead_s, mean, mean + spread, mean - spread)
        for number in range(3):
            early, late = before[number + 1], now[number + 1]
            if math.isinf(crossed[number]) and late > left_bytes:
                share = (left_bytes - early) / (late - early) if late > early else 0.0
                crossed[number] = before[0] + (ahead_s - before[0]) * min(1.0, max(0.0, share))
        before = now
    if math.isinf(crossed[0]):
        return NOT_IN_SIGHT
    return Exhaustion(crossed[0], min(crossed[0], crossed[1]), max(crossed[0], crossed[2]), "forecast")
