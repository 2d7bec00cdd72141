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
_MINUTES = [min(1.0, 120 / (_EDGES[number + 1] - _EDGES[number])) for number in range(BINS)]
_NONE = array("d", bytes(8 * (BINS + 1)))


def bin_of(gap_s: float) -> int:
    """The bin of a gap of at least `SHORTEST_S`."""
    return int(PER_OCTAVE * math.log2(min(gap_s, _LONGEST_S) / SHORTEST_S))


@dataclass
class Gaps:
    """One model's idle times."""

    weights: dict[int, float] = field(default_factory=dict)
    """By bin; the empty ones are left out."""
    unit: float = 1.0
    """What the next gap weighs. It grows instead of all others fading."""
    burst: float = 0.0
    """Share of gaps that were shorter than `SHORTEST_S`, the last ones counting most."""

    def __post_init__(self) -> None:
        self._sum_up()

    def passed(self, gap_s: float) -> None:
        """A request came `gap_s` after the one before."""
        if gap_s < SHORTEST_S:
            self.burst += (1 - BURST_FADE) * (1 - self.burst)
            return
        self.burst *= BURST_FADE
        self.unit /= FADE
        if self.unit > _LARGEST:
            self._rescale()
        number = bin_of(gap_s)
        self.weights[number] = self.weights.get(number, 0.0) + self.unit
        self._sum_up()

    def _sum_up(self) -> None:
        """What follows from the weights: by bin the weight of it and of all longer ones, and the peaks."""
        self._longer = _NONE
        self.peaks: list[tuple[float, float]] = []
        """From and to which idle time a request is likely, the shortest first."""
        if not self.weights:
            return
        self._longer = array("d", bytes(8 * (BINS + 1)))
        beyond, before = 0.0, BINS
        for number in sorted(self.weights, reverse=True):
            self._longer[number + 1 : before + 1] = array("d", [beyond]) * (before - number)
            weight, before = self.weights[number], number
            beyond += weight
            if weight * _MINUTES[number] >= PEAK * (beyond + TRUST * self.unit):
                joins = self.peaks and self.peaks[-1][0] == _EDGES[number + 1]
                self.peaks.append((_EDGES[number], self.peaks.pop()[1] if joins else _EDGES[number + 1]))
        self._longer[: before + 1] = array("d", [beyond]) * (before + 1)
        self.peaks.reverse()

    def next_peak(self, age_s: float) -> tuple[float, float] | None:
        """The first peak that is not over at this age."""
        return next((peak for peak in self.peaks if peak[1] > age_s), None)

    def _rescale(self) -> None:
        self.weights = {number: weight / self.unit for number, weight in self.weights.items()}
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
        weights, longer = self.weights, self._longer
        started = weights.get(first, 0.0) / (_EDGES[first + 1] - _EDGES[first])
        beyond = started * (_EDGES[first + 1] - low) + longer[first + 1]
        if first == last:
            ended = started * (high - low)
        else:
            width_s = _EDGES[last + 1] - _EDGES[last]
            ended = max(0.0, beyond - longer[last]) + weights.get(last, 0.0) * (high - _EDGES[last]) / width_s
        trust = TRUST * self.unit
        pause = (ended + trust * otherwise) / (beyond + trust)
        return again + (1 - again) * pause

    def left_s(self, age_s: float) -> float | None:
        """Seconds until the next request, in the mean over the pauses that lasted longer than `age_s`; None: none."""
        first = bin_of(max(age_s, SHORTEST_S))
        later = {number: weight for number, weight in self.weights.items() if number >= first}
        total = sum(later.values())
        if total <= 0:
            return None
        mean_s = sum(weight * (_EDGES[number] + _EDGES[number + 1]) / 2 for number, weight in later.items()) / total
        return max(0.0, mean_s - age_s)
