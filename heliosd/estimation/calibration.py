"""Corrects the laws by what engines took on this node.

    calibration = Calibration(loads)                       # after each load, in a thread
    residuals = calibration.residuals(asked, law_terms(account))
    booked = apply(account.weights, residuals["weights"]).high_bytes

Where the very same revision was started with the same settings, what was measured then rules. Otherwise the residuals
(measured - law) of starts that are alike count: groups from the widest to the narrowest, each taken as what to expect
of the next, so that a group with few loads stays near the wider one, and the widest near the law. Where a ridge
regression proved better on revisions that it had not seen, it takes the groups' place.

**The rule of the upper end.** The law's upper end is taken for what it would exceed once in a hundred starts. A
normal-inverse-chi-squared belief begins with it (worth `_DOUBT` loads for the spread, one load for the mean), takes up
each group's Winsorized residuals, and its predictive distribution is Student's t: the upper end is the mean plus the
t quantile of 99 % times the predictive spread, and no less than the largest believable residual of the narrowest
group. A law that the loads contradict widens it by itself. Booking it takes too little, by more than 1 %, in at most
one of 100 loads as long as the law's upper end is honest, or the loads have shown that it is not;
`tests/estimation/test_calibration.py` plays thousands of loads against it. (Where laws err strongly skewed upwards and
no model ever comes twice it was three of 200: no few dozen loads show a tail that long.)
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, sqrt

from heliosd.core.units import MiB, format_bytes
from heliosd.estimation.account import Term
from heliosd.estimation.contest import Contest, contest
from heliosd.estimation.groups import Groups
from heliosd.estimation.loads import TERMS, Asked, Level, Load, own_key, residual, unit_bytes
from heliosd.estimation.robust import Moments, bounds, moments, student_99

_DOUBT = 4
"""Loads that the expected spread is worth against what a group shows; also the least degrees of freedom."""
_HEDGE = 1.25
"""Residuals of real fleets are skewed upwards: their upper ends lie further out than a normal distribution's."""
_OWN_STARTS = 5
"""Of one revision, so many of the last count."""
_OWN_SPREAD = {"weights": (0.002, 0), "kv_cache": (0.0, 0), "overhead": (0.04, 32 * MiB)}
"""What starts of the same thing may differ in before they have shown it: a share and bytes. On the host the overhead
counts pages shared between engines, and so depends on how many run."""
_OWN_FLOOR = {"weights": (0.01, 0), "kv_cache": (0.01, 0), "overhead": (0.1, 16 * MiB)}
"""Robust deviations smaller than this make nothing absurd."""


@dataclass(frozen=True, slots=True)
class Residual:
    """What to add to the law's likely value of a term, in bytes of one device."""

    likely_bytes: int
    low_bytes: int
    high_bytes: int
    """Booking the law's likely value and this is too little in one of 100 loads."""
    loads: int
    """That it rests on; 0: it is the law's own interval."""
    level: Level | None
    """The narrowest group that had loads; None: there was none."""
    contest: Contest | None = None
    """How a learned model fared against the groups; None: there were too few loads to tell."""
    learned: bool = False
    """The learned model said it, not the groups."""


@dataclass(frozen=True, slots=True)
class _Belief:
    """Of a term's residual, in its units: the predictive distribution of the next load."""

    mean: float
    spread: float
    freedom: int
    top: float = -inf
    """The largest believable value of the narrowest group that taught it."""

    @classmethod
    def of_law(cls, margin: float) -> "_Belief":
        """What the law's margin above its likely value says; no loads yet."""
        return cls(0.0, margin / (_HEDGE * student_99(_DOUBT)), _DOUBT)

    def taught(self, seen: Moments) -> "_Belief":
        """After the residuals of a group: the conjugate update, with this belief worth one load."""
        variance = self.spread**2 / 2  # a predictive spread holds the doubt about the mean: half of it at one load
        count = 1 + seen.count
        freedom = _DOUBT + seen.count
        astray = seen.count / count * (seen.mean - self.mean) ** 2
        variance = (_DOUBT * variance + seen.squares + astray) / freedom
        mean = (self.mean + seen.count * seen.mean) / count
        return _Belief(mean, sqrt(variance * (1 + 1 / count)), freedom, seen.top)

    @property
    def margin(self) -> float:
        return _HEDGE * student_99(self.freedom) * self.spread

    @property
    def high(self) -> float:
        return max(self.mean + self.margin, self.top)


