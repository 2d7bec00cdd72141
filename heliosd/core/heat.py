"""How fast a model is asked for, as it fades. Values in, values out.

Each request adds one to three heats, which halve in minutes, in half an hour and in a day: a steady stream of `r` a
second settles at `r · half-life ÷ ln 2`, and so the heats give the rate back. Recent bursts and old habits both count,
with the weights below.
"""

import math
from dataclasses import dataclass, field

HALF_LIVES_S = (120.0, 1800.0, 86_400.0)
WEIGHTS = (0.1, 0.6, 0.3)
_FADE = tuple(math.log(2) / half_life for half_life in HALF_LIVES_S)
_RATE = tuple(weight * fade for weight, fade in zip(WEIGHTS, _FADE, strict=True))


@dataclass(slots=True)
class Heat:
    """One model's requests, as they fade."""

    at: float = 0.0
    levels: list[float] = field(default_factory=lambda: [0.0] * len(HALF_LIVES_S))

    def asked(self, at: float) -> None:
        passed_s = max(0.0, at - self.at)
        self.levels = [level * math.exp(-passed_s * fade) + 1 for level, fade in zip(self.levels, _FADE, strict=True)]
        self.at = max(self.at, at)

    def rate(self, at: float) -> float:
        """Requests a second to be expected from here on."""
        # Written out: eviction and prefetch ask this of a thousand models at a time.
        passed_s = max(0.0, at - self.at)
        minutes, half_hours, days = self.levels
        return (
            _RATE[0] * minutes * math.exp(-passed_s * _FADE[0])
            + _RATE[1] * half_hours * math.exp(-passed_s * _FADE[1])
            + _RATE[2] * days * math.exp(-passed_s * _FADE[2])
        )
