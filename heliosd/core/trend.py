"""Whether a row of readings rises, and how fast, whatever a few of them say.

The slope is the median of the slopes of all pairs (Theil 1950, Sen 1968), its interval Sen's at 99 %; whether there is
a trend at all says the rank test of Mann (1945) and Kendall, with the correction for ties. Both take any distribution
of errors, and up to 29 % of wild readings.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_Z_99 = 2.576
Z_TREND = 3.09
"""So many standard deviations of the rank test are a trend: one row in a thousand without any says so."""
_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Trend:
    """Of one row of readings, in bytes and bytes a second."""

    slope: float
    low: float
    high: float
    z: float
    """Of the rank test; above `Z_TREND`: it rises."""
    lasting: bool
    """Each third of the row rises at half the speed of the whole or faster, and the last at half that of the first: it
    is no step, and does not settle."""
    readings: int
    span_s: float

    @property
    def rises(self) -> bool:
        return self.z > Z_TREND and self.low > 0 and self.lasting


def trend(points: Sequence[tuple[float, float]]) -> Trend | None:
    """Of `(at, value)` in order of time; None for fewer than nine, or when no time passes."""
    n = len(points)
    if n < 9 or points[-1][0] <= points[0][0]:
        return None
    slopes = _slopes(points)
    score = sum((late > early) - (late < early) for i, (_, early) in enumerate(points) for _, late in points[i + 1 :])
    ties = Counter(value for _, value in points).values()
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    spread = math.sqrt(max(0.0, variance))
    z = (score - (score > 0) + (score < 0)) / spread if spread else 0.0
    slope = median(slopes)
    first = max(0, math.floor((len(slopes) - _Z_99 * spread) / 2))
    last = min(len(slopes) - 1, math.ceil((len(slopes) + _Z_99 * spread) / 2))
    third = n // 3
    parts = (points[:third], points[third : n - third], points[n - third :])
    early, middle, late = (median(_slopes(part)) for part in parts)
    lasting = min(early, middle, late) >= slope * _SHARE and late >= early * _SHARE
    return Trend(slope, slopes[first], slopes[last], z, lasting and slope > 0, n, points[-1][0] - points[0][0])


def _slopes(points: Sequence[tuple[float, float]]) -> list[float]:
    """Of all pairs, ascending."""
    return sorted(
        (late - early) / (then - at)
        for i, (at, early) in enumerate(points)
        for then, late in points[i + 1 :]
        if then > at
    )
