"""How often each model is asked for, and what it would cost to have to start it again. Values in, values out.

A model's requests are remembered at three speeds: by minutes, by the half hour and by the day. Each request adds one
to a heat that halves in that time, so a steady stream of `r` a second settles at `r · half-life ÷ ln 2`, and the heats
give the rate back; recent bursts and old habits both count, with the weights below.
"""

import math
from dataclasses import dataclass, field

HALF_LIVES_S = (120.0, 1800.0, 86_400.0)
WEIGHTS = (0.1, 0.6, 0.3)
HORIZON_S = 60.0
"""How far ahead eviction looks: who is not asked for within it is not missed."""
LOAD_BYTES_PER_S = 2 * 2**30
"""Of a model that was never started here; what was measured takes its place."""
LOAD_BASE_S = 3.0
WAKE_BYTES_PER_S = 16 * 2**30
"""From pinned host memory over PCIe; of a model that never woke here."""
WAKE_BASE_S = 0.3
USUAL_LEASE_S = 5.0


def usual_load_s(n_bytes: int) -> float:
    """Seconds of a start, where none was measured."""
    return LOAD_BASE_S + n_bytes / LOAD_BYTES_PER_S


@dataclass
class Heat:
    """One model's requests, as they fade."""

    at: float = 0.0
    levels: list[float] = field(default_factory=lambda: [0.0] * len(HALF_LIVES_S))

    def asked(self, at: float) -> None:
        self.levels = [level + 1 for level in self._faded(at)]
        self.at = max(self.at, at)

    def rate(self, at: float) -> float:
        """Requests a second to be expected from here on."""
        faded = zip(self._faded(at), HALF_LIVES_S, WEIGHTS, strict=True)
        return sum(weight * level * math.log(2) / half_life for level, half_life, weight in faded)

    def _faded(self, at: float) -> list[float]:
        passed_s = max(0.0, at - self.at)
        return [
            level * 0.5 ** (passed_s / half_life) for level, half_life in zip(self.levels, HALF_LIVES_S, strict=True)
        ]


MOST_MODELS = 20_000


@dataclass
class Usage:
    """Of all models. Written by the scheduler alone."""

    heats: dict[str, Heat] = field(default_factory=dict)
    reload_s: dict[str, float] = field(default_factory=dict)
    """What the last start took, from the command to ready."""
    wake_s: dict[str, float] = field(default_factory=dict)
    """What the last waking took."""
    lease_s: dict[str, float] = field(default_factory=dict)
    """How long a request is worked on; the mean of the last ones, the newest counting most."""

    def asked(self, model: str, at: float) -> None:
        if model not in self.heats and len(self.heats) >= MOST_MODELS:
            coldest = min(self.heats, key=lambda each: self.heats[each].rate(at))
            del self.heats[coldest]
        self.heats.setdefault(model, Heat()).asked(at)

    def started(self, model: str, took_s: float) -> None:
        self.reload_s[model] = took_s

    def woke(self, model: str, took_s: float) -> None:
        self.wake_s[model] = took_s

    def released(self, model: str, held_s: float) -> None:
        self.lease_s[model] = self.lease_s.get(model, held_s) * 0.8 + held_s * 0.2

    def wake(self, model: str, n_bytes: int) -> float:
        """Seconds that waking takes."""
        return self.wake_s.get(model, WAKE_BASE_S + n_bytes / WAKE_BYTES_PER_S)

    def lease(self, model: str) -> float:
        """Seconds that a request is worked on."""
        return self.lease_s.get(model, USUAL_LEASE_S)

    def reuse(self, model: str, at: float) -> float:
        """The probability of a request within the horizon, requests coming at random: `1 - exp(-rate · horizon)`."""
        heat = self.heats.get(model)
        return 0.0 if heat is None else -math.expm1(-heat.rate(at) * HORIZON_S)

    def reload(self, model: str, n_bytes: int) -> float:
        """Seconds that a start takes."""
        return self.reload_s.get(model, usual_load_s(n_bytes))

    def loss_s(self, model: str, n_bytes: int, at: float) -> float:
        """Seconds of waiting to be expected should a replica of `n_bytes` go: reuse · reload."""
        return self.reuse(model, at) * self.reload(model, n_bytes)
