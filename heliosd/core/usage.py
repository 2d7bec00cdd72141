"""How often each model is asked for, and what it would cost to have to start it again. Values in, values out."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from heliosd.core.crowd import Crowd
from heliosd.core.forecast import Forecast
from heliosd.core.placement import IDLE_GIB_S
from heliosd.core.places import Places
from heliosd.core.remembered import Remembered, recalled, remembered
from heliosd.core.start_forecast import SeenStart, StartForecast

HORIZON_S = 60.0
"""How far ahead eviction looks: who is not asked for within it is not missed."""
LOAD_BYTES_PER_S = 2 * 2**30
"""Of a model that was never started here; what was measured takes its place."""
LOAD_BASE_S = 3.0
WAKE_BYTES_PER_S = 16 * 2**30
"""From pinned host memory over PCIe; of a model that never woke here."""
WAKE_BASE_S = 0.3
SWAP_BASE_S = 0.3
"""Of a hot swap, besides the reading of the weights; where none was measured."""
USUAL_LEASE_S = 5.0
MOST_MODELS = 20_000


def usual_load_s(n_bytes: int) -> float:
    """Seconds of a start, where none was measured."""
    return LOAD_BASE_S + n_bytes / LOAD_BYTES_PER_S


@dataclass
class Usage:
    """Of all models. Written by the scheduler alone, except that whoever keeps it takes `unsaved`."""

    forecast: Forecast = field(default_factory=Forecast)
    reload_s: dict[str, float] = field(default_factory=dict)
    """What the last start took, from the command to ready."""
    wake_s: dict[str, float] = field(default_factory=dict)
    """What the last waking took."""
    swap_s: dict[str, float] = field(default_factory=dict)
    """What the last hot swap to it took."""
    idle_gib_s: float = IDLE_GIB_S
    """What a GiB that lies idle counts for, in seconds of starts."""
    lease_s: dict[str, float] = field(default_factory=dict)
    """How long a request is worked on; the mean of the last ones, the newest counting most."""
    starts: StartForecast = field(default_factory=StartForecast)
    """Phase by phase."""
    swaps: StartForecast = field(default_factory=StartForecast)
    """Likewise of starts in another's engine."""
    crowds: dict[str, Crowd] = field(default_factory=dict)
    """How many requests a replica of each model works on at once."""
    places: Places = field(default_factory=Places)
    """In which tier each model lies."""
    unsaved: set[str] = field(default_factory=set)
    """Models of which more is known than was taken to be kept."""

    def asked(self, model: str, at: float) -> None:
        habits = self.forecast.habits
        if model not in habits and len(habits) >= MOST_MODELS:
            self.forget(min(habits, key=lambda each: habits[each].heat.rate(at)))
        self.forecast.asked(model, at)
        self.unsaved.add(model)

    def started(self, model: str, took_s: float, seen: SeenStart | None = None) -> None:
        self.reload_s[model] = took_s
        if seen is not None:
            self.starts.saw(model, seen)
        if model in self.forecast.habits:
            self.unsaved.add(model)

    def forget(self, model: str) -> None:
        self.forecast.forget(model)
        for learned in (self.reload_s, self.wake_s, self.swap_s, self.lease_s):
            learned.pop(model, None)
        self.crowds.pop(model, None)
        self.starts.forget(model)
        self.swaps.forget(model)
        self.unsaved.discard(model)

    def seeded(
        self,
        at: float,
        epoch_offset_s: float,
        models: Iterable[Remembered],
        starts: Iterable[tuple[str, SeenStart]] = (),
        swaps: Iterable[tuple[str, SeenStart]] = (),
    ) -> None:
        """Take in what another life of the node knew. A model that was asked for in this one is left as it is."""
        self.starts.seeded(starts)
        self.swaps.seeded(swaps)
        self.forecast.epoch_offset_s = epoch_offset_s
        for each in models:
            if each.model not in self.forecast.habits and len(self.forecast.habits) < MOST_MODELS:
                recalled(each, self.forecast, epoch_offset_s, at)
                for learned, seconds in ((self.reload_s, each.reload_s), (self.wake_s, each.wake_s)):
                    if seconds is not None:
                        learned.setdefault(each.model, seconds)

    def to_keep(self, models: Iterable[str]) -> tuple[Remembered, ...]:
        """What is to be kept of these models; nothing while the time of day is not known."""
        offset_s = self.forecast.epoch_offset_s
        if offset_s is None:
            return ()
        return tuple(
            remembered(model, self.forecast, offset_s, self.reload_s.get(model), self.wake_s.get(model))
            for model in models
            if model in self.forecast.habits
        )

    def granted(self, model: str, load: int, at: float) -> None:
        """A replica of the model works on so many requests now."""
        self.crowds.setdefault(model, Crowd()).saw(load, at)

    def expected_at_once(self, model: str, at: float) -> int | None:
        """How many requests at once are to be expected of a replica at most; None: nobody knows."""
        crowd = self.crowds.get(model)
        return crowd.expected(at) if crowd else None

    def woke(self, model: str, took_s: float) -> None:
        self.wake_s[model] = took_s

    def swapped(self, model: str, took_s: float, seen: SeenStart | None = None) -> None:
        self.swap_s[model] = took_s
        if seen is not None:
            self.swaps.saw(model, seen)

    def swap(self, model: str, n_bytes: int, reload_s: float) -> float:
        """Seconds that reading `n_bytes` of weights into a running engine takes: what its swaps took, from the tier
        where it lies now; where nothing was measured, at most half of a start, which reads the same bytes and sets up
        an engine besides."""
        if own := self.swaps.own(model, self.places):
            return own.total_s
        read_s = self.places.read_s(model, n_bytes)
        usual_s = SWAP_BASE_S + (n_bytes / LOAD_BYTES_PER_S if read_s is None else read_s)
        return self.swap_s.get(model, min(usual_s, reload_s / 2))

    def released(self, model: str, held_s: float) -> None:
        self.lease_s[model] = self.lease_s.get(model, held_s) * 0.8 + held_s * 0.2

    def wake(self, model: str, n_bytes: int) -> float:
        """Seconds that waking takes."""
        return self.wake_s.get(model, WAKE_BASE_S + n_bytes / WAKE_BYTES_PER_S)

    def lease(self, model: str) -> float:
        """Seconds that a request is worked on."""
        return self.lease_s.get(model, USUAL_LEASE_S)

    def reuse(self, model: str, at: float) -> float:
        """The probability of a request within the horizon, requests coming at random: `1 - exp(-rate · horizon)`.

        The forecast is nearer the truth, but evicts no better than the rate, which costs less to work out.
        """
        habit = self.forecast.habits.get(model)
        return 0.0 if habit is None else -math.expm1(-habit.heat.rate(at) * HORIZON_S)

    def reload(self, model: str, n_bytes: int) -> float:
        """Seconds that a start takes: what it took before, phase by phase, its weights read from the tier where they
        lie now; the usual for its bytes and that tier, if it never started."""
        if own := self.starts.own(model, self.places):
            return own.total_s
        read_s = self.places.read_s(model)
        return self.reload_s.get(model, usual_load_s(n_bytes) if read_s is None else LOAD_BASE_S + read_s)

    def loss_s(self, model: str, n_bytes: int, at: float) -> float:
        """Seconds of waiting to be expected should a replica of `n_bytes` go: reuse · reload."""
        return self.reuse(model, at) * self.reload(model, n_bytes)
