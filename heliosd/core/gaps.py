"""How long a model usually stays unasked: the histogram of its idle times, and what it says of the next request.

After the hybrid histogram policy of Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020): the distribution of
idle times tells when to load ahead and how long to keep. There head and tail of it bound the time; here the peaks do,
so that a model with short and long pauses has two. Bins grow with the time, eight to an octave, from 16 s to twelve
days; older gaps fade. Gaps under 16 s belong to one burst: they are only counted against the longer ones, so that a
burst does not wipe out what is known of the pauses between bursts.
"""

import math
from array import array
from dataclasses import dataclass, field
from itertools import accumulate

SHORTEST_S = 16.0
PER_OCTAVE = 8
BINS = PER_OCTAVE * 16
FADE = 0.97
"""Of what is known, kept with each further gap: some thirty gaps are remembered."""
BURST_FADE = 0.9
TRUST = 2.0
"""Gaps that the forecast from rates alone is worth, beside those seen."""
PEAK = 0.2
"""Probability of a request within a minute, in the later half of a bin, that makes the bin part of a peak."""
_EDGES = [SHORTEST_S * 2 ** (number / PER_OCTAVE) for number in range(BINS + 1)]
_LONGEST_S = _EDGES[-1] * 0.999
_LARGEST = 1e30
_DOWN = range(BINS - 1, -1, -1)
_MINUTES = [min(1.0, 120 / (_EDGES[number + 1] - _EDGES[number])) for number in _DOWN]


def bin_of(gap_s: float) -> int:
    """The bin of a gap of at least `SHORTEST_S`."""
    return int(PER_OCTAVE * math.log2(min(gap_s, _LONGEST_S) / SHORTEST_S))


@dataclass(slots=True)
class Gaps:
    """One model's idle times."""

    weights: "array[float]" = field(default_factory=lambda: array("f", bytes(4 * BINS)))
    longer: "array[float]" = field(default_factory=lambda: array("f", bytes(4 * (BINS + 1))))
    """By bin: the weight of it and of all longer ones."""
    unit: float = 1.0
    """What the next gap weighs. It grows instead of all others fading."""
    burst: float = 0.0
    """Share of gaps that were shorter than `SHORTEST_S`, the last ones counting most."""
    peaks: list[tuple[float, float]] = field(default_factory=list)
    """From and to which idle time a request is likely, the shortest first."""

    def passed(self, gap_s: float) -> None:
        """A request came `gap_s` after the one before."""
        if gap_s < SHORTEST_S:
            self.burst += (1 - BURST_FADE) * (1 - self.burst)
            return
        self.burst *= BURST_FADE
        self.unit /= FADE
        if self.unit > _LARGEST:
            self._rescale()
        self.weights[bin_of(gap_s)] += self.unit
        self.sum_up()

    def sum_up(self) -> None:
        """To be called when `weights` were put there from outside."""
        sums = list(accumulate(reversed(self.weights), initial=0.0))
        self.longer = array("f", reversed(sums))
        doubt = TRUST * self.unit
        peaks: list[tuple[float, float]] = []
        # The longest first, as the sums go.
        for number, weight, minute, at_least in zip(_DOWN, reversed(self.weights), _MINUTES, sums[1:], strict=True):
            if weight and weight * minute >= PEAK * (at_least + doubt):
                until_s = peaks.pop()[1] if peaks and peaks[-1][0] == _EDGES[number + 1] else _EDGES[number + 1]
                peaks.append((_EDGES[number], until_s))
        self.peaks = peaks[::-1]

    def next_peak(self, age_s: float) -> tuple[float, float] | None:
        """The first peak that is not over at this age."""
        return next((peak for peak in self.peaks if peak[1] > age_s), None)

    def _rescale(self) -> None:
        self.weights = array("f", (weight / self.unit for weight in self.weights))
        self.unit = 1.0

    def chance(self, age_s: float, within_s: float, otherwise: float) -> float:
        """The probability that a model unasked for `age_s` is asked within `within_s`.

        (pauses that ended in that time + `TRUST` · otherwise) ÷ (pauses that lasted so long + `TRUST`), where
        `otherwise` is the probability as it is known without pauses.
        """
        again = self.burst if age_s < SHORTEST_S else 0.0
        low = min(max(age_s, SHORTEST_S), _LONGEST_S)
        high = min(max(age_s + within_s, low), _LONGEST_S)
        first, last = bin_of(low), bin_of(high)
        longer = self.longer
        started = self.weights[first] / (_EDGES[first + 1] - _EDGES[first])
        beyond = started * (_EDGES[first + 1] - low) + longer[first + 1]
        if first == last:
            ended = started * (high - low)
        else:
            width_s = _EDGES[last + 1] - _EDGES[last]
            ended = max(0.0, beyond - longer[last]) + self.weights[last] * (high - _EDGES[last]) / width_s
        trust = TRUST * self.unit
        pause = (ended + trust * otherwise) / (beyond + trust)
        return again + (1 - again) * pause

    def left_s(self, age_s: float) -> float | None:
        """Seconds until the next request, in the mean over the pauses that lasted longer than `age_s`; None: none."""
        first = bin_of(max(age_s, SHORTEST_S))
        weights = self.weights[first:]
        total = sum(weights)
        if total <= 0:
            return None
        middles = ((_EDGES[first + at] + _EDGES[first + at + 1]) / 2 for at in range(len(weights)))
        mean_s = sum(weight * middle for weight, middle in zip(weights, middles, strict=True)) / total
        return max(0.0, mean_s - age_s)
