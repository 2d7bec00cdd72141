"""Tells a leak from memory that is used: does what is held while idle grow for a whole window?

Readings are kept per slice of the window, in each the lowest at the lowest use, so that what comes and goes with
requests does not count. Nothing here is a leak that settles, that comes in one step, that fills a KV cache, or that is
slower than the policy allows.
"""

from dataclasses import dataclass, field, replace
from statistics import median

from heliosd.core.trend import Trend, trend
from heliosd.core.units import format_bytes

SLICES = 48
"""Of a window: so many readings are kept at most."""
_LEAST_SHARE = 0.75
"""Of the window must be covered before anything is called a leak."""
_LEAST_READINGS = 12
_CONFIRMED = 4
"""Slices in a row must say so."""


@dataclass(frozen=True, slots=True)
class LeakPolicy:
    """What the operator calls a leak, and whether something is done about it."""

    recycle: bool = True
    window_s: float = 3600.0
    warm_up_s: float = 300.0
    """After a replica became ready nothing counts for so long."""
    most_bytes_per_hour: int = 64 * 1024**2
    """Slower growth is no leak."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that was held in one slice of the window."""

    at: float
    n_bytes: int
    use: int
    """0: idle. Else one more than the tenths of its KV cache in use."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the readings of a window say."""

    leak: bool
    why: str
    """With the arithmetic."""
    slope: float = 0.0
    """Bytes a second; zero where nothing rises."""
    grown_bytes: int = 0
    floor_bytes: int = 0
    """Held while idle, lately."""
    readings: int = 0
    span_s: float = 0.0


NOTHING_YET = Verdict(False, "too few readings yet")


@dataclass
class Series:
    """The floors of one thing's memory, the oldest first; never more than `SLICES`."""

    since: float
    """Readings before do not count."""
    floors: list[Floor] = field(default_factory=list)
    verdict: Verdict = NOTHING_YET
    in_a_row: int = 0
    """Verdicts that called it a leak."""

    def read(self, at: float, n_bytes: int, use: int, policy: LeakPolicy, allowance_bytes: int = 0) -> bool:
        """Take a reading in; judges when a slice is full, and says whether it did. `allowance_bytes`: growth that is
        no leak."""
        if at < self.since:
            return False
        now = Floor(at, n_bytes, use)
        width_s = policy.window_s / SLICES
        if not self.floors or int((at - self.since) / width_s) > int((self.floors[-1].at - self.since) / width_s):
            if self.floors:
                found = judge(self.floors, policy, allowance_bytes)
                self.in_a_row = self.in_a_row + 1 if found.leak else 0
                self.verdict = replace(found, leak=self.in_a_row >= _CONFIRMED)
            self.floors = [each for each in self.floors if each.at > at - policy.window_s][-(SLICES - 1) :]
            self.floors.append(now)
            return True
        kept = self.floors[-1]
        if (use, n_bytes) < (kept.use, kept.n_bytes):
            self.floors[-1] = Floor(kept.at, n_bytes, use)
        return False


def judge(floors: list[Floor], policy: LeakPolicy, allowance_bytes: int = 0) -> Verdict:
    """Is it a leak? Only floors of one use are compared: idle ones where there are enough, else the commonest."""
    alike = _alike(floors)
    found = trend([(each.at, float(each.n_bytes)) for each in alike])
    if found is None or len(alike) < _LEAST_READINGS or found.span_s < policy.window_s * _LEAST_SHARE:
        floor_bytes = alike[-1].n_bytes if alike else 0
        return Verdict(False, NOTHING_YET.why, floor_bytes=floor_bytes, readings=len(alike))
    third = len(alike) // 3
    last = int(median(each.n_bytes for each in alike[-third:]))
    ends = median(each.n_bytes for each in alike[-3:]) - median(each.n_bytes for each in alike[:3])
    grown = max(0, int(min(found.slope * found.span_s, ends)))
    leak, why = _weigh(found, grown, policy, allowance_bytes)
    slope = found.slope if found.rises else 0.0
    return Verdict(leak, why, slope, grown, last, found.readings, found.span_s)


def _alike(floors: list[Floor]) -> list[Floor]:
    idle = [each for each in floors if each.use == 0]
    if len(idle) >= _LEAST_READINGS:
        return idle
    uses = [each.use for each in floors]
    commonest = max(sorted(set(uses)), key=uses.count, default=0)
    return [each for each in floors if each.use == commonest]


def _weigh(found: Trend, grown_bytes: int, policy: LeakPolicy, allowance_bytes: int) -> tuple[bool, str]:
    hourly = f"{format_bytes(max(0, int(found.slope * 3600)))} an hour"
    if not found.rises:
        return False, "steady" if found.z <= 0 or found.slope <= 0 else f"no lasting growth ({hourly})"
    if found.low * 3600 <= policy.most_bytes_per_hour:
        most = format_bytes(policy.most_bytes_per_hour)
        return False, f"grows by {hourly}, surely by no more than the {most} that are allowed"
    if grown_bytes <= allowance_bytes + policy.most_bytes_per_hour * found.span_s / 3600:
        cache = format_bytes(allowance_bytes)
        return False, f"grew by {format_bytes(grown_bytes)} of the {cache} that its KV cache had yet to fill"
    return True, (
        f"grows by {hourly} ({format_bytes(int(found.low * 3600))} to {format_bytes(int(found.high * 3600))} with 99 % "
        f"certainty; {format_bytes(policy.most_bytes_per_hour)} are allowed), by {format_bytes(grown_bytes)} in "
        f"{found.span_s:.0f} s: {found.readings} readings at equal use, rank test z = {found.z:.1f}"
    )
