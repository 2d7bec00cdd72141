"""How long each phase of a start will take, from the last starts of this model or of those like it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from heliosd.core.places import Places
from heliosd.core.preparations import BEFORE
from heliosd.core.retention import Tier

KEPT_EACH = 5
"""Starts of a model that count: the median of so few follows a change of the machine soon."""
KEPT_MODELS = 5000
SIMILAR = 20
"""Other models, those started last, that tell of a model without starts."""
WAITS = frozenset({"turn", "zygote"})
"""Not the start's own work: waiting for another start on the device, and for vLLM's imports."""
NOT_AGAIN = WAITS | BEFORE
"""What is here is not fetched again for the next start: that is forecast where it is under way."""
READING = "weights"
"""The phase that takes as long as the tier is slow."""
BY_BYTES = frozenset({READING, "check"})
"""Phases that take the longer the larger the model is; the others are taken to last alike."""
MOST_TIMES = 20.0
"""A model so much larger or smaller than another is not told more of by its bytes."""


@dataclass(frozen=True, slots=True)
class SeenStart:
    """What one start took."""

    phases: tuple[tuple[str, float], ...]
    """Seconds of each, in order."""
    weights_bytes: int
    """Of the model, on all its devices."""
    on: str = ""
    """The kind of device."""
    tier: Tier | None = None
    """The slowest that it was read from; None: nobody knew."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds of each phase to come, in order."""

    phases: tuple[tuple[str, float], ...]

    @property
    def total_s(self) -> float:
        return sum(seconds for _, seconds in self.phases)

    def doing(self, done: Collection[str]) -> tuple[str, float] | None:
        """The phase that comes after those, and what it is expected to take; None: all are done.

        What lies before the last one that is done is done, too: not every phase is told of in every start.
        """
        last = max((place for place, (phase, _) in enumerate(self.phases) if phase in done), default=-1)
        return self.phases[last + 1] if last + 1 < len(self.phases) else None

    def left_s(self, done: Collection[str], since_s: float) -> float:
        """Seconds until it is ready, `since_s` after the last of `done` ended.

        A phase that takes longer than expected is about to end; those behind it still come whole.
        """
        last = max((place for place, (phase, _) in enumerate(self.phases) if phase in done), default=-1)
        coming = [seconds for _, seconds in self.phases[last + 1 :]]
        return max(0.0, coming[0] - since_s) + sum(coming[1:]) if coming else 0.0


@dataclass
class StartForecast:
    """Written by the scheduler alone."""

    starts: dict[str, list[SeenStart]] = field(default_factory=dict)
    """By model, oldest first; the model started last comes last."""

    def saw(self, model: str, start: SeenStart) -> None:
        phases = tuple((phase, seconds) for phase, seconds in start.phases if phase not in NOT_AGAIN)
        if not phases:
            return
        known = self.starts.pop(model, [])
        self.starts[model] = [*known[-(KEPT_EACH - 1) :], replace(start, phases=phases)]
        while len(self.starts) > KEPT_MODELS:
            del self.starts[next(iter(self.starts))]

    def seeded(self, starts: Iterable[tuple[str, SeenStart]]) -> None:
        """Take in what another life of the node saw, oldest first, of models that did not start in this one."""
        here = frozenset(self.starts)
        for model, start in starts:
            if model not in here:
                self.saw(model, start)

    def forget(self, model: str) -> None:
        self.starts.pop(model, None)

    def own(self, model: str, places: Places | None = None) -> Expected | None:
        """From the starts of the model itself; None when there was none.

        With `places`, from those out of the tier where it lies now; where there are none, as if all had been.
        """
        starts = self.starts.get(model)
        if not starts:
            return None
        if places is None or (tier := places.tier(model)) is None:
            return _medians([dict(start.phases) for start in starts])
        same = [start for start in starts if start.tier is tier]
        return _medians([_from_here(start, model, start.weights_bytes, places) for start in same or starts])

    def expected(
        self, model: str, weights_bytes: int, kinds: Collection[str] = (), places: Places | None = None
    ) -> Expected | None:
        """From its own starts; else from those of other models on the same kind of device, for its bytes and tier.

        `kinds`: of device that it may run on; empty: any. None when nothing like it ever started.
        """
        if own := self.own(model, places):
            return own
        like = [starts[-1] for starts in self.starts.values() if not kinds or starts[-1].on in kinds]
        scaled = [replace(start, phases=tuple(_scaled(start, weights_bytes).items())) for start in like[-SIMILAR:]]
        return _medians([_from_here(start, model, weights_bytes, places) for start in scaled]) if scaled else None


def _from_here(start: SeenStart, model: str, weights_bytes: int, places: Places | None) -> dict[str, float]:
    """Its phases, had it read `weights_bytes` from the tier where the model lies now."""
    phases = dict(start.phases)
    if places is not None and READING in phases:
        phases[READING] = places.from_here_s(model, phases[READING], weights_bytes, start.tier)
    return phases


def _medians(starts: list[Mapping[str, float]]) -> Expected:
    """Of each phase, over the starts that had it, if most had; in the order of the last start, then of earlier ones."""
    names = dict.fromkeys(phase for start in reversed(starts) for phase in start)
    found = []
    for name in names:
        seen = [start[name] for start in starts if name in start]
        if len(seen) * 2 >= len(starts):
            found.append((name, median(seen)))
    return Expected(tuple(found))


def _scaled(start: SeenStart, weights_bytes: int) -> dict[str, float]:
    times = weights_bytes / start.weights_bytes if start.weights_bytes > 0 and weights_bytes > 0 else 1.0
    times = min(MOST_TIMES, max(1 / MOST_TIMES, times))
    return {phase: seconds * (times if phase in BY_BYTES else 1.0) for phase, seconds in start.phases}
