"""Middle, spread and bounds of a few numbers, of which one may be absurd."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

_MAD_TO_SIGMA = 1.4826
"""The median absolute deviation of a normal distribution is its standard deviation divided by this."""
_REACH = 3.0
"""What lies further out, in such standard deviations, may be an outlier."""


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed. Needs one value at least."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle. Needs one value at least."""
    ranked = sorted(values)
    half = len(ranked) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2


def bounds(values: Sequence[float], floor: float, absurd: float = inf) -> tuple[float, float]:
    """(lowest, highest) believable value: three robust standard deviations about the median, each at least `floor`.

    Two values cannot say which of them is absurd, so the bounds hold both. Above, one value and one more in each full
    hundred may lie outside, however many look odd: what happens more often is true, and cutting it would promise too
    little. Only of those further than `absurd` and twelve deviations from the median one in five may. Below, it is one
    and one more in each five anyway: there a cut is only careful.
    """
    if len(values) < 3:
        return min(values), max(values)
    ranked = sorted(values)
    middle = median(ranked)
    deviation = max(floor, _MAD_TO_SIGMA * median([abs(value - middle) for value in ranked]))
    reach = _REACH * deviation
    few, rare = min(len(ranked) - 1, 1 + len(ranked) // 5), 1 + len(ranked) // 100
    far = middle + max(absurd, 12 * deviation)
    wild = min(len(ranked) // 5, sum(value > far for value in ranked))
    high = ranked[-1 - max(rare, wild)]
    return min(middle - reach, ranked[few]), max(middle + reach, high)


def winsorized(values: Sequence[float], floor: float, absurd: float = inf) -> list[float]:
    """The values in their order, those outside the `bounds` moved onto them."""
    if not values:
        return []
    low, high = bounds(values, floor, absurd)
    return [min(max(value, low), high) for value in values]


@dataclass(frozen=True, slots=True)
class Moments:
    count: int
    mean: float
    squares: float
    """The sum of squares about the mean; of twice those above it where they weigh more: what is skewed upwards would
    otherwise look narrower than its upper end is."""
    top: float
    """The largest; of nothing, minus infinity."""


def moments(values: Sequence[float]) -> Moments:
    if not values:
        return Moments(0, 0.0, 0.0, -inf)
    mean = sum(values) / len(values)
    above = sum((value - mean) ** 2 for value in values if value > mean)
    below = sum((value - mean) ** 2 for value in values if value < mean)
    return Moments(len(values), mean, above + max(above, below), max(values))


def student_99(freedom: int) -> float:
    """What Student's t exceeds once in a hundred times, from 4 degrees of freedom on: within 0.5 %.

    The expansion of Cornish and Fisher about the normal quantile.
    """
    z, v = 2.3263479, float(freedom)
    z2 = z * z
    first = z * (z2 + 1) / 4
    second = z * ((5 * z2 + 16) * z2 + 3) / 96
    third = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384
    fourth = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160
    return z + first / v + second / v**2 + third / v**3 + fourth / v**4
