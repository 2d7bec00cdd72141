"""How fast something grows from day to day, told from its days alone: robust against a few that are absurd.

The seasonal Kendall slope (Hirsch, Slack and Smith, "Techniques of trend analysis for monthly water quality data",
Water Resources Research 18, 1982): the median over all pairs of days of the same weekday, so that a week's pattern is
no trend. Its interval goes by ranks of those slopes (Sen, "Estimates of the regression coefficient based on Kendall's
tau", JASA 63, 1968); days are taken to be independent, so it is rather too narrow than too wide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt

LEAST_DAYS = 14
"""Fewer have no two of each weekday."""
Z_90 = 1.645


@dataclass(frozen=True, slots=True)
class Trend:
    """Per day; the true slope lies between `low` and `high` nine times in ten."""

    slope: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether it surely grows, or surely shrinks."""
        return self.low > 0 or self.high < 0


NONE = Trend(0.0, 0.0, 0.0)


def trend(days: Mapping[int, float]) -> Trend | None:
    """`days`: values by the number of the day. None: there are too few."""
    if len(days) < LEAST_DAYS:
        return None
    slopes = []
    variance = 0.0
    for weekday in range(7):
        here = sorted((day, value) for day, value in days.items() if day % 7 == weekday)
        n = len(here)
        variance += n * (n - 1) * (2 * n + 5) / 18
        for at, (later, value) in enumerate(here):
            slopes += [(value - before) / (later - earlier) for earlier, before in here[:at]]
    if not slopes:
        return None
    slopes.sort()
    count, reach = len(slopes), Z_90 * sqrt(variance)
    low = max(0, floor((count - reach) / 2) - 1)
    high = min(count - 1, ceil((count + reach) / 2))
    half = count // 2
    middle = slopes[half] if count % 2 else (slopes[half - 1] + slopes[half]) / 2
    return Trend(middle, slopes[low], slopes[high])
