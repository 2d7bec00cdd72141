"""When a KV cache fills under load: what requests hold, how often they ask for more than there is, what still fits.

Requests come at random (Poisson) and hold their prompt and what they have written so far until they are done. Without a
limit the tokens held are then a sum over the requests under way, whose mean and variance follow from the moments of the
lengths (Campbell's theorem; the mean is Little's law): with prompts P, outputs O and a speed of v tokens per second,

    mean = rate / v · E[P·O + O²/2]        variance = rate / v · E[P²·O + P·O² + O³/3]

What exceeds the capacity is what the engine preempts. The distribution is taken as a gamma one of that mean and
variance, its tail by Wilson and Hilferty's cube root.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

NORMAL = NormalDist()
P95 = NORMAL.inv_cdf(0.95)
POINTS = 64
"""Into which a distribution of lengths is cut where moments do not suffice."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Numbers of tokens: E[X], E[X²], E[X³] and equally likely values. Made by `lengths_by` or `lengths_of`."""

    mean: float
    second: float
    third: float
    points: tuple[float, ...]


def lengths_by(mean: float, p95: float | None = None) -> Lengths:
    """Log-normal with this mean and 95th percentile; constant when the percentile is not above the mean.

    Raises ValueError for a mean that is not positive. A percentile that no log-normal has (above 3.87 times the mean)
    gives the widest that comes nearest to it.
    """
    if not mean > 0:
        raise ValueError("cannot describe lengths whose mean is not positive")
    ratio = math.log(p95 / mean) if p95 is not None and p95 > mean else 0.0
    spread = P95 - math.sqrt(max(0.0, P95 * P95 - 2 * ratio))
    middle = math.log(mean) - spread * spread / 2
    moments = [math.exp(k * middle + k * k * spread * spread / 2) for k in (2, 3)]
    shares = [(index + 0.5) / POINTS for index in range(POINTS)] if spread else [0.5]
    points = [math.exp(middle + spread * NORMAL.inv_cdf(share)) for share in shares]
    scale = mean * len(points) / sum(points)
    return Lengths(mean, moments[0], moments[1], tuple(point * scale for point in points))


def lengths_of(values: Sequence[float]) -> Lengths:
    """As observed. Raises ValueError when there are none, or none is positive."""
    if not values or min(values) < 0 or not any(values):
        raise ValueError("cannot describe lengths without a positive value")
    count = len(values)
    mean, second, third = (sum(value**k for value in values) / count for k in (1, 2, 3))
    ordered = sorted(values)
    few = ordered if count <= POINTS else [ordered[(2 * i + 1) * count // (2 * POINTS)] for i in range(POINTS)]
    return Lengths(mean, second, third, tuple(float(value) for value in few))


@dataclass(frozen=True, slots=True)
class Load:
    rate: float
    """Requests a second."""
    prompt: Lengths
    output: Lengths
    speed: float
    """Tokens a second that each sequence writes, at the concurrency in question."""
    block_tokens: int = 1
    """Of a block: a sequence holds half a block more than it fills."""
    most_sequences: int | None = None
    """That run at once; the others wait without holding anything."""

    @property
    def served_rate(self) -> float:
        """Of `rate`, what the limit of sequences lets through."""
        limit = math.inf if self.most_sequences is None else self.most_sequences / self.service_seconds
        return min(self.rate, limit)

    @property
    def service_seconds(self) -> float:
        """Mean time that a request is under way."""
        return self.output.mean / self.speed


@dataclass(frozen=True, slots=True)
class Overflow:
    sequences: float
    """Under way, in the mean: Little's law."""
    tokens: float
    """Held, in the mean, were there no limit."""
    deviation: float
    """Its standard deviation."""
    full_share: float
    """Of the time in which more would be held than there is: how often the engine preempts, 0 to 1."""
    seconds_until_full: float
    """From an empty cache, in the mean; infinite when it never fills but by chance."""
    fitting_rate: float
    """The requests a second that would still fit, `full_share` being at most the tolerance."""
    queue_grows: bool
    """Whether more requests come than the limit of sequences lets through."""


def overflow(load: Load, capacity_tokens: int, tolerance: float = 0.01) -> Overflow:
    """What becomes of a cache of `capacity_tokens` under `load`. `tolerance` is a share of time.

    Raises ValueError when rate or speed are not positive, or the tolerance is not between 0 and 1.
    """
    if not (load.rate > 0 and load.speed > 0 and 0 < tolerance < 1):
        raise ValueError("cannot predict overflow without a positive rate, speed and tolerance below 1")
    rate = load.served_rate
    mean, variance = _held(load)
    return Overflow(
        sequences=rate * load.service_seconds,
        tokens=rate * mean,
        deviation=math.sqrt(rate * variance),
        full_share=_tail(capacity_tokens, rate * mean, rate * variance),
        seconds_until_full=_filling_seconds(load, capacity_tokens),
        fitting_rate=_fitting_rate(capacity_tokens, mean, variance, tolerance),
        queue_grows=load.rate > rate,
    )


def _held(load: Load) -> tuple[float, float]:
    """(mean, variance) of the tokens held, for a rate of one request a second."""
    prompt, output = load.prompt, load.output
    spare = (load.block_tokens - 1) / 2
    first = prompt.mean + spare
    second = prompt.second + 2 * spare * prompt.mean + spare * spare
    mean = (first * output.mean + output.second / 2) / load.speed
    variance = (second * output.mean + first * output.second + output.third / 3) / load.speed
    return mean, variance


def _tail(capacity: float, mean: float, variance: float) -> float:
    """The probability that a gamma variable of this mean and variance exceeds `capacity`."""
    if capacity <= 0:
        return 1.0
    ninth = variance / (9 * mean * mean)
    place = ((capacity / mean) ** (1 / 3) - (1 - ninth)) / math.sqrt(ninth)
    return 0.5 * math.erfc(place / math.sqrt(2))


def _fitting_rate(capacity: int, mean: float, variance: float, tolerance: float) -> float:
    low, high = 0.0, max(0.0, capacity / mean) * 2
    for _ in range(60):
        middle = (low + high) / 2
        if middle > 0 and _tail(capacity, middle * mean, middle * variance) <= tolerance:
            low = middle
        else:
            high = middle
    return low


def _filling_seconds(load: Load, capacity: int) -> float:
    rate, spare = load.served_rate, (load.block_tokens - 1) / 2
    prompt = load.prompt.mean + spare
    times = [output / load.speed for output in load.output.points]

    def held(seconds: float) -> float:
        spans = [min(seconds, span) for span in times]
        return rate * sum(prompt * span + load.speed * span * span / 2 for span in spans) / len(spans)

    longest = max(times)
    if held(longest) <= capacity:
        return math.inf
    low, high = 0.0, longest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < capacity else (low, middle)
    return high