class Calibration:
    """What a set of loads says. Building it takes a tenth of a second with a thousand, asking it microseconds."""

    def __init__(self, loads: Iterable[Load]) -> None:
        """`loads`: in the order in which they happened."""
        every = tuple(loads)
        self._own: dict[Hashable, list[Load]] = {}
        for load in every:
            self._own.setdefault(own_key(load.asked), []).append(load)
        self._groups = {term: Groups(every, term) for term in TERMS}
        self._contests = {term: contest(self._groups[term]) for term in TERMS}

    def residuals(self, asked: Asked, law: Mapping[str, Term]) -> dict[str, Residual]:
        """For each term of `law` (the law's own words, before any correction) what to add to it."""
        own = self._own.get(own_key(asked), ())[-_OWN_STARTS:]
        return {term: _measured(term, said, own) or self._alike(term, said, asked) for term, said in law.items()}

    def _alike(self, term: str, said: Term, asked: Asked) -> Residual:
        if term not in self._groups or said.likely_bytes <= 0:
            return _of_law(said)
        unit = unit_bytes(term, said.likely_bytes)
        margin = (said.high_bytes - said.likely_bytes) / unit
        tried = self._contests[term].get((asked.engine_kind, asked.device_kind))
        if tried is not None and tried.won and tried.model.knows(asked.features):
            errors = tried.errors
            # Held-out errors about zero, not about their mean: what it is off by on average is an error too.
            squares = errors.squares + errors.count * errors.mean**2
            off = _Belief.of_law(margin).taught(Moments(errors.count, 0.0, squares, errors.top))
            mean = tried.model.predict(asked.features)
            belief = _Belief(mean, off.spread, off.freedom, mean + off.top)
            return _in_bytes(belief, unit, said, errors.count, Level.ENGINE, tried, learned=True)
        belief, level, count = _Belief.of_law(margin), None, 0
        for each, seen in self._groups[term].rings(asked):
            if seen.count:
                belief, level, count = belief.taught(seen), each, count + seen.count
        if level is None:
            return _of_law(said)
        return _in_bytes(belief, unit, said, count, level, tried)


def apply(said: Term, residual: Residual) -> Term:
    """The law's term, corrected. Starts that took less than it said are no reason to book more than it does."""
    likely = said.likely_bytes
    low, middle, high = (
        max(0, likely + each) for each in (residual.low_bytes, residual.likely_bytes, residual.high_bytes)
    )
    if residual.level is not None and residual.likely_bytes < 0:
        high = max(middle, min(high, said.high_bytes))
    return Term(middle, low, high, f"{said.why}; {explain(said, residual)}")


def explain(said: Term, residual: Residual) -> str:
    """Where the correction comes from, in words."""
    if residual.level is None:
        return "not corrected: no start like it was measured here"
    starts = f"{residual.loads} start{'s' if residual.loads > 1 else ''}"
    if residual.level is Level.REVISION:
        likely = format_bytes(said.likely_bytes + residual.likely_bytes)
        return f"measured here: {likely}, the largest of {starts} of {residual.level}"
    share = f"{residual.likely_bytes / max(1, said.likely_bytes):+.1%}"
    by = "a model learned" if residual.learned else "corrected"
    words = f"{by} from {starts}, {share}; the nearest are of {residual.level}"
    return f"{words}; {residual.contest.words}" if residual.contest else words


def _of_law(said: Term) -> Residual:
    likely = said.likely_bytes
    return Residual(0, said.low_bytes - likely, said.high_bytes - likely, 0, None)


def _in_bytes(
    belief: _Belief,
    unit: float,
    said: Term,
    count: int,
    level: Level,
    tried: Contest | None,
    *,
    learned: bool = False,
) -> Residual:
    low, high = floor((belief.mean - belief.margin) * unit), ceil(belief.high * unit)
    likely = round(belief.mean * unit)
    least = -said.likely_bytes
    return Residual(max(least, likely), max(least, low), max(least, high), count, level, tried, learned)


def _measured(term: str, said: Term, own: Sequence[Load]) -> Residual | None:
    """What the same thing took the last times: the largest is likely, and the upper end a repeat's margin above."""
    took = [value for load in own if (value := _repeated(term, said, load)) is not None]
    if not took or term not in _OWN_SPREAD:
        return None
    share, least = _OWN_FLOOR[term]
    middle = sorted(took)[len(took) // 2]
    _, highest = bounds(took, share * middle + least)
    kept = [value for value in took if value <= highest]
    seen = moments(kept)
    share, least = _OWN_SPREAD[term]
    expected = (share * middle + least) / student_99(_DOUBT)
    freedom = _DOUBT + seen.count - 1
    spread = sqrt((_DOUBT * expected**2 + seen.squares) / freedom * (1 + 1 / seen.count))
    likely = round(max(kept))
    high = max(likely, ceil(seen.mean + student_99(freedom) * spread))
    law = said.likely_bytes
    return Residual(likely - law, floor(min(kept)) - law, high - law, len(took), Level.REVISION)


def _repeated(term: str, said: Term, load: Load) -> float | None:
    """What a load of the same thing took, in bytes; of the KV cache, whose size is given, its share of what it was."""
    measured = load.measured.get(term, 0)
    if measured <= 0:
        return None
    if term != "kv_cache":
        return float(measured)
    off = residual(load, term)
    return None if off is None else said.likely_bytes * (1 + off)
